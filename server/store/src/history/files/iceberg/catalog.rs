//! Where does a catalog say that a table of Iceberg is? Asked over the REST protocol of Iceberg's catalogs, as its own
//! clients do. <https://iceberg.apache.org/rest-catalog-spec/>

use std::collections::HashMap;

use bytes::Bytes;
use feature_defs::{Catalog, Cataloged, Connection, DefError, Loc, Server};
use parking_lot::Mutex;
use quern_base::secret::encoded;
use quern_http::{Refused, Session, Tokens, api_of};
use reqwest::Url;
use serde_json::Value;

use super::Missed;
use crate::objects::{Lent, Objects};

/// What stands between the levels of a namespace, unless the catalog says otherwise.
const SEPARATOR: &str = "%1F";
/// What tokens are asked for, unless the connection says it.
const SCOPE: &str = "catalog";
/// Statuses by which a catalog says that it is asked by nobody it knows, or no longer.
const UNKNOWN: [u16; 2] = [401, 419];

/// What catalogs have said that holds for a while.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Begun>>);

/// A table, as its catalog has it now.
pub(super) struct Loaded {
    pub(super) metadata: Bytes,
    /// Keys to where its files lie, each for what begins so.
    lent: Vec<(String, Lent)>,
}

/// A catalog that has said how it is asked.
#[derive(Debug, Clone)]
struct Begun {
    session: Session,
    /// What comes after `/v1/`, with a slash at its end.
    prefix: String,
    separator: String,
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
    let (server, base) = api_of(connection, &catalog.path).map_err(mistake)?;
    let asked = Asked { catalog, connection, loc, server, base };
    let nobody = || mistake("catalogs are asked by a server alone".to_owned());
    objects.now(asked.load(sessions, table)).ok_or_else(nobody)?
}

impl Asked<'_> {
    async fn load(&self, sessions: &Sessions, table: &str) -> Result<Loaded, Missed> {
        let key = format!("{} {:?}", self.base, (&self.catalog, &self.connection.storage.credentials));
        let known = sessions.0.lock().get(&key).filter(|begun| begun.session.holds()).cloned();
        let begun = match &known {
            Some(begun) => begun.clone(),
            None => self.begin().await?,
        };
        sessions.0.lock().insert(key.clone(), begun.clone());
        let is_unknown = |refused: &Refused| refused.status.is_some_and(|status| UNKNOWN.contains(&status));
        let said = match self.table(&begun, table).await? {
            Err(refused) if known.is_some() && is_unknown(&refused) => {
                let begun = self.begin().await?;
                sessions.0.lock().insert(key, begun.clone());
                self.table(&begun, table).await?
            }
            said => said,
        };
        self.loaded(&said.map_err(|refused| self.refused(&refused))?)
    }

    /// Says who asks, and hears how the catalog is asked.
    async fn begin(&self) -> Result<Begun, Missed> {
        let own = Some((&self.server, self.at("v1/oauth/tokens")?));
        let tokens = Tokens { oauth: &self.catalog.oauth, own, scope: Some(SCOPE) };
        let refused = |refused| self.refused(&refused);
        let session = Session::begin(self.connection, &self.server, &tokens).await.map_err(refused)?;
        let warehouse = self.catalog.warehouse.iter().map(|warehouse| ("warehouse", warehouse));
        let request = session.get(self.at("v1/config")?).query(&warehouse.collect::<Vec<_>>());
        let config = session.said(request).await.map_err(refused)?;
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
        Ok(Begun { session, prefix, separator })
    }

    /// What it says of a table, or why not.
    async fn table(&self, begun: &Begun, table: &str) -> Result<Result<Bytes, Refused>, Missed> {
        let parts: Vec<String> = table.split('.').map(encoded).collect();
        let (name, levels) = parts.split_last().ok_or_else(|| self.no_catalog())?;
        let path = format!("v1/{}namespaces/{}/tables/{name}", begun.prefix, levels.join(&begun.separator));
        let request = begun.session.get(self.at(&path)?);
        let request = request.header("X-Iceberg-Access-Delegation", "vended-credentials");
        Ok(begun.session.said(request).await)
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

    fn at(&self, path: &str) -> Result<Url, Missed> {
        format!("{}{path}", self.base).parse().map_err(|_| self.no_catalog())
    }

    fn refused(&self, refused: &Refused) -> Missed {
        Missed { again: refused.may_pass(), ..self.missed(refused.why.clone()) }
    }

    fn no_catalog(&self) -> Missed {
        self.missed("it does not answer as a catalog of Iceberg does".to_owned())
    }

    fn missed(&self, why: String) -> Missed {
        let cause = format!("catalog `{}` ({}): {why}", self.connection.name, self.base);
        let help = "which catalog is asked, and who asks, is said by its connection: `url`, `catalog`, `credentials`";
        DefError::new(self.loc, cause).with_help(help).into()
    }
}
