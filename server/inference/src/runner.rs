//! Who runs a model: a session in this process, a worker with a session of its own, or another server?

use std::sync::Arc;

use arrow::array::RecordBatch;
use ort::session::Session;
use quern_base::Kind;
use quern_engine::fit::Tensor;

use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::run::run;
use crate::stop::Stop;
use crate::worker::Worker;

/// What runs a model for one caller at a time.
#[derive(Debug)]
pub(crate) enum Runner {
    /// A session in this process, on the caller's thread.
    Here(Session),
    /// A session in a process of its own.
    Worker(Worker),
    /// Another server.
    Remote(Arc<Caller>),
}

impl Runner {
    /// Runs `inputs`, which are in the model's order, and returns a column for each output. Ends early where `stop`
    /// says so.
    pub(crate) fn run(
        &mut self,
        inputs: Vec<Tensor>,
        rows: usize,
        stop: Option<&Stop>,
    ) -> Result<RecordBatch> {
        match self {
            Runner::Here(session) => run(session, inputs, rows, stop.map(Stop::options)),
            Runner::Worker(worker) => worker.run(inputs, rows, stop),
            Runner::Remote(caller) => caller.run(inputs, rows, stop),
        }
    }

    /// Whether it runs on the caller's thread alone, so that a short run is one.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Runner::Here(_))
    }

    /// Whether it runs at once; a worker that has ended is started again first.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Runner::Here(_) | Runner::Remote(_) => true,
            Runner::Worker(worker) => worker.is_up(),
        }
    }

    /// Whether a run that fails for others' sake fails for each of those who share it.
    pub(crate) fn fails_all(&self, error: &Error) -> bool {
        let is_away = matches!(error.kind(), Kind::Unavailable | Kind::Late | Kind::Overloaded);
        matches!(self, Runner::Remote(_)) && is_away
    }
}
