//! How does a reply show some columns, so that the same text can be sent as a request?

use arrow::array::RecordBatch;
use quern_decode::print::Values;
use serde_json::Value;

/// An object of arrays.
pub(crate) fn shown(rows: &RecordBatch) -> Value {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| {
        (field.name().clone(), serde_json::to_value(Values(column.as_ref())).unwrap())
    });
    Value::Object(columns.collect())
}
