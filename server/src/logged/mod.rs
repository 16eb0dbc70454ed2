//! What did a model say to whom, and what did it see? Kept without the answer ever waiting for it.
//!
//! Whoever answers hands the answer in ([`PredictionLog::hand_in`]): a few reference counts into a bounded queue. What
//! does not fit is dropped and counted. One task takes entries out of the queue and writes them into files ([`rows`]):
//! once many wait, every few seconds, and whenever somebody asks ([`PredictionLog::flush`]), as a server does at its
//! end. [`read`] finds them again.

pub mod read;
pub mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use quern_engine::Found;
use quern_store::history::Partitions;
use tokio::sync::{mpsc, oneshot};

pub use self::read::{Between, LoggedFile};
use crate::error::Result;
use crate::live::{Deployment, LiveVersion};
use crate::metrics::metrics;

/// Where the files are, in the data folder.
pub(crate) const FOLDER: &str = "predictions";

/// Predictions that may wait to be written; beyond that they are dropped.
const ROWS_MAX: usize = 1 << 17;
/// Answers that may wait for the task that writes.
const ENTRIES_MAX: usize = 1 << 14;
/// So many predictions are written at once, without waiting for more.
const WRITE_ROWS: usize = 1 << 14;
/// The longest that a prediction waits to be written.
const WRITE_AFTER: Duration = Duration::from_secs(3);

/// The prediction log of a data folder.
#[derive(Debug)]
pub struct PredictionLog {
    queue: mpsc::Sender<Message>,
    waiting_rows: Arc<AtomicUsize>,
    /// Where the files are.
    folder: PathBuf,
    files: Arc<Partitions>,
}

#[derive(Debug)]
enum Message {
    Entry(Box<Entry>),
    /// Answered once everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// What is known of each instance of a request.
#[derive(Debug, Clone)]
pub enum Given {
    /// Its keys and request columns, and its query time (µs).
    Entities {
        /// A row for each instance.
        inputs: RecordBatch,
        /// One for each row.
        query_times_us: Vec<i64>,
    },
    /// Its whole feature vector.
    Vectors(RecordBatch),
}

/// What one version said of some instances of a request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) model: String,
    pub(crate) live: Arc<Deployment>,
    pub(crate) version: Arc<LiveVersion>,
    pub(crate) request_id: String,
    pub(crate) arrived_us: i64,
    pub(crate) latency_us: i64,
    pub(crate) reason: String,
    /// Places in the request, of which `given` has them all.
    pub(crate) rows: Vec<usize>,
    pub(crate) given: Given,
    /// What the look-ups found and the vectors that it made, for each of `rows`; none where the caller brought vectors.
    pub(crate) looked_up: Option<(RecordBatch, Vec<Found>)>,
    /// What the model said, for each of `rows`.
    pub(crate) outputs: RecordBatch,
}

impl PredictionLog {
    /// Opens the log in the data folder, and begins to write. It ends when this is dropped.
    pub(crate) fn open(data: &Path) -> Result<PredictionLog> {
        let folder = data.join(FOLDER);
        let files = Arc::new(Partitions::open(folder.clone())?);
        let (queue, entries) = mpsc::channel(ENTRIES_MAX);
        let waiting_rows = Arc::new(AtomicUsize::new(0));
        tokio::spawn(write(entries, Arc::clone(&files), Arc::clone(&waiting_rows)));
        Ok(PredictionLog { queue, waiting_rows, folder, files })
    }

    /// Hands in what was said of some instances; where too many wait, it is dropped and counted.
    pub(crate) fn hand_in(&self, entry: Entry) {
        let count = entry.rows.len();
        let model = entry.model.clone();
        let dropped = || metrics().predictions_dropped.with_label_values(&[&model]).inc_by(count as u64);
        if self.waiting_rows.fetch_add(count, Ordering::Relaxed) + count > ROWS_MAX {
            self.waiting_rows.fetch_sub(count, Ordering::Relaxed);
            return dropped();
        }
        if self.queue.try_send(Message::Entry(Box::new(entry))).is_err() {
            self.waiting_rows.fetch_sub(count, Ordering::Relaxed);
            dropped();
        }
    }

    /// Waits until everything that was handed in is on disk.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        // Where the task has ended, nothing is left to be written.
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

/// Writes entries as they come, until nobody can hand any more in.
async fn write(mut queue: mpsc::Receiver<Message>, files: Arc<Partitions>, waiting_rows: Arc<AtomicUsize>) {
    let (mut held, mut held_rows, mut flushed) = (Vec::new(), 0, Vec::new());
    let mut due = tokio::time::Instant::now();
    loop {
        let came = tokio::select! {
            message = queue.recv() => Some(message),
            () = tokio::time::sleep_until(due), if !held.is_empty() => None,
        };
        let ended = matches!(came, Some(None));
        match came.flatten() {
            Some(Message::Entry(entry)) => {
                if held.is_empty() {
                    due = tokio::time::Instant::now() + WRITE_AFTER;
                }
                held_rows += entry.rows.len();
                held.push(*entry);
                if held_rows < WRITE_ROWS {
                    continue;
                }
            }
            Some(Message::Flush(done)) => flushed.push(done),
            None => {}
        }
        if !held.is_empty() {
            let (entries, files) = (std::mem::take(&mut held), Arc::clone(&files));
            let writing = tokio::task::spawn_blocking(move || rows::write(&files, entries));
            if let Err(error) = writing.await {
                tracing::error!(%error, rows = held_rows, "logged predictions are lost");
            }
        }
        waiting_rows.fetch_sub(std::mem::take(&mut held_rows), Ordering::Relaxed);
        for done in flushed.drain(..) {
            // Who has gone away need not know.
            let _: std::result::Result<(), ()> = done.send(());
        }
        if ended {
            return;
        }
    }
}
