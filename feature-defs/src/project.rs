//! Whose is a name, among the names of several projects?
//!
//! A project is a name space of its own. What the project `risk` declares as `card` is `risk.card` to everybody else,
//! on the wire as well; what the default project declares is called as it stands. A text is split at its first dot
//! where what stands before it is a project, and nowhere else: models and roles may have dots of their own.

use std::collections::BTreeSet;

/// The project of a repository that names none.
pub const DEFAULT_PROJECT: &str = "default";
/// Longest name of a project, in characters.
pub(crate) const PROJECT_CHARS_MAX: usize = 64;

/// Whether a project may be called so: letters, digits, `_` and `-`, and no dot.
pub fn is_project(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.len() <= PROJECT_CHARS_MAX && !name.starts_with('-') && !name.is_empty() && name.chars().all(letters)
}

/// What everybody calls what `project` calls `name`.
pub(crate) fn qualified(project: &str, name: &str) -> String {
    match project {
        DEFAULT_PROJECT => name.to_owned(),
        project => format!("{project}.{name}"),
    }
}

/// The projects that there are.
pub(crate) struct Projects<'a>(BTreeSet<&'a str>);

impl<'a> Projects<'a> {
    /// These, and the default one.
    pub(crate) fn of(names: impl Iterator<Item = &'a str>) -> Projects<'a> {
        Projects(names.chain([DEFAULT_PROJECT]).collect())
    }

    /// The project and the name in it, where `text` names one.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Option<(&'t str, &'t str)> {
        text.split_once('.').filter(|(project, _)| self.0.contains(project))
    }

    /// What everybody calls what is called `text` in `own`.
    pub(crate) fn full(&self, own: &str, text: &str) -> String {
        let (project, name) = self.split(text).unwrap_or((own, text));
        qualified(project, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_its_first_dot_where_that_ends_a_project() {
        let projects = Projects::of(["risk"].into_iter());
        for (own, text, full) in [
            ("default", "card", "card"),
            ("default", "risk.card", "risk.card"),
            ("default", "default.card", "card"),
            ("default", "fraud.v2", "fraud.v2"),
            ("risk", "card", "risk.card"),
            ("risk", "default.card", "card"),
            ("risk", "risk.card", "risk.card"),
            ("risk", "fraud.v2", "risk.fraud.v2"),
            ("risk", "risk.fraud.v2", "risk.fraud.v2"),
            ("risk", "default.risk", "risk"),
        ] {
            assert_eq!(projects.full(own, text), full, "{text} in {own}");
        }
        for (name, is) in
            [("risk", true), ("a-1_b", true), ("", false), ("a.b", false), ("-a", false), ("ü", false)]
        {
            assert_eq!(is_project(name), is, "{name}");
        }
    }
}
