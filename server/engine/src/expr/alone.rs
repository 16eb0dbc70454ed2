//! Functions of DataFusion's of which a row says something else in one batch than in another.
//!
//! `array_has_any` of two nulls is null beside some rows and false beside others; `to_char` of a constant time takes
//! the format of the first row for all. A null among what they are called with makes these null, and constants stand in
//! every row.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

/// Which they are.
pub(super) const FUNCTIONS: [&str; 3] = ["array_has_all", "array_has_any", "to_char"];

/// Calls `function`, with the same value for a row whichever stand beside it.
pub(super) fn invoke(function: &ScalarUDF, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { arguments.number_rows };
    let mut there = None;
    for argument in &mut arguments.args {
        if !constant && !argument.data_type().is_nested() {
            *argument = ColumnarValue::Array(argument.to_array(rows)?);
        }
        there = NullBuffer::union(there.as_ref(), nulls(argument, rows).as_ref());
    }
    let values = function.invoke_with_args(arguments)?;
    let Some(there) = there else { return Ok(values) };
    let values = nullif(&values.to_array(rows)?, &BooleanArray::from(!there.inner()))?;
    Ok(match constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

fn nulls(argument: &ColumnarValue, rows: usize) -> Option<NullBuffer> {
    match argument {
        ColumnarValue::Array(column) => column.logical_nulls(),
        ColumnarValue::Scalar(constant) => constant.is_null().then(|| NullBuffer::new_null(rows)),
    }
}
