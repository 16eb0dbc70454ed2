//! Who asks, and whom does the client believe? A token, a certificate, a CA: as given, of the environment or of a file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::{Host, Url};

use crate::{Error, Result};

/// In `$XDG_CONFIG_HOME`, else `~/.config`: an object of the URLs of servers, each with what is shown to it.
const FILE: &str = "quern/credentials.json";
/// Of a server whose URL has no scheme.
const DEFAULT_PORT: u16 = 7400;

/// What one server is shown, and whom the client believes.
///
/// What is `None` is taken from `QUERN_TOKEN`, `QUERN_CA`, `QUERN_CERTIFICATE` and `QUERN_KEY`, else from
/// `~/.config/quern/credentials.json`, where that has the server. Certificate and key are of one place.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// An API key or a JWT. It goes over TLS, or to this machine.
    pub token: Option<String>,
    /// A PEM file: whom the server's certificate must be of, instead of whom the system believes.
    pub ca: Option<PathBuf>,
    /// A PEM file: the client's own certificate, and those between it and its authority after it.
    pub certificate: Option<PathBuf>,
    /// A PEM file: the key of that.
    pub key: Option<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is nothing for a log.
        f.debug_struct("Credentials")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish()
    }
}

impl Credentials {
    /// Finds what is not given, for the server at `url`.
    pub(crate) fn find(self, url: &Url) -> Result<Credentials> {
        self.find_in(url, |name| std::env::var(name).ok())
    }

    fn find_in(self, url: &Url, variable: impl Fn(&str) -> Option<String>) -> Result<Credentials> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let environment = Credentials {
            token: variable("QUERN_TOKEN"),
            ca: path("QUERN_CA"),
            certificate: path("QUERN_CERTIFICATE"),
            key: path("QUERN_KEY"),
        };
        let folder = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
        let file =
            folder.map_or_else(|| Ok(Credentials::default()), |folder| of_file(&folder.join(FILE), url));
        let found = self.or(environment).or(file?);
        found.check(url)?;
        Ok(found)
    }

    fn or(self, other: Credentials) -> Credentials {
        let (certificate, key) = if self.certificate.is_none() && self.key.is_none() {
            (other.certificate, other.key)
        } else {
            (self.certificate, self.key)
        };
        Credentials { token: self.token.or(other.token), ca: self.ca.or(other.ca), certificate, key }
    }

    fn check(&self, url: &Url) -> Result<()> {
        let is_tls = url.scheme() == "https";
        if self.certificate.is_some() != self.key.is_some() {
            let why = "certificate and key belong together: give both, or neither";
            return Err(Error::Invalid(why.to_owned()));
        }
        if self.certificate.is_some() && !is_tls {
            return Err(Error::Invalid(format!(
                "a certificate is shown over TLS alone, and {url} is not https://"
            )));
        }
        let Some(token) = &self.token else { return Ok(()) };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "the token is empty, or has blanks or characters that no header can carry";
            return Err(Error::Invalid(why.to_owned()));
        }
        if !is_tls && !is_loopback(url) {
            return Err(Error::Invalid(format!("the token would go to {url} in the clear: use https://")));
        }
        Ok(())
    }
}

