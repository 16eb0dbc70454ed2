//! Where may definitions lead over the network?

use std::collections::BTreeMap;
use std::fmt;

use super::Definitions;
use super::role::Governance;
use crate::error::Loc;
use crate::reach::Reach;

/// A part of the network that definitions may lead to. What none of them names, no definition leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// As it is written.
    pub url: String,
    /// Where that leads.
    pub reach: Reach,
    /// How it is asked for objects; of files over HTTP and of a database, who asks.
    pub storage: StorageOptions,
    /// Which database it leads to, where it does.
    pub database: Option<Database>,
    /// Which catalog of tables it leads to, where it does.
    pub catalog: Option<Catalog>,
    /// Which registry of schemas it leads to, where it does.
    pub schema_registry: Option<SchemaRegistry>,
    /// How brokers of Kafka are spoken with, where it leads to some.
    pub kafka: KafkaOptions,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}

/// How an object store is asked. What is not said here the environment of the server says, as each cloud's own tools
/// read it; who asks is said wholly here, or wholly there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageOptions {
    /// Another store than the cloud's own, which speaks its protocol.
    pub endpoint: Option<String>,
    /// Where the bucket lies.
    pub region: Option<String>,
    /// Whether it is asked without saying who asks, as a bucket that is open to all may be.
    pub anonymous: bool,
    /// Who asks, by the names that `object_store` has for it.
    pub credentials: BTreeMap<String, Secret>,
}

/// A catalog of tables of Iceberg, which speaks its REST protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Where on its server the protocol begins.
    pub path: String,
    /// Which of its warehouses.
    pub warehouse: Option<String>,
    /// Where tokens come from; from the catalog itself unless it is said.
    pub oauth: OAuth,
}

/// A registry of schemas, which speaks the protocol of Confluent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRegistry {
    /// Where on its server the protocol begins.
    pub path: String,
    /// Where tokens come from.
    pub oauth: OAuth,
}

/// Where tokens of OAuth 2.0 come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OAuth {
    /// Where one is asked for.
    pub token_url: Option<String>,
    /// What it is asked for.
    pub scope: Option<String>,
}

/// How brokers of Kafka are spoken with: in the open, and by nobody, unless it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Over TLS.
    pub is_secured: bool,
    /// How who asks is proved, besides a certificate.
    pub mechanism: Option<SaslMechanism>,
    /// Whom to believe, as PEM; those that the machine believes unless it is said.
    pub ca: Option<Secret>,
    /// Where tokens come from.
    pub oauth: OAuth,
}

/// How a broker of Kafka is told who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// A user and their password.
    Plain,
    /// A user, and a proof that the password is known, by SHA-256.
    ScramSha256,
    /// The same by SHA-512.
    ScramSha512,
    /// A token.
    OAuthBearer,
}

impl SaslMechanism {
    /// All of them.
    pub const ALL: [SaslMechanism; 4] = [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
        SaslMechanism::OAuthBearer,
    ];

    /// As Kafka calls it.
    pub const fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::OAuthBearer => "OAUTHBEARER",
        }
    }
}

impl KafkaOptions {
    /// The protocol, as Kafka calls it.
    pub fn security_protocol(&self) -> &'static str {
        match (self.is_secured, self.mechanism) {
            (false, None) => "PLAINTEXT",
            (true, None) => "SSL",
            (false, Some(_)) => "SASL_PLAINTEXT",
            (true, Some(_)) => "SASL_SSL",
        }
    }
}

/// How a database is spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The ADBC driver, by the name of its library.
    pub driver: String,
    /// What it is told besides, by the names that the driver has for it.
    pub options: BTreeMap<String, DriverOption>,
}

/// What a driver is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverOption {
    /// This.
    Plain(String),
    /// What is told there.
    Secret(Secret),
}

/// Where a secret is told; what it is stands in no definition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Secret {
    /// In this variable of the server's environment.
    Env(String),
    /// In this file of the server's machine.
    File(String),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env(name) => write!(f, "the environment variable `{name}`"),
            Secret::File(path) => write!(f, "the file `{path}`"),
        }
    }
}

impl Connection {
    /// Whether definitions of `project` may use it: its own, and those that it is shared with.
    pub(crate) fn is_for(&self, project: &str) -> bool {
        self.loc.project() == project
            || self.governance.share.iter().any(|with| with == project || with == "*")
    }

    /// Whether it leads to all of `reach`. A catalog and a registry are asked for what they are, and for no files.
    fn leads_to(&self, reach: &Reach) -> bool {
        let is_asked_otherwise = self.catalog.is_some() || self.schema_registry.is_some();
        self.reach.covers(reach) && !(is_asked_otherwise && matches!(reach, Reach::Files { .. }))
    }

    /// The one of `all` that leads what `project` declares to `reach`: the narrowest.
    pub(crate) fn to<'a>(
        reach: &Reach,
        project: &str,
        all: impl Iterator<Item = &'a Connection>,
    ) -> Option<&'a Connection> {
        all.filter(|it| it.is_for(project) && it.leads_to(reach)).max_by_key(|it| it.reach.depth())
    }
}

impl Definitions {
    /// The connection by which what `project` declares leads to the object, the file or the server at `url`.
    pub fn connection(&self, project: &str, url: &str) -> Option<&Connection> {
        Connection::to(&Reach::parse(url).ok()?, project, self.connections.values())
    }
}
