//! What is wrong, where, and how does one go on?

use std::fmt;
use std::sync::Arc;

/// A position in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loc {
    /// File path as the caller gave it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
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

/// Suggests what an unknown name may have meant: the nearest known one, and all that are known.
pub fn suggest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    match (nearest(unknown, known.iter().copied()), known.is_empty()) {
        (Some(name), _) => format!("did you mean `{name}`? known: {}", known.join(", ")),
        (None, true) => "none is declared".to_owned(),
        (None, false) => format!("known: {}", known.join(", ")),
    }
}

/// The known name that an unknown one is a slip away from.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&unknown, &name.to_lowercase()), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(unknown.chars().count()) / 3)
        .map(|(_, name)| name)
}
