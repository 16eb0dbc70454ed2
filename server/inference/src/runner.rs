//! Who runs a file: a session in this process, or a worker with a session of its own?

use arrow::array::RecordBatch;
use ort::session::Session;
use quern_engine::fit::Tensor;

use crate::error::Result;
use crate::run::run;
use crate::stop::Stop;
use crate::worker::Worker;

/// What runs a file for one caller at a time.
#[derive(Debug)]
pub(crate) enum Runner {
    /// A session in this process, on the caller's thread.
    Here(Session),
    /// A session in a process of its own.
    Worker(Worker),
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
        }
    }

    /// Whether it runs on the caller's thread alone, so that a short run is one.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Runner::Here(_))
    }

    /// Whether it runs at once; a worker that has ended is started again first.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Runner::Here(_) => true,
            Runner::Worker(worker) => worker.is_up(),
        }
    }
}
