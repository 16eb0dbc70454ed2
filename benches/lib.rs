//! What do the benches share? A repository with data in a temporary folder, and the bare parts that Quern is made of.
//!
//! [`bare`] does what a look-up and a prediction cannot do without, written by hand for one set of columns. Quern is
//! judged by how close it comes to that.

pub mod bare;
pub mod online;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use quern_server::{Quern, Settings, apply, repository};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A repository in a folder that goes with it, and a Quern on it.
pub struct Repository {
    /// What the definitions were applied to.
    pub quern: Arc<Quern>,
    /// Runs what is async.
    pub runtime: Runtime,
    /// Where the repository lies.
    pub folder: TempDir,
}

impl Repository {
    /// Writes `files` as Parquet and applies `definitions`. `prepare` may add more to the folder before.
    pub fn new(definitions: &str, files: &[(&str, RecordBatch)], prepare: impl FnOnce(&Path)) -> Repository {
        Repository::with_settings(definitions, files, prepare, &[])
    }

    /// The same, with settings other than those of the environment.
    pub fn with_settings(
        definitions: &str,
        files: &[(&str, RecordBatch)],
        prepare: impl FnOnce(&Path),
        settings: &[(&str, String)],
    ) -> Repository {
        let folder = TempDir::new().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("definitions.yaml"), definitions).expect("written");
        for (name, rows) in files {
            let file = std::fs::File::create(at(name)).expect("a new file");
            let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("a Parquet writer");
            writer.write(rows).expect("written");
            writer.close().expect("written");
        }
        prepare(folder.path());
        let runtime = Runtime::new().expect("a tokio runtime");
        let quern = runtime.block_on(async {
            let settings = Settings::load(folder.path(), settings).expect("sound settings");
            let quern = Quern::open(settings).await.expect("a new data folder");
            let files = repository::read(folder.path()).expect("the definitions");
            let candidate = apply::check(&quern, files).await.unwrap_or_else(|mistakes| panic!("{mistakes}"));
            apply::apply(&quern, candidate).await.unwrap_or_else(|refusal| panic!("{refusal}"));
            quern
        });
        Repository { quern, runtime, folder }
    }
}

/// Pseudo-random numbers, the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// A number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }
}

/// Runs `ours` and `bare` in turn until both have run for about a second, and prints the medians and their ratio. In
/// turn, since whatever else the machine does then meets both.
pub fn beside(what: &str, mut ours: impl FnMut(), mut bare: impl FnMut()) {
    let mut samples: [Vec<f64>; 2] = Default::default();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let mut sample = |side: usize, run: &mut dyn FnMut()| {
            let start = Instant::now();
            (0..REPEAT).for_each(|_| run());
            samples[side].push(start.elapsed().as_secs_f64() * 1e6 / f64::from(REPEAT));
        };
        sample(0, &mut ours);
        sample(1, &mut bare);
    }
    let [ours, bare] = samples.map(|mut samples| median(&mut samples));
    println!("{what:44} {ours:9.1} µs   bare {bare:9.1} µs   ratio {:.2}", ours / bare);
}

/// How often a side runs for one sample: often enough that reading the clock does not matter.
const REPEAT: u32 = 8;

/// The middle one.
pub fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
