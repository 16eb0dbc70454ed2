//! Which model of an MLflow registry does a path name?

use std::fmt;

/// What a path of one begins with.
pub(crate) const REGISTERED: &str = "models:";

/// A model that an MLflow registry names, as in `models:/fraud/3` or `models:/fraud@champion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredModel {
    /// Its name there.
    pub name: String,
    /// Which of its versions.
    pub which: Registered,
}

/// Which version of a registered model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// This one.
    Version(u64),
    /// The one that somebody gave this name, and may give another one.
    Alias(String),
}

impl RegisteredModel {
    /// Reads what MLflow's own client reads, but for what means another version at each new one (`latest`, stages).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<RegisteredModel, String> {
        let wrong = || format!("`{text}` names no version of a registered model");
        let rest = text.strip_prefix(REGISTERED).and_then(|rest| rest.strip_prefix('/')).ok_or_else(wrong)?;
        let (name, which) = match rest.split_once('/') {
            Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, Registered::Version(version.parse().map_err(|_| wrong())?))
            }
            Some(_) => return Err(wrong()),
            None => {
                let (name, alias) = rest.rsplit_once('@').ok_or_else(wrong)?;
                (name, Registered::Alias(alias.to_owned()))
            }
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text.trim() == text
                && !text.contains(|c: char| c.is_control() || ":?#".contains(c))
        };
        let is_whole = match &which {
            Registered::Version(number) => *number > 0,
            Registered::Alias(alias) => is_name(alias),
        };
        match is_name(name) && is_whole {
            true => Ok(RegisteredModel { name: name.to_owned(), which }),
            false => Err(wrong()),
        }
    }

    /// This version of the same model.
    #[must_use]
    pub fn at(&self, version: u64) -> RegisteredModel {
        RegisteredModel { name: self.name.clone(), which: Registered::Version(version) }
    }
}

impl fmt::Display for RegisteredModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Registered::Version(number) => write!(f, "{REGISTERED}/{}/{number}", self.name),
            Registered::Alias(alias) => write!(f, "{REGISTERED}/{}@{alias}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_a_number_or_an_alias() {
        for text in ["models:/fraud/3", "models:/card fraud@champion", "models:/a@b@c", "models:/a@b/1"] {
            assert_eq!(RegisteredModel::parse(text).map(|model| model.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "models:/fraud",
            "models:/fraud/latest",
            "models:/fraud/Production",
            "models:/fraud/0",
            "models:/fraud/-1",
            "models:/fraud/",
            "models:/fraud/1/2",
            "models:/fraud@",
            "models:/@champion",
            "models://fraud/1",
            "models:fraud/1",
            "models:/fr?ud/1",
            "models:/fraud/99999999999999999999",
            "fraud/1",
        ] {
            assert!(RegisteredModel::parse(text).is_err(), "{text}");
        }
    }
}
