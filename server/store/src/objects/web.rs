//! How is a server asked for files over HTTP, and which of its answers are the file that was meant?
//!
//! It is asked by `object_store`, which knows ranges and states and asks again what may pass, over a client of
//! ours: by whom the connection says, of the server that it leads to, whatever that one's name leads to after DNS. An
//! answer that is of another place, or packed on the way, is none.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feature_defs::{Reach, Server, StorageOptions};
use futures::future::BoxFuture;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::http::{HttpBuilder, HttpStore};
use object_store::{ClientOptions, HeaderValue, RetryConfig};
use quern_http::{client, on_one_line, told};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED, LOCATION, RANGE,
    USER_AGENT,
};
use reqwest::{Client, StatusCode};
use url::{Position, Url};

use super::{Location, Unread, innermost, said};

/// A server that leads on more often leads nowhere.
const REDIRECTS_MAX: usize = 5;
/// The first byte: whoever asks for it looks whether there is a file, and whether it can be had in parts.
const FIRST_BYTE: &[u8] = b"bytes=0-0";
/// What `object_store` says before a status.
const STATUS: &str = "Server returned non-2xx status code: ";
/// Some servers answer nobody who says no name.
const NAME: &str = concat!("quern/", env!("CARGO_PKG_VERSION"));
const NO_URL: &str = "its server redirects to what is no URL";
const AS_IT_IS: &str = "let the server give the file as it is, or put it into a bucket";

/// A server that gives files, and where on it a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Web {
    pub(super) server: Server,
    pub(super) within: Reach,
}

/// Why an answer is not the file, though asking again is of no use now.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
struct Refused {
    cause: String,
    help: String,
    /// Whether another time it may be.
    again: bool,
}

/// Who gives the file at `location`, as a store.
pub(super) fn store(
    location: &Location,
    web: &Arc<Web>,
    retry: RetryConfig,
) -> object_store::Result<HttpStore> {
    let failed =
        |error: reqwest::Error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) };
    let client = client(&web.server).map_err(failed)?;
    let (web, storage) = (Arc::clone(web), Arc::clone(&location.storage));
    let builder = HttpBuilder::new().with_url(location.bucket()).with_retry(retry);
    builder.with_http_connector(Asking { client, web, storage }).build()
}

/// Why the file at `at` is not read.
pub(super) fn unread(at: &Location, error: &object_store::Error) -> Unread {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    if let Some(Refused { cause, help, again }) = innermost(error).downcast_ref::<Refused>() {
        let (cause, help) = (format!("`{at}`: {cause}"), help.clone());
        return Unread { cause, help, perhaps_a_folder: false, again: *again };
    }
    let said = said(error);
    let status = said.strip_prefix(STATUS).map(|status| format!("its server answers {status}"));
    let said = status.unwrap_or(said);
    let (cause, help) = match error {
        NotFound { .. } => {
            ("there is no such file".to_owned(), "mend the URL, which names one file".to_owned())
        }
        PermissionDenied { .. } | Unauthenticated { .. } => (format!("access is refused: {said}"), at.who()),
        _ => return at.failed(&said),
    };
    Unread { cause: format!("`{at}`: {cause}"), help, perhaps_a_folder: false, again: false }
}

/// Asks a server, and no other one.
#[derive(Debug, Clone)]
struct Asking {
    client: Client,
    web: Arc<Web>,
    storage: Arc<StorageOptions>,
}

impl HttpConnector for Asking {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Asking {
    // What `async fn` is where the trait was written with `async_trait`.
    fn call<'me, 'answer>(
        &'me self,
        request: HttpRequest,
    ) -> BoxFuture<'answer, Result<HttpResponse, HttpError>>
    where
        'me: 'answer,
        Self: 'answer,
    {
        Box::pin(self.answer(request))
    }
}

impl Asking {
    async fn answer(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(NAME));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let who = self.who().map_err(|why| refused(format!("its connection {why}"), "tell it there"))?;
        if let Some(who) = who {
            request.headers_mut().insert(AUTHORIZATION, who);
        }
        for _ in 0..REDIRECTS_MAX {
            let reply = HttpService::call(&self.client, request.clone()).await.map_err(for_good)?;
            let Some(to) = self.leads_on(&request, &reply)? else { return checked(&request, reply) };
            match to.as_str().parse() {
                Ok(uri) => *request.uri_mut() = uri,
                Err(_) => return Err(refused(NO_URL, AS_IT_IS)),
            }
        }
        Err(refused(format!("its server redirects more than {REDIRECTS_MAX} times"), AS_IT_IS))
    }

