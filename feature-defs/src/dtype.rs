//! Which types are there, which one does `list<float32, 128>` name, and may it be a key?

use std::fmt;
use std::str::FromStr;

/// Items of a fixed-length list; an embedding longer than this belongs into a vector store.
pub(crate) const LIST_LENGTH_MAX: u32 = 65_536;

/// What [`Type::parse`] accepts besides the scalar names, as a regular expression for JSON Schema.
pub(crate) const LIST_PATTERN: &str = "^list< *(bool|int32|int64|float32|float64|string) *(, *[0-9]+ *)?>$";

/// Type of a column or feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One value.
    Scalar(ScalarType),
    /// `list<item>` or `list<item, length>`: items of one type, so many where a length is given (an embedding).
    List {
        /// Type of the items: a number, a text or a bool.
        item: ScalarType,
        /// Fixed length; absent: any.
        length: Option<u32>,
    },
}

/// Type of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `string`, UTF-8
    String,
    /// `bytes`
    Bytes,
    /// `timestamp`: microseconds since the Unix epoch, UTC
    Timestamp,
    /// `date`: days since the Unix epoch
    Date,
}

impl Type {
    /// Reads a type by its name: `float64`, `list<float32>`, `list<float32, 128>`.
    ///
    /// # Errors
    /// Says what is wrong with `text`, in one sentence.
    pub fn parse(text: &str) -> Result<Type, String> {
        if let Some(scalar) = scalar_by_name(text) {
            return Ok(Type::Scalar(scalar));
        }
        let Some(inside) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) else {
            return Err(format!("unknown type `{text}`"));
        };
        let (item, length) = match inside.split_once(',') {
            Some((item, length)) => (item, Some(length.trim_matches(' '))),
            None => (inside, None),
        };
        let item = item.trim_matches(' ');
        let item = match scalar_by_name(item) {
            Some(scalar) if scalar.is_item() => scalar,
            Some(_) => return Err(format!("a list holds numbers, `string` or `bool`, not `{item}`")),
            None => return Err(format!("a list of an unknown type, `{item}`")),
        };
        let length = match length {
            None => None,
            Some(length) => match parse_length(length) {
                Some(length) => Some(length),
                None => {
                    return Err(format!(
                        "the length of a list must be 1 to {LIST_LENGTH_MAX}, not `{length}`"
                    ));
                }
            },
        };
        Ok(Type::List { item, length })
    }

    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        matches!(self, Type::Scalar(scalar) if scalar.is_number())
    }

    /// Whether two keys of this type are equal exactly when a person would say so. Floats are not: what prints
    /// alike may differ in the last bit.
    pub(crate) fn is_key(self) -> bool {
        match self {
            Type::Scalar(scalar) => scalar.is_key(),
            Type::List { .. } => false,
        }
    }
}

impl ScalarType {
    /// Every scalar type, in the order the docs list them.
    pub const ALL: [ScalarType; 9] = [
        ScalarType::Bool,
        ScalarType::Int32,
        ScalarType::Int64,
        ScalarType::Float32,
        ScalarType::Float64,
        ScalarType::String,
        ScalarType::Bytes,
        ScalarType::Timestamp,
        ScalarType::Date,
    ];

    /// The name in YAML.
    pub fn name(self) -> &'static str {
        match self {
            ScalarType::Bool => "bool",
            ScalarType::Int32 => "int32",
            ScalarType::Int64 => "int64",
            ScalarType::Float32 => "float32",
            ScalarType::Float64 => "float64",
            ScalarType::String => "string",
            ScalarType::Bytes => "bytes",
            ScalarType::Timestamp => "timestamp",
            ScalarType::Date => "date",
        }
    }

    /// Whether a list may hold it.
    pub fn is_item(self) -> bool {
        self.is_number() || matches!(self, ScalarType::String | ScalarType::Bool)
    }

    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        matches!(self, ScalarType::Int32 | ScalarType::Int64 | ScalarType::Float32 | ScalarType::Float64)
    }

    /// Whether a join key may have it.
    pub(crate) fn is_key(self) -> bool {
        !matches!(self, ScalarType::Float32 | ScalarType::Float64)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(scalar) => f.write_str(scalar.name()),
            Type::List { item, length: None } => write!(f, "list<{}>", item.name()),
            Type::List { item, length: Some(length) } => write!(f, "list<{}, {length}>", item.name()),
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Type, String> {
        Type::parse(text)
    }
}

fn scalar_by_name(name: &str) -> Option<ScalarType> {
    ScalarType::ALL.into_iter().find(|scalar| scalar.name() == name)
}

fn parse_length(text: &str) -> Option<u32> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|length| (1..=LIST_LENGTH_MAX).contains(length));
    length.filter(|_| digits_only)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let shown = match text.parse::<Type>() {
            Ok(dtype) => format!("{dtype}; key: {}", dtype.is_key()),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn what_is_written_reads_back() {
        let items = ScalarType::ALL.into_iter().filter(|scalar| scalar.is_item());
        let lists = items.flat_map(|item| {
            [None, Some(1), Some(LIST_LENGTH_MAX)].map(|length| Type::List { item, length })
        });
        for dtype in ScalarType::ALL.map(Type::Scalar).into_iter().chain(lists) {
            assert_eq!(Type::parse(&dtype.to_string()), Ok(dtype));
        }
    }

    #[test]
    fn reads_types() {
        check("string", expect!["string; key: true"]);
        check("float64", expect!["float64; key: false"]);
        check("list<float32>", expect!["list<float32>; key: false"]);
        check("list< int64,8 >", expect!["list<int64, 8>; key: false"]);
        check("list<string>", expect!["list<string>; key: false"]);
        check("list<bool, 3>", expect!["list<bool, 3>; key: false"]);
    }

    #[test]
    fn says_what_is_wrong() {
        check("", expect!["unknown type ``"]);
        check("String", expect!["unknown type `String`"]);
        check("list", expect!["unknown type `list`"]);
        check("list<date>", expect!["a list holds numbers, `string` or `bool`, not `date`"]);
        check("list<list<int32>>", expect!["a list of an unknown type, `list<int32>`"]);
        check("list<float32, 0>", expect!["the length of a list must be 1 to 65536, not `0`"]);
        check("list<float32, +5>", expect!["the length of a list must be 1 to 65536, not `+5`"]);
        check("list<float32, 65537>", expect!["the length of a list must be 1 to 65536, not `65537`"]);
    }
}
