//! How is a server asked over HTTP that a connection names?

use std::sync::Arc;
use std::time::Duration;

use feature_defs::{Connection, Reach, Server};
use quern_base::addresses;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to begin an answer, and then to send more of it.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take to its last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(900);
/// As much of what it says as a person is shown.
const SAID_CHARS_MAX: usize = 300;

/// Leads to the server that a connection names, after DNS, at each connect.
struct Resolver(String);

impl Resolve for Resolver {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The URL has the port.
            let found = addresses::resolve((&host, 0), &[&host]).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Who asks `server`, and no other one. No proxy: what is connected to is what was looked at.
///
/// # Errors
/// Where the system has no room for one.
pub fn client(server: &Server) -> reqwest::Result<Client> {
    let client = Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT);
    let client = client.read_timeout(READ_TIMEOUT).timeout(REQUEST_TIMEOUT);
    client.dns_resolver(Arc::new(Resolver(server.host.clone()))).build()
}

/// The one server that a connection leads to, and where its API begins below `path`.
///
/// # Errors
/// Where it leads elsewhere.
pub fn api_of(connection: &Connection, path: &str) -> Result<(Server, Url), String> {
    let Reach::Servers(servers) = &connection.reach else {
        return Err(format!("connection `{}` leads to no server", connection.name));
    };
    let uri = servers.first().map(|server| format!("{server}/{}", path.trim_matches('/')));
    server_at(&uri.unwrap_or_default())
}

/// The server that a URI leads to, and where its API begins.
///
/// # Errors
/// What is wrong with it, without repeating it: it may hold a password.
pub fn server_at(uri: &str) -> Result<(Server, Url), String> {
    let form = || "must be a URL as `https://host:5000` or `https://host/prefix`".to_owned();
    let (scheme, rest) =
        uri.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)).ok_or_else(form)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(Reach::Servers(servers)) = Reach::parse(&format!("{scheme}://{authority}")) else {
        return Err("must hold no user and no password, and one host".to_owned());
    };
    let [server] = <[Server; 1]>::try_from(servers).map_err(|_| form())?;
    if path.contains(['?', '#', '\\', '%']) {
        return Err(form());
    }
    let path = path.trim_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    let base: Url = format!("{server}/{path}{slash}").parse().map_err(|_| form())?;
    // A name that the client would read as an address is none to who allowed it.
    match base.host_str().is_some_and(|host| host.trim_matches(['[', ']']) == server.host) {
        true => Ok((server, base)),
        false => Err(form()),
    }
}

/// The innermost cause: what is around it only says that a request failed.
pub fn causes(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    on_one_line(&innermost.to_string())
}

/// What a server says, for people.
pub fn on_one_line(said: &str) -> String {
    // What turns a line around, or the terminal on which it is shown, is no word.
    let is_word = |letter: &char| {
        !letter.is_control()
            && !matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
    };
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(is_word).take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_tracking_server_is_one_host() {
        let shown = [
            "http://127.0.0.1:5000",
            "https://MLflow.corp/prefix/",
            "http://[::1]:5000/",
            "http://me:secret@mlflow",
            "http://a,b",
            "http://2130706433/",
            "http://mlflow/?x",
            "sqlite:///mlflow.db",
            "databricks",
        ]
        .map(|uri| match server_at(uri) {
            Ok((server, base)) => format!("{server} {base}"),
            Err(cause) => cause,
        });
        expect![[r#"
            http://127.0.0.1:5000 http://127.0.0.1:5000/
            https://mlflow.corp:443 https://mlflow.corp/prefix/
            http://[::1]:5000 http://[::1]:5000/
            must hold no user and no password, and one host
            must be a URL as `https://host:5000` or `https://host/prefix`
            must be a URL as `https://host:5000` or `https://host/prefix`
            must be a URL as `https://host:5000` or `https://host/prefix`
            must be a URL as `https://host:5000` or `https://host/prefix`
            must be a URL as `https://host:5000` or `https://host/prefix`"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
        let name: Name = "mlflow.corp".parse().unwrap();
        let refused = Resolver("127.1".to_owned()).resolve(name).await.err().unwrap().to_string();
        assert!(refused.contains("`127.1` leads to 127.0.0.1, which is this machine itself"), "{refused}");
    }
}
