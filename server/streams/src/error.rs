//! Why was a stream not read on?

use quern_base::Failure;
pub(crate) use quern_base::Kind;

quern_base::error_type! {
    /// Why a stream was not read on.
    pub(crate) struct Error;
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl From<quern_server::Error> for Error {
    fn from(error: quern_server::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<quern_decode::Error> for Error {
    fn from(error: quern_decode::Error) -> Self {
        Failure::from(error).into()
    }
}
