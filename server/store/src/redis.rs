//! What is the latest row of this key? The head in Redis, which several servers share.
//!
//! The bytes are those of [`rocks`](super::rocks), the keys too, behind a prefix:
//!
//! ```text
//! PREFIX{}1 view id (8 bytes, big-endian) encoded join keys  →  a row, or the tiles of windows
//! {PREFIX}format                                             →  the version of the key space
//! {PREFIX}1watermark, {PREFIX}1kept, {PREFIX}1files,          →  hashes: view id → time µs, what is kept, or which
//! {PREFIX}1made                                                files it is made of
//! {PREFIX}1positions                                         →  hash: of each source, the last commit that is in, and
//!                                                                the last of which some may be
//! {PREFIX}1turn                                              →  who materializes; expires
//! {PREFIX}1beat:NAME                                         →  a number that a server counts up; expires
//! ```
//!
//! In a cluster `{}`, an empty hash tag, has the whole key hashed, whatever bytes follow: rows spread over all servers.
//! The others lie together.
//!
//! *Writes.* Many servers write at once, so what the one writer of RocksDB does under a lock happens in a script on the
//! server: a row replaces one of the same or an earlier place in the total order of time, never a later one.
//!
//! *Expiry.* Rows do not expire, not even where the view has a TTL. A row that is older than that is still found, and
//! says `OUTSIDE_MAX_AGE`; if Redis dropped it, it would say `NOT_FOUND`, and head and history would no longer say the
//! same. Memory is bounded by the number of keys, and rows of views that are gone are dropped. For the same reason
//! Redis must not evict our keys: where it is set up to, the log says so.
//!
//! *What is kept* of a view's events decides which windows its tiles can answer, and another server may change it. A
//! look-up relies on what was read at most three seconds ago. More kept than is known here is harmless: the new windows
//! say `NOT_FOUND` for that long. Less would be a wrong value: so who is about to keep less says so and waits until
//! nobody can still rely on more. A replica is asked for it together with the tiles ([`replicas`]).
//!
//! *Where Redis is slow or gone*, a request waits for the deadline and no longer. After some failures in a row the
//! connections are given up and requests fail at once ("the breaker is open"), until the keeper, a task in the
//! background, has connected anew and had an answer.

mod address;
mod cluster;
mod connection;
mod known;
mod link;
mod look_up;
mod probe;
mod replicas;
mod reply;
mod scripts;
mod sweep;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use parking_lot::{Mutex, RwLock};
use quern_engine::ViewId;
use redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

pub use self::address::Address;
use self::cluster::slot;
use self::connection::{Failure, field, keep, text};
use self::known::KnownKept;
use self::link::Link;
pub use self::look_up::Answer;
use self::look_up::Budget;
use self::replicas::{Replicas, watch};
use self::reply::unexpected;
use self::scripts::{Named, Scripts};
pub use self::turn::Turn;
use super::rocks::{Replaced, Rows, Upserted};
use crate::error::{Error, Result};

/// The version of the key space. A Redis with another one is refused, not misread.
const FORMAT: &str = "2";
/// Look-ups under way at once; others wait, within their deadline.
const IN_FLIGHT_MAX: usize = 512;
/// How long a batch of writes may take, or anything else that no request waits for.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// Keys that one script writes: the server answers nobody else meanwhile.
const SCRIPT_KEYS: usize = 64;
/// Where a batch is cut, by keys and by bytes.
const BATCH_KEYS: usize = 4_096;
const BATCH_BYTES: usize = 4 << 20;

/// The head in Redis.
pub struct Redis {
    address: Address,
    names: Names,
    /// How often it was connected.
    connections: AtomicU64,
    scripts: Scripts,
    /// Of a look-up.
    deadline: Duration,
    runtime: Handle,
    /// None while the breaker is open.
    connected: RwLock<Option<Arc<Connected>>>,
    /// Wakes the keeper.
    lost: Arc<Notify>,
    in_flight: Semaphore,
    kept: RwLock<KnownKept>,
    /// Those that are asked for look-ups; none where they are not to be.
    replicas: Option<Replicas>,
    /// Of a cluster: when they are asked again.
    replicas_rest_until: RwLock<Instant>,
    /// Of look-ups that are asked twice.
    hedges: Budget,
    /// Until when it is our turn to materialize; none where we do not.
    turn_until: RwLock<Option<Instant>>,
    /// What went wrong last, and when (µs).
    last_failure: Mutex<Option<(String, i64)>>,
}

/// The connections, until they are given up. Bulk goes a way of its own, so that no look-up waits behind it.
struct Connected {
    /// Which one of all that there were.
    number: u64,
    reads: Link,
    writes: Link,
    /// A second way for look-ups that are slow on the first one.
    spare: Option<Link>,
    /// Of a cluster: the way to its replicas.
    replicas: Option<Link>,
    /// Failures since the last success.
    failures: AtomicU32,
}

