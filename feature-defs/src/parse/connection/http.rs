//! Is what a connection says of a server that is asked over HTTP whole, and of one?

use super::{check_no_store, check_ways};
use crate::parse::declared::Declaration;
use crate::reach::{Reach, Server};
use crate::shape::Who;
use crate::yaml::Node;
use crate::{Connection, DefError};

/// A service whose protocol begins somewhere on a server.
pub(super) struct Service {
    /// The key that says it.
    key: &'static str,
    /// For people, as in "a catalog".
    noun: &'static str,
    /// Where its protocol may begin.
    path: &'static str,
    /// What is right where what is said is an object store's.
    instead: &'static str,
    /// Who asks it.
    ways: &'static [Who],
}

pub(super) const CATALOG: Service = Service {
    key: "catalog",
    noun: "a catalog",
    path: "/catalog",
    instead: "say it of the connection to where its tables lie",
    ways: &[TOKEN, CLIENT],
};
pub(super) const SCHEMA_REGISTRY: Service = Service {
    key: "schema_registry",
    noun: "a schema registry",
    path: "/apis/ccompat/v7",
    instead: "leave it out",
    ways: &[USER, TOKEN, CLIENT],
};
const USER: Who = Who { all: &["username", "password"], more: &[] };
const TOKEN: Who = Who { all: &["token"], more: &[] };
const CLIENT: Who = Who { all: &["client_secret"], more: &["client_id"] };

/// Whether it leads to what is asked over HTTP alone.
pub(super) fn is_over_http(reach: &Reach) -> bool {
    match reach {
        Reach::Files { .. } => true,
        Reach::Servers(servers) => servers.iter().all(Server::is_of_http),
        Reach::Objects { .. } => false,
    }
}

/// Checks that what it says of a server that gives files is of one.
pub(super) fn check_files(connection: &Declaration<Connection>, errors: &mut Vec<DefError>) {
    let node = &connection.node;
    check_no_store(node, "`url` leads to a server of HTTP", "leave it out", errors);
    if let Some(credentials) = node.get("credentials") {
        check_ways(credentials, "a server of HTTP", &[USER, TOKEN], errors);
    }
}

/// Checks that what it says of `service`, which is `said`, is whole.
pub(super) fn check(
    connection: &Declaration<Connection>,
    service: &Service,
    said: &Node,
    errors: &mut Vec<DefError>,
) {
    let (Declaration { def, node, .. }, Service { key, noun, .. }) = (connection, service);
    let wrong = match &def.reach {
        Reach::Servers(servers) if servers.len() == 1 && is_over_http(&def.reach) => None,
        Reach::Files { .. } => Some(format!(
            "`url` has a path, and leads to a server as a whole; where {noun} begins on it is said by its `path`"
        )),
        _ => Some(format!("a `{key}` is asked over HTTP, and `url` leads elsewhere")),
    };
    errors.extend(wrong.map(|cause| {
        DefError::new(&node.loc, cause)
            .with_help(format!("as in `url: https://{}:8181/`", key.replace('_', "-")))
    }));
    check_no_store(node, &format!("this leads to {noun}"), service.instead, errors);
    if let Some(path) = said.get("path") {
        let text = path.text().unwrap_or_default();
        let is_odd = |letter: char| letter.is_whitespace() || ['?', '#', '%', '\\'].contains(&letter);
        if text.contains(is_odd) || text.contains("//") || text.contains("..") {
            let cause = format!(
                "`path` must be a path on the server of {noun}, without blanks, `?`, `#`, `%`, `\\`, `//` and `..`"
            );
            errors.push(DefError::new(&path.loc, cause).with_help(format!("as in `path: {}`", service.path)));
        }
    }
    check_token_url(said, errors);
    let is_asked = node.get("credentials").is_some_and(|who| who.get("client_secret").is_some());
    if let Some(url) = said.get("token_url").filter(|_| !is_asked) {
        let cause = "`token_url` says where tokens are asked for, and nothing says by whom";
        let help = "give `credentials` of `client_id` and `client_secret`, or leave it out";
        errors.push(DefError::new(&url.loc, cause).with_help(help));
    }
    let Some(credentials) = node.get("credentials") else { return };
    check_ways(credentials, noun, service.ways, errors);
    let needs_url = def.schema_registry.as_ref().is_some_and(|it| it.oauth.token_url.is_none());
    if needs_url && credentials.get("client_secret").is_some() {
        let cause = "`client_secret` is for who gives tokens, and nothing says where that is";
        errors.push(DefError::new(&said.loc, cause).with_help(TOKEN_URL));
    }
}

const TOKEN_URL: &str = "as in `token_url: https://idp/oauth/token`";

/// Checks the place where tokens are asked for.
pub(super) fn check_token_url(said: &Node, errors: &mut Vec<DefError>) {
    let Some(node) = said.get("token_url") else { return };
    if url_at(node.text().unwrap_or_default()).is_none() {
        let cause = "`token_url` must be a URL of `http` or `https`, without a user or a password";
        errors.push(DefError::new(&node.loc, cause).with_help(TOKEN_URL));
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
