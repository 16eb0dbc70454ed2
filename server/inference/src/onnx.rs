//! What does one ONNX file say of these columns?
//!
//! A session of ONNX Runtime serves one caller at a time, so a file has several, made when it is loaded. Each runs on
//! its caller's thread only (one thread, no spinning, no arena): for the models that features feed, that beat ONNX
//! Runtime's own threads.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use feature_defs::Isolation;
use quern_engine::caught::caught;
use quern_engine::fit::{Feature, Fit, Signature, Tensor};

use crate::counts::Work;
use crate::error::Result;
use crate::policy::Limits;
use crate::pool::{Pool, Pressure, Traits};
use crate::provider::Provider;
use crate::rules::Rules;
use crate::run::Cost;
use crate::runner::Runner;
use crate::runtime::{Runtime, unreadable};
use crate::worker::{Found, Plan, Worker};
use crate::{bounds, graph, needs, queue, sizes, trees, weights};

/// All sessions of one file together hold about as much as this, unless one session holds more.
const POOL_BYTES_MAX: usize = 1 << 30;
/// What a session holds for each byte of its file, about.
const SESSION_BYTES_PER_FILE_BYTE: usize = 3;
/// How many rows a model is tried on, after one.
const TRIAL_ROWS: usize = 32;
/// How often; after this time no more than once.
const TRIAL_ROUNDS: usize = 4;
const TRIAL_TIME: Duration = Duration::from_secs(1);

/// An ONNX file, loaded, fitted to the columns that it reads, and tried.
#[derive(Debug)]
pub(crate) struct Onnx {
    /// Its inputs and outputs.
    pub(crate) signature: Signature,
    /// Its outputs as columns.
    pub(crate) outputs: SchemaRef,
    /// What it runs on.
    pub(crate) provider: Provider,
    pub(crate) fit: Fit,
    is_isolated: bool,
    pool: Arc<Pool>,
}

impl Onnx {
    /// Loads the file `onnx`, fits it to `columns`, which people call `of`, and tries it on one row and on several.
    ///
    /// # Errors
    /// Why it cannot go live: no ONNX file, inputs that are not the columns (both shapes side by side), a run that
    /// fails, or outputs that are not one row for each row in.
    pub(crate) fn load(
        runtime: &Runtime,
        onnx: &[u8],
        (of, columns): (&str, &[Feature]),
        rules: &Rules,
    ) -> std::result::Result<Onnx, String> {
        // Types that the binding does not know end in a panic there; a file must not be able to cause one here.
        caught(|| Onnx::try_load(runtime, onnx, (of, columns), rules)).unwrap_or_else(|_| {
            Err("ONNX Runtime's binding gave up on the file: it holds types unknown to it".to_owned())
        })
    }

    fn try_load(
        runtime: &Runtime,
        onnx: &[u8],
        (of, columns): (&str, &[Feature]),
        rules: &Rules,
    ) -> std::result::Result<Onnx, String> {
        // ONNX Runtime would look for them wherever this process happens to run.
        if let Some(file) = weights::files(onnx).first() {
            return Err(format!("the file lacks its weights: they lie in `{file}`"));
        }
        let (runtime, whose) = (runtime.clone(), [rules.model.clone(), rules.version.clone()]);
        let plan = Arc::new(Plan { runtime, onnx: Bytes::copy_from_slice(onnx), whose });
        // Whatever a file does to a process, it does to that one first.
        let (worker, Found { signature, provider }) = Worker::start(Arc::clone(&plan))?;
        let fit = Fit::new(of, columns, &signature)?;
        if let Some(beyond) = trees::beyond(onnx, &fit.zeros(1)) {
            return Err(beyond);
        }
        let mut runner = Runner::Worker(worker);
        let trial = Trial::of(&mut runner, &fit)?;
        let ended = trial.ended || !runner.is_up();
        let is_isolated = match rules.isolation {
            Isolation::Auto => ended || trial.cost.is_long() || !is_harmless(onnx),
            Isolation::Process => true,
            Isolation::Thread if ended => {
                return Err("tried on made-up rows, the model ends the process that runs it: leave out \
                            `isolation: thread`"
                    .to_owned());
            }
            Isolation::Thread => false,
        };
        let size = pool_size(onnx.len(), rules.batching.concurrency);
        let (runners, trial) =
            if is_isolated { (workers(runner, &plan, size)?, trial) } else { here(&plan, &fit, size)? };
        let traits = Traits { cost: trial.cost, alike: trial.alike, uneven: needs::repeats(onnx) };
        let pool = Arc::new(Pool::new(runners, traits, rules.batching));
        Ok(Onnx { signature, outputs: trial.outputs, provider, fit, is_isolated, pool })
    }

    /// Whether its runs are in processes of their own.
    pub(crate) fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.pool.pressure()
    }

    pub(crate) fn work(&self) -> Work {
        self.pool.counts.work()
    }

    /// How many runs there are at the same time.
    pub(crate) fn sessions(&self) -> usize {
        self.pool.sessions()
    }

    /// Runs on this thread and, while all sessions are taken, waits.
    pub(crate) fn run_here(&self, columns: &RecordBatch) -> Result<RecordBatch> {
        if columns.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.outputs)));
        }
        queue::run_here(&self.pool, self.fit.tensors(columns)?, columns.num_rows())
    }

    /// Runs without ever blocking the async runtime, perhaps together with others.
    pub(crate) async fn run(&self, columns: &RecordBatch, limits: Limits) -> Result<RecordBatch> {
        if columns.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.outputs)));
        }
        queue::run(&self.pool, self.fit.tensors(columns)?, columns.num_rows(), limits).await
    }
}

