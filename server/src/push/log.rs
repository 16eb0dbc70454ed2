//! Where is what was pushed, and whose turn is it to add to it?
//!
//! A server with a head of its own keeps all in the RocksDB of its data folder. Servers that share a head share the log
//! as well, in PostgreSQL ([`SharedLog`]): history is there before the head is changed, so a server that ends in between
//! leaves a head that is behind, and whoever commits next brings in what it lacks ([`super::missing`]). Each server has a
//! copy of the log, in memory and in files, which is brought up to date before history is read.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::store::history::Pushed;
use crate::store::log::{Logged, SharedLog, Turn};
use crate::store::online::Online;
use crate::store::redis::Redis;
use crate::store::rocks::{Commit, Head, Seen, SeenKey};
use crate::{Deployment, Quern};

/// Where the log of pushed rows is.
pub enum Log {
    /// In the RocksDB of the data folder, with the head.
    Local(Arc<Head>),
    /// In PostgreSQL, for all servers that share the head.
    Shared(Shared),
    /// Nowhere: the head is shared, and there is nothing that could have the log.
    Nowhere,
}

/// A log that several servers write.
pub struct Shared {
    pub(super) log: SharedLog,
    pub(super) head: Arc<Redis>,
    /// Names this server among the others.
    name: String,
    /// Up to which commit the copy here has all rows. Held while rows are added to the copy.
    copied: Mutex<i64>,
}

impl Log {
    /// The log that belongs to `head`; and the folder where its rows lie in files, below the data folder.
    pub(crate) fn of(head: &Online, local: &Arc<Head>, shared: Option<SharedLog>) -> (Log, PathBuf) {
        match (head, shared) {
            (Online::Rocks(_), _) => (Log::Local(Arc::clone(local)), "pushed".into()),
            (Online::Redis(_), None) => (Log::Nowhere, "pushed".into()),
            (Online::Redis(head), Some(log)) => {
                // Rows of another log have the same numbers.
                let folder = PathBuf::from("shared").join(&log.id);
                let name =
                    format!("{:016x}-{}", RandomState::new().hash_one(Instant::now()), std::process::id());
                let (head, copied) = (Arc::clone(head), Mutex::new(0));
                (Log::Shared(Shared { log, head, name, copied }), folder)
            }
        }
    }

    /// The rows that are there already, or that only files have.
    pub(crate) fn open(&self, folder: PathBuf, local: &Head) -> Result<Pushed> {
        let tail = local.tail()?;
        match self {
            Log::Local(_) | Log::Nowhere => Pushed::open(folder, tail),
            Log::Shared(_) => {
                if !tail.is_empty() {
                    tracing::warn!(
                        "rows that were pushed while this server had an online store of its own are no history of the \
                         servers that share one; push them again"
                    );
                }
                Pushed::open(folder, Vec::new())
            }
        }
    }

    pub(super) fn shared(&self) -> Option<&Shared> {
        match self {
            Log::Shared(shared) => Some(shared),
            Log::Local(_) | Log::Nowhere => None,
        }
    }

    /// Whether pushes can be taken here at all.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Log::Local(_) | Log::Shared(_) => Ok(()),
            Log::Nowhere => Err(Error::refused(
                "this server's online store is shared, and rows pushed here would be in no other server's history: the \
                 servers need a registry that they share too; set `registry: postgres://…` on each of them",
            )),
        }
    }

    /// What is known of each of `keys` at `now_us`.
    pub(super) fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match self {
            Log::Local(local) => local.seen(keys, now_us),
            Log::Shared(shared) => shared.log.seen(keys, now_us),
            Log::Nowhere => Ok(vec![None; keys.len()]),
        }
    }

    /// Whether the stream of `source` is this server's to read, for so long.
    pub(crate) async fn lease(&self, source: &str, time: Duration) -> Result<bool> {
        match self {
            Log::Local(_) => Ok(true),
            Log::Shared(shared) => shared.log.lease(source, &shared.name, time.as_secs_f64()).await,
            Log::Nowhere => Ok(false),
        }
    }

    /// Rows up to number `end` lie in a file.
    pub(super) fn sealed(&self, source: &str, end: u64) -> Result<()> {
        match self {
            Log::Local(local) => local.drop_tail(source, end),
            Log::Shared(_) | Log::Nowhere => Ok(()),
        }
    }
}

/// The turn to change history or the head: nobody else does, here or at another server, until this is dropped.
pub(crate) struct Order<'q> {
    // Given back first, so that whoever waits here does not wait there.
    turn: Option<Turn>,
    _here: MutexGuard<'q, ()>,
}

