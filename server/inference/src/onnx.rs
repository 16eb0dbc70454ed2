//! What does one ONNX file say of these columns?
//!
//! A session of ONNX Runtime serves one caller at a time, so a file has several, made when it is loaded. Each runs on
//! its caller's thread only (one thread, no spinning, no arena): for the models that features feed, that beat ONNX
//! Runtime's own threads.

use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use feature_defs::{Isolation, ModelFile};
use quern_engine::caught::caught;
use quern_engine::fit::{Fit, Port, Signature};

use crate::fed::{By, Fed, Feed};
use crate::pool::{Pool, Traits};
use crate::rules::Rules;
use crate::runner::Runner;
use crate::runtime::{Runtime, unreadable};
use crate::trial::{Trial, Tries};
use crate::worker::{Found, Plan, Worker};
use crate::{bounds, graph, kept, needs, sizes, trees, weights};

/// All sessions of one file together hold about as much as this, unless one session holds more.
const POOL_BYTES_MAX: usize = 1 << 30;
/// What a session holds for each byte of its file, about.
const SESSION_BYTES_PER_FILE_BYTE: usize = 3;

/// Loads the file `onnx`, fits it to what feeds it, and tries it on one row and on several.
///
/// # Errors
/// Why it cannot go live: no ONNX file, inputs that are not the columns (both shapes side by side), a run on its
/// examples that fails, or outputs that are not one row for each row in.
pub(crate) fn load(
    runtime: &Runtime,
    onnx: &Bytes,
    (file, feed): (&ModelFile, &Feed<'_>),
    rules: &Rules,
) -> Result<Fed, String> {
    // Types that the binding does not know end in a panic there; a file must not be able to cause one here.
    caught(|| try_load(runtime, onnx, (file, feed), rules)).unwrap_or_else(|_| {
        Err("ONNX Runtime's binding gave up on the file: it holds types unknown to it".to_owned())
    })
}

fn try_load(
    runtime: &Runtime,
    onnx: &Bytes,
    (file, feed): (&ModelFile, &Feed<'_>),
    rules: &Rules,
) -> Result<Fed, String> {
    // ONNX Runtime would look for them wherever this process happens to run.
    if let Some(file) = weights::files(onnx).first() {
        return Err(format!("the file lacks its weights: they lie in `{file}`"));
    }
    let (runtime, whose) = (runtime.clone(), [rules.model.clone(), rules.version.clone()]);
    let outputs: Vec<&str> = file.outputs.iter().map(|output| output.sql.as_str()).collect();
    let onnx = match outputs.as_slice() {
        [] => onnx.clone(),
        outputs => kept::keep(onnx, outputs)?.into(),
    };
    let plan = Arc::new(Plan { runtime, onnx: onnx.clone(), whose });
    // Whatever a file does to a process, it does to that one first.
    let (worker, Found { signature, declared, provider }) = Worker::start(Arc::clone(&plan))?;
    if let Some(scalar) = scalar(&onnx, &signature) {
        return Err(format!(
            "input `{scalar}` is a single value for all rows (its shape is []), and rows bring one each: make it a constant of \
             the file, or give it a first dimension, the row"
        ));
    }
    let fit = Fit::new(feed.of, feed.columns, &file.inputs, &signature)?;
    if let Some(beyond) = trees::beyond(&onnx, &fit.zeros(1)) {
        return Err(beyond);
    }
    let mut runner = Runner::Worker(worker);
    let examples = feed.examples.map(|examples| fit.tensors(examples)).transpose();
    let examples = examples.map_err(|error| format!("`examples`: {error}"))?;
    let tries = Tries { fit: &fit, examples: examples.as_deref(), declared: declared.as_ref() };
    let trial = tries.of(&mut runner)?;
    let ended = trial.ended || !runner.is_up();
    let is_isolated = match rules.isolation {
        Isolation::Auto => ended || trial.cost.is_long() || !is_harmless(&onnx),
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
        if is_isolated { (workers(runner, &plan, size)?, trial) } else { here(&plan, &tries, size)? };
    let traits = Traits { cost: trial.cost, alike: trial.alike, uneven: needs::repeats(&onnx) };
    let pool = Arc::new(Pool::new(runners, traits, rules.batching));
    let Trial { outputs, tried, .. } = trial;
    let by = By::File { provider, is_isolated };
    Ok(Fed { signature, outputs, fit, tried, by, pool })
}

/// An input of no dimension, which ONNX Runtime does not tell from one of any.
fn scalar(onnx: &[u8], signature: &Signature) -> Option<String> {
    let open = signature.inputs.iter().filter(|port| port.shape.is_empty());
    let inputs = graph::Model::of(onnx)?.graph?.inputs;
    let is_scalar = |port: &&Port| inputs.iter().any(|input| input.name == port.name && input.is_scalar());
    open.filter(is_scalar).map(|port| port.name.clone()).next()
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
fn workers(first: Runner, plan: &Arc<Plan>, size: usize) -> Result<Vec<Runner>, String> {
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
fn here(plan: &Plan, tries: &Tries<'_>, size: usize) -> Result<(Vec<Runner>, Trial), String> {
    let session = || match plan.runtime.session(&plan.onnx) {
        Ok((session, _)) => Ok(Runner::Here(session)),
        Err(error) => Err(unreadable(&plan.onnx, &error)),
    };
    let mut runners = vec![session()?];
    let trial = tries.of(&mut runners[0])?;
    while runners.len() < size {
        runners.push(session()?);
    }
    Ok((runners, trial))
}
