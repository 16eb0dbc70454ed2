//! An issuer of tokens, as OpenID Connect has it: on loopback, with keys of its own, and with faults where a test wants
//! them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use quern_kit::fixture;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::provider::{self, People};

/// A key that signs.
pub(in crate::network) enum Signer {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// One of the two that lie in the fixtures: `ring` makes none of its own.
    pub(super) fn rsa(number: usize) -> Signer {
        let key = fixture(&format!("who/rsa_{number}.pk8"));
        Signer::Rsa(Box::new(RsaKeyPair::from_pkcs8(&key).unwrap()))
    }

    fn point(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap()
    }

    pub(in crate::network) fn p256() -> Signer {
        Signer::P256(Signer::point(&ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    pub(super) fn p384() -> Signer {
        Signer::P384(Signer::point(&ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    pub(super) fn ed25519() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    /// Its public half, as a JSON Web Key.
    pub(super) fn public(&self, id: &str) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |curve: &str, key: &EcdsaKeyPair| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y), "kid": id})
        };
        match self {
            Signer::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": encoded(&n), "e": encoded(&e), "kid": id, "use": "sig"})
            }
            Signer::P256(key) => point("P-256", key),
            Signer::P384(key) => point("P-384", key),
            Signer::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().as_ref()), "kid": id})
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(key) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Signer::P256(key) | Signer::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this head, signed as it says, whether that fits or not.
    pub(in crate::network) fn token(&self, head: &Value, claims: &Value) -> String {
        let algorithm = head["alg"].as_str().unwrap_or_default().to_owned();
        signed(head, claims, |message| self.sign(&algorithm, message))
    }
}

/// A token, signed by `sign`.
pub(super) fn signed(head: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What an issuer says, and how often it was asked.
#[derive(Default)]
pub(super) struct Says {
    /// The keys that it shows.
    pub(super) keys: Vec<Value>,
    /// What it calls itself, where that is not what it is called.
    pub(super) name: Option<String>,
    /// Where its keys are, where that is not where they are.
    pub(super) keys_at: Option<String>,
    /// Where it sends whoever asks for its keys.
    pub(super) redirects_to: Option<String>,
    /// What it says in the place of its keys.
    pub(super) text: Option<Vec<u8>>,
    /// Whether it answers nothing but an error.
    pub(super) is_down: bool,
    /// How often it was asked for its keys.
    pub(super) asked: usize,
    /// Whom it lets in, and how.
    pub(super) people: People,
}

/// An issuer that answers as long as its runtime does.
pub(in crate::network) struct Issuer {
    /// What it is called.
    pub(in crate::network) url: String,
    /// What it says.
    pub(super) says: Arc<Mutex<Says>>,
}

impl Issuer {
    /// Starts one that shows the public halves of these.
    pub(in crate::network) async fn start(keys: &[(&str, &Signer)]) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let says = Arc::new(Mutex::new(Says::default()));
        let issuer = Issuer { url: url.clone(), says: Arc::clone(&says) };
        issuer.show(keys);
        let discovery = move |State(says): State<Arc<Mutex<Says>>>| async move {
            let says = says.lock();
            let name = says.name.clone().unwrap_or_else(|| url.clone());
            let keys_at = says.keys_at.clone().unwrap_or_else(|| format!("{url}/keys"));
            match says.is_down {
                true => reply(StatusCode::BAD_GATEWAY, Vec::new()),
                false => {
                    let mut said = json!({"issuer": name, "jwks_uri": keys_at});
                    says.people.say(&url, &mut said);
                    reply(StatusCode::OK, said.to_string().into())
                }
            }
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys_of))
            .route("/elsewhere", get(elsewhere))
            .merge(provider::routes())
            .with_state(says);
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    /// Shows the public halves of these from now on, and no others.
    pub(in crate::network) fn show(&self, keys: &[(&str, &Signer)]) {
        self.says.lock().keys = keys.iter().map(|(id, key)| key.public(id)).collect();
    }

    /// How often it was asked for its keys.
    pub(super) fn asked(&self) -> usize {
        self.says.lock().asked
    }

    /// Claims that hold for an hour from `now_us` on.
    pub(in crate::network) fn claims(&self, now_us: i64) -> Value {
        let now = now_us / 1_000_000;
        json!({
            "iss": self.url, "sub": "ann", "aud": "quern", "iat": now, "nbf": now, "exp": now + 3_600, "groups": ["risk"],
        })
    }
}

pub(super) fn reply(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

async fn keys_of(State(says): State<Arc<Mutex<Says>>>) -> Response<Body> {
    let mut says = says.lock();
    says.asked += 1;
    if let Some(to) = &says.redirects_to {
        let moved = Response::builder().status(StatusCode::FOUND).header(header::LOCATION, to);
        return moved.body(Body::empty()).unwrap();
    }
    match (&says.text, says.is_down) {
        (_, true) => reply(StatusCode::BAD_GATEWAY, Vec::new()),
        (Some(text), _) => reply(StatusCode::OK, text.clone()),
        (None, _) => reply(StatusCode::OK, json!({"keys": says.keys}).to_string().into()),
    }
}

async fn elsewhere(State(says): State<Arc<Mutex<Says>>>) -> Response<Body> {
    reply(StatusCode::OK, json!({"keys": says.lock().keys}).to_string().into())
}
