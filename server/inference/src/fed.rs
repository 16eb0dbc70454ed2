//! What does whoever runs a model say of these columns? They become its tensors, wait for their turn, and its outputs
//! become columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use quern_engine::fit::{Feature, Fit, Signature};

use crate::counts::Work;
use crate::error::Result;
use crate::policy::Limits;
use crate::pool::{Pool, Pressure};
use crate::provider::Provider;
use crate::queue;
use crate::trial::Tried;

/// A model that is fitted to the columns that it reads: an ONNX file that is loaded and tried, or a model elsewhere.
#[derive(Debug)]
pub(crate) struct Fed {
    /// Its inputs and outputs.
    pub(crate) signature: Signature,
    /// Its outputs as columns.
    pub(crate) outputs: SchemaRef,
    pub(crate) fit: Fit,
    /// How its trial went.
    pub(crate) tried: Tried,
    /// Who runs it.
    pub(crate) by: By,
    pub(crate) pool: Arc<Pool>,
}

/// Who runs a model.
#[derive(Debug)]
pub(crate) enum By {
    /// ONNX Runtime.
    File {
        /// What it runs on.
        provider: Provider,
        /// Whether its runs are in processes of their own.
        is_isolated: bool,
    },
    /// Another server.
    Remote,
}

/// What goes into a model.
pub(crate) struct Feed<'a> {
    /// What people call its columns.
    pub(crate) of: &'a str,
    /// All columns that it may read.
    pub(crate) columns: &'a [Feature],
    /// Rows of these columns of which it must be able to say something.
    pub(crate) examples: Option<&'a RecordBatch>,
}

impl Fed {
    pub(crate) fn pressure(&self) -> Pressure {
        self.pool.pressure()
    }

    pub(crate) fn work(&self) -> Work {
        self.pool.counts.work()
    }

    pub(crate) fn forget_work(&self) {
        self.pool.counts.forget();
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
