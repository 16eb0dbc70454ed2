//! What does the body say?

use feature_defs::suggest;
use quern_engine::json::Json;

use crate::error::{Error, Result};

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

/// The boolean under `key`, `false` where there is none.
pub fn flag(json: Option<&Json<'_>>, key: &str) -> Result<bool> {
    match json {
        None | Some(Json::Null) => Ok(false),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Error::invalid(format!("`{key}`: expected true or false, found {other}"))),
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
