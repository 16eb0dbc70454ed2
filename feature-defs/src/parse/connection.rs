//! What does a connection's document declare, and is there one to wherever definitions lead?

use super::declared::{Declaration, Declared, Names};
use super::read::{governance, identity, items, text};
use crate::reach::{Reach, Server};
use crate::registered::REGISTERED;
use crate::yaml::Node;
use crate::{Connection, DefError, Loc, Model, Source};

pub(super) fn read(node: &Node) -> Connection {
    let ((name, loc), url) = (identity(node, "name"), text(node, "url"));
    // What cannot be read leads nowhere, and was reported.
    let reach = Reach::parse(&url).unwrap_or(Reach::Servers(Vec::new()));
    Connection { name, description: text(node, "description"), url, reach, governance: governance(node), loc }
}

/// Checks that whatever leads over the network does so by a connection of its project, or one shared with it.
pub(super) fn check(declared: &Declared, errors: &mut Vec<DefError>) {
    let Declared { connections, sources, models, .. } = declared;
    for source in &sources.all {
        check_stream(source, connections, errors);
    }
    for model in &models.all {
        check_model(model, connections, errors);
    }
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
            let Reach::Objects { bucket, .. } = &reach else { continue };
            // All of its folder: weights may lie beside a model.
            let folder = url.strip_prefix(bucket.as_str()).and_then(|path| path.rsplit_once('/'));
            let folder = folder.map_or("", |(folder, _)| folder);
            let name = bucket.split(['/', '@']).nth(2).unwrap_or_default();
            errors.push(no_connection(&format!("`{url}`"), name, &format!("{bucket}{folder}/"), &path.loc));
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
