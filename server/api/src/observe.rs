//! How did every request end? Named when it comes, it is measured, traced, counted and logged once its reply is out.
//!
//! A stream fails after its head has gone, and a call over gRPC says how it ended in its trailers: so a [`Call`] goes
//! along with the body of its reply, and ends where that does.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use quern_base::random;
use tracing::{Instrument, Span};

use super::error::{Cause, Logged, gone};
use super::http::{REQUEST_ID, REQUEST_ID_BYTES_MAX, refuse_encoding};
use crate::metrics::metrics;
use crate::trace::{self, Code};

/// The route of what matches none, as a label.
const UNMATCHED: &str = "unmatched";

/// What went wrong after the head of a reply: left by whoever makes its body, for the log.
#[derive(Debug, Clone, Default)]
pub(super) struct LateCause(Arc<OnceLock<Logged>>);

impl LateCause {
    /// The first counts: what follows comes of it.
    pub(super) fn leave(&self, cause: &Logged) {
        let _ = self.0.set(cause.clone());
    }
}

/// Names every request, and watches it to its end.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)
        .cloned()
        .unwrap_or_else(next_id);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut call = Call::begin(&request, id.clone());
    request.extensions_mut().insert(call.late_cause.clone());
    let mut response = match refuse_encoding(request.headers_mut()) {
        None => next.run(request).instrument(call.span.clone()).await,
        Some(refusal) => refusal,
    };
    response.headers_mut().insert(REQUEST_ID, id);
    call.headed(&response);
    response.map(|body| Body::new(Watched { body, call }))
}

const GRPC_MESSAGE: &str = "grpc-message";

/// A request, from its head to the end of its reply.
struct Call {
    begun: Instant,
    id: HeaderValue,
    route: Option<MatchedPath>,
    method: Method,
    uri: Uri,
    span: Span,
    /// None until the reply has a head.
    status: Option<StatusCode>,
    is_grpc: bool,
    code: Option<Code>,
    cause: Option<Logged>,
    /// What a status over gRPC says, as it is sent.
    said: Option<HeaderValue>,
    late_cause: LateCause,
    ended: bool,
}

impl Call {
    fn begin(request: &Request, id: HeaderValue) -> Call {
        metrics().in_flight.inc();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let matched = route.as_ref().map_or("", MatchedPath::as_str);
        Call {
            begun: Instant::now(),
            span: trace::request(request.method(), matched, request.headers(), id.as_bytes()),
            id,
            route,
            method: request.method().clone(),
            uri: request.uri().clone(),
            status: None,
            is_grpc: false,
            code: None,
            cause: None,
            said: None,
            late_cause: LateCause::default(),
            ended: false,
        }
    }

    /// Notes what the head of the reply says.
    fn headed(&mut self, response: &Response) {
        self.status = Some(response.status());
        let content = response.headers().get(header::CONTENT_TYPE);
        self.is_grpc = content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
        // What fails before its first message says so in the headers.
        self.code = Code::in_headers(response.headers());
        self.said = response.headers().get(GRPC_MESSAGE).cloned();
        let extensions = response.extensions();
        let of_status = || extensions.get::<tonic::Status>().and_then(Logged::in_status).cloned();
        self.cause = extensions.get::<Cause>().map(|Cause(error)| Logged::of(error)).or_else(of_status);
    }

    fn trailed(&mut self, trailers: &HeaderMap) {
        self.code = Code::in_headers(trailers).or(self.code);
        self.said = trailers.get(GRPC_MESSAGE).cloned().or(self.said.take());
    }

    /// Counts, traces and logs, once.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        metrics().in_flight.dec();
        if self.is_grpc && self.code.is_none() {
            self.code = Some(Code::CANCELLED);
        }
        let status = self.status.unwrap_or_else(gone);
        let label = match &self.code {
            Some(code) if self.is_grpc => code.name,
            _ => status.as_str(),
        };
        let route = self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
        let (seconds, method) = (self.begun.elapsed().as_secs_f64(), known(&self.method));
        metrics().requests.with_label_values(&[route, method, label]).inc();
        metrics().request_seconds.with_label_values(&[route]).observe(seconds);
        if self.status.is_some() {
            trace::answered(&self.span, status, self.code);
        }
        self.log(label, (seconds * 1e6) as u64);
    }

    fn log(&self, status: &str, micros: u64) {
        let (method, path) = (&self.method, self.uri.path());
        let id = &*String::from_utf8_lossy(self.id.as_bytes());
        let left = self.cause.as_ref().or_else(|| self.late_cause.0.get());
        let failed = self.status.is_some_and(|status| status.is_server_error())
            || self.code.is_some_and(|code| code.is_fault);
        if failed {
            // What the library refuses itself, as a message that is none, has no cause of ours.
            let said = self.said.as_ref().and_then(|said| said.to_str().ok()).unwrap_or_default();
            let (cause, trace_id) = (left.map_or(said, |left| &left.cause), trace::trace_id(&self.span));
            let trace_id = trace_id.as_deref();
            tracing::warn!(%method, path, %status, micros, id, trace_id, cause, "request failed");
        }
        let cause = left.map_or("", |left| &left.whole);
        tracing::debug!(%method, path, %status, micros, id, cause, "request");
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end();
    }
}

/// The body of a reply, with the call that ends with it.
struct Watched {
    body: Body,
    call: Call,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(frame) = &polled {
            if let Some(Ok(frame)) = frame
                && let Some(trailers) = frame.trailers_ref()
            {
                self.call.trailed(trailers);
            }
            // Before the client has it: who reads the reply, and then the metrics, finds it counted.
            if frame
                .as_ref()
                .is_none_or(|frame| frame.is_err() || frame.as_ref().is_ok_and(Frame::is_trailers))
                || self.body.is_end_stream()
            {
                self.call.end();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The method as a label: anyone may invent methods, and each would stay counted for ever.
fn known(method: &Method) -> &str {
    match method.as_str() {
        name @ ("GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH") => name,
        _ => "other",
    }
}

/// A number that no other request of this process has, after one that no other process is likely to have.
fn next_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(random::number);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{:016x}-{}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("0"))
}
