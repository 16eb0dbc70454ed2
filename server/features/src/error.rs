//! Why is there no value?

use quern_base::Failure;
pub(crate) use quern_base::Kind;
use quern_engine::EngineError;

quern_base::error_type! {
    /// Why values could not be read, computed or written.
    pub struct Error;
}

/// The result of asking for values.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure an error of the engine is.
pub fn kind_of(error: &EngineError) -> Kind {
    match error {
        EngineError::Unknown(_) => Kind::NotFound,
        EngineError::Codec { .. } => Kind::Internal,
        _ => Kind::InvalidArgument,
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Failure::new(kind_of(&error), error).into()
    }
}

impl From<quern_store::Error> for Error {
    fn from(error: quern_store::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::internal("computing with Arrow", error)
    }
}
