//! Who asks, by what they bring: an API key, or a token that another issuer gave?
//!
//! [`Identity::who`] turns the text behind `Authorization: Bearer` into a [`Principal`]. What is asked of each request
//! costs microseconds: keys are known beforehand ([`Keys`]), and a token that was verified is remembered until it
//! expires. In reading order: [`api_key`], how a key is written; [`keys`], which ones are known; [`issuer`], whose
//! tokens are believed and by which keys; `token`, whether one holds; [`sign_in`], how people get one by a browser;
//! [`refused`], what is told where nothing does.
//!
//! Architecture invariant: this crate knows no stores, routes or features. Whoever keeps the keys brings them, and the
//! time is an argument.

pub mod api_key;
mod discovery;
mod http;
pub mod issuer;
mod jwks;
pub mod keys;
mod provider;
pub mod refused;
mod remembered;
pub mod sign_in;
mod signature;
mod token;

use std::sync::Arc;

use quern_access::Principal;

use self::issuer::Asked;
pub use self::issuer::{Issuer, KeysAt, Trust};
pub use self::keys::{Keys, KnownKey};
pub use self::provider::Registration;
pub use self::refused::{Error, Result, Why};
pub use self::sign_in::SignIn;
use self::token::{Meant, Tokens};

/// Knows who asks.
pub struct Identity {
    /// The API keys that there are.
    pub keys: Keys,
    /// How people sign in by a browser, where they do.
    pub sign_in: Option<SignIn>,
    tokens: Tokens,
}

impl Identity {
    /// One that knows no keys yet, and believes tokens as `trust` says.
    ///
    /// # Errors
    /// Where nobody could be asked for an issuer's keys: this machine has no roots of trust for TLS. A secret of
    /// [`Registration`] that cannot be read.
    pub fn new(trust: Trust) -> Result<Identity> {
        let Trust { issuers, audience, sign_in } = trust;
        let is_asked = issuers.iter().any(|issuer| !matches!(issuer.keys, KeysAt::File(_)));
        let client = (is_asked || sign_in.is_some()).then(http::client).transpose()?;
        let issuers: Vec<_> = issuers.into_iter().map(|issuer| Asked::new(issuer, client.clone())).collect();
        let sign_in = match (sign_in, client) {
            (Some(registration), Some(client)) => Some(SignIn::new(registration, &issuers, client)?),
            _ => None,
        };
        Ok(Identity { keys: Keys::default(), sign_in, tokens: Tokens::new(issuers, audience, Meant::Access) })
    }

    /// Who asks at `now_us` (µs since the Unix epoch), where they brought this key or token.
    ///
    /// # Errors
    /// `Kind::Unauthenticated` where it does not hold. It is counted by then; the cause is for the log, and neither has
    /// anything of the text.
    pub async fn who(&self, bearer: &str, now_us: i64) -> Result<Arc<Principal>> {
        match api_key::is_meant(bearer) {
            true => self.keys.who(bearer, now_us),
            false => Ok(self.tokens.verify(bearer, now_us).await?.principal),
        }
    }
}
