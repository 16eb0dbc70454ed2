//! Where is the head? In this process, or in a Redis that several servers share.
//!
//! The two hold the same bytes at the same keys, and a head is brought up to date by the same steps. They differ in how
//! a look-up waits: for the disk of this machine, on the spot, or for an answer over the network, within a deadline.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use quern_engine::ViewId;
use quern_engine::windows::Kept;
use rocksdb::DBPinnableSlice;

use super::redis::{Redis, Turn};
use super::rocks::{Applied, Commit, Head, Load, Replaced, Rows, Upserted, Wanted};
use crate::error::{Error, Result};
use crate::made_of::MadeOf;
use crate::position::{Position, Standing};

/// The online store.
#[derive(Clone)]
pub enum Online {
    /// RocksDB, in this process.
    Rocks(Arc<Head>),
    /// Redis, shared. What changes it must be called where blocking is allowed; it goes over one connection alone where
    /// that is given.
    Redis(Arc<Redis>, Option<u64>),
}

/// A stored value.
pub enum Stored<'a> {
    /// As it lies in RocksDB.
    Pinned(DBPinnableSlice<'a>),
    /// As it came from Redis.
    Sent(Vec<u8>),
}

/// Many rows of one view on their way in, of which no two have the same key.
pub enum Loading<'a> {
    /// Into RocksDB.
    Rocks(Load<'a>),
    /// Into Redis.
    Redis(&'a Redis),
}

impl Loading<'_> {
    /// Brings rows in; each replaces what is stored unless that is later. Several threads may bring some each.
    pub fn upsert(&self, rows: &Rows) -> Result<Upserted> {
        match self {
            Loading::Rocks(load) => load.upsert(rows),
            Loading::Redis(redis) => redis.upsert(None, rows),
        }
    }
}

impl Deref for Stored<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Stored::Pinned(bytes) => bytes,
            Stored::Sent(bytes) => bytes,
        }
    }
}

impl Stored<'_> {
    /// The bytes, where they are ours.
    pub fn sent(self) -> Option<Vec<u8>> {
        match self {
            Stored::Pinned(_) => None,
            Stored::Sent(bytes) => Some(bytes),
        }
    }
}