/// Whether nothing leaves this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // A name such as `127.example.org` may lead anywhere.
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn of_file(path: &Path, url: &Url) -> Result<Credentials> {
    // A home that is not ours, as in a container, has nothing for us.
    let Ok(file) = File::open(path) else { return Ok(Credentials::default()) };
    let wrong = |why: String| Error::Invalid(format!("{}: {why}", path.display()));
    if may_others_open(&file).map_err(|error| wrong(error.to_string()))? {
        let path = path.display();
        return Err(wrong(format!("it holds secrets and others may open it: chmod 600 {path}")));
    }
    let servers: BTreeMap<String, Credentials> = serde_json::from_reader(file).map_err(|error| {
        // The library's own words would show what stands there.
        let (line, column) = (error.line(), error.column());
        let example = format!(r#"{{"{url}": {{"token": …, "ca": …, "certificate": …, "key": …}}}}"#);
        wrong(format!("line {line}, column {column}: expected {example}"))
    })?;
    for (server, found) in servers {
        let server_url =
            read(&server).ok_or_else(|| wrong(format!("`{server}` is not the URL of a server")))?;
        if server_url.origin() == url.origin() {
            return Ok(found);
        }
    }
    Ok(Credentials::default())
}

/// Reads `http://host:port`, `https://host`, `host:port` or `host`.
fn read(server: &str) -> Option<Url> {
    if server.contains("://") {
        return Url::parse(server).ok();
    }
    let mut url = Url::parse(&format!("http://{server}")).ok()?;
    if url.port().is_none() && !server.ends_with(":80") {
        url.set_port(Some(DEFAULT_PORT)).ok()?;
    }
    Some(url)
}

#[cfg(unix)]
fn may_others_open(file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

/// The system tells nothing about others here.
#[cfg(not(unix))]
fn may_others_open(_: &File) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://quern.corp:7400";

    fn find(given: Credentials, url: &str, variables: &[(&str, &str)]) -> Result<Credentials> {
        given.find_in(&Url::parse(url).unwrap(), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn token(token: &str) -> Credentials {
        Credentials { token: Some(token.to_owned()), ..Credentials::default() }
    }

    fn why(found: Result<Credentials>) -> String {
        found.unwrap_err().to_string()
    }

    #[test]
    fn what_is_given_counts_before_the_environment_and_that_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("quern")).unwrap();
        let file = folder.path().join(FILE);
        let text = r#"{"https://QUERN.corp:7400/": {"token": "c", "ca": "c.pem", "certificate": "c.crt", "key": "c.key"},
            "localhost": {"token": "d"}}"#;
        std::fs::write(&file, text).unwrap();
        let home = ("XDG_CONFIG_HOME", folder.path().to_str().unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(why(find(Credentials::default(), SERVER, &[home])).contains("chmod 600"));
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let told = |given, variables: &[(&str, &str)]| {
            let found = find(given, SERVER, variables).unwrap();
            let [ca, certificate, key] = [found.ca, found.certificate, found.key]
                .map(|path| path.map_or("-".to_owned(), |path| path.display().to_string()));
            format!("{} {ca} {certificate} {key}", found.token.as_deref().unwrap_or("-"))
        };
        assert_eq!(told(Credentials::default(), &[]), "- - - -");
        assert_eq!(told(Credentials::default(), &[home]), "c c.pem c.crt c.key");
        let variables = [
            home,
            ("QUERN_TOKEN", "b"),
            ("QUERN_CA", ""),
            ("QUERN_CERTIFICATE", "b.crt"),
            ("QUERN_KEY", "b.key"),
        ];
        assert_eq!(told(Credentials::default(), &variables), "b c.pem b.crt b.key");
        assert_eq!(told(token("a"), &variables), "a c.pem b.crt b.key");
        // Certificate and key are of one place.
        let half = Credentials { key: Some("a.key".into()), ..Credentials::default() };
        assert!(why(find(half, SERVER, &variables)).starts_with("certificate and key belong together"));
        // Another port is another server; a name without a scheme is one over HTTP.
        assert!(find(Credentials::default(), "https://quern.corp", &[home]).unwrap().token.is_none());
        let local = find(Credentials::default(), "http://localhost:7400", &[home]).unwrap();
        assert_eq!(local.token.as_deref(), Some("d"));
        for (text, part) in [
            ("[]", ": expected {"),
            (r#"{"https://quern.corp:7400": {"tokn": "secret"}}"#, ": expected {"),
            (r#"{"https://quern.corp:7400": "secret"}"#, ": expected {"),
            (r#"{"https://[": {}}"#, "is not the URL of a server"),
        ] {
            std::fs::write(&file, text).unwrap();
            let why = why(find(Credentials::default(), SERVER, &[home]));
            assert!(why.contains(part) && why.contains("credentials.json"), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_token_goes_over_tls_or_to_this_machine_and_nowhere_into_a_log() {
        for url in [SERVER, "http://localhost:1", "http://127.0.0.2", "http://[::1]:7400"] {
            find(token("secret"), url, &[]).unwrap();
        }
        for url in ["http://quern.corp", "http://192.0.2.1:7400", "http://127.0.0.1.quern.corp"] {
            let why = why(find(token("secret"), url, &[]));
            assert!(why.contains("in the clear") && !why.contains("secret"), "{why}");
        }
        for wrong in ["", "two words", "secret\r\nx-admin: 1", "sécret"] {
            let why = why(find(token(wrong), SERVER, &[]));
            assert!(why.starts_with("the token is empty") && !why.contains("cret"), "{why}");
        }
        let both =
            Credentials { certificate: Some("a.crt".into()), key: Some("a.key".into()), ..token("secret") };
        assert!(!format!("{both:?}").contains("secret"), "{both:?}");
        assert!(why(find(both, "http://localhost", &[])).contains("over TLS alone"));
    }
}
