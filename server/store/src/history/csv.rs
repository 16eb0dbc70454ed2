//! How are rows of a CSV file read?
//!
//! RFC 4180 with a header line, UTF-8, with or without a byte order mark, unless the source's [`Dialect`] says
//! otherwise. Columns are found by name; those that nobody asks for are skipped unread.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use feature_defs::{Dialect, Encoding};
use quern_base::quotes::{Marks, Misquoted, Quoted, separator};
use quern_engine::instant::{Unread, of_text};
use quern_engine::schema::type_name;

use super::cell::{Cells, example};
use super::files::HistoryFile;
use super::format::is_called_a_table;
use super::{BATCH_ROWS_MAX, Formats, Reading, hive, text};
use crate::error::{Error, Result};

/// A longer record is no record of a table.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// A batch ends early when its text grows beyond this.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// How much of a bad cell an error shows.
const CELL_CHARS_SHOWN: usize = 60;
const BUFFER_BYTES: usize = 256 << 10;
/// What other programs write for null.
const NULLS: [&str; 12] = ["na", "n/a", "#n/a", "nan", "null", "(null)", "none", "nil", "\\n", "-", "?", "."];

/// The records of a file, as they come.
type Records = Reader<Quoted<Budget>>;

/// A CSV file whose records have been counted.
#[derive(Debug)]
pub(super) struct CsvFile {
    file: HistoryFile,
    dialect: Dialect,
    rows: u64,
}

/// The columns of a file: its header's names, with `schema`'s types where it knows them. Text itself has no type.
pub(super) fn header(file: &HistoryFile, dialect: &Dialect, schema: &Schema) -> Result<Fields> {
    let names = names(file, dialect, &mut reader(file, dialect)?)?;
    let twice = |name: &str| names.iter().filter(|other| *other == name).count() > 1;
    if let Some(field) = schema.fields().iter().find(|field| twice(field.name())) {
        return Err(file.unreadable(&format!("its header names column `{}` twice", field.name())));
    }
    let field = |name: &String| {
        let dtype = schema.field_with_name(name).map_or(DataType::Utf8, |field| field.data_type().clone());
        Field::new(name, dtype, true)
    };
    Ok(names.iter().map(field).collect())
}

impl CsvFile {
    /// Counts the records, which also finds those that are too short or too long, and quotes that are not closed.
    pub(super) fn open(file: HistoryFile, dialect: &Dialect) -> Result<Self> {
        let mut reader = reader(&file, dialect)?;
        let mut record = ByteRecord::new();
        let mut rows = 0;
        while next((&file, dialect), &mut reader, &mut record)? {
            rows += 1;
        }
        if rows > u64::from(u32::MAX) {
            return Err(file.unreadable(&format!("{rows} records are too many for one file; split it")));
        }
        Ok(CsvFile { file, dialect: dialect.clone(), rows })
    }

    /// A file of which nothing is known.
    pub(super) fn unopened(file: HistoryFile, dialect: &Dialect) -> Self {
        CsvFile { file, dialect: dialect.clone(), rows: 0 }
    }

    /// Reads no more than the first rows, in the columns of a schema.
    pub(super) fn first_rows(
        &self,
        (count, schema): (usize, SchemaRef),
        formats: &Formats,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        if schema.fields().is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = (0..count as u32).collect();
        self.read(&Reading { rows: Some(&rows), ..Reading::of(schema, formats) }, visit)
    }

    pub(super) fn file(&self) -> &HistoryFile {
        &self.file
    }

