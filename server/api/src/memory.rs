//! What does a request hold while it is answered?
//!
//! Every request has a [`Lease`] of the node's budget, from its head to the last byte of its reply. Its handler takes
//! what a body becomes ([`taken_by_json`]) and what a look-up will find; here the messages of gRPC are taken, each from
//! the length that stands before it and until the next one, before anything makes room for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quern_base::memory::{Lease, Part};
use quern_engine::size::row_bytes;
use quern_server::Node;
use tonic::Status;

use super::broken::Broken;
use super::error::{ApiError, grpc_status};
use crate::error::{Error, Result};

/// Bytes of a value of JSON once it is parsed, in a list that has grown.
const JSON_VALUE: usize = 64;
/// Bytes of a value in a vector on its way from the head to the reply.
const CELL: usize = 32;
/// The most that a byte of a compressed message (deflate) can become.
const INFLATED: usize = 1_032;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Gives every request its lease, and its reply with it: whoever sends the reply keeps it until that has gone.
pub(super) async fn leased(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    let lease = Arc::new(node.memory.lease());
    request.extensions_mut().insert(Arc::clone(&lease));
    if is_grpc(request.headers()) {
        let inflated_max = node.settings.body_bytes_max;
        let lease = Arc::clone(&lease);
        request = request.map(|body| Body::new(Messages::new(body, lease, inflated_max)));
    }
    let mut response = next.run(request).await;
    response.extensions_mut().insert(lease);
    response
}

/// Whether its body is made of messages.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether the message of gRPC that begins so is compressed, and how long it is, once its prefix is there.
pub(super) fn prefix(bytes: &[u8]) -> Option<(bool, usize)> {
    let [compressed, length @ ..] = bytes.first_chunk::<PREFIX>()?;
    Some((*compressed != 0, u32::from_be_bytes(*length.first_chunk()?) as usize))
}

/// The lease of a request.
pub(super) fn lease_of(extensions: &Extensions) -> Result<Arc<Lease>> {
    extensions.get().map(Arc::clone).ok_or_else(|| Error::broken("a request has no lease of memory"))
}

/// The lease of a request, for its handler.
#[derive(Debug, Clone)]
pub(super) struct Held(pub Arc<Lease>);

impl<S: Sync> FromRequestParts<S> for Held {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, ApiError> {
        Ok(Held(lease_of(&parts.extensions)?))
    }
}

impl Held {
    /// Takes what vectors of `columns` for `rows` will be, all the way into the reply.
    pub(super) fn take_cells(&self, rows: usize, columns: usize) -> Result<()> {
        Ok(self.0.take(cells(rows, columns))?)
    }

    /// A lease of its own, of the same budget.
    pub(super) fn apart(&self) -> Held {
        Held(Arc::new(self.0.apart()))
    }

    /// Takes the room for rows in the reply: texts may be long.
    pub(super) fn take_rows<'a>(&self, shown: impl IntoIterator<Item = &'a RecordBatch>) -> Result<()> {
        Ok(self.0.take(shown.into_iter().map(row_bytes).sum())?)
    }
}

fn cells(rows: usize, columns: usize) -> usize {
    rows.saturating_mul(columns).saturating_mul(CELL)
}

/// What a text of JSON becomes, at most: each value has a comma, a colon or a bracket before it.
pub(super) fn taken_by_json(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count() * JSON_VALUE
}

/// The messages of a gRPC call as they come in. Where they break off or do not come, it is the client that has aborted
/// the call. (`CANCELLED` would be nearer, but tonic takes it for the end of the messages.)
struct Messages {
    body: Body,
    lease: Arc<Lease>,
    inflated_max: usize,
    /// What has come of a prefix.
    prefix: Vec<u8>,
    /// What is to come of a message.
    rest: usize,
    /// The message that came last.
    held: Option<Part>,
}

