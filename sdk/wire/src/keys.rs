//! Which API keys are there?

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An API key that is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyRequest {
    /// Whose it is to be: whoever brings it is called `key:NAME`.
    pub name: String,
    /// After how long it expires, as in `90d`; never, if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// An API key that was made. Its text is shown here, and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewKey {
    /// The key itself.
    pub key: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub info: KeyInfo,
}

/// What is printed by mistake must not be the key.
impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What is kept of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyInfo {
    /// Its name among keys, which stands in it.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// Whether it is taken.
    pub state: KeyState,
    /// Its last characters.
    pub last_four: String,
    /// When it was made.
    pub created: String,
    /// When it expires; never where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// Whether an API key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is.
    Valid,
    /// Not any more.
    Expired,
    /// It was revoked.
    Revoked,
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyState::Valid => "valid",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        })
    }
}

/// Some API keys: all that there ever were, or those that were revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyList {
    /// By name, the oldest first.
    pub keys: Vec<KeyInfo>,
}

/// Which API keys are to be revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKeysRequest {
    /// The ID of one, or the name of all that are to be.
    pub key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed_by_mistake() {
        let text = r#"{"key":"quern_7_secret","id":"7","name":"ann","state":"valid","last_four":"cret","created":"now"}"#;
        let key: NewKey = serde_json::from_str(text).unwrap();
        assert!(!format!("{key:?}").contains("secret"), "{key:?}");
        assert_eq!(serde_json::to_string(&key).unwrap(), text);
    }
}
