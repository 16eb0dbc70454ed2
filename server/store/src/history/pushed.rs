//! Which rows were pushed to a source, in the order in which they were acknowledged?
//!
//! The newest are the *tail*: in memory here, made durable by the online store in one step with the head
//! (`store/rocks/tail.rs`). The rest lie in Parquet files, each written once. A row's number counts from the first
//! row ever pushed to its source; a file is named by the numbers of its first row and of the one after its last.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::{AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, max, min, take_record_batch};
use arrow::datatypes::{Field, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parking_lot::RwLock;
use quern_engine::schema::fitting;

use super::files::HistoryFile;
use super::{BATCH_ROWS_MAX, Reading, Scan, fitted};
use crate::error::{Error, Result};

const EXTENSION: &str = "parquet";
/// Rows of a row group, of which one thread reads one at a time.
const GROUP_ROWS: usize = 1 << 17;

/// What was pushed to every source.
#[derive(Debug, Default)]
pub struct Pushed {
    folder: PathBuf,
    sources: RwLock<BTreeMap<String, Arc<PushedRows>>>,
}

/// What was pushed to one source, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct PushedRows {
    pub(super) files: Vec<PushedFile>,
    pub(super) tail: Vec<Segment>,
}

/// A file of pushed rows.
#[derive(Debug, Clone)]
pub(super) struct PushedFile {
    pub(super) first: u64,
    end: u64,
    pub(super) file: HistoryFile,
}

/// Rows of the tail, which follow one another.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) rows: RecordBatch,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.rows.num_rows() as u64
    }
}

impl PushedRows {
    /// The number that the next row gets.
    pub fn end(&self) -> u64 {
        let file = self.files.last().map_or(0, |file| file.end);
        self.tail.last().map_or(file, Segment::end)
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

    /// Adds rows after all others. Small segments grow together, so that there are never many.
    fn append(&mut self, rows: RecordBatch) -> Result<()> {
        self.tail.push(Segment { first: self.end(), rows });
        while let [.., a, b] = &self.tail[..]
            && a.rows.num_rows() < 2 * b.rows.num_rows()
            && a.rows.num_rows() < GROUP_ROWS
            && a.rows.schema() == b.rows.schema()
        {
            let rows = concat_batches(&a.rows.schema(), [&a.rows, &b.rows])?;
            let first = a.first;
            self.tail.truncate(self.tail.len() - 2);
            self.tail.push(Segment { first, rows });
        }
        Ok(())
    }
}

impl Pushed {
    /// The files below `folder`, and then the rows that the online store kept: source, number of the first row, rows.
    pub fn open(folder: PathBuf, kept: Vec<(String, u64, RecordBatch)>) -> Result<Pushed> {
        let mut sources: BTreeMap<String, PushedRows> = BTreeMap::new();
        for entry in listed(&folder)? {
            let source = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let files = &mut sources.entry(source).or_default().files;
            for path in listed(&entry)? {
                if path.extension().is_none_or(|extension| extension != EXTENSION) {
                    // What an interrupted seal left behind; its rows are in the tail still.
                    fs::remove_file(&path)?;
                    continue;
                }
                let numbers = path.file_stem().and_then(|stem| stem.to_str()?.split_once('-'));
                let numbers = numbers.and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
                let (first, end) = numbers.ok_or_else(|| foreign(&path))?;
                files.push(PushedFile { first, end, file: HistoryFile::at(&path)? });
            }
            // A file that another one holds whole was written before that, and never taken for done.
            files.sort_by_key(|file| (file.first, Reverse(file.end)));
            let mut end = 0;
            files.retain(|file| {
                let adds = file.end > end;
                end = end.max(file.end);
                adds
            });
            let mut end = 0;
            for file in files {
                if file.first != end {
                    return Err(Error::refused(format!(
                        "pushed rows {end} to {} are missing before {}; bring the file back",
                        file.first, file.file.name
                    )));
                }
                end = file.end;
            }
        }
        for (source, first, rows) in kept {
            let pushed = sources.entry(source.clone()).or_default();
            let end = pushed.end();
            if first + rows.num_rows() as u64 <= end {
                // Sealed into a file just before the process ended.
                continue;
            }
            if first > end {
                return Err(Error::refused(format!(
                    "rows {end} to {first} that were pushed to source `{source}` are missing: neither a file nor the log has \
                     them; bring the file back"
                )));
            }
            let known = (end - first) as usize;
            pushed.append(rows.slice(known, rows.num_rows() - known))?;
        }
        let sources = sources.into_iter().map(|(name, rows)| (name, Arc::new(rows))).collect();
        Ok(Pushed { folder, sources: RwLock::new(sources) })
    }

