//! What went wrong, in the caller's words?

use feature_defs::DefError;
use quern::wire::Rejected;
use quern_engine::EngineError;

/// Every error of the server. The edges map it to HTTP, gRPC and exit codes in one `match` each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller names something that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The definitions have mistakes: all of them.
    #[error("{}", list(.0))]
    Definitions(Vec<DefError>),
    /// The request is understood and would do harm.
    #[error("{0}")]
    Refused(String),
    /// The request is larger than a limit.
    #[error("{0}")]
    TooLarge(String),
    /// No row of a push was taken: for each why.
    #[error("{}", none_taken(.0))]
    Rejected(Vec<Rejected>),
    /// More than can be taken at the moment.
    #[error("{0}")]
    Overloaded(String),
    /// The answer was not there in time.
    #[error("{0}")]
    Late(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of the server or of what it stands on.
    #[error("{0}")]
    Internal(String),
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A fault in doing `what`.
    pub fn internal(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
        Error::Internal(format!("{what}: {cause}"))
    }
}

fn list(mistakes: &[DefError]) -> String {
    let mut text = mistakes.iter().map(DefError::to_string).collect::<Vec<_>>().join("\n");
    if mistakes.len() > 1 {
        text += &format!("\n{} mistakes", mistakes.len());
    }
    text
}

fn none_taken(rejected: &[Rejected]) -> String {
    let Some(first) = rejected.first() else { return "no row was taken".to_owned() };
    let column = first.column.as_ref().map(|column| format!(", column `{column}`")).unwrap_or_default();
    let (rows, index, cause) = (rejected.len(), first.index, &first.cause);
    format!("none of the {rows} rows was taken; row {index}{column}: {cause}")
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unknown(_) => Error::NotFound(error.to_string()),
            EngineError::Codec { .. } => Error::Internal(error.to_string()),
            _ => Error::Invalid(error.to_string()),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::Internal(format!("arrow: {error}"))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Internal(format!("input/output: {error}"))
    }
}

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        Error::Internal(format!("online store: {error}"))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let message = format!("registry: {error}");
        match is_lost(&error) {
            true => Error::Unavailable(message),
            false => Error::Internal(message),
        }
    }
}

/// Whether the database was not reached, or went away: nothing is wrong with what it was asked.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
    match error {
        Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        // PostgreSQL's classes of errors: connections, and a server that starts or stops.
        Database(error) => error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P")),
        _ => false,
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Error::Internal(format!("parquet: {error}"))
    }
}
