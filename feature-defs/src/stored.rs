//! What do files hold in place of the type that a column is declared with?

use std::fmt;

use crate::dtype::{ScalarType, Type};

/// What `from` says a column is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Decimal numbers; with so many digits, so many of them behind the point, where it says so.
    Decimal(Option<(u8, i8)>),
    /// Texts, written as cells of CSV are.
    String,
    /// Bytes that are text in UTF-8.
    Binary,
    /// The 16 bytes of a UUID.
    Uuid,
}

/// What [`Stored::parse`] takes, for people.
pub(crate) const STORED: &str = "`string`, `binary`, `uuid`, `decimal`, or `decimal(38, 0)` for one of them";
/// The same, as a regular expression.
pub(crate) const STORED_PATTERN: &str =
    "^(string|binary|uuid|decimal|decimal\\( *[0-9]{1,2} *, *-?[0-9]{1,2} *\\))$";

impl Stored {
    /// Reads its name.
    pub fn parse(text: &str) -> Option<Stored> {
        Some(match text {
            "decimal" => Stored::Decimal(None),
            "string" => Stored::String,
            "binary" => Stored::Binary,
            "uuid" => Stored::Uuid,
            text => {
                let inside = text.strip_prefix("decimal(")?.strip_suffix(')')?;
                let (digits, scale) = inside.split_once(',')?;
                Stored::Decimal(Some((digits.trim().parse().ok()?, scale.trim().parse().ok()?)))
            }
        })
    }

    /// Whether values of it may become some of `dtype`.
    pub fn becomes(self, dtype: Type) -> bool {
        match self {
            Stored::Decimal(_) => dtype.is_number() || dtype == Type::Scalar(ScalarType::String),
            Stored::String => dtype != Type::Scalar(ScalarType::String),
            Stored::Binary | Stored::Uuid => dtype == Type::Scalar(ScalarType::String),
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::Decimal(None) => f.write_str("decimal"),
            Stored::Decimal(Some((digits, scale))) => write!(f, "decimal({digits}, {scale})"),
            Stored::String => f.write_str("string"),
            Stored::Binary => f.write_str("binary"),
            Stored::Uuid => f.write_str("uuid"),
        }
    }
}
