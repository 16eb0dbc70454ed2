//! Who asks, by what they bring: an API key, or a token that another issuer gave?
//!
//! [`Identity::who`] turns the text behind `Authorization: Bearer` into a [`Principal`]. What is asked of each request
//! costs microseconds: keys are known beforehand ([`Keys`]), and a token that was verified is remembered until it
//! expires. In reading order: [`api_key`], how a key is written; [`keys`], which ones are known; [`issuer`], whose
//! tokens are believed and by which keys; `token`, whether one holds; [`refused`], what is told where nothing does.
//!
//! Architecture invariant: this crate knows no stores, routes or features. Whoever keeps the keys brings them, and the
//! time is an argument.

pub mod api_key;
mod http;
pub mod issuer;
mod jwks;
pub mod keys;
pub mod refused;
mod remembered;
mod signature;
mod token;

use std::sync::Arc;

use quern_access::Principal;

pub use self::issuer::{Issuer, KeysAt, Trust};
pub use self::keys::{Keys, KnownKey};
pub use self::refused::{Error, Result, Why};
use self::token::Tokens;

/// Knows who asks.
pub struct Identity {
    /// The API keys that there are.
    pub keys: Keys,
    tokens: Tokens,
}

impl Identity {
    /// One that knows no keys yet, and believes tokens as `trust` says.
    ///
    /// # Errors
    /// Where nobody could be asked for an issuer's keys: this machine has no roots of trust for TLS.
    pub fn new(trust: Trust) -> Result<Identity> {
        Ok(Identity { keys: Keys::default(), tokens: Tokens::new(trust)? })
    }

    /// Who asks at `now_us` (µs since the Unix epoch), where they brought this key or token.
    ///
    /// # Errors
    /// `Kind::Unauthenticated` where it does not hold. It is counted by then; the cause is for the log, and neither has
    /// anything of the text.
    pub async fn who(&self, bearer: &str, now_us: i64) -> Result<Arc<Principal>> {
        match api_key::is_meant(bearer) {
            true => self.keys.who(bearer, now_us),
            false => self.tokens.who(bearer, now_us).await,
        }
    }
}
