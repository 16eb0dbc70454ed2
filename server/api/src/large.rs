//! Which requests are answered beside the others?
//!
//! Those that bring much, or tables: whatever is read and computed for them would hold up everybody else on the threads
//! that sockets and small requests are served by. So they have threads of their own, and leave the others a core.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::CONTENT_ENCODING;
use axum::middleware::Next;
use axum::response::Response;
use futures::{StreamExt, stream};
use quern_base::tasks::beside;
use tracing::Instrument;

use super::memory::{is_grpc, prefix};

/// Bytes of a body that take longer to read and to answer than a change of threads.
const LARGE: u64 = 32 << 10;

/// Answers large requests beside the others.
pub(super) async fn apart(request: Request, next: Next) -> Response {
    let (request, is_large) = looked_at(request).await;
    match is_large {
        true => beside(next.run(request).in_current_span()).await,
        false => next.run(request).await,
    }
}

async fn looked_at(request: Request) -> (Request, bool) {
    if !is_grpc(request.headers()) {
        let size = request.body().size_hint();
        // What does not say how long it is, or is compressed, may become anything.
        let is_large = size.exact().is_none_or(|bytes| bytes > LARGE)
            || request.headers().contains_key(CONTENT_ENCODING);
        return (request, is_large);
    }
    match request.uri().path().rsplit_once('/') {
        // A client of a stream may wait for the head of the reply before it sends anything.
        Some(("/inference.GRPCInferenceService", "ModelStreamInfer")) => (request, false),
        Some(("/inference.GRPCInferenceService", _)) => with_length(request).await,
        _ => (request, true),
    }
}

/// A call of one message, whose length stands before it.
async fn with_length(request: Request) -> (Request, bool) {
    let (head, body) = request.into_parts();
    let mut pieces = body.into_data_stream();
    let first = pieces.next().await;
    let length = first.as_ref().and_then(|first| Some(prefix(first.as_ref().ok()?)?.1));
    let body = Body::from_stream(stream::iter(first).chain(pieces));
    (Request::from_parts(head, body), length.is_none_or(|length| length as u64 > LARGE))
}
