//! What does the body say?

use std::borrow::Cow;
use std::fmt;

use feature_defs::suggest;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

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

/// The JSON object that is the body, by key, in the order of `keys`.
///
/// # Errors
/// Malformed JSON, with line and column; another key than `keys`, which the endpoint knows, or `ignored`.
pub fn body<'a, const N: usize>(
    body: &'a [u8],
    keys: [&str; N],
    ignored: &[&str],
) -> Result<[Option<Json<'a>>; N]> {
    let json = serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("the body is not valid JSON: {error}")))?;
    object(json, "the body", keys, ignored)
}

/// The values of a JSON object that is called `what`, by key, in the order of `keys`.
///
/// # Errors
/// As [`body`].
pub fn object<'a, const N: usize>(
    json: Json<'a>,
    what: &str,
    keys: [&str; N],
    ignored: &[&str],
) -> Result<[Option<Json<'a>>; N]> {
    let Json::Object(entries) = json else {
        return Err(Error::invalid(format!(
            "{what} must be a JSON object with `{}`, found {json}",
            keys.join("`, `")
        )));
    };
    let mut found = [const { None }; N];
    for (key, value) in entries {
        match keys.iter().position(|known| *known == key) {
            Some(place) if found[place].is_some() => {
                return Err(Error::invalid(format!("`{key}` is given twice")));
            }
            Some(place) => found[place] = Some(value),
            None if ignored.contains(&key.as_ref()) => {}
            None => return Err(Error::invalid(format!("unknown key `{key}`; {}", suggest(&key, keys)))),
        }
    }
    Ok(found)
}

impl Json<'_> {
    /// The boolean under `key`, `false` where there is none.
    pub fn flag(json: Option<&Json<'_>>, key: &str) -> Result<bool> {
        match json {
            None | Some(Json::Null) => Ok(false),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Error::invalid(format!("`{key}`: expected true or false, found {other}"))),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_object_of_known_keys() {
        let [instances, flag] =
            body(br#"{"flag": true, "x": 1, "instances": [1, 2.5, "a"]}"#, ["instances", "flag"], &["x"])
                .unwrap();
        assert_eq!(flag, Some(Json::Bool(true)));
        let items = vec![Json::Int(1), Json::Float(2.5), Json::String("a".into())];
        assert_eq!(instances, Some(Json::Array(items)));
        let said = |text: &str| body(text.as_bytes(), ["instances"], &[]).unwrap_err().to_string();
        assert_eq!(
            said("{\n  \"instances\": [1,]}"),
            "the body is not valid JSON: trailing comma at line 2 column 19"
        );
        assert_eq!(said(""), "the body is not valid JSON: EOF while parsing a value at line 1 column 0");
        assert_eq!(said("[1]"), "the body must be a JSON object with `instances`, found an array of 1");
        assert_eq!(
            said(r#"{"instance": 1}"#),
            "unknown key `instance`; did you mean `instances`? known: instances"
        );
        assert_eq!(said(r#"{"instances": 1, "instances": 2}"#), "`instances` is given twice");
        assert!(said(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(body(b"{\"instances\": \"\xff\"}", ["instances"], &[]).is_err());
    }
}
