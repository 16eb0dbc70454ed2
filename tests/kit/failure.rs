//! Why did an operation fail?

use std::fmt;

use quern::wire::{Code, Rejected};
use quern_server::Error;

/// What the server says of an operation that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its kind, as a client would read it.
    pub code: Code,
    /// Its words.
    pub text: String,
    /// Why each row of a push was not taken, where that is the failure.
    pub rejected: Vec<Rejected>,
}

/// The result of an operation that may fail.
pub type Result<T> = std::result::Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = error.to_string();
        let (code, rejected) = match error {
            Error::Invalid(_) => (Code::InvalidArgument, Vec::new()),
            Error::NotFound(_) => (Code::NotFound, Vec::new()),
            Error::Definitions(_) => (Code::Definitions, Vec::new()),
            Error::Refused(_) => (Code::Refused, Vec::new()),
            Error::TooLarge(_) => (Code::TooLarge, Vec::new()),
            Error::Rejected(rejected) => (Code::InvalidArgument, rejected),
            Error::Overloaded(_) => (Code::Overloaded, Vec::new()),
            Error::Late(_) => (Code::Late, Vec::new()),
            Error::Unavailable(_) => (Code::Unavailable, Vec::new()),
            Error::Internal(_) => (Code::Internal, Vec::new()),
        };
        Failure { code, text, rejected }
    }
}
