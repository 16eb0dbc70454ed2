//! Why did an operation fail?

use std::fmt;

use quern::wire::{Code, Rejected};
use quern_server::error::NoneTaken;

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

macro_rules! from_floor {
    ($($floor:ty),+) => {
        $(impl From<$floor> for Failure {
            fn from(error: $floor) -> Failure {
                let rejected = error.facts().map(|NoneTaken(rejected)| rejected.clone());
                Failure { code: error.kind(), text: error.to_string(), rejected: rejected.unwrap_or_default() }
            }
        })+
    };
}

from_floor!(
    quern_server::Error,
    quern_api::Error,
    quern_features::Error,
    quern_inference::Error,
    quern_store::Error
);
