//! Where does a catalog say that a table of Iceberg is? Asked over the REST protocol of Iceberg's catalogs, as its own
//! clients do. <https://iceberg.apache.org/rest-catalog-spec/>

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use feature_defs::{Catalog, Cataloged, Connection, DefError, Loc, Reach, Server};
use parking_lot::Mutex;
use quern_base::secret::{encoded, struck_out};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::Missed;
use crate::http::{self, causes, on_one_line};
use crate::objects::{Lent, Objects, told};

/// More than this no metadata is.
const REPLY_BYTES_MAX: usize = 1 << 28;
/// How long before its end a token is no longer used, and how long one holds of which no end is said.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);
const TOKEN_HOLDS: Duration = Duration::from_secs(300);
/// How long an answer may take to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What stands between the levels of a namespace, unless the catalog says otherwise.
const SEPARATOR: &str = "%1F";
/// The catalog's word for a token that has ended.
const ENDED: u16 = 419;

/// What catalogs have said that holds for a while.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

/// A table, as its catalog has it now.
pub(super) struct Loaded {
    pub(super) metadata: Bytes,
    /// Keys to where its files lie, each for what begins so.
    lent: Vec<(String, Lent)>,
}

#[derive(Clone)]
struct Session {
    /// Whose connections are used again.
    client: Client,
    token: Option<String>,
    until: Instant,
    /// What comes after `/v1/`, with a slash at its end.
    prefix: String,
    separator: String,
}

/// Neither tokens nor keys end up in logs.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a session of `{}`", self.prefix)
    }
}

/// A catalog that is asked for a table.
struct Asked<'a> {
    catalog: &'a Catalog,
    connection: &'a Connection,
    loc: &'a Loc,
    server: Server,
    /// Ends with a slash.
    base: Url,
}

impl Loaded {
    /// Keys to what lies at `location`.
    pub(super) fn lent(&self, location: &str) -> Lent {
        let ours = self.lent.iter().filter(|(prefix, _)| location.starts_with(prefix));
        ours.max_by_key(|(prefix, _)| prefix.len()).map(|(_, lent)| lent.clone()).unwrap_or_default()
    }
}

/// Asks the catalog of a source for its table.
pub(super) fn load(
    (objects, sessions): (&Objects, &Sessions),
    (cataloged, table, loc): (&Cataloged, &str, &Loc),
) -> Result<Loaded, Missed> {
    let mistake = |cause: String| Missed::from(DefError::new(loc, cause));
    let connection = cataloged.connection.as_ref();
    let found = connection.and_then(|connection| Some((connection, connection.catalog.as_ref()?)));
    let (connection, catalog) =
        found.ok_or_else(|| mistake(format!("connection `{}` leads to no catalog", cataloged.by)))?;
    let Reach::Servers(servers) = &connection.reach else {
        return Err(mistake(format!("connection `{}` leads to no server", cataloged.by)));
    };
    let uri = servers.first().map(|server| format!("{server}/{}", catalog.path.trim_matches('/')));
    let (server, base) = http::server_at(&uri.unwrap_or_default()).map_err(mistake)?;
    let asked = Asked { catalog, connection, loc, server, base };
    let nobody = || mistake("catalogs are asked by a server alone".to_owned());
    objects.now(asked.load(sessions, table)).ok_or_else(nobody)?
}

