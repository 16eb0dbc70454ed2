//! Does whatever leads over the network do so by a connection of its project, or one that is shared with it?

use crate::parse::declared::{Declaration, Names};
use crate::parse::read::{EARLIEST, LATEST, is_of_database, items};
use crate::reach::{Reach, Server};
use crate::registered::REGISTERED;
use crate::yaml::Node;
use crate::{
    Broker, Connection, DefError, Definitions, KafkaOptions, Kind, Loc, Model, Source, StreamSource, literal,
};

/// Checks that there is a connection to wherever sources and models lead.
pub(super) fn check(
    sources: &Names<Source>,
    models: &Names<Model>,
    connections: &Names<Connection>,
    errors: &mut Vec<DefError>,
) {
    for source in &sources.all {
        check_stream(source, connections, errors);
        check_batch(source, connections, errors);
        check_pull(source, connections, errors);
        check_cataloged(source, connections, errors);
    }
    for model in &models.all {
        check_model(model, connections, errors);
    }
}

/// Checks that the connection that rows are pulled by is there, and leads to a database.
fn check_pull(source: &Declaration<Source>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let batch = source.node.get("batch").filter(|_| is_of_database(&source.node));
    let Some(node) = batch.and_then(|batch| batch.get("connection")) else { return };
    let name = node.text().unwrap_or_default();
    let Some(found) = all.resolve(Kind::Connection, name, &node.loc, errors) else { return };
    if found.whole && found.def.database.is_none() {
        let cause = format!("connection `{name}` leads to no database: it has no `driver`");
        errors.push(
            DefError::new(&node.loc, cause).with_help("give it the ADBC driver, as in `driver: postgresql`"),
        );
    }
}

/// Checks that the connection by which a table is found leads to a catalog.
fn check_cataloged(source: &Declaration<Source>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let Some(catalog) = source.def.batch.as_ref().and_then(|batch| batch.catalog.as_ref()) else { return };
    let Some(node) = source.node.get("batch").and_then(|batch| batch.get("connection")) else { return };
    let Some(found) = all.resolve(Kind::Connection, &catalog.by, &node.loc, errors) else { return };
    if found.whole && found.def.catalog.is_none() {
        let cause = format!("connection `{}` leads to no catalog", catalog.by);
        errors.push(
            DefError::new(&node.loc, cause)
                .with_help("say where its protocol begins, as in `catalog: {path: /catalog}`"),
        );
    }
}

/// Checks that where files are read over the network, there is a connection to there.
fn check_batch(source: &Declaration<Source>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let Some(batch) = &source.def.batch else { return };
    // What is no URL of objects or of a file was reported.
    let Some(url) = batch.objects() else { return };
    let Ok(reach) = Reach::parse(url) else { return };
    if !leads(&reach, &batch.loc, all) {
        errors.push(no_objects(&format!("`{}`", batch.path), &reach, url, &batch.loc));
    }
}

impl Definitions {
    /// The connection by which `project` leads to the object or the folder at `url`, for who is asked to write there.
    ///
    /// # Errors
    /// What is no URL, or of no object, and where none leads.
    pub fn leading_to(&self, project: &str, url: &str) -> Result<&Connection, DefError> {
        let loc = Loc::start(url);
        let reach = Reach::parse(url).map_err(|cause| DefError::new(&loc, format!("`{url}` {cause}")))?;
        if !matches!(reach, Reach::Objects { .. }) {
            let help = "name a path of this machine, or the URL of an object, as in `s3://bucket/key`";
            return Err(DefError::new(&loc, format!("`{url}` is in no object store")).with_help(help));
        }
        self.connection(project, url).ok_or_else(|| no_objects(&format!("`{url}`"), &reach, url, &loc))
    }
}

/// There is no connection to an object or a file, nor to its folder, where what belongs to it may lie.
fn no_objects(to: &str, reach: &Reach, url: &str, loc: &Loc) -> DefError {
    let root = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let folder = url.strip_prefix(&root).and_then(|path| path.rsplit_once('/'));
    let folder = folder.map_or("", |(folder, _)| folder);
    let name = match reach {
        Reach::Objects { .. } => root.split(['/', '@']).nth(2).unwrap_or_default(),
        Reach::Files { .. } | Reach::Servers(_) => "files",
    };
    no_connection(to, name, &format!("{root}{folder}/"), loc)
}

fn check_model(model: &Declaration<Model>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let versions = || items(&model.node, "versions");
    let steps = || versions().flat_map(|version| items(version, "steps"));
    for url in steps().filter_map(|step| step.get("remote")?.get("url")) {
        let Some(Ok(server)) = url.text().map(Server::of_inference) else { continue };
        let to = server.to_string();
        if !leads(&Reach::Servers(vec![server]), &url.loc, all) {
            errors.push(no_connection(&to, "inference", &to, &url.loc));
        }
    }
    for path in versions().chain(steps()).filter_map(|it| it.get("path")) {
        if path.text().is_some_and(|path| path.starts_with(REGISTERED)) {
            errors.extend(check_tracking(&path.loc, all));
            continue;
        }
        let Some(url) = path.text().filter(|path| path.contains("://")) else { continue };
        // Of another URL it was said that no model lies there.
        let Ok(reach @ Reach::Objects { .. }) = Reach::parse(url) else { continue };
        if !leads(&reach, &path.loc, all) {
            errors.push(no_objects(&format!("`{url}`"), &reach, url, &path.loc));
        }
    }
}

