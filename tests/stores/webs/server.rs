//! A server that gives the files of a folder over HTTP, as well or as badly as it is told to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The server, as long as the runtime lives.
pub(super) struct Web {
    /// Where it is asked.
    pub(super) url: String,
    folder: TempDir,
    inner: Arc<Inner>,
}

/// How it answers.
#[derive(Clone)]
pub(super) struct Manner {
    /// Whether it gives all of a file to who asks for a part.
    pub(super) undivided: bool,
    /// What its tag of a file's state begins with, where it gives any.
    pub(super) tag: Option<&'static str>,
    /// Whether that tells one state from another.
    pub(super) tells: bool,
    /// Whether what it sends of a file, after the first byte, never ends.
    pub(super) endless: bool,
    /// Whether it says when a file was written.
    pub(super) dated: bool,
    /// Whether it says how long an answer is.
    pub(super) sized: bool,
    /// What it says that its answers are packed with.
    pub(super) packed: Option<&'static str>,
    /// Of so many requests one is answered with 503, where this is not 0.
    pub(super) fails: u64,
    /// What it answers to whatever it is asked.
    pub(super) status: Option<StatusCode>,
    /// What must prove who asks.
    pub(super) only: Option<String>,
    /// Where what is asked for below `public/moved/` lies now.
    pub(super) moved: String,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            undivided: false,
            tag: Some(""),
            tells: true,
            endless: false,
            dated: true,
            sized: true,
            packed: None,
            fails: 0,
            status: None,
            only: None,
            moved: String::new(),
        }
    }
}

type Hook = Box<dyn Fn(&str) + Send>;

#[derive(Default)]
struct Inner {
    folder: PathBuf,
    manner: Mutex<Manner>,
    requests: AtomicU64,
    /// Of which file it has sent how much.
    sent: Mutex<Vec<(String, u64)>>,
    hook: Mutex<Option<Hook>>,
}

impl Web {
    /// One of an empty folder.
    pub(super) async fn start() -> Web {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(Inner { folder: folder.path().to_owned(), ..Inner::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Web { url, folder, inner }
    }

    /// Where its files lie.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on it answers so.
    pub(super) fn answers(&self, manner: Manner) {
        *self.inner.manner.lock() = manner;
    }

    /// Does this before it gives more of a file, whose path it is told, than its first byte.
    pub(super) fn before_reads(&self, hook: impl Fn(&str) + Send + 'static) {
        *self.inner.hook.lock() = Some(Box::new(hook));
    }

    /// How often it has sent some of this file, and how much.
    pub(super) fn sent(&self, path: &str) -> (u64, u64) {
        let sent = self.inner.sent.lock();
        let of_it = || sent.iter().filter(|(of, _)| of == path);
        (of_it().count() as u64, of_it().map(|(_, bytes)| bytes).sum())
    }

    /// The connection that leads to all of it.
    pub(super) fn connection(&self) -> String {
        format!("kind: Connection\nname: files\nurl: \"{}/\"\n", self.url)
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let manner = inner.manner.lock().clone();
    let count = inner.requests.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().trim_start_matches('/');
    if manner.fails > 0 && count % manner.fails == manner.fails - 1 {
        return (StatusCode::SERVICE_UNAVAILABLE, "not now").into_response();
    }
    if let Some(status) = manner.status {
        return (status, "<h1>words of its own</h1>").into_response();
    }
    if manner.only.is_some() && manner.only.as_deref() != said(request.headers(), "authorization") {
        return (StatusCode::UNAUTHORIZED, "<h1>words of its own</h1>").into_response();
    }
    if let Some(rest) = path.strip_prefix("public/moved/") {
        let to = format!("{}/{rest}?signed=S3CRET", manner.moved);
        return (StatusCode::FOUND, [("location", to)]).into_response();
    }
    match request.method() {
        &Method::GET => inner.file(path, request.headers(), &manner),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Inner {
    fn file(&self, path: &str, headers: &HeaderMap, manner: &Manner) -> Response {
        let file = self.folder.join(path);
        if !file.is_file() {
            return (StatusCode::NOT_FOUND, "<h1>words of its own</h1>").into_response();
        }
        let range = said(headers, "range");
        if range != Some("bytes=0-0")
            && let Some(hook) = &*self.hook.lock()
        {
            hook(path);
        }
        let (content, found) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap());
        let told = if manner.tells { (found.ino(), found.mtime_nsec()) } else { (0, 0) };
        let (state, bytes) = (format!("\"{:x}-{:x}\"", told.0, told.1), content.len());
        let tag = manner.tag.map(|weak| format!("{weak}{state}"));
        // A weak tag is no match, not even for itself.
        if said(headers, "if-match").is_some_and(|wanted| wanted != state || tag.as_ref() != Some(&state)) {
            return StatusCode::PRECONDITION_FAILED.into_response();
        }
        let range = range.filter(|_| !manner.undivided).map(|range| {
            let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            (start.parse::<usize>().unwrap(), end.parse::<usize>().unwrap().min(bytes.max(1) - 1))
        });
        let mut answer = Response::builder();
        let part = match range {
            Some((start, _)) if start >= bytes => {
                let range = format!("bytes */{bytes}");
                return (StatusCode::RANGE_NOT_SATISFIABLE, [("content-range", range)]).into_response();
            }
            Some((start, end)) => {
                let range = format!("bytes {start}-{end}/{bytes}");
                answer = answer.status(StatusCode::PARTIAL_CONTENT).header("content-range", range);
                content[start..=end].to_vec()
            }
            None => content,
        };
        if let Some(tag) = tag {
            answer = answer.header("etag", tag);
        }
        if manner.dated {
            let modified: DateTime<Utc> = found.modified().unwrap().into();
            answer = answer.header("last-modified", modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        if let Some(packed) = manner.packed {
            answer = answer.header("content-encoding", packed);
        }
        self.sent.lock().push((path.to_owned(), part.len() as u64));
        if manner.endless && said(headers, "range") != Some("bytes=0-0") {
            let more = futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![b'7'; 1 << 16])));
            return answer.header("content-length", 1_u64 << 40).body(Body::from_stream(more)).unwrap();
        }
        let parts = |part| Body::from_stream(futures::stream::iter([Ok::<_, io::Error>(Bytes::from(part))]));
        answer.body(if manner.sized { part.into() } else { parts(part) }).unwrap()
    }
}
