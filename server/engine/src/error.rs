//! What can go wrong while values are computed?

use arrow::error::ArrowError;

/// An error of evaluation, in the words of the definitions.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An expression failed on the values it met.
    #[error("{what}: {cause}")]
    Evaluate {
        /// Which expression of which view or service.
        what: String,
        /// What the expression engine said.
        cause: String,
    },
    /// A name that the catalogue does not know.
    #[error("{0}")]
    Unknown(String),
    /// A column does not have the type it must have.
    #[error("column `{column}`: expected {expected}, found {found}")]
    Type {
        /// The column.
        column: String,
        /// The type it must have.
        expected: String,
        /// The type it has.
        found: String,
    },
    /// A column that must be there is not.
    #[error("column `{column}` is missing; {needed_by} needs {needed}")]
    Missing {
        /// The column.
        column: String,
        /// Who needs it.
        needed_by: String,
        /// All that is needed.
        needed: String,
    },
    /// Bytes that no version of the codec wrote.
    #[error("stored row of {bytes} bytes cannot be read: {cause}")]
    Codec {
        /// Its length.
        bytes: usize,
        /// What is wrong with it.
        cause: String,
    },
    /// An Arrow kernel failed.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}
