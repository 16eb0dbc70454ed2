//! What does one ONNX file say of these columns?
//!
//! A session of ONNX Runtime serves one caller at a time, so a file has several, made when it is loaded. Each runs on
//! its caller's thread only (one thread, no spinning, no arena): for the models that features feed, that beat ONNX
//! Runtime's own threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feature_defs::Batching;
use ort::session::Session;
use quern_engine::fit::{Feature, Fit, Port, Signature};

use crate::counts::Work;
use crate::error::Result;
use crate::provider::Provider;
use crate::queue::{Limits, Pressure, Queue};
use crate::run::{Cost, run};
use crate::runtime::Runtime;
use crate::{needs, outputs, weights};

/// All sessions of one file together hold about as much as this, unless one session holds more.
const POOL_BYTES_MAX: usize = 1 << 30;
/// What a session holds for each byte of its file, about.
const SESSION_BYTES_PER_FILE_BYTE: usize = 3;
/// How many rows a model is tried on, after one.
const TRIAL_ROWS: usize = 32;

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
    queue: Arc<Queue>,
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
        batching: Batching,
    ) -> std::result::Result<Onnx, String> {
        // Types that the binding does not know end in a panic there; a file must not be able to cause one here.
        catch_unwind(AssertUnwindSafe(|| Onnx::try_load(runtime, onnx, (of, columns), batching)))
            .unwrap_or_else(|_| {
                Err("ONNX Runtime's binding gave up on the file: it holds types unknown to it".to_owned())
            })
    }

    fn try_load(
        runtime: &Runtime,
        onnx: &[u8],
        (of, columns): (&str, &[Feature]),
        batching: Batching,
    ) -> std::result::Result<Onnx, String> {
        // ONNX Runtime would look for them wherever this process happens to run.
        if let Some(file) = weights::files(onnx).first() {
            return Err(format!("the file lacks its weights: they lie in `{file}`"));
        }
        let unreadable = |error: ort::Error| {
            needs::other_operators(onnx)
                .unwrap_or_else(|| format!("ONNX Runtime does not load the file: {}", error.message()))
        };
        let (mut session, provider) = runtime.session(onnx).map_err(unreadable)?;
        let signature = signature(&session);
        let fit = Fit::new(of, columns, &signature)?;
        let mut micros = [f64::INFINITY; 2];
        let mut outputs = None;
        // Several rows show an output that is not one row for each row in; the fastest of several runs is the one that
        // nothing else on the machine got in the way of.
        for _ in 0..4 {
            for (rows, micros) in [1, TRIAL_ROWS].into_iter().zip(&mut micros) {
                let inputs = fit.zeros(rows);
                let start = Instant::now();
                let ran = run(&mut session, inputs, rows, None)
                    .map_err(|error| format!("tried on {rows} row(s) of zeros, the model fails: {error}"))?;
                *micros = micros.min(start.elapsed().as_secs_f64() * 1e6);
                outputs = Some(ran.schema());
            }
        }
        let [first, all] = micros;
        let cost = Cost { micros: first, micros_per_row: (all - first).max(0.0) / (TRIAL_ROWS - 1) as f64 };
        let alike = alike_in_company(&mut session, &fit);
        let mut sessions = vec![session];
        while sessions.len() < pool_size(onnx.len(), batching.concurrency) {
            sessions.push(runtime.session(onnx).map_err(unreadable)?.0);
        }
        let outputs = outputs.ok_or("the model was not tried")?;
        let queue = Arc::new(Queue::new(sessions, cost, batching, alike));
        Ok(Onnx { signature, outputs, provider, fit, queue })
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.queue.pressure()
    }

    pub(crate) fn work(&self) -> Work {
        self.queue.counts.work()
    }

    /// How many runs there are at the same time.
    pub(crate) fn sessions(&self) -> usize {
        self.queue.sessions()
    }

    /// Runs on this thread and, while all sessions are taken, waits.
    pub(crate) fn run_here(&self, columns: &RecordBatch) -> Result<RecordBatch> {
        if columns.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.outputs)));
        }
        self.queue.run_here(self.fit.tensors(columns)?, columns.num_rows())
    }

    /// Runs without ever blocking the async runtime, perhaps together with others.
    pub(crate) async fn run(&self, columns: &RecordBatch, limits: Limits) -> Result<RecordBatch> {
        if columns.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.outputs)));
        }
        Arc::clone(&self.queue).run(self.fit.tensors(columns)?, columns.num_rows(), limits).await
    }
}

/// As many sessions as there are cores, or as are asked for; fewer for a model so large that they would fill the
/// memory.
fn pool_size(file_bytes: usize, asked: Option<u32>) -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    let session_bytes = file_bytes.saturating_mul(SESSION_BYTES_PER_FILE_BYTE).max(1);
    let most = asked.map_or(cores, |asked| asked as usize);
    (POOL_BYTES_MAX / session_bytes).clamp(1, most)
}

/// Whether a row gets the same bits alone and among others. Some kernels take another way for one row than for many;
/// then requests must not share a run, or an answer would depend on who asked at the same time.
fn alike_in_company(session: &mut Session, fit: &Fit) -> bool {
    let all = fit.noise(TRIAL_ROWS);
    let Ok(together) = run(session, all.clone(), TRIAL_ROWS, None) else { return false };
    // Three parts of other sizes: one row, a few, and the rest.
    let parts = [(0, 1), (1, 5), (6, TRIAL_ROWS - 6)];
    parts.into_iter().all(|(start, rows)| {
        let part = all.iter().map(|tensor| tensor.slice(start, rows)).collect();
        run(session, part, rows, None).is_ok_and(|alone| same_bits(&alone, &together.slice(start, rows)))
    })
}

/// Arrow compares the bytes of numbers: NaN is NaN, and -0 is not 0.
fn same_bits(a: &RecordBatch, b: &RecordBatch) -> bool {
    a.columns().iter().zip(b.columns()).all(|(a, b)| a.to_data() == b.to_data())
}

fn signature(session: &Session) -> Signature {
    let ports = |outlets: &[ort::value::Outlet]| {
        let port = |outlet: &ort::value::Outlet| {
            let (element, shape) = outputs::element_and_shape(outlet.dtype());
            Port { name: outlet.name().to_owned(), element, shape }
        };
        outlets.iter().map(port).collect()
    };
    Signature { inputs: ports(session.inputs()), outputs: ports(session.outputs()) }
}
