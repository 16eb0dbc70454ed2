//! What does one step of a model do with the columns so far?

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use quern_engine::Computed;

use crate::error::Result;
use crate::onnx::Onnx;

/// One step.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) does: Does,
    /// The columns it reads, as places among the vector's and those of the stages before.
    pub(super) reads: Vec<usize>,
    pub(super) schema: SchemaRef,
}

#[derive(Debug)]
pub(super) enum Does {
    Run(Onnx),
    Compute(Computed),
}

impl Stage {
    /// The columns that it reads.
    pub(super) fn batch(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let reads = self.reads.iter().map(|place| Arc::clone(&columns[*place])).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), reads, &options)?)
    }
}
