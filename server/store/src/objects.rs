//! What is in this object of S3, Google Cloud Storage or Azure, or in this file that a server gives over HTTP?
//!
//! Credentials, region and endpoint are said by a connection ([`StorageOptions`]), or taken from this process's
//! environment, under the names that each cloud's own tools know: `AWS_ACCESS_KEY_ID`,
//! `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, … None of them is ever part of a URL, since URLs are
//! kept and shown.

mod bucket;
mod client;
mod copies;
mod reading;
mod web;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use feature_defs::{Connection, Reach, StorageOptions};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStoreScheme};
use quern_http::server_at;
use serde_json::Value;
use url::{Position, Url};

pub use self::bucket::{Bucket, Listed};
pub use self::reading::Reads;
pub(crate) use self::reading::{Fetched, Object, Objects};
use self::web::Web;

/// How long an object store may take to begin an answer, all attempts together, and then to send more of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// As much of what a store says as a person is shown.
const SAID_CHARS_MAX: usize = 300;

/// An object, or what others begin their names with, as a folder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    url: Url,
    cloud: Cloud,
    path: Path,
    /// What its connection says.
    storage: Arc<StorageOptions>,
    /// What is known besides the environment, by the names of its variables.
    told: Vec<(String, String)>,
    /// Keys that a catalog has lent.
    lent: Lent,
}

/// Keys for a while, by the names that `object_store` has for them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lent(Arc<Vec<(&'static str, String)>>);

