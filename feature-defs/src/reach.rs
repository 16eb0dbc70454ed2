//! Where does a URL lead over the network, and does another one lead there too?
//!
//! What a definition names is compared with what an administrator allows before anything is asked of the network. So a
//! URL must say the same to whoever reads it: what a client of an object store or of a broker could take for another
//! host, bucket or folder is refused here, and not mended.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Broker;
use crate::shape::OBJECT_SCHEMES;

/// What the URL of a server begins with, and the port unless it is given.
pub(crate) const SERVER_SCHEMES: [(&str, u16); 9] = [
    (KAFKA, 9092),
    ("redis", 6379),
    ("rediss", 6379),
    ("valkey", 6379),
    ("valkeys", 6379),
    (GRPC[0], 8001),
    (GRPC[1], 443),
    ("http", 80),
    ("https", 443),
];
const KAFKA: &str = "kafka";
/// Those that a stream of Redis may have.
const REDIS: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];
/// What inference servers are spoken with, in the open and over TLS.
const GRPC: [&str; 2] = ["grpc", "grpcs"];
/// What files are given over, and servers of several kinds are asked over.
pub(crate) const HTTP: [&str; 2] = ["http", "https"];
/// The schemes of URLs that name an account beside the container.
const WITH_ACCOUNT: [&str; 3] = ["az", "abfs", "abfss"];
const ACCOUNT_HOSTS: [&str; 4] = [
    "dfs.core.windows.net",
    "blob.core.windows.net",
    "dfs.fabric.microsoft.com",
    "blob.fabric.microsoft.com",
];

const WHO: &str = "must hold neither a user nor a password: a stream says them in its own `servers`, and for an object \
                   store the environment of the server does";
const NO_SERVER: &str = "names no server as `host:port`";

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reach {
    /// To an object, or to those that lie below it as in a folder.
    Objects {
        /// With the scheme, as in `s3://models`.
        bucket: String,
        /// Part by part, decoded.
        path: Vec<String>,
    },
    /// To a file that a server gives over HTTP, or to those that lie below it as in a folder.
    Files {
        /// Which server.
        server: Server,
        /// Part by part, decoded; never empty: all of a server is [`Reach::Servers`].
        path: Vec<String>,
    },
    /// To servers.
    Servers(Vec<Server>),
}

/// A server of a broker, or one that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// What is spoken with it, as `kafka` or `rediss`.
    pub scheme: &'static str,
    /// A name, in small letters, or an address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Reach {
    /// Reads a URL such as `s3://bucket/folder/`, `kafka://a:9092,b:9092`, `redis://host:6379`, `https://host/` or
    /// `https://host/folder/`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: it may be a password.
    pub fn parse(text: &str) -> Result<Reach, String> {
        check_plain(text)?;
        let (scheme, rest) = text.split_once("://").ok_or("is no URL")?;
        if OBJECT_SCHEMES.contains(&scheme) {
            return objects(scheme, rest);
        }
        let scheme = server_scheme(scheme).ok_or("is a URL of an unknown scheme")?;
        if let Some((authority, path)) = rest.split_once('/')
            && HTTP.contains(&scheme.0)
            && !path.is_empty()
        {
            return files(server(scheme, authority)?, path);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let servers = rest.split(',').map(|text| server(scheme, text));
        Ok(Reach::Servers(servers.collect::<Result<_, _>>()?))
    }

    /// Whether all that `other` leads to is here, at whole parts of a path.
    pub fn covers(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Objects { bucket, path }, Reach::Objects { bucket: its, path: below }) => {
                bucket == its && below.starts_with(path)
            }
            (Reach::Servers(servers), Reach::Servers(others)) => {
                others.iter().all(|other| servers.contains(other))
            }
            (Reach::Servers(servers), Reach::Files { server, .. }) => servers.contains(server),
            (Reach::Files { server, path }, Reach::Files { server: its, path: below }) => {
                server == its && below.starts_with(path)
            }
            _ => false,
        }
    }

    /// How narrow it is: of several that cover the same, the one with the longest path is meant.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Reach::Objects { path, .. } | Reach::Files { path, .. } => path.len(),
            Reach::Servers(_) => 0,
        }
    }
}

impl Server {
    /// Whether it is asked over HTTP.
    pub(crate) fn is_of_http(&self) -> bool {
        HTTP.contains(&self.scheme)
    }

    /// Whether it is a broker of Kafka.
    pub(crate) fn is_of_kafka(&self) -> bool {
        self.scheme == KAFKA
    }

    /// The servers of a stream. Whoever reads it connects to these, and not to what else the text may say.
    ///
    /// # Errors
    /// As [`Reach::parse`].
    pub(crate) fn of_stream(broker: Broker, text: &str) -> Result<Vec<Server>, String> {
        check_plain(text)?;
        match broker {
            Broker::Kafka => {
                text.split(',').map(|text| server((KAFKA, 9092), text.trim_matches(' '))).collect()
            }
            // What one reader takes for a part of the password, another takes for the end of it.
            Broker::Redis if text.contains(|c: char| c.is_whitespace() || matches!(c, '#' | '\\')) => {
                Err("has a blank, `#` or `\\`; in a password they are written `%20`, `%23` and `%5C`"
                    .to_owned())
            }
            Broker::Redis => {
                let named =
                    text.split_once("://").and_then(|(scheme, rest)| Some((server_scheme(scheme)?, rest)));
                let (scheme, rest) = named
                    .filter(|((scheme, _), _)| REDIS.contains(scheme))
                    .ok_or("must be a URL as `redis://host:6379` or `rediss://host:6379`")?;
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = authority.rsplit('@').next().unwrap_or_default();
                Ok(vec![server(scheme, host)?])
            }
        }
    }

