//! Where is what was pushed?
//!
//! In a log, which alone is durable before anybody is told; the head follows it, and notes how far it has come. A
//! server with a head of its own has a log of its own beside it ([`LocalLog`]). Servers that share a head share the log
//! as well, in PostgreSQL ([`SharedLog`]). So a server that ends in between leaves a head that is behind, and whoever
//! commits next brings in what it lacks. Of a shared log each server has a copy, in memory and in files, which
//! [`History`](crate::history::History) brings up to date before it is read. Labels lie there too ([`labels_of`]).

mod commits;
mod local;
mod logged;
mod named;
mod shared;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quern_base::points::pass;
use quern_base::random;

pub use self::commits::{Commits, State};
pub use self::local::LocalLog;
pub use self::logged::{Logged, Seen, SeenKey};
pub use self::named::{labelled_model, labels_of};
pub use self::shared::{SeenAt, SharedLog, StreamShare, Turn};
use crate::error::{Error, Result};
use crate::online::Online;
pub use crate::position::{Position, Standing};
use crate::redis::Redis;
use crate::rocks::Head;

/// Where the log of pushed rows is.
#[derive(Clone)]
pub enum Log {
    /// In the data folder, for the head that is there.
    Local(Local),
    /// In PostgreSQL, for all servers that share the head.
    Shared(Shared),
    /// Nowhere: the head is shared, and there is nothing that could have the log.
    Nowhere,
}

/// The log of one server, and the head that it is for.
#[derive(Clone)]
pub struct Local {
    /// The log.
    pub log: Arc<LocalLog>,
    /// The head.
    pub head: Arc<Head>,
}

/// A log that several servers write, and the head that it is for.
#[derive(Clone)]
pub struct Shared {
    /// The log.
    pub log: Arc<SharedLog>,
    /// The head.
    pub head: Arc<Redis>,
    /// Names this server among the others.
    name: Arc<str>,
}

impl Local {
    /// The log in the folder `data`, for the head that lies there as well.
    ///
    /// # Errors
    /// `Kind::Refused` where the log lacks what the head has already.
    fn open(data: &Path, lock: Arc<File>, head: Arc<Head>) -> Result<Local> {
        let folder = data.join("log");
        let log = Arc::new(LocalLog::open(&folder)?.locked_by(lock));
        // The head was there when it took them.
        for (source, applied) in head.all_applied() {
            if !log.went_through(&source, applied)? {
                return Err(Error::refused(format!(
                    "the log of pushed rows {} ends at commit {} of source `{source}`, and the head has {} of it: rows that \
                     were acknowledged are missing, or one of the two is of another data folder; bring `log` back as it \
                     was, or go on with what it has: remove `head` beside it and materialize",
                    folder.display(),
                    log.last(&source).number,
                    applied.number
                )));
            }
        }
        Ok(Local { log, head })
    }
}

impl Log {
    /// The log that belongs to `head`; where that is in this process, in the folder `data`, whose `lock` it keeps.
    pub fn of(head: &Online, shared: Option<SharedLog>, (data, lock): (&Path, Arc<File>)) -> Result<Log> {
        Ok(match (head, shared) {
            (Online::Rocks(head), _) => Log::Local(Local::open(data, lock, Arc::clone(head))?),
            (Online::Redis(..), None) => Log::Nowhere,
            (Online::Redis(head, _), Some(log)) => {
                let name = format!("{:016x}-{}", random::number(), std::process::id()).into();
                Log::Shared(Shared { log: Arc::new(log), head: Arc::clone(head), name })
            }
        })
    }

    /// The log, where this server alone writes it.
    pub fn local(&self) -> Option<&Local> {
        match self {
            Log::Local(local) => Some(local),
            Log::Shared(_) | Log::Nowhere => None,
        }
    }

    /// The log, where several servers write it.
    pub fn shared(&self) -> Option<&Shared> {
        match self {
            Log::Shared(shared) => Some(shared),
            Log::Local(_) | Log::Nowhere => None,
        }
    }

    /// Whether pushes and labels can be taken here at all.
    pub fn check(&self) -> Result<()> {
        match self {
            Log::Local(_) | Log::Shared(_) => Ok(()),
            Log::Nowhere => Err(nowhere()),
        }
    }

