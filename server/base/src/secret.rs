//! What is a secret now, and how is it kept out of what anybody reads?

use std::cmp::Reverse;

/// What stands where a secret stood.
const STRUCK: &str = "***";

/// The secret in a variable of this process's environment.
///
/// # Errors
/// Why it is not told there, after the name of that.
pub fn of_env(name: &str) -> Result<String, String> {
    let found = std::env::var(name).map_err(|_| "which this process does not have".to_owned())?;
    sound(&found)
}

/// The secret in a file, less the line break at its end.
///
/// # Errors
/// As [`of_env`].
pub fn of_file(path: &str) -> Result<String, String> {
    sound(&std::fs::read_to_string(path).map_err(|error| format!("which cannot be read: {error}"))?)
}

fn sound(found: &str) -> Result<String, String> {
    match found.trim_end_matches(['\r', '\n']) {
        "" => Err("which is empty".to_owned()),
        value => Ok(value.to_owned()),
    }
}

/// A text as it stands as part of a URL: all but letters, digits and what no parser reads otherwise is encoded.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let part = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(part).collect()
}

/// The text without any of `secrets`, as they are or as a URL has them.
pub fn struck_out(text: &str, secrets: &[String]) -> String {
    let mut all: Vec<String> = secrets.iter().flat_map(|secret| [secret.clone(), encoded(secret)]).collect();
    // What is part of a longer one goes after it.
    all.sort_by_key(|secret| Reverse(secret.len()));
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
