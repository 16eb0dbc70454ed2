//! Functions of DataFusion's of which a row says something else in one batch than in another.
//!
//! `array_has_any` of two nulls is null beside some rows and false beside others; `to_char` of a constant time takes
//! the format of the first row for all. A null among what they are called with makes these null, and constants stand in
//! every row.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Which they are.
pub(super) const FUNCTIONS: [&str; 3] = ["array_has_all", "array_has_any", "to_char"];

/// The function, with the same value for a row whichever stand beside it.
pub(super) fn alone(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Alone(function)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Alone(Arc<ScalarUDF>);

impl ScalarUDFImpl for Alone {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let mut there = None;
        for argument in &mut arguments.args {
            if !constant && !argument.data_type().is_nested() {
                *argument = ColumnarValue::Array(argument.to_array(rows)?);
            }
            there = NullBuffer::union(there.as_ref(), nulls(argument, rows).as_ref());
        }
        let values = self.0.invoke_with_args(arguments)?;
        let Some(there) = there else { return Ok(values) };
        let values = nullif(&values.to_array(rows)?, &BooleanArray::from(!there.inner()))?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
            false => ColumnarValue::Array(values),
        })
    }
}

fn nulls(argument: &ColumnarValue, rows: usize) -> Option<NullBuffer> {
    match argument {
        ColumnarValue::Array(column) => column.logical_nulls(),
        ColumnarValue::Scalar(constant) => constant.is_null().then(|| NullBuffer::new_null(rows)),
    }
}
