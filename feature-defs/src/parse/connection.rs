//! What does a connection's document declare, and is there one to wherever definitions lead?

use super::declared::{Declaration, Declared, Names};
use super::read::{governance, identity, is_of_database, is_true, items, text};
use crate::reach::{Reach, Server};
use crate::registered::REGISTERED;
use crate::shape::{CREDENTIALS_OF, Who};
use crate::yaml::{Entry, Node, Value};
use crate::{
    Catalog, Connection, Database, DefError, Definitions, DriverOption, Kind, Loc, Model, Secret, Source,
    StorageOptions,
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
    let said = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let (warehouse, scope, token_url) = (said("warehouse"), said("scope"), said("token_url"));
    Catalog { path: text(node, "path"), warehouse, scope, token_url }
}

/// Checks that whatever leads over the network does so by a connection of its project, or one shared with it.
pub(super) fn check(declared: &Declared, errors: &mut Vec<DefError>) {
    let Declared { connections, sources, models, .. } = declared;
    for connection in &connections.all {
        check_database(connection, errors);
        match connection.node.get("catalog") {
            Some(node) => check_catalog(connection, node, errors),
            None => check_storage(connection, errors),
        }
    }
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

/// Checks that what it says of an object store is whole, and is of one.
fn check_storage(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    if def.database.is_some() {
        return;
    }
    let keys = ["endpoint", "region", "anonymous", "credentials"];
    let said = || keys.iter().filter_map(|key| Some((*key, node.get(key)?)));
    let Reach::Objects { bucket, .. } = &def.reach else {
        errors.extend(said().map(|(key, node)| {
            DefError::new(&node.loc, format!("`{key}` is of an object store, and `url` leads to none"))
                .with_help("leave it out, or give a `url` as in `s3://bucket/folder/`")
        }));
        return;
    };
    if let Some(endpoint) = node.get("endpoint") {
        let is_plain = endpoint.text().is_some_and(|url| {
            let host = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
            host.is_some_and(|(_, rest)| !rest.is_empty() && !rest.contains(['@', '?', '#']))
        });
        if !is_plain {
            errors.push(
                DefError::new(
                    &endpoint.loc,
                    "`endpoint` must be a URL of `http` or `https`, without a user or a password",
                )
                .with_help("as in `https://minio:9000`; who asks is said by `credentials`"),
            );
        }
    }
    let Some(credentials) = node.get("credentials") else { return };
    if def.storage.anonymous {
        errors.push(
            DefError::new(
                &credentials.loc,
                "`credentials` say who asks, and `anonymous` that nobody is named",
            )
            .with_help("leave one of them out"),
        );
    }
    check_told(credentials, errors);
    let scheme = bucket.split("://").next().unwrap_or_default();
    let Some((_, ways)) = CREDENTIALS_OF.iter().find(|(schemes, _)| schemes.contains(&scheme)) else {
        return;
    };
    let names: Vec<&str> = credentials.entries().iter().map(|entry| entry.key.as_str()).collect();
    let is_whole = |who: &Who| {
        who.all.iter().all(|key| names.contains(key))
            && names.iter().all(|key| who.all.contains(key) || who.more.contains(key))
    };
    if !names.is_empty() && !ways.iter().any(is_whole) {
        let way = |who: &Who| {
            let all: Vec<String> = who.all.iter().map(|key| format!("`{key}`")).collect();
            let more = who.more.iter().map(|key| format!(" (and `{key}`)"));
            all.join(", ") + &more.collect::<String>()
        };
        let ways: Vec<String> = ways.iter().map(way).collect();
        errors.push(
            DefError::new(
                &credentials.loc,
                format!("`credentials` of `{scheme}://` are not whole, or are another cloud's"),
            )
            .with_help(format!("give {}", ways.join("; or "))),
        );
    }
}

/// Checks that what it says of a catalog is whole, and is of one.
fn check_catalog(connection: &Declaration<Connection>, catalog: &Node, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    if !matches!(&def.reach, Reach::Servers(servers) if servers.len() == 1 && servers.iter().all(Server::is_of_http))
    {
        let cause = "a `catalog` is asked over HTTP, and `url` leads elsewhere";
        errors.push(DefError::new(&node.loc, cause).with_help("as in `url: https://catalog:8181/`"));
    }
    for (key, node) in
        ["endpoint", "region", "anonymous"].iter().filter_map(|key| Some((key, node.get(key)?)))
    {
        let cause = format!("`{key}` is of an object store, and this leads to a catalog");
        let help = "say it of the connection to where its tables lie";
        errors.push(DefError::new(&node.loc, cause).with_help(help));
    }
    for key in ["path", "token_url"] {
        let Some(node) = catalog.get(key) else { continue };
        let said = node.text().unwrap_or_default();
        let is_sound = match key {
            "path" => !said.contains(['?', '#', '%', '\\']) && !said.contains("//") && !said.contains(".."),
            _ => url_at(said).is_some(),
        };
        if !is_sound {
            let (form, example) = match key {
                "path" => ("a path on the catalog's server", "path: /catalog"),
                _ => (
                    "a URL of `http` or `https`, without a user or a password",
                    "token_url: https://idp/oauth/token",
                ),
            };
            errors.push(
                DefError::new(&node.loc, format!("`{key}` must be {form}"))
                    .with_help(format!("as in `{example}`")),
            );
        }
    }
    let Some(credentials) = node.get("credentials") else { return };
    check_told(credentials, errors);
    let names: Vec<&str> = credentials.entries().iter().map(|entry| entry.key.as_str()).collect();
    let ways = [&["token"][..], &["client_id", "client_secret"], &["client_secret"]];
    if !ways.iter().any(|way| way.len() == names.len() && way.iter().all(|key| names.contains(key))) {
        let cause = "`credentials` of a catalog are not whole, or are another service's";
        let help = "give `token`, or `client_secret` and `client_id`";
        errors.push(DefError::new(&credentials.loc, cause).with_help(help));
    }
}

/// The server at a URL that has a path.
fn url_at(url: &str) -> Option<Server> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let authority = rest.split('/').next()?;
    match Reach::parse(&format!("{scheme}://{authority}")).ok()? {
        Reach::Servers(servers) if !rest.contains(['?', '#', '\\']) => servers.into_iter().next(),
        _ => None,
    }
}

