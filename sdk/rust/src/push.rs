//! How do rows go up? Over Arrow Flight; each batch is acknowledged once it is durable.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightDescriptor, PutResult};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use crate::flight::flight_error;
use crate::wire::{PushCommand, PushReply};
use crate::{Client, Error, Result};

/// A push under way: a stream of acknowledgements, one for each batch that has rows, in the order of the batches.
///
/// The batches go up while it is read. `rejected[].index` counts within the whole push.
///
/// An item that is an error ends the stream; what was acknowledged before is durable. An overloaded server ends it with
/// [`Code::Overloaded`](crate::wire::Code::Overloaded), and [`Error::retry_after`] says when to come again with the
/// batches that were not acknowledged, or, under an idempotency key, with all of them.
#[must_use = "the rows go up while this is read"]
pub struct Push {
    replies: BoxStream<'static, std::result::Result<PutResult, FlightError>>,
    sent: Arc<Mutex<Sent>>,
}

/// What went up so far.
#[derive(Default)]
struct Sent {
    rows: usize,
    /// For each batch the place of its first row in the push.
    starts: Vec<usize>,
}

impl Client {
    /// Pushes the rows of `batches`, each of `schema`, to the source that `command` names. Each batch is one message:
    /// a few MiB are a good size. Empty batches are left out.
    ///
    /// # Errors
    /// Where the call does not come about. That the server refuses it may also be told by the first item.
    pub async fn push<S>(&self, command: &PushCommand, schema: SchemaRef, batches: S) -> Result<Push>
    where
        S: Stream<Item = RecordBatch> + Send + 'static,
    {
        let command = serde_json::to_vec(command).map_err(|error| Error::Invalid(error.to_string()))?;
        let sent = Arc::new(Mutex::new(Sent::default()));
        let noted = Arc::clone(&sent);
        let batches =
            batches.filter(|batch| std::future::ready(batch.num_rows() > 0)).inspect(move |batch| {
                let mut sent = noted.lock().unwrap_or_else(PoisonError::into_inner);
                let start = sent.rows;
                sent.starts.push(start);
                sent.rows += batch.num_rows();
            });
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
            // The server finds a repeated batch by its place among the messages: we must not cut.
            .with_max_flight_data_size(usize::MAX)
            .build(batches.map(Ok::<_, FlightError>));
        let replies = self.flight().do_put(messages).await.map_err(|error| self.flight_error(error))?;
        Ok(Push { replies, sent })
    }
}

impl Push {
    /// Waits for the last acknowledgement, and adds all of them up.
    ///
    /// # Errors
    /// The first failure; read the stream instead to know what was taken before it.
    pub async fn finish(self) -> Result<PushReply> {
        self.try_fold(PushReply::default(), |mut sum, reply| {
            sum.accepted += reply.accepted;
            sum.repeated += reply.repeated;
            sum.rejected.extend(reply.rejected);
            std::future::ready(Ok(sum))
        })
        .await
    }

    fn read(&self, reply: &PutResult) -> Result<PushReply> {
        let mut reply: PushReply = serde_json::from_slice(&reply.app_metadata)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let start = reply.batch.and_then(|batch| sent.starts.get(batch));
        let start =
            *start.ok_or_else(|| Error::Protocol("the reply is to no batch that was sent".to_owned()))?;
        for rejected in &mut reply.rejected {
            rejected.index += start;
        }
        Ok(reply)
    }
}

impl Stream for Push {
    type Item = Result<PushReply>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reply = std::task::ready!(self.replies.poll_next_unpin(context));
        Poll::Ready(reply.map(|reply| reply.map_err(flight_error).and_then(|reply| self.read(&reply))))
    }
}
