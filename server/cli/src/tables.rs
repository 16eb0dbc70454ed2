//! How do tables come from files?

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Seek};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use quern_base::quotes::{Quoted, is_code, no_commas};
use quern_engine::in_words;
use quern_engine::instant::{Unread, of_text};
use quern_engine::schema::{EVENT_TIMESTAMP, timestamp};
use quern_wire::ColumnInfo;

use super::cells::{bad_cell, uneven};
use super::failure::Result;
use super::materialize::rows_bar;
use crate::error::Error;

const BATCH_ROWS: usize = 65_536;

/// A bar on the way to `rows`, where a person looks on.
pub(super) fn bar(rows: u64) -> Option<ProgressBar> {
    let bar = std::io::stderr().is_terminal().then(rows_bar)?;
    bar.set_length(rows);
    Some(bar)
}

/// A file of rows, read as they are taken.
pub(super) struct Table {
    pub(super) schema: SchemaRef,
    /// How many rows there are; 0 where the file does not say.
    pub(super) rows: u64,
    pub(super) batches: Batches,
}

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, Error>> + Send>;

impl Table {
    /// Opens a Parquet or CSV file, which messages call `what`. Columns that are `known` have their type in a CSV file.
    pub(super) fn open(what: &str, path: &Path, known: &[ColumnInfo]) -> Result<Table> {
        let place = format!("{what} {}", path.display());
        let wrong = move |cause: String| Error::invalid(format!("{place}: {cause}"));
        let mut file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                    .map_err(|error| wrong(in_words(&error)))?;
                let schema = Arc::clone(reader.schema());
                let rows = reader.metadata().file_metadata().num_rows().unsigned_abs();
                let reader =
                    reader.with_batch_size(BATCH_ROWS).build().map_err(|error| wrong(in_words(&error)))?;
                Ok(Table { schema, rows, batches: batches(reader, wrong) })
            }
            Some("csv") => {
                let schema = Arc::new(csv_schema(path, &mut file, known).map_err(&wrong)?);
                file.rewind().map_err(|error| wrong(error.to_string()))?;
                let reader = ReaderBuilder::new(texts_for_times(&schema))
                    .with_header(true)
                    .with_batch_size(BATCH_ROWS);
                let reader = reader.build(file).map_err(|error| wrong(in_words(&error)))?;
                let (path, texts) = (path.to_owned(), texts_for_times(&schema));
                let (timed, mut row) = (Arc::clone(&schema), 1);
                let reader = reader.map(move |batch| {
                    let batch =
                        batch.map_err(|error| bad_cell(&path, &texts).unwrap_or_else(|| in_words(&error)))?;
                    let first = row;
                    row += batch.num_rows();
                    with_times(&batch, &timed, first)
                });
                Ok(Table { schema, rows: 0, batches: batches(reader, wrong) })
            }
            _ => Err(wrong("its name must end in .parquet or .csv".to_owned()).into()),
        }
    }
}

fn batches(
    reader: impl Iterator<Item = std::result::Result<RecordBatch, impl Display>> + Send + 'static,
    wrong: impl Fn(String) -> Error + Send + 'static,
) -> Batches {
    Box::new(reader.map(move |batch| batch.map_err(|error| wrong(in_words(&error)))))
}

/// The columns of a CSV file, which says nothing about types: what the feature service takes is of its type, the rest
/// as it looks. All of it is gone through, once for its quotes and types, and once more if a number may be a code.
fn csv_schema(path: &Path, file: &mut File, known: &[ColumnInfo]) -> std::result::Result<Schema, String> {
    let mut quoted = Quoted::new(&mut *file);
    let inferred = Format::default().with_header(true).infer_schema(&mut quoted, None);
    if let Some(misquoted) = quoted.misquoted() {
        return Err(misquoted.to_string());
    }
    let (inferred, _) = inferred.map_err(|error| uneven(path).unwrap_or_else(|| in_words(&error)))?;
    if let [only] = inferred.fields().as_ref()
        && let Some(other) = no_commas(only.name())
    {
        return Err(other);
    }
    let told = |name: &str| known.iter().find(|column| column.name == name);
    let field = |field: &Arc<Field>| {
        let dtype = match told(field.name()) {
            _ if field.name() == EVENT_TIMESTAMP => timestamp(),
            Some(column) => csv_type(&column.dtype),
            None => field.data_type().clone(),
        };
        Field::new(field.name(), dtype, true)
    };
    let mut fields: Vec<Field> = inferred.fields().iter().map(field).collect();
    let is_guess = |field: &Field| field.data_type().is_numeric() && told(field.name()).is_none();
    if fields.iter().any(is_guess) {
        file.rewind().map_err(|error| error.to_string())?;
        for place in codes(file).map_err(|error| error.to_string())? {
            if let Some(field) = fields.get_mut(place).filter(|field| is_guess(field)) {
                field.set_data_type(DataType::Utf8);
            }
        }
    }
    Ok(Schema::new(fields))
}

/// The columns that have a code in them, by their place.
fn codes(file: &File) -> std::result::Result<BTreeSet<usize>, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let (mut record, mut codes) = (csv::ByteRecord::new(), BTreeSet::new());
    while reader.read_byte_record(&mut record)? {
        codes.extend(record.iter().enumerate().filter(|(_, cell)| is_code(cell)).map(|(place, _)| place));
    }
    Ok(codes)
}

/// The same columns, with texts where there will be times.
fn texts_for_times(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match *field.data_type() == timestamp() {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        false => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Fields>()))
}

/// Rows in the columns of `schema`, of which times are texts still; the first one has number `first`.
fn with_times(
    rows: &RecordBatch,
    schema: &SchemaRef,
    first: usize,
) -> std::result::Result<RecordBatch, String> {
    let column = |(field, column): (&Arc<Field>, &ArrayRef)| {
        if field.data_type() == column.data_type() {
            return Ok(Arc::clone(column));
        }
        let moment = |(row, text): (usize, Option<&str>)| {
            let Some(text) = text else { return Ok(None) };
            of_text(text.trim_ascii(), None).map(Some).map_err(|unread| {
                let why = match unread {
                    Unread::Doubt(doubt) => doubt.to_string(),
                    Unread::NoTime => "is no timestamp, such as 2013-01-31T09:26:56.5Z".to_owned(),
                };
                format!("row {}, column `{}`: `{text}` {why}", first + row, field.name())
            })
        };
        let moments = column.as_string::<i32>().iter().enumerate().map(moment);
        let moments = moments.collect::<std::result::Result<TimestampMicrosecondArray, String>>()?;
        Ok(Arc::new(moments.with_timezone("UTC")) as ArrayRef)
    };
    let columns = schema.fields().iter().zip(rows.columns()).map(column);
    let columns = columns.collect::<std::result::Result<_, String>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| in_words(&error))
}

/// What is text in a CSV file, such as a list, stays text, and the feature service says what it wants instead.
fn csv_type(dtype: &str) -> DataType {
    match dtype {
        "bool" => DataType::Boolean,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "timestamp" => timestamp(),
        "date" => DataType::Date32,
        _ => DataType::Utf8,
    }
}
