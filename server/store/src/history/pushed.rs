//! Which rows were pushed to a source, in the order in which they were acknowledged?
//!
//! The newest are the *tail*: in memory here, and durable in the log. The rest lie in segments, each written once. A
//! row's number counts from the first row ever pushed to its source, and a segment says which it has. The labels of a
//! model are here as well, as if they had been pushed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, max, min, take_record_batch};
use arrow::datatypes::{Field, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parking_lot::RwLock;
use quern_base::points::pass;
use quern_engine::schema::fitting;

use super::files::HistoryFile;
use super::kept::{Kept, source_of};
use super::{BATCH_ROWS_MAX, Reading, Scan, fitted};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::segments::{Range, Segment};

/// Rows of the tail that grow together, at the most: one thread reads as many at a time.
const GROUP_ROWS: usize = 1 << 17;
/// For how long nobody else writes segments of a source.
const SEAL_LEASE: Duration = Duration::from_secs(10);

/// What was pushed to every source.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Where rows lie that are not in memory; none where all are.
    kept: Option<Arc<dyn Kept>>,
    sources: RwLock<BTreeMap<String, Arc<PushedRows>>>,
}

/// What was pushed to one source, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct PushedRows {
    pub(super) files: Vec<PushedFile>,
    pub(super) tail: Vec<Rows>,
}

/// A segment of pushed rows.
#[derive(Debug, Clone)]
pub(super) struct PushedFile {
    pub(super) first: u64,
    end: u64,
    pub(super) file: HistoryFile,
}

impl PushedFile {
    fn of(kept: &Arc<dyn Kept>, segment: Segment) -> PushedFile {
        let (first, end) = (segment.range.first, segment.range.end);
        PushedFile { first, end, file: HistoryFile::of(kept, segment) }
    }
}

/// Rows of the tail, which follow one another.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) first: u64,
    pub(super) rows: RecordBatch,
}

impl Rows {
    fn end(&self) -> u64 {
        self.first + self.rows.num_rows() as u64
    }
}

impl PushedRows {
    /// The number that the next row gets.
    pub fn end(&self) -> u64 {
        self.tail.last().map_or(self.sealed(), Rows::end)
    }

    /// The number of the row after the last that lies in a segment.
    pub fn sealed(&self) -> u64 {
        self.files.last().map_or(0, |file| file.end)
    }

    /// How many segments hold rows from number `row` on.
    pub fn segments_from(&self, row: u64) -> usize {
        self.files.iter().filter(|file| file.end > row).count()
    }

    /// Adds a segment after all others.
    fn add(&mut self, file: PushedFile) -> Result<()> {
        if file.first != self.sealed() {
            return Err(Error::refused(format!(
                "pushed rows {} to {} are missing before {}; bring the registry back, which names the segments",
                self.sealed(),
                file.first,
                file.file.name
            )));
        }
        self.files.push(file);
        Ok(())
    }

    /// Adds those rows of a tail that come after number `end`.
    fn append_after(&mut self, tail: &[Rows], end: u64) -> Result<()> {
        for rows in tail.iter().filter(|rows| rows.end() > end) {
            let known = end.saturating_sub(rows.first) as usize;
            self.append(rows.rows.slice(known, rows.rows.num_rows() - known))?;
        }
        Ok(())
    }

    /// Adds rows of which the first has number `first`, less those that are here already.
    pub(super) fn append_at(&mut self, source: &str, first: u64, rows: &RecordBatch) -> Result<()> {
        let end = self.end();
        if first > end {
            return Err(Error::refused(format!(
                "rows {end} to {first} that were pushed to source `{source}` are neither in the log nor in this server's \
                 store: where other servers have put them into theirs, name the same `store` here"
            )));
        }
        match ((end - first) as usize).min(rows.num_rows()) {
            known if known == rows.num_rows() => Ok(()),
            known => self.append(rows.slice(known, rows.num_rows() - known)),
        }
    }

    /// Names what lies in segments.
    pub(super) fn paths(&self) -> Vec<String> {
        self.files.iter().map(|file| file.file.name.clone()).collect()
    }

    /// Whether nothing was ever pushed.
    pub fn is_empty(&self) -> bool {
        self.end() == 0
    }

    /// Rows of the tail, and about how much memory they take.
    pub fn tail_size(&self) -> (usize, usize) {
        let rows = self.tail.iter().map(|segment| segment.rows.num_rows()).sum();
        (rows, self.tail.iter().map(|segment| segment.rows.get_array_memory_size()).sum())
    }

    /// The rows of the tail from number `from` on, in the columns of `scan`: number of the first row, rows.
    pub fn since(&self, from: u64, scan: &Scan) -> Result<Vec<(u64, RecordBatch)>> {
        let reading = scan.reading(Arc::clone(&scan.schema), None);
        let newer = self.tail.iter().filter(|segment| segment.end() > from);
        let rows = newer.map(|segment| {
            let known = from.saturating_sub(segment.first) as usize;
            let rows = segment.rows.slice(known, segment.rows.num_rows() - known);
            Ok((segment.first + known as u64, fitted_rows(&rows, &reading)?))
        });
        rows.collect()
    }