    /// The inference server at a URL such as `grpc://triton:8001`.
    ///
    /// # Errors
    /// As [`Reach::parse`].
    pub(crate) fn of_inference(text: &str) -> Result<Server, String> {
        let wanted = "must be a URL as `grpc://host:8001` or `grpcs://host:443`: of a model on another server only gRPC is \
                      spoken";
        match Reach::parse(text)? {
            Reach::Servers(servers) => match <[Server; 1]>::try_from(servers) {
                Ok([server]) if GRPC.contains(&server.scheme) => Ok(server),
                _ => Err(wanted.to_owned()),
            },
            Reach::Objects { .. } | Reach::Files { .. } => Err(wanted.to_owned()),
        }
    }

    /// Whether it is spoken with over TLS, where it is an inference server.
    pub fn is_secured(&self) -> bool {
        self.scheme == GRPC[1]
    }

    /// Its host and port, as in `host:9092` or `[::1]:9092`.
    pub fn address(&self) -> String {
        let Server { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }
}

/// As a connection names it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address())
    }
}

/// Parsers of URLs leave these out, and would read another text than the one that was looked at.
fn check_plain(text: &str) -> Result<(), String> {
    match text.trim() == text && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err("has a blank at an end, or a control character".to_owned()),
    }
}

fn server_scheme(name: &str) -> Option<(&'static str, u16)> {
    SERVER_SCHEMES.into_iter().find(|(scheme, _)| *scheme == name)
}

fn objects(scheme: &str, rest: &str) -> Result<Reach, String> {
    if rest.contains(['?', '#']) {
        return Err("has `?` or `#`; in a key they are written `%3F` and `%23`".to_owned());
    }
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_bucket(scheme, bucket)?;
    Ok(Reach::Objects { bucket: format!("{scheme}://{bucket}"), path: parts(path)? })
}

fn files(server: Server, path: &str) -> Result<Reach, String> {
    // Who reads a URL of HTTP takes a `\` for a `/`.
    if path.contains(['?', '#', '\\']) {
        return Err("has `?`, `#` or `\\`; in a path they are written `%3F`, `%23` and `%5C`".to_owned());
    }
    Ok(Reach::Files { server, path: parts(path)? })
}

fn check_bucket(scheme: &str, bucket: &str) -> Result<(), String> {
    let account_in = |host: &str| {
        let (account, host) = host.split_once('.').unwrap_or_default();
        is_name(account) && ACCOUNT_HOSTS.contains(&host)
    };
    match bucket.split_once('@') {
        None if is_name(bucket) => Ok(()),
        None => Err("must name a bucket of letters, digits, `-`, `_` and `.`, without a port".to_owned()),
        Some((container, host))
            if WITH_ACCOUNT.contains(&scheme) && is_name(container) && account_in(host) =>
        {
            Ok(())
        }
        Some(_) => Err(WHO.to_owned()),
    }
}

/// The decoded parts of a path, none of which is empty or leads elsewhere.
fn parts(path: &str) -> Result<Vec<String>, String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    // It ends with a slash, or is empty.
    parts.pop_if(|last| last.is_empty());
    let part = |text: &&str| {
        let part = decoded(text).ok_or("has a `%` that encodes no letter")?;
        let leads =
            ["", ".", ".."].contains(&part.as_str()) || part.contains('/') || part.contains(char::is_control);
        match leads {
            true => Err("has a part that is empty, `.`, `..` or an encoded `/`".to_owned()),
            false => Ok(part),
        }
    };
    parts.iter().map(part).collect()
}

/// None where a `%` stands for no byte, or the bytes are no text.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn server((scheme, default_port): (&'static str, u16), text: &str) -> Result<Server, String> {
    if text.contains('@') {
        return Err(WHO.to_owned());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(NO_SERVER)?;
            (host.parse::<Ipv6Addr>().map_err(|_| NO_SERVER)?.to_string(), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let host = host.to_ascii_lowercase();
            (host.parse::<Ipv4Addr>().map_or(host, |address| address.to_string()), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| NO_SERVER)?
        }
        _ => return Err(NO_SERVER.to_owned()),
    };
    match (host.contains(':') || is_name(&host)) && port != 0 {
        true => Ok(Server { scheme, host, port }),
        false => Err(NO_SERVER.to_owned()),
    }
}

/// Whether `text` can only be read as a name: of a host, a bucket, an account.
fn is_name(text: &str) -> bool {
    let ends = [text.chars().next(), text.chars().next_back()];
    ends.into_iter().all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
