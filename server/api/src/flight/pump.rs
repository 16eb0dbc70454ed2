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

/// A batch with what it holds.
pub(super) struct Made {
    pub(super) batch: NotedRows,
    /// Given back when the batch has been sent.
    pub(super) held: Part,
}

/// What a stream of batches is made of.
pub(super) type Batches = Box<dyn Iterator<Item = Result<NotedRows, quern_base::Failure>> + Send>;

/// Makes `batches` one by one, as the client takes them, and sends those after the first few, which it received before;
/// ends with the first error, or when the client has gone.
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
    loop {
        // Before the batch is made: one that nobody takes need not be.
        let Ok(place) = to.reserve().await else { return Ok(()) };
        let made = blocking("making a batch", move || {
            let batch = batches.next().transpose()?;
            Ok::<_, Error>((batch, batches))
        });
        let (batch, rest) = made.await.map_err(|error| refuse(&error))?;
        let Some(batch) = batch else { return Ok(()) };
        if received > 0 {
            (batches, received) = (rest, received - 1);
            continue;
        }
        let Some(held) = hold(lease, row_bytes(&batch.rows), to).await? else { return Ok(()) };
        place.send(Ok(Made { batch, held }));
        batches = rest;
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