    /// The rows of the tail from number `from` on.
    pub fn tail_from(&self, from: u64) -> Vec<RecordBatch> {
        let newer = self.tail.iter().filter(|rows| rows.end() > from);
        let known = |rows: &Rows| from.saturating_sub(rows.first) as usize;
        newer.map(|rows| rows.rows.slice(known(rows), rows.rows.num_rows() - known(rows))).collect()
    }

    /// Adds rows after all others. Small segments grow together, so that there are never many.
    fn append(&mut self, rows: RecordBatch) -> Result<()> {
        self.tail.push(Rows { first: self.end(), rows });
        while let [.., a, b] = &self.tail[..]
            && a.rows.num_rows() < 2 * b.rows.num_rows()
            && a.rows.num_rows() < GROUP_ROWS
            && a.rows.schema() == b.rows.schema()
        {
            let rows = concat_batches(&a.rows.schema(), [&a.rows, &b.rows])?;
            let first = a.first;
            self.tail.truncate(self.tail.len() - 2);
            self.tail.push(Rows { first, rows });
        }
        Ok(())
    }
}

impl Pushed {
    /// The rows that lie in segments, and then those that the log has: source, number of the first row, rows.
    ///
    /// # Errors
    /// `Kind::Refused` where some are missing.
    pub fn open(kept: Arc<dyn Kept>, logged: Vec<(String, u64, RecordBatch)>) -> Result<Pushed> {
        let mut sources: BTreeMap<String, PushedRows> = BTreeMap::new();
        for segment in kept.all()? {
            let source = source_of(&segment);
            sources.entry(source).or_default().add(PushedFile::of(&kept, segment))?;
        }
        for (source, first, rows) in logged {
            let pushed = sources.entry(source.clone()).or_default();
            let end = pushed.end();
            if first > end {
                return Err(Error::refused(format!(
                    "rows {end} to {first} that were pushed to source `{source}` are missing: neither a segment nor the log \
                     has them; bring the registry back, which names the segments"
                )));
            }
            // Less what was written into a segment just before the process ended.
            pushed.append_at(&source, first, &rows)?;
        }
        let sources = sources.into_iter().map(|(name, rows)| (name, Arc::new(rows))).collect();
        Ok(Pushed { kept: Some(kept), sources: RwLock::new(sources) })
    }

    /// Refuses where segments lack rows of before these numbers, by source.
    pub(crate) fn check_files(&self, in_files: &BTreeMap<String, u64>) -> Result<()> {
        for (source, wanted) in in_files {
            let end = self.of(source).sealed();
            if end < *wanted {
                return Err(Error::refused(format!(
                    "rows {end} to {wanted} that were pushed to source `{source}` are missing: the registry names no segment \
                     that has them; bring the registry back, or go on without what was pushed: move `log` and `head` away \
                     and materialize"
                )));
            }
        }
        Ok(())
    }

    /// What was pushed to `source` up to now.
    pub fn of(&self, source: &str) -> Arc<PushedRows> {
        self.sources.read().get(source).cloned().unwrap_or_default()
    }

    /// What the registry names of `source`.
    pub(super) fn in_segments(&self, source: &str) -> Result<PushedRows> {
        let mut rows = PushedRows::default();
        if let Some(kept) = &self.kept {
            for segment in kept.list(source)? {
                rows.add(PushedFile::of(kept, segment))?;
            }
        }
        Ok(rows)
    }

    /// Takes what the registry names for the rows of the tail that lie there too, and whether that was done: not where
    /// it names fewer than before, or rows that are not here yet.
    pub(super) fn adopt(&self, source: &str) -> Result<bool> {
        let mut adopted = self.in_segments(source)?;
        let mut sources = self.sources.write();
        let pushed = sources.entry(source.to_owned()).or_default();
        let end = adopted.sealed();
        if end < pushed.sealed() || end > pushed.end() {
            return Ok(false);
        }
        adopted.append_after(&pushed.tail, end)?;
        *pushed = Arc::new(adopted);
        Ok(true)
    }

    /// Lets this server's own segments of `source` count no more: they are a copy of what a log has, which is another
    /// by now.
    pub(super) fn disown(&self, source: &str) -> Result<()> {
        match self.kept.as_ref().filter(|kept| !kept.is_shared()) {
            Some(kept) => kept.remove(&kept.list(source)?),
            None => Ok(()),
        }
    }

    /// Makes all that was pushed to `source` these rows.
    pub(super) fn replace(&self, source: &str, rows: PushedRows) {
        self.sources.write().insert(source.to_owned(), Arc::new(rows));
    }

