//! What does a connection's document declare, and is there one to wherever definitions lead?

mod database;
mod http;
mod kafka;
mod leads;
mod objects;

use super::declared::{Declaration, Declared};
use super::read::{governance, identity, is_true, text};
use crate::reach::{Reach, Server};
use crate::shape::Who;
use crate::yaml::{Entry, Node, Value};
use crate::{
    Catalog, Connection, Database, DefError, DriverOption, KafkaOptions, OAuth, SaslMechanism,
    SchemaRegistry, Secret, StorageOptions,
};

pub(super) fn read(node: &Node) -> Connection {
    let ((name, loc), url) = (identity(node, "name"), text(node, "url"));
    // What cannot be read leads nowhere, and was reported.
    let database = database(node);
    let reach = Some(&url).filter(|_| database.is_none()).and_then(|url| Reach::parse(url).ok());
    let reach = reach.unwrap_or(Reach::Servers(Vec::new()));
    let storage = storage(node);
    Connection {
        name,
        description: text(node, "description"),
        url,
        reach,
        storage,
        database,
        catalog: node.get("catalog").map(catalog),
        schema_registry: node.get("schema_registry").map(schema_registry),
        kafka: node.get("kafka").map(kafka).unwrap_or_default(),
        governance: governance(node),
        loc,
    }
}

fn storage(node: &Node) -> StorageOptions {
    let said = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let credentials = node.get("credentials").map(Node::entries).unwrap_or_default().iter();
    StorageOptions {
        endpoint: said("endpoint"),
        region: said("region"),
        anonymous: is_true(node, "anonymous"),
        credentials: credentials.filter_map(|entry| Some((entry.key.clone(), told(&entry.value)?))).collect(),
    }
}

fn told(node: &Node) -> Option<Secret> {
    let at = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    at("env").map(Secret::Env).or_else(|| at("file").map(Secret::File))
}

fn database(node: &Node) -> Option<Database> {
    let driver = node.get("driver")?.text()?.to_owned();
    let option = |entry: &Entry| {
        let plain = entry.value.text().map(|text| DriverOption::Plain(text.to_owned()));
        Some((entry.key.clone(), plain.or_else(|| told(&entry.value).map(DriverOption::Secret))?))
    };
    let options = node.get("options").map(Node::entries).unwrap_or_default().iter();
    Some(Database { driver, options: options.filter_map(option).collect() })
}

fn catalog(node: &Node) -> Catalog {
    let warehouse = node.get("warehouse").and_then(Node::text).map(str::to_owned);
    Catalog { path: text(node, "path"), warehouse, oauth: oauth(node) }
}

fn schema_registry(node: &Node) -> SchemaRegistry {
    SchemaRegistry { path: text(node, "path"), oauth: oauth(node) }
}

fn oauth(node: &Node) -> OAuth {
    let said = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    OAuth { token_url: said("token_url"), scope: said("scope") }
}

fn kafka(node: &Node) -> KafkaOptions {
    let mechanism = text(node, "sasl_mechanism");
    KafkaOptions {
        is_secured: text(node, "security_protocol").ends_with("SSL"),
        mechanism: SaslMechanism::ALL.into_iter().find(|known| known.name() == mechanism),
        ca: node.get("ssl_ca").and_then(told),
        oauth: oauth(node),
    }
}

/// Checks that whatever leads over the network does so by a connection of its project, or one shared with it.
pub(super) fn check(declared: &Declared, errors: &mut Vec<DefError>) {
    let Declared { connections, sources, models, .. } = declared;
    for connection in &connections.all {
        check_one(connection, errors);
    }
    leads::check(sources, models, connections, errors);
}

