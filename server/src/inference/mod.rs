//! What does a model say of these feature vectors?
//!
//! Models are ONNX files, run by ONNX Runtime, whose shared library is loaded once per process. A model is loaded from
//! bytes, fitted to its feature service and tried before it goes live: what does not fit or does not run never does.
//!
//! A session of ONNX Runtime serves one caller at a time, so a model has a pool of them, made when it is loaded and of
//! a fixed size. Each runs on its caller's thread only (one thread, no spinning, no arena): for the models that features
//! feed, that beat ONNX Runtime's own threads.

mod library;
mod outputs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use arrow::array::RecordBatch;
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel};
use ort::session::{Session, SessionInputValue};
use parking_lot::{Condvar, Mutex};
use quern_engine::ServicePlan;
use quern_engine::fit::{Fit, Port, Signature, Tensor, TensorData};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::metrics::metrics;

/// All sessions of one model together hold about as much as this, unless one session holds more.
const POOL_BYTES_MAX: usize = 1 << 30;
/// What a session holds for each byte of its file, about.
const SESSION_BYTES_PER_FILE_BYTE: usize = 3;
/// A run that is expected to take no longer is not worth a change of threads, which costs some 20 µs.
const INLINE_MICROS_MAX: f64 = 200.0;

/// How many rows of zeros a model is tried on, after one.
const TRIAL_ROWS: usize = 32;

/// ONNX Runtime, loaded.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
}

impl Runtime {
    /// Loads ONNX Runtime from `path` (a library or its folder), or from where it is usually found: `ORT_DYLIB_PATH`,
    /// the folder of this binary, the `onnxruntime` package of the active Python environment. A process has one: once
    /// it is loaded, later calls return it whatever they name.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: what to do about it.
    pub fn load(path: Option<&Path>) -> Result<Runtime> {
        static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
        let mut loaded = LOADED.lock();
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let library = library::find(path).map_err(Error::Unavailable)?;
        let failed = |cause: String| {
            Error::Unavailable(format!("ONNX Runtime does not load from {}: {cause}", library.display()))
        };
        let builder = ort::init_from(&library).map_err(|error| failed(error.to_string()))?;
        let environment =
            builder.with_telemetry(false).build().map_err(|error| failed(error.message().to_owned()))?;
        // Its errors come back to the caller; on standard error they would only be said twice.
        environment.set_log_level(LogLevel::Fatal);
        tracing::debug!(library = %library.display(), build = ort::info(), "loaded ONNX Runtime");
        Ok(loaded.insert(Runtime { environment }).clone())
    }

    /// A session on the ONNX file `onnx`, set up as those of every [`Model`].
    ///
    /// # Errors
    /// ONNX Runtime's own.
    pub fn session(&self, onnx: &[u8]) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            // The choice of an accelerator must not depend on the machine: the answers would.
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_execution_providers([ep::CPU::default().with_arena_allocator(false).build()])?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Without an arena a memory pattern is one more allocation, kept for every batch size ever seen.
            .with_memory_pattern(false)?
            .with_log_level(LogLevel::Fatal)?
            .commit_from_memory(onnx)
    }
}

/// A model, loaded, fitted to its feature service and tried.
#[derive(Debug)]
pub struct Model {
    /// SHA-256 of the ONNX file, in hex.
    pub digest: String,
    /// Its inputs and outputs.
    pub signature: Signature,
    /// How feature vectors become its inputs.
    pub fit: Fit,
    pool: Pool,
    cost: Cost,
    /// The outputs of no rows.
    nothing: RecordBatch,
}

/// What a run is expected to cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    micros: f64,
    micros_per_row: f64,
}

impl Cost {
    fn of(self, rows: usize) -> f64 {
        self.micros + self.micros_per_row * rows as f64
    }
}

impl Model {
    /// Loads the ONNX file `onnx`, fits it to `service` and tries it on one row and on several.
    ///
    /// # Errors
    /// Why it cannot go live: no ONNX file, inputs that are not the service's columns (both shapes side by side), a
    /// run that fails, or outputs that are not one row for each row in.
    pub fn load(runtime: &Runtime, onnx: &[u8], service: &ServicePlan) -> std::result::Result<Model, String> {
        // Types that the binding does not know end in a panic there; a file must not be able to cause one here.
        catch_unwind(AssertUnwindSafe(|| Model::try_load(runtime, onnx, service))).unwrap_or_else(|_| {
            Err("ONNX Runtime's binding gave up on the file: it holds types unknown to it".to_owned())
        })
    }

