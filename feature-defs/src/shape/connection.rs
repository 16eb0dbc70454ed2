//! Which keys does a connection have?

use crate::SaslMechanism;

use super::object::{Key, Object, Shape};
use super::table::{DESCRIPTION, OWNER, SHARE, TAGS, optional, required};

pub(super) static CONNECTION: Object = Object {
    noun: "a connection",
    doc: "A part of the network that definitions may lead to. What none of them names, no definition leads to.",
    keys: &[
        required("kind", Shape::Constant("Connection"), "Says that this document declares a connection."),
        required("name", Shape::ModelName, "Unique among connections."),
        DESCRIPTION,
        OWNER,
        TAGS,
        SHARE,
        required(
            "url",
            Shape::Leads,
            "What may be reached: the objects of a bucket below a path, as `s3://bucket/folder/`, the files that a server gives \
             below one over HTTP, as `https://host/folder/`, or servers, as `kafka://a:9092,b:9092`, `redis://host:6379` or \
             `https://mlflow:5000/`; with a `driver`, a database as that driver names it, such as \
             `postgresql://host:5432/shop`.",
        ),
        optional(
            "driver",
            Shape::Identifier,
            "The ADBC driver of a database, such as `postgresql` or `sqlite`, which whoever runs the server has \
             [installed](operations.md#databases).",
        ),
        optional(
            "options",
            Shape::Map { key: &Shape::Text, value: &Shape::AnyOf(&[Shape::Text, Shape::Secret(&SECRET)]) },
            "What a `driver` is told besides, by its own names, which begin with `adbc.`: a text, or where a secret is told.",
        ),
        optional(
            "catalog",
            Shape::Object(&CATALOG),
            "Says that the server at `url` is a catalog of tables of Iceberg, which speaks its REST protocol.",
        ),
        optional(
            "schema_registry",
            Shape::Object(&SCHEMA_REGISTRY),
            "Says that the server at `url` is a registry of the schemas of events, as Confluent's is and those that speak as \
             it does.",
        ),
        optional(
            "kafka",
            Shape::Object(&KAFKA),
            "How the brokers at `url` are spoken with: in the open, and without saying who asks, unless given.",
        ),
        optional(
            "endpoint",
            Shape::Text,
            "Another store than the cloud's own which speaks its protocol, as `http://minio:9000`; unless given, the \
             environment of the server says it.",
        ),
        optional(
            "region",
            Shape::Text,
            "Where a bucket of S3 lies; unless given, the environment of the server says it.",
        ),
        optional(
            "anonymous",
            Shape::Bool,
            "Whether objects are asked for without saying who asks, as those of public buckets may be; `false` unless given.",
        ),
        optional(
            "credentials",
            Shape::Object(&CREDENTIALS),
            "Who asks: for objects, where the environment of the server says it unless given; for files over HTTP, tables of a \
             catalog, rows of a database, events of Kafka, schemas of a registry.",
        ),
    ],
};

static CATALOG: Object = Object {
    noun: "a catalog",
    doc: "A catalog of tables of Apache Iceberg, as Polaris, Lakekeeper, Nessie, Unity and Gravitino are.",
    keys: &[
        required(
            "path",
            Shape::Text,
            "Where on its server the protocol begins, before `/v1`; `/` where it is at once.",
        ),
        optional(
            "warehouse",
            Shape::Text,
            "Which of its warehouses; where it has one only, it need not be said.",
        ),
        optional(
            "scope",
            Shape::Text,
            "What a token is asked for, as `PRINCIPAL_ROLE:ALL`; `catalog` unless given.",
        ),
        optional(
            "token_url",
            Shape::Text,
            "Where a token is asked for by `client_id` and `client_secret`; of the catalog itself unless given.",
        ),
    ],
};

const SCOPE: Key = optional("scope", Shape::Text, "What a token is asked for.");

static SCHEMA_REGISTRY: Object = Object {
    noun: "a schema registry",
    doc: "A registry of schemas, as Confluent's, Karapace, Redpanda's and Apicurio's are.",
    keys: &[
        optional(
            "path",
            Shape::Text,
            "Where on its server the protocol begins, before `/schemas`; `/` unless given. Of Apicurio `/apis/ccompat/v7`.",
        ),
        optional("token_url", Shape::Text, "Where a token is asked for by `client_id` and `client_secret`."),
        SCOPE,
    ],
};

