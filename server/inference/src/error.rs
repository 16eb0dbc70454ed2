//! Why does a model not answer?

use quern_engine::EngineError;

quern_base::error_type! {
    /// Why a model does not answer. A model that does not load is a mistake in definitions, and says so in a text.
    pub struct Error;
}

/// The result of asking a model.
pub type Result<T> = std::result::Result<T, Error>;

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Error::invalid(error.told()).quoting(error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::broken("the columns of a model").quoting(error)
    }
}
