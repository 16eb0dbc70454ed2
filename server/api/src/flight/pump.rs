//! How do batches that are made by blocking work reach a client that takes its time?
//!
//! A thread is held only while a batch is made: between two batches nothing waits but a task. A batch is made ahead of
//! the client, and what is ahead is taken from the memory of requests; where there is none left, the maker waits.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use quern_base::memory::{Lease, Part};
use quern_base::tasks::blocking;
use quern_engine::size::row_bytes;
use quern_server::NotedRows;
use tokio::sync::mpsc;
use tonic::Status;

use super::refuse;
use crate::error::Error;

/// Batches made ahead of the client.
const AHEAD: usize = 1;
/// How often to look whether others have given memory back.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Rows of one message, where one row is not more.
const MESSAGE_BYTES: usize = 2 << 20;

/// The rows of a message, with what the batch holds that they are of.
pub(super) struct Made {
    pub(super) batch: NotedRows,
    /// Given back when all of the batch has been sent.
    pub(super) held: Arc<Part>,
}

impl Made {
    /// The messages of a batch. What is noted of it goes with the first.
    pub(super) fn messages(batch: NotedRows, held: Part) -> impl Iterator<Item = Made> {
        let held = Arc::new(held);
        cut(batch).map(move |batch| Made { batch, held: Arc::clone(&held) })
    }
}

/// Cuts a batch by what its rows are: Flight's own encoder goes by the buffers, which a slice shares with others.
fn cut(NotedRows { rows, notes }: NotedRows) -> impl Iterator<Item = NotedRows> {
    let count = rows.num_rows();
    let each = count.div_ceil(row_bytes(&rows).div_ceil(MESSAGE_BYTES).max(1)).max(1);
    let mut notes = Some(notes);
    (0..count.max(1)).step_by(each).map(move |start| NotedRows {
        rows: rows.slice(start, each.min(count - start)),
        notes: notes.take().unwrap_or_default(),
    })
}

/// What a stream of batches is made of.
pub(super) type Batches = Box<dyn Iterator<Item = Result<NotedRows, quern_base::Failure>> + Send>;

/// Makes `batches` one by one, as the client takes them, and sends the messages after the first few, which it received
/// before; ends with the first error, or when the client has gone.
pub(super) fn pump(
    batches: Batches,
    received: u64,
    lease: Arc<Lease>,
) -> impl Stream<Item = Result<Made, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(status) = make(batches, received, &lease, &sender).await {
            let _ = sender.send(Err(status)).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

async fn make(
    mut batches: Batches,
    mut received: u64,
    lease: &Arc<Lease>,
    to: &mpsc::Sender<Result<Made, Status>>,
) -> Result<(), Status> {
    // Before a batch is made: one that nobody takes need not be.
    let Ok(mut place) = to.reserve().await else { return Ok(()) };
    loop {
        let made = blocking("making a batch", move || {
            let batch = batches.next().transpose()?;
            Ok::<_, Error>((batch, batches))
        });
        let (batch, rest) = made.await.map_err(|error| refuse(&error))?;
        let Some(batch) = batch else { return Ok(()) };
        batches = rest;
        let Some(held) = hold(lease, row_bytes(&batch.rows), to).await? else { return Ok(()) };
        for message in Made::messages(batch, held) {
            // One without rows is none to the client.
            if received > 0 && message.batch.rows.num_rows() > 0 {
                received -= 1;
                continue;
            }
            place.send(Ok(message));
            place = match to.reserve().await {
                Ok(place) => place,
                Err(_) => return Ok(()),
            };
        }
    }
}

/// Waits for memory where others hold it; none where the client has gone meanwhile.
async fn hold<T>(lease: &Arc<Lease>, bytes: usize, to: &mpsc::Sender<T>) -> Result<Option<Part>, Status> {
    while !to.is_closed() {
        match lease.part(bytes) {
            Ok(part) => return Ok(Some(part)),
            // Others will give some back.
            Err(error) if error.retry_after().is_some() => tokio::time::sleep(LOOK_AGAIN).await,
            Err(error) => return Err(refuse(&error)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, RecordBatch};

    /// Rows of 8 bytes in each of `columns`, which are a part of many more.
    fn part(rows: usize, columns: usize) -> NotedRows {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0; 1_000_000]));
        let named = (0..columns).map(|n| (format!("c{n}"), Arc::clone(&column)));
        NotedRows::from(RecordBatch::try_from_iter(named).unwrap().slice(7, rows))
    }

    #[test]
    fn a_message_is_as_large_as_its_rows_and_not_as_what_they_are_cut_from() {
        let lengths = |batch| cut(batch).map(|message| message.rows.num_rows()).collect::<Vec<_>>();
        assert_eq!(lengths(part(4_096, 1)), [4_096]);
        assert_eq!(lengths(part(4_096, 100)), [2_048, 2_048]);
        assert_eq!(lengths(part(10_000, 150)), [1_667, 1_667, 1_667, 1_667, 1_667, 1_665]);
        assert_eq!(lengths(part(0, 1)), [0]);
    }

    #[tokio::test]
    async fn what_was_received_is_counted_as_it_was_sent() {
        use futures::StreamExt;
        let batches = || vec![part(10_000, 150), part(0, 150), part(5, 150), part(10_000, 150)];
        let sent = async |received| {
            let budget = quern_base::memory::Budget::new(1 << 30);
            let batches: Batches = Box::new(batches().into_iter().map(Ok));
            let made = pump(batches, received, Arc::new(budget.lease()));
            made.map(|made| made.unwrap().batch.rows.num_rows())
                .filter(|rows| std::future::ready(*rows > 0))
                .collect()
                .await
        };
        let all: Vec<usize> = sent(0).await;
        assert_eq!(all.len(), 13);
        for received in 0..=14 {
            let rest: Vec<usize> = sent(received).await;
            assert_eq!(rest, all[all.len().min(received as usize)..], "{received}");
        }
    }
}