/// Which tracking server is asked is told where definitions are applied: here there must be a connection to any.
fn check_tracking(loc: &Loc, all: &Names<Connection>) -> Option<DefError> {
    let mut theirs = all.all.iter().map(|it| &it.def).filter(|it| it.is_for(loc.project()));
    let is_one = |it: &Connection| matches!(&it.reach, Reach::Servers(servers) if servers.iter().any(Server::is_of_http));
    let is_led = may_lead(all) || theirs.any(is_one);
    (!is_led).then(|| no_connection("a tracking server of MLflow", "mlflow", "https://HOST:PORT/", loc))
}

fn check_stream(source: &Declaration<Source>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let Some(stream) = &source.def.stream else { return };
    let Some(said) = source.node.get("stream") else { return };
    check_options(stream, said, all, errors);
    let Some(node) = said.get("servers") else { return };
    if let Err(cause) = Server::of_stream(stream.broker, &stream.servers) {
        errors.push(DefError::new(&node.loc, format!("`servers` {cause}")));
    }
    let by: Vec<Option<&Connection>> =
        stream.reaches.iter().map(|server| one_to(server, &node.loc, all)).collect();
    let missing: Vec<&Server> = stream
        .reaches
        .iter()
        .zip(&by)
        .filter(|(_, by)| by.is_none() && !may_lead(all))
        .map(|(it, _)| it)
        .collect();
    if let Some(first) = missing.first() {
        let addresses: Vec<String> = missing.iter().map(|server| server.address()).collect();
        let url = format!("{}://{}", first.scheme, addresses.join(","));
        errors.push(no_connection(&format!("`{url}`"), first.scheme, &url, &node.loc));
    }
    // How one is spoken with is how all are.
    let is_plain = by.iter().flatten().all(|it| it.kafka == KafkaOptions::default());
    let reach = Reach::Servers(stream.reaches.clone());
    if missing.is_empty() && !is_plain && !leads(&reach, &node.loc, all) {
        let cause =
            "several connections lead to the `servers` of one stream, and say how they are spoken with";
        errors.push(DefError::new(&node.loc, cause).with_help("name all of them in the `url` of one"));
    }
}

/// Checks what a stream of Kafka has besides.
fn check_options(stream: &StreamSource, said: &Node, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    for key in ["start", "schema_registry"] {
        if let Some(node) = said.get(key).filter(|_| stream.broker != Broker::Kafka) {
            let cause = format!("`{key}` is of streams of Kafka");
            errors.push(DefError::new(&node.loc, cause).with_help("leave it out"));
        }
    }
    if let Some(node) = said.get("start")
        && let Some(at) = node.text()
        && ![EARLIEST, LATEST].contains(&at)
        && !literal::is_timestamp(at)
    {
        let cause = format!("`start` must be `{EARLIEST}`, `{LATEST}` or a time, found `{at}`");
        errors.push(DefError::new(&node.loc, cause).with_help("as in `start: 2026-01-31T08:30:00Z`"));
    }
    if stream.broker == Broker::Kafka && !is_topic(&stream.topic) {
        let topic = &stream.topic;
        let cause = format!(
            "`topic` must be 1 to {TOPIC_CHARS_MAX} letters of ASCII, digits, `.`, `_` and `-`, found `{topic}`"
        );
        let help = "Kafka has no other names; a source reads one topic, which no pattern and no list names";
        errors.push(DefError::new(&stream.loc, cause).with_help(help));
    }
    let (Some(node), Some(by)) = (said.get("schema_registry"), &stream.registry) else { return };
    let Some(found) = all.resolve(Kind::Connection, by, &node.loc, errors) else { return };
    if found.whole && found.def.schema_registry.is_none() {
        let cause = format!("connection `{by}` leads to no schema registry");
        errors.push(
            DefError::new(&node.loc, cause).with_help("say that it does, as in `schema_registry: {path: /}`"),
        );
    }
}

/// More no topic of Kafka has.
const TOPIC_CHARS_MAX: usize = 249;

/// Whether Kafka may have a topic of that name.
fn is_topic(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_plain) && ![".", ".."].contains(&name)
}

/// A connection to one server.
fn one_to<'a>(server: &Server, loc: &Loc, all: &'a Names<Connection>) -> Option<&'a Connection> {
    Connection::to(&Reach::Servers(vec![server.clone()]), loc.project(), all.all.iter().map(|it| &it.def))
}

/// Whether there is a connection to `reach`, or may be: one that could not be read might be it.
fn leads(reach: &Reach, loc: &Loc, all: &Names<Connection>) -> bool {
    may_lead(all) || Connection::to(reach, loc.project(), all.all.iter().map(|it| &it.def)).is_some()
}

/// Whether there are connections that could not be read.
fn may_lead(all: &Names<Connection>) -> bool {
    all.open || all.all.iter().any(|it| !it.whole)
}

fn no_connection(to: &str, name: &str, url: &str, loc: &Loc) -> DefError {
    DefError::new(loc, format!("no connection of its project leads to {to}")).with_help(format!(
        "where definitions may lead, an administrator says: `{{kind: Connection, name: {name}, url: {url:?}}}`"
    ))
}
