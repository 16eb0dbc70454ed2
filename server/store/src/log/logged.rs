//! What does a log hold of the rows that came together for one source?

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::Result;

/// How far the log of a source is, or whoever follows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of its last commit: 1, 2, 3, …; 0 where there is none.
    pub number: i64,
    /// That commit's name, drawn at random. A log that is brought back from before, and goes on from there, has other
    /// names for the same numbers: who followed it further finds out.
    pub token: i64,
}

impl Position {
    /// The position of the commit after this one.
    #[must_use]
    pub fn next(self) -> Position {
        // Each has keys of its own, drawn at random.
        let token = RandomState::new().hash_one(Instant::now());
        Position { number: self.number + 1, token: token as i64 }
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        let (number, token) = (self.number.to_be_bytes(), self.token.to_be_bytes());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&token);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Position> {
        let (number, token) = bytes.split_first_chunk()?;
        let token = i64::from_be_bytes(token.try_into().ok()?);
        Some(Position { number: i64::from_be_bytes(*number), token })
    }
}

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