static KAFKA: Object = Object {
    noun: "the options of Kafka",
    doc: "How brokers of Kafka are spoken with, by the names that its own clients have for it.",
    keys: &[
        required(
            "security_protocol",
            Shape::OneOf(&SECURITY_PROTOCOLS),
            "Whether over TLS, and whether who asks is said by SASL.",
        ),
        optional(
            "sasl_mechanism",
            Shape::OneOf(&SASL_MECHANISMS),
            "How it is said: the first three take `username` and `password`, the last `client_id` and `client_secret`.",
        ),
        optional(
            "ssl_ca",
            Shape::Secret(&SECRET),
            "Where the certificates are, as PEM, by which a broker is believed; those that the machine believes unless given.",
        ),
        optional("token_url", Shape::Text, "OAUTHBEARER, which needs it: where tokens are asked for."),
        SCOPE,
    ],
};

/// The protocols that brokers of Kafka speak.
pub(crate) const SECURITY_PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const SASL_MECHANISMS: [&str; SaslMechanism::ALL.len()] = {
    let mut names = [""; SaslMechanism::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SaslMechanism::ALL[at].name();
        at += 1;
    }
    names
};

static CREDENTIALS: Object = Object {
    noun: "credentials",
    doc: "Who asks an object store, a server of files, a catalog, a database, brokers or a registry. Each says where its \
          secret is told, not what it is.",
    keys: &[
        secret("access_key_id", "S3: the id of an access key."),
        secret("secret_access_key", "S3: its secret."),
        secret("session_token", "S3: its token, where it is temporary."),
        secret("service_account_key", "Google Cloud Storage: the key of a service account, as JSON."),
        secret("account_name", "Azure: the account, where the URL does not name it."),
        secret("account_key", "Azure: its key."),
        secret("sas_token", "Azure: a shared access signature, instead of a key."),
        secret("tenant_id", "Azure: the tenant of a service principal."),
        secret("client_id", "Azure: its id. A catalog, a registry, Kafka: who asks for a token."),
        secret("client_secret", "Azure: its secret. A catalog, a registry, Kafka: theirs."),
        secret("token", "Files over HTTP, a catalog, a registry: a token that it takes."),
        secret("username", "Files over HTTP, a database, a registry, Kafka: its user."),
        secret("password", "Files over HTTP, a database, a registry, Kafka: their password."),
        secret("certificate", "Kafka over TLS: the certificate of who asks, with what it stands on, as PEM."),
        secret("private_key", "Kafka over TLS: its key, as PEM."),
        secret("private_key_password", "Kafka over TLS: what the key is encrypted with, where it is."),
    ],
};

/// Which of them each cloud takes, by what its URLs begin with: one of these lists, whole but for what is optional.
pub(crate) const CREDENTIALS_OF: [(&[&str], &[Who]); 3] = [
    (&["s3", "s3a"], &[Who { all: &["access_key_id", "secret_access_key"], more: &["session_token"] }]),
    (&["gs"], &[Who { all: &["service_account_key"], more: &[] }]),
    (
        &["az", "azure", "abfs", "abfss", "adl"],
        &[
            Who { all: &["account_key"], more: &["account_name"] },
            Who { all: &["sas_token"], more: &["account_name"] },
            Who { all: &["tenant_id", "client_id", "client_secret"], more: &["account_name"] },
        ],
    ),
];

/// Credentials that belong together.
pub(crate) struct Who {
    pub(crate) all: &'static [&'static str],
    pub(crate) more: &'static [&'static str],
}

const fn secret(name: &'static str, doc: &'static str) -> Key {
    optional(name, Shape::Secret(&SECRET), doc)
}

static SECRET: Object = Object {
    noun: "a secret",
    doc: "Where a secret is told. It is read anew whenever a store is opened, so a new one counts at once.",
    keys: &[
        optional("env", Shape::Text, "In this variable of the server's environment."),
        optional(
            "file",
            Shape::Text,
            "In this file of the server's machine; a line break at its end is left out.",
        ),
    ],
};
