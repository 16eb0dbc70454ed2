//! Who was allowed what, and who was not? A line of JSON for each decision, in a file or on standard output.
//!
//! What keeps the server running or changes what is live is written and synced before it is done, and is not done where
//! that fails, unless it only takes away. Of everything else a bounded queue is written by one thread: no answer waits
//! for it, and what does not fit is counted. A value of a row, a key or a secret never stands in it: for the entities
//! that a request names stand their [`pseudonyms`].

mod pseudonyms;

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;

use parking_lot::Mutex;
use quern_access::{Caller, Rule};
use quern_base::clock::{now_us, shown};
use quern_base::metrics::{IntCounter, counter};
use serde::Serialize;

pub use self::pseudonyms::Pseudonyms;
pub(crate) use self::pseudonyms::keys;
use crate::error::{Error, Result};
use crate::settings::{AuditTo, Settings};

/// Lines that may wait.
const QUEUE: usize = 65_536;
/// Of a name that a caller chose.
const CHARS_MAX: usize = 512;
/// As many are written together.
const BATCH_BYTES: usize = 1 << 20;

/// Where decisions are written; nowhere where the settings name no place.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    place: Arc<Mutex<Place>>,
    queue: SyncSender<Vec<u8>>,
    pseudonyms: Pseudonyms,
}

/// One decision.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    principal: &'a str,
    action: String,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// The entities of a request that was allowed.
#[derive(Serialize)]
struct Named<'a> {
    time: String,
    request_id: &'a str,
    principal: &'a str,
    action: String,
    entities: Vec<String>,
    rows: usize,
}

impl Audit {
    /// Opens the place that the settings name.
    ///
    /// # Errors
    /// A file that cannot be written; a secret that cannot be read.
    pub fn open(settings: &Settings) -> Result<Audit> {
        let Some(to) = &settings.audit else { return Ok(Audit::default()) };
        dropped();
        let pseudonyms = Pseudonyms::open(settings)?;
        let place = Place::open(to).map_err(|error| match to {
            AuditTo::Stdout => Error::internal("writing to standard output", error),
            AuditTo::File(path) => {
                Error::invalid(format!("`audit`: {} cannot be written: {error}", path.display()))
            }
        })?;
        let place = Arc::new(Mutex::new(place));
        let (queue, lines) = sync_channel(QUEUE);
        let writing = Arc::clone(&place);
        thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(&lines, &writing))?;
        Ok(Audit(Some(Arc::new(Inner { place, queue, pseudonyms }))))
    }

    /// Notes a decision, and does not wait until it is written. `rule` is why it was allowed, if it was.
    pub fn note(&self, who: &Caller, what: impl Display, rule: impl FnOnce() -> Option<Rule>) {
        let Some(inner) = &self.0 else { return };
        inner.queue(line(who, &what, rule()));
    }

    /// What finds what stands for entities; none where nothing is written down.
    pub(crate) fn pseudonyms(&self) -> Option<&Pseudonyms> {
        self.0.as_ref().map(|inner| &inner.pseudonyms)
    }

    /// Notes what stands for the entities that a request names, and how many rows it has.
    pub(crate) fn note_entities(
        &self,
        who: &Caller,
        what: impl Display,
        (entities, rows): (Vec<String>, usize),
    ) {
        let Some(inner) = &self.0 else { return };
        inner.queue(written(&Named {
            time: shown(now_us()),
            request_id: cut(&who.request_id),
            principal: cut(who.name()),
            action: cut(&what.to_string()).to_owned(),
            entities,
            rows,
        }));
    }

    /// Writes a decision, for what must not be done without. Waits for the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// `Kind::Unavailable` where it cannot be written.
    pub fn write(&self, who: &Caller, what: impl Display, rule: impl FnOnce() -> Option<Rule>) -> Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let line = line(who, &what, rule());
        let written = inner.place.lock().write(&line, true);
        written.map_err(|error| {
            Error::unavailable("the audit cannot be written, and without it this is not done").because(error)
        })
    }
}

impl Inner {
    fn queue(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(line) {
            dropped().inc();
        }
    }
}

impl Audit {
    /// The same for what goes on where it cannot be written: that is counted, and logged.
    pub fn write_or_lose(&self, who: &Caller, what: impl Display, rule: impl FnOnce() -> Option<Rule>) {
        let what = what.to_string();
        if let Err(error) = self.write(who, &what, rule) {
            dropped().inc();
            let (principal, cause) = (who.name(), error.logged());
            tracing::error!(cause, principal, what, "a line of the audit is lost, and what it says was done");
        }
    }
}

fn dropped() -> &'static IntCounter {
    static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
        counter(
            "quern_audit_dropped_total",
            "Decisions that were to stand in the audit and could not be written",
        )
    });
    &DROPPED
}

fn line(who: &Caller, what: &dyn Display, rule: Option<Rule>) -> Vec<u8> {
    written(&Line {
        time: shown(now_us()),
        request_id: cut(&who.request_id),
        principal: cut(who.name()),
        action: cut(&what.to_string()).to_owned(),
        decision: if rule.is_some() { "allow" } else { "deny" },
        rule: rule.map(|rule| rule.to_string()),
    })
}

fn written(line: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(line).unwrap_or_default();
    line.push(b'\n');
    line
}

/// As much of a text that a caller chose as a line has room for.
fn cut(text: &str) -> &str {
    text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Writes what comes, until nobody can send any more.
fn write_all(lines: &Receiver<Vec<u8>>, place: &Mutex<Place>) {
    while let Ok(mut batch) = lines.recv() {
        while batch.len() < BATCH_BYTES
            && let Ok(next) = lines.try_recv()
        {
            batch.extend(next);
        }
        if let Err(error) = place.lock().write(&batch, false) {
            let count = batch.iter().filter(|byte| **byte == b'\n').count();
            dropped().inc_by(count as u64);
            tracing::error!(cause = error.to_string(), lines = count, "lines of the audit are lost");
        }
    }
}

/// An open place.
#[derive(Debug)]
enum Place {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Place {
    fn open(to: &AuditTo) -> io::Result<Place> {
        match to {
            AuditTo::Stdout => Ok(Place::Stdout),
            AuditTo::File(path) => Ok(Place::File { path: path.clone(), file: open(path)? }),
        }
    }

    fn write(&mut self, lines: &[u8], synced: bool) -> io::Result<()> {
        match self {
            Place::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Place::File { path, file } => {
                // Whoever rotates it moves it away: then a new one begins.
                if !is_same(path, file) {
                    *file = open(path)?;
                }
                file.write_all(lines)?;
                if synced { file.sync_data() } else { Ok(()) }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn is_same(path: &Path, file: &File) -> bool {
    match (path.metadata(), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}
