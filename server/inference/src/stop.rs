//! How does a run end before its time?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::{NoSelectedOutputs, RunOptions};

use crate::error::{Error, Result};

/// Ends a run before its time, for whoever keeps a clone of it.
#[derive(Clone)]
pub(crate) struct Stop {
    options: Arc<RunOptions<NoSelectedOutputs>>,
    asked: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn new() -> Result<Stop> {
        let options = RunOptions::new().map_err(|error| Error::internal("ONNX Runtime", error.message()))?;
        Ok(Stop { options: Arc::new(options), asked: Arc::default() })
    }

    pub(crate) fn options(&self) -> &RunOptions<NoSelectedOutputs> {
        &self.options
    }

    /// Ends the run; of one that is over already, nothing is left to be ended.
    pub(crate) fn end(&self) {
        self.asked.store(true, Ordering::Relaxed);
        let _ = self.options.terminate();
    }

    /// Whether the run is to end.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
