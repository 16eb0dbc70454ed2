//! How does a long job say how far it is? By line, a JSON document each.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

/// Lines that wait for a slow reader; progress beyond that is left out.
const LINES_MAX: usize = 64;

/// What `job` says on a thread that may block. Its end of the channel is closed where the reader has gone.
pub(super) fn by_line<Line: Serialize + Send + 'static>(
    job: impl FnOnce(&Sender<Line>) + Send + 'static,
) -> Response {
    let (lines, received) = channel(LINES_MAX);
    tokio::task::spawn_blocking(move || job(&lines));
    let body = ReceiverStream::new(received).map(|line| {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(text)
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}
