//! Functions of DataFusion's of which a row says something else in one batch than in another.
//!
//! `array_has_any` of two nulls is null beside some rows and false beside others; `to_char` of a constant time takes
//! the format of the first row for all. A null among what they are called with makes these null, and constants stand in
//! every row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::Result;
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
        let rows = arguments.number_rows;
        if arguments.args.iter().any(|argument| matches!(argument, ColumnarValue::Array(_))) {
            for argument in arguments.args.iter_mut().filter(|argument| !argument.data_type().is_nested()) {
                *argument = ColumnarValue::Array(argument.to_array(rows)?);
            }
        }
        let given = arguments.args.clone();
        let mut values = self.0.invoke_with_args(arguments)?;
        for argument in given {
            values = match (values, argument) {
                (values, ColumnarValue::Scalar(constant)) if !constant.is_null() => values,
                (values, argument) => {
                    let is_scalar =
                        matches!((&values, &argument), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
                    let rows = if is_scalar { 1 } else { rows };
                    ColumnarValue::Array(without(&values.to_array(rows)?, &argument.to_array(rows)?)?)
                }
            };
        }
        Ok(values)
    }
}

/// The values, null where `given` is.
fn without(values: &ArrayRef, given: &ArrayRef) -> Result<ArrayRef> {
    let Some(there) = given.logical_nulls() else { return Ok(Arc::clone(values)) };
    Ok(nullif(values, &BooleanArray::from(!there.inner()))?)
}