/// Checks that each secret is told in one way.
fn check_told(secrets: &Node, errors: &mut Vec<DefError>) {
    let ways = |node: &Node| [node.get("env"), node.get("file")].into_iter().flatten().count();
    for entry in secrets
        .entries()
        .iter()
        .filter(|entry| matches!(entry.value.value, Value::Map(_)) && ways(&entry.value) != 1)
    {
        let cause = format!("`{}` must be told by one of `env` and `file`", entry.key);
        errors.push(
            DefError::new(&entry.value.loc, cause)
                .with_help(format!("as in `{}: {{env: NAME_OF_A_VARIABLE}}`", entry.key)),
        );
    }
}

/// Checks that what it says of a database is of one.
fn check_database(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = connection;
    let Some(database) = &def.database else {
        errors.extend(node.get("options").map(|options| {
            DefError::new(
                &options.loc,
                "`options` are of a database, and there is no `driver` that leads to one",
            )
            .with_help("leave them out, or name the ADBC driver, as in `driver: postgresql`")
        }));
        return;
    };
    let is_large = database.driver.contains(|c: char| c.is_ascii_uppercase());
    if let Some(driver) = node.get("driver").filter(|_| is_large) {
        let cause =
            format!("`driver` must be a name of small letters, digits and `_`, found `{}`", database.driver);
        errors.push(DefError::new(&driver.loc, cause).with_help("as in `driver: postgresql`"));
    }
    for (key, node) in
        ["endpoint", "region", "anonymous"].iter().filter_map(|key| Some((key, node.get(key)?)))
    {
        let cause = format!("`{key}` is of an object store, and `driver` leads to a database");
        errors.push(DefError::new(&node.loc, cause).with_help("leave it out"));
    }
    for entry in node.get("options").map(Node::entries).unwrap_or_default() {
        if !entry.key.starts_with("adbc.") {
            let cause = format!("`{}` is no option of a driver: their names begin with `adbc.`", entry.key);
            let help = "the database is said by `url`, who asks by `credentials`";
            errors.push(DefError::new(&entry.key_loc, cause).with_help(help));
        }
    }
    for secrets in [node.get("credentials"), node.get("options")].into_iter().flatten() {
        check_told(secrets, errors);
    }
    for entry in node.get("credentials").map(Node::entries).unwrap_or_default() {
        if !["username", "password"].contains(&entry.key.as_str()) {
            let cause = format!("`{}` is of an object store, and `driver` leads to a database", entry.key);
            errors.push(DefError::new(&entry.key_loc, cause).with_help(
                "a database takes `username` and `password`; what else its driver takes is said by `options`",
            ));
        }
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

/// Checks that where files are read out of an object store, there is a connection to it.
fn check_batch(source: &Declaration<Source>, all: &Names<Connection>, errors: &mut Vec<DefError>) {
    let Some(batch) = &source.def.batch else { return };
    // What is no URL of objects was reported.
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
    /// What is no URL, and where none leads.
    pub fn leading_to(&self, project: &str, url: &str) -> Result<&Connection, DefError> {
        let loc = Loc::start(url);
        let reach = Reach::parse(url).map_err(|cause| DefError::new(&loc, format!("`{url}` {cause}")))?;
        self.connection(project, url).ok_or_else(|| no_objects(&format!("`{url}`"), &reach, url, &loc))
    }
}

/// There is no connection to an object, nor to its folder, where what belongs to it may lie.
fn no_objects(to: &str, reach: &Reach, url: &str, loc: &Loc) -> DefError {
    let bucket = if let Reach::Objects { bucket, .. } = reach { bucket.as_str() } else { "" };
    let folder = url.strip_prefix(bucket).and_then(|path| path.rsplit_once('/'));
    let folder = folder.map_or("", |(folder, _)| folder);
    let name = bucket.split(['/', '@']).nth(2).unwrap_or_default();
    no_connection(to, name, &format!("{bucket}{folder}/"), loc)
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
        let Ok(reach) = Reach::parse(url) else { continue };
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
    let Some(node) = source.node.get("stream").and_then(|stream| stream.get("servers")) else { return };
    if let Err(cause) = Server::of_stream(stream.broker, &stream.servers) {
        errors.push(DefError::new(&node.loc, format!("`servers` {cause}")));
    }
    let mut missing = stream.reaches.clone();
    missing.retain(|server| !leads(&Reach::Servers(vec![server.clone()]), &node.loc, all));
    if let Some(first) = missing.first() {
        let addresses: Vec<String> = missing.iter().map(Server::address).collect();
        let url = format!("{}://{}", first.scheme, addresses.join(","));
        errors.push(no_connection(&format!("`{url}`"), first.scheme, &url, &node.loc));
    }
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
