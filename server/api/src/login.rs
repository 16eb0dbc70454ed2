//! How does a person sign in by a browser, and out again?
//!
//! `GET /login` sends them to the issuer, and `GET /login/callback` takes them back. They go on by a page that leads on
//! by itself, not by a redirect: that one would be of the site where the way began to their browser, which so neither
//! brought a `SameSite=Strict` cookie along nor got past [`browser`](super::browser). Nothing of it stays here: any
//! server with the same settings goes on where another one has begun.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quern_base::clock::now_us;
use quern_identity::sign_in::{SignIn, SignedIn, parameters};
use quern_server::Node;

use super::error::{ApiResult, Error};
use super::http::no_such_path;
use super::session::{CALLBACK, COOKIE_BYTES_MAX, Jar};
use super::who::{Who, note};
use crate::error::Result;

/// A place that people are led to has to fit into a cookie, and into the page that leads there.
const TO_BYTES_MAX: usize = 1_024;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/login", get(login))
        .route("/login/callback", get(callback))
        .route("/logout", post(logout))
}

/// How people sign in here, and what keeps it in their browser; none where nobody does.
fn way(node: &Node) -> Option<(&SignIn, Jar)> {
    Some((node.identity.sign_in.as_ref()?, Jar::of(&node.settings)?))
}

async fn login(State(node): State<Arc<Node>>, uri: Uri) -> ApiResult<Response> {
    let Some((sign_in, jar)) = way(&node) else { return Ok(no_such_path(uri).await) };
    let asked = parameters(uri.query().unwrap_or_default())?;
    let to = asked.get("to").map_or("/", String::as_str);
    check_to(to)?;
    let begun = sign_in.begin(now_us()).await?;
    let kept = jar.keep_begun(&format!("{}.{}", begun.secret, URL_SAFE_NO_PAD.encode(to)))?;
    let location = HeaderValue::try_from(begun.location).map_err(|error| Error::broken(error.to_string()))?;
    let headers = [(header::LOCATION, location), (header::SET_COOKIE, kept), no_store()];
    Ok((StatusCode::FOUND, headers).into_response())
}

async fn callback(
    State(node): State<Arc<Node>>,
    Who(who): Who,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let Some((sign_in, jar)) = way(&node) else { return Ok(no_such_path(uri).await) };
    match end(sign_in, &jar, &uri, &headers).await {
        Ok((signed_in, to)) => {
            tracing::info!(principal = signed_in.principal.name(), id = who.request_id, "somebody signed in");
            Ok(signed_in_reply(&jar, &signed_in, &to)?)
        }
        Err(error) => {
            tracing::info!(cause = error.logged(), id = who.request_id, "a sign-in failed");
            note(&node, &error, (CALLBACK, who.request_id), None);
            Err(error.into())
        }
    }
}

/// Who has signed in, and where they go on.
async fn end(sign_in: &SignIn, jar: &Jar, uri: &Uri, headers: &HeaderMap) -> Result<(SignedIn, String)> {
    let reply = parameters(uri.query().unwrap_or_default())?;
    let Some((secret, to)) = jar.begun(headers).and_then(|kept| kept.split_once('.')) else {
        return Err(Error::invalid(
            "no sign-in is under way in this browser, or for more than ten minutes: begin again at /login",
        ));
    };
    let to = URL_SAFE_NO_PAD.decode(to).ok().and_then(|to| String::from_utf8(to).ok()).unwrap_or_default();
    check_to(&to)?;
    Ok((sign_in.end(secret, &reply, now_us()).await?, to))
}

/// The page that leads on, with the cookie that shows who they are from now on.
fn signed_in_reply(jar: &Jar, signed_in: &SignedIn, to: &str) -> Result<Response> {
    let seconds = (signed_in.until_us - now_us()) / 1_000_000;
    let kept = jar.keep_session(&signed_in.token, seconds)?.ok_or_else(|| {
        Error::too_large(format!(
            "your ID token has {} bytes, and a browser keeps {COOKIE_BYTES_MAX} in a cookie: have the issuer leave \
             claims out of it that no role names, as groups, or ask for fewer `oidc_scopes`",
            signed_in.token.len()
        ))
    })?;
    // `to` has none of the characters that end an attribute: see `check_to`.
    let to = to.replace('&', "&amp;");
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url={to}\">\
         <title>Signed in</title><p><a href=\"{to}\">Go on</a></p>\n"
    );
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut reply = (fixed, [no_store()], page).into_response();
    reply.headers_mut().append(header::SET_COOKIE, kept);
    reply.headers_mut().append(header::SET_COOKIE, jar.drop_begun()?);
    Ok(reply)
}

async fn logout(State(node): State<Arc<Node>>, uri: Uri) -> ApiResult<Response> {
    let Some((_, jar)) = way(&node) else { return Ok(no_such_path(uri).await) };
    let headers = [(header::SET_COOKIE, jar.drop_session()?), no_store()];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

fn no_store() -> (header::HeaderName, HeaderValue) {
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

/// Refuses what is no path of this server: a browser takes `//` and `/\` for another one.
fn check_to(to: &str) -> Result<()> {
    let is_path = to.starts_with('/') && !to[1..].starts_with(['/', '\\']);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\`".contains(&byte);
    match is_path && to.len() <= TO_BYTES_MAX && to.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "`to` is a path of this server, such as `/`, of at most {TO_BYTES_MAX} bytes, encoded as in a URL"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_led_to_places_of_this_server_alone() {
        for to in ["/", "/models?name=a&b=%20c#d", "/a//b", "/@evil.example", "/%2f/evil.example", "/..//a"] {
            assert!(check_to(to).is_ok(), "{to}");
        }
        for to in [
            "",
            "models",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/\t/evil.example",
            "/a b",
            "/\"><script>",
            "/a'b",
            "/ä",
            &format!("/{}", "a".repeat(TO_BYTES_MAX)),
        ] {
            assert!(check_to(to).is_err(), "{to}");
        }
    }
}
