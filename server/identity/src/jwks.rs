//! Which keys does an issuer sign with (RFC 7517), and which of them fits a token?

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::signature::{Algorithm, Kind, PublicKey};

/// An issuer has a few keys, and some more while it changes them.
const KEYS_MAX: usize = 100;
/// A point is written as two numbers behind this.
const UNCOMPRESSED: u8 = 4;

/// The keys of an issuer, of those kinds that are believed.
#[derive(Debug, Default)]
pub(crate) struct Jwks(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, where it names one.
    algorithm: Option<String>,
    public: Arc<PublicKey>,
}

/// What there is for a token.
#[derive(Debug)]
pub(crate) enum Found {
    /// The key that it is signed with, if it is genuine.
    Key(Arc<PublicKey>),
    /// There is such a key, for other algorithms.
    OfAnotherKind,
    /// There is none.
    Nothing,
}

impl Jwks {
    /// Reads a JSON Web Key Set. Keys that are for something else are left alone, as it is written there; a set without
    /// any that is believed says that there is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Jwks, String> {
        let set: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list `keys`")?;
        if keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys, and {KEYS_MAX} are the most", keys.len()));
        }
        Ok(Jwks(keys.iter().filter_map(Key::read).collect()))
    }

    /// Whether it has no key that is believed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of that ID, where it is for `algorithm`. Without an ID it is the only key that is.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: &Algorithm) -> Found {
        let mut named = self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Found::Nothing;
        }
        let mut fitting = named.filter(|key| key.is_for(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(Arc::clone(&key.public)),
            // Which of them is it?
            (Some(_), Some(_)) => Found::Nothing,
            (None, _) if id.is_some() => Found::OfAnotherKind,
            (None, _) => Found::Nothing,
        }
    }
}

impl Key {
    /// A key as it is written; none where it is for something else, or of a kind that is not believed.
    fn read(written: &Value) -> Option<Key> {
        let text = |name: &str| written.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        // Some issuers write zeros before a number.
        let number = |name: &str| Some(bytes(name)?.into_iter().skip_while(|byte| *byte == 0).collect());
        let point = |kind: Kind, size: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let is_whole = x.len() == size && y.len() == size;
            is_whole.then(|| PublicKey::Point(kind, [vec![UNCOMPRESSED], x, y].concat()))
        };
        if !is_for_signatures(written) {
            return None;
        }
        let public = match (text("kty")?, text("crv")) {
            ("RSA", None) => PublicKey::Rsa { n: number("n")?, e: number("e")? },
            ("EC", Some("P-256")) => point(Kind::P256, 32)?,
            ("EC", Some("P-384")) => point(Kind::P384, 48)?,
            ("OKP", Some("Ed25519")) => PublicKey::Point(Kind::Ed25519, bytes("x")?),
            // A secret (`oct`) has no place where everybody may read it.
            _ => return None,
        };
        let algorithm = text("alg").map(str::to_owned);
        // A key that names an algorithm of another kind is for nothing here.
        if let Some(name) = &algorithm
            && Algorithm::of(name).is_none_or(|named| named.kind != public.kind())
        {
            return None;
        }
        Some(Key { id: text("kid").map(str::to_owned), algorithm, public: Arc::new(public) })
    }

    fn is_for(&self, algorithm: &Algorithm) -> bool {
        self.public.kind() == algorithm.kind
            && self.algorithm.as_ref().is_none_or(|name| name == algorithm.name)
    }
}

