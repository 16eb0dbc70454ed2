//! What does an issuer say over HTTP? Asked within bounds, and nobody else is asked in its place.

use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, RequestBuilder, StatusCode, Url};

use crate::refused::{Error, Result};

/// What an issuer says is a few kilobytes.
const REPLY_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// All of it, redirects among it.
const TIMEOUT: Duration = Duration::from_secs(5);
const REDIRECTS_MAX: usize = 3;

/// Asks issuers.
pub(crate) fn client() -> Result<Client> {
    let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
    let client = client.redirect(Policy::custom(redirect)).build();
    client.map_err(|error| Error::internal("setting up how issuers of tokens are asked", error))
}

/// A redirect leads elsewhere on the same host, or nowhere.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last();
    let is_home = from.is_some_and(|from| from.origin() == attempt.url().origin());
    match is_home && attempt.previous().len() <= REDIRECTS_MAX {
        true => attempt.follow(),
        false => attempt.error("it redirects elsewhere, or too often"),
    }
}

/// What is at `url`.
pub(crate) async fn get(client: &Client, url: Url) -> std::result::Result<Vec<u8>, String> {
    let (status, body) = said(client.get(url.clone())).await?;
    match status.is_success() {
        true => Ok(body),
        false => Err(format!("{url} answers {}", status.as_u16())),
    }
}

/// What is said to this request, whatever that is.
pub(crate) async fn said(request: RequestBuilder) -> std::result::Result<(StatusCode, Vec<u8>), String> {
    let told = |error: reqwest::Error| {
        // The whole chain: the outermost says only that it failed.
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    };
    let mut reply = request.send().await.map_err(told)?;
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > REPLY_BYTES_MAX {
            return Err(format!("{} says more than {REPLY_BYTES_MAX} bytes", reply.url()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((reply.status(), body))
}

/// A URL that is believed: over TLS, or on this machine.
pub(crate) fn believed(text: &str) -> std::result::Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    let is_here = match url.host() {
        Some(host) => {
            let name = host.to_string();
            let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("a URL with a user or a password in it is not asked".to_owned())
        }
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => {
            Err(format!("`{text}` must begin with https://, since whoever is asked decides whom to believe"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_and_this_machine_are_believed() {
        for url in
            ["https://sso.corp", "https://sso.corp:8443/realms/a", "http://127.0.0.1:1/", "http://[::1]:1"]
        {
            assert!(believed(url).is_ok(), "{url}");
        }
        for url in [
            "http://sso.corp",
            "http://127.0.0.1.evil.example",
            "https://a:b@sso.corp",
            "file:///etc/passwd",
            "sso",
        ] {
            assert!(believed(url).is_err(), "{url}");
        }
    }
}
