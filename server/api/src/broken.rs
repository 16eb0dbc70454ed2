//! Why did the body of a request end before its end?

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// Why a body broke off, in words.
#[derive(Debug, Clone)]
pub(crate) enum Broken {
    /// Its client was too slow.
    Slow(String),
    /// Its client has gone.
    Gone(String),
    /// It does not unpack, or is no body.
    Unreadable(String),
}

impl Broken {
    /// Why reading failed.
    pub(crate) fn of(error: &axum::Error) -> Broken {
        let told = format!("the body broke off: {error}");
        let (mut cause, mut is_of_connection) = (error.source(), false);
        while let Some(error) = cause {
            if let Some(slow) = error.downcast_ref::<Broken>() {
                return slow.clone();
            }
            is_of_connection |= error.is::<hyper::Error>();
            if is_of_connection && error.downcast_ref().is_some_and(is_gone) {
                return Broken::Gone(told);
            }
            cause = error.source();
        }
        Broken::Unreadable(told)
    }
}

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Broken::Slow(text) | Broken::Gone(text) | Broken::Unreadable(text)) = self;
        f.write_str(text)
    }
}

impl Error for Broken {}