/// Whether a key may verify signatures by what it says that it is for (RFC 7517, 4.2 and 4.3).
fn is_for_signatures(written: &Value) -> bool {
    let said = |name: &str| written.get(name).filter(|said| !said.is_null());
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|all| all.iter().any(|operation| operation == "verify"))
    };
    said("use").is_none_or(|is_for| is_for == "sig") && said("key_ops").is_none_or(verifies)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(set: &Jwks, id: Option<&str>, algorithm: &str) -> &'static str {
        match set.find(id, Algorithm::of(algorithm).unwrap()) {
            Found::Key(_) => "key",
            Found::OfAnotherKind => "another kind",
            Found::Nothing => "nothing",
        }
    }

    #[test]
    fn a_key_is_for_what_it_says() {
        for (said, verifies) in [
            (json!({}), true),
            (json!({"use": "sig"}), true),
            (json!({"use": "enc"}), false),
            (json!({"use": ["sig"]}), false),
            (json!({"use": 7}), false),
            (json!({"key_ops": ["verify"]}), true),
            (json!({"key_ops": ["sign", "verify"], "use": "sig"}), true),
            (json!({"key_ops": ["sign"]}), false),
            (json!({"key_ops": ["encrypt", "wrapKey"], "use": "sig"}), false),
            (json!({"key_ops": []}), false),
            (json!({"key_ops": "verify"}), false),
            (json!({"key_ops": ["verify"], "use": "enc"}), false),
            (json!({"key_ops": null, "use": null}), true),
        ] {
            let mut key = json!({"kty": "RSA", "n": "AMBn4g", "e": "AQAB", "kid": "k"});
            key.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
            let set = Jwks::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
            assert_eq!(found(&set, Some("k"), "RS256") == "key", verifies, "{said}");
        }
    }

    #[test]
    fn a_key_is_for_its_own_kind_alone() {
        let rsa = json!({"kty": "RSA", "n": "AMBn4g", "e": "AQAB"});
        let named = |mut key: Value, id: &str, algorithm: &str| {
            key["kid"] = json!(id);
            key["alg"] = json!(algorithm);
            key
        };
        let point = URL_SAFE_NO_PAD.encode([1; 32]);
        let set = json!({"keys": [
            named(rsa.clone(), "r", "RS256"),
            named(rsa.clone(), "encrypts", "RSA-OAEP"),
            named(rsa.clone(), "lies", "ES256"),
            named(rsa.clone(), "secret", "HS256"),
            named(rsa.clone(), "unknown", "XY512"),
            {"kty": "RSA", "n": "wGfi", "e": "AQAB", "kid": "also encrypts", "use": "enc"},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"},
            {"kty": "EC", "crv": "P-256", "x": point, "y": point, "kid": "e"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "short"},
            {"kty": "EC", "crv": "secp256k1", "x": point, "y": point, "kid": "k"},
            {"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "d"},
            {"kty": "OKP", "crv": "X25519", "x": point, "kid": "x"},
            {"kty": "new"}, 7
        ]});
        let set = Jwks::parse(set.to_string().as_bytes()).unwrap();
        assert_eq!(set.0.len(), 3, "{set:?}");
        assert!(matches!(&*set.0[0].public, PublicKey::Rsa { n, .. } if n == &[0xc0, 0x67, 0xe2]));
        for (id, algorithm, expected) in [
            (Some("r"), "RS256", "key"),
            (Some("r"), "RS384", "another kind"),
            (Some("r"), "PS256", "another kind"),
            (Some("e"), "ES256", "key"),
            (Some("e"), "ES384", "another kind"),
            (Some("d"), "EdDSA", "key"),
            (Some("s"), "RS256", "nothing"),
            (Some("encrypts"), "RS256", "nothing"),
            (Some("../../etc/passwd"), "RS256", "nothing"),
            (None, "RS256", "key"),
            (None, "ES384", "nothing"),
        ] {
            assert_eq!(found(&set, id, algorithm), expected, "{id:?} {algorithm}");
        }
        let two = json!({"keys": [rsa.clone(), rsa]});
        let two = Jwks::parse(two.to_string().as_bytes()).unwrap();
        assert_eq!(found(&two, None, "RS256"), "nothing", "which of them is it?");
        for wrong in [&b"{}"[..], b"[]", b"{\"keys\": {}}", b"\xff"] {
            assert!(Jwks::parse(wrong).is_err());
        }
        for none in [&b"{\"keys\": []}"[..], b"{\"keys\": [{\"kty\": \"new\"}]}"] {
            assert!(Jwks::parse(none).unwrap().is_empty());
        }
        for other in ["none", "None", "HS256", "rs256", "ES512", ""] {
            assert!(Algorithm::of(other).is_none(), "{other}");
        }
    }
}
