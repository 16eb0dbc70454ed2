//! Which labels does a request bring? Each is an object with columns of the caller's own choice: what a column's values
//! are, says its type.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Labels of one request, at the most.
const LABELS_MAX: usize = 10_000;
/// Columns of one request, at the most: more than any model keeps, and few enough to look each name up among all.
const COLUMNS_MAX: usize = 1_000;

/// Reads labels, a row each. A column that one of them lacks is null there.
///
/// # Errors
/// A column that is text here and a number there; values that are lists or objects; too many labels or columns.
pub fn labels(labels: &[Map<String, Value>]) -> Result<RecordBatch> {
    if labels.len() > LABELS_MAX {
        let count = labels.len();
        return Err(Error::too_large(format!(
            "`labels` has {count} entries; a request brings at most {LABELS_MAX}: send several, or a batch over Flight"
        )));
    }
    let mut names: Vec<&str> = Vec::new();
    // A null has no type: a column of nulls alone is none.
    let said = labels.iter().flat_map(|label| label.iter()).filter(|(_, value)| !value.is_null());
    for (name, _) in said {
        if !names.contains(&name.as_str()) {
            names.push(name);
            if names.len() > COLUMNS_MAX {
                return Err(Error::too_large(format!("the labels have more than {COLUMNS_MAX} columns")));
            }
        }
    }
    let columns = names.iter().map(|name| {
        let cells = labels.iter().map(|label| label.get(*name).unwrap_or(&Value::Null)).collect::<Vec<_>>();
        Ok((*name, column(name, &cells)?, true))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Err(Error::invalid(
            "`labels` is empty; give each as in `{\"request_id\": \"…\", \"row\": 0, \"label\": 1.0}`",
        ));
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn column(name: &str, cells: &[&Value]) -> Result<ArrayRef> {
    let is = |fits: fn(&Value) -> bool| cells.iter().all(|cell| cell.is_null() || fits(cell));
    Ok(match () {
        () if is(Value::is_boolean) => {
            Arc::new(cells.iter().map(|cell| cell.as_bool()).collect::<BooleanArray>())
        }
        () if is(Value::is_i64) => Arc::new(cells.iter().map(|cell| cell.as_i64()).collect::<Int64Array>()),
        () if is(Value::is_number) => {
            Arc::new(cells.iter().map(|cell| cell.as_f64()).collect::<Float64Array>())
        }
        () if is(Value::is_string) => {
            Arc::new(cells.iter().map(|cell| cell.as_str()).collect::<StringArray>())
        }
        () => {
            return Err(Error::invalid(format!(
                "the labels' column `{name}` must be all numbers, all texts or all `true` and `false`"
            )));
        }
    })
}
