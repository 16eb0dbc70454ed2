//! What was pushed and is in no file yet, and which pushes were seen before?
//!
//! A group of pushes is one step: the rows of the tail, the head that they make and what tells a repetition are
//! written together and are on disk before anybody is told.
//!
//! ```text
//! tail   source ‖ 0 ‖ number of the first row (8 bytes, big-endian)  →  rows, an Arrow IPC stream
//! seen   source ‖ 0 ‖ what was seen                                  →  time µs until which it is kept ‖ its value
//! ```

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use chrono::Utc;
use rocksdb::compaction_filter::Decision;
use rocksdb::{IteratorMode, Options, WriteBatch, WriteOptions};

use super::{Head, Rows};
use crate::error::{Error, Result};

pub(super) const TAIL: &str = "tail";
pub(super) const SEEN: &str = "seen";

/// What a group of pushes changes, all of it or nothing.
#[derive(Default)]
pub struct Commit {
    /// Rows of distinct keys; each replaces what is stored unless that is later.
    pub rows: Rows,
    /// Tiles of distinct keys, made from what is stored.
    pub tiles: Rows,
    /// What each was made from, where that was sent over a network.
    pub made_from: Vec<Option<Vec<u8>>>,
    /// Source, number of the first row, rows.
    pub tail: Vec<(String, u64, RecordBatch)>,
    /// What was seen now.
    pub seen: Vec<(SeenKey, Seen)>,
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

impl Head {
    /// Brings a group of pushes in. It is on disk when this returns.
    pub fn commit(&self, commit: &Commit) -> Result<()> {
        let mut writes = self.writing.lock();
        *writes += 1;
        let mut batch = WriteBatch::default();
        for i in self.fresh(&commit.rows, &commit.rows.in_key_order())?.rows {
            let (key, row) = commit.rows.get(i);
            batch.put_cf(self.rows(), key, row);
        }
        for i in 0..commit.tiles.len() {
            let (key, tiles) = commit.tiles.get(i);
            batch.put_cf(self.rows(), key, tiles);
        }
        for (source, first, rows) in &commit.tail {
            let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
            writer.write(rows)?;
            batch.put_cf(self.family(TAIL), tail_key(source, *first), writer.into_inner()?);
        }
        for (key, seen) in &commit.seen {
            batch.put_cf(self.family(SEEN), &key.0, [&seen.until_us.to_be_bytes()[..], &seen.value].concat());
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// The rows of every tail: source, number of the first row, rows.
    pub fn tail(&self) -> Result<Vec<(String, u64, RecordBatch)>> {
        let mut found = Vec::new();
        for entry in self.db.iterator_cf(self.family(TAIL), IteratorMode::Start) {
            let (key, rows) = entry?;
            let damaged = || Error::broken("the online store holds damaged pushed rows");
            let (source, first) = key.split_last_chunk::<8>().ok_or_else(damaged)?;
            let source = source.strip_suffix(&[0]).and_then(|name| std::str::from_utf8(name).ok());
            let reader = StreamReader::try_new(&rows[..], None)?;
            let schema = reader.schema();
            let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
            let rows = concat_batches(&schema, &batches)?;
            found.push((source.ok_or_else(damaged)?.to_owned(), u64::from_be_bytes(*first), rows));
        }
        Ok(found)
    }

    /// Forgets the rows of a tail that are numbered below `end`: they lie in a file.
    pub fn drop_tail(&self, source: &str, end: u64) -> Result<()> {
        let family = self.family(TAIL);
        Ok(self.db.delete_range_cf(family, tail_key(source, 0), tail_key(source, end))?)
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        let found = self.db.batched_multi_get_cf(self.family(SEEN), keys.iter().map(|key| &key.0), false);
        let read = |found: std::result::Result<Option<rocksdb::DBPinnableSlice<'_>>, rocksdb::Error>| {
            let Some(bytes) = found? else { return Ok(None) };
            let (until, value) = bytes
                .split_first_chunk()
                .ok_or_else(|| Error::broken("the online store holds a damaged note of a push"))?;
            let seen = Seen { until_us: i64::from_be_bytes(*until), value: value.to_vec() };
            Ok(Some(seen).filter(|seen| seen.until_us >= now_us))
        };
        found.into_iter().map(read).collect()
    }
}

/// Options of the family of what was seen: compaction drops what need not be known any more.
pub(super) fn seen_options() -> Options {
    let mut options = Options::default();
    options.set_compaction_filter("seen", |_, _, seen| {
        let is_over = |until: &[u8; 8]| i64::from_be_bytes(*until) < Utc::now().timestamp_micros();
        if seen.first_chunk().is_none_or(is_over) { Decision::Remove } else { Decision::Keep }
    });
    options
}

fn tail_key(source: &str, first: u64) -> Vec<u8> {
    [source.as_bytes(), &[0], &first.to_be_bytes()].concat()
}
