//! Which replicas may be asked, and is what they say true?
//!
//! A replica is what its primary was a moment ago. A look-up takes all that it relies on from one replica in one
//! transaction: rows, tiles, and what is kept of the views' events. What is kept is noted after the tiles where it
//! grows and before them where it shrinks, and a replica goes through the same states in the same order: so whatever
//! state it is in, the windows are those of that state, however late it is.
//!
//! *How late* it may be, a beat says: a number that this server counts up at the primary. A replica that shows one of
//! the last few is not far behind, is a replica of this primary, and has been filled; any other is passed over, and the
//! primary asked. While the primary takes no beats, nothing is too old that has the last one it took.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::RwLock;
use quern_engine::ViewId;
use quern_engine::windows::Kept;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::connection::{KEEPER_PAUSE, text};
use super::link::{MGET_KEYS, one};
use super::reply::{bytes, sound, unexpected};
use super::turn::token;
use super::{Address, Names, Redis};
use crate::error::{Error, Result};
use crate::metrics::metrics;

/// By how many beats a replica may be behind: two seconds, or up to four while the primary or a replica does not
/// answer.
const BEATS_BEHIND_MAX: u64 = 5;
/// How long the primary and the replicas have to answer when they are looked after.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a beat is known, and so for how long at most replicas answer without their primary.
const BEAT_KNOWN_SECONDS: u64 = 86_400;

/// The replicas of one primary.
pub(super) struct Replicas {
    /// The key of this server's beat.
    beat: String,
    /// Number of the last beat that was sent, and of the last one that the primary has taken.
    sent: AtomicU64,
    taken: AtomicU64,
    /// Where they are; as the URL says, or as the primary said last.
    servers: RwLock<Vec<ConnectionInfo>>,
    are_named: bool,
    /// Those that answer.
    connected: RwLock<Vec<Arc<Replica>>>,
    next: AtomicUsize,
}

/// A replica, and the connection to it.
pub(super) struct Replica {
    /// Host and port.
    pub(super) name: String,
    beat: String,
    connection: MultiplexedConnection,
    /// Whether it answered lately and was not too far behind.
    is_sound: AtomicBool,
}

/// What a replica says, all as of one moment.
pub(super) struct Read {
    /// The beat that it has.
    pub(super) beat: u64,
    /// What is kept of the events of each view.
    pub(super) kept: Vec<Option<Arc<Kept>>>,
    /// What is stored at each key.
    pub(super) stored: Vec<Option<Vec<u8>>>,
}

impl Replicas {
    /// Those of `address`; none where they are not to be asked, or where the client of a cluster finds them.
    pub(super) fn of(address: &Address, names: &Names) -> Result<Option<Replicas>> {
        if !address.replicas || address.cluster {
            return Ok(None);
        }
        let named = address.named_replicas().map_err(Error::invalid)?;
        Ok(Some(Replicas {
            beat: format!("{}:{}", names.beat, token()),
            sent: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            are_named: named.is_some(),
            servers: RwLock::new(named.unwrap_or_default()),
            connected: RwLock::default(),
            next: AtomicUsize::new(0),
        }))
    }

    /// The one to ask next, if one can be asked.
    pub(super) fn choose(&self) -> Option<Arc<Replica>> {
        let connected = self.connected.read();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..connected.len()).map(|i| &connected[first.wrapping_add(i) % connected.len()]);
        turns.into_iter().find(|replica| replica.is_sound.load(Ordering::Relaxed)).cloned()
    }

    /// Whether who has this beat is not too far behind.
    pub(super) fn is_recent(&self, beat: u64) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        beat > 0 && beat >= taken.saturating_sub(BEATS_BEHIND_MAX)
    }
}

impl Replica {
    /// Asks it no more until it has been looked after.
    pub(super) fn set_aside(&self) {
        self.is_sound.store(false, Ordering::Relaxed);
    }

    /// What is stored at `keys`, and what is kept of the events of `windows`.
    pub(super) async fn read(&self, names: &Names, windows: &[ViewId], keys: &[&[u8]]) -> RedisResult<Read> {
        let mut pipeline = Pipeline::new();
        pipeline.atomic().add_command(self.ask_for_beat());
        if !windows.is_empty() {
            pipeline.cmd("HMGET").arg(&names.kept);
            windows.iter().for_each(|view| {
                pipeline.arg(&view.0.to_be_bytes());
            });
        }
        for some in keys.chunks(MGET_KEYS) {
            pipeline.cmd("MGET");
            some.iter().for_each(|key| {
                pipeline.arg(*key);
            });
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.connection.clone()).await?;
        let mut replies = replies.into_iter();
        let beat = number(replies.next().ok_or_else(unexpected)?)?;
        let mut found = Vec::with_capacity(windows.len() + keys.len());
        for reply in replies {
            let Value::Array(values) = sound(reply)? else { return Err(unexpected()) };
            for value in values {
                found.push(bytes(value)?);
            }
        }
        if found.len() != windows.len() + keys.len() {
            return Err(unexpected());
        }
        let stored = found.split_off(windows.len());
        let kept = found.into_iter().map(|kept| kept.map(|bytes| Arc::new(Kept::read(&bytes))));
        Ok(Read { beat, kept: kept.collect(), stored })
    }