    fn try_load(runtime: &Runtime, onnx: &[u8], service: &ServicePlan) -> std::result::Result<Model, String> {
        let unreadable =
            |error: ort::Error| format!("ONNX Runtime does not load the file: {}", error.message());
        let mut session = runtime.session(onnx).map_err(unreadable)?;
        let signature = signature(&session);
        let fit = Fit::new(service, &signature)?;
        let mut micros = [f64::INFINITY; 2];
        let mut nothing = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        // Several rows show an output that is not one row for each row in; the fastest of several runs is the one that
        // nothing else on the machine got in the way of.
        for _ in 0..4 {
            for (rows, micros) in [1, TRIAL_ROWS].into_iter().zip(&mut micros) {
                let inputs = fit.zeros(rows);
                let start = Instant::now();
                let outputs = run(&mut session, inputs, rows)
                    .map_err(|error| format!("tried on {rows} row(s) of zeros, the model fails: {error}"))?;
                *micros = micros.min(start.elapsed().as_secs_f64() * 1e6);
                nothing = outputs.slice(0, 0);
            }
        }
        let [first, all] = micros;
        let cost = Cost { micros: first, micros_per_row: (all - first).max(0.0) / (TRIAL_ROWS - 1) as f64 };
        let mut sessions = vec![session];
        while sessions.len() < pool_size(onnx.len()) {
            sessions.push(runtime.session(onnx).map_err(unreadable)?);
        }
        let digest = Sha256::digest(onnx).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Model { digest, signature, fit, pool: Pool::new(sessions), cost, nothing })
    }

    /// How many callers it serves at the same time.
    pub fn sessions(&self) -> usize {
        self.pool.size
    }

    /// Predicts from feature vectors (columns as the feature service's outputs). Runs on this thread and, while all
    /// sessions are taken, waits: on a thread of an async runtime, call [`predict`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a null that the model has no value for.
    pub fn predict(&self, vectors: &RecordBatch) -> Result<Predictions> {
        let inputs = self.fit.tensors(vectors)?;
        self.run(self.pool.take(), inputs, vectors.num_rows())
    }

    fn run(&self, mut session: Lease<'_>, inputs: Vec<Tensor>, rows: usize) -> Result<Predictions> {
        if rows == 0 {
            return Ok(Predictions { outputs: self.nothing.clone() });
        }
        let timer = metrics().inference.start_timer();
        let outputs = run(&mut session, inputs, rows)?;
        timer.observe_duration();
        Ok(Predictions { outputs })
    }
}

/// Predicts without ever blocking the async runtime: a short run on a free session happens right here, anything else
/// on a thread that may block.
///
/// # Errors
/// As [`Model::predict`].
pub async fn predict(model: &Arc<Model>, vectors: &RecordBatch) -> Result<Predictions> {
    let rows = vectors.num_rows();
    if model.cost.of(rows) <= INLINE_MICROS_MAX
        && let Some(session) = model.pool.try_take()
    {
        return model.run(session, model.fit.tensors(vectors)?, rows);
    }
    let (model, vectors) = (Arc::clone(model), vectors.clone());
    let job = move || model.predict(&vectors);
    tokio::task::spawn_blocking(job).await.map_err(|error| Error::internal("inference", error))?
}

/// What a model said: a row for each feature vector, a column for each output.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// Named as the model's outputs. `[N]` and `[N, 1]` are plain values, `[N, K]` lists, a ZipMap is a map in each row.
    pub outputs: RecordBatch,
}

/// As many sessions as there are cores, fewer for a model so large that they would fill the memory.
fn pool_size(file_bytes: usize) -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    let session_bytes = file_bytes.saturating_mul(SESSION_BYTES_PER_FILE_BYTE).max(1);
    (POOL_BYTES_MAX / session_bytes).clamp(1, cores)
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

/// Runs `inputs`, which are in the model's order, and returns a column for each output.
fn run(session: &mut Session, inputs: Vec<Tensor>, rows: usize) -> Result<RecordBatch> {
    let failed = |error: ort::Error| Error::Internal(format!("ONNX Runtime: {}", error.message()));
    let inputs: Vec<SessionInputValue<'_>> = inputs.into_iter().map(input).collect::<Result<_>>()?;
    let outputs = session.run(inputs.as_slice()).map_err(failed)?;
    let mut columns = Vec::with_capacity(outputs.len());
    for (name, value) in &outputs {
        let column = outputs::column(&value, rows)
            .map_err(|cause| Error::Internal(format!("the model's output `{name}` {cause}")))?;
        columns.push((name, column, true));
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn input(tensor: Tensor) -> Result<SessionInputValue<'static>> {
    use ort::value::Tensor as Onnx;
    let Tensor { name, shape, data } = tensor;
    let value = match data {
        TensorData::Float32(cells) => Onnx::from_array((shape, cells)).map(Into::into),
        TensorData::Float64(cells) => Onnx::from_array((shape, cells)).map(Into::into),
        TensorData::Int32(cells) => Onnx::from_array((shape, cells)).map(Into::into),
        TensorData::Int64(cells) => Onnx::from_array((shape, cells)).map(Into::into),
        TensorData::Bool(cells) => Onnx::from_array((shape, cells)).map(Into::into),
        // A text with a zero byte in it is the one value that ONNX Runtime does not take.
        TensorData::String(cells) => Onnx::from_string_array((shape, cells.as_slice())).map(Into::into),
    };
    value.map_err(|error| Error::Invalid(format!("the model's input `{name}`: {}", error.message())))
}

/// The sessions of one model.
#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Session>>,
    returned: Condvar,
    size: usize,
}

impl Pool {
    fn new(sessions: Vec<Session>) -> Pool {
        Pool { size: sessions.len(), idle: Mutex::new(sessions), returned: Condvar::new() }
    }

    /// A session; waits for one while all are taken.
    fn take(&self) -> Lease<'_> {
        let mut idle = self.idle.lock();
        loop {
            match idle.pop() {
                Some(session) => return Lease { pool: self, session: Some(session) },
                None => self.returned.wait(&mut idle),
            }
        }
    }

    fn try_take(&self) -> Option<Lease<'_>> {
        self.idle.lock().pop().map(|session| Lease { pool: self, session: Some(session) })
    }
}

/// A session that goes back to its pool, however its run ends.
struct Lease<'a> {
    pool: &'a Pool,
    session: Option<Session>,
}

impl std::ops::Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("a lease holds its session until it is dropped")
    }
}

impl std::ops::DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease holds its session until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.idle.lock().push(session);
            self.pool.returned.notify_one();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