/// Keys do not end up in logs.
impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Lent {
    /// Those that a catalog of Iceberg says, by its names for them.
    pub(crate) fn of(config: &HashMap<String, Value>) -> Lent {
        let of_catalogs = [
            ("s3.access-key-id", "access_key_id"),
            ("s3.secret-access-key", "secret_access_key"),
            ("s3.session-token", "session_token"),
        ];
        let said = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut keys: Vec<_> =
            of_catalogs.iter().filter_map(|(name, key)| Some((*key, said(name)?))).collect();
        let sas = config.iter().find(|(name, _)| name.starts_with("adls.sas-token."));
        keys.extend(sas.and_then(|(_, token)| Some(("sas_token", token.as_str()?.to_owned()))));
        Lent(Arc::new(keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Cloud {
    Amazon,
    Google,
    Azure,
    /// None: files are read there, one by one.
    Web(Arc<Web>),
}

/// What is in an object.
#[derive(Debug, Clone)]
pub struct Content {
    /// All of it.
    pub bytes: Bytes,
    /// Another one where the bytes are others; a store need not give any.
    pub e_tag: Option<String>,
}

/// Why an object is not read, and how to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What is wrong; names the URL.
    pub cause: String,
    /// The way out.
    pub help: String,
    /// Whether there may be other objects below it: it is not there, or we may not know that it is not.
    pub perhaps_a_folder: bool,
    /// Whether another time it may be read.
    pub again: bool,
}

impl Unread {
    /// Below a folder lies an object whose key no path can be.
    fn odd(folder: &Location, why: &object_store::path::Error) -> Unread {
        Unread {
            cause: format!("`{folder}` cannot be listed, for the key of an object there is no path: {why}"),
            help: "rename that object, or name a narrower folder".to_owned(),
            perhaps_a_folder: false,
            again: false,
        }
    }

    /// It is not the one that was listed any more.
    fn changed(name: &str) -> Unread {
        Unread {
            cause: format!("`{name}` changed while it was being read"),
            help: "write new rows into new files, then run again".to_owned(),
            perhaps_a_folder: false,
            again: true,
        }
    }
}

impl Location {
    /// Reads a URL such as `s3://bucket/key`, `gs://bucket/key`, `az://container/key` or
    /// `abfss://container@account.dfs.core.windows.net/key`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Location, String> {
        let location = Location::parse_folder(text)?;
        match location.path.as_ref().is_empty() {
            true => Err(format!("`{text}` names no object in its bucket")),
            false => Ok(location),
        }
    }

    /// The same, which may be all of a bucket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_folder(text: &str) -> Result<Location, String> {
        let wrong = |cause: &str| format!("`{text}` {cause}");
        let url: Url = text.parse().map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        // Not repeated: it may be a password.
        if url.password().is_some() {
            return Err(
                "a URL must not hold a password; give it in the environment of the process".to_owned()
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "a URL of an object has no `?` or `#`; in a key they are written `%3F` and `%23`".to_owned()
            );
        }
        let (cloud, path) = match ObjectStoreScheme::parse(&url) {
            Ok((ObjectStoreScheme::AmazonS3, path)) => (Cloud::Amazon, path),
            Ok((ObjectStoreScheme::GoogleCloudStorage, path)) => (Cloud::Google, path),
            Ok((ObjectStoreScheme::MicrosoftAzure, path)) => (Cloud::Azure, path),
            _ => return Err(wrong("is not the URL of an object, as in `s3://bucket/key`")),
        };
        Ok(Location { url, cloud, path, storage: Arc::default(), told: Vec::new(), lent: Lent::default() })
    }

    /// The file at a URL such as `https://host/folder/file.csv`, asked for as `connection` says, which leads there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn over_http(text: &str, connection: &Connection) -> Result<Location, String> {
        // Not repeated: it may hold a password.
        let reach = Reach::parse(text).map_err(|cause| format!("the URL of a file {cause}"))?;
        let Reach::Files { server, path } = reach else {
            return Err(format!("`{text}` names no file on its server"));
        };
        let (server, mut url) =
            server_at(&server.to_string()).map_err(|cause| format!("the server of `{text}` {cause}"))?;
        // What was compared is what is asked for, however its URL is written.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&path);
        }
        let path = Path::from_url_path(url.path()).map_err(|error| format!("`{text}`: {error}"))?;
        let cloud = Cloud::Web(Arc::new(Web { server, within: connection.reach.clone() }));
        let storage = Arc::new(connection.storage.clone());
        Ok(Location { url, cloud, path, storage, told: Vec::new(), lent: Lent::default() })
    }

    /// The same in S3, with what the environment does not say, by the names of its variables: for a process that asks
    /// several stores.
    #[must_use]
    pub fn told(mut self, variables: &[(&str, String)]) -> Location {
        self.told = variables.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        self
    }

    /// The same, asked as a connection says.
    #[must_use]
    pub fn through(self, storage: StorageOptions) -> Location {
        Location { storage: Arc::new(storage), ..self }
    }

    /// The same with keys that were lent, where its connection says none.
    pub(crate) fn with(self, lent: Lent) -> Location {
        Location { lent, ..self }
    }

    /// What `name`, a relative path, is called below it.
    #[must_use]
    pub fn join(&self, name: &str) -> Location {
        let mut below = self.clone();
        for part in name.split('/').filter(|part| !["", "."].contains(part)) {
            below.path = below.path.clone().join(part);
            if let Ok(mut segments) = below.url.path_segments_mut() {
                segments.pop_if_empty().push(part);
            }
        }
        below
    }

    /// What `name`, a relative path, is called beside it.
    #[must_use]
    pub fn beside(&self, name: &str) -> Location {
        let mut folder = self.clone();
        folder.path = folder.path.parent().unwrap_or_default();
        if let Ok(mut segments) = folder.url.path_segments_mut() {
            segments.pop_if_empty().pop();
        }
        folder.join(name)
    }

    /// The folder that an object lies in, and its name there.
    pub fn split(&self) -> (Location, String) {
        (self.beside(""), self.path.filename().unwrap_or_default().to_owned())
    }

    /// The scheme and the bucket, with the account where the URL names it; or the server, with its port.
    fn bucket(&self) -> &str {
        &self.url[..Position::BeforePath]
    }

    /// The same for another object of its bucket.
    fn of(&self, path: &Path) -> Location {
        let mut other = self.clone();
        other.path = path.clone();
        if let Ok(mut segments) = other.url.path_segments_mut() {
            segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
        }
        other
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of what others lie below, with a slash at its end.
    pub(crate) fn folder_url(&self) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("");
        }
        url
    }

    /// What lies at another URL of its bucket, where that is a key.
    pub(crate) fn at_url(&self, url: &Url) -> Option<Location> {
        let path = Path::from_url_path(url.path()).ok()?;
        Some(Location { url: url.clone(), path, ..self.clone() })
    }

    /// How many parts its path has: none for all of a bucket.
    pub(crate) fn depth(&self) -> usize {
        self.path.parts().count()
    }

    /// What lies above it, the nearest first, down to so many parts.
    pub(crate) fn above(&self, parts_min: usize) -> Vec<Location> {
        let parts: Vec<_> = self.path.parts().map(|part| part.as_ref().to_owned()).collect();
        let counts = (parts_min..parts.len()).rev();
        counts.map(|count| self.of(&Path::from_iter(parts[..count].iter().cloned()))).collect()
    }

    /// Reads the object, unless its tag says that it still is what is `known` of it.
    ///
    /// # Errors
    /// Where it is not there, is larger than `bytes_max`, may not be read, or the store does not answer.
    pub async fn read(&self, bytes_max: u64, known: Option<Content>) -> Result<Content, Unread> {
        let store = self.store().map_err(|error| self.unread(&error))?;
        let if_none_match = known.as_ref().and_then(|known| known.e_tag.clone());
        let options = GetOptions { if_none_match, ..GetOptions::default() };
        match (in_time(store.get_opts(&self.path, options)).await, known) {
            (Ok(Ok(found)), _) => self.content(found, bytes_max).await,
            (Ok(Err(object_store::Error::NotModified { .. })), Some(known)) => Ok(known),
            (Ok(Err(error)), _) => Err(self.unread(&error)),
            (Err(late), _) => Err(self.failed(&late)),
        }
    }

    async fn content(&self, found: GetResult, bytes_max: u64) -> Result<Content, Unread> {
        let (size, e_tag) = (found.meta.size, found.meta.e_tag.clone());
        if size > bytes_max {
            return Err(Unread {
                cause: format!("`{self}` is larger than {bytes_max} bytes: it has {size}"),
                help: "name a smaller file".to_owned(),
                perhaps_a_folder: false,
                again: false,
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        self.body(found, size, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .await?;
        Ok(Content { bytes: bytes.into(), e_tag })
    }

    /// Hands on what comes of an answer, which has so many bytes: whatever is sent, no more are taken.
    async fn body(
        &self,
        found: GetResult,
        bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Unread>,
    ) -> Result<(), Unread> {
        let (mut parts, mut came) = (found.into_stream(), 0);
        loop {
            let part = in_time(parts.try_next()).await.map_err(|late| self.failed(&late))?;
            let Some(part) = part.map_err(|error| self.unread(&error))? else { break };
            came += part.len() as u64;
            if came > bytes {
                return Err(self.failed(&format!("more than {bytes} bytes came, which it was asked for")));
            }
            take(&part)?;
        }
        match came == bytes {
            true => Ok(()),
            false => Err(self.failed(&format!("{came} bytes came of {bytes}"))),
        }
    }

    /// The variables that say who we are.
    fn credentials(&self) -> &'static str {
        match &self.cloud {
            Cloud::Amazon => {
                "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for another store than Amazon's, \
                 `AWS_ENDPOINT_URL`"
            }
            Cloud::Google => "`GOOGLE_APPLICATION_CREDENTIALS`",
            Cloud::Azure => "`AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY`",
            Cloud::Web(_) => "none, but the `credentials` of its connection",
        }
    }

    fn is_over_http(&self) -> bool {
        matches!(self.cloud, Cloud::Web(_))
    }

    /// What says which store is asked, and who asks.
    fn who(&self) -> String {
        match self.says_who() {
            _ if self.is_over_http() => "who asks is said by the `credentials` of its connection".to_owned(),
            true => "the store and who asks are said by its connection: `endpoint`, `region`, `anonymous` and `credentials`"
                .to_owned(),
            false => format!(
                "the store and who asks are said by its connection (`endpoint`, `region`, `credentials`) or, as here, by the \
                 environment of this process: {}",
                self.credentials()
            ),
        }
    }

    fn unread(&self, error: &object_store::Error) -> Unread {
        use object_store::Error::NotFound;
        if self.is_over_http() {
            return web::unread(self, error);
        }
        let said = said(error);
        let no_bucket = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
        match error {
            NotFound { .. } if no_bucket.iter().any(|words| said.contains(words)) => Unread {
                cause: format!("`{self}`: there is no such bucket"),
                help: format!("mend the URL; {}", self.who()),
                perhaps_a_folder: false,
                again: false,
            },
            NotFound { .. } => Unread {
                cause: format!("`{self}`: there is no such object"),
                help: "mend the URL; it names an object, or what the names of others begin with, as a folder does"
                    .to_owned(),
                perhaps_a_folder: true,
                again: false,
            },
            error if is_refused(error, &said) => Unread {
                cause: format!("`{self}`: access is refused; the store says: {said}"),
                help: format!("an object that is missing may look like this too; {}", self.who()),
                perhaps_a_folder: true,
                again: false,
            },
            _ => self.failed(&said),
        }
    }

    /// Of whom it is asked, where its connection says so.
    fn at_endpoint(&self) -> String {
        self.storage.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" at `{endpoint}`"))
    }

    fn failed(&self, said: &str) -> Unread {
        Unread {
            cause: format!("`{self}` cannot be read{}: {said}", self.at_endpoint()),
            help: self.who(),
            perhaps_a_folder: false,
            again: true,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.url, f)
    }
}

