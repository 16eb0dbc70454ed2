//! Where is Redis, and how is it spoken to?
//!
//! ```text
//! redis://[[user]:password@]host[:port][,host[:port]…][/database][?option=value&…]
//! ```
//!
//! `rediss://` speaks TLS; `redis+cluster://` and `rediss+cluster://` say what `?cluster=true` says.
//! `redis+sentinel://` names Sentinels, and after them the master that they watch:
//! `redis+sentinel://a:26379,b:26379/mymaster[/database]`; user and password are the master's. A user, a password or a
//! host with a sign of the URL itself writes it as `%40`.
//!
//! With `?replicas=prefer` look-ups go to replicas. Of several hosts that are neither Sentinels nor members of a
//! cluster the first is then the primary, and the others are its replicas; where one host is named, it says which it
//! has.

use std::fmt;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use feature_defs::{parse_duration, suggest};
use redis::{ConnectionInfo, IntoConnectionInfo};

/// Names of options.
const OPTIONS: [&str; 5] = ["ca", "cluster", "hedge", "prefix", "replicas"];
const PREFIX_DEFAULT: &str = "quern";
const PREFIX_LENGTH_MAX: usize = 64;
/// The clock of the runtime knows no less.
const HEDGE_MIN_US: i64 = 1_000;

/// One Redis, or one cluster, and the part of its keys that is ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// A URL for each server named, as the client takes it, with user and password.
    servers: Vec<String>,
    /// The same without them, to be shown.
    shown: String,
    /// Whether the servers are members of a cluster.
    pub cluster: bool,
    /// The name of the master that the servers, which are Sentinels, watch.
    sentinel: Option<String>,
    login: Login,
    /// What our keys begin with: several Querns share a Redis by different ones.
    pub prefix: String,
    /// The certificate, PEM, that the servers' certificates are signed with; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Whether look-ups go to replicas where there are some.
    pub replicas: bool,
    /// After how long a look-up that has no answer is asked of another copy as well.
    pub hedge: Option<Duration>,
}

/// How a server is spoken to that others say where to find.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    /// Scheme and, where there is one, user: what is ahead of the host in its URL.
    ahead: String,
    database: String,
}

