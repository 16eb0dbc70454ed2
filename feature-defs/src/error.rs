//! What is wrong, where, and how does one go on?

use std::fmt;
use std::sync::Arc;

use crate::project::DEFAULT_PROJECT;

/// A position in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loc {
    /// The project whose file it is; none for the default one's, or for the one's who is told.
    pub project: Option<Arc<str>>,
    /// File path as the caller gave it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{project}: {}:{}:{}", self.file, self.line, self.column),
            None => write!(f, "{}:{}:{}", self.file, self.line, self.column),
        }
    }
}

/// One mistake in a definition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct DefError {
    /// Where it stands.
    pub loc: Loc,
    /// What is wrong, in the language's own nouns.
    pub cause: String,
    /// How to fix it, if that is known.
    pub help: Option<String>,
}

impl Loc {
    /// The first position of a file of the default project.
    pub fn start(file: impl Into<Arc<str>>) -> Loc {
        Loc { project: None, file: file.into(), line: 1, column: 1 }
    }

    /// The project whose file it is.
    pub fn project(&self) -> &str {
        self.project.as_deref().unwrap_or(DEFAULT_PROJECT)
    }
}

impl DefError {
    /// A mistake at `loc`.
    pub fn new(loc: &Loc, cause: impl Into<String>) -> Self {
        DefError { loc: loc.clone(), cause: cause.into(), help: None }
    }

    /// The same mistake, with how to fix it.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for DefError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.loc, self.cause)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// A longer name is a slip of nothing.
const NAME_BYTES_MAX: usize = 256;
/// How many known names are listed.
const KNOWN_SHOWN: usize = 30;

/// Suggests what an unknown name may have meant: the nearest known one, where one is near, and what is known.
pub fn suggest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let meant = nearest(unknown, known.iter().copied());
    let more = known.len().saturating_sub(KNOWN_SHOWN);
    known.truncate(KNOWN_SHOWN);
    let mut listed = known.join(", ");
    if more > 0 {
        listed += &format!(", and {more} more");
    }
    match meant {
        Some(name) => format!("did you mean `{name}`? known: {listed}"),
        None if known.is_empty() => "none is declared".to_owned(),
        None => format!("known: {listed}"),
    }
}

/// The known name that an unknown one is a slip away from: a letter in three may be wrong, or an end may be missing or
/// too many, as in `delay` for `delay_v1`. Of names without a letter none is: another number is another version, no
/// slip.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const BEGINNING_MIN: usize = 3;
    // The distance takes the product of both lengths, and no name of ours is so long.
    if unknown.len() > NAME_BYTES_MAX {
        return None;
    }
    let unknown = unknown.to_lowercase();
    let length = unknown.chars().count();
    let near = |name: &'a str| {
        let known = name.to_lowercase();
        let other = known.chars().count();
        let (longer, missing) = (length.max(other), length.abs_diff(other));
        let begins = length.min(other) >= BEGINNING_MIN
            && (known.starts_with(&unknown) || unknown.starts_with(&known));
        // Letters that are missing are all wrong: the rest is not looked at, of which a request may have megabytes.
        let distance = match begins {
            true => missing,
            false if missing > longer / 3 => return None,
            false => strsim::damerau_levenshtein(&unknown, &known),
        };
        let is_near = begins || distance <= longer / 3;
        (distance == 0 || is_near && unknown.contains(char::is_alphabetic)).then_some((distance, name))
    };
    known.into_iter().filter_map(near).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slip_is_taken_for_a_name() {
        let columns = ["amount", "at", "card", "departs_at", "k", "load_2"];
        for (unknown, meant) in [
            ("amuont", Some("amount")),
            ("AT", Some("at")),
            ("cards", Some("card")),
            ("cadr", Some("card")),
            ("depart_at", Some("departs_at")),
            ("load_3", Some("load_2")),
            ("load", Some("load_2")),
            ("amount_of_the_card", Some("amount")),
            ("paid", None),
            ("id", None),
            ("x", None),
            ("ts", None),
        ] {
            assert_eq!(nearest(unknown, columns), meant, "{unknown}");
        }
        assert_eq!(nearest("3", ["1", "2"]), None);
        assert_eq!(nearest(&"amount".repeat(1 << 20), columns), None, "nobody waits for that");
        assert_eq!(nearest("2024-03", ["2024-01"]), None, "another number is no slip");
    }

    #[test]
    fn a_name_of_megabytes_is_no_slip_and_costs_nothing() {
        let names: Vec<String> = (0..4_000).map(|n| format!("a_column_with_a_name_{n}")).collect();
        let start = std::time::Instant::now();
        assert_eq!(nearest(&"x".repeat(4 << 20), names.iter().map(String::as_str)), None);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }

    #[test]
    fn what_exists_is_listed_within_bounds() {
        assert_eq!(suggest("paid", ["card", "at"]), "known: at, card");
        assert_eq!(suggest("cart", ["card", "at"]), "did you mean `card`? known: at, card");
        assert_eq!(suggest("a", []), "none is declared");
        let many: Vec<String> = (0..1_000).map(|n| format!("c{n:03}")).collect();
        let listed = suggest("other", many.iter().map(String::as_str));
        assert!(listed.ends_with("c028, c029, and 970 more"), "{listed}");
    }
}
