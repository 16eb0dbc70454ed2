//! Who may do what, and why?

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/can`: whether somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CanRequest {
    /// As in `key:checkout`, `spiffe://corp/checkout`, `dns:host` or `jwt:groups=fraud-ml`.
    pub who: String,
    /// As in `predict`, `read`, `operate` or `apply`.
    pub action: String,
    /// The name of a model, feature service or source, a feature as `view:feature`, an operation, an owner, or a
    /// connection as `connection:name`.
    pub what: String,
}

/// `GET /v1/me`: who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// As logs and the audit have it: `jwt:https://sso.corp#ann`, `key:checkout`, `anyone`.
    pub principal: String,
    /// The roles that they have. Administrators and `anyone` may do everything without any.
    pub roles: Vec<String>,
}

/// The decision. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CanReply {
    /// Whether they may.
    pub allowed: bool,
    /// Why, or what would allow it.
    pub why: String,
    /// The roles that they have.
    pub roles: Vec<String>,
}

impl fmt::Display for CanReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = if self.roles.is_empty() { "none".to_owned() } else { self.roles.join(", ") };
        writeln!(f, "{}: {}", if self.allowed { "yes" } else { "no" }, self.why)?;
        write!(f, "roles: {roles}")
    }
}
