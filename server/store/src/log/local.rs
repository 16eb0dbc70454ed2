//! Which rows were pushed here, and what was seen of them? The log of one server, in a RocksDB of its own.
//!
//! It alone is synced before anybody is told. The head notes how far it has come in the step that brings it there, so
//! whatever a crash leaves undone in it is found here. Rows that lie in files are forgotten once the head has them.
//!
//! ```text
//! default  `format`, `id`                             →  the version of all this, and what tells the log from others
//! sources  source                                     →  position of its last commit ‖ position of the last that is
//!                                                        forgotten ‖ number of the row after that
//! groups   source ‖ 0 ‖ number of the commit ‖        →  name of the commit ‖ name of the one before ‖ number of its
//!          number of the row after it                    first row ‖ how many rows are for the head as well ‖ bytes of
//!                                                        the first stream ‖ rows of history ‖ rows for the head alone
//! seen     source ‖ 0 ‖ what was seen                 →  time µs until which it is kept ‖ its value
//! ```
//!
//! Numbers and names are of 8 bytes, big-endian, and a position is a number and a name; rows are Arrow IPC streams, the
//! second one may be empty.
//!
//! *Nothing is lost without a word.* RocksDB checks its blocks and its log, and yet opens without what a damaged
//! manifest does not name any more. So every commit counts on in each family, under the empty key, and the groups of a
//! source are all there from the last that is forgotten to its last, each of which names the one before.

mod bytes;
mod database;
mod examine;
mod heal;
mod together;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::Utc;
use parking_lot::Mutex;
use quern_base::failure::DISK_FAILS;
use rocksdb::compaction_filter::Decision;
use rocksdb::{DBPinnableSlice, IteratorMode, Options, WriteBatch};

use self::bytes::{group, names, of_key, start};
use self::database::{Database, family};
use self::together::{Given, Waiting};
use super::logged::{Logged, Seen, SeenKey};
use super::named::labelled_model;
use crate::error::{Error, Kind, Result};
use crate::position::Position;

const FORMAT: &[u8] = b"2";
const SOURCES: &str = "sources";
const GROUPS: &str = "groups";
const SEEN: &str = "seen";
/// What becomes of rows whose commit the disk did not take.
const PERHAPS: &str = "what was pushed is in the log or not: push it again until it is taken, which needs no restart; with \
                       event ids or an idempotency key it counts once";
/// Under which each family counts the commits.
const COUNT: &[u8] = b"";

/// The log of one data folder. Only one process has it open.
pub struct LocalLog {
    db: Database,
    /// Names it.
    id: String,
    /// How far the log is; as it stands in the store.
    state: Mutex<State>,
    /// By source, the commit after which there are some of which nobody knows here: they failed, and are there.
    unread: Mutex<BTreeMap<String, i64>>,
    /// What is written with the next commit.
    waiting: Waiting,
    /// Says whose the folder is; given back once the store is closed.
    _lock: Option<Arc<File>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many commits there were.
    commits: u64,
    sources: BTreeMap<String, OfSource>,
}

/// How far the log of one source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OfSource {
    /// Its last commit.
    last: Position,
    /// The last commit whose rows lie here no more.
    forgotten: Position,
    /// The number of the row after those.
    in_files: u64,
}

