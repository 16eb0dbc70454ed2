//! Why did a call fail? In the server's own words where the server answered.

use std::time::Duration;

use crate::wire::{Code, ErrorReply};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and not with a success.
    #[error("{}", .0.error)]
    Server(Box<ErrorReply>),
    /// No server answered.
    #[error("no Quern server answers at {url}: {cause}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// An answer came that is not one of Quern's.
    #[error("the answer is not one of a Quern server: {0}")]
    Protocol(String),
    /// What was to be sent is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The server's kind of failure, where the server answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Server(reply) => Some(reply.code),
            _ => None,
        }
    }

    /// When an overloaded server wants the same request again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Server(reply) => reply.retry_after_ms.map(Duration::from_millis),
            _ => None,
        }
    }

    /// What the server calls the request that it did not answer with a success, in its log too.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Error::Server(reply) => reply.request_id.as_deref(),
            _ => None,
        }
    }
}

/// The whole chain of causes: the outermost alone rarely says what happened.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_server_says_when_to_come_again() {
        let reply = ErrorReply::new(Code::Overloaded, "7 rows wait; push again in 3 seconds");
        let told = |retry_after_ms| {
            Error::Server(Box::new(ErrorReply { retry_after_ms, ..reply.clone() })).retry_after()
        };
        assert_eq!(told(Some(250)), Some(Duration::from_millis(250)));
        assert_eq!(told(None), None, "no program reads prose");
    }
}
