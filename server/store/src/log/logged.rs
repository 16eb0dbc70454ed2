//! What does a log hold of the rows that came together for one source?

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::Result;
use crate::position::Position;

/// The rows of a commit for one source.
pub struct Logged {
    /// Number and name of the commit.
    pub position: Position,
    /// The source.
    pub source: String,
    /// Number of the first row.
    pub first: u64,
    /// The rows of history.
    pub history: RecordBatch,
    /// How many of these, from the first on, are for the head as well.
    pub in_head: usize,
    /// Rows for the head alone.
    pub online: Option<RecordBatch>,
}

impl Logged {
    /// The number of the row after the last.
    pub fn end(&self) -> u64 {
        self.first + self.history.num_rows() as u64
    }
}

/// Names something that was pushed to a source: an event, or a push.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeenKey(Vec<u8>);

impl SeenKey {
    /// `what`, as seen by `source`.
    pub fn new(source: &str, what: &[u8]) -> SeenKey {
        SeenKey([source.as_bytes(), &[0], what].concat())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Until when it is known, µs.
    pub until_us: i64,
    /// Anything.
    pub value: Vec<u8>,
}

/// Rows as an Arrow IPC stream.
pub(super) fn to_bytes(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// The rows of an Arrow IPC stream.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<RecordBatch> {
    let reader = StreamReader::try_new(bytes, None)?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}
