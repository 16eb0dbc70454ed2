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

    /// One of this name, as the audit has it or as a member of roles is named, of whom no more was proved than that.
    ///
    /// # Errors
    /// What would name one.
    pub fn parse(text: &str) -> Result<Principal, String> {
        // A claim's name may be a URL as well, but is followed by `=`.
        let token = text.strip_prefix("jwt:").and_then(|name| name.split_once('#'));
        match token {
            Some((issuer, subject)) if ![issuer, subject].contains(&"") && !issuer.contains('=') => {
                let claims = [("iss", issuer), ("sub", subject)];
                let claims = claims.map(|(claim, has)| (claim.to_owned(), Value::from(has)));
                Ok(Principal::new(Proof::Token(Token {
                    issuer: issuer.to_owned(),
                    subject: subject.to_owned(),
                    claims: Map::from_iter(claims),
                })))
            }
            _ => Member::parse(text).map(Principal::of).map_err(|nobody| {
                format!("{nobody}, and `jwt:ISSUER#SUBJECT` says whom a token was given to")
            }),
        }
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

    #[test]
    fn whoever_the_audit_names_can_be_asked_about() {
        for name in ["jwt:https://sso.corp#ann", "key:checkout", "spiffe://corp/checkout", "dns:node-7.corp"]
        {
            assert_eq!(Principal::parse(name).unwrap().name(), name);
        }
        let Proof::Token(token) = Principal::parse("jwt:https://sso.corp#ann#1").unwrap().proof().clone()
        else {
            panic!("no token");
        };
        assert_eq!((token.issuer.as_str(), token.subject.as_str()), ("https://sso.corp", "ann#1"));
        // A claim, whose name is a URL and whose value has what divides the two.
        let claim = Principal::parse("jwt:https://corp/group=a#b").unwrap();
        assert!(matches!(claim.proof(), Proof::Token(token) if token.claims["https://corp/group"] == "a#b"));
        assert!(Principal::parse("jwt:#ann").unwrap_err().contains("jwt:ISSUER#SUBJECT"));
    }
}
