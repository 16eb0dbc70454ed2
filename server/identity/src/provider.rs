//! Where does an issuer want people sent who sign in, and where does it give their tokens?

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::header::ACCEPT;
use reqwest::{Client, Url};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use url::form_urlencoded::byte_serialize;

use crate::discovery::{Discovered, discover};
use crate::http::said;
use crate::refused::{Error, Result};

const SECOND_US: i64 = 1_000_000;
/// After so long it is asked again what it says of itself ...
const REFRESH_US: i64 = 600 * SECOND_US;
/// ... and after so long where it did not answer.
const PAUSE_US: i64 = 5 * SECOND_US;
/// Whoever comes back brings what costs a question to the issuer: so many at a time.
const EXCHANGES_MAX: usize = 16;
/// A reason that somebody else wrote, in a log.
const CAUSE_CHARS_MAX: usize = 200;

/// Who this server is to an issuer, which people come back from to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The issuer.
    pub issuer: String,
    /// Its name for this server.
    pub client_id: String,
    /// The file of the secret that the two share, where they do.
    pub client_secret: Option<PathBuf>,
    /// What is asked for, with spaces between.
    pub scopes: String,
    /// Where people come back to.
    pub redirect_uri: String,
}

/// An issuer that people are sent to.
pub(crate) struct Provider {
    pub(crate) registration: Registration,
    client: Client,
    known: Mutex<Known>,
    exchanging: Semaphore,
}

#[derive(Default)]
struct Known {
    endpoints: Option<Arc<Endpoints>>,
    /// When it was asked last.
    asked_us: Option<i64>,
    /// Why it did not answer.
    cause: String,
}

/// Where it is asked for what.
#[derive(Debug)]
pub(crate) struct Endpoints {
    authorization: Url,
    token: Url,
    secret_in: SecretIn,
    /// Whether it names itself when it sends somebody back (RFC 9207).
    pub(crate) names_itself: bool,
}

/// Where it wants the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretIn {
    Header,
    Body,
}

impl Endpoints {
    fn of(discovered: &Discovered) -> std::result::Result<Endpoints, String> {
        let ways = discovered.list("token_endpoint_auth_methods_supported");
        let ways = ways.unwrap_or_else(|| vec!["client_secret_basic"]);
        let takes = |way| ways.contains(&way);
        Ok(Endpoints {
            authorization: discovered.endpoint("authorization_endpoint")?,
            token: discovered.endpoint("token_endpoint")?,
            secret_in: match !takes("client_secret_basic") && takes("client_secret_post") {
                true => SecretIn::Body,
                false => SecretIn::Header,
            },
            names_itself: discovered.says("authorization_response_iss_parameter_supported"),
        })
    }

    /// Where somebody is sent with these parameters.
    pub(crate) fn authorization(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = self.authorization.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url.into()
    }
}

impl Provider {
    /// # Errors
    /// A secret that cannot be read.
    pub(crate) fn new(registration: Registration, client: Client) -> Result<Provider> {
        if let Some(path) = &registration.client_secret
            && let Err(error) = std::fs::read_to_string(path)
        {
            return Err(Error::invalid(format!("`oidc_client_secret`: {}: {error}", path.display())));
        }
        let exchanging = Semaphore::new(EXCHANGES_MAX);
        Ok(Provider { registration, client, known: Mutex::default(), exchanging })
    }

    /// Where it is asked for what.
    ///
    /// # Errors
    /// `Kind::Unavailable` where it has not said so yet.
    pub(crate) async fn endpoints(&self, now_us: i64) -> Result<Arc<Endpoints>> {
        let mut known = self.known.lock().await;
        let again_us = if known.endpoints.is_some() { REFRESH_US } else { PAUSE_US };
        if known.asked_us.is_none_or(|asked_us| !(-again_us..again_us).contains(&(now_us - asked_us))) {
            let issuer = &self.registration.issuer;
            let discovered = discover(&self.client, issuer).await.and_then(|said| Endpoints::of(&said));
            known.asked_us = Some(now_us);
            match discovered {
                Ok(endpoints) => known.endpoints = Some(Arc::new(endpoints)),
                Err(cause) => {
                    tracing::warn!(issuer, cause, "the issuer that people sign in at does not say how");
                    known.cause = cause;
                }
            }
        }
        known.endpoints.clone().ok_or_else(|| silent(known.cause.clone()))
    }

    /// The ID token for a code that it gave to whoever has `verifier`.
    ///
    /// # Errors
    /// `Kind::InvalidArgument` where the code does not hold; `Kind::Unavailable` where it gives none.
    pub(crate) async fn exchange(&self, endpoints: &Endpoints, code: &str, verifier: &str) -> Result<String> {
        let Ok(_turn) = self.exchanging.try_acquire() else {
            return Err(Error::overloaded("too many are signing in just now: try again"));
        };
        let Registration { client_id, client_secret, redirect_uri, .. } = &self.registration;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut request = self.client.post(endpoints.token.clone()).header(ACCEPT, "application/json");
        let secret = match client_secret {
            // Read each time, so that a new one wants no restart.
            Some(path) => Some(
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| silent(format!("`oidc_client_secret`: {}: {error}", path.display())))?,
            ),
            None => None,
        };
        match (secret.as_deref().map(str::trim_end), endpoints.secret_in) {
            (None, _) => form.push(("client_id", client_id)),
            (Some(secret), SecretIn::Body) => {
                form.extend([("client_id", client_id.as_str()), ("client_secret", secret)]);
            }
            // RFC 6749, 2.3.1: written as in a form.
            (Some(secret), SecretIn::Header) => {
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                request = request.basic_auth(encoded(client_id), Some(encoded(secret)));
            }
        }
        let (status, body) = said(request.form(&form)).await.map_err(silent)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        match (status.is_success(), told("id_token"), told("error")) {
            (true, "", _) => Err(silent("its reply has no `id_token`: is `openid` among `oidc_scopes`?")),
            (true, token, _) => Ok(token.to_owned()),
            (false, _, "invalid_grant") => {
                Err(Error::invalid("this sign-in is over already: begin again at /login"))
            }
            (false, _, error) => {
                let cause = format!("{}: {error} {}", status.as_u16(), told("error_description"));
                Err(silent(
                    cause.chars().take(CAUSE_CHARS_MAX).collect::<String>().escape_debug().to_string(),
                ))
            }
        }
    }
}

/// What is told where it does not answer; the cause is for the log.
fn silent(cause: impl Into<String>) -> Error {
    let told = "the issuer that people sign in at gives no answer to this server, whose log says why";
    Error::unavailable(told).because(cause.into())
}