    fn ask_for_beat(&self) -> Cmd {
        let mut command = redis::cmd("GET");
        command.arg(&self.beat);
        command
    }
}

/// A beat; none was ever 0.
fn number(value: Value) -> RedisResult<u64> {
    let Some(bytes) = bytes(value)? else { return Ok(0) };
    std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(unexpected)
}

/// Looks after the replicas until the store is closed.
pub(super) async fn watch(redis: Weak<Redis>) {
    loop {
        sleep(KEEPER_PAUSE).await;
        let Some(redis) = redis.upgrade() else { return };
        redis.look_after_replicas().await;
    }
}

impl Redis {
    /// Lets the primary's beat go on, and finds out which replicas answer and are not too far behind.
    pub(super) async fn look_after_replicas(&self) {
        let Some(replicas) = &self.replicas else { return };
        // Where the primary does not answer, what is known of it stays.
        let _ = timeout(PATIENCE, self.beat(replicas)).await;
        let (servers, known) = (replicas.servers.read().clone(), replicas.connected.read().clone());
        let named = servers.len();
        let looked_after = servers.into_iter().map(async |server| {
            let known = known.iter().find(|replica| replica.name == server.addr().to_string());
            // One that fails is connected to anew the next time.
            timeout(PATIENCE, self.look_after(replicas, known, server)).await.ok()?.ok()
        });
        let connected: Vec<Arc<Replica>> = join_all(looked_after).await.into_iter().flatten().collect();
        let sound = connected.iter().filter(|replica| replica.is_sound.load(Ordering::Relaxed)).count();
        *replicas.connected.write() = connected;
        let before = metrics().online_store_replicas.get();
        metrics().online_store_replicas.set(sound as i64);
        if before != sound as i64 {
            tracing::info!(url = %self.address, named, sound, "replicas that look-ups are asked of");
        }
    }

    /// Counts the beat up at the primary, and asks it which replicas it has.
    async fn beat(&self, replicas: &Replicas) -> Result<()> {
        let connected = self.connected()?;
        let number = replicas.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mut set = redis::cmd("SET");
        set.arg(&replicas.beat).arg(number).arg("EX").arg(BEAT_KNOWN_SECONDS);
        let explain = |error| self.explain(&error);
        connected.writes.command(&set).await.map_err(explain)?;
        replicas.taken.store(number, Ordering::Relaxed);
        if !replicas.are_named {
            let role = connected.writes.command(&redis::cmd("ROLE")).await.map_err(explain)?;
            *replicas.servers.write() = self.replicas_in(&role).ok_or_else(|| explain(unexpected()))?;
        }
        Ok(())
    }

    /// The replicas that a primary names in its reply to `ROLE`.
    fn replicas_in(&self, role: &Value) -> Option<Vec<ConnectionInfo>> {
        let Value::Array(role) = role else { return None };
        let [_, _, Value::Array(replicas)] = &role[..] else { return None };
        let server = |replica: &Value| {
            let Value::Array(replica) = replica else { return None };
            let (host, port) = (text(replica.first()?)?, text(replica.get(1)?)?);
            self.address.at(host, port.parse().ok()?).ok()
        };
        Some(replicas.iter().filter_map(server).collect())
    }

    async fn look_after(
        &self,
        replicas: &Replicas,
        known: Option<&Arc<Replica>>,
        server: ConnectionInfo,
    ) -> RedisResult<Arc<Replica>> {
        let replica = match known {
            Some(known) => Arc::clone(known),
            None => Arc::new(Replica {
                name: server.addr().to_string(),
                beat: replicas.beat.clone(),
                connection: one(&self.address, server, self.deadline * 2).await?,
                is_sound: AtomicBool::new(false),
            }),
        };
        let reply = replica.connection.clone().send_packed_command(&replica.ask_for_beat()).await?;
        replica.is_sound.store(replicas.is_recent(number(reply)?), Ordering::Relaxed);
        Ok(replica)
    }
}