impl Messages {
    fn new(body: Body, lease: Arc<Lease>, inflated_max: usize) -> Messages {
        Messages { body, lease, inflated_max, prefix: Vec::new(), rest: 0, held: None }
    }

    fn is_within_message(&self) -> bool {
        self.rest > 0 || !self.prefix.is_empty()
    }

    /// Takes every message that begins in `bytes`.
    fn see(&mut self, mut bytes: &[u8]) -> std::result::Result<(), Status> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let seen = self.rest.min(bytes.len());
                self.rest -= seen;
                bytes = &bytes[seen..];
                continue;
            }
            let seen = (PREFIX - self.prefix.len()).min(bytes.len());
            self.prefix.extend_from_slice(&bytes[..seen]);
            bytes = &bytes[seen..];
            if let Some((is_compressed, length)) = prefix(&self.prefix) {
                self.prefix.clear();
                self.rest = length;
                let becomes = match is_compressed {
                    false => 0,
                    true => length.saturating_mul(INFLATED).min(self.inflated_max),
                };
                // What came before has been read.
                self.held = None;
                let part = self.lease.part(self.rest.saturating_add(becomes));
                self.held = Some(part.map_err(|error| grpc_status(&error))?);
            }
        }
        Ok(())
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        let seen = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame.data_ref().map_or(Ok(()), |bytes| self.see(bytes)).map(|()| frame),
            Some(Err(error)) => Err(Status::aborted(Broken::of(&error).to_string())),
            None if self.is_within_message() => {
                Err(Status::aborted("the call ended in the middle of a message"))
            }
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(seen.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_within_message()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quern_base::memory::Budget;

    #[test]
    fn a_message_is_taken_from_its_length_however_it_is_cut() {
        let message = |compressed: u8, bytes: &[u8]| {
            let mut all = vec![compressed];
            all.extend((bytes.len() as u32).to_be_bytes());
            all.extend(bytes);
            all
        };
        let budget = Budget::new(64 << 20);
        let all = [message(0, &[7; 300]), message(1, &[7; 10]), message(0, b"")].concat();
        for cut in 1..all.len() {
            let mut messages = Messages::new(Body::empty(), Arc::new(budget.lease()), 4_000);
            let mut most = 0;
            for bytes in all.chunks(cut) {
                messages.see(bytes).unwrap();
                most = most.max(budget.used());
            }
            assert_eq!(budget.used(), 0, "the last one is empty");
            // A cut within a message shows what it took.
            assert!(cut > 5 || most == 4_010, "{most}");
            drop(messages);
        }
        let mut messages = Messages::new(Body::empty(), Arc::new(budget.lease()), 4_000);
        let refused = messages.see(&[0, 0xff, 0xff, 0xff, 0xff]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_was_ended_by_its_client() {
        let half = || Ok(Bytes::from_static(&[0, 0, 0, 0, 9, 1]));
        let reset = || Err(std::io::Error::other("reset"));
        let told = async |frames: Vec<std::io::Result<Bytes>>| {
            let (budget, body) = (Budget::new(1 << 20), Body::from_stream(futures::stream::iter(frames)));
            let messages = Messages::new(body, Arc::new(budget.lease()), 4_000);
            let error = axum::body::to_bytes(Body::new(messages), usize::MAX).await.unwrap_err();
            let status = Status::from_error(error.into());
            (status.code(), status.message().to_owned())
        };
        let aborted = |said: &str| (tonic::Code::Aborted, said.to_owned());
        assert_eq!(told(vec![half()]).await, aborted("the call ended in the middle of a message"));
        assert_eq!(told(vec![half(), reset()]).await, aborted("the body broke off: reset"));
    }

    #[test]
    fn json_is_taken_for_what_it_becomes() {
        assert_eq!(taken_by_json(br#"{"a": [1, 2]}"#), 4 * JSON_VALUE);
        assert_eq!(taken_by_json(b"7"), 0);
    }
}
