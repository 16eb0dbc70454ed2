//! What went wrong in this process?

use quern_base::Failure;

quern_base::error_type! {
    /// What went wrong in this process.
    pub(super) struct Error;
}

macro_rules! from_below {
    ($($below:ty),+) => {
        $(impl From<$below> for Error {
            fn from(error: $below) -> Self {
                Failure::from(error).into()
            }
        })+
    };
}

from_below!(quern_server::Error, quern_api::Error);

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::internal("reading or writing a file", error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::broken("computing with Arrow").quoting(error)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Error::internal("reading or writing Parquet", error)
    }
}