/// Checks that what it says is of what it leads to.
fn check_one(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    database::check(connection, errors);
    // Where it leads cannot be read, which was reported: nobody knows of what the rest must be.
    if def.database.is_none() && matches!(&def.reach, Reach::Servers(servers) if servers.is_empty()) {
        return;
    }
    let is_of_kafka =
        matches!(&def.reach, Reach::Servers(servers) if servers.iter().any(Server::is_of_kafka));
    if let Some(node) = node.get("kafka").filter(|_| !is_of_kafka && def.database.is_none()) {
        let cause = "`kafka` is of brokers of Kafka, and `url` leads elsewhere";
        errors.push(DefError::new(&node.loc, cause).with_help("as in `url: \"kafka://broker:9093\"`"));
    }
    match (node.get("catalog"), node.get("schema_registry")) {
        (Some(_), Some(other)) => {
            let cause = "what `url` leads to is a `catalog`, or a `schema_registry`";
            errors.push(DefError::new(&other.loc, cause).with_help("leave one of them out"));
        }
        (Some(catalog), None) => http::check(connection, &http::CATALOG, catalog, errors),
        (None, Some(registry)) => http::check(connection, &http::SCHEMA_REGISTRY, registry, errors),
        (None, None) if is_of_kafka => kafka::check(connection, errors),
        (None, None) if def.database.is_none() && http::is_over_http(&def.reach) => {
            http::check_files(connection, errors);
        }
        (None, None) => objects::check(connection, errors),
    }
}

/// Checks that nothing is said that is of an object store.
fn check_no_store(node: &Node, leads_to: &str, help: &str, errors: &mut Vec<DefError>) {
    for (key, node) in
        ["endpoint", "region", "anonymous"].iter().filter_map(|key| Some((key, node.get(key)?)))
    {
        let cause = format!("`{key}` is of an object store, and {leads_to}");
        errors.push(DefError::new(&node.loc, cause).with_help(help));
    }
}

/// Checks that credentials are those of one of `ways`, whole but for what is optional. `whose` opens the sentence.
fn check_ways(credentials: &Node, whose: &str, ways: &[Who], errors: &mut Vec<DefError>) {
    check_told(credentials, errors);
    let names: Vec<&str> = credentials.entries().iter().map(|entry| entry.key.as_str()).collect();
    let is_whole = |who: &Who| {
        who.all.iter().all(|key| names.contains(key))
            && names.iter().all(|key| who.all.contains(key) || who.more.contains(key))
    };
    if names.is_empty() || ways.iter().any(is_whole) {
        return;
    }
    let way = |who: &Who| {
        let all: Vec<String> = who.all.iter().map(|key| format!("`{key}`")).collect();
        let more = who.more.iter().map(|key| format!(" (and `{key}`)"));
        all.join(", ") + &more.collect::<String>()
    };
    let ways: Vec<String> = ways.iter().map(way).collect();
    let cause = format!("`credentials` of {whose} are not whole, or are another's");
    let help = match ways.is_empty() {
        true => "leave them out".to_owned(),
        false => format!("give {}", ways.join("; or ")),
    };
    errors.push(DefError::new(&credentials.loc, cause).with_help(help));
}

/// Checks that each secret is told in one way. What stands there is not repeated: it may be the secret itself.
fn check_told(secrets: &Node, errors: &mut Vec<DefError>) {
    for entry in secrets.entries().iter().filter(|entry| matches!(entry.value.value, Value::Map(_))) {
        let cause = match (entry.value.get("env"), entry.value.get("file")) {
            (Some(env), None) if env.text().is_some_and(|name| name.is_empty() || name.contains('=')) => {
                "has an `env` that is no name of a variable: it is empty, or has a `=`"
            }
            (None, Some(file)) if file.text() == Some("") => "has a `file` that is no path: it is empty",
            (Some(_), None) | (None, Some(_)) => continue,
            _ => "must be told by one of `env` and `file`",
        };
        errors.push(
            DefError::new(&entry.value.loc, format!("`{}` {cause}", entry.key))
                .with_help(format!("as in `{}: {{env: NAME_OF_A_VARIABLE}}`", entry.key)),
        );
    }
}
