//! What does the text of a setting say?

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf, absolute};
use std::time::Duration;

use feature_defs::{Member, parse_duration, suggest};
use http::Uri;
use quern_inference::Provider;
use quern_store::objects::Location;
use quern_store::redis::Address;
use quern_store::segments::StoreAt;

type Result<T> = std::result::Result<T, String>;

/// Which online store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlineStore {
    /// RocksDB, in the data folder.
    RocksDb,
    /// Redis.
    Redis(Address),
}

/// Where decisions are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTo {
    /// Standard output, for whoever collects that.
    Stdout,
    /// A file, which only its owner reads.
    File(PathBuf),
}

/// Whether whoever asks must say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Nobody need.
    None,
    /// Everybody must.
    Required,
}

pub(super) fn auth(text: &str) -> Result<Auth> {
    match text {
        "none" => Ok(Auth::None),
        "required" => Ok(Auth::Required),
        _ => Err(format!("`{text}` is neither `none` nor `required`")),
    }
}

/// Folders of the repository, with commas between; none for all of it.
pub(super) fn folders(text: &str) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for folder in text.split(',').map(str::trim).filter(|folder| !folder.is_empty()) {
        let mut path = PathBuf::new();
        for part in Path::new(folder).components() {
            match part {
                Component::CurDir => {}
                Component::Normal(name) => path.push(name),
                _ => {
                    return Err(format!(
                        "`{folder}` is not a folder within the repository, such as `definitions/`"
                    ));
                }
            }
        }
        folders.push(path);
    }
    // The root is all of it.
    Ok(if folders.iter().any(|folder| folder.as_os_str().is_empty()) { Vec::new() } else { folders })
}

/// Folders of this machine, with commas between.
pub(super) fn roots(text: &str, base: &Path) -> Result<Vec<PathBuf>> {
    let folders = text.split(',').map(str::trim).filter(|folder| !folder.is_empty());
    let whole =
        |folder| absolute(base.join(folder)).map_err(|error| format!("`{folder}` is not a path: {error}"));
    folders.map(whole).collect()
}

/// Names, with commas between.
pub(super) fn hosts(text: &str) -> Result<Vec<String>> {
    let name = |host: &str| {
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        match is_name {
            true => Ok(host.trim_end_matches('.').to_ascii_lowercase()),
            false => Err(format!(
                "`{host}` is no name of a host, such as `quern.internal`, without scheme and port"
            )),
        }
    };
    text.split(',').map(|host| name(host.trim())).collect()
}

pub(super) fn whole(text: &str, range: RangeInclusive<usize>) -> Result<usize> {
    let number = text.replace('_', "").parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("`{text}` is not a whole number from {} to {}", range.start(), range.end()))
}

pub(super) fn time(text: &str, max: Duration) -> Result<Duration> {
    let time = Duration::from_micros(parse_duration(text)?.unsigned_abs());
    match !time.is_zero() && time <= max {
        true => Ok(time),
        false => Err(format!("`{text}` is not more than 0 and at most {}s", max.as_secs())),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("`{text}` is not an address and a port, such as `127.0.0.1:7400`"))
}

pub(super) fn collector(url: &str) -> Result<String> {
    let is_collector = |uri: &Uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path() == "/"
    };
    // Not the whole of it: it may hold a password.
    url.parse().ok().filter(is_collector).map(|_| url.to_owned()).ok_or_else(|| {
        "this is the URL of a collector that takes OTLP over gRPC in the clear, as `http://127.0.0.1:4317`".to_owned()
    })
}

pub(super) fn online(value: &str, base: &Path) -> Result<OnlineStore> {
    let schemes = ["redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"];
    match value.split_once("://") {
        None if value == "rocksdb" => Ok(OnlineStore::RocksDb),
        Some((scheme, _)) if schemes.contains(&scheme) => {
            Ok(OnlineStore::Redis(Address::parse(value, base)?))
        }
        // Not the whole of it: it may hold a password.
        Some((scheme, _)) => Err(format!("`{scheme}://` is unknown; {}", suggest(scheme, schemes))),
        None => Err(format!("`{value}` is unknown; this is `rocksdb`, or a URL as `redis://host:6379`")),
    }
}

/// A folder, or the URL of a bucket.
pub(super) fn store(value: &str, base: &Path) -> Result<StoreAt> {
    match value.contains("://") {
        true => Ok(StoreAt::Bucket(Location::parse_folder(value)?)),
        false => {
            let path =
                absolute(base.join(value)).map_err(|error| format!("`{value}` is not a path: {error}"))?;
            // Whether it is shared another setting says.
            Ok(StoreAt::Folder { path, shared: false })
        }
    }
}

pub(super) fn truth(text: &str) -> Result<bool> {
    text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))
}

/// Names, in order, with commas between.
pub(super) fn providers(text: &str) -> Result<Vec<Provider>> {
    text.split(',').map(|name| name.trim().parse()).collect()
}

/// Who is meant, with commas between.
pub(super) fn members(text: &str) -> Result<Vec<Member>> {
    text.split(',').map(|text| Member::parse(text.trim())).collect()
}

/// Addresses, with commas between.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let address = |name: &str| {
        name.trim().parse().map_err(|_| format!("`{name}` is not an address, such as `10.0.0.7`"))
    };
    text.split(',').map(address).collect()
}
