//! What went wrong, and when may the same request come again?

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Rejected;

/// The metadata of a gRPC status that says when the same call may be made again, in milliseconds (gRPC's proposal A6).
pub const RETRY_PUSHBACK_MS: &str = "grpc-retry-pushback-ms";

/// The header, and the metadata of gRPC, that names a request: the caller's name for it, or the server's.
pub const REQUEST_ID: &str = "x-request-id";

/// The body of every reply that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReply {
    /// What went wrong and how to go on.
    pub error: String,
    /// What kind of failure it is.
    pub code: Code,
    /// When the same request may be sent again, in milliseconds, where the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Mistakes in definitions, where `code` is `definitions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Mistake>,
    /// The rows of a push of which none was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// What the server calls the request, in its log too: over HTTP and gRPC the header `x-request-id`, which clients
    /// put here; in a reply that comes in lines it stands here itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ErrorReply {
    /// One that lists nothing.
    pub fn new(code: Code, error: impl Into<String>) -> ErrorReply {
        let error = error.into();
        ErrorReply {
            error,
            code,
            retry_after_ms: None,
            mistakes: Vec::new(),
            rejected: Vec::new(),
            request_id: None,
        }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is wrong.
    InvalidArgument,
    /// Who asks has not said who they are, or it does not hold.
    Unauthenticated,
    /// Who asks may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Sound, but refused in the state that things are in.
    Refused,
    /// Larger than the server accepts.
    TooLarge,
    /// More than the server can take at the moment; the same request may be sent again later.
    Overloaded,
    /// The answer was not there in time.
    Late,
    /// A part that the request needs is not there; later it may be.
    Unavailable,
    /// The server's own fault.
    Internal,
    /// Definitions have mistakes.
    Definitions,
}

/// One mistake in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mistake {
    /// The project whose file it is, where that is another one than was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// File, relative to the repository's root.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub cause: String,
    /// The way out, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(project) = &self.project {
            write!(f, "{project}: ")?;
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.cause)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}
