//! What is a secret now, and how is it kept out of what anybody reads?

use feature_defs::Secret;

use crate::error::{Error, Result};

/// What stands where a secret stood.
const STRUCK: &str = "***";

/// What `secret` is, now. `key` names it.
///
/// # Errors
/// `Kind::Refused` where it is told nowhere.
pub(crate) fn told(key: &str, secret: &Secret) -> Result<String> {
    let (place, found) = match secret {
        Secret::Env(name) => {
            let lacks = |_| "which this process does not have".to_owned();
            (format!("the environment variable `{name}`"), std::env::var(name).map_err(lacks))
        }
        Secret::File(path) => {
            let unread = |error| format!("which cannot be read: {error}");
            (format!("the file `{path}`"), std::fs::read_to_string(path).map_err(unread))
        }
    };
    let refuse = |why: &str| Error::refused(format!("its connection has `{key}` told by {place}, {why}"));
    let found = found.map_err(|why| refuse(&why))?;
    match found.trim_end_matches(['\r', '\n']) {
        "" => Err(refuse("which is empty")),
        value => Ok(value.to_owned()),
    }
}

/// A text as it stands between `://` and `@` of a URL.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let part = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(part).collect()
}

/// The text without any of `secrets`, as they are or as a URL has them.
pub(crate) fn struck_out(text: &str, secrets: &[String]) -> String {
    let mut all: Vec<String> = secrets.iter().flat_map(|secret| [secret.clone(), encoded(secret)]).collect();
    // What is part of a longer one goes after it.
    all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    all.iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, it| text.replace(it.as_str(), STRUCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_struck_out_however_they_are_written() {
        let secrets = ["p@ss/word".to_owned(), "p@ss".to_owned()];
        let text = "postgresql://quern:p%40ss%2Fword@h: `p@ss/word`, `p@ss`, `p%40ss`";
        assert_eq!(struck_out(text, &secrets), "postgresql://quern:***@h: `***`, `***`, `***`");
        assert_eq!(encoded("aZ09-._~ @:/%ö"), "aZ09-._~%20%40%3A%2F%25%C3%B6");
    }
}