impl Asked<'_> {
    async fn load(&self, sessions: &Sessions, table: &str) -> Result<Loaded, Missed> {
        let key = format!("{} {:?}", self.base, (&self.catalog, &self.connection.storage.credentials));
        let known = sessions.0.lock().get(&key).filter(|session| session.until > Instant::now()).cloned();
        let session = match &known {
            Some(session) => session.clone(),
            None => self.begin().await?,
        };
        sessions.0.lock().insert(key.clone(), session.clone());
        let loaded = match self.table(&session, table).await {
            Err((Some(StatusCode::UNAUTHORIZED), _)) if known.is_some() => {
                let session = self.begin().await?;
                sessions.0.lock().insert(key, session.clone());
                self.table(&session, table).await
            }
            loaded => loaded,
        };
        loaded.map_err(|(_, missed)| missed)
    }

    /// Says who asks, and hears how the catalog is asked.
    async fn begin(&self) -> Result<Session, Missed> {
        let client = self.client(&self.server)?;
        let (token, until) = self.token(&client).await?;
        let url = self.at("v1/config")?;
        let warehouse = self.catalog.warehouse.iter().map(|warehouse| ("warehouse", warehouse));
        let request = client.get(url).query(&warehouse.collect::<Vec<_>>());
        let config = self.said(self.signed(request, token.as_deref())).await.map_err(|(_, missed)| missed)?;
        let config: Value = serde_json::from_slice(&config).map_err(|_| self.no_catalog())?;
        let said = |key: &str| {
            let at = |part: &str| config[part][key].as_str().map(str::to_owned);
            at("overrides").or_else(|| at("defaults"))
        };
        let prefix =
            said("prefix").map(|prefix| format!("{}/", prefix.trim_matches('/'))).unwrap_or_default();
        // It is part of a path on this server, below where the protocol begins.
        let small = prefix.to_ascii_lowercase();
        if small.contains(['?', '#', '\\']) || small.contains("..") || small.contains("%2e") {
            return Err(self.no_catalog());
        }
        let separator = said("namespace-separator").unwrap_or_else(|| SEPARATOR.to_owned());
        Ok(Session { client, token, until, prefix, separator })
    }

    /// A token, and until when it holds.
    async fn token(&self, own: &Client) -> Result<(Option<String>, Instant), Missed> {
        let credentials = &self.connection.storage.credentials;
        let secret = |key: &str| {
            let secret = credentials.get(key).map(|secret| told(key, secret));
            secret
                .transpose()
                .map_err(|why| self.missed(format!("connection `{}` {why}", self.connection.name)))
        };
        let now = Instant::now();
        let Some(client_secret) = secret("client_secret")? else {
            return Ok((secret("token")?, now + TOKEN_HOLDS));
        };
        let (client, url) = match &self.catalog.token_url {
            None => (own.clone(), self.at("v1/oauth/tokens")?),
            Some(url) => {
                let (server, url) =
                    http::server_at(url).map_err(|why| self.missed(format!("`token_url` {why}")))?;
                let client = self.client(&server)?;
                // A slash at the end is another path to some.
                (client, url.as_str().trim_end_matches('/').parse().map_err(|_| self.no_catalog())?)
            }
        };
        let scope = self.catalog.scope.clone().unwrap_or_else(|| "catalog".to_owned());
        let mut form = vec![("grant_type", "client_credentials".to_owned()), ("scope", scope)];
        form.extend(secret("client_id")?.map(|id| ("client_id", id)));
        form.push(("client_secret", client_secret));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(form);
        let said = self.said(request).await.map_err(|(_, missed)| missed)?;
        let said: Value = serde_json::from_slice(&said).map_err(|_| self.no_catalog())?;
        let token = said["access_token"].as_str().ok_or_else(|| self.no_catalog())?;
        let holds = said["expires_in"].as_u64().map_or(TOKEN_HOLDS, Duration::from_secs);
        Ok((
            Some(token.to_owned()),
            now + holds.saturating_sub(TOKEN_MARGIN).min(Duration::from_secs(86_400)),
        ))
    }

    async fn table(&self, session: &Session, table: &str) -> Result<Loaded, (Option<StatusCode>, Missed)> {
        let parts: Vec<String> = table.split('.').map(encoded).collect();
        let (name, levels) = parts.split_last().ok_or_else(|| (None, self.no_catalog()))?;
        let path =
            format!("v1/{}namespaces/{}/tables/{name}", session.prefix, levels.join(&session.separator));
        let url = self.at(&path).map_err(|missed| (None, missed))?;
        let request = session.client.get(url).header("X-Iceberg-Access-Delegation", "vended-credentials");
        let said = self.said(self.signed(request, session.token.as_deref())).await?;
        self.loaded(&said).map_err(|missed| (None, missed))
    }

    fn loaded(&self, said: &[u8]) -> Result<Loaded, Missed> {
        /// What is in it is read as a file of metadata is.
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Table {
            metadata: Box<serde_json::value::RawValue>,
            #[serde(default)]
            config: HashMap<String, Value>,
            #[serde(default)]
            storage_credentials: Vec<Credential>,
        }
        #[derive(serde::Deserialize)]
        struct Credential {
            prefix: String,
            config: HashMap<String, Value>,
        }
        let table: Table = serde_json::from_slice(said).map_err(|_| self.no_catalog())?;
        let signs = table.config.get("s3.remote-signing-enabled").and_then(Value::as_str);
        if signs == Some("true") {
            let cause = "the catalog wants to sign each request for a file itself, which is not done";
            return Err(self.missed(cause.to_owned()));
        }
        let configs = table.storage_credentials.iter().map(|it| &it.config).chain([&table.config]);
        let mut values = configs.flat_map(HashMap::values).filter_map(Value::as_str);
        if values.any(|value| value.contains(char::is_control)) {
            return Err(self.missed("it lends a key that holds a control character".to_owned()));
        }
        let mut lent: Vec<(String, Lent)> = vec![(String::new(), Lent::of(&table.config))];
        lent.extend(table.storage_credentials.iter().map(|it| (it.prefix.clone(), Lent::of(&it.config))));
        lent.retain(|(_, lent)| !lent.is_empty());
        let metadata = Bytes::copy_from_slice(table.metadata.get().as_bytes());
        Ok(Loaded { metadata, lent })
    }

    fn client(&self, server: &Server) -> Result<Client, Missed> {
        http::client(server).map_err(|error| self.missed(error.to_string()))
    }

    fn at(&self, path: &str) -> Result<Url, Missed> {
        format!("{}{path}", self.base).parse().map_err(|_| self.no_catalog())
    }

    fn signed(&self, request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// What is answered, or with which status it is refused.
    async fn said(&self, request: RequestBuilder) -> Result<Bytes, (Option<StatusCode>, Missed)> {
        let failed = |why: String| (None, self.unavailable(&why));
        let reply = request.timeout(ANSWER_TIMEOUT).send().await.map_err(|error| failed(causes(&error)))?;
        let status = reply.status();
        let body = body(reply).await.map_err(failed)?;
        match status.as_u16() {
            200 => Ok(body),
            ENDED => Err((Some(StatusCode::UNAUTHORIZED), self.refused(status, &body))),
            _ => Err((Some(status), self.refused(status, &body))),
        }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Missed {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let told = said["error"]["message"].as_str().or(said["error_description"].as_str());
        let told = told.or(said["error"].as_str()).map(|told| on_one_line(&self.struck(told)));
        let told = told.filter(|told| !told.is_empty());
        let answer = format!("it answers {}", status.as_u16());
        let answer = told.map_or_else(|| answer.clone(), |told| format!("{answer}: {told}"));
        match status {
            StatusCode::TOO_MANY_REQUESTS => self.unavailable(&answer),
            status if status.is_server_error() => self.unavailable(&answer),
            _ => self.missed(answer),
        }
    }

    /// What it says, without what it was told in confidence: a token, which comes after `Bearer`, and secrets.
    fn struck(&self, said: &str) -> String {
        let credentials = self.connection.storage.credentials.iter();
        let secrets: Vec<String> = credentials.filter_map(|(key, secret)| told(key, secret).ok()).collect();
        let mut said = struck_out(said, &secrets);
        if let Some(token) = said.find("Bearer ") {
            said.truncate(token);
            said.push('…');
        }
        said
    }

    fn no_catalog(&self) -> Missed {
        self.missed("it does not answer as a catalog of Iceberg does".to_owned())
    }

    fn unavailable(&self, why: &str) -> Missed {
        Missed { again: true, ..self.missed(why.to_owned()) }
    }

    fn missed(&self, why: String) -> Missed {
        let cause = format!("catalog `{}` ({}): {why}", self.connection.name, self.base);
        let help = "which catalog is asked, and who asks, is said by its connection: `url`, `catalog`, `credentials`";
        DefError::new(self.loc, cause).with_help(help).into()
    }
}

async fn body(mut reply: Response) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| causes(&error))? {
        if bytes.len() + chunk.len() > REPLY_BYTES_MAX {
            return Err(format!("it answers with more than {REPLY_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
