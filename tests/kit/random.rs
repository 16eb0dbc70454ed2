//! Which numbers does a test or a benchmark draw? Those of a seed, which a test prints.

use std::time::{Duration, SystemTime};

/// SplitMix64 (Steele, Lea, Flood 2014): a seed is all there is to know of it.
pub struct Random(u64);

impl Random {
    /// Starts from another seed each time; the test prints it, and a failure shows what was printed.
    pub fn new(what: &str) -> Random {
        let seed = std::env::var("QUERN_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = seed.unwrap_or_else(clock);
        println!("{what}: QUERN_SEED={seed}");
        Random(seed)
    }

    /// Starts from `seed`: the same numbers in every run.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// Draws any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Draws a number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }

    /// Draws a part of `whole`.
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.unit())
    }

    /// Draws one of several.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}