impl Quern {
    /// Waits for the turn to change history or the head.
    pub(crate) fn order(&self) -> Result<Order<'_>> {
        let here = self.pushing.order.lock();
        let turn = self.log.shared().map(|shared| shared.log.turn()).transpose()?;
        Ok(Order { turn, _here: here })
    }

    /// The same for what belongs to one source: where nobody pushes to it, no other server has a turn.
    pub(crate) fn order_of(&self, source: &str) -> Result<Order<'_>> {
        match self.takes_pushes(source) {
            true => self.order(),
            false => Ok(Order { turn: None, _here: self.pushing.order.lock() }),
        }
    }

    fn takes_pushes(&self, source: &str) -> bool {
        self.live().catalog.definitions.sources.get(source).is_some_and(|source| source.push)
    }

    /// Brings this server's copy of what was pushed to `source` up to date.
    pub(crate) fn refresh(&self, source: &str) -> Result<()> {
        match self.log.shared() {
            Some(shared) if self.takes_pushes(source) => shared.refresh(self),
            _ => Ok(()),
        }
    }
}

impl Order<'_> {
    /// Whether `live` is what all servers were told to serve. One that is behind does not know what belongs in the head.
    pub(crate) fn is_latest(&self, live: &Deployment) -> bool {
        self.last(live).is_some()
    }

    /// Number of the last commit of a shared log, where `live` is the latest.
    pub(super) fn last(&self, live: &Deployment) -> Option<i64> {
        let Some(Turn { state, .. }) = &self.turn else { return Some(0) };
        (state.applies == live.number).then_some(state.commits)
    }
}

impl Shared {
    /// Adds to the copy what it lacks of everything up to commit `last`.
    pub(super) fn refresh_to(&self, quern: &Quern, last: i64) -> Result<()> {
        if *self.copied.lock() >= last { Ok(()) } else { self.refresh(quern) }
    }

    /// Adds to the copy what it lacks.
    pub(super) fn refresh(&self, quern: &Quern) -> Result<()> {
        let mut copied = self.copied.lock();
        // At the first time, files may have all there is.
        let at_least = if *copied == 0 { self.log.state()?.commits } else { 0 };
        loop {
            let (found, more) = self.log.since(*copied, &quern.history.pushed.ends())?;
            let last = found.last().map(|logged| logged.number);
            let mut grown: Vec<String> = Vec::new();
            for Logged { source, first, history, .. } in found {
                quern.history.pushed.append_at(&source, first, history)?;
                grown.push(source);
            }
            *copied = (*copied).max(more.or(last).unwrap_or(0));
            grown.sort_unstable();
            grown.dedup();
            grown.iter().for_each(|source| super::seal::seal_if_large(quern, source));
            if more.is_none() {
                *copied = (*copied).max(at_least);
                return Ok(());
            }
        }
    }

    /// Writes commit `last + 1` and adds its rows to the copy.
    pub(super) fn commit(
        &self,
        quern: &Quern,
        last: i64,
        rows: Vec<Logged>,
        seen: &[(SeenKey, Seen)],
    ) -> Result<()> {
        self.log.commit(last, &rows, seen)?;
        let mut copied = self.copied.lock();
        for Logged { source, first, history, .. } in rows {
            if history.num_rows() > 0 {
                quern.history.pushed.append_at(&source, first, history)?;
            }
        }
        *copied = (*copied).max(last + 1);
        Ok(())
    }

    /// Changes the head as `commit` says, and notes that all up to number `last + 1` is in it.
    pub(super) fn apply(&self, quern: &Quern, commit: &Commit) -> Result<()> {
        if !commit.rows.is_empty() {
            self.head.upsert(&commit.rows)?;
        }
        let made_from: Vec<Option<&[u8]>> = commit.made_from.iter().map(Option::as_deref).collect();
        if commit.tiles.is_empty() { Ok(()) } else { crate::windows::put(quern, &commit.tiles, &made_from) }
    }

    /// Notes that everything up to commit `to` is in the head, where everything up to `from` was.
    pub(super) fn note_applied(&self, from: Option<i64>, to: i64) -> Result<()> {
        if from == Some(to) || self.head.set_applied(from, to)? {
            return Ok(());
        }
        Err(Error::unavailable("the head changed in between; push again"))
    }
}

/// What was seen, asked for once for many keys.
#[derive(Default)]
pub(super) struct Memory(HashMap<SeenKey, Option<Seen>>);

impl Memory {
    /// Asks for what is known of `keys`, where asking is dear.
    pub(super) fn fetch(&mut self, log: &Log, keys: Vec<SeenKey>, now_us: i64) -> Result<()> {
        if let Some(shared) = log.shared() {
            let found = shared.log.seen(&keys, now_us)?;
            self.0.extend(keys.into_iter().zip(found));
        }
        Ok(())
    }

    /// What is known of each of `keys` at `now_us`.
    pub(super) fn seen(&self, log: &Log, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match keys.iter().map(|key| self.0.get(key).cloned()).collect() {
            Some(known) => Ok(known),
            None => log.seen(keys, now_us),
        }
    }
}
