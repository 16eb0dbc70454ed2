//! Which rows does a push bring? Those whose values have the types of the source, and for each other one why not.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use feature_defs::{Source, suggest};
use quern_engine::json::{Json, column};
use quern_wire::Rejected;

use super::read::{INSTANCES_MAX, arrays};
use crate::error::{Error, Result};

/// Reads `df`, an object of arrays, into the columns of `schema` that it has: those of the rows of `source`. Null
/// stands in for a value of another type, whose row is rejected.
///
/// # Errors
/// Columns of different lengths, a column that `schema` does not have, more rows than one request may bring.
pub fn rows(source: &Source, schema: &Schema, df: &Json<'_>) -> Result<(RecordBatch, Vec<Rejected>)> {
    let (given, rows) = arrays("df", df)?;
    if rows > INSTANCES_MAX {
        return Err(Error::too_large(format!(
            "the push brings {rows} rows, at most {INSTANCES_MAX} are taken at a time: split it, or push over Arrow Flight"
        )));
    }
    let (mut fields, mut columns, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for (name, cells) in given {
        let Some((_, field)) = schema.fields().find(name) else {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::invalid(format!("`df`: unknown column `{name}`; {}", suggest(name, known))));
        };
        if fields.contains(field) {
            return Err(Error::invalid(format!("column `{name}` is given twice")));
        }
        columns.push(lenient(source, field, cells.iter().collect(), &mut rejected)?);
        fields.push(Arc::clone(field));
    }
    if columns.is_empty() {
        return Err(Error::invalid("`df` has no columns; give an array for each column of the source"));
    }
    Ok((RecordBatch::try_new(Arc::new(Schema::new(Fields::from(fields))), columns)?, rejected))
}

/// What an event says that is JSON.
///
/// # Errors
/// Where it is none.
pub fn event(text: &[u8]) -> std::result::Result<Json<'_>, String> {
    serde_json::from_slice(text).map_err(|error| format!("the event is not valid JSON: {error}"))
}

/// Reads events, each an object with the columns of a row, or why it cannot be read. What an object has besides says
/// nothing, and what it lacks is null; an event that is no object is rejected.
///
/// # Errors
/// Columns that make no batch.
pub fn events(
    source: &Source,
    schema: &Schema,
    events: &[std::result::Result<Json<'_>, String>],
) -> Result<(RecordBatch, Vec<Rejected>)> {
    let mut rejected = Vec::new();
    let mut cells: Vec<Vec<&Json<'_>>> = vec![vec![&Json::Null; events.len()]; schema.fields().len()];
    for (index, event) in events.iter().enumerate() {
        let cause = match event {
            Ok(Json::Object(entries)) => {
                for (name, value) in entries {
                    if let Some((column, _)) = schema.fields().find(name) {
                        cells[column][index] = value;
                    }
                }
                continue;
            }
            Ok(other) => format!("expected an object with the columns of a row, found {other}"),
            Err(cause) => cause.clone(),
        };
        rejected.push(Rejected { index, column: None, cause });
    }
    let columns = schema.fields().iter().zip(cells);
    let columns =
        columns.map(|(field, cells)| lenient(source, field, cells, &mut rejected)).collect::<Result<_>>()?;
    Ok((RecordBatch::try_new(Arc::new(schema.clone()), columns)?, rejected))
}

fn lenient(
    source: &Source,
    field: &Field,
    mut cells: Vec<&Json<'_>>,
    rejected: &mut Vec<Rejected>,
) -> Result<ArrayRef> {
    let format = source.format(field.name());
    if let Ok(read) = column(field.data_type(), format, &cells) {
        return Ok(read);
    }
    for (index, cell) in cells.iter_mut().enumerate() {
        if let Err(misfit) = column(field.data_type(), format, std::slice::from_ref(cell)) {
            let is_number = matches!(cell, Json::Int(_) | Json::Float(_));
            let way_out = match field.data_type() {
                DataType::Timestamp(_, _) if is_number && format.is_none() => {
                    "; `format` says of a source's column what its numbers count"
                }
                _ => "",
            };
            let cause = format!("expected {}, found {}{way_out}", misfit.expected, misfit.found);
            rejected.push(Rejected { index, column: Some(field.name().clone()), cause });
            *cell = &Json::Null;
        }
    }
    column(field.data_type(), format, &cells)
        .map_err(|misfit| Error::broken(format!("column `{}`: expected {}", field.name(), misfit.expected)))
}
