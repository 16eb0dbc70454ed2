//! What do the benches share? A repository with data in a temporary folder, and the bare parts that Quern is made of.
//!
//! [`bare`] does what a look-up and a prediction cannot do without, written by hand for one set of columns. Quern is
//! judged by how close it comes to that.

pub mod bare;
pub mod load;
pub mod online;

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use quern_kit::{Node, Repository};
use tokio::runtime::Runtime;

/// A repository that is open and applied, and the runtime that it is asked from.
pub struct Bench {
    /// What the definitions were applied to.
    pub node: Node,
    /// Runs what is async.
    pub runtime: Runtime,
    /// Where the files lie.
    pub repository: Repository,
}

impl Bench {
    /// Opens a repository of these definitions, with `files` as Parquet in it.
    pub fn new(definitions: &str, files: &[(&str, RecordBatch)]) -> Bench {
        let repository = Repository::new(definitions);
        files.iter().for_each(|(name, rows)| repository.write_parquet(name, rows));
        Bench::open(repository, &[])
    }

    /// Opens the repository with these settings.
    pub fn open(repository: Repository, settings: &[(&str, String)]) -> Bench {
        let runtime = Runtime::new().expect("a tokio runtime");
        let node = runtime.block_on(repository.open_applied_with(settings));
        Bench { node, runtime, repository }
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
