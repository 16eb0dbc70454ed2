//! How does a person sign in by a browser (OpenID Connect Core 1.0: the authorization code flow, with PKCE as in RFC
//! 7636)?
//!
//! The server remembers nothing of it. A secret that the browser keeps meanwhile makes `state`, `nonce` and verifier,
//! so whichever server it comes back to goes on; and none of the three, which stand in URLs, tells what it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quern_access::{Principal, Proof};
use reqwest::Client;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use crate::issuer::Asked;
use crate::provider::{Provider, Registration};
use crate::refused::{Error, Result, Why};
use crate::token::{Meant, Tokens};

const SECRET_BYTES: usize = 32;
/// What an issuer says of why it refuses somebody.
const REASON_CHARS_MAX: usize = 200;

/// Signs people in.
pub struct SignIn {
    provider: Provider,
    /// ID tokens for this server: a token that is for anything else does not do, nor one of these for anything else.
    tokens: Tokens,
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the person is sent.
    pub location: String,
    /// What their browser keeps meanwhile.
    pub secret: String,
}

/// Somebody who has signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// Who.
    pub principal: Arc<Principal>,
    /// What shows it from now on: their ID token.
    pub token: String,
    /// Until when that holds (µs since the Unix epoch).
    pub until_us: i64,
}

/// What a query says, by name.
///
/// # Errors
/// A name that it has twice.
pub fn parameters(query: &str) -> Result<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Error::invalid(format!("the query has `{name}` twice")));
        }
    }
    Ok(parameters)
}

impl SignIn {
    /// # Errors
    /// A secret that cannot be read.
    pub(crate) fn new(registration: Registration, issuers: &[Arc<Asked>], client: Client) -> Result<SignIn> {
        let its = issuers.iter().filter(|issuer| issuer.name() == registration.issuer).map(Arc::clone);
        let tokens = Tokens::new(its.collect(), registration.client_id.clone(), Meant::Identity);
        Ok(SignIn { provider: Provider::new(registration, client)?, tokens })
    }

    /// Begins a sign-in.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the issuer does not say where people are sent.
    pub async fn begin(&self, now_us: i64) -> Result<Begun> {
        let endpoints = self.provider.endpoints(now_us).await?;
        let mut secret = [0; SECRET_BYTES];
        let drawn = SystemRandom::new().fill(&mut secret);
        drawn.map_err(|_| Error::broken("the system has no random numbers"))?;
        let registration = &self.provider.registration;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(made(&secret, "verifier")));
        let location = endpoints.authorization(&[
            ("response_type", "code"),
            ("client_id", &registration.client_id),
            ("redirect_uri", &registration.redirect_uri),
            ("scope", &registration.scopes),
            ("state", &made(&secret, "state")),
            ("nonce", &made(&secret, "nonce")),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        Ok(Begun { location, secret: URL_SAFE_NO_PAD.encode(secret) })
    }

    /// Ends the sign-in whose secret this is, with what the issuer sent the browser back with.
    ///
    /// # Errors
    /// `Kind::InvalidArgument` for what is not its end, `Kind::Forbidden` where the issuer refuses the person,
    /// `Kind::Unauthenticated` for a token that does not hold, `Kind::Unavailable` where the issuer does not answer.
    pub async fn end(&self, secret: &str, reply: &BTreeMap<String, String>, now_us: i64) -> Result<SignedIn> {
        let secret = URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
        let given = |name: &str| reply.get(name).map(String::as_str);
        let is_its = made(&secret, "state").as_bytes().ct_eq(given("state").unwrap_or_default().as_bytes());
        if secret.len() != SECRET_BYTES || !bool::from(is_its) {
            let told =
                "this is not the end of the sign-in that this browser began last: begin again at /login";
            return Err(Error::invalid(told));
        }
        let endpoints = self.provider.endpoints(now_us).await?;
        let issuer = self.provider.registration.issuer.as_str();
        if given("iss").map_or(endpoints.names_itself, |named| named != issuer) {
            return Err(Why::Issuer.because("another issuer sent them back, or one that did not name itself"));
        }
        if let Some(error) = given("error") {
            let reason = format!("{error} {}", given("error_description").unwrap_or_default());
            let reason: String = reason.trim_end().chars().take(REASON_CHARS_MAX).collect();
            return Err(Error::forbidden(format!("the issuer does not let you in: {reason:?}")));
        }
        let code = given("code").filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| Error::invalid("the issuer sent no `code`"))?;
        let token = self.provider.exchange(&endpoints, code, &made(&secret, "verifier")).await?;
        let verified = self.tokens.verify(&token, now_us).await?;
        match nonce(self.claims(&verified.principal)?) {
            Some(nonce) if nonce == made(&secret, "nonce") => {
                Ok(SignedIn { principal: verified.principal, token, until_us: verified.until_us })
            }
            _ => Err(Why::Nonce.because("it is of another sign-in")),
        }
    }

    /// Who has signed in and was given this ID token.
    ///
    /// # Errors
    /// As [`Identity::who`](crate::Identity::who).
    pub async fn who(&self, token: &str, now_us: i64) -> Result<Arc<Principal>> {
        let principal = self.tokens.verify(token, now_us).await?.principal;
        match nonce(self.claims(&principal)?) {
            Some(_) => Ok(principal),
            None => Err(Why::Nonce.because("it is of no sign-in")),
        }
    }

    /// What an ID token says, if it was given to this server (OpenID Connect Core 1.0, 3.1.3.7).
    fn claims<'p>(&self, principal: &'p Principal) -> Result<&'p Map<String, Value>> {
        let Proof::Token(token) = principal.proof() else {
            return Err(Error::broken("a token gave something else"));
        };
        let is_shared = token.claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
        let id = &self.provider.registration.client_id;
        match token.claims.get("azp").map(|party| party.as_str() == Some(id)) {
            Some(true) => Ok(&token.claims),
            None if !is_shared => Ok(&token.claims),
            _ => Err(Why::Audience.because("it was given to another one (`azp`)")),
        }
    }
}

fn nonce(claims: &Map<String, Value>) -> Option<&str> {
    claims.get("nonce").and_then(Value::as_str).filter(|nonce| !nonce.is_empty())
}

/// What the secret makes for this use.
fn made(secret: &[u8], what: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, what.as_bytes()))
}
