//! Does a token hold (RFC 7519), and whose is it?
//!
//! What a token says of itself decides nothing but whose keys are looked at and which of them: the issuer must be one
//! of the settings', to the letter, and a key is used for its own algorithms alone.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quern_access::{Principal, Proof, Token};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::issuer::Asked;
use crate::refused::{Result, Why};
use crate::remembered::{Digest, Remembered, Verified};
use crate::signature::Algorithm;

/// A token is some kilobytes at most, and each request brings it.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// How much the clocks of issuers and servers may differ.
const LEEWAY_SECONDS: f64 = 60.0;

/// What a token is meant to be, which its head may say (`typ`; RFC 8725, 3.11): none of one kind does for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    /// Shows who asks (RFC 9068).
    Access,
    /// Shows who has signed in.
    Identity,
}

impl Meant {
    fn takes(self, kind: Option<&str>) -> bool {
        let kind = kind.map(str::to_ascii_lowercase);
        match kind.as_deref().map(|kind| kind.strip_prefix("application/").unwrap_or(kind)) {
            None | Some("jwt") => true,
            Some("at+jwt") => self == Meant::Access,
            Some(_) => false,
        }
    }
}

/// Verifies tokens that are for one thing, and remembers those that hold.
pub(crate) struct Tokens {
    issuers: Vec<Arc<Asked>>,
    audience: String,
    meant: Meant,
    remembered: Remembered,
}

/// A token, taken apart; whether it is true remains to be seen.
struct Said<'t> {
    algorithm: &'static Algorithm,
    key: Option<String>,
    /// What it says it is.
    kind: Option<String>,
    issuer: String,
    claims: Map<String, Value>,
    /// What is signed.
    message: &'t str,
    signature: Vec<u8>,
}

impl Tokens {
    /// Those of these issuers for `audience`.
    pub(crate) fn new(issuers: Vec<Arc<Asked>>, audience: String, meant: Meant) -> Tokens {
        Tokens { issuers, audience, meant, remembered: Remembered::default() }
    }

    pub(crate) async fn verify(&self, text: &str, now_us: i64) -> Result<Verified> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Why::TooLong.because(format!("it has {} bytes", text.len())));
        }
        let digest: Digest = Sha256::digest(text.as_bytes()).into();
        if let Some(verified) = self.remembered.get(&digest)
            && verified.until_us > now_us
            && self.issuers[verified.issuer].stands(now_us) == Some(verified.changes)
        {
            return Ok(verified);
        }
        let said = read(text)?;
        let Some(issuer) = self.issuers.iter().position(|issuer| issuer.name() == said.issuer) else {
            return Err(Why::Issuer.because("nobody gave it who is believed"));
        };
        let asked = &self.issuers[issuer];
        let (key, changes) = asked.key(said.key.as_deref(), said.algorithm, now_us).await?;
        if !key.has_signed(said.algorithm, said.message.as_bytes(), &said.signature) {
            return Err(Why::Signature.because("it is not signed with the key that it names"));
        }
        // From here on it is true.
        if !self.meant.takes(said.kind.as_deref()) {
            return Err(Why::Claims.because("it is another kind of token (`typ`)"));
        }
        check_audience(&said.claims, &self.audience)?;
        let until_us = check_times(&said.claims, now_us)?;
        let subject = said.claims.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let Some(subject) = subject.map(str::to_owned) else {
            return Err(Why::Claims.because("it does not say whose it is (`sub`)"));
        };
        let token = Token { issuer: said.issuer, subject, claims: said.claims };
        let principal = Arc::new(Principal::new(Proof::Token(token)));
        let verified = Verified { principal, issuer, changes, until_us, bytes: text.len() };
        self.remembered.put(digest, verified.clone(), now_us);
        Ok(verified)
    }
}