impl AsRef<[u8]> for Stored<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Each operation is that of [`Head`].
impl Online {
    /// The stored rows of `wanted`, in its order; a look-up asks each of the two in its own way.
    pub fn get_many(&self, wanted: &Wanted) -> Result<Vec<Option<Stored<'_>>>> {
        Ok(match self {
            Online::Rocks(head) => {
                head.get_many(wanted)?.into_iter().map(|row| row.map(Stored::Pinned)).collect()
            }
            Online::Redis(redis, _) => {
                redis.get_many(wanted)?.into_iter().map(|row| row.map(Stored::Sent)).collect()
            }
        })
    }

    /// Names this head among those of servers that share a registry; servers that share it call it the same.
    pub fn id(&self) -> Result<String> {
        match self {
            Online::Rocks(head) => head.id(),
            Online::Redis(redis, _) => Ok(format!("redis {}", redis.address().prefix)),
        }
    }

    /// Whether several servers may write it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Online::Redis(..))
    }

    /// Where it is, to people.
    pub fn place(&self) -> String {
        match self {
            // Where that lies is the operator's business.
            Online::Rocks(_) => "`head` in the data folder".to_owned(),
            Online::Redis(redis, _) => redis.address().to_string(),
        }
    }

    /// Asks within `patience` whether it answers, and how far it follows the log of each source.
    pub async fn probe(&self, patience: Duration) -> Result<BTreeMap<String, Position>> {
        match self {
            Online::Rocks(head) => Ok(head.all_applied()),
            Online::Redis(redis, _) => redis.probe(patience).await,
        }
    }

    /// What went wrong with it last, and when (µs).
    pub fn last_failure(&self) -> Option<(String, i64)> {
        match self {
            Online::Rocks(_) => None,
            Online::Redis(redis, _) => redis.last_failure(),
        }
    }

    /// Whether look-ups are answered, as far as is known without asking.
    pub fn is_up(&self) -> bool {
        match self {
            Online::Rocks(_) => true,
            Online::Redis(redis, _) => redis.is_up(),
        }
    }

    /// Brings rows of distinct keys in; each replaces what is stored unless that is later.
    pub fn upsert(&self, rows: &Rows) -> Result<Upserted> {
        match self {
            Online::Rocks(head) => head.upsert(rows),
            Online::Redis(redis, over) => redis.upsert(*over, rows),
        }
    }

    /// Begins to bring many rows of `view` in.
    pub fn load(&self, view: ViewId) -> Result<Loading<'_>> {
        Ok(match self {
            Online::Rocks(head) => Loading::Rocks(head.load(view)?),
            Online::Redis(redis, _) => Loading::Redis(redis),
        })
    }

    /// Brings values in where what they were made from is still stored.
    pub fn replace_if(&self, rows: &Rows, expected: &[Option<&[u8]>]) -> Result<Replaced> {
        match self {
            Online::Rocks(head) => head.replace_if(rows, expected),
            Online::Redis(redis, over) => redis.replace_if(*over, rows, expected),
        }
    }

    /// Brings a group of pushes in: in RocksDB all of it or nothing, in Redis so that it can be brought in once more.
    pub fn commit(&self, commit: &Commit) -> Result<()> {
        match self {
            Online::Rocks(head) => head.commit(commit),
            Online::Redis(redis, over) => redis.commit(*over, commit),
        }
    }

    /// The same store over the connection of now alone: what is changed over it came in whole, in order, or nothing
    /// more of it does.
    #[must_use]
    pub fn bound(&self) -> Online {
        match self {
            Online::Rocks(head) => Online::Rocks(Arc::clone(head)),
            Online::Redis(redis, _) => Online::Redis(Arc::clone(redis), Some(redis.connection())),
        }
    }

    /// How far it is with the logs of `sources`, in their order.
    pub fn standings(&self, sources: &[&str]) -> Result<Vec<Standing>> {
        match self {
            Online::Rocks(head) => {
                Ok(sources.iter().map(|source| Standing::at(head.applied(source))).collect())
            }
            Online::Redis(redis, _) => redis.standings(sources),
        }
    }

    /// Notes that some of what comes up to these commits is about to come in, where what was begun before is as it is
    /// said; in RocksDB it comes in one step, or is made of a log that comes back no older.
    pub fn begin_commits(&self, begun: &[Applied]) -> Result<()> {
        match self {
            Online::Rocks(_) => Ok(()),
            Online::Redis(redis, over) => redis.begin_commits(*over, begun),
        }
    }

    /// Up to which query time (µs) the view's history is in the head.
    pub fn watermark(&self, view: ViewId) -> Result<Option<i64>> {
        match self {
            Online::Rocks(head) => head.watermark(view),
            Online::Redis(redis, _) => redis.watermark(view),
        }
    }

    /// Up to which query time (µs) the view is materialized, as far as is known in this process; none where it never
    /// was.
    pub fn materialized_until(&self, view: ViewId) -> Option<i64> {
        let known = match self {
            Online::Rocks(head) => head.known_watermark(view),
            Online::Redis(redis, _) => redis.known_watermark(view),
        };
        known.filter(|until_us| *until_us != i64::MIN)
    }

    /// Whether rows of the view came in that belong to no run that has ended, as far as is known in this process.
    pub fn has_begun(&self, view: ViewId) -> bool {
        let known = match self {
            Online::Rocks(head) => head.known_watermark(view),
            Online::Redis(redis, _) => redis.known_watermark(view),
        };
        known == Some(i64::MIN)
    }

    /// Forgets up to when the view is materialized: its next run is the first once more.
    pub fn forget_watermark(&self, view: ViewId) -> Result<()> {
        match self {
            Online::Rocks(head) => head.forget_watermark(view),
            Online::Redis(redis, _) => redis.forget_watermark(view),
        }
    }

    /// Moves the view's watermark to `to_us`, never back.
    pub fn set_watermark(&self, view: ViewId, to_us: i64) -> Result<()> {
        match self {
            Online::Rocks(head) => head.set_watermark(view, to_us),
            Online::Redis(redis, _) => redis.set_watermark(view, to_us),
        }
    }

    /// The latest instant (µs) of an event of a file that tiles of the view may hold; none where they hold none.
    pub fn files_until(&self, view: ViewId) -> Result<Option<i64>> {
        match self {
            Online::Rocks(head) => head.files_until(view),
            Online::Redis(redis, _) => redis.files_until(view),
        }
    }

    /// Notes that events of files up to `to_us` are about to come in.
    pub fn set_files_until(&self, view: ViewId, to_us: i64) -> Result<()> {
        match self {
            Online::Rocks(head) => head.set_files_until(view, to_us),
            Online::Redis(redis, _) => redis.set_files_until(view, to_us),
        }
    }

    /// Which files what is stored of the view may come from.
    pub fn made_of(&self, view: ViewId) -> Result<MadeOf> {
        match self {
            Online::Rocks(head) => head.made_of(view),
            Online::Redis(redis, _) => redis.made_of(view),
        }
    }

    /// Notes those.
    pub fn set_made_of(&self, view: ViewId, files: &MadeOf) -> Result<()> {
        match self {
            Online::Rocks(head) => head.set_made_of(view, files),
            Online::Redis(redis, _) => redis.set_made_of(view, files),
        }
    }

    /// Shows all stored rows of `view`, some at a time; in Redis in any order, one perhaps twice.
    pub fn walk<E: From<Error>>(
        &self,
        view: ViewId,
        visit: &mut dyn FnMut(&Rows) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match self {
            Online::Rocks(head) => head.walk(view, visit),
            Online::Redis(redis, _) => redis.walk(view, visit),
        }
    }

    /// Removes rows of distinct keys, where they are still what is stored. Gives how many that were.
    pub fn remove_if(&self, rows: &Rows) -> Result<u64> {
        match self {
            Online::Rocks(head) => head.remove_if(rows),
            Online::Redis(redis, over) => redis.remove_if(*over, rows),
        }
    }

    /// What is kept of the events of `view`, as far as is known in this process.
    pub fn kept(&self, view: ViewId) -> Option<Arc<Kept>> {
        match self {
            Online::Rocks(head) => head.kept(view),
            Online::Redis(redis, _) => redis.kept(view),
        }
    }

    /// Asks for what other servers have noted as kept; in RocksDB there are none.
    pub fn reread_kept(&self) -> Result<()> {
        match self {
            Online::Rocks(_) => Ok(()),
            Online::Redis(redis, _) => redis.reread_kept(),
        }
    }

    /// Notes what is kept of the events of `view`, all of which are in.
    pub fn set_kept(&self, view: ViewId, kept: Kept) -> Result<()> {
        match self {
            Online::Rocks(head) => head.set_kept(view, kept),
            Online::Redis(redis, _) => redis.set_kept(view, kept),
        }
    }

    /// Waits for the turn to materialize among the servers that share the store; where there is one, there is nobody to
    /// wait for.
    pub fn turn(&self) -> Result<Option<Turn>> {
        match self {
            Online::Rocks(_) => Ok(None),
            Online::Redis(redis, _) => redis.turn().map(Some),
        }
    }

    /// Refuses to go on where the turn to materialize has ended without our doing.
    pub fn check_turn(&self) -> Result<()> {
        match self {
            Online::Rocks(_) => Ok(()),
            Online::Redis(redis, _) => redis.check_turn(),
        }
    }

    /// Notes that rows of `view` are about to come in.
    pub fn begin(&self, view: ViewId) -> Result<()> {
        match self {
            Online::Rocks(head) => head.begin(view),
            Online::Redis(redis, _) => redis.begin(view),
        }
    }

    /// Drops the rows of every view but `live`.
    pub fn retain(&self, live: &[ViewId]) -> Result<()> {
        match self {
            Online::Rocks(head) => head.retain(live),
            Online::Redis(redis, _) => redis.retain(live),
        }
    }

    /// Drops the rows of these views, and what is known of them.
    pub fn drop_views(&self, gone: &[ViewId]) -> Result<()> {
        match self {
            Online::Rocks(head) => head.drop_views(gone),
            Online::Redis(redis, _) => redis.drop_views(gone),
        }
    }

    /// Bytes that the head takes, on disk or in memory, as the store estimates them.
    pub fn bytes(&self) -> Result<u64> {
        match self {
            Online::Rocks(head) => Ok(head.bytes()),
            Online::Redis(redis, _) => redis.bytes(),
        }
    }
}
