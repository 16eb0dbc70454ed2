//! May a web page ask this?
//!
//! A browser sends what any page tells it to, to the server on the same laptop as well, and without being asked first
//! where the body is called plain text. It says so, however: `Origin` and `Sec-Fetch-Site` name the page that asks. A
//! page whose own name was made to lead here (DNS rebinding) is of the same origin to its browser; its requests name
//! it in `Host`. So all three are looked at before anything else, and what changes something must be called JSON, which
//! a page cannot do without asking first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use quern_server::Node;
use quern_wire::Code;

use super::error::{ApiError, edge};
use super::http::Body;
use super::session::{CALLBACK, SITE};
use crate::error::Error;

/// How it is asked: by a link, a form or a redirect in the place of a page, or from within one.
const MODE: &str = "sec-fetch-mode";

/// Answers what a web page of elsewhere asks with a refusal.
pub(super) async fn guard(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return edge(StatusCode::BAD_REQUEST, Code::InvalidArgument, "a request has one `Host`".to_owned());
    }
    let host = host(request.uri(), request.headers());
    let refused = unknown(&hosts, host)
        .or_else(|| foreign(host, request.headers()).filter(|_| !is_sent_back(&request)));
    match refused {
        None => next.run(request).await,
        Some(error) => edge(StatusCode::FORBIDDEN, Code::Refused, error),
    }
}

/// The host that the client meant, with its port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = || headers.get(header::HOST).map(|host| host.to_str().unwrap_or(""));
    uri.authority().map(|authority| authority.as_str()).or_else(header)
}

/// Whether an issuer of tokens sends somebody back who signs in: the one thing that a page of elsewhere leads to, where
/// a secret tells whether they had been sent there from here.
fn is_sent_back(request: &Request) -> bool {
    let is_page = request.headers().get(MODE).is_some_and(|mode| mode == "navigate");
    is_page && request.method() == Method::GET && request.uri().path() == CALLBACK
}

/// What is wrong with the host, if anything. Without `hosts` any one is known.
fn unknown(hosts: &[String], host: Option<&str>) -> Option<String> {
    // No browser leaves the host out.
    let host = host.filter(|host| !is_known(hosts, host))?;
    Some(format!("this server is not called {host:?}; `hosts` in quern.yaml names what it is called"))
}

/// What is wrong with the page, if anything.
fn foreign(host: Option<&str>, headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(origin) = text(header::ORIGIN)
        && !host.is_some_and(|host| is_of(origin, host))
    {
        return Some(format!("requests of web pages of {origin:?} are not answered"));
    }
    (text(SITE).is_some_and(|site| site.eq_ignore_ascii_case("cross-site")))
        .then(|| "requests of web pages of other sites are not answered".to_owned())
}

fn is_known(hosts: &[String], host: &str) -> bool {
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        // No page has an address for its name but one of that very server; probes and scrapers ask by address.
        Ok(address) => address.is_loopback() || hosts != ["localhost"],
        Err(_) => hosts.is_empty() || hosts.contains(&name),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether an origin, such as `http://localhost:7400`, is `host`.
fn is_of(origin: &str, host: &str) -> bool {
    let (page, default) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, ":80"),
        Some(("https", rest)) => (rest, ":443"),
        _ => return false,
    };
    let short = |name: &str| name.strip_suffix(default).unwrap_or(name).to_ascii_lowercase();
    short(page) == short(host)
}

/// The body of a request that changes something; it must be called JSON.
pub(super) struct Told(pub Bytes);

impl FromRequest<Arc<Node>> for Told {
    type Rejection = ApiError;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        Body::from_request(request, node).await.map(|Body(body)| Told(body))
    }
}

/// Refuses what is not called JSON.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let kind = given.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let is_json = |kind: &str| {
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    };
    if kind.as_deref().is_some_and(is_json) {
        return Ok(());
    }
    let found = given.map_or_else(|| "none".to_owned(), |kind| format!("{kind:?}"));
    Err(Error::invalid(format!(
        "a request that changes something needs the header `content-type: application/json`; found {found}"
    )))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const LAPTOP: [&str; 1] = ["localhost"];

    fn check(hosts: &[&str], host: Option<&'static str>, headers: &[(&'static str, &'static str)]) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut given = HeaderMap::new();
        for (name, value) in headers {
            given.insert(*name, HeaderValue::from_static(value));
        }
        unknown(&hosts, host).or_else(|| foreign(host, &given)).is_none()
    }

    #[test]
    fn a_laptop_answers_to_its_own_names() {
        for host in [
            "localhost",
            "LOCALHOST:7400",
            "localhost.:1",
            "127.0.0.1:7400",
            "127.0.0.2",
            "[::1]:7400",
            "[::1]",
        ] {
            assert!(check(&LAPTOP, Some(host), &[]), "{host}");
        }
        for host in
            ["evil.example:7400", "localhost.evil.example", "0.0.0.0:7400", "10.0.0.1", "", "localhost:evil"]
        {
            assert!(!check(&LAPTOP, Some(host), &[]), "{host}");
        }
        assert!(check(&LAPTOP, None, &[]), "HTTP/1.0 without a host");
        assert!(
            check(&[], Some("features.internal"), &[]),
            "elsewhere any name will do until some are named"
        );
        assert!(check(&["features.internal"], Some("Features.internal:80"), &[]));
        assert!(check(&["features.internal"], Some("10.0.0.1:7400"), &[]), "probes ask by address");
        assert!(!check(&["features.internal"], Some("localhost"), &[]));
    }

    #[test]
    fn a_page_of_elsewhere_is_not_answered() {
        let host = Some("127.0.0.1:7400");
        for (headers, answered) in [
            (&[("origin", "http://127.0.0.1:7400")][..], true),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "http://127.0.0.1:3000")], false),
            (&[("origin", "http://localhost:7400")], false),
            (&[("origin", "null")], false),
            (&[("origin", "file://")], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:7400")], false),
        ] {
            assert_eq!(check(&LAPTOP, host, headers), answered, "{headers:?}");
        }
        assert!(check(&[], Some("quern.example"), &[("origin", "https://quern.example:443")]));
        assert!(!check(&[], None, &[("origin", "http://quern.example")]));
    }

    #[test]
    fn who_signs_in_is_sent_back_to_one_place() {
        let is_sent_back = |method: &str, path: &str, mode: &str| {
            let request = Request::builder().method(method).uri(path).header(SITE, "cross-site");
            is_sent_back(&request.header(MODE, mode).body(axum::body::Body::empty()).expect("a request"))
        };
        assert!(is_sent_back("GET", "/login/callback?code=a&state=b", "navigate"));
        for (method, path, mode) in [
            ("POST", "/login/callback", "navigate"),
            ("GET", "/login/callback", "no-cors"),
            ("GET", "/login/callback", "cors"),
            ("GET", "/login", "navigate"),
            ("GET", "/login/callback/", "navigate"),
            ("GET", "/v1/me?/login/callback", "navigate"),
        ] {
            assert!(!is_sent_back(method, path, mode), "{method} {path} {mode}");
        }
    }

    #[test]
    fn what_changes_something_is_called_json() {
        for (kind, taken) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/vnd.quern+json"), true),
            (Some("text/plain"), false),
            (Some("text/plain;application/json"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("multipart/form-data; boundary=x"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            assert_eq!(check_type(&headers).is_ok(), taken, "{kind:?}");
        }
    }
}
