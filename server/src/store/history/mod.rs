//! Which rows does a source's history hold, and how are they read?
//!
//! History is files, Parquet or CSV. A source is opened once ([`History::open`]): its files are listed in the
//! order their rows count as arrived, and every footer is read and checked. What is open is then read in units,
//! by as many threads as the caller likes ([`Scan::read`]). Read it in this order: `files` (which files), `columns`
//! (which columns, of which types), `parquet`, then `csv` with `cell` (text becomes values).
//!
//! Whatever a file holds, rows leave here with the canonical types of [`quern_engine::schema`], and with event
//! and created timestamps in microseconds, UTC.

mod cell;
mod columns;
mod csv;
mod files;
mod parquet;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use feature_defs::{DefError, Format, Source};

use crate::error::{Error, Result};
use csv::CsvFile;
use files::HistoryFile;
use parquet::ParquetFile;

/// The most rows in one batch.
pub const BATCH_ROWS_MAX: usize = 16_384;
/// How many mistakes one error lists.
const MISTAKES_SHOWN: usize = 20;

/// The files of a repository's sources.
#[derive(Debug, Clone)]
pub struct History {
    root: PathBuf,
}

impl History {
    /// The history of the repository in `root`: where relative paths begin.
    pub fn new(root: PathBuf) -> Self {
        History { root }
    }

    /// The canonical schema of a source's rows, all columns nullable. Parquet: the columns of the first file by
    /// name, declared types before the file's own. CSV and sources that are only pushed to: the declared columns.
    ///
    /// # Errors
    ///
    /// Every column that is missing or of a wrong type, with the file and both types; no or an unreadable file.
    pub fn schema(&self, source: &Source) -> std::result::Result<SchemaRef, Vec<DefError>> {
        let Some(batch) = &source.batch else { return columns::declared_schema(source) };
        let found = files::find(&self.root, source, batch).map_err(|mistake| vec![mistake])?;
        let unreadable = |error: Error| {
            let cause = format!("source `{}`: {error}", source.name);
            vec![
                DefError::new(&batch.loc, cause)
                    .with_help("write the file anew, or leave it out of the path"),
            ]
        };
        let Some(first) = found.into_iter().next() else { return columns::declared_schema(source) };
        match batch.format {
            Format::Parquet => {
                let file = ParquetFile::open(first).map_err(unreadable)?;
                columns::file_schema(source, file.name(), file.fields())
            }
            Format::Csv => {
                let schema = columns::declared_schema(source)?;
                let header = csv::header(&first, &schema).map_err(unreadable)?;
                let mistakes = columns::missing(source, &first.name, &header);
                if mistakes.is_empty() { Ok(schema) } else { Err(mistakes) }
            }
        }
    }

    /// How many files a source has now, and how many bytes they are. What cannot be listed is nothing.
    pub fn size(&self, source: &Source) -> (usize, u64) {
        let found = source.batch.as_ref().and_then(|batch| files::find(&self.root, source, batch).ok());
        let found = found.unwrap_or_default();
        (found.len(), found.iter().map(HistoryFile::bytes).sum())
    }

    /// Opens every file of a source for reading `schema`'s columns: what [`History::schema`] gave, or some of it.
    /// Reads Parquet footers; reads CSV files once, to count their rows. A source without files has no units.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with every file that cannot be read, and every column that a file lacks or holds in
    /// another type.
    pub fn open(&self, source: &Source, schema: &SchemaRef) -> Result<Scan> {
        let Some(batch) = &source.batch else {
            return Ok(Scan {
                units: Vec::new(),
                schema: Arc::clone(schema),
                files: Files::Parquet(Vec::new()),
            });
        };
        let found = files::find(&self.root, source, batch).map_err(|mistake| {
            let help = mistake.help.map(|help| format!("; {help}")).unwrap_or_default();
            Error::Invalid(mistake.cause + &help)
        })?;
        let mut opening = Opening { source, schema, units: Vec::new(), mistakes: Vec::new() };
        let numbered = (0u32..).zip(found);
        let files = match batch.format {
            Format::Parquet => {
                Files::Parquet(numbered.filter_map(|(i, file)| opening.parquet(i, file)).collect())
            }
            Format::Csv => Files::Csv(numbered.filter_map(|(i, file)| opening.csv(i, file)).collect()),
        };
        Ok(Scan { units: opening.finish()?, schema: Arc::clone(schema), files })
    }
}

/// What has been learnt while the files of a source are opened one after the other.
struct Opening<'a> {
    source: &'a Source,
    schema: &'a Schema,
    units: Vec<Unit>,
    mistakes: Vec<String>,
}