    /// Refuses where files lack rows of before these numbers, by source.
    pub(crate) fn check_files(&self, in_files: &BTreeMap<String, u64>) -> Result<()> {
        for (source, wanted) in in_files {
            let end = self.of(source).files.last().map_or(0, |file| file.end);
            if end < *wanted {
                return Err(Error::refused(format!(
                    "rows {end} to {wanted} that were pushed to source `{source}` are missing: their file below {} is \
                     gone; bring it back, or go on without what was pushed: move `log`, `pushed` and `head` away and \
                     materialize",
                    self.folder.display()
                )));
            }
        }
        Ok(())
    }

    /// What was pushed to `source` up to now.
    pub fn of(&self, source: &str) -> Arc<PushedRows> {
        self.sources.read().get(source).cloned().unwrap_or_default()
    }

    /// Forgets what was pushed to `source`, and its files: it is a copy of what a log has, and another by now.
    pub(super) fn forget(&self, source: &str) -> Result<()> {
        let mut sources = self.sources.write();
        match fs::remove_dir_all(self.folder.join(source)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        sources.remove(source);
        Ok(())
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
        let end = self.of(source).end();
        if first > end {
            return Err(Error::broken(format!(
                "pushed rows {end} to {first} of source `{source}` are missing in the log"
            )));
        }
        let known = ((end - first) as usize).min(rows.num_rows());
        if known == rows.num_rows() {
            return Ok(());
        }
        self.append(source, rows.slice(known, rows.num_rows() - known))
    }

    /// Writes the tail into files; gives the number up to which the online store need not keep rows any more.
    /// Rows may be appended meanwhile.
    pub fn seal(&self, source: &str) -> Result<u64> {
        let before = self.of(source);
        let folder = self.folder.join(source);
        fs::create_dir_all(&folder)?;
        let mut files = before.files.clone();
        // Rows of one schema to a file.
        for segments in before.tail.chunk_by(|a, b| a.rows.schema() == b.rows.schema()) {
            files.push(write(&folder, segments)?);
        }
        // The files' names, too, must survive a loss of power before the tail is forgotten.
        for folder in folder.ancestors().take(3) {
            File::open(folder)?.sync_all()?;
        }
        let end = before.end();
        let mut sources = self.sources.write();
        let pushed = Arc::make_mut(sources.entry(source.to_owned()).or_default());
        pushed.files = files;
        let newer = std::mem::take(&mut pushed.tail);
        for segment in newer.into_iter().filter(|segment| segment.end() > end) {
            let known = end.saturating_sub(segment.first) as usize;
            pushed.append(segment.rows.slice(known, segment.rows.num_rows() - known))?;
        }
        Ok(end)
    }
}

fn write(folder: &Path, segments: &[Segment]) -> Result<PushedFile> {
    let (first, end) = (segments[0].first, segments[segments.len() - 1].end());
    let unfinished = folder.join("unfinished");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(&unfinished)?, segments[0].rows.schema(), Some(properties))?;
    segments.iter().try_for_each(|segment| writer.write(&segment.rows))?;
    writer.into_inner()?.sync_all()?;
    let path = folder.join(format!("{first:020}-{end:020}.{EXTENSION}"));
    fs::rename(&unfinished, &path)?;
    Ok(PushedFile { first, end, file: HistoryFile::at(&path)? })
}

/// What lies in `folder`; nothing where there is none.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn foreign(path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().display();
    let what = |file: &dyn std::fmt::Display| format!("{file} is no file of pushed rows; move it elsewhere");
    Error::refused(what(&name)).quoting(what(&path.display()))
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
