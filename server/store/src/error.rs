//! What went wrong with a store?

pub(crate) use quern_base::Kind;
use quern_engine::EngineError;

quern_base::error_type! {
    /// Why a store did not do what it was asked for.
    pub struct Error;
}

/// The result of asking a store.
pub type Result<T> = std::result::Result<T, Error>;

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Codec { .. } => Error::internal("reading what is stored", error),
            _ => Error::invalid(error.told()).quoting(error),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::broken("computing with Arrow").quoting(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        quern_base::Failure::from(error).into()
    }
}

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        // RocksDB tells its system's errors in their words only.
        let full = ["No space left on device", "Disk quota exceeded", "Read-only file system"];
        match full.iter().any(|words| error.as_ref().contains(words)) {
            true => Error::busy(quern_base::failure::DISK_FULL).because(error),
            false if error.as_ref().contains("Input/output error") => {
                Error::busy(quern_base::failure::DISK_FAILS).because(error)
            }
            false => Error::internal("the online store", error),
        }
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        // A disk that is full is no fault of what is written.
        if let parquet::errors::ParquetError::External(cause) = &error
            && let Some(cause) = cause.downcast_ref::<std::io::Error>()
        {
            return std::io::Error::new(cause.kind(), cause.to_string()).into();
        }
        Error::internal("reading or writing Parquet", error)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            lost if is_lost(lost) => Error::busy("the registry does not answer").because(error),
            sqlx::Error::Database(failed) if is_failed(failed.code().as_deref()) => {
                Error::busy(quern_base::failure::DISK_FAILS).because(error)
            }
            sqlx::Error::Database(full) if is_full(full.code().as_deref()) => {
                Error::busy(quern_base::failure::DISK_FULL).because(error)
            }
            _ => Error::internal("the registry", error),
        }
    }
}

/// Whether the disk of the database fails: SQLite's `SQLITE_IOERR`, with what it was about in the upper bytes, and
/// PostgreSQL's `io_error`.
fn is_failed(code: Option<&str>) -> bool {
    let is_ioerr = |code: &str| code.parse::<u32>().is_ok_and(|code| code & 0xff == 10);
    code.is_some_and(|code| code == "58030" || code.len() < 5 && is_ioerr(code))
}

/// Whether the disk of the database takes nothing more: SQLite's `SQLITE_FULL`, PostgreSQL's `disk_full`.
fn is_full(code: Option<&str>) -> bool {
    matches!(code, Some("13" | "53100"))
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