impl Opening<'_> {
    fn parquet(&mut self, number: u32, file: HistoryFile) -> Option<ParquetFile> {
        let opened = ParquetFile::open(file)
            .and_then(|file| Ok((file.row_groups(&self.source.event_timestamp)?, file)));
        let (row_groups, file) = self.noted(opened)?;
        self.mistakes.extend(columns::mismatches(self.source, self.schema, file.name(), file.fields()));
        let mut first_row = 0;
        for (row_group, (rows, times)) in row_groups.into_iter().enumerate() {
            self.units.push(Unit { file: number, first_row, rows, times, row_group });
            first_row += rows;
        }
        Some(file)
    }

    fn csv(&mut self, number: u32, file: HistoryFile) -> Option<CsvFile> {
        let header = csv::header(&file, self.schema);
        let header = self.noted(header)?;
        let mistakes = columns::mismatches(self.source, self.schema, &file.name, &header);
        if !mistakes.is_empty() {
            self.mistakes.extend(mistakes);
            return None;
        }
        let file = self.noted(CsvFile::open(file))?;
        self.units.push(Unit { file: number, first_row: 0, rows: file.rows(), times: None, row_group: 0 });
        Some(file)
    }

    fn noted<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.mistakes.push(error.to_string())).ok()
    }

    fn finish(mut self) -> Result<Vec<Unit>> {
        if self.mistakes.is_empty() {
            return Ok(self.units);
        }
        let more = self.mistakes.len().saturating_sub(MISTAKES_SHOWN);
        self.mistakes.truncate(MISTAKES_SHOWN);
        let more = if more > 0 { format!("\n… and {more} more") } else { String::new() };
        Err(Error::Invalid(self.mistakes.join("\n") + &more))
    }
}

/// Rows that are read together: a row group of a Parquet file, or a whole CSV file.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Number of its file, in order of arrival.
    pub file: u32,
    /// Number of its first row in the file.
    pub first_row: u64,
    /// How many rows it has; always fewer than 2^32.
    pub rows: u64,
    /// Bounds of its event timestamps, in microseconds: none lies outside, none need lie on them. Rows without an
    /// event timestamp are not counted. Absent where the file does not say.
    pub times: Option<(i64, i64)>,
    row_group: usize,
}

impl Unit {
    /// Whether an event timestamp between `from_us` and `to_us`, both included, may be in it.
    pub fn may_hold(&self, from_us: i64, to_us: i64) -> bool {
        self.times.is_none_or(|(first, last)| first <= to_us && from_us <= last)
    }
}

/// A source whose files are open for reading: by many threads at once, each opening the file anew.
#[derive(Debug)]
pub struct Scan {
    /// Every unit, in order of arrival.
    pub units: Vec<Unit>,
    schema: SchemaRef,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Parquet(Vec<ParquetFile>),
    Csv(Vec<CsvFile>),
}

/// What is read of one unit.
struct Reading<'a> {
    /// The columns asked for, in that order; perhaps none.
    schema: SchemaRef,
    /// The rows asked for, ascending; absent: all.
    rows: Option<&'a [u32]>,
}

impl Scan {
    /// Reads `columns` of one unit, whole or only `rows` (ascending, relative to the unit), as canonical batches of
    /// at most [`BATCH_ROWS_MAX`] rows in row order. `visit` gets the offset of each batch's first row within what
    /// is read; its error ends the reading and is handed on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] naming the file where it is malformed, changed since it was opened, or holds a value
    /// that its column's type cannot.
    pub fn read(
        &self,
        unit: usize,
        columns: &[String],
        rows: Option<&[u32]>,
        visit: &mut dyn FnMut(usize, RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let unit =
            self.units.get(unit).ok_or_else(|| Error::Internal(format!("history has no unit {unit}")))?;
        let reading = Reading { schema: self.project(columns)?, rows: ascending(rows, unit.rows)? };
        let count = rows.map_or(unit.rows as usize, <[u32]>::len);
        let mut offset = 0;
        let mut pass_on = |batch: RecordBatch| {
            let at = offset;
            offset += batch.num_rows();
            visit(at, batch)
        };
        if count == 0 || columns.is_empty() {
            return counted(count, &reading, &mut pass_on);
        }
        match &self.files {
            Files::Parquet(files) => files[unit.file as usize].read(unit, &reading, &mut pass_on)?,
            Files::Csv(files) => files[unit.file as usize].read(&reading, &mut pass_on)?,
        }
        if offset != count {
            let name = self.file_name(unit.file);
            return Err(Error::Invalid(format!("`{name}` gave {offset} rows of {count}: it is malformed")));
        }
        Ok(())
    }

    /// Name of a file, for messages: its path relative to the repository, where it lies inside.
    pub fn file_name(&self, file: u32) -> &str {
        match &self.files {
            Files::Parquet(files) => files.get(file as usize).map_or("", ParquetFile::name),
            Files::Csv(files) => files.get(file as usize).map_or("", CsvFile::name),
        }
    }

    fn project(&self, columns: &[String]) -> Result<SchemaRef> {
        let field = |name: &String| {
            let found = self.schema.fields().find(name).map(|(_, field)| Arc::clone(field));
            found.ok_or_else(|| Error::Internal(format!("column `{name}` was not opened for reading")))
        };
        Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Fields>>()?)))
    }
}

/// Batches without columns: only their row counts say something.
fn counted(
    count: usize,
    reading: &Reading<'_>,
    visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let rows = left.min(BATCH_ROWS_MAX);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        visit(RecordBatch::try_new_with_options(Arc::clone(&reading.schema), Vec::new(), &options)?)?;
        left -= rows;
    }
    Ok(())
}

/// Refuses a selection that a decoder would misread.
fn ascending(rows: Option<&[u32]>, count: u64) -> Result<Option<&[u32]>> {
    let selected = rows.unwrap_or_default();
    let is_sorted = selected.is_sorted_by(|a, b| a < b);
    if !is_sorted || selected.last().is_some_and(|last| u64::from(*last) >= count) {
        return Err(Error::Internal(format!("rows to read must ascend and lie below {count}")));
    }
    Ok(rows)
}
