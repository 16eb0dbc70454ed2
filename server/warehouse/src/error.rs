//! Why does a database give no rows?

use arrow::error::ArrowError;

quern_base::error_type! {
    /// Why a database gives no rows.
    pub struct Error;
}

/// The result of asking a database.
pub type Result<T> = std::result::Result<T, Error>;

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Error::broken("the rows of a database").quoting(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        quern_base::Failure::from(error).into()
    }
}