    /// What proves who asks, as it is told now; none where nobody is named.
    fn who(&self) -> Result<Option<HeaderValue>, String> {
        let secret =
            |key: &str| self.storage.credentials.get(key).map(|secret| told(key, secret)).transpose();
        let proof = match (secret("token")?, secret("username")?) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some(name)) => {
                let password = secret("password")?.unwrap_or_default();
                format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
            }
            (None, None) => return Ok(None),
        };
        let value = HeaderValue::try_from(proof);
        let mut value = value.map_err(|_| "has a `token` that no header can hold".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Where an answer leads, which must be where the connection does, and on the same server.
    fn leads_on(&self, request: &HttpRequest, reply: &HttpResponse) -> Result<Option<Url>, HttpError> {
        let to = reply.headers().get(LOCATION).filter(|_| reply.status().is_redirection());
        let Some(to) = to else { return Ok(None) };
        let here = Url::parse(&request.uri().to_string()).ok();
        let Some(url) = here.and_then(|here| here.join(to.to_str().ok()?).ok()) else {
            return Err(refused(NO_URL, AS_IT_IS));
        };
        // What is signed there stands in no definition, and is not shown.
        let plain = Reach::parse(&url[..Position::AfterPath]);
        let is_here = |it: &Reach| matches!(it, Reach::Files { server, .. } if *server == self.web.server);
        match plain {
            Ok(plain) if is_here(&plain) && self.web.within.covers(&plain) => Ok(Some(url)),
            Ok(plain) if is_here(&plain) => Err(refused(
                format!("its server redirects to `{}`, where its connection does not lead", url.path()),
                "name the file where it lies; an administrator says where a connection leads",
            )),
            _ => {
                let other = url.origin().ascii_serialization();
                Err(refused(
                    format!("its server redirects to `{other}`, where its connection does not lead"),
                    format!(
                        "name the file where it lies, as in `{other}/…`, to which an administrator makes a connection"
                    ),
                ))
            }
        }
    }
}

/// An answer, as far as it is the file that was asked for, or says why not. Of others nothing is handed on that a
/// server may have written.
fn checked(request: &HttpRequest, reply: HttpResponse) -> Result<HttpResponse, HttpError> {
    let status = reply.status();
    if status.is_success() {
        return match (packing(request, &reply), reply.headers().contains_key(CONTENT_LENGTH)) {
            (Some(packing), _) => {
                let cause = format!(
                    "it comes packed, as its `Content-Encoding: {packing}` says, though not asked to"
                );
                Err(refused(cause, AS_IT_IS))
            }
            (None, false) => {
                Err(refused("its server does not say by `Content-Length` how large it is", AS_IT_IS))
            }
            (None, true) => Ok(with_time(reply)),
        };
    }
    let of_first_byte = || request.headers().get(RANGE).is_some_and(|range| range.as_bytes() == FIRST_BYTE);
    let is_known = status.is_server_error()
        || [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PRECONDITION_FAILED,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&status);
    let status = match status {
        StatusCode::GONE => StatusCode::NOT_FOUND,
        // A file that is empty has no first byte; it can be had as a whole.
        StatusCode::RANGE_NOT_SATISFIABLE if of_first_byte() => StatusCode::OK,
        _ if is_known => status,
        _ => {
            return Err(refused(
                format!("its server answers {status}"),
                "see what its server says of the URL",
            ));
        }
    };
    let mut bare = reply.map(|_| HttpResponseBody::from(Bytes::new()));
    *bare.status_mut() = status;
    Ok(bare)
}

/// The same answer, whose tag, where it is weak, has the time beside it: alone it need not be another one where a byte
/// is, and whoever compares states, or goes on where an answer broke off, compares tags.
fn with_time(mut reply: HttpResponse) -> HttpResponse {
    let said = |name| reply.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let weak = said(ETAG).filter(|tag| tag.starts_with("W/"));
    let both =
        weak.zip(said(LAST_MODIFIED)).map(|(tag, time)| HeaderValue::try_from(format!("{tag} {time}")));
    if let Some(Ok(both)) = both {
        reply.headers_mut().insert(ETAG, both);
    }
    reply
}

/// What an answer is packed with, unless the file itself is: of one called `.gz`, some servers say so.
fn packing(request: &HttpRequest, reply: &HttpResponse) -> Option<String> {
    let said =
        String::from_utf8_lossy(reply.headers().get(CONTENT_ENCODING)?.as_bytes()).to_ascii_lowercase();
    let own: &[&str] = match request.uri().path().to_ascii_lowercase().rsplit_once('.') {
        Some((_, "gz")) => &["gzip", "x-gzip"],
        Some((_, "zst")) => &["zstd"],
        _ => &[],
    };
    (said != "identity" && !own.contains(&said.as_str())).then(|| on_one_line(&said))
}

/// The same error, of which nobody tries again what is not otherwise a moment later.
fn for_good(error: HttpError) -> HttpError {
    let cause = innermost(&error);
    // What an address leads to that nobody named is no fault of the network.
    let is_kept_back = cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none());
    let cause = cause.to_string();
    let (help, again) = match &cause {
        cause if cause.starts_with("invalid peer certificate") => (
            "its certificate must be of its name, and vouched for by whom this machine believes, or the authorities in the file \
             that `SSL_CERT_FILE` names",
            false,
        ),
        cause if cause.starts_with("failed to lookup address") => {
            ("mend the name of the host in its URL", true)
        }
        _ if is_kept_back => ("name the address itself, in the path and in its connection", false),
        _ => return error,
    };
    HttpError::new(HttpErrorKind::Unknown, Refused { cause, help: help.to_owned(), again })
}

fn refused(cause: impl Into<String>, help: impl Into<String>) -> HttpError {
    let refused = Refused { cause: cause.into(), help: help.into(), again: false };
    HttpError::new(HttpErrorKind::Unknown, refused)
}