impl OfSource {
    fn bytes(self) -> Vec<u8> {
        [&self.last.bytes()[..], &self.forgotten.bytes(), &self.in_files.to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<OfSource> {
        let (last, rest) = bytes.split_at_checked(16)?;
        let (forgotten, in_files) = rest.split_at_checked(16)?;
        let in_files = u64::from_be_bytes(in_files.try_into().ok()?);
        Some(OfSource { last: Position::read(last)?, forgotten: Position::read(forgotten)?, in_files })
    }
}

impl LocalLog {
    /// The same, which keeps `lock`, whose the folder is, until it is closed.
    #[must_use]
    pub fn locked_by(self, lock: Arc<File>) -> LocalLog {
        LocalLog { _lock: Some(lock), ..self }
    }

    /// Opens or makes the log in `folder`.
    ///
    /// # Errors
    /// `Kind::Refused` where it is damaged or of another format, with the way out.
    pub fn open(folder: &Path) -> Result<LocalLog> {
        let db = Database::open(folder)?;
        let mut log = LocalLog {
            db,
            id: String::new(),
            state: Mutex::default(),
            unread: Mutex::default(),
            waiting: Waiting::default(),
            _lock: None,
        };
        let known = name_of(folder)?;
        let opened = log.db.get()?;
        match opened.get("format").map_err(|error| unreadable(folder, error))? {
            None => {
                let mut batch = WriteBatch::default();
                batch.put("format", FORMAT);
                let id =
                    known.clone().unwrap_or_else(|| format!("{:016x}", Position::default().next().token));
                batch.put("id", id);
                opened.write(batch)?;
            }
            Some(found) if found == FORMAT => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(Error::refused(format!(
                    "the log of pushed rows {} has format {found}, and this build reads format {}: with the build that \
                     wrote it, run `quern seal`, which brings its rows into segments, and stop the server; move `log` and \
                     `head` out of the data folder, where `log.id` stays, start this build and run `quern materialize`",
                    folder.display(),
                    String::from_utf8_lossy(FORMAT)
                )));
            }
        }
        let id = opened.get("id").map_err(|error| unreadable(folder, error))?;
        drop(opened);
        log.id = id.and_then(|id| String::from_utf8(id).ok()).ok_or_else(|| unreadable(folder, damaged()))?;
        log.named(folder, known)?;
        log.state = Mutex::new(log.read_state().map_err(|error| unreadable(folder, error))?);
        Ok(log)
    }

    /// Writes its name down beside it, unless it is `known` there: segments are found by it where the log is lost.
    fn named(&self, folder: &Path, known: Option<String>) -> Result<()> {
        let file = folder.with_extension("id");
        match known {
            Some(known) if known == self.id => Ok(()),
            Some(known) => Err(Error::refused(format!(
                "the log of pushed rows {} is log {} of another data folder, and this folder had log {known}: bring its own \
                 back; where all of the other folder was brought here, bring {} along",
                folder.display(),
                self.id,
                file.display()
            ))),
            None => {
                let unfinished = folder.with_extension("id.part");
                let mut written = File::create(&unfinished)?;
                written.write_all(self.id.as_bytes())?;
                written.sync_all()?;
                Ok(fs::rename(&unfinished, &file)?)
            }
        }
    }

    /// How far the log is.
    ///
    /// # Errors
    /// Where a part of it is missing.
    fn read_state(&self) -> Result<State> {
        let db = self.db.get()?;
        let count = |name| -> Result<u64> {
            let Some(bytes) = db.get_cf(family(&db, name), COUNT)? else { return Ok(0) };
            bytes.last_chunk().map(|count| u64::from_be_bytes(*count)).ok_or_else(damaged)
        };
        let mut state = State { commits: count(SOURCES)?, ..State::default() };
        for name in [GROUPS, SEEN] {
            let counted = count(name)?;
            if counted != state.commits {
                return Err(Error::broken(format!(
                    "`{name}` has {counted} commits, and `{SOURCES}` {}",
                    state.commits
                )));
            }
        }
        for entry in db.iterator_cf(family(&db, SOURCES), IteratorMode::Start) {
            let (source, of) = entry?;
            if *source == *COUNT {
                continue;
            }
            let (Ok(source), Some(of)) = (std::str::from_utf8(&source), OfSource::read(&of)) else {
                return Err(damaged());
            };
            state.sources.insert(source.to_owned(), of);
        }
        let mut found: BTreeMap<String, OfSource> = state.sources.clone();
        found.values_mut().for_each(|of| of.last = of.forgotten);
        for entry in db.iterator_cf(family(&db, GROUPS), IteratorMode::Start) {
            let (key, value) = entry?;
            if *key == *COUNT {
                continue;
            }
            let (source, number, _) = of_key(&key)?;
            let (token, previous) = names(&value)?;
            match found.get_mut(source) {
                Some(of) if (of.last.number + 1, of.last.token) == (number, previous) => {
                    of.last = Position { number, token };
                }
                _ => return Err(Error::broken(format!("source `{source}`: commit {number} follows none"))),
            }
        }
        match found == state.sources {
            true => Ok(state),
            false => Err(Error::broken("the last commits of a source are missing")),
        }
    }

    /// Names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The last commit of each source, which the head follows.
    pub fn lasts(&self) -> BTreeMap<String, Position> {
        let state = self.state.lock();
        let sources = state.sources.iter().filter(|(name, _)| labelled_model(name).is_none());
        sources.map(|(source, of)| (source.clone(), of.last)).collect()
    }

    /// The last commit of `source`.
    pub fn last(&self, source: &str) -> Position {
        self.state.lock().sources.get(source).map_or_else(Position::default, |of| of.last)
    }

    /// The last commit of `source` whose rows lie here no more.
    pub fn forgotten(&self, source: &str) -> Position {
        self.state.lock().sources.get(source).map_or_else(Position::default, |of| of.forgotten)
    }

    /// Whether the log of `source` went through `position`, as far as it still knows.
    pub fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        let of = self.state.lock().sources.get(source).copied().unwrap_or_default();
        if position.number <= of.forgotten.number {
            return Ok(position.number < of.forgotten.number || position == of.forgotten);
        }
        let from = [&start(source)[..], &position.number.to_be_bytes()].concat();
        let from_there = IteratorMode::From(&from, rocksdb::Direction::Forward);
        let db = self.db.get()?;
        let Some(entry) = db.iterator_cf(family(&db, GROUPS), from_there).next() else {
            return Ok(false);
        };
        let (key, value) = entry?;
        Ok(key.starts_with(&from) && names(&value)?.0 == position.token)
    }

