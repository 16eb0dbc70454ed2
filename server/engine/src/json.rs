//! What does JSON say, as columns of some types have it?
//!
//! A text is parsed once into [`Json`], which borrows from it; [`column`] makes of values the column of a type. So what
//! is pushed, asked and read out of files has the same bits. Nothing is guessed: a value of another type is
//! [`Mistyped`].

mod column;
mod value;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

pub use column::{Mistyped, column, mistyped};
pub use value::{BASE64, bytes, is_bare, micros};

/// A JSON value that borrows what it can from the body.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of JSON")]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Any other number; whole numbers beyond an `i64` are among them.
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// The value as an error shows it: its type, and what fits of it.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS_MAX: usize = 40;
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "bool {value}"),
            Json::Int(value) => write!(f, "number {value}"),
            Json::Float(value) => write!(f, "number {value:?}"),
            Json::String(text) => match text.char_indices().nth(SHOWN_CHARS_MAX) {
                Some((end, _)) => write!(f, "string {:?}…", &text[..end]),
                None => write!(f, "string {text:?}"),
            },
            Json::Array(items) => write!(f, "an array of {}", items.len()),
            Json::Object(entries) => write!(f, "an object of {}", entries.len()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Self::Value, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Self::Value, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Json<'de>, Json<'de>>()? {
            let Json::String(key) = key else { return Err(A::Error::custom("a key must be a string")) };
            entries.push((key, value));
        }
        Ok(Json::Object(entries))
    }
}
