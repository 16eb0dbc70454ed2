//! Where is what was pushed?
//!
//! A server with a head of its own keeps all in the RocksDB of its data folder. Servers that share a head share the log
//! as well, in PostgreSQL ([`SharedLog`]): history is there before the head is changed, so a server that ends in
//! between leaves a head that is behind, and whoever commits next brings in what it lacks. Each server has a copy of
//! the log, in memory and in files, which [`History`](crate::history::History) brings up to date before it is read.

mod shared;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::shared::{Logged, PAGE, SharedLog, State, Turn};
use crate::error::{Error, Result};
use crate::history::Pushed;
use crate::online::Online;
use crate::redis::Redis;
use crate::rocks::{Head, Seen, SeenKey};

/// Where the log of pushed rows is.
#[derive(Clone)]
pub enum Log {
    /// In the RocksDB of the data folder, with the head.
    Local(Arc<Head>),
    /// In PostgreSQL, for all servers that share the head.
    Shared(Shared),
    /// Nowhere: the head is shared, and there is nothing that could have the log.
    Nowhere,
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

impl Log {
    /// The log that belongs to `head`.
    pub fn of(head: &Online, local: &Arc<Head>, shared: Option<SharedLog>) -> Log {
        match (head, shared) {
            (Online::Rocks(_), _) => Log::Local(Arc::clone(local)),
            (Online::Redis(_), None) => Log::Nowhere,
            (Online::Redis(head), Some(log)) => {
                let number = RandomState::new().hash_one(Instant::now());
                let name = format!("{number:016x}-{}", std::process::id()).into();
                Log::Shared(Shared { log: Arc::new(log), head: Arc::clone(head), name })
            }
        }
    }

    /// Where its rows lie in files, below the data folder.
    pub fn folder(&self) -> PathBuf {
        match self {
            // Rows of another log have the same numbers.
            Log::Shared(shared) => PathBuf::from("shared").join(&shared.log.id),
            Log::Local(_) | Log::Nowhere => "pushed".into(),
        }
    }

    /// The rows that are there already: those of `folder`, and those that RocksDB alone has.
    pub fn open(&self, folder: PathBuf, local: &Head) -> Result<Pushed> {
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

    /// The log, where several servers write it.
    pub fn shared(&self) -> Option<&Shared> {
        match self {
            Log::Shared(shared) => Some(shared),
            Log::Local(_) | Log::Nowhere => None,
        }
    }

    /// Whether pushes can be taken here at all.
    pub fn check(&self) -> Result<()> {
        match self {
            Log::Local(_) | Log::Shared(_) => Ok(()),
            Log::Nowhere => Err(Error::refused(
                "this server's online store is shared, and rows pushed here would be in no other server's history: the \
                 servers need a registry that they share too; set `registry: postgres://…` on each of them",
            )),
        }
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match self {
            Log::Local(local) => local.seen(keys, now_us),
            Log::Shared(shared) => shared.log.seen(keys, now_us),
            Log::Nowhere => Ok(vec![None; keys.len()]),
        }
    }

    /// Whether the stream of `source` is this server's to read, for so long.
    pub async fn lease(&self, source: &str, time: Duration) -> Result<bool> {
        match self {
            Log::Local(_) => Ok(true),
            Log::Shared(shared) => shared.log.lease(source, &shared.name, time.as_secs_f64()).await,
            Log::Nowhere => Ok(false),
        }
    }

    /// Notes that rows up to number `end` lie in a file.
    pub fn sealed(&self, source: &str, end: u64) -> Result<()> {
        match self {
            Log::Local(local) => local.drop_tail(source, end),
            Log::Shared(_) | Log::Nowhere => Ok(()),
        }
    }
}