    /// Whether what is written into segments is there for every server.
    pub fn is_shared(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_shared())
    }

    /// Names the store of the segments that every server reads; none where there is none.
    ///
    /// # Errors
    /// Where it does not answer, and never has.
    pub fn shared_store(&self) -> Result<Option<String>> {
        self.kept.as_ref().filter(|kept| kept.is_shared()).map(|kept| kept.store()).transpose()
    }

    /// Adds rows, which are durable already. One caller at a time for each source.
    pub fn append(&self, source: &str, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut sources = self.sources.write();
        Arc::make_mut(sources.entry(source.to_owned()).or_default()).append(rows)
    }

    /// The number that the next row of each source gets.
    pub fn ends(&self) -> Vec<(String, u64)> {
        self.sources.read().iter().map(|(source, rows)| (source.clone(), rows.end())).collect()
    }

    /// Adds rows of which the first has number `first`, less those that are here already.
    pub fn append_at(&self, source: &str, first: u64, rows: RecordBatch) -> Result<()> {
        let mut sources = self.sources.write();
        Arc::make_mut(sources.entry(source.to_owned()).or_default()).append_at(source, first, &rows)
    }

    /// Writes the tail as it was `before` into segments, with the times in column `time`; gives the number up to which
    /// the log need not keep rows any more. Rows may be appended meanwhile. Of a log that servers share, `of` is the
    /// last commit of that tail.
    ///
    /// # Errors
    /// Where store or registry take nothing; `Kind::Refused` where these rows are not what comes next.
    pub(super) fn seal(
        &self,
        source: &str,
        time: Option<&str>,
        (before, of): (Arc<PushedRows>, Option<Position>),
    ) -> Result<u64> {
        let Some(kept) = &self.kept else { return Ok(before.sealed()) };
        // Where servers share a store, one of them writes, and the others find it there.
        if self.is_shared() && !kept.lease(&format!("seal {source}"), SEAL_LEASE)? {
            return Ok(before.sealed());
        }
        // Rows of one schema to a segment.
        for rows in before.tail.chunk_by(|a, b| a.rows.schema() == b.rows.schema()) {
            let found = time.map(|time| rows.iter().filter_map(|rows| times(&rows.rows, time)));
            let found: Vec<(i64, i64)> = found.into_iter().flatten().collect();
            let range = Range {
                first: rows[0].first,
                end: rows[rows.len() - 1].end(),
                from_us: found.iter().map(|(from_us, _)| *from_us).min().unwrap_or(i64::MIN),
                to_us: found.iter().map(|(_, to_us)| *to_us).max().unwrap_or(i64::MAX),
            };
            let rows: Vec<&RecordBatch> = rows.iter().map(|rows| &rows.rows).collect();
            let written = kept.write(source, range, of, &rows)?;
            pass("seal: named, and in the tail still");
            self.keep(source, PushedFile::of(kept, written))?;
        }
        Ok(self.of(source).sealed())
    }

    /// Takes the rows of a segment out of the tail.
    fn keep(&self, source: &str, file: PushedFile) -> Result<()> {
        let mut sources = self.sources.write();
        let pushed = Arc::make_mut(sources.entry(source.to_owned()).or_default());
        let end = file.end;
        if file.first != pushed.sealed() {
            // Whoever read meanwhile has found it already, or something else instead.
            return Ok(());
        }
        pushed.add(file)?;
        let tail = std::mem::take(&mut pushed.tail);
        pushed.append_after(&tail, end)
    }
}

/// The rows in the columns of `schema`. One that the source did not have yet is null; one with values that its type
/// cannot say by now is as it was pushed.
pub fn canonical(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => Ok(fitting(column, field.data_type())?.unwrap_or_else(|| Arc::clone(column))),
        None => Ok::<_, ArrowError>(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(fitted::batch(schema, columns)?)
}

/// The same, of columns that may have been of another type when the rows were pushed.
fn fitted_rows(rows: &RecordBatch, reading: &Reading<'_>) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => fitted::fitted(column, field, reading),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = reading.schema.fields().iter().map(column).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(fitted::batch(&reading.schema, columns)?)
}

/// Reads rows of the tail, all or some, as a file's are read.
pub(super) fn read(
    tail: &RecordBatch,
    reading: &Reading<'_>,
    visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut rows = fitted_rows(tail, reading)?;
    if let Some(selected) = reading.rows {
        rows = take_record_batch(&rows, &UInt32Array::from(selected.to_vec()))?;
    }
    (0..rows.num_rows())
        .step_by(BATCH_ROWS_MAX)
        .try_for_each(|start| visit(rows.slice(start, BATCH_ROWS_MAX.min(rows.num_rows() - start))))
}

/// The least and the greatest time in `column`; none where it has none.
pub(super) fn times(tail: &RecordBatch, column: &str) -> Option<(i64, i64)> {
    let times = tail.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((min(times)?, max(times)?))
}
