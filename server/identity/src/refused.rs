//! Why is nobody believed, and what of it is told?
//!
//! Whoever brings something that does not hold is told little: they may be anyone. The cause goes to the log.

use std::fmt;
use std::sync::LazyLock;

use quern_base::metrics::{IntCounterVec, counters};
use quern_base::{Cause, Failure, Kind};

quern_base::error_type! {
    /// Why nobody is believed; its facts are [`Why`], or the server could not be set up.
    pub struct Error;
}

/// The result of asking who somebody is.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nobody is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// They brought nothing.
    Missing,
    /// They brought something of another scheme than `Bearer`.
    Scheme,
    /// It is neither a key nor a token.
    Malformed,
    /// It is longer than any token is.
    TooLong,
    /// It is signed in a way that is not believed, `none` among them.
    Algorithm,
    /// Nobody here believes who gave it.
    Issuer,
    /// It is signed with a key that its issuer does not have, or could not be asked for.
    UnknownKey,
    /// The signature is not of that key.
    Signature,
    /// It is for others.
    Audience,
    /// It does not hold any more.
    Expired,
    /// It does not hold yet.
    Early,
    /// It lacks something that a token must say, or says it as something else.
    Claims,
    /// It is of another sign-in than the one that it ends, or of none.
    Nonce,
    /// There is no such API key.
    Key,
    /// The API key has expired.
    KeyExpired,
    /// The API key was revoked.
    KeyRevoked,
}

impl Why {
    /// As a label.
    pub fn label(self) -> &'static str {
        match self {
            Why::Missing => "missing",
            Why::Scheme => "scheme",
            Why::Malformed => "malformed",
            Why::TooLong => "too_long",
            Why::Algorithm => "algorithm",
            Why::Issuer => "issuer",
            Why::UnknownKey => "unknown_key",
            Why::Signature => "signature",
            Why::Audience => "audience",
            Why::Expired => "expired",
            Why::Early => "early",
            Why::Claims => "claims",
            Why::Nonce => "nonce",
            Why::Key => "key",
            Why::KeyExpired => "key_expired",
            Why::KeyRevoked => "key_revoked",
        }
    }

    /// Counts it, and makes an error of it; the cause is for the log.
    pub fn because(self, cause: impl Into<Cause>) -> Error {
        static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
            counters(
                "quern_refused_credentials_total",
                "Requests that were refused since nobody knows who asks, by why",
                &["why"],
            )
        });
        REFUSED.with_label_values(&[self.label()]).inc();
        Failure::new(Kind::Unauthenticated, self).because(cause).into()
    }
}

/// What the caller is told.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Missing | Why::Scheme => {
                "say who asks: the header `Authorization: Bearer` with an API key or a token"
            }
            Why::Issuer => "the token is not valid here: issuer",
            Why::UnknownKey => "the token is not valid here: unknown key",
            Why::Signature => "the token is not valid here: signature",
            Why::Audience => "the token is not valid here: audience",
            Why::Expired => "the token is not valid here: expired",
            Why::Malformed | Why::TooLong | Why::Algorithm | Why::Early | Why::Claims | Why::Nonce => {
                "the token is not valid here"
            }
            Why::Key | Why::KeyRevoked => "the key is not valid here",
            Why::KeyExpired => "the key is not valid here: expired",
        })
    }
}

impl std::error::Error for Why {}
