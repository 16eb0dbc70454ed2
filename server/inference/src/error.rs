//! Why does a model not answer?

use arrow::error::ArrowError;
use quern_engine::EngineError;

quern_base::error_type! {
    /// Why a model does not answer. A model that does not load is a mistake in definitions, and says so in a text.
    pub struct Error;
}

/// The result of asking a model.
pub type Result<T> = std::result::Result<T, Error>;

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::TooLarge { .. } => Error::too_large(error),
            EngineError::Misfit(misfit) => Error::invalid(misfit),
            error => Error::invalid(error.told()).quoting(error),
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            // The bytes of a column are counted in 31 bits.
            ArrowError::OffsetOverflowError(_) => Error::too_large(
                "a column of all these rows would hold more than 2 GiB; send fewer at a time",
            ),
            error => Error::broken("the columns of a model").quoting(error),
        }
    }
}
