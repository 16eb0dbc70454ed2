//! When is what was handed in written?
//!
//! Once much waits, once something has waited for long, and when somebody asks. While it is written more may come. What
//! the store does not take now is held on to as long as there is room: a bucket or a database that is away for a minute
//! costs nothing.

use std::sync::Arc;
use std::time::Duration;

use quern_store::segments::Segments;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Entry, Held, Message, Waiting, rows};

/// When what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

fn size(entries: &[Entry]) -> (usize, usize) {
    (entries.iter().map(|entry| entry.rows.len()).sum(), entries.iter().map(Entry::bytes).sum())
}

/// What is being written.
struct Writing {
    /// Gives what could not be written now.
    task: JoinHandle<Held>,
    rows: usize,
    bytes: usize,
    asked: Vec<oneshot::Sender<()>>,
}

/// The task that writes.
pub(super) struct Task {
    segments: Arc<Segments>,
    waiting: Arc<Waiting>,
    every: Duration,
    held: Held,
    rows: usize,
    bytes: usize,
    /// Who waits until what is held is written.
    asked: Vec<oneshot::Sender<()>>,
    due: Instant,
    /// Whether the store has just not taken something that is held.
    refused: bool,
    writing: Option<Writing>,
}

impl Task {
    pub(super) fn new(segments: &Arc<Segments>, waiting: &Arc<Waiting>, every: Duration) -> Task {
        Task {
            segments: Arc::clone(segments),
            waiting: Arc::clone(waiting),
            every,
            held: Held::default(),
            rows: 0,
            bytes: 0,
            asked: Vec::new(),
            due: Instant::now(),
            refused: false,
            writing: None,
        }
    }

    /// Writes entries as they come, until nobody can hand any more in.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut open = true;
        while open || self.writing.is_some() || !self.held.is_empty() {
            tokio::select! {
                message = queue.recv(), if open => match message {
                    Some(message) => self.take(message),
                    None => open = false,
                },
                () = tokio::time::sleep_until(self.due), if self.writing.is_none() && !self.held.is_empty() => {
                    self.begin();
                }
                left = wait(&mut self.writing), if self.writing.is_some() => self.end(left, open),
            }
            let is_much = self.rows >= super::WRITE_ROWS || self.bytes >= super::WRITE_BYTES;
            // What was just refused is not tried again at once, unless somebody asks.
            let is_due = !open || is_much && !self.refused;
            if self.writing.is_none() && (!self.asked.is_empty() || is_due && !self.held.is_empty()) {
                self.begin();
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Entries { entries, rows, bytes } => {
                if self.held.is_empty() {
                    self.due = Instant::now() + self.every;
                }
                (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
                self.held.entries.extend(entries);
            }
            Message::Flush(done) => self.asked.push(done),
        }
    }

    /// Begins to write all that is held.
    fn begin(&mut self) {
        let (held, segments) = (std::mem::take(&mut self.held), Arc::clone(&self.segments));
        self.writing = Some(Writing {
            task: tokio::task::spawn_blocking(move || rows::write(&segments, held)),
            rows: std::mem::take(&mut self.rows),
            bytes: std::mem::take(&mut self.bytes),
            asked: std::mem::take(&mut self.asked),
        });
    }

    /// Takes back what could not be written; where nothing more can come, it is lost.
    fn end(&mut self, left: Result<Held, tokio::task::JoinError>, open: bool) {
        let Some(writing) = self.writing.take() else { return };
        let mut left = left.unwrap_or_else(|error| {
            tracing::error!(%error, rows = writing.rows, "logged predictions are lost");
            Held::default()
        });
        if !open {
            rows::lose(std::mem::take(&mut left), "the server ends, and the store takes nothing");
        }
        let (rows, bytes) = size(&left.entries);
        self.waiting.give_back(writing.rows.saturating_sub(rows), writing.bytes.saturating_sub(bytes));
        self.refused = !left.is_empty();
        if self.refused {
            self.due = Instant::now() + RETRY_AFTER;
            // Those that came meanwhile come after.
            left.entries.append(&mut self.held.entries);
            left.unnamed.append(&mut self.held.unnamed);
            self.held = left;
            (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
        }
        for done in writing.asked {
            // Who has gone away need not know.
            let _: std::result::Result<(), ()> = done.send(());
        }
    }
}

async fn wait(writing: &mut Option<Writing>) -> Result<Held, tokio::task::JoinError> {
    match writing {
        Some(writing) => (&mut writing.task).await,
        None => std::future::pending().await,
    }
}
