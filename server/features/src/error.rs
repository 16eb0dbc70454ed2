//! Why is there no value?

use arrow::error::ArrowError;
use quern_base::Failure;
pub(crate) use quern_base::Kind;
use quern_engine::{EngineError, Failed};

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
        EngineError::TooLarge { .. } => Kind::TooLarge,
        _ => Kind::InvalidArgument,
    }
}

/// Nothing where no `strict` feature failed; `place` says where a row is.
///
/// # Errors
/// The first row of which one failed.
pub(crate) fn check_strict(failed: &Failed, of: &str, place: impl Fn(usize) -> String) -> Result<()> {
    let Some((row, feature)) = failed.first_refused() else { return Ok(()) };
    Err(Error::invalid(format!("{}: {}", place(row), strict_text(feature, of))))
}

/// What is said of a row that a `strict` feature refuses.
pub fn strict_text(feature: &str, of: &str) -> String {
    format!(
        "`{feature}` of {of} cannot be computed, and it is `strict`; mend the value, or shield the expression with \
         `nullif`, `TRY_CAST` or `CASE`"
    )
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Failure::new(kind_of(&error), error.told()).quoting(error).into()
    }
}

impl From<quern_store::Error> for Error {
    fn from(error: quern_store::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        match error {
            // The bytes of a column are counted in 31 bits.
            ArrowError::OffsetOverflowError(_) => Error::too_large(
                "a column of all these rows would hold more than 2 GiB; send fewer at a time",
            ),
            error => Error::broken("computing with Arrow").quoting(error),
        }
    }
}