    pub(super) fn name(&self) -> &str {
        &self.file.name
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the whole file or some of its rows; batches come in row order.
    pub(super) fn read(
        &self,
        reading: &Reading<'_>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut reader = reader(&self.file, &self.dialect)?;
        let mut batch = Batch::new(self, reading, &names(&self.file, &self.dialect, &mut reader)?)?;
        let mut record = ByteRecord::new();
        let mut wanted = reading.rows.map(|rows| rows.iter().copied().peekable());
        let mut row = 0u32;
        while next((&self.file, &self.dialect), &mut reader, &mut record)? {
            let is_wanted = match &mut wanted {
                None => true,
                Some(rows) => rows.next_if_eq(&row).is_some(),
            };
            row = row.wrapping_add(1);
            if is_wanted {
                batch.push(&record)?;
                if batch.is_full() {
                    visit(batch.finish()?)?;
                }
                if wanted.as_mut().is_some_and(|rows| rows.peek().is_none()) {
                    break;
                }
            }
        }
        if batch.rows > 0 { visit(batch.finish()?) } else { Ok(()) }
    }
}

/// Records on their way to a record batch.
struct Batch<'a> {
    file: &'a CsvFile,
    reading: &'a Reading<'a>,
    /// For each column asked for: its place in a record, and its cells; none where the file lacks it.
    columns: Vec<Option<(usize, Cells)>>,
    rows: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(file: &'a CsvFile, reading: &'a Reading<'a>, header: &[String]) -> Result<Self> {
        let column = |field: &Arc<Field>| {
            let Some(place) = header.iter().position(|name| name == field.name()) else { return Ok(None) };
            let format = reading.formats.epoch(field.name());
            let cells = Cells::new(field.data_type(), format);
            let no_text = || Error::broken(format!("column `{}` is of no type that text says", field.name()));
            Ok(Some((place, cells.ok_or_else(no_text)?)))
        };
        let columns = reading.schema.fields().iter().map(column).collect::<Result<_>>()?;
        Ok(Batch { file, reading, columns, rows: 0, bytes: 0 })
    }

    fn is_full(&self) -> bool {
        self.rows == BATCH_ROWS_MAX || self.bytes > BATCH_BYTES_MAX
    }

    fn push(&mut self, record: &ByteRecord) -> Result<()> {
        let there = self.columns.iter_mut().enumerate();
        for (i, (place, cells)) in there.filter_map(|(i, column)| Some((i, column.as_mut()?))) {
            let cell = record.get(*place).unwrap_or_default();
            let nulls = &self.file.dialect.null_values;
            if str::from_utf8(cell).ok().and_then(|text| cells.push_unless(text, nulls)).is_none() {
                return Err(bad_cell(self.file, self.reading.schema.field(i), record, cell));
            }
        }
        self.rows += 1;
        self.bytes += record.as_slice().len();
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().zip(self.reading.schema.fields());
        let columns = columns.map(|(column, field)| match column {
            Some((_, cells)) => Ok(cells.finish()?),
            None => hive::column(self.file.name(), field, self.reading, self.rows),
        });
        let columns = columns.collect::<Result<_>>()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(RecordBatch::try_new(Arc::clone(&self.reading.schema), columns)?)
    }
}

/// Says where a bad cell is and not what is in it: whoever checks definitions need not be who may read the file.
fn bad_cell(file: &CsvFile, field: &Field, record: &ByteRecord, cell: &[u8]) -> Error {
    let shown: String = String::from_utf8_lossy(cell).chars().take(CELL_CHARS_SHOWN).collect();
    let (name, column, dtype) = (file.name(), field.name(), field.data_type());
    let expected = match dtype {
        DataType::Utf8 => format!("string: it is not UTF-8; {ENCODED}"),
        _ => format!("{}, such as {}", type_name(dtype), example(dtype)),
    };
    let line = line(&file.file, file.dialect.encoding, record);
    let text = str::from_utf8(cell).map(<str>::trim_ascii);
    let read = text.map(|text| of_text(text, None));
    // What a number would be in microseconds says what it is.
    let doubt = |with_number: bool| match (dtype, &read) {
        (DataType::Timestamp(_, _), Ok(Err(Unread::Doubt(doubt)))) => {
            let said = if with_number { doubt.to_string() } else { doubt.kind() };
            let format = doubt.looks_like.name();
            format!("; it {said}; a column's `format` says what its numbers count, as in `format: {format}`")
        }
        _ if text.is_ok_and(|text| NULLS.iter().any(|null| text.eq_ignore_ascii_case(null))) => {
            "; if it stands for null, name it in `null_values` under `batch`".to_owned()
        }
        _ => String::new(),
    };
    let is_no = |cell: &str, doubt: String| {
        format!("`{name}`, line {line}, column `{column}`: {cell} is not of type {expected}{doubt}")
    };
    Error::invalid(is_no("its cell", doubt(false))).quoting(is_no(&format!("`{shown}`"), doubt(true)))
}

/// The way out for what is not UTF-8.
const ENCODED: &str = "say under `batch` how it is written, as in `encoding: windows-1252`";

/// The next record; false at the end of the file.
fn next(
    (file, dialect): (&HistoryFile, &Dialect),
    reader: &mut Records,
    record: &mut ByteRecord,
) -> Result<bool> {
    reader.get_mut().file_mut().bytes = RECORD_BYTES_MAX;
    reader.read_byte_record(record).map_err(|error| match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let line = line(file, dialect.encoding, record);
            file.unreadable(&format!("line {line} has {len} cells and the header {expected_len}"))
        }
        _ => unread(file, reader, &error),
    })
}