/// Keys, as bytes.
struct Names {
    rows: Vec<u8>,
    format: String,
    watermark: String,
    kept: String,
    files_until: String,
    made_of: String,
    positions: String,
    turn: String,
    beat: String,
}

impl Names {
    fn new(prefix: &str) -> Names {
        let name = |what: &str| format!("{{{prefix}}}{FORMAT}{what}");
        Names {
            rows: format!("{prefix}{{}}{FORMAT}").into_bytes(),
            // Without the version: whichever build comes finds it.
            format: format!("{{{prefix}}}format"),
            watermark: name("watermark"),
            kept: name("kept"),
            files_until: name("files"),
            made_of: name("made"),
            positions: name("positions"),
            turn: name("turn"),
            beat: name("beat"),
        }
    }

    fn row(&self, key: &[u8]) -> Vec<u8> {
        [&self.rows, key].concat()
    }

    /// The view whose row lies at `key`.
    fn view_of(&self, key: &[u8]) -> Option<ViewId> {
        let id = key.strip_prefix(&self.rows[..])?.first_chunk()?;
        Some(ViewId(u64::from_be_bytes(*id)))
    }
}

impl Redis {
    /// Connects to the Redis at `address`. A look-up may take as long as `deadline`.
    ///
    /// # Errors
    /// `Kind::Unavailable` where it does not answer, `Kind::Refused` where it holds another format.
    pub async fn open(address: Address, deadline: Duration) -> Result<Arc<Redis>> {
        // The client's TLS asks for the process's cryptography; whoever came first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(hedge) = address.hedge.filter(|hedge| *hedge >= deadline) {
            let (hedge, deadline) = (hedge.as_millis(), deadline.as_millis());
            return Err(Error::invalid(format!(
                "the online store {address}: with option `hedge` of {hedge} ms no look-up would be asked twice, since each \
                 ends after {deadline} ms (`online_timeout`); give it less"
            )));
        }
        let names = Names::new(&address.prefix);
        let redis = Arc::new(Redis {
            replicas: Replicas::of(&address, &names)?,
            replicas_rest_until: RwLock::new(Instant::now()),
            hedges: Budget::default(),
            names,
            connections: AtomicU64::new(0),
            address,
            scripts: Scripts::new(),
            deadline,
            runtime: Handle::current(),
            connected: RwLock::new(None),
            lost: Arc::default(),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            kept: RwLock::new(KnownKept::nothing()),
            turn_until: RwLock::default(),
            last_failure: Mutex::default(),
        });
        redis.connect().await.map_err(|error| match error {
            Failure::Server(error) => redis.explain(&error),
            Failure::Slow(patience) => redis.slow(patience),
            Failure::Format(error) => error,
        })?;
        redis.look_around().await?;
        tokio::spawn(keep(Arc::downgrade(&redis)));
        if redis.replicas.is_some() {
            redis.look_after_replicas().await;
            tokio::spawn(watch(Arc::downgrade(&redis)));
        }
        Ok(redis)
    }

    /// How it is named to people.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Brings rows of distinct keys in; each replaces what is stored unless that is later.
    pub fn upsert(&self, over: Option<u64>, rows: &Rows) -> Result<Upserted> {
        let each = |row: usize, command: &mut Cmd| {
            command.arg(rows.get(row).1);
        };
        let mut upserted = Upserted::default();
        for (_, reply) in self.wait(self.run(over, &self.scripts.upsert, rows, each))? {
            let Value::Array(counts) = reply else { return Err(self.explain(&unexpected())) };
            let [Value::Int(written), Value::Int(unchanged), Value::Int(older)] = counts[..] else {
                return Err(self.explain(&unexpected()));
            };
            upserted.written += written.unsigned_abs();
            upserted.unchanged += unchanged.unsigned_abs();
            upserted.older += older.unsigned_abs();
        }
        Ok(upserted)
    }

    /// Brings values of distinct keys in, each of which was made from what `expected` has at its place: where something
    /// else is stored by now, nothing happens to it, and its place is among the conflicts.
    pub fn replace_if(&self, over: Option<u64>, rows: &Rows, expected: &[Option<&[u8]>]) -> Result<Replaced> {
        let each = |row: usize, command: &mut Cmd| {
            command.arg(expected[row].unwrap_or_default()).arg(rows.get(row).1);
        };
        let mut replaced = Replaced::default();
        for (places, reply) in self.wait(self.run(over, &self.scripts.replace_if, rows, each))? {
            let Value::Array(conflicts) = reply else { return Err(self.explain(&unexpected())) };
            replaced.done += (places.len() - conflicts.len()) as u64;
            for conflict in conflicts {
                let place = match conflict {
                    Value::Int(place) => usize::try_from(place).ok().and_then(|place| places.get(place)),
                    _ => None,
                };
                replaced.conflicts.push(*place.ok_or_else(|| self.explain(&unexpected()))?);
            }
        }
        replaced.conflicts.sort_unstable();
        Ok(replaced)
    }

    /// Runs `script` on all rows, thousands of keys to a round trip; returns the reply to each group of rows. It may be
    /// repeated: whatever came in comes in no second time.
    async fn run(
        &self,
        over: Option<u64>,
        script: &Named,
        rows: &Rows,
        each: impl Fn(usize, &mut Cmd),
    ) -> Result<Vec<(Vec<usize>, Value)>> {
        let keys: Vec<Vec<u8>> = (0..rows.len()).map(|row| self.names.row(rows.get(row).0)).collect();
        let is_cluster = self.connected()?.writes.is_cluster();
        let mut order: Vec<(u16, usize)> =
            keys.iter().enumerate().map(|(row, key)| (if is_cluster { slot(key) } else { 0 }, row)).collect();
        order.sort_unstable();
        let mut done = Vec::new();
        let mut batch = Batch::default();
        for group in order.chunk_by(|a, b| a.0 == b.0).flat_map(|group| group.chunks(SCRIPT_KEYS)) {
            let places: Vec<usize> = group.iter().map(|(_, row)| *row).collect();
            let mut command = script.run(places.iter().map(|row| &keys[*row][..]));
            places.iter().for_each(|row| each(*row, &mut command));
            batch.bytes += places.iter().map(|row| keys[*row].len() + rows.get(*row).1.len()).sum::<usize>();
            batch.keys += places.len();
            batch.commands.push((group[0].0, command));
            batch.places.push(places);
            if batch.keys >= BATCH_KEYS || batch.bytes >= BATCH_BYTES {
                self.send(over, (script, std::mem::take(&mut batch)), &mut done).await?;
            }
        }
        self.send(over, (script, batch), &mut done).await?;
        Ok(done)
    }

    async fn send(
        &self,
        over: Option<u64>,
        (script, batch): (&Named, Batch),
        done: &mut Vec<(Vec<usize>, Value)>,
    ) -> Result<()> {
        if batch.commands.is_empty() {
            return Ok(());
        }
        let load = script.load();
        let commands = batch.commands;
        let sent = async |connected: Arc<Connected>| connected.writes.send(commands, &load).await;
        let replies = self.ask_over(over, WRITE_PATIENCE, sent).await?;
        done.extend(batch.places.into_iter().zip(replies));
        Ok(())
    }

    /// Drops the rows of every view but `live`: those of definitions that have changed or gone.
    pub fn retain(&self, live: &[ViewId]) -> Result<()> {
        let mut command = redis::cmd("HKEYS");
        command.arg(&self.names.watermark);
        let Value::Array(views) = self.now(&command)? else { return Err(self.explain(&unexpected())) };
        let mut gone = Vec::new();
        for view in views {
            let Value::BulkString(view) = view else { return Err(self.explain(&unexpected())) };
            let id = <[u8; 8]>::try_from(&view[..]).map(|id| ViewId(u64::from_be_bytes(id)));
            gone.extend(id.ok().filter(|view| !live.contains(view)));
        }
        self.drop_views(&gone)
    }

    /// Drops the rows of these views, and what is known of them.
    pub fn drop_views(&self, gone: &[ViewId]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let drop_from = |names: &str| {
            let mut command = redis::cmd("HDEL");
            command.arg(names);
            gone.iter().for_each(|view| {
                command.arg(&view.0.to_be_bytes());
            });
            self.now(&command).map(drop)
        };
        drop_from(&self.names.kept)?;
        drop_from(&self.names.files_until)?;
        drop_from(&self.names.made_of)?;
        self.kept.write().forget(gone);
        self.wait(async {
            let shards = self.connected()?.writes.shards();
            try_join_all((0..shards).map(|shard| self.sweep(shard, gone))).await
        })?;
        // Last: a run that is cut short finds the view once more.
        drop_from(&self.names.watermark)
    }

    /// Bytes of memory that the data in Redis takes, as it estimates them: ours, and whatever else lies there.
    pub fn bytes(&self) -> Result<u64> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let asked = async |connected: Arc<Connected>| connected.writes.each_master(&info).await;
        let replies = self.wait(self.ask(WRITE_PATIENCE, asked))?;
        let bytes = |reply: &Value| field(text(reply)?, "used_memory_dataset")?.parse::<u64>().ok();
        // What an empty server estimates may be less than nothing, which it prints without the sign.
        let estimated = |bytes: &u64| *bytes <= i64::MAX.unsigned_abs();
        Ok(replies.iter().filter_map(|(_, reply)| bytes(reply)).filter(estimated).sum())
    }
}

/// Commands for one round trip, and the rows of each.
#[derive(Default)]
struct Batch {
    commands: Vec<(u16, Cmd)>,
    places: Vec<Vec<usize>>,
    keys: usize,
    bytes: usize,
}
