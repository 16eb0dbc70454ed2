//! Which functions of DataFusion's are not called as they are?

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::{alone, limits};

/// What stands between a function and its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    /// See [`alone`].
    Alone,
    /// See [`limits`].
    Limited,
}

/// The names of all of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    alone::FUNCTIONS.into_iter().chain(limits::FUNCTIONS)
}

/// The function called `name`, as it is called here.
pub(super) fn wrapped(name: &str, function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let how = if limits::FUNCTIONS.contains(&name) { How::Limited } else { How::Alone };
    Arc::new(ScalarUDF::from(Wrapped { function, how }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Wrapped {
    function: Arc<ScalarUDF>,
    how: How,
}

impl ScalarUDFImpl for Wrapped {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.how {
            How::Alone => alone::invoke(&self.function, arguments),
            How::Limited => limits::invoke(&self.function, arguments),
        }
    }
}
