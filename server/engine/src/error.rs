//! What can go wrong while values are computed?

use std::fmt::Display;

use arrow::error::ArrowError;

/// An error of evaluation, in the words of the definitions.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Something does not fit or cannot be computed, whatever the values are.
    #[error("{what}: {cause}")]
    Evaluate {
        /// Which expression, column or input.
        what: String,
        /// Why; no value of a row is quoted.
        cause: String,
    },
    /// Something failed on the values it met.
    #[error("{what}: {cause}")]
    Value {
        /// Which expression or key of which view or service.
        what: String,
        /// What the expression engine said, which may quote a value.
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
    /// A value of a vector that a model's input cannot have.
    #[error("{0}")]
    Misfit(Misfit),
    /// Bytes that no version of the codec wrote.
    #[error("stored row of {bytes} bytes cannot be read: {cause}")]
    Codec {
        /// Its length.
        bytes: usize,
        /// What is wrong with it.
        cause: String,
    },
    /// Rows that together are more than is held at a time; fewer of them may do.
    #[error(
        "the values of these {rows} rows are too large to be held together (a text beside every one of them, perhaps); \
         send fewer at a time"
    )]
    TooLarge {
        /// How many they are.
        rows: usize,
    },
    /// An Arrow kernel failed.
    #[error("{}", in_words(.0))]
    Arrow(#[from] ArrowError),
}

/// A value of a vector that a model's input cannot have. Whose fault that is depends on who brought the column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance {row}, column `{column}`: {cause}")]
pub struct Misfit {
    /// The place of the vector.
    pub row: usize,
    /// Its column.
    pub column: String,
    /// Why; no value is quoted.
    pub cause: String,
}

const VALUE: &str = "a value does not fit its type, or cannot be computed with";
const QUOTED: &str = "a log at `debug` quotes it";

impl EngineError {
    /// The same without any value of a row: for callers, who may have no right to see it.
    pub fn told(&self) -> String {
        match self {
            EngineError::Value { what, .. } => {
                format!("{what}: {VALUE}; {QUOTED}")
            }
            EngineError::Arrow(_) => format!("{VALUE}; {QUOTED}"),
            EngineError::Evaluate { .. }
            | EngineError::Unknown(_)
            | EngineError::Type { .. }
            | EngineError::Missing { .. }
            | EngineError::Misfit(_)
            | EngineError::Codec { .. }
            | EngineError::TooLarge { .. } => self.to_string(),
        }
    }
}

/// Kinds of error of Arrow and Parquet, as they stand before what is wrong.
const KINDS: [&str; 14] = [
    "Arrow: ",
    "Parquet error: ",
    "Parquet argument error: ",
    "Invalid argument error: ",
    "Cast error: ",
    "Compute error: ",
    "Csv error: ",
    "Parser error: ",
    "Schema error: ",
    "Io error: ",
    "Ipc error: ",
    "External error: ",
    "External: ",
    "Not yet implemented: ",
];

/// What a kernel or a decoder of Arrow or Parquet says, in the words of the language: without the kinds of their
/// errors, and with our names of types.
pub fn in_words(error: &impl Display) -> String {
    let said = error.to_string();
    let mut cause = said.as_str();
    while let Some(rest) = KINDS.iter().find_map(|kind| cause.strip_prefix(kind)) {
        cause = rest;
    }
    // As `cast` has it of a number and of a text.
    let number = cause.strip_prefix("Can't cast value ").and_then(|rest| rest.split_once(" to type "));
    let text = cause.strip_prefix("Cannot cast string '").and_then(|rest| rest.split_once("' to value of "));
    match (number, text) {
        (Some((value, dtype)), _) => format!("{value} is beyond {}", with_our_types(dtype)),
        (_, Some((text, dtype))) => {
            format!("`{text}` is no {}", with_our_types(dtype.trim_end_matches(" type")))
        }
        _ => with_our_types(cause),
    }
}

/// The text with our names where Arrow's types stand in it, each as a word of its own.
fn with_our_types(text: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut ours = String::new();
    for piece in text.split_inclusive(|c| !is_word(c)) {
        let word = piece.trim_end_matches(|c| !is_word(c));
        match our_type(word) {
            Some(name) => ours.extend([name, &piece[word.len()..]]),
            None => ours += piece,
        }
    }
    ours
}

fn our_type(word: &str) -> Option<&'static str> {
    Some(match word {
        "Boolean" => "bool",
        "Int8" => "int8",
        "Int16" => "int16",
        "Int32" => "int32",
        "Int64" => "int64",
        "UInt8" => "uint8",
        "UInt16" => "uint16",
        "UInt32" => "uint32",
        "UInt64" => "uint64",
        "Float16" => "float16",
        "Float32" => "float32",
        "Float64" => "float64",
        "Utf8" | "LargeUtf8" | "Utf8View" => "string",
        "LargeBinary" | "BinaryView" | "FixedSizeBinary" => "bytes",
        "Date32" | "Date64" => "date",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_speaks_in_our_words() {
        for (theirs, ours) in [
            ("Cast error: Can't cast value 5000000000 to type Int32", "5000000000 is beyond int32"),
            ("Cast error: Cannot cast string 'a' to value of Int64 type", "`a` is no int64"),
            ("Parquet argument error: Parquet error: Invalid Parquet file", "Invalid Parquet file"),
            ("Cast error: Casting from LargeUtf8 to FixedSizeList", "Casting from string to FixedSizeList"),
            ("Csv error: a column Int64_of is missing", "a column Int64_of is missing"),
            ("no such file", "no such file"),
        ] {
            assert_eq!(in_words(&theirs), ours);
        }
    }
}
