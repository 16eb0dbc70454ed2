//! Where is ONNX Runtime, and how does it run a file?

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::program::Program;
use crate::provider::Provider;
use crate::{library, needs};

/// ONNX Runtime, loaded.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: Environment,
    pub(crate) library: PathBuf,
    pub(crate) providers: Vec<Provider>,
    pub(crate) worker: Program,
}

impl Runtime {
    /// Loads ONNX Runtime from `path` (a library or its folder), or from where it is usually found: `ORT_DYLIB_PATH`,
    /// the folder of this binary, the `onnxruntime` package of the active Python environment. A process has one: once
    /// it is loaded, later calls return it whatever they name.
    ///
    /// # Errors
    /// `Kind::Unavailable`: what to do about it.
    pub fn load(path: Option<&Path>) -> Result<Runtime> {
        static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
        let mut loaded = LOADED.lock();
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let library = library::find(path).map_err(Error::unavailable)?;
        let failed = |cause: String| {
            Error::unavailable(format!("ONNX Runtime does not load from {}", library.display()))
                .because(cause)
        };
        let builder = ort::init_from(&library).map_err(|error| failed(error.to_string()))?;
        let environment =
            builder.with_telemetry(false).build().map_err(|error| failed(error.message().to_owned()))?;
        // Its errors come back to the caller; on standard error they would only be said twice.
        environment.set_log_level(LogLevel::Fatal);
        tracing::debug!(library = %library.display(), build = ort::info(), "loaded ONNX Runtime");
        let (providers, worker) = (vec![Provider::Cpu], Program::default());
        Ok(loaded.insert(Runtime { environment, library, providers, worker }).clone())
    }

    /// The same, for models that are to run on the first of `providers` that starts.
    #[must_use]
    pub fn on(self, providers: Vec<Provider>) -> Runtime {
        Runtime { providers, ..self }
    }

    /// The same, whose workers are this program.
    #[must_use]
    pub fn with_worker(self, worker: Program) -> Runtime {
        Runtime { worker, ..self }
    }

    /// A session on the ONNX file `onnx`, set up as those of every model, and what it runs on.
    ///
    /// # Errors
    /// ONNX Runtime's own, of the last provider.
    pub fn session(&self, onnx: &[u8]) -> ort::Result<(Session, Provider)> {
        let mut failed = None;
        for provider in &self.providers {
            match self.session_on(*provider, onnx) {
                Ok(session) => return Ok((session, *provider)),
                Err(error) => {
                    if failed.is_none() && self.providers.len() > 1 {
                        tracing::warn!(%provider, cause = error.message(), "an execution provider does not start");
                    }
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| ort::Error::new("no execution provider is set")))
    }

    fn session_on(&self, provider: Provider, onnx: &[u8]) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            // The choice of an accelerator must not depend on the machine: the answers would.
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_execution_providers([provider.dispatch()])?
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

/// Why ONNX Runtime does not load the file `onnx`.
pub(crate) fn unreadable(onnx: &[u8], error: &ort::Error) -> String {
    let said = error.message();
    if said.contains("Failed to construct locale") {
        return "the file changes the case of texts (StringNormalizer), for which ONNX Runtime needs the locale en_US.UTF-8 \
                of this system: `apt install locales`, then `localedef -i en_US -f UTF-8 en_US.UTF-8`; or export the \
                model without it, as `TfidfVectorizer(lowercase=False)`"
            .to_owned();
    }
    needs::other_operators(onnx).unwrap_or_else(|| format!("ONNX Runtime does not load the file: {said}"))
}
