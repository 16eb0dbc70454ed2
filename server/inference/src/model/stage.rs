//! What does one step of a model do with the columns so far?

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use quern_engine::Computed;

use crate::error::Result;
use crate::fed::Fed;

/// One step.
#[derive(Debug)]
pub(super) struct Stage {
    /// Empty for a version that is one file.
    pub(super) name: String,
    pub(super) does: Does,
    /// The columns it reads, as places among the vector's and those of the stages before.
    pub(super) reads: Vec<usize>,
    pub(super) schema: SchemaRef,
}

#[derive(Debug)]
pub(super) enum Does {
    Run(Fed),
    Compute(Computed),
}

impl Stage {
    /// The columns that it reads.
    pub(super) fn batch(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        batch(&self.reads, &self.schema, columns, rows)
    }

    /// The columns that it gives. Runs on this thread and, while all sessions are taken, waits.
    pub(super) fn run_here(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>> {
        let batch = self.batch(columns, rows)?;
        Ok(match &self.does {
            Does::Run(onnx) => onnx.run_here(&batch)?.columns().to_vec(),
            Does::Compute(expression) => vec![expression.evaluate(&batch)?],
        })
    }
}

/// The columns at the places `reads`.
pub(super) fn batch(
    reads: &[usize],
    schema: &SchemaRef,
    columns: &[ArrayRef],
    rows: usize,
) -> Result<RecordBatch> {
    let reads = reads.iter().map(|place| Arc::clone(&columns[*place])).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), reads, &options)?)
}