    /// The last commit of each source, which the head follows.
    pub fn lasts(&self) -> Result<BTreeMap<String, Position>> {
        match self {
            Log::Local(local) => Ok(local.log.lasts()),
            Log::Shared(shared) => {
                let states = shared.log.states(None)?.into_iter();
                let sources = states.filter(|(name, _)| labelled_model(name).is_none());
                Ok(sources.map(|(source, state)| (source, state.last)).collect())
            }
            Log::Nowhere => Ok(BTreeMap::new()),
        }
    }

    /// Whether the log of `source` went through `position`, as far as it still knows.
    pub fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        match self {
            _ if position.number == 0 => Ok(true),
            Log::Local(local) => local.log.went_through(source, position),
            Log::Shared(shared) => shared.log.went_through(source, position),
            Log::Nowhere => Ok(true),
        }
    }

    /// Writes the commits that come after `lasts`, and what was seen: all of it or nothing. It is on disk when this
    /// returns.
    pub fn commit(
        &self,
        lasts: &BTreeMap<String, Position>,
        groups: &[Logged],
        seen: &[(SeenKey, Seen)],
    ) -> Result<()> {
        match self {
            Log::Local(local) => local.log.commit(groups, seen),
            Log::Shared(shared) => shared.log.commit(lasts, groups, seen),
            Log::Nowhere => self.check(),
        }
    }

    /// Shows every group of `source` after commit `number`, in order.
    pub fn after(&self, source: &str, number: i64, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        match self {
            Log::Local(local) => local.log.after(source, number, see),
            Log::Shared(shared) => shared.log.after(source, (number, 0), see),
            Log::Nowhere => Ok(()),
        }
    }

    /// Forgets what was seen and need not be known any more. The log of one server does so by itself.
    pub fn forget(&self) -> Result<()> {
        match self {
            Log::Shared(shared) => shared.log.forget(),
            Log::Local(_) | Log::Nowhere => Ok(()),
        }
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match self {
            Log::Local(local) => local.log.seen(keys, now_us),
            Log::Shared(shared) => shared.log.seen(keys, now_us),
            Log::Nowhere => Ok(vec![None; keys.len()]),
        }
    }

    /// Notes that this server reads the stream of `source`, for so long, and gives what of it is its own to read.
    ///
    /// # Errors
    /// Where a shared log does not answer, and where there is none.
    pub async fn share(&self, source: &str, time: Duration) -> Result<StreamShare> {
        match self {
            Log::Local(_) => Ok(StreamShare::WHOLE),
            Log::Shared(shared) => shared.log.share(source, &shared.name, time.as_secs_f64()).await,
            Log::Nowhere => Err(nowhere()),
        }
    }

    /// Notes that this server does not read it any more.
    ///
    /// # Errors
    /// Where a shared log does not answer.
    pub async fn leave(&self, source: &str) -> Result<()> {
        match self {
            Log::Shared(shared) => shared.log.leave(source, &shared.name).await,
            Log::Local(_) | Log::Nowhere => Ok(()),
        }
    }

    /// Its name; rows of another log have the same numbers.
    pub fn id(&self) -> &str {
        match self {
            Log::Local(local) => local.log.id(),
            Log::Shared(shared) => &shared.log.id,
            Log::Nowhere => "",
        }
    }

    /// Notes that rows up to number `end` lie in segments, which every server of the log reads.
    pub fn sealed(&self, source: &str, end: u64) -> Result<()> {
        match self {
            Log::Local(Local { log, .. }) if labelled_model(source).is_some() => {
                log.forget(source, i64::MAX, end)
            }
            Log::Local(Local { log, head }) => {
                // What is forgotten cannot be brought in again, so the head must not lose it either.
                let applied = head.applied(source);
                head.sync()?;
                pass("seal: before the log forgets");
                log.forget(source, applied.number, end)?;
                pass("seal: forgotten by the log");
                Ok(())
            }
            // Its commits are forgotten later: a head in Redis may lose the last of what it was told.
            Log::Shared(shared) => {
                pass("seal: before the shared log is told");
                shared.log.sealed(source, end)
            }
            Log::Nowhere => Ok(()),
        }
    }
}

/// Why nothing can be pushed where the log would be nowhere.
fn nowhere() -> Error {
    Error::refused(
        "this server's online store is shared, and what is pushed or labelled here no other server would know: the \
         servers need a registry that they share too; set `registry: postgres://…` on each of them",
    )
}