/// Why a record cannot be read.
fn unread(file: &HistoryFile, reader: &Records, error: &::csv::Error) -> Error {
    match reader.get_ref().misquoted() {
        Some(Misquoted::Within { .. }) => file.unreadable(&format!(
            "{error}, or stands after what `escape` under `batch` says, as in `escape: \"\\\\\"` for Spark's files"
        )),
        _ => file.unreadable(error),
    }
}

fn names(file: &HistoryFile, dialect: &Dialect, reader: &mut Records) -> Result<Vec<String>> {
    let names = written_names(file, reader)?;
    if let [only] = names.as_slice()
        && let Some((found, header)) = separator(only, dialect.delimiter)
    {
        let expected = char::from(dialect.delimiter).to_string();
        let way_out = format!("say under `batch` what does: `delimiter: {:?}`", found.to_string());
        return Err(match is_called_a_table(&file.name) {
            true => file.unreadable(&format!("{header}, and no {expected:?}; {way_out}")),
            false => file.unfit(
                &format!("no {expected:?} stands between the columns of its header; {way_out}"),
                &format!("{header}; {way_out}"),
            ),
        });
    }
    Ok(names)
}

fn written_names(file: &HistoryFile, reader: &mut Records) -> Result<Vec<String>> {
    let header = reader.byte_headers().cloned().map_err(|error| unread(file, reader, &error))?;
    if header.is_empty() {
        return Err(file.unreadable(&"it is empty; a CSV file begins with a line of column names"));
    }
    let name = |cell: &[u8]| Some(str::from_utf8(cell).ok()?.trim().to_owned());
    let names: Option<Vec<String>> = header.iter().map(name).collect();
    names.ok_or_else(|| match header.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            file.unreadable(&"it is UTF-16; say so under `batch`: `encoding: utf-16`")
        }
        _ => file.unreadable(&format!("its header is not UTF-8; {ENCODED}")),
    })
}

/// What seems to stand between the columns of a file.
pub(super) fn delimiter(file: &HistoryFile) -> Result<u8> {
    let usual = Dialect::default();
    let names = written_names(file, &mut reader(file, &usual)?)?;
    let found = if let [only] = names.as_slice() { separator(only, usual.delimiter) } else { None };
    Ok(found.and_then(|(found, _)| u8::try_from(found).ok()).unwrap_or(usual.delimiter))
}

fn reader(file: &HistoryFile, dialect: &Dialect) -> Result<Records> {
    let budget = Budget { file: text::open(file, dialect.encoding)?, bytes: RECORD_BYTES_MAX };
    let mut builder = ReaderBuilder::new();
    let Dialect { delimiter, quote, escape, .. } = *dialect;
    builder.buffer_capacity(BUFFER_BYTES).delimiter(delimiter).quote(quote).escape(escape);
    Ok(builder.from_reader(Quoted::of(budget, Marks { quote, delimiter, escape })))
}

/// A file that ends with an error when one record takes more bytes than are left.
struct Budget {
    file: Box<dyn Read>,
    bytes: u64,
}

impl Read for Budget {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes = self
            .bytes
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(format!("a record is longer than {RECORD_BYTES_MAX} bytes")))?;
        Ok(count)
    }
}

/// The line on which a record begins, from 1. The reader's own count is early by the line ends that it has yet to
/// skip, so this counts them in the file: only errors ask for it.
fn line(file: &HistoryFile, encoding: Encoding, record: &ByteRecord) -> u64 {
    let Some(start) = record.position().map(|position| position.byte()) else { return 0 };
    let Ok(handle) = text::open(file, encoding) else { return 0 };
    let mut lines = 1;
    for (byte, place) in BufReader::new(handle).bytes().map_while(io::Result::ok).zip(0u64..) {
        if place >= start && !matches!(byte, b'\r' | b'\n') {
            break;
        }
        lines += u64::from(byte == b'\n');
    }
    lines
}

/// The names in the header, and the first `count` records.
pub(super) fn first(
    file: &HistoryFile,
    dialect: &Dialect,
    count: usize,
) -> Result<(Vec<String>, Vec<ByteRecord>)> {
    let mut reader = reader(file, dialect)?;
    let names = names(file, dialect, &mut reader)?;
    let (mut records, mut record) = (Vec::new(), ByteRecord::new());
    while records.len() < count && next((file, dialect), &mut reader, &mut record)? {
        records.push(record.clone());
    }
    Ok((names, records))
}