/// What a token says of itself.
fn read(text: &str) -> Result<Said<'_>> {
    let malformed = |what: &'static str| move || Why::Malformed.because(what);
    let (message, signature) = text.rsplit_once('.').ok_or_else(malformed("it has no three parts"))?;
    let (head, claims) = message.split_once('.').ok_or_else(malformed("it has no three parts"))?;
    let part = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    };
    let head = part(head).ok_or_else(malformed("its head is no JSON object in base64url"))?;
    // A further dot is no letter of base64url.
    let claims = part(claims).ok_or_else(malformed("its claims are no JSON object in base64url"))?;
    let signature = URL_SAFE_NO_PAD.decode(signature);
    let signature = signature.map_err(|_| Why::Malformed.because("its signature is not in base64url"))?;
    let algorithm = Algorithm::of(head.get("alg").and_then(Value::as_str).unwrap_or_default());
    let algorithm = algorithm.ok_or_else(|| Why::Algorithm.because("its algorithm is not believed"))?;
    if head.contains_key("crit") {
        return Err(Why::Malformed.because("it wants something understood that is not (`crit`)"));
    }
    let said = |name: &str| match head.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Why::Malformed.because(format!("its `{name}` is no text"))),
    };
    let (key, kind) = (said("kid")?, said("typ")?);
    let issuer = claims.get("iss").and_then(Value::as_str);
    let issuer = issuer.ok_or_else(|| Why::Claims.because("it does not say who gave it (`iss`)"))?;
    let issuer = issuer.to_owned();
    Ok(Said { algorithm, key, kind, issuer, claims, message, signature })
}

/// Refuses a token that is for others.
fn check_audience(claims: &Map<String, Value>, audience: &str) -> Result<()> {
    let is_meant = match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        _ => return Err(Why::Claims.because("it does not say what it is for (`aud`)")),
    };
    match is_meant {
        true => Ok(()),
        false => Err(Why::Audience.because(format!("it is not for `{audience}`"))),
    }
}

/// Until when a token holds (µs since the Unix epoch).
fn check_times(claims: &Map<String, Value>, now_us: i64) -> Result<i64> {
    let seconds = |name: &'static str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|seconds| seconds.is_finite()) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Why::Claims.because(format!("its `{name}` is no number"))),
        },
    };
    let now = now_us as f64 / 1e6;
    let Some(expires) = seconds("exp")? else {
        return Err(Why::Claims.because("it does not say until when it holds (`exp`)"));
    };
    if expires + LEEWAY_SECONDS <= now {
        return Err(Why::Expired.because(format!("it expired {:.0} s ago", now - expires)));
    }
    for name in ["nbf", "iat"] {
        if let Some(from) = seconds(name)?
            && from - LEEWAY_SECONDS > now
        {
            return Err(Why::Early.because(format!("its `{name}` is {:.0} s ahead", from - now)));
        }
    }
    // What is too far to be said stays as far as can be.
    Ok(((expires + LEEWAY_SECONDS) * 1e6) as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let now_us = 1_800_000_000_000_000;
        let check = |claims: Value| {
            let until = check_times(claims.as_object().unwrap(), now_us);
            until
                .map(|until_us| (until_us - now_us) / 1_000_000)
                .map_err(|error| *error.facts::<Why>().unwrap())
        };
        let now = 1_800_000_000_i64;
        for (claims, expected) in [
            (json!({"exp": now + 1}), Ok(61)),
            (json!({"exp": now - 59}), Ok(1)),
            (json!({"exp": now as f64 - 59.5}), Ok(0)),
            (json!({"exp": now - 60}), Err(Why::Expired)),
            (json!({"exp": -1}), Err(Why::Expired)),
            (json!({}), Err(Why::Claims)),
            (json!({"exp": null}), Err(Why::Claims)),
            (json!({"exp": "1900000000"}), Err(Why::Claims)),
            (json!({"exp": now + 1, "nbf": now + 60, "iat": now + 60}), Ok(61)),
            (json!({"exp": now + 1, "nbf": now + 61}), Err(Why::Early)),
            (json!({"exp": now + 1, "iat": now + 61}), Err(Why::Early)),
            (json!({"exp": now + 1, "nbf": "soon"}), Err(Why::Claims)),
            (json!({"exp": 1e300}), Ok((i64::MAX - now_us) / 1_000_000)),
        ] {
            assert_eq!(check(claims.clone()), expected, "{claims}");
        }
    }
}
