//! Which labels are sound, and in which columns are they kept?

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use quern_engine::in_words;
use quern_engine::schema::{canonical, conform, timestamp, type_name};

use crate::error::{Error, Result};
pub(super) use crate::logged::rows::PRINCIPAL;
use crate::seal::LABELLED_AT;

/// The request that a label belongs to.
pub(crate) const REQUEST_ID: &str = "request_id";
/// Its place in the request.
pub(crate) const ROW: &str = "row";
/// The columns that are ours. Beside those that predictions have as well, [`PRINCIPAL`] is who labelled, where that
/// counts for what they asked for alone; null counts for all predictions.
const OURS: [&str; 4] = [REQUEST_ID, ROW, LABELLED_AT, PRINCIPAL];
/// Columns that labels of a model bring besides request and row, at the most: each is one of every joined row.
const COLUMNS_MAX: usize = 64;
/// No answered request has a longer id: what is longer belongs to none.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A name of a column, and a label that is text, at the most.
const NAME_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 1_024;

/// Who labelled or asked for each of some rows; nobody that is known where the column is missing, as in what earlier
/// builds have written.
pub(super) struct Principals<'a>(Option<&'a StringArray>);

impl<'a> Principals<'a> {
    pub(super) fn of(rows: &'a RecordBatch) -> Principals<'a> {
        Principals(rows.column_by_name(PRINCIPAL).and_then(|column| column.as_string_opt()))
    }

    pub(super) fn get(&self, row: usize) -> Option<&'a str> {
        self.0.filter(|names| names.is_valid(row)).map(|names| names.value(row))
    }
}

/// Whether a label that is `by` somebody counts for a prediction that was asked for `by` another.
pub(super) fn counts_for(label_by: Option<&str>, asked_by: Option<&str>) -> bool {
    label_by.is_none() || asked_by.is_none() || label_by == asked_by
}

pub(super) fn required<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::invalid(format!("labels need a column `{name}`")))
}

/// Rows as they are kept: request and row first, the time, whom they are `by`, and whatever the caller brings, in the
/// types of the language.
pub(super) fn sound(rows: &RecordBatch, by: Option<&str>, now_us: i64) -> Result<RecordBatch> {
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
        Field::new(PRINCIPAL, DataType::Utf8, true),
    ];
    let mut columns = vec![ids, numbers, now, Arc::new(StringArray::from(vec![by; n])) as ArrayRef];
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let name = field.name();
        if [REQUEST_ID, ROW].contains(&name.as_str()) {
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
pub(super) fn not_too_many(before: &Schema, after: &Schema) -> Result<()> {
    let theirs = |schema: &Schema| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        names.filter(|name| !OURS.contains(name)).count()
    };
    let (known, wanted) = (theirs(before), theirs(after));
    if wanted <= COLUMNS_MAX || wanted == known {
        return Ok(());
    }
    let is_new = |name: &&String| before.field_with_name(name).is_err() && !OURS.contains(&name.as_str());
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
        let Some(texts) = column.as_string_opt::<i32>().filter(|_| name != PRINCIPAL) else { continue };
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
pub(super) fn unified<'a>(schemas: impl Iterator<Item = &'a SchemaRef>) -> Result<SchemaRef> {
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

/// The rows in the columns of `schema`, which are theirs and perhaps more, or of wider types.
pub(super) fn widened(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| match rows.column_by_name(field.name()) {
        Some(column) => Ok(cast(column, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
