//! Who asks a server, and until when?

use std::time::{Duration, Instant};

use bytes::Bytes;
use feature_defs::{Connection, OAuth, Server};
use reqwest::{Client, RequestBuilder, Url};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::answer::{ANSWER_BYTES_MAX, Refused, ask, ask_within};
use crate::client::{client, server_at};
use crate::told::told;

/// How long before its end a token is no longer used, and how long one holds of which no end is said.
const MARGIN: Duration = Duration::from_secs(60);
const HOLDS: Duration = Duration::from_secs(300);
const HOLDS_MAX: Duration = Duration::from_secs(86_400);

/// A server that is asked by somebody, until what proves them has to be asked for once more. Its connections are kept
/// between requests.
#[derive(Clone)]
pub struct Session {
    client: Client,
    who: Who,
    until: Instant,
    secrets: Vec<String>,
}

/// Neither tokens nor keys end up in logs.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a session")
    }
}

#[derive(Clone)]
enum Who {
    Nobody,
    User { name: String, password: String },
    Token(String),
}

/// Where tokens come from, by the grant of client credentials of OAuth 2.0.
pub struct Tokens<'a> {
    /// What its definitions say of them.
    pub oauth: &'a OAuth,
    /// Where they are asked for unless it is said.
    pub own: Option<(&'a Server, Url)>,
    /// What they are asked for unless it is said.
    pub scope: Option<&'a str>,
}

/// A token.
#[derive(Clone)]
pub struct Token {
    /// What proves who asks.
    pub text: String,
    /// How long it is used.
    pub holds: Duration,
}

impl Session {
    /// Begins to ask `server`, to which `connection` leads, as its credentials say.
    ///
    /// # Errors
    /// Secrets that are told nowhere; whoever gives tokens refuses.
    pub async fn begin(
        connection: &Connection,
        server: &Server,
        tokens: &Tokens<'_>,
    ) -> Result<Session, Refused> {
        let client = client(server).map_err(|error| Refused::odd(error.to_string()))?;
        let token = Token::of(connection, tokens).await?;
        let holds = token.as_ref().map_or(HOLDS, |token| token.holds);
        let told = |key: &str| secret(connection, key);
        let given = match token {
            Some(token) => Some(token.text),
            None => told("token")?,
        };
        let (user, password, key) = (told("username")?, told("password")?, told("client_secret")?);
        let secrets = [&given, &password, &key].into_iter().flatten().cloned().collect();
        let who = match (given, user) {
            (Some(token), _) => Who::Token(token),
            (None, Some(name)) => Who::User { name, password: password.unwrap_or_default() },
            (None, None) => Who::Nobody,
        };
        Ok(Session { client, who, until: Instant::now() + holds, secrets })
    }

    /// Whether it may still be asked by who began.
    pub fn holds(&self) -> bool {
        self.until > Instant::now()
    }

    /// A request of who asks.
    pub fn get(&self, url: Url) -> RequestBuilder {
        let request = self.client.get(url);
        match &self.who {
            Who::Nobody => request,
            Who::User { name, password } => request.basic_auth(name, Some(password)),
            Who::Token(token) => request.bearer_auth(token),
        }
    }

    /// What is answered.
    ///
    /// # Errors
    /// As [`ask`].
    pub async fn said(&self, request: RequestBuilder) -> Result<Bytes, Refused> {
        self.said_within(request, ANSWER_BYTES_MAX).await
    }

    /// The same of an answer that has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`ask`], and a longer answer.
    pub async fn said_within(&self, request: RequestBuilder, bytes_max: usize) -> Result<Bytes, Refused> {
        ask_within(request, &self.secrets, bytes_max).await
    }
}

impl Token {
    /// A token for who asks by `connection`; none where they prove it otherwise.
    ///
    /// # Errors
    /// Secrets that are told nowhere; whoever gives tokens refuses.
    pub async fn of(connection: &Connection, from: &Tokens<'_>) -> Result<Option<Token>, Refused> {
        let Some(key) = secret(connection, "client_secret")? else { return Ok(None) };
        let odd = |why: String| Refused::odd(format!("`token_url` {why}"));
        let (server, url) = match (&from.oauth.token_url, &from.own) {
            (Some(url), _) => {
                let (server, url) = server_at(url).map_err(odd)?;
                // A slash at the end is another path to some.
                let url = url.as_str().trim_end_matches('/').parse();
                (server, url.map_err(|_| odd("is no URL".to_owned()))?)
            }
            (None, Some((server, url))) => ((*server).clone(), url.clone()),
            (None, None) => return Err(odd("is missing, where tokens are asked for".to_owned())),
        };
        let client = client(&server).map_err(|error| odd(error.to_string()))?;
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        form.extend(from.oauth.scope.as_deref().or(from.scope).map(|scope| ("scope", scope.to_owned())));
        form.extend(secret(connection, "client_id")?.map(|id| ("client_id", id)));
        form.push(("client_secret", key.clone()));
        let form = Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(form);
        let said: Value = serde_json::from_slice(&ask(request, &[key]).await?).unwrap_or_default();
        let text = said["access_token"].as_str();
        let text =
            text.ok_or_else(|| Refused::odd("it does not answer as who gives tokens does"))?.to_owned();
        let holds = said["expires_in"].as_u64().map_or(HOLDS, Duration::from_secs);
        Ok(Some(Token { text, holds: holds.saturating_sub(MARGIN).min(HOLDS_MAX) }))
    }
}

fn secret(connection: &Connection, key: &str) -> Result<Option<String>, Refused> {
    let found = connection.storage.credentials.get(key).map(|secret| told(key, secret)).transpose();
    found.map_err(|why| Refused::odd(format!("connection `{}` {why}", connection.name)))
}
