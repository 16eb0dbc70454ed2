//! Who asks, as far as that was proved?

use std::fmt;

use feature_defs::Member;
use serde_json::{Map, Value};

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    name: String,
    proof: Proof,
}

/// What was proved of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Proof {
    /// Nothing, and nothing is asked for: `auth: none`.
    Open,
    /// They are the process itself, or who runs it: a command that opened the folder, the peer of its Unix socket.
    Owner,
    /// Nothing, where something is asked for.
    Nobody,
    /// A certificate's names, as `spiffe://corp/checkout` or `checkout.corp`: at least one.
    Certificate(Vec<String>),
    /// An API key, by its name.
    Key(String),
    /// A token.
    Token(Token),
}

/// A token whose signature, issuer, audience and times hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Who gave it.
    pub issuer: String,
    /// Whom it was given to.
    pub subject: String,
    /// All that it says.
    pub claims: Map<String, Value>,
}

impl Principal {
    /// One of whom this was proved.
    pub fn new(proof: Proof) -> Principal {
        let name = match &proof {
            Proof::Open => "anyone".to_owned(),
            Proof::Owner => "owner".to_owned(),
            Proof::Nobody => "nobody".to_owned(),
            Proof::Certificate(names) => {
                // A SPIFFE ID names a workload; a DNS name may be that of a machine.
                let spiffe = names.iter().find(|name| name.starts_with("spiffe://"));
                let dns = || names.first().map(|name| format!("dns:{name}"));
                spiffe.cloned().or_else(dns).unwrap_or_default()
            }
            Proof::Key(key) => format!("key:{key}"),
            Proof::Token(token) => format!("jwt:{}#{}", token.issuer, token.subject),
        };
        Principal { name, proof }
    }

    /// One of whom just as much was proved as makes them this member of a role.
    pub fn of(member: Member) -> Principal {
        Principal::new(match member {
            Member::Key(name) => Proof::Key(name),
            Member::Spiffe(name) | Member::Dns(name) => Proof::Certificate(vec![name]),
            Member::Jwt { issuer, claim, has } => {
                let claims = Map::from_iter([(claim, Value::from(has))]);
                Proof::Token(Token { issuer: issuer.unwrap_or_default(), subject: String::new(), claims })
            }
        })
    }

    /// Who runs the server: what it does by itself is in their name.
    pub fn owner() -> Principal {
        Principal::new(Proof::Owner)
    }

    /// What they are called: in logs, in the audit and beside what they did.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was proved of them.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Whether they proved anything, or need not.
    pub fn is_known(&self) -> bool {
        !matches!(self.proof, Proof::Nobody)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_called_by_its_spiffe_id() {
        let names = ["node-7.corp".to_owned(), "spiffe://corp/checkout".to_owned()];
        assert_eq!(Principal::new(Proof::Certificate(names.to_vec())).name(), "spiffe://corp/checkout");
        assert_eq!(Principal::new(Proof::Certificate(names[..1].to_vec())).name(), "dns:node-7.corp");
        let claims = Map::new();
        let token = Token { issuer: "https://sso.corp".to_owned(), subject: "ann".to_owned(), claims };
        assert_eq!(Principal::new(Proof::Token(token)).to_string(), "jwt:https://sso.corp#ann");
    }
}
