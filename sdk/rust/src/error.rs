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
            Error::Server(reply) if reply.code == Code::Overloaded => retry_after(&reply.error),
            _ => None,
        }
    }

    pub(crate) fn server(code: Code, message: impl Into<String>) -> Error {
        Error::Server(Box::new(ErrorReply::new(code, message)))
    }
}

/// What an overloaded server advises. It stands in the message, which is all that every way to a client carries.
pub(crate) fn retry_after(message: &str) -> Option<Duration> {
    let (_, advice) = message.split_once("again in ")?;
    if advice.starts_with("a second") {
        return Some(Duration::from_secs(1));
    }
    let (seconds, _) = advice.split_once(" s")?;
    Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
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
        let overloaded = |message: &str| Error::server(Code::Overloaded, message).retry_after();
        let full = "the queue of `landings` is full; send it again in";
        assert_eq!(overloaded(&format!("{full} 2 s")), Some(Duration::from_secs(2)));
        assert_eq!(overloaded(&format!("{full} 0.25 s.")), Some(Duration::from_millis(250)));
        assert_eq!(overloaded("7 rows wait; push again in a second"), Some(Duration::from_secs(1)));
        assert_eq!(overloaded(full), None);
        assert_eq!(overloaded(&format!("{full} -1 s")), None);
        assert_eq!(Error::server(Code::TooLarge, format!("{full} 2 s")).retry_after(), None);
    }
}
