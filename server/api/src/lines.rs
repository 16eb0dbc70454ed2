//! How does a long job say how far it is? By line, a JSON document each.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use feature_defs::Operation;
use futures::StreamExt;
use quern_access::Caller;
use quern_base::tasks::blocking;
use quern_server::Node;
use quern_server::live::Permitted;
use serde::Serialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Result;

/// Lines that wait for a slow reader; progress beyond that is left out.
const LINES_MAX: usize = 64;

/// That who asks may do a job, which is in the audit when this returns: once the reply has begun, its status says that
/// it is done.
pub(super) async fn permitted(node: &Arc<Node>, who: &Caller, operation: Operation) -> Result<Permitted> {
    let (live, who) = (node.live(), who.clone());
    let permitting = move || live.seen_by(&who).operate(operation);
    Ok(blocking("noting who operates", permitting).await?)
}

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
