//! Who waits for whom: the server for more of a body, or a client's reading for more of a reply?

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::Version;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use quern_base::memory::Lease;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep, timeout};

use super::connections::Exchange;
use super::end::END;
use super::sweep::Limits;
use crate::broken::Broken;

/// A body must come at this rate at least, in bytes a second, once its first time is over.
const RATE_MIN: u64 = 16 << 10;
/// Of a body that nobody wants so much is read, for so long.
const UNREAD_BYTES: usize = 64 << 10;
const UNREAD_TIME: Duration = Duration::from_secs(1);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, which ends in an error where its client keeps the server waiting. Only the time for which somebody
/// wants more of it counts.
#[derive(Debug)]
pub(super) struct Upload {
    /// There until it is dropped.
    body: Option<Incoming>,
    limits: Limits,
    /// Whether it is one of several streams of a connection.
    is_one_of_several: bool,
    /// Whether its messages may be far apart, as those of gRPC may.
    is_stream: bool,
    read: u64,
    waited: Duration,
    /// Since when the server waits, and the alarm.
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Upload {
    pub(super) fn new(body: Incoming, version: Version, limits: Limits, is_stream: bool) -> Upload {
        let is_one_of_several = version == Version::HTTP_2;
        let (body, waited) = (Some(body), Duration::ZERO);
        Upload { body, limits, is_one_of_several, is_stream, read: 0, waited, waits: None }
    }

    /// How much longer the server waits: a stream may be silent for long between two of its messages, and a body may
    /// not trickle.
    fn patience(&self) -> Duration {
        if self.is_stream {
            return self.limits.stream;
        }
        let in_all = self.limits.body + Duration::from_secs(self.read / RATE_MIN);
        in_all.saturating_sub(self.waited)
    }

    fn slow(&self) -> Broken {
        let (first, kib, read) = (self.limits.body.as_secs(), RATE_MIN >> 10, self.read);
        Broken::Slow(match self.is_stream {
            true => format!("nothing came for {} s (`stream_idle`)", self.limits.stream.as_secs()),
            false => format!(
                "the body did not come in time: a client may keep the server waiting for {first} s, and a second more for \
                 every {kib} KiB; {read} bytes came"
            ),
        })
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            if let Some((since, _)) = self.waits.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                self.read += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.waits.is_none() {
            self.waits = Some((Instant::now(), Box::pin(sleep(self.patience()))));
        }
        let is_up = self.waits.as_mut().is_some_and(|(_, alarm)| alarm.as_mut().poll(context).is_ready());
        if is_up { Poll::Ready(Some(Err(Box::new(self.slow())))) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

/// A request may be answered before its body was read, by a refusal most of all. Over HTTP/2 its stream is reset then,
/// and clients such as curl 7.88 take that for a failure and do not look at the answer. So a little is read on, which
/// is all that most of them send.
impl Drop for Upload {
    fn drop(&mut self) {
        let reads_on = self.is_one_of_several && !self.is_stream;
        let left = self.body.take().filter(|body| reads_on && !body.is_end_stream());
        if let (Some(mut body), Ok(runtime)) = (left, Handle::try_current()) {
            runtime.spawn(timeout(UNREAD_TIME, async move {
                let mut read = 0;
                while read < UNREAD_BYTES
                    && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                {
                    read += frame.data_ref().map_or(0, Bytes::len);
                }
            }));
        }
    }
}

/// A reply's body, whose exchange learns of what is taken. It keeps what its request holds until it has gone.
pub(super) struct Reply {
    body: Body,
    exchange: Exchange,
    _lease: Option<Arc<Lease>>,
}

impl Reply {
    pub(super) fn of(response: Response, exchange: Exchange) -> Response<Reply> {
        exchange.waits_for_client();
        let (mut parts, body) = response.into_parts();
        let _lease = parts.extensions.remove();
        Response::from_parts(parts, Reply { body, exchange, _lease })
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _ = END.try_with(|end| self.exchange.ends_by(end));
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Pending => self.exchange.waits_for_us(),
            Poll::Ready(_) => self.exchange.waits_for_client(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
