//! What did a model say to whom, and what did it see? Kept without the answer ever waiting for it.
//!
//! Whoever answers hands the answer in ([`PredictionLog::hand_in`]): a few reference counts into a bounded queue. What
//! does not fit is dropped and counted. One task takes entries out of the queue ([`write`]) and writes them into
//! segments ([`rows`]): once many wait, every minute, and whenever somebody asks ([`PredictionLog::flush`]), as a
//! server does at its end. [`merge`] makes large segments of small ones when their day is over, and [`read`] finds them
//! again.

pub mod merge;
pub mod read;
pub mod rows;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use quern_access::Principal;
use quern_engine::Found;
use quern_engine::size::row_bytes;
use quern_store::history::Partitions;
use quern_store::segments::{Prepared, Segments};
use tokio::sync::{mpsc, oneshot};

pub use self::read::{Between, LoggedFile};
use crate::error::Result;
use crate::live::{Deployment, LiveVersion};
use crate::metrics::metrics;
use crate::settings::Settings;

/// Where earlier builds have put files, in the data folder.
const FOLDER_BEFORE: &str = "predictions";

/// Predictions that may wait to be written; beyond that they are dropped.
const ROWS_MAX: usize = 1 << 18;
/// Answers that may wait for the task that writes.
const ENTRIES_MAX: usize = 1 << 14;
/// What they may hold together: what is being written, and as much that came meanwhile.
const BYTES_MAX: usize = 2 * WRITE_BYTES;
/// So many predictions are written at once, without waiting for more.
const WRITE_ROWS: usize = ROWS_MAX / 2;
/// Or as many as hold this.
const WRITE_BYTES: usize = 64 << 20;

/// The log of predictions.
#[derive(Debug)]
pub struct PredictionLog {
    queue: mpsc::Sender<Message>,
    waiting: Arc<Waiting>,
    segments: Arc<Segments>,
    /// How long predictions are kept.
    keep: Option<Duration>,
    /// What earlier builds have written, and where.
    before: (Partitions, PathBuf),
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Waiting {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Whether there is room for so much more, which is taken then.
    fn admit(&self, rows: usize, bytes: usize) -> bool {
        let rows_before = self.rows.fetch_add(rows, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = rows_before + rows <= ROWS_MAX && bytes_before + bytes <= BYTES_MAX;
        if !fits {
            self.give_back(rows, bytes);
        }
        fits
    }

    fn give_back(&self, rows: usize, bytes: usize) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Message {
    /// All that is said of one request.
    Entries { entries: Vec<Entry>, rows: usize, bytes: usize },
    /// Answered once everything before it is in the store, or cannot be written now.
    Flush(oneshot::Sender<()>),
}

/// What is to be written.
#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    /// Files in the store that the registry does not name yet.
    unnamed: Vec<Prepared>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unnamed.is_empty()
    }
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
        /// Whether the caller said one of them.
        timed: bool,
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
    /// Who asked.
    pub(crate) principal: Arc<Principal>,
    pub(crate) arrived_us: i64,
    pub(crate) latency_us: i64,
    /// Why that version: `route`, `pinned`, `shadow`, or why another than it answered.
    pub(crate) reason: &'static str,
    /// What answered: the version, `expr` or `constant`.
    pub(crate) served_by: String,
    /// Places in the request, of which `given` has them all.
    pub(crate) rows: Vec<usize>,
    pub(crate) given: Given,
    /// What the look-ups found and the vectors that it made, for each of `rows`; none where the caller brought vectors.
    pub(crate) looked_up: Option<(RecordBatch, Vec<Found>)>,
    /// What the model said, for each of `rows`.
    pub(crate) outputs: RecordBatch,
    /// And what models on other servers said on the way, where it asks any.
    pub(crate) asked: Option<RecordBatch>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let given = match &self.given {
            Given::Entities { inputs, .. } => inputs,
            Given::Vectors(vectors) => vectors,
        };
        let seen = self.looked_up.iter().map(|(vectors, _)| vectors);
        seen.chain([given, &self.outputs]).chain(&self.asked).map(row_bytes).sum()
    }
}

impl PredictionLog {
    /// Opens the log, and begins to write. It ends when this is dropped.
    pub(crate) fn open(settings: &Settings, segments: &Arc<Segments>) -> Result<PredictionLog> {
        let folder = settings.data.join(FOLDER_BEFORE);
        let (queue, messages) = mpsc::channel(ENTRIES_MAX);
        let waiting = Arc::<Waiting>::default();
        let task = write::Task::new(segments, &waiting, settings.predictions_every);
        tokio::spawn(task.run(messages));
        Ok(PredictionLog {
            queue,
            waiting,
            segments: Arc::clone(segments),
            keep: settings.predictions_keep,
            before: (Partitions::of(folder.clone()), folder),
        })
    }

    /// Hands in what was said of the instances of one request, whole or not at all; where too much waits, it is dropped
    /// and counted.
    pub(crate) fn hand_in(&self, entries: Vec<Entry>) {
        let Some(model) = entries.first().map(|entry| entry.model.clone()) else { return };
        let rows = entries.iter().map(|entry| entry.rows.len()).sum();
        let bytes = entries.iter().map(Entry::bytes).sum();
        if !self.waiting.admit(rows, bytes) {
            return PredictionLog::leave_out(&model, rows);
        }
        if self.queue.try_send(Message::Entries { entries, rows, bytes }).is_err() {
            self.waiting.give_back(rows, bytes);
            PredictionLog::leave_out(&model, rows);
        }
    }

    /// Predictions that wait to be written.
    pub fn waiting_rows(&self) -> usize {
        self.waiting.rows.load(Ordering::Relaxed)
    }

    /// Counts what cannot be logged.
    pub(crate) fn leave_out(model: &str, rows: usize) {
        metrics().predictions_dropped.with_label_values(&[model]).inc_by(rows as u64);
    }

    /// The same as [`PredictionLog::flush`], where blocking is allowed.
    pub(crate) fn flush_here(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.blocking_send(Message::Flush(done)).is_ok() {
            let _ = written.blocking_recv();
        }
    }

    /// Waits until everything that was handed in is in the store, or cannot be written now.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        // Where the task has ended, nothing is left to be written.
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_rows_and_by_bytes() {
        let waiting = Waiting::default();
        assert!(waiting.admit(ROWS_MAX, 0));
        assert!(!waiting.admit(1, 0));
        waiting.give_back(ROWS_MAX, 0);
        assert!(waiting.admit(1, BYTES_MAX));
        assert!(!waiting.admit(1, 1));
        waiting.give_back(1, BYTES_MAX);
        // What was refused is not held.
        assert!(waiting.admit(ROWS_MAX, BYTES_MAX));
    }
}
