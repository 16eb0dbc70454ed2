//! How does an issuer let people in (OpenID Connect, the authorization code flow)? It holds clients to PKCE, and to a
//! code that counts once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use reqwest::Url;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::issuer::{Says, Signer, reply};

/// The client that it knows, and what it is to be like.
pub(super) const CLIENT: &str = "quern-web";
pub(super) const PUBLIC_URL: &str = "https://quern.test";

/// Whom an issuer lets in, and how.
#[derive(Default)]
pub(super) struct People {
    /// What signs ID tokens, and what the key is called.
    pub(super) signs: Option<(String, Arc<Signer>)>,
    /// What they say of whoever signs in, beside what is of the sign-in.
    pub(super) claims: Value,
    /// The secret that it wants of its client.
    pub(super) secret: Option<String>,
    /// Where it wants that, where it says so.
    pub(super) secret_in: Option<&'static str>,
    /// Whether it names itself to whom it sends back.
    pub(super) names_itself: bool,
    /// Why it lets nobody in.
    pub(super) denies: Option<String>,
    /// The codes that are out.
    codes: HashMap<String, BTreeMap<String, String>>,
    /// How many codes it has given, and how many tokens.
    pub(super) given: (usize, usize),
}

impl People {
    /// What discovery tells of it.
    pub(super) fn say(&self, url: &str, said: &mut Value) {
        said["authorization_endpoint"] = json!(format!("{url}/authorize?tenant=a"));
        said["token_endpoint"] = json!(format!("{url}/token"));
        said["authorization_response_iss_parameter_supported"] = json!(self.names_itself);
        if let Some(way) = self.secret_in {
            said["token_endpoint_auth_methods_supported"] = json!(["private_key_jwt", way]);
        }
    }
}

pub(super) fn routes() -> Router<Arc<Mutex<Says>>> {
    Router::new().route("/authorize", get(authorize)).route("/token", post(token))
}

fn read(query: &str) -> BTreeMap<String, String> {
    let url = Url::parse(&format!("http://a/?{query}")).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Lets whoever comes in at once, and sends them back.
async fn authorize(State(says): State<Arc<Mutex<Says>>>, headers: HeaderMap, uri: Uri) -> Response<Body> {
    let asked = read(uri.query().unwrap_or_default());
    let callback = format!("{PUBLIC_URL}/login/callback");
    for (name, expected) in [
        ("tenant", "a"),
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", &callback),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(asked[name], expected, "{name}");
    }
    assert!(asked["scope"].split(' ').any(|scope| scope == "openid") && asked["nonce"].len() >= 22);
    let name = format!("http://{}", headers[header::HOST].to_str().unwrap());
    let people = &mut says.lock().people;
    let mut back = Url::parse(&callback).unwrap();
    back.query_pairs_mut().append_pair("state", &asked["state"]);
    match &people.denies {
        Some(why) => {
            let refused = [("error", "access_denied"), ("error_description", why)];
            back.query_pairs_mut().extend_pairs(refused);
        }
        None => {
            people.given.0 += 1;
            let code = format!("code-{}", people.given.0);
            people.codes.insert(code.clone(), asked);
            back.query_pairs_mut().append_pair("code", &code);
        }
    }
    if people.names_itself {
        back.query_pairs_mut().append_pair("iss", &name);
    }
    let sent = Response::builder().status(StatusCode::FOUND).header(header::LOCATION, String::from(back));
    sent.body(Body::empty()).unwrap()
}

/// Gives an ID token for a code, once, to whoever has what its challenge was made of.
async fn token(State(says): State<Arc<Mutex<Says>>>, headers: HeaderMap, body: String) -> Response<Body> {
    let refused = |status, error: &str| reply(status, json!({"error": error}).to_string().into());
    let given = read(&body);
    let name = format!("http://{}", headers[header::HOST].to_str().unwrap());
    let people = &mut says.lock().people;
    let basic = headers.get(header::AUTHORIZATION).map(|value| {
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let both = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
        let (id, secret) = both.split_once(':').unwrap();
        let read = read(&format!("id={id}&secret={secret}"));
        (read["id"].clone(), read["secret"].clone())
    });
    let shown = match (people.secret_in, basic) {
        (Some("client_secret_post"), None) | (_, None) => {
            (given["client_id"].clone(), given.get("client_secret").cloned())
        }
        (_, Some((id, secret))) => (id, Some(secret)),
    };
    if shown != (CLIENT.to_owned(), people.secret.clone()) {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let Some(asked) = people.codes.remove(&given["code"]) else {
        return refused(StatusCode::BAD_REQUEST, "invalid_grant");
    };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, given["code_verifier"].as_bytes()));
    let is_whole = given["code_verifier"].len() >= 43 && given["grant_type"] == "authorization_code";
    if challenge != asked["code_challenge"] || given["redirect_uri"] != asked["redirect_uri"] || !is_whole {
        return refused(StatusCode::BAD_REQUEST, "invalid_grant");
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut claims = json!({
        "iss": name, "sub": "ann", "aud": CLIENT, "iat": now, "exp": now + 600, "nonce": asked["nonce"],
    });
    claims.as_object_mut().unwrap().extend(people.claims.as_object().cloned().unwrap_or_default());
    let (id, signer) = people.signs.as_ref().unwrap();
    let token = signer.token(&json!({"alg": "ES256", "kid": id}), &claims);
    people.given.1 += 1;
    let said = json!({"access_token": "opaque", "token_type": "Bearer", "id_token": token});
    reply(StatusCode::OK, said.to_string().into())
}
