//! What came true? Labels of predictions, each under the request and row that it belongs to, kept for good.
//!
//! They come when they come, often days later, and come again: of several with one request and row the last counts.
//! Anybody may label a request that was never made, or is not of the log's sample: what belongs to no logged request is
//! kept as far as there is room, the newest first ([`sift`]).

mod sift;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use parking_lot::RwLock;
use quern_engine::in_words;
use quern_engine::schema::{canonical, conform, timestamp, type_name};
use quern_engine::size::row_bytes;

use crate::error::{Error, Result};
use crate::live::Deployment;
use crate::logged::PredictionLog;
use quern_store::history::Partitions;

/// Where the files are, in the data folder.
const FOLDER: &str = "labels";
/// The request that a label belongs to.
pub(crate) const REQUEST_ID: &str = "request_id";
/// Its place in the request.
pub(crate) const ROW: &str = "row";
/// When the label came.
pub(crate) const LABELLED_AT: &str = "labelled_at";
/// Columns that labels of a model bring besides request and row, at the most: each is one of every joined row.
const COLUMNS_MAX: usize = 64;
/// No answered request has a longer id: what is longer belongs to none.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A name of a column, and a label that is text, at the most.
const NAME_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 1_024;
/// From so many files of a model on, they are put together: every call makes one.
const FILES_MAX: usize = 128;

/// Labels that one call may bring, in bytes.
const PUT_BYTES_MAX: usize = 64 << 20;
/// What labels grow by before it is looked again which of them belong to a logged request.
const GROWTH_BYTES: usize = 64 << 20;

/// The labels of a data folder.
#[derive(Debug)]
pub struct Labels {
    files: Partitions,
    log: Arc<PredictionLog>,
    /// What is known of each model's labels, where they were looked at. Held exclusively while files change: whoever
    /// reads finds either the parts or the whole.
    known: RwLock<BTreeMap<String, Stored>>,
}

/// What is known of the labels of a model without reading them.
#[derive(Debug, Clone)]
struct Stored {
    columns: SchemaRef,
    /// What they take in memory.
    bytes: usize,
    /// The same when they were sifted last.
    sifted_bytes: usize,
}

/// Where a label lies that counts: by request and row.
type Last = HashMap<(String, i64), u32>;

/// The labels of one model.
#[derive(Debug)]
pub struct Known {
    rows: RecordBatch,
    last: Last,
}

impl Labels {
    /// The labels in the data folder.
    pub(crate) fn open(data: &Path, log: Arc<PredictionLog>) -> Result<Labels> {
        Ok(Labels { files: Partitions::open(data.join(FOLDER))?, log, known: RwLock::default() })
    }

    /// Keeps labels of `model`; they are on disk when this returns. Waits for the disk: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// An unknown model; no `request_id`; a column that was of another type before; more columns than a model may have,
    /// or text that is too long.
    pub fn put(&self, live: &Deployment, model: &str, rows: &RecordBatch, now_us: i64) -> Result<usize> {
        if !live.models.contains_key(model) {
            let known = live.instead_of(model, live.models.keys().map(String::as_str));
            return Err(Error::not_found(format!("unknown model `{model}`; {known}")));
        }
        let rows = sound(rows, now_us)?;
        let bytes = row_bytes(&rows);
        if bytes > PUT_BYTES_MAX {
            return Err(Error::too_large(format!(
                "these labels hold {} MiB, and at most {} MiB are taken at a time: send them in parts",
                bytes >> 20,
                PUT_BYTES_MAX >> 20
            )));
        }
        let mut known = self.known.write();
        let files = self.files.list(model.as_ref())?;
        let mut stored = match known.get(model) {
            Some(stored) => stored.clone(),
            None => {
                let before = self.read(&files)?;
                Stored { columns: before.schema(), bytes: row_bytes(&before), sifted_bytes: 0 }
            }
        };
        let schema = unified([Arc::clone(&stored.columns), rows.schema()].iter())?;
        not_too_many(&stored.columns, &schema)?;
        if rows.num_rows() == 0 {
            return Ok(0);
        }
        (stored.columns, stored.bytes) = (schema, stored.bytes.saturating_add(bytes));
        if files.len() < FILES_MAX && stored.bytes <= stored.sifted_bytes + GROWTH_BYTES {
            self.files.write(model.as_ref(), now_us, &rows)?;
        } else {
            self.merge(model, &mut stored, &files, (&rows, now_us))?;
        }
        known.insert(model.to_owned(), stored);
        Ok(rows.num_rows())
    }

