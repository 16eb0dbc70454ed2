//! What does a browser keep of a sign-in, and when does it count?
//!
//! Over https the names begin with `__Host-`: no other host, no path and nobody in the clear has set such a cookie.

use axum::http::header::{COOKIE, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use quern_server::Settings;

use super::error::{Error, Result};
use super::memory::is_grpc;

/// Where people are sent to the issuer, where they come back, and where they leave.
pub(super) const LOGIN: &str = "/login";
pub(super) const CALLBACK: &str = "/login/callback";
pub(super) const LOGOUT: &str = "/logout";
/// Of which site the page is that asks, as its browser says.
pub(super) const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Of name and value together, a browser keeps no more (RFC 6265bis).
pub(super) const COOKIE_BYTES_MAX: usize = 4_096;
/// For how long somebody may be away, with the issuer.
const BEGUN_SECONDS: i64 = 600;

/// Whether whoever asks this need not be known: they are about to be, or no longer.
pub(super) fn is_open(method: &Method, uri: &Uri) -> bool {
    match *method {
        Method::GET => [LOGIN, CALLBACK].contains(&uri.path()),
        Method::POST => uri.path() == LOGOUT,
        _ => false,
    }
}

/// The cookies of a server that is reached like this.
pub(super) struct Jar {
    session: &'static str,
    begun: &'static str,
    secure: &'static str,
}

impl Jar {
    /// Those of a server with these settings, where browsers reach it.
    pub(super) fn of(settings: &Settings) -> Option<Jar> {
        Some(match settings.public_url.as_ref()?.starts_with("https:") {
            true => Jar { session: "__Host-quern", begun: "__Host-quern-login", secure: "; Secure" },
            // On this machine alone: not every browser keeps a secure cookie of `http://localhost`.
            false => Jar { session: "quern", begun: "quern-login", secure: "" },
        })
    }

    /// Keeps what ends a sign-in that has begun; the issuer's page, of another site, leads back to where it is wanted.
    pub(super) fn keep_begun(&self, value: &str) -> Result<HeaderValue> {
        self.set(self.begun, value, ("Lax", BEGUN_SECONDS))
    }

    /// What a browser has kept so.
    pub(super) fn begun<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        find(headers, self.begun)
    }

    pub(super) fn drop_begun(&self) -> Result<HeaderValue> {
        self.set(self.begun, "", ("Lax", 0))
    }

    /// Keeps who has signed in, for so many seconds; none where it is more than a browser keeps.
    pub(super) fn keep_session(&self, token: &str, seconds: i64) -> Result<Option<HeaderValue>> {
        match self.session.len() + token.len() > COOKIE_BYTES_MAX {
            true => Ok(None),
            false => self.set(self.session, token, ("Strict", seconds)).map(Some),
        }
    }

    pub(super) fn drop_session(&self) -> Result<HeaderValue> {
        self.set(self.session, "", ("Strict", 0))
    }

    fn set(&self, name: &str, value: &str, (same_site, seconds): (&str, i64)) -> Result<HeaderValue> {
        let secure = self.secure;
        let text =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}");
        HeaderValue::try_from(text).map_err(|_| Error::broken("a cookie has characters that none may have"))
    }
}

/// The ID token of who has signed in, by the cookie of their browser. Programs that speak gRPC have none, and whoever
/// comes back from the issuer signs in anew.
///
/// # Errors
/// `Kind::Forbidden` where a page of elsewhere may have sent it.
pub(super) fn shown<'p>(settings: &Settings, parts: &'p Parts) -> Result<Option<&'p str>> {
    let (Some(jar), Some(origin)) = (Jar::of(settings), &settings.public_url) else { return Ok(None) };
    let path = parts.uri.path();
    let is_apart = is_grpc(&parts.headers) || is_service(path) || path == CALLBACK;
    if settings.oidc_client_id.is_none() || is_apart {
        return Ok(None);
    }
    match find(&parts.headers, jar.session) {
        Some(token) => check_page(&parts.method, &parts.headers, origin).map(|()| Some(token)),
        None => Ok(None),
    }
}

/// Whether a path is that of a gRPC service, whatever its messages are called.
fn is_service(path: &str) -> bool {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    service.ends_with("Service") && service.contains('.')
}

/// Refuses a page of elsewhere: a browser adds the cookie to whatever a page sends. What changes something needs a
/// proof that it comes from a page of this server's own; what only reads, that nothing says the contrary.
fn check_page(method: &Method, headers: &HeaderMap, origin: &str) -> Result<()> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let is_ours = match (text(SITE), text(ORIGIN)) {
        (Some("same-origin"), _) => true,
        (Some("none"), _) => reads,
        (Some(_), _) => false,
        (None, Some(given)) => given == origin,
        (None, None) => reads,
    };
    match is_ours {
        true => Ok(()),
        false => Err(Error::forbidden(format!(
            "who has signed in by a browser is asked by pages of {origin} alone: `Sec-Fetch-Site: same-origin`, or \
             that as `Origin`"
        ))),
    }
}

/// The value of a cookie. HTTP/2 may bring them in several headers.
fn find<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_changes_something_proves_whose_page_it_is() {
        const OURS: &str = "https://quern.corp";
        let site = |site| ("sec-fetch-site", site);
        for (given, reads, changes) in [
            (&[][..], true, false),
            (&[site("same-origin")], true, true),
            (&[site("none")], true, false),
            (&[site("same-site")], false, false),
            (&[site("cross-site")], false, false),
            (&[site("cross-site"), ("origin", OURS)], false, false),
            (&[("origin", OURS)], true, true),
            (&[("origin", "http://quern.corp")], false, false),
            (&[("origin", "https://evil.example")], false, false),
            (&[("origin", "null")], false, false),
        ] {
            let check = |method| check_page(&method, &headers(given), OURS).is_ok();
            assert_eq!((check(Method::GET), check(Method::HEAD)), (reads, reads), "{given:?}");
            assert_eq!((check(Method::POST), check(Method::DELETE)), (changes, changes), "{given:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let given = headers(&[("cookie", "a=1; quern-login=x.y;quern=t"), ("cookie", "b=2; c=3=4")]);
        for (name, value) in
            [("quern", Some("t")), ("quern-login", Some("x.y")), ("c", Some("3=4")), ("uern", None)]
        {
            assert_eq!(find(&given, name), value, "{name}");
        }
    }

    #[test]
    fn services_are_known_by_their_paths() {
        for path in
            ["/inference.GRPCInferenceService/ModelInfer", "/arrow.flight.protocol.FlightService/DoPut"]
        {
            assert!(is_service(path), "{path}");
        }
        for path in ["/openapi.json", "/v1/me", "/", "/v2/models/a.Service/infer"] {
            assert!(!is_service(path), "{path}");
        }
    }
}