impl Address {
    /// Reads a URL; a relative path in it starts at `base`.
    ///
    /// # Errors
    /// Says what is wrong, and what would be right, in words that can follow the name of a setting.
    pub fn parse(text: &str, base: &Path) -> Result<Address, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("`{text}` is not a URL"))?;
        let (plain, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let (cluster, watched) = (kind == "cluster", kind == "sentinel");
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if hosts.is_empty() {
            return Err(format!("`{scheme}://` names no server; write `{scheme}://host:6379`"));
        }
        let slash = if database.is_empty() { "" } else { "/" };
        let shown = format!("{scheme}://{hosts}{slash}{database}");
        let (master, database) = match watched {
            true => database.split_once('/').unwrap_or((database, "")),
            false => ("", database),
        };
        if watched && master.is_empty() {
            return Err(format!("`{scheme}://` names no master; write `{scheme}://host:26379/mymaster`"));
        }
        let server = |host: &str| match watched {
            true => format!("{plain}://{host}/"),
            false => format!("{plain}://{user}{host}/{database}"),
        };
        let login = Login { ahead: format!("{plain}://{user}"), database: database.to_owned() };
        let mut address = Address {
            servers: hosts.split(',').map(server).collect(),
            shown,
            cluster,
            sentinel: watched.then(|| master.to_owned()),
            login,
            prefix: PREFIX_DEFAULT.to_owned(),
            ca: None,
            replicas: false,
            hedge: None,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            address.set(name, value, base)?;
        }
        address.check(plain == "rediss", database)?;
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str, base: &Path) -> Result<(), String> {
        let flag =
            || value.parse().map_err(|_| format!("option `{name}` is `true` or `false`, not `{value}`"));
        match name {
            "cluster" => self.cluster = flag()?,
            "ca" => {
                self.ca = Some(absolute(base.join(value)).map_err(|error| format!("option `ca`: {error}"))?)
            }
            "prefix" => {
                let sound = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
                if value.is_empty() || value.len() > PREFIX_LENGTH_MAX || !value.chars().all(sound) {
                    return Err(format!(
                        "option `prefix` is 1 to {PREFIX_LENGTH_MAX} letters, digits and signs of `-_.:`, not `{value}`"
                    ));
                }
                self.prefix = value.to_owned();
            }
            "replicas" => match value {
                "prefer" => self.replicas = true,
                _ => return Err(format!("option `replicas` is `prefer`, not `{value}`")),
            },
            "hedge" => {
                let after = parse_duration(value).map_err(|cause| format!("option `hedge`: {cause}"))?;
                if after < HEDGE_MIN_US {
                    return Err(format!("option `hedge` is `1ms` or more, not `{value}`"));
                }
                self.hedge = Some(Duration::from_micros(after.unsigned_abs()));
            }
            _ => return Err(format!("there is no option `{name}`; {}", suggest(name, OPTIONS))),
        }
        Ok(())
    }

    fn check(&self, tls: bool, database: &str) -> Result<(), String> {
        if self.servers.len() > 1 && !self.cluster && self.sentinel.is_none() && !self.replicas {
            return Err(
                "several servers are a cluster, or a primary and its replicas; add `?cluster=true` or \
                        `?replicas=prefer`"
                    .to_owned(),
            );
        }
        if self.cluster && self.sentinel.is_some() {
            return Err("a cluster has no Sentinels; write `redis+cluster://`".to_owned());
        }
        if self.sentinel.is_some() {
            self.at("localhost", 6379)?;
        }
        if self.cluster && !matches!(database, "" | "0") {
            return Err(format!("a cluster has no database `{database}`; use option `prefix` instead"));
        }
        if self.ca.is_some() && !tls {
            return Err("option `ca` needs TLS; write `rediss://`".to_owned());
        }
        self.connections().map(drop)
    }

    /// The name of the master that the servers, which are Sentinels, watch.
    pub(super) fn watched(&self) -> Option<&str> {
        self.sentinel.as_deref()
    }

    /// A master or a replica, where others say that it is.
    pub(super) fn at(&self, host: &str, port: u16) -> Result<ConnectionInfo, String> {
        let Login { ahead, database } = &self.login;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("{ahead}{host}:{port}/{database}");
        url.into_connection_info().map_err(|error| format!("`{self}` is not understood: {error}"))
    }

    /// The replicas that the URL names; none where it leaves that to the primary.
    pub(super) fn named_replicas(&self) -> Result<Option<Vec<ConnectionInfo>>, String> {
        match self.replicas && self.servers.len() > 1 && self.sentinel.is_none() && !self.cluster {
            true => self.connections().map(|servers| Some(servers[1..].to_vec())),
            false => Ok(None),
        }
    }

    /// The servers, as the client takes them.
    pub(super) fn connections(&self) -> Result<Vec<ConnectionInfo>, String> {
        let servers = self.servers.iter().map(|url| url.as_str().into_connection_info());
        servers.collect::<Result<_, _>>().map_err(|error| format!("`{self}` is not understood: {error}"))
    }
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("url", &self.shown)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, String> {
        Address::parse(text, Path::new("/shop"))
    }

    #[test]
    fn a_url_says_where_and_how() {
        let one = parse("redis://:s3cret@cache:6380/2?prefix=shop").unwrap();
        assert_eq!((one.cluster, one.prefix.as_str(), one.ca.clone()), (false, "shop", None));
        let server = &one.connections().unwrap()[0];
        assert_eq!(server.addr().to_string(), "cache:6380");
        assert_eq!((server.redis_settings().db(), server.redis_settings().password()), (2, Some("s3cret")));
        assert_eq!(one.to_string(), "redis://cache:6380/2", "a password is shown to nobody");
        assert!(!format!("{one:?}").contains("s3cret"));
        let many = parse("rediss+cluster://u:p%40@a:1,b:2?ca=ca.pem").unwrap();
        assert!(many.cluster);
        assert_eq!(many.ca, Some("/shop/ca.pem".into()));
        let servers = many.connections().unwrap();
        assert_eq!(servers.iter().map(|s| s.addr().to_string()).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(servers[1].redis_settings().password(), Some("p@"));
        assert!(parse("redis://a,b?cluster=true").unwrap().cluster);
        let watched = parse("redis+sentinel://u:s3cret@a:1,b:2/shop/3").unwrap();
        assert_eq!(
            (watched.watched(), watched.to_string().as_str()),
            (Some("shop"), "redis+sentinel://a:1,b:2/shop/3")
        );
        let sentinels = watched.connections().unwrap();
        assert_eq!((sentinels.len(), sentinels[0].redis_settings().password()), (2, None));
        let master = watched.at("::1", 7).unwrap();
        assert_eq!((master.addr().to_string().as_str(), master.redis_settings().db()), ("::1:7", 3));
        assert_eq!(master.redis_settings().password(), Some("s3cret"));
        let copies = parse("redis://:s3cret@a:1,b:2?replicas=prefer&hedge=5ms").unwrap();
        assert_eq!((copies.replicas, copies.hedge), (true, Some(Duration::from_millis(5))));
        let named = copies.named_replicas().unwrap().unwrap();
        assert_eq!((named.len(), named[0].addr().to_string().as_str()), (1, "b:2"));
        assert_eq!(named[0].redis_settings().password(), Some("s3cret"));
        assert!(parse("redis://a:1?replicas=prefer").unwrap().named_replicas().unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        for (url, said) in [
            ("redis://", "names no server; write `redis://host:6379`"),
            ("redis+sentinel://a:1", "names no master; write `redis+sentinel://host:26379/mymaster`"),
            ("redis+sentinel://a:1/m?cluster=true", "a cluster has no Sentinels"),
            ("redis+sentinel://a:1/m/x", "is not understood"),
            ("redis://a:1,b:2", "add `?cluster=true` or `?replicas=prefer`"),
            ("redis://a?replicas=only", "option `replicas` is `prefer`, not `only`"),
            ("redis://a?hedge=5", "`5` has no unit"),
            ("redis://a?hedge=0s", "option `hedge` is `1ms` or more, not `0s`"),
            ("redis://a/1?cluster=true", "a cluster has no database `1`"),
            ("redis://a?prefx=x", "there is no option `prefx`; did you mean `prefix`?"),
            ("redis://a?prefix={x}", "letters, digits and signs of `-_.:`"),
            ("redis://a?cluster=yes", "`true` or `false`, not `yes`"),
            ("redis://a?ca=x.pem", "write `rediss://`"),
            ("redis://a:b", "is not understood"),
            ("redis://a/x", "is not understood"),
        ] {
            let found = parse(url).unwrap_err();
            assert!(found.contains(said), "{url}: {found}");
        }
    }
}