    /// Writes all labels of a model into one file: those in `files` that still count, and `rows`.
    fn merge(
        &self,
        model: &str,
        stored: &mut Stored,
        files: &[PathBuf],
        (rows, now_us): (&RecordBatch, i64),
    ) -> Result<()> {
        let (before, schema) = (self.read(files)?, &stored.columns);
        let all = concat_batches(schema, &[widened(&before, schema)?, widened(rows, schema)?])?;
        let mut kept: Vec<u32> = last(&all)?.into_values().collect();
        kept.sort_unstable();
        let mut all = take_record_batch(&all, &UInt32Array::from(kept))?;
        stored.bytes = row_bytes(&all);
        if stored.bytes > stored.sifted_bytes + GROWTH_BYTES {
            all = sift::sift(&self.log, model, all)?;
            stored.bytes = row_bytes(&all);
            stored.sifted_bytes = stored.bytes;
        }
        self.files.write(model.as_ref(), now_us, &all)?;
        // Not sooner. What a crash leaves is in the new file too, which comes after.
        for file in files {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }

    /// All labels of `model`.
    pub fn of(&self, model: &str) -> Result<Known> {
        let _unchanged = self.known.read();
        let rows = self.read(&self.files.list(model.as_ref())?)?;
        Ok(Known { last: last(&rows)?, rows })
    }

    fn read(&self, files: &[PathBuf]) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        for file in files {
            batches.extend(self.files.read(file)?);
        }
        let schema = unified(batches.iter().map(RecordBatch::schema).collect::<Vec<_>>().iter())?;
        let batches = batches.iter().map(|rows| widened(rows, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(concat_batches(&schema, &batches)?)
    }
}

impl Known {
    /// The columns that labels bring besides request and row.
    pub fn columns(&self) -> Vec<FieldRef> {
        let is_theirs = |field: &&FieldRef| ![REQUEST_ID, ROW].contains(&field.name().as_str());
        self.rows.schema().fields().iter().filter(is_theirs).cloned().collect()
    }

    /// The place of the label of a request's row, where there is one.
    pub fn find(&self, request_id: &str, row: i64) -> Option<u32> {
        self.last.get(&(request_id.to_owned(), row)).copied()
    }

    /// The values of the column called `name` at these places.
    pub fn values(&self, name: &str, places: &UInt32Array) -> Result<Option<ArrayRef>> {
        let column = self.rows.column_by_name(name);
        Ok(column.map(|column| arrow::compute::take(column, places, None)).transpose()?)
    }
}

fn last(rows: &RecordBatch) -> Result<Last> {
    let mut last = Last::new();
    if rows.num_rows() > 0 {
        let ids = required(rows, REQUEST_ID)?.as_string::<i32>();
        let numbers = required(rows, ROW)?.as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            last.insert((ids.value(row).to_owned(), numbers.value(row)), row as u32);
        }
    }
    Ok(last)
}

fn required<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::invalid(format!("labels need a column `{name}`")))
}

