//! Who asks? Settled before anything else is looked at, so that who is nobody is told nothing, not even which paths
//! there are.
//!
//! | who asks | is |
//! |---|---|
//! | a command, in its own process | its owner |
//! | the peer of the Unix socket, where it is of this server's user or root | its owner |
//! | with a bearer | whose key or token that is; refused where it does not hold, whatever else is shown |
//! | with the cookie of who signed in by a browser, over HTTP, from a page of this server | whose ID token that is |
//! | with `auth: none` | anyone |
//! | with a certificate | one of its names |
//! | else | nobody: refused, but for health and signing in |

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quern_access::{Caller, Principal, Proof};
use quern_base::clock::now_us;
use quern_identity::Why;
use quern_server::Node;
use quern_server::settings::Auth;
use quern_wire::REQUEST_ID;

use super::error::{ApiError, grpc_status};
use super::listen::Peer;
use super::memory::is_grpc;
use super::session;
use crate::error::{Error, Kind, Result};

static OPEN: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::new(Proof::Open)));

pub(crate) const API_KEY: &str = "x-api-key";
const BEARER: &str = "bearer";
const ROOT: u32 = 0;
/// What probes ask, who have nothing to show.
const HEALTH: [&str; 3] = ["/v2/health/live", "/v2/health/ready", "/health"];
const HEALTH_OVER_GRPC: [&str; 2] =
    ["/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"];

/// Who asks, for a handler.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub Caller);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, ApiError> {
        Ok(Who(caller(&parts.extensions, &parts.headers)?))
    }
}

/// Who makes this call over gRPC.
///
/// # Errors
/// Where nobody has settled it.
pub(crate) fn who<T>(request: &tonic::Request<T>) -> Result<Caller> {
    caller(request.extensions(), request.metadata().as_ref())
}

fn caller(extensions: &Extensions, headers: &HeaderMap) -> Result<Caller> {
    let principal = extensions.get().map(Arc::clone);
    let principal = principal.ok_or_else(|| Error::broken("it is not known who asks"))?;
    Ok(Caller { principal, request_id: request_id(headers) })
}

/// What the request is called, which has a name by now.
fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    id.unwrap_or_default()
}

/// Gives every request the [`Principal`] who asks, or refuses it.
pub(super) async fn settle(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let settled = match settled(&node, &parts).await {
        Ok(principal) if principal.is_known() => {
            let taken =
                node.quotas.take_request(&principal, &node.live().access.rights(&principal), Instant::now());
            taken.map(|()| principal).map_err(Error::from)
        }
        settled => settled,
    };
    match settled {
        Ok(principal) => {
            parts.extensions.insert(principal);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => {
            let peer = parts.extensions.get::<Arc<Peer>>().map(|peer| &**peer);
            note(&node, &error, (parts.uri.path(), request_id(&parts.headers)), peer);
            refused(error, &parts)
        }
    }
}

/// Writes down that nobody knows who asks; who asks for too much is known.
pub(crate) fn note(node: &Node, error: &Error, (path, request_id): (&str, String), peer: Option<&Peer>) {
    let Some(why) = error.facts::<Why>().map(|why| why.label()) else { return };
    let peer = peer.map(ToString::to_string);
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::info!(why, cause, peer, path, "nobody knows who asks");
    let nobody = Caller { principal: Arc::new(Principal::new(Proof::Nobody)), request_id };
    node.live().audit.note(&nobody, format_args!("ask {path} ({why})"), || None);
}

async fn settled(node: &Node, parts: &Parts) -> Result<Arc<Principal>> {
    static OWNER: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::new(Proof::Owner)));
    static NOBODY: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::new(Proof::Nobody)));
    // Nothing over a socket brings extensions: a command in this process said so itself.
    if let Some(principal) = parts.extensions.get::<Arc<Principal>>() {
        return Ok(Arc::clone(principal));
    }
    let peer = parts.extensions.get::<Arc<Peer>>().map(|peer| &**peer);
    if peer.and_then(|peer| peer.local).is_some_and(is_owner) {
        return Ok(Arc::clone(&OWNER));
    }
    if node.settings.auth() == Auth::None && is_health(&parts.method, &parts.uri) {
        return Ok(Arc::clone(&OPEN));
    }
    // Probes have nothing to show, nor has who is about to sign in; and whoever has is told more.
    let is_for_all = is_health(&parts.method, &parts.uri)
        || node.identity.sign_in.is_some() && session::is_open(&parts.method, &parts.uri);
    // Whoever brings another credential is asked by that.
    let session = match has_credential(&parts.headers) {
        true => None,
        false => match session::shown(&node.settings, parts) {
            // What only reads, and tells everybody, does not want the cookie.
            Err(_) if is_for_all && parts.method == Method::GET => None,
            session => session?,
        },
    };
    match shown(node, &parts.headers, session, peer).await {
        Err(_) if is_for_all => Ok(Arc::clone(&NOBODY)),
        settled => settled,
    }
}