    /// The number of the row up to which files must hold each source.
    pub fn in_files(&self) -> BTreeMap<String, u64> {
        self.state.lock().sources.iter().map(|(source, of)| (source.clone(), of.in_files)).collect()
    }

    /// Writes rows, each with the number after the last of its source, and what was seen: all of it or nothing. It is
    /// on disk when this returns. Those who come at the same time, for other sources, share one write.
    pub fn commit(&self, groups: &[Logged], seen: &[(SeenKey, Seen)]) -> Result<()> {
        let given = Given::new(groups, seen)?;
        self.waiting.write(given, |all| self.write(all))
    }

    /// Writes what several have given, in one step; gives what became of each.
    fn write(&self, all: &[Given]) -> Result<Vec<Result<()>>> {
        let mut state = self.state.lock();
        let db = self.db.get()?;
        let (mut batch, commits) = (WriteBatch::default(), state.commits + 1);
        let mut sources = state.sources.clone();
        let mut ends = Vec::with_capacity(all.len());
        for Given { groups, seen } in all {
            let late = groups.iter().find(|group| {
                let last = sources.get(&group.source).map_or(0, |of| of.last.number);
                group.position.number != last + 1
            });
            if let Some(late) = late {
                let cause = format!("rows of source `{}` were pushed in between", late.source);
                ends.push(Err(Error::busy(cause)));
                continue;
            }
            for group in groups {
                let of = sources.entry(group.source.clone()).or_default();
                let previous = std::mem::replace(&mut of.last, group.position).token;
                batch.put_cf(family(&db, GROUPS), group.key(), group.value(previous));
                batch.put_cf(family(&db, SOURCES), &group.source, of.bytes());
            }
            for (key, value) in seen {
                batch.put_cf(family(&db, SEEN), key, value);
            }
            ends.push(Ok(()));
        }
        // As something that is seen for ever.
        let count = [i64::MAX.to_be_bytes(), commits.to_be_bytes()];
        for name in [SOURCES, GROUPS, SEEN] {
            batch.put_cf(family(&db, name), COUNT, count.as_flattened());
        }
        self.db.write(batch, true).map_err(|error| match error.kind() {
            Kind::Unavailable => error.told(|what| match what.to_string() {
                fails if fails == DISK_FAILS => format!("the disk fails; {PERHAPS}"),
                what => format!("{what}; {PERHAPS}"),
            }),
            _ => error,
        })?;
        *state = State { commits, sources };
        Ok(ends)
    }

