//! What did a model say to whom, and what did it see? Kept without the answer ever waiting for it.
//!
//! Whoever answers notes the request before ([`PredictionLog::note`]) and hands the answer in after
//! ([`PredictionLog::record`]): a few reference counts into a bounded queue. What does not fit is dropped and counted.
//! One task takes entries out of the queue and writes them into files ([`rows`]): once many wait, every few seconds, and
//! whenever somebody asks ([`PredictionLog::flush`]), as a server does at its end.

pub mod rows;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use chrono::Utc;
use quern_engine::Found;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::{Ask, Given, LiveModel, LiveVersion, Part, Priority, Reason, Target};
use crate::deployment::Deployment;
use crate::error::Result;
use crate::metrics::metrics;
use crate::store::history::Partitions;

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
    files: Arc<Partitions>,
    unnamed: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Entry(Box<Entry>),
    /// Answered once everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// A request that is to be logged, before it is answered.
#[derive(Debug)]
pub struct Noted {
    model: Arc<LiveModel>,
    /// Whether the caller named the version, and so brought its columns and not the model's.
    pinned: bool,
    request_id: String,
    live: Arc<Deployment>,
    given: Seen,
    arrived_us: i64,
    begun: Instant,
}

/// What the request brought.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    Entities { inputs: RecordBatch, query_times_us: Vec<i64> },
    Vectors(RecordBatch),
}

/// What one version said of some instances of a request.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) model: String,
    pub(super) live: Arc<Deployment>,
    pub(super) version: Arc<LiveVersion>,
    pub(super) request_id: String,
    pub(super) arrived_us: i64,
    pub(super) latency_us: i64,
    pub(super) reason: String,
    /// Places in the request, of which `given` has them all.
    pub(super) rows: Vec<usize>,
    pub(super) given: Seen,
    /// What the look-ups found and the vectors that it made, for each of `rows`; none where the caller brought vectors.
    pub(super) looked_up: Option<(RecordBatch, Vec<Found>)>,
    /// What the model said, for each of `rows`.
    pub(super) outputs: RecordBatch,
}

impl Noted {
    /// What the request brought, as the part's version wants it.
    fn given(&self, part: &Part) -> Seen {
        let place = self.model.versions.iter().position(|version| Arc::ptr_eq(version, &part.version));
        match (&self.given, place.and_then(|place| self.model.reads[place].as_ref())) {
            (Seen::Entities { inputs, query_times_us }, Some(reads)) if !self.pinned => {
                // The places are of these very columns.
                let inputs = inputs.project(reads).unwrap_or_else(|_| inputs.clone());
                Seen::Entities { inputs, query_times_us: query_times_us.clone() }
            }
            (given, _) => given.clone(),
        }
    }
}

impl PredictionLog {
    /// Opens the log in the data folder, and begins to write. It ends when this is dropped.
    pub(crate) fn open(data: &Path) -> Result<PredictionLog> {
        let files = Arc::new(Partitions::open(data.join(FOLDER))?);
        let (queue, entries) = mpsc::channel(ENTRIES_MAX);
        let waiting_rows = Arc::new(AtomicUsize::new(0));
        tokio::spawn(write(entries, Arc::clone(&files), Arc::clone(&waiting_rows)));
        Ok(PredictionLog { queue, waiting_rows, files, unnamed: AtomicU64::new(0) })
    }

    /// Notes a request where its model keeps a log and the request is of the sample. Batches are not logged: their rows
    /// come out with the predictions, which is a record already.
    pub fn note(&self, target: &Target, ask: &Ask) -> Option<Noted> {
        let declared = target.live.catalog.definitions.models.get(&target.model.name)?;
        let sample = declared.log_sample.filter(|_| ask.priority != Priority::Batch)?;
        let request_id = match ask.request_id.as_str() {
            "" => format!(
                "unnamed-{:x}-{}",
                Utc::now().timestamp_micros(),
                self.unnamed.fetch_add(1, Ordering::Relaxed)
            ),
            named => named.to_owned(),
        };
        if share(&request_id) >= sample {
            return None;
        }
        let given = match &ask.given {
            Given::Entities { inputs, query_times_us } => {
                Seen::Entities { inputs: inputs.clone(), query_times_us: query_times_us.clone() }
            }
            Given::Vectors(vectors) => Seen::Vectors(vectors.clone()),
        };
        Some(Noted {
            model: Arc::clone(&target.model),
            pinned: target.pinned.is_some(),
            request_id,
            live: Arc::clone(&target.live),
            given,
            arrived_us: Utc::now().timestamp_micros(),
            begun: Instant::now(),
        })
    }

    /// Hands in the answer to a request that was noted.
    pub fn record(&self, noted: &Noted, parts: &[Part]) {
        for part in parts {
            let reason = match &part.reason {
                None => "default".to_owned(),
                Some(Reason { cause, .. }) => format!("{} to {}", cause.as_str(), part.served_by),
            };
            self.record_part(noted, part, reason);
        }
    }

    /// Hands in what was said of some instances, whoever heard it. `reason` says why it was asked.
    pub(super) fn record_part(&self, noted: &Noted, part: &Part, reason: String) {
        let count = part.rows.len();
        let dropped =
            || metrics().predictions_dropped.with_label_values(&[&noted.model.name]).inc_by(count as u64);
        if self.waiting_rows.fetch_add(count, Ordering::Relaxed) + count > ROWS_MAX {
            self.waiting_rows.fetch_sub(count, Ordering::Relaxed);
            return dropped();
        }
        let looked_up = part.vectors.as_ref();
        let entry = Entry {
            model: noted.model.name.clone(),
            live: Arc::clone(&noted.live),
            version: Arc::clone(&part.version),
            request_id: noted.request_id.clone(),
            arrived_us: noted.arrived_us,
            latency_us: i64::try_from(noted.begun.elapsed().as_micros()).unwrap_or(i64::MAX),
            reason,
            rows: part.rows.clone(),
            given: noted.given(part),
            looked_up: looked_up.map(|looked_up| (looked_up.vectors.clone(), looked_up.found.clone())),
            outputs: part.outputs.clone(),
        };
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

    /// The files.
    pub(crate) fn files(&self) -> &Arc<Partitions> {
        &self.files
    }
}

/// Where a request lies between 0 and 1, by its name alone.
fn share(request_id: &str) -> f64 {
    let digest = Sha256::digest(request_id.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(number) >> 11) as f64 / (1u64 << 53) as f64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share_of_the_requests() {
        let logged = (0..10_000).filter(|id| share(&format!("request-{id}")) < 0.1).count();
        assert!((900..1_100).contains(&logged), "{logged} of 10,000");
        assert_eq!(share("a"), share("a"));
    }
}