/// Who it is, by what they show: headers, the ID token of who signed in by a browser, and over which connection.
pub(crate) async fn shown(
    node: &Node,
    headers: &HeaderMap,
    session: Option<&str>,
    peer: Option<&Peer>,
) -> Result<Arc<Principal>> {
    let auth = node.settings.auth();
    let whose = match (bearer(headers, auth)?, session, &node.identity.sign_in) {
        (Some(bearer), ..) => Some(node.identity.who(bearer, now_us()).await?),
        (None, Some(token), Some(sign_in)) => Some(sign_in.who(token, now_us()).await?),
        (None, ..) => None,
    };
    if auth == Auth::None {
        return Ok(Arc::clone(&OPEN));
    }
    match whose.or_else(|| peer?.certificate.clone()) {
        Some(principal) => Ok(principal),
        None => Err(Why::Missing.because("neither a bearer nor a certificate").into()),
    }
}

/// Whether a request brings a credential of its own, whatever that is worth.
fn has_credential(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(API_KEY)
}

/// Whether a process of this user is the owner's.
fn is_owner(user: u32) -> bool {
    static OURS: LazyLock<Option<u32>> =
        LazyLock::new(|| std::fs::metadata("/proc/self").ok().map(|process| process.uid()));
    user == ROOT || Some(user) == *OURS
}

fn is_health(method: &Method, uri: &Uri) -> bool {
    match *method {
        Method::GET | Method::HEAD => HEALTH.contains(&uri.path()),
        Method::POST => HEALTH_OVER_GRPC.contains(&uri.path()),
        _ => false,
    }
}

/// The key or token that a request brings, over HTTP and gRPC alike.
fn bearer(headers: &HeaderMap, auth: Auth) -> Result<Option<&str>> {
    let single = |name: &str| {
        let mut given = headers.get_all(name).iter();
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(Error::invalid(format!("a request has one `{name}`"))),
            (None, None) => Ok(None),
            (Some(value), None) => match value.to_str() {
                Ok(text) => Ok(Some(text.trim())),
                Err(_) => Err(Why::Malformed.because(format!("`{name}` is no text")).into()),
            },
        }
    };
    let (authorization, key) = (single(header::AUTHORIZATION.as_str())?, single(API_KEY)?);
    let Some(authorization) = authorization else { return Ok(key) };
    match authorization.split_once(' ') {
        Some((scheme, bearer)) if scheme.eq_ignore_ascii_case(BEARER) => Ok(Some(bearer.trim())),
        // What is said to a proxy in front is none of our business, as long as nobody is asked.
        _ if auth == Auth::None => Ok(key),
        _ => Err(Why::Scheme.because("`authorization` is of another scheme than `Bearer`").into()),
    }
}