/// Rows as they are kept: request and row first, the time, and whatever the caller brings, in the types of the
/// language.
fn sound(rows: &RecordBatch, now_us: i64) -> Result<RecordBatch> {
    let n = rows.num_rows();
    let of = |name: &str, to: &DataType, column: &ArrayRef| {
        conform(column, to).map_err(|error| {
            Error::invalid(format!(
                "the labels' column `{name}` cannot be read as {}: {}",
                type_name(to),
                in_words(&error)
            ))
        })
    };
    let ids = of(REQUEST_ID, &DataType::Utf8, required(rows, REQUEST_ID)?)?;
    let numbers: ArrayRef = match rows.column_by_name(ROW) {
        Some(column) => {
            let numbers = of(ROW, &DataType::Int64, column)?;
            // Most requests have one row: who says none means that.
            let numbers = numbers.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default);
            Arc::new(Int64Array::from_iter_values(numbers))
        }
        None => Arc::new(Int64Array::from(vec![0; n])),
    };
    if let Some(row) = (0..n).find(|row| ids.is_null(*row)) {
        return Err(Error::invalid(format!("label {row} has no `{REQUEST_ID}`")));
    }
    let now: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![now_us; n]).with_timezone("UTC"));
    let mut fields = vec![
        Field::new(REQUEST_ID, DataType::Utf8, true),
        Field::new(ROW, DataType::Int64, true),
        Field::new(LABELLED_AT, timestamp(), true),
    ];
    let mut columns = vec![ids, numbers, now];
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let name = field.name();
        if fields[..3].iter().any(|known| known.name() == name) && name != LABELLED_AT {
            continue;
        }
        if fields.iter().any(|known| known.name() == name) {
            return Err(Error::invalid(format!("labels have a column `{name}` already; name it otherwise")));
        }
        let dtype = canonical(field.data_type());
        columns.push(of(name, &dtype, column)?);
        fields.push(Field::new(name, dtype, true));
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    not_too_long(&rows)?;
    Ok(rows)
}

/// Refuses columns beyond the limit. Those that are there already stay, however many they are.
fn not_too_many(before: &Schema, after: &Schema) -> Result<()> {
    let theirs = |schema: &Schema| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        names.filter(|name| ![REQUEST_ID, ROW, LABELLED_AT].contains(name)).count()
    };
    let (known, wanted) = (theirs(before), theirs(after));
    if wanted <= COLUMNS_MAX || wanted == known {
        return Ok(());
    }
    let is_new = |name: &&String| {
        before.field_with_name(name).is_err() && ![REQUEST_ID, ROW, LABELLED_AT].contains(&name.as_str())
    };
    let new = after.fields().iter().map(|field| field.name()).find(is_new).map_or("", String::as_str);
    Err(Error::too_large(format!(
        "labels of a model have at most {COLUMNS_MAX} columns; it has {known}, and with `{new}` and the other new ones it \
         would have {wanted}: bring what is the same thing under one name"
    )))
}

/// Refuses text that is longer than a label may be, by its row.
fn not_too_long(rows: &RecordBatch) -> Result<()> {
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let name = field.name();
        if name.len() > NAME_BYTES_MAX {
            let bytes = name.len();
            return Err(Error::too_large(format!(
                "the labels' column `{name}` has a name of {bytes} bytes; it may have {NAME_BYTES_MAX}"
            )));
        }
        let Some(texts) = column.as_string_opt::<i32>() else { continue };
        let max = if name == REQUEST_ID { REQUEST_ID_BYTES_MAX } else { TEXT_BYTES_MAX };
        let long = texts.iter().enumerate().find(|(_, text)| text.is_some_and(|text| text.len() > max));
        if let Some((row, text)) = long {
            let bytes = text.map_or(0, str::len);
            return Err(Error::too_large(format!(
                "label {row}: `{name}` has {bytes} bytes; it may have {max}"
            )));
        }
    }
    Ok(())
}

/// The columns of all; of two number types for one column the wider.
fn unified<'a>(schemas: impl Iterator<Item = &'a SchemaRef>) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::new();
    for field in schemas.flat_map(|schema| schema.fields().iter()) {
        match fields.iter_mut().find(|known| known.name() == field.name()) {
            None => fields.push(Field::clone(field)),
            Some(known) => {
                let dtype = wider(known.data_type(), field.data_type()).ok_or_else(|| {
                    let (was, is) = (type_name(known.data_type()), type_name(field.data_type()));
                    let name = field.name();
                    Error::invalid(format!("the labels' column `{name}` was {was} before, and is {is} now"))
                })?;
                known.set_data_type(dtype);
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Int32 | DataType::Int64, DataType::Int32 | DataType::Int64) => Some(DataType::Int64),
        (a, b) if a.is_numeric() && b.is_numeric() => Some(DataType::Float64),
        _ => None,
    }
}

fn widened(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| match rows.column_by_name(field.name()) {
        Some(column) => Ok(cast(column, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
