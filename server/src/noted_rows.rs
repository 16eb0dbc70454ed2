//! What else is there to say of rows on their way out?

use arrow::array::RecordBatch;
use quern_engine::Failed;
use quern_wire::TableNotes;

/// Some rows of a training set or a batch prediction, and what came with them.
#[derive(Debug, Clone)]
pub struct NotedRows {
    /// The rows.
    pub rows: RecordBatch,
    /// What else there is to say.
    pub notes: TableNotes,
}

impl NotedRows {
    pub(crate) fn new(rows: RecordBatch, failed: Failed) -> NotedRows {
        NotedRows { rows, notes: TableNotes { failed: failed.into(), ..TableNotes::default() } }
    }
}

impl From<RecordBatch> for NotedRows {
    fn from(rows: RecordBatch) -> NotedRows {
        NotedRows { rows, notes: TableNotes::default() }
    }
}
