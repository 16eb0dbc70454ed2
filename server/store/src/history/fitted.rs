//! What becomes of stored values that the type of their column cannot say?
//!
//! Of a time or an `event_id` that is an error: a row without is another row. Of any other column it is for whoever
//! computes of it to say what is null, and to count it. So a column of a batch with such a value leaves here as it is
//! stored, and every other one in the type of its source.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use quern_engine::schema::{conform, conforms, fitting, type_name};
use quern_engine::{in_words, instant};

use super::files::HistoryFile;
use super::{Reading, stored};
use crate::error::Result;

/// The column in the type of `field`; as it is where that cannot say each of its values.
pub(super) fn fitted(
    column: &ArrayRef,
    field: &Field,
    reading: &Reading<'_>,
) -> std::result::Result<ArrayRef, ArrowError> {
    if reading.whole.contains(field.name()) {
        return conform(column, field.data_type());
    }
    Ok(fitting(column, field.data_type())?.unwrap_or_else(|| Arc::clone(column)))
}

/// The column of a file as somebody asks for it: in the type of `field`, as far as that can say it.
///
/// # Errors
/// A value that is no moment, or that a time or an `event_id` cannot say.
pub(super) fn column(
    file: &HistoryFile,
    column: &ArrayRef,
    field: &Field,
    reading: &Reading<'_>,
) -> Result<ArrayRef> {
    let fitted = || {
        let (name, from, to) = (field.name(), column.data_type(), field.data_type());
        let stored = reading.formats.stored.get(name).filter(|stored| stored::is(**stored, from));
        let fits = conforms(from, to) || from.is_decimal() && to.is_numeric();
        let fitted = match (reading.formats.epoch(name), stored) {
            (epoch, Some(stored)) if !fits => stored::read(column, to, (*stored, epoch)),
            (Some(format), _) if instant::is_number(from) => instant::of_numbers(column, format),
            _ => fitted(column, field, reading),
        };
        fitted.map_err(|error| {
            let why = format!("its column `{name}` ({}) does not fit {}", type_name(from), type_name(to));
            let whole = format!("{why}: {}", in_words(&error));
            file.unfit(&format!("{why}: it holds a value that is none; a log at `debug` quotes it"), &whole)
        })
    };
    file.guarded(|| Ok::<_, String>(fitted()))?
}

/// A batch of these columns, which are called as those of `schema`.
pub(super) fn batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
) -> std::result::Result<RecordBatch, ArrowError> {
    let is_typed = |(field, column): (&Arc<Field>, &ArrayRef)| field.data_type() == column.data_type();
    if schema.fields().iter().zip(&columns).all(is_typed) {
        return RecordBatch::try_new(Arc::clone(schema), columns);
    }
    let fields = schema.fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Fields>())), columns)
}