/// The refusal, in the words of its protocol.
fn refused(error: Error, parts: &Parts) -> Response {
    let why = error.facts::<Why>().copied();
    if is_grpc(&parts.headers) {
        return grpc_status(&error).into_http();
    }
    let is_unknown = error.kind() == Kind::Unauthenticated;
    let mut response = ApiError(error).into_response();
    if is_unknown {
        // RFC 6750: that there is an error is told only to who brought something.
        let challenge = match why {
            Some(Why::Missing | Why::Scheme) | None => HeaderValue::from_static("Bearer"),
            Some(_) => HeaderValue::from_static("Bearer error=\"invalid_token\""),
        };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use quern_server::Settings;
    use quern_wire::NewKeyRequest;
    use tower::ServiceExt;

    use super::*;

    fn found(
        auth: Auth,
        headers: &[(&'static str, &'static str)],
    ) -> std::result::Result<Option<String>, Kind> {
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            given.append(*name, HeaderValue::from_static(value));
        }
        bearer(&given, auth).map(|found| found.map(str::to_owned)).map_err(|error| error.kind())
    }

    #[test]
    fn a_bearer_is_found_where_it_is() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        for (headers, expected) in [
            (&[][..], Ok(None)),
            (&[("authorization", "Bearer t")], some("t")),
            (&[("authorization", "bEARER  t ")], some("t")),
            (&[("x-api-key", "k")], some("k")),
            (&[("authorization", "Bearer t"), ("x-api-key", "k")], some("t")),
            (&[("authorization", "Basic t")], Err(Kind::Unauthenticated)),
            (&[("authorization", "Bearer")], Err(Kind::Unauthenticated)),
            (&[("authorization", "t"), ("x-api-key", "k")], Err(Kind::Unauthenticated)),
            (&[("authorization", "Bearer t"), ("authorization", "Bearer t")], Err(Kind::InvalidArgument)),
            (&[("authorization", "Bearer t"), ("authorization", "Basic u")], Err(Kind::InvalidArgument)),
            (&[("x-api-key", "k"), ("x-api-key", "l")], Err(Kind::InvalidArgument)),
        ] {
            assert_eq!(found(Auth::Required, headers), expected, "{headers:?}");
        }
        assert_eq!(found(Auth::None, &[("authorization", "Basic t")]), Ok(None));
        assert_eq!(found(Auth::None, &[("authorization", "Bearer t")]), some("t"));
    }

    #[test]
    fn only_health_is_told_to_nobody() {
        let is_health = |method: Method, path: &'static str| is_health(&method, &Uri::from_static(path));
        for path in HEALTH {
            assert!(
                is_health(Method::GET, path)
                    && is_health(Method::HEAD, path)
                    && !is_health(Method::POST, path)
            );
        }
        for path in HEALTH_OVER_GRPC {
            assert!(is_health(Method::POST, path) && !is_health(Method::GET, path));
        }
        for path in ["/", "/v2", "/v2/health", "/v2/health/live/", "/v2/health//live", "/V2/health/live"] {
            assert!(!is_health(Method::GET, path), "{path}");
        }
    }

    /// What this node is told of who asks, where all of a request's extensions and headers are these.
    struct Asked(Router);

    impl Asked {
        async fn of(auth: &str) -> (Asked, String, tempfile::TempDir) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("quern.yaml"), format!("auth: {auth}\n")).unwrap();
            let node = Node::open(Settings::load(folder.path(), &[]).unwrap()).await.unwrap();
            let new = NewKeyRequest { name: "ann".to_owned(), expires: None };
            let key = node.keys.make(&Caller::owner(), &new).await.unwrap().key;
            let shown = |Who(who): Who| async move { who.name().to_owned() };
            let router = Router::new().fallback(shown).layer(from_fn_with_state(node, settle));
            (Asked(router), key, folder)
        }

        async fn who(&self, peer: Option<Peer>, bearer: Option<&str>) -> String {
            let mut request = Request::get("/");
            if let Some(bearer) = bearer {
                request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
            }
            let mut request = request.body(Body::empty()).unwrap();
            if let Some(peer) = peer {
                request.extensions_mut().insert(Arc::new(peer));
            }
            self.ask(request).await
        }

        async fn ask(&self, request: Request) -> String {
            let reply = self.0.clone().oneshot(request).await.unwrap();
            if reply.status() != StatusCode::OK {
                return reply.status().as_u16().to_string();
            }
            let body = axum::body::to_bytes(reply.into_body(), 1_000).await.unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        }
    }

    fn local(user: u32) -> Option<Peer> {
        Some(Peer { address: Some([127, 0, 0, 1].into()), local: Some(user), certificate: None })
    }

    fn certified(names: &[&str]) -> Option<Peer> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let named = Arc::new(Principal::new(Proof::Certificate(names)));
        Some(Peer { address: Some([127, 0, 0, 1].into()), local: None, certificate: Some(named) })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_asks_is_settled_in_order() {
        let ours = std::fs::metadata("/proc/self").unwrap().uid();
        let (asked, key, _folder) = Asked::of("required").await;
        let names = ["node-7.corp", "spiffe://corp/checkout"];
        for (peer, bearer, expected) in [
            (None, None, "401"),
            (None, Some(&*key), "key:ann"),
            (None, Some("a.b.c"), "401"),
            (local(ROOT), None, "owner"),
            (local(ours), Some("a.b.c"), "owner"),
            (local(ours.wrapping_add(7)), None, "401"),
            (certified(&names), None, "spiffe://corp/checkout"),
            (certified(&names[..1]), None, "dns:node-7.corp"),
            (certified(&names), Some(&*key), "key:ann"),
            (certified(&names), Some("a.b.c"), "401"),
        ] {
            assert_eq!(asked.who(peer.clone(), bearer).await, expected, "{peer:?} {}", bearer.is_some());
        }
        // A command in this process.
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        request.extensions_mut().insert(Arc::new(Principal::new(Proof::Owner)));
        assert_eq!(asked.ask(request).await, "owner");

        let (asked, key, _folder) = Asked::of("none").await;
        for (peer, bearer, expected) in [
            (None, None, "anyone"),
            (None, Some(&*key), "anyone"),
            (None, Some("a.b.c"), "401"),
            (certified(&names), None, "anyone"),
            (local(ROOT), None, "owner"),
        ] {
            assert_eq!(asked.who(peer.clone(), bearer).await, expected, "{peer:?} {}", bearer.is_some());
        }
    }
}