/// Whether no operator of a file is known to end, hang or fill the process that runs it.
fn is_harmless(onnx: &[u8]) -> bool {
    graph::Model::of(onnx)
        .is_some_and(|model| bounds::out_of_bounds(&model).is_none() && sizes::by_values(&model).is_none())
}

/// As many sessions as there are cores, or as are asked for; fewer for a model so large that they would fill the
/// memory.
fn pool_size(file_bytes: usize, asked: Option<u32>) -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    let session_bytes = file_bytes.saturating_mul(SESSION_BYTES_PER_FILE_BYTE).max(1);
    let most = asked.map_or(cores, |asked| asked as usize);
    (POOL_BYTES_MAX / session_bytes).clamp(1, most)
}

/// `first` and as many more as make `size`.
fn workers(first: Runner, plan: &Arc<Plan>, size: usize) -> std::result::Result<Vec<Runner>, String> {
    let mut runners = vec![first];
    while runners.len() < size {
        runners.push(Runner::Worker(Worker::start(Arc::clone(plan))?.0));
    }
    let live = |runner| match runner {
        Runner::Worker(worker) => Runner::Worker(worker.live()),
        here => here,
    };
    Ok(runners.into_iter().map(live).collect())
}

/// Sessions in this process, tried once more: what a run costs is another thing here.
fn here(plan: &Plan, fit: &Fit, size: usize) -> std::result::Result<(Vec<Runner>, Trial), String> {
    let session = || match plan.runtime.session(&plan.onnx) {
        Ok((session, _)) => Ok(Runner::Here(session)),
        Err(error) => Err(unreadable(&plan.onnx, &error)),
    };
    let mut runners = vec![session()?];
    let trial = Trial::of(&mut runners[0], fit)?;
    while runners.len() < size {
        runners.push(session()?);
    }
    Ok((runners, trial))
}

/// What a trial shows.
struct Trial {
    cost: Cost,
    /// The outputs as columns.
    outputs: SchemaRef,
    /// Whether a row gets the same bits whatever company it is in.
    alike: bool,
    /// Whether it ended the process that it ran in.
    ended: bool,
}

impl Trial {
    /// On zeros; on ones where these fail, as a division by zero does.
    fn of(runner: &mut Runner, fit: &Fit) -> std::result::Result<Trial, String> {
        let on_zeros = match Trial::on(|rows| fit.zeros(rows), runner, fit) {
            Err(on_zeros) => on_zeros,
            done => return done,
        };
        let ended = !runner.is_up();
        let on_ones = Trial::on(|rows| fit.ones(rows), runner, fit);
        on_ones.map(|trial| Trial { ended, ..trial }).map_err(|_| on_zeros)
    }

    fn on(
        inputs: impl Fn(usize) -> Vec<Tensor>,
        runner: &mut Runner,
        fit: &Fit,
    ) -> std::result::Result<Trial, String> {
        let mut micros = [f64::INFINITY; 2];
        let mut outputs = None;
        let begun = Instant::now();
        // Several rows show an output that is not one row for each row in; the fastest of several runs is the one that
        // nothing else on the machine got in the way of.
        for round in 0..TRIAL_ROUNDS {
            if round > 0 && begun.elapsed() > TRIAL_TIME {
                break;
            }
            for (rows, micros) in [1, TRIAL_ROWS].into_iter().zip(&mut micros) {
                let inputs = inputs(rows);
                let start = Instant::now();
                let ran = runner
                    .run(inputs, rows, None)
                    .map_err(|error| format!("tried on {rows} row(s) of zeros, the model fails: {error}"))?;
                *micros = micros.min(start.elapsed().as_secs_f64() * 1e6);
                outputs = Some(ran.schema());
            }
        }
        let [first, all] = micros;
        let cost = Cost { micros: first, micros_per_row: (all - first).max(0.0) / (TRIAL_ROWS - 1) as f64 };
        let outputs = outputs.ok_or("the model was not tried")?;
        Ok(Trial { cost, outputs, alike: alike_in_company(runner, fit), ended: false })
    }
}

/// Whether a row gets the same bits alone and among others. Some kernels take another way for one row than for many;
/// then requests must not share a run, or an answer would depend on who asked at the same time.
fn alike_in_company(runner: &mut Runner, fit: &Fit) -> bool {
    let all = fit.noise(TRIAL_ROWS);
    let Ok(together) = runner.run(all.clone(), TRIAL_ROWS, None) else { return false };
    // Three parts of other sizes: one row, a few, and the rest.
    let parts = [(0, 1), (1, 5), (6, TRIAL_ROWS - 6)];
    parts.into_iter().all(|(start, rows)| {
        let part = all.iter().map(|tensor| tensor.slice(start, rows)).collect();
        runner.run(part, rows, None).is_ok_and(|alone| same_bits(&alone, &together.slice(start, rows)))
    })
}

/// Arrow compares the bytes of numbers: NaN is NaN, and -0 is not 0.
fn same_bits(a: &RecordBatch, b: &RecordBatch) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.to_data() == b.to_data())
}
