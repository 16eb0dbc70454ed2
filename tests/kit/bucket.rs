//! A bucket that speaks as much S3 as whoever reads files asks for, over a folder of this machine, and fails as it is
//! told to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// As many names as one answer lists.
const PAGE: usize = 100;

/// The bucket `rows`, as long as the runtime lives.
pub struct Bucket {
    /// Where it is asked.
    pub endpoint: String,
    folder: TempDir,
    inner: Arc<Inner>,
}

/// What it does wrong, where it is not 0.
#[derive(Debug, Default)]
pub struct BucketFaults {
    /// Of so many requests one is answered with 503.
    pub fails: AtomicU64,
    /// Of so many bodies one ends half way.
    pub cuts: AtomicU64,
    /// How long it takes to answer, in milliseconds.
    pub delay_ms: AtomicU64,
}

type Hook = Box<dyn Fn(&str) + Send>;

#[derive(Default)]
struct Inner {
    folder: PathBuf,
    faults: BucketFaults,
    /// Whose requests it answers; anybody's where nobody is named.
    key: Mutex<Option<String>>,
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Called before bytes of an object are read.
    hook: Mutex<Option<Hook>>,
}

impl Bucket {
    /// An empty one.
    pub async fn start() -> Bucket {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(Inner { folder: folder.path().to_owned(), ..Inner::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Bucket { endpoint, folder, inner }
    }

    /// Where its objects lie, each under its key.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What it does wrong.
    pub fn faults(&self) -> &BucketFaults {
        &self.inner.faults
    }

    /// Answers nobody else any more.
    pub fn only_for(&self, key_id: &str) {
        *self.inner.key.lock() = Some(key_id.to_owned());
    }

    /// Does this before it reads bytes of an object, whose key it is told.
    pub fn before_reads(&self, hook: impl Fn(&str) + Send + 'static) {
        *self.inner.hook.lock() = Some(Box::new(hook));
    }

    /// How many requests there were, and how many bytes of objects it sent.
    pub fn asked(&self) -> (u64, u64) {
        (self.inner.requests.load(Ordering::Relaxed), self.inner.bytes.load(Ordering::Relaxed))
    }

    /// The connection that leads to all of it.
    pub fn connection(&self) -> String {
        format!(
            "kind: Connection\nname: rows\nurl: \"s3://rows/\"\nendpoint: {:?}\nregion: here\nanonymous: true\n",
            self.endpoint
        )
    }
}

async fn answer(State(bucket): State<Arc<Inner>>, request: Request) -> Response {
    let count = bucket.requests.fetch_add(1, Ordering::Relaxed);
    let delay = bucket.faults.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if is_one_of(&bucket.faults.fails, count) {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let signed = request.headers().get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    if bucket.key.lock().as_ref().is_some_and(|key| !signed.contains(&format!("Credential={key}/"))) {
        return failure(StatusCode::FORBIDDEN, "AccessDenied");
    }
    let path = request.uri().path();
    let Some(key) = path.strip_prefix("/rows") else { return failure(StatusCode::NOT_FOUND, "NoSuchBucket") };
    let key = percent_decoded(key.trim_start_matches('/'));
    match key.is_empty() {
        true => bucket.list(&asked(request.uri().query().unwrap_or_default())),
        false => bucket.object(&key, request.method(), request.headers(), count),
    }
}

fn is_one_of(one_in: &AtomicU64, count: u64) -> bool {
    let one_in = one_in.load(Ordering::Relaxed);
    one_in > 0 && count % one_in == one_in - 1
}

fn failure(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code><Message>as it was told to</Message></Error>"))
        .into_response()
}

impl Inner {
    fn list(&self, asked: &HashMap<String, String>) -> Response {
        let prefix = asked.get("prefix").map(String::as_str).unwrap_or_default();
        let after = asked.get("continuation-token").map(String::as_str).unwrap_or_default();
        let mut keys = Vec::new();
        below(&self.folder, &self.folder, &mut keys);
        keys.retain(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
        keys.sort();
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let mut listed = String::new();
        for (key, path) in &keys {
            let (tag, bytes, modified) = state(path);
            let modified = modified.to_rfc3339_opts(SecondsFormat::Secs, true);
            write!(
                listed,
                "<Contents><Key>{}</Key><Size>{bytes}</Size><ETag>{tag}</ETag><LastModified>{modified}</LastModified>\
                 </Contents>",
                key.replace('&', "&amp;")
            )
            .unwrap();
        }
        let token = keys.last().filter(|_| more).map_or(String::new(), |(key, _)| {
            format!("<NextContinuationToken>{}</NextContinuationToken>", key.replace('&', "&amp;"))
        });
        format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{listed}</ListBucketResult>")
            .into_response()
    }

    fn object(&self, key: &str, method: &Method, headers: &HeaderMap, count: u64) -> Response {
        let path = self.folder.join(key);
        if !path.is_file() {
            return failure(StatusCode::NOT_FOUND, "NoSuchKey");
        }
        if method == Method::GET
            && let Some(hook) = &*self.hook.lock()
        {
            hook(key);
        }
        let (tag, bytes, modified) = state(&path);
        let modified = modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if said("if-match").is_some_and(|wanted| wanted != tag) {
            return failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let range = said("range").and_then(|range| {
            let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?.min(bytes - 1)))
        });
        let (start, end) = range.unwrap_or((0, bytes.max(1) - 1));
        let answer = Response::builder()
            .status(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK })
            .header("etag", &tag)
            .header("last-modified", modified)
            .header("content-length", if bytes == 0 { 0 } else { end + 1 - start });
        let answer = match range {
            Some(_) => answer.header("content-range", format!("bytes {start}-{end}/{bytes}")),
            None => answer,
        };
        if method == Method::HEAD {
            return answer.body(Body::empty()).unwrap();
        }
        let mut part = vec![0; if bytes == 0 { 0 } else { (end + 1 - start) as usize }];
        File::open(&path).and_then(|file| file.read_exact_at(&mut part, start)).unwrap();
        if is_one_of(&self.faults.cuts, count) {
            let half = Bytes::copy_from_slice(&part[..part.len() / 2]);
            let cut = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut off"))]);
            return answer.body(Body::from_stream(cut)).unwrap();
        }
        self.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
        answer.body(part.into()).unwrap()
    }
}

/// What tells a state of a file from others: tag, bytes, time.
fn state(path: &Path) -> (String, u64, DateTime<Utc>) {
    let found = fs::metadata(path).unwrap();
    let tag = format!("\"{:x}-{:x}-{:x}\"", found.ino(), found.mtime_nsec(), found.len());
    (tag, found.len(), found.modified().unwrap().into())
}

fn below(root: &Path, folder: &Path, keys: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => below(root, &path, keys),
            false => keys.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path)),
        }
    }
}

fn asked(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), percent_decoded(&value.replace('+', " ")))).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| (digit.unwrap() as char).to_digit(16).unwrap() as u8;
        bytes.push(if byte == b'%' { hex(rest.next()) * 16 + hex(rest.next()) } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}