    /// Shows every group of `source` after commit `number`, in order.
    pub fn after(&self, source: &str, number: i64, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        let (start, from) = (start(source), [&start(source)[..], &(number + 1).to_be_bytes()].concat());
        let db = self.db.get()?;
        let entries =
            db.iterator_cf(family(&db, GROUPS), IteratorMode::From(&from, rocksdb::Direction::Forward));
        for entry in entries {
            let (key, value) = entry?;
            if !key.starts_with(&start) {
                break;
            }
            see(group(&key, &value)?)?;
        }
        Ok(())
    }

    /// The rows of history that lie here: source, number of the first row, rows.
    pub fn rows(&self) -> Result<Vec<(String, u64, RecordBatch)>> {
        let (mut found, db) = (Vec::new(), self.db.get()?);
        for entry in db.iterator_cf(family(&db, GROUPS), IteratorMode::Start) {
            let (key, value) = entry?;
            if *key != *COUNT {
                let Logged { source, first, history, .. } = group(&key, &value)?;
                found.push((source, first, history));
            }
        }
        Ok(found)
    }

    /// Forgets the groups of `source` up to commit `number` that end at row `end` or before: files hold them, and the
    /// head has them.
    pub fn forget(&self, source: &str, number: i64, end: u64) -> Result<()> {
        let mut state = self.state.lock();
        let Some(of) = state.sources.get_mut(source) else { return Ok(()) };
        let (start, mut left) = (start(source), *of);
        let mut batch = WriteBatch::default();
        let db = self.db.get()?;
        let entries =
            db.iterator_cf(family(&db, GROUPS), IteratorMode::From(&start, rocksdb::Direction::Forward));
        for entry in entries {
            let (key, value) = entry?;
            if !key.starts_with(&start) {
                break;
            }
            let (_, of_commit, of_end) = of_key(&key)?;
            if of_commit > number || of_end > end {
                break;
            }
            batch.delete_cf(family(&db, GROUPS), &key);
            left.forgotten = Position { number: of_commit, token: names(&value)?.0 };
            left.in_files = of_end;
        }
        batch.put_cf(family(&db, SOURCES), source, left.bytes());
        self.db.write(batch, false)?;
        *of = left;
        Ok(())
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        let db = self.db.get()?;
        let found = db.batched_multi_get_cf(family(&db, SEEN), keys.iter().map(SeenKey::bytes), false);
        let read = |found: std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>| {
            let Some(bytes) = found? else { return Ok(None) };
            let (until, value) = bytes.split_first_chunk().ok_or_else(damaged)?;
            let seen = Seen { until_us: i64::from_be_bytes(*until), value: value.to_vec() };
            Ok(Some(seen).filter(|seen| seen.until_us >= now_us))
        };
        found.into_iter().map(read).collect()
    }
}

/// The name that stands beside the log.
fn name_of(folder: &Path) -> Result<Option<String>> {
    match fs::read_to_string(folder.with_extension("id")) {
        Ok(id) => Ok(Some(id).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Options of the family of what was seen: compaction drops what need not be known any more.
fn seen_options() -> Options {
    let mut options = Options::default();
    options.set_compaction_filter("seen", |_, _, seen| {
        let is_over = |until: &[u8; 8]| i64::from_be_bytes(*until) < Utc::now().timestamp_micros();
        if seen.first_chunk().is_none_or(is_over) { Decision::Remove } else { Decision::Keep }
    });
    options
}

fn unreadable<E: Into<quern_base::Cause>>(folder: &Path, error: E) -> Error {
    Error::refused(format!(
        "the log of pushed rows {} does not open: rows that were acknowledged may be damaged or missing; bring the folder \
         back from a backup, or move it away to go on without what it held, and then remove `head` beside it and \
         materialize",
        folder.display()
    ))
    .because(error)
}

fn damaged() -> Error {
    Error::broken("the log of pushed rows is damaged; bring its folder back from a backup")
}
