//! Which numbers does a test draw? Those of a seed that it prints.

use std::time::{Duration, SystemTime};

/// SplitMix64 (Steele, Lea, Flood 2014): a seed is all there is to know of it.
pub(crate) struct Random(u64);

impl Random {
    /// Another seed each time; the test prints it, and a failure shows what was printed.
    pub(crate) fn new(what: &str) -> Random {
        let seed = std::env::var("QUERN_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = seed.unwrap_or_else(clock);
        println!("{what}: QUERN_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, duration: Duration) -> Duration {
        duration.mul_f64((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
}