/// Whether a store does not let us: who lists is told so in its words alone.
fn is_refused(error: &object_store::Error, said: &str) -> bool {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let words = [
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "AuthenticationFailed",
        "AuthorizationFailure",
        "AuthorizationPermissionMismatch",
    ];
    matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
        || words.iter().any(|word| said.starts_with(word))
}

async fn in_time<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("nothing came for {} seconds", ANSWER_TIMEOUT.as_secs());
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(late)
}

/// The cause of all: what is around it only says that a request failed.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error.source().map_or(error, innermost)
}

/// The innermost cause, on one line. Of a document that S3 or Azure answers with, its code and its message.
fn said(error: &object_store::Error) -> String {
    let said = innermost(error).to_string();
    let element = |name: &str| Some(said.split_once(&format!("<{name}>"))?.1.split_once("</")?.0);
    let said = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => said,
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches(':').chars().take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use feature_defs::{DefFile, parse};
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    const BEGINNINGS: [&str; 7] = [
        "s3://bucket",
        "s3://bucket/a",
        "gs://",
        "az://c@acc.dfs.core.windows.net",
        "abfss://c@acc.blob.core.windows.net/",
        "azure://c",
        "s3a:",
    ];
    const PARTS: [&str; 24] = [
        "/", "//", "a", "B", ".", "..", "%2e", "%2E", "%2f", "%5C", "%", "%25", "%C3%A9", "é", "\\", "\t",
        "\n", " ", "?", "#", ":9000", "@", "@host", ";",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// What an administrator's word is compared with is what is asked for, whatever a URL looks like.
        #[test]
        fn what_is_compared_is_what_is_read(
            beginning in proptest::sample::select(&BEGINNINGS[..]),
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..8),
        ) {
            let text = format!("{beginning}{}", parts.concat());
            let Ok(Reach::Objects { bucket, path }) = Reach::parse(&text) else { return Ok(()) };
            let Ok(location) = Location::parse_folder(&text) else { return Ok(()) };
            let url = &location.url;
            let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
            let read = format!("{}://{user}{}", url.scheme(), url.host_str().unwrap_or_default());
            prop_assert_eq!((bucket, path.join("/")), (read, location.path.to_string()), "{}", text);
            prop_assert_eq!((url.port(), url.password()), (None, None), "{}", text);
            prop_assert_eq!(Reach::parse(&location.to_string()), Reach::parse(&text), "{}", text);
        }

        /// The same over HTTP, where a client takes more than one text for the same place.
        #[test]
        fn what_is_compared_is_what_is_asked_for(
            beginning in proptest::sample::select(&WEB_BEGINNINGS[..]),
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..8),
        ) {
            let text = format!("{beginning}{}", parts.concat());
            let Ok(Reach::Files { server, path }) = Reach::parse(&text) else { return Ok(()) };
            let Ok(location) = Location::over_http(&text, &connection()) else { return Ok(()) };
            let url = &location.url;
            let asked = url.path_segments().unwrap().map(|part| percent_decode_str(part).decode_utf8().unwrap());
            prop_assert_eq!(&path, &asked.collect::<Vec<_>>(), "{}", text);
            prop_assert_eq!(url.host_str().unwrap().trim_matches(['[', ']']), &server.host, "{}", text);
            prop_assert_eq!(url.port_or_known_default(), Some(server.port), "{}", text);
            prop_assert_eq!((url.query(), url.fragment(), url.username()), (None, None, ""), "{}", text);
            prop_assert_eq!(Reach::parse(url.as_str()), Reach::parse(&text), "{}", text);
            // As `object_store` puts them together.
            let mut whole: Url = location.bucket().parse().unwrap();
            whole.path_segments_mut().unwrap().extend(location.path.parts());
            prop_assert_eq!(&whole, url, "{}", text);
        }
    }

    const WEB_BEGINNINGS: [&str; 6] = [
        "https://host",
        "https://Host:9/a",
        "http://[0::1]/",
        "http://127.0.0.1:80/a",
        "http://2130706433/",
        "HTTP://host/",
    ];

    fn connection() -> Connection {
        let file = DefFile::new("a.yaml", "kind: Connection\nname: c\nurl: \"https://host/\"\n");
        parse(&[file]).unwrap().connections["c"].clone()
    }

    #[test]
    fn a_name_that_a_client_reads_as_an_address_is_none() {
        let refused = Location::over_http("http://2130706433/a.csv", &connection()).unwrap_err();
        assert!(refused.starts_with("the server of `http://2130706433/a.csv` must be"), "{refused}");
    }
}
