//! What becomes of stored values that the type of their column cannot say?
//!
//! Of a time or an `event_id` that is an error: a row without is another row. Of any other column it is for whoever
//! computes of it to say what is null, and to count it. So a column of a batch with such a value leaves here as it is
//! stored, and every other one in the type of its source.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use quern_engine::schema::{conform, fitting};

use super::Reading;

/// The column in the type of `field`; as it is where that cannot say each of its values.
pub(super) fn fitted(
    column: &ArrayRef,
    field: &Field,
    reading: &Reading<'_>,
) -> Result<ArrayRef, ArrowError> {
    if reading.whole.contains(field.name()) {
        return conform(column, field.data_type());
    }
    Ok(fitting(column, field.data_type())?.unwrap_or_else(|| Arc::clone(column)))
}

/// A batch of these columns, which are called as those of `schema`.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    let is_typed = |(field, column): (&Arc<Field>, &ArrayRef)| field.data_type() == column.data_type();
    if schema.fields().iter().zip(&columns).all(is_typed) {
        return RecordBatch::try_new(Arc::clone(schema), columns);
    }
    let fields = schema.fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Fields>())), columns)
}
