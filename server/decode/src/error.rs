//! What is wrong with a request?

use quern_engine::EngineError;

quern_base::error_type! {
    /// What is wrong with a request, in its sender's words.
    pub struct Error;
}

/// The result of reading a request.
pub type Result<T> = std::result::Result<T, Error>;

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Error::invalid(error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::broken("computing with Arrow").quoting(error)
    }
}
