//! Which rows were pushed, at whichever of several servers? The log that they share, in PostgreSQL.
//!
//! A group of pushes is one transaction: the rows and what tells a repetition. Each source counts its commits, and
//! whoever counts on from one that is not the last any more has come too late and writes nothing. So the log of a
//! source has one order, whatever becomes of locks and connections; and servers that push to different sources wait
//! for nobody.
//!
//! The lock of each source ([`SharedLog::turn`]) is there so that nobody comes too late. It belongs to a transaction
//! that does nothing else: where its server ends, PostgreSQL gives it back at once, and where the server hangs, after
//! twenty seconds. Times are PostgreSQL's: the clocks of servers are not one.

mod readers;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::future::Future;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, FromRow, Postgres};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use self::readers::StreamShare;
use super::commits::{Commits, State};
use super::logged::{Logged, Seen, SeenKey, from_bytes, to_bytes};
use super::named::labelled_model;
use crate::error::{Error, Result};
use crate::position::Position;

/// How long PostgreSQL may take to connect, to answer, and to answer who only reads.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Where it does not answer, it is asked by one in so long a time; the others are told so at once.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A connection that nobody used for so long is asked whether it is still there. One in use is not: that would be
/// another round trip for each statement of a push.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Two have a turn, two commit, and the others copy, ask for places in streams and for who reads them.
const CONNECTIONS_MAX: u32 = 7;
/// Commits of a source that are fetched at a time.
const PAGE: i64 = 64;
/// The locks are of this class: it says nothing, and is the same for all servers of a database.
const LOCKS: i32 = 731_100_582;
/// The time, µs since the Unix epoch.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
/// The number of the latest apply.
const APPLIES: &str = "(SELECT COALESCE(MAX(number), 0) FROM applies)";
/// Begins the transaction that has the locks. How far the sources are is asked in the same round trip, by a statement
/// that begins once they are ours.
const BEGIN: &str =
    "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '20s'; SET LOCAL lock_timeout = '25s'";
/// A commit is one statement, and so one transaction and one round trip. Where a source is no more where it was, it is
/// counted on for none: a statement that divides by zero has done nothing.
const COMMIT: &str = "WITH given AS (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], \
         $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[]) \
         AS given (source, number, token, previous, first_row, row_count, in_head, history, online)), \
     counted AS (INSERT INTO push_sources AS here (source, commits, token, previous) \
         SELECT source, number, token, previous FROM given \
         WHERE number = 1 OR source IN (SELECT source FROM push_sources) \
         ON CONFLICT (source) DO UPDATE \
         SET commits = excluded.commits, token = excluded.token, previous = excluded.previous \
         WHERE here.commits + 1 = excluded.commits AND here.token = excluded.previous RETURNING source), \
     logged AS (INSERT INTO pushed_rows (source, number, token, first_row, row_count, in_head, history, online) \
         SELECT source, number, token, first_row, row_count, in_head, history, online FROM given), \
     noted AS (INSERT INTO push_seen (key, until, content) \
         SELECT * FROM unnest($10::bytea[], $11::bigint[], $12::bytea[]) \
         ON CONFLICT (key) DO UPDATE SET until = excluded.until, content = excluded.content) \
     SELECT 1 / CASE WHEN (SELECT COUNT(*) FROM counted) = (SELECT COUNT(*) FROM given) THEN 1 ELSE 0 END";
/// What PostgreSQL says then, or where it finds a commit of the same number: another came in between.
const TOO_LATE: [&str; 2] = ["22012", "23505"];
/// Nothing is acknowledged that a loss of power could undo, whatever the database is set to.
const DURABLE: (&str, &str) = ("synchronous_commit", "on");

/// The log. All but [`SharedLog::share`] and [`SharedLog::leave`] must be called where blocking is allowed.
#[derive(Debug)]
pub struct SharedLog {
    pool: PgPool,
    runtime: Handle,
    /// When PostgreSQL was last asked in vain, where it has not answered since.
    silent: Mutex<Option<Instant>>,
    /// Names it.
    pub id: String,
}

/// The turn to commit for some sources, given back when this is dropped.
pub struct Turn {
    /// The last commits of the sources; nobody else takes them further.
    pub lasts: BTreeMap<String, Position>,
    /// Number of the latest apply.
    pub applies: u64,
    /// The time, µs.
    pub now_us: i64,
    _end: oneshot::Sender<()>,
}

/// What was seen, as of one moment.
#[derive(Debug, Default)]
pub struct SeenAt {
    /// What is known of each key.
    pub seen: Vec<Option<Seen>>,
    /// The last commits of the sources that were asked for.
    pub lasts: BTreeMap<String, Position>,
}

/// What a key and what is known of it is read as, or a source and its last commit.
type ReadSeen = (String, Vec<u8>, i64, Vec<u8>, i64);

/// What a row of the log is read as.
type Read = (i64, i64, i64, i64, Vec<u8>, Vec<u8>);

impl SharedLog {
    /// The log in the database of `options`.
    pub(crate) async fn open(options: PgConnectOptions) -> Result<SharedLog> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, used| {
                Box::pin(async move {
                    match used.idle_for > TRUSTED_FOR {
                        true => connection.ping().await.map(|()| true),
                        false => Ok(true),
                    }
                })
            })
            .connect_lazy_with(options.options([DURABLE]));
        let asked = sqlx::query_scalar("SELECT id FROM push_log").fetch_one(&pool);
        let id = in_time(READ_TIMEOUT, asked).await.map_err(lost)?;
        Ok(SharedLog { pool, runtime: Handle::current(), silent: Mutex::default(), id })
    }

    /// Waits for the turn to commit for `sources`.
    pub fn turn(&self, sources: &BTreeSet<String>) -> Result<Turn> {
        let taken = async {
            let mut connection = self.pool.acquire().await?;
            let asked = sqlx::raw_sql(AssertSqlSafe(take_turn(sources)));
            // It waits for others, who may hold it for as long as one may be silent.
            let taken = in_time(ANSWER_TIMEOUT, asked.fetch_all(&mut *connection)).await;
            let state = |rows: Vec<sqlx::postgres::PgRow>| {
                let of_sources = rows.iter().rev().take(1 + sources.len());
                of_sources.map(<(String, i64, i64, i64, i64)>::from_row).collect::<sqlx::Result<Vec<_>>>()
            };
            match taken.and_then(state) {
                Ok(state) => {
                    let (applies, now_us) =
                        state.first().map_or((0, 0), |(.., applies, now_us)| (*applies, *now_us));
                    let lasts = state
                        .into_iter()
                        .map(|(source, number, token, ..)| (source, Position { number, token }))
                        .filter(|(source, _)| !source.is_empty())
                        .collect();
                    let (end, ended) = oneshot::channel::<()>();
                    self.runtime.spawn(give_back(connection, ended));
                    Ok(Turn { lasts, applies: applies.unsigned_abs(), now_us, _end: end })
                }
                Err(error) => {
                    // It may wait for the lock still, and must not get it.
                    drop(connection.detach());
                    Err(error)
                }
            }
        };
        self.ask(taken).map_err(no_turn)
    }

    /// Number of the latest apply.
    pub fn applies(&self) -> Result<u64> {
        let asked = AssertSqlSafe(format!("SELECT {APPLIES}"));
        let number: i64 = self.read(sqlx::query_scalar(asked).fetch_one(&self.pool))?;
        Ok(number.unsigned_abs())
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        Ok(self.seen_at(keys, now_us, &[])?.seen)
    }

    /// The same, and the last commits of `sources`, as of one moment.
    pub fn seen_at(&self, keys: &[SeenKey], now_us: i64, sources: &[&str]) -> Result<SeenAt> {
        if keys.is_empty() {
            return Ok(SeenAt::default());
        }
        let keys: Vec<Vec<u8>> = keys.iter().map(digest).collect();
        let asked = "SELECT '', key, until, content, 0::bigint FROM push_seen WHERE key = ANY($1) AND until >= $2 \
                     UNION ALL SELECT source, ''::bytea, commits, ''::bytea, token FROM push_sources \
                     WHERE source = ANY($3)";
        let query = sqlx::query_as(asked).bind(&keys).bind(now_us).bind(sources);
        let rows: Vec<ReadSeen> = self.read(query.fetch_all(&self.pool))?;
        let (mut found, mut lasts) = (HashMap::new(), BTreeMap::new());
        for (source, key, number, value, token) in rows {
            match source.is_empty() {
                true => _ = found.insert(key, Seen { until_us: number, value }),
                false => _ = lasts.insert(source, Position { number, token }),
            }
        }
        Ok(SeenAt { seen: keys.iter().map(|key| found.get(key).cloned()).collect(), lasts })
    }

    /// Drops what need not be known any more.
    pub fn forget(&self) -> Result<()> {
        let dropped = AssertSqlSafe(format!(
            "WITH gone AS (DELETE FROM stream_readers WHERE until < now() - interval '1 hour') \
             DELETE FROM push_seen WHERE until < {NOW}"
        ));
        self.ask(in_time(ANSWER_TIMEOUT, sqlx::query(dropped).execute(&self.pool))).map(drop).map_err(lost)
    }

    /// Reads, for so long.
    fn read<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        self.ask(in_time(READ_TIMEOUT, asked)).map_err(lost)
    }

    /// Asks where blocking is allowed. Where PostgreSQL does not answer, one after the other finds out whether it does
    /// again, and nobody else waits for it.
    fn ask<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        if let Some(since) = &mut *self.silent.lock() {
            if since.elapsed() < ASKED_AGAIN_AFTER {
                return Err(silence());
            }
            *since = Instant::now();
        }
        let answered = tokio::task::block_in_place(|| self.runtime.block_on(asked));
        let is_silent = match &answered {
            Err(sqlx::Error::Io(error)) => error.kind() == ErrorKind::TimedOut,
            Err(sqlx::Error::PoolTimedOut) => true,
            _ => false,
        };
        *self.silent.lock() = is_silent.then(Instant::now);
        answered
    }
}

impl Commits for SharedLog {
    fn states(&self, source: Option<&str>) -> Result<BTreeMap<String, State>> {
        let asked = "SELECT source, commits, token, forgotten, forgotten_token, sealed FROM push_sources \
                     WHERE $1::text IS NULL OR source = $1";
        let asked = sqlx::query_as(asked).bind(source);
        let found: Vec<(String, i64, i64, i64, i64, i64)> = self.read(asked.fetch_all(&self.pool))?;
        let state = |(source, number, token, forgotten, forgotten_token, sealed): (_, _, _, _, _, i64)| {
            let (last, sealed) = (Position { number, token }, sealed.unsigned_abs());
            (
                source,
                State { last, forgotten: Position { number: forgotten, token: forgotten_token }, sealed },
            )
        };
        Ok(found.into_iter().map(state).collect())
    }

    fn went_through(&self, source: &str, position: Position) -> Result<bool> {
        let asked = "SELECT forgotten, forgotten_token, (SELECT token FROM pushed_rows \
                     WHERE pushed_rows.source = push_sources.source AND number = $2) \
                     FROM push_sources WHERE source = $1";
        let asked = sqlx::query_as(asked).bind(source).bind(position.number);
        let found: Option<(i64, i64, Option<i64>)> = self.read(asked.fetch_optional(&self.pool))?;
        Ok(found.is_some_and(|(forgotten, forgotten_token, token)| match position.number.cmp(&forgotten) {
            Ordering::Less => true,
            Ordering::Equal => forgotten_token == position.token,
            Ordering::Greater => token == Some(position.token),
        }))
    }

    fn after(
        &self,
        source: &str,
        (mut number, end): (i64, u64),
        see: &mut dyn FnMut(Logged) -> Result<()>,
    ) -> Result<()> {
        let asked = "SELECT number, token, first_row, in_head, history, online FROM pushed_rows \
                     WHERE source = $1 AND number > $2 AND first_row + row_count >= $3 ORDER BY number LIMIT $4";
        loop {
            let query = sqlx::query_as(asked).bind(source).bind(number).bind(end as i64).bind(PAGE);
            let found: Vec<Read> = self.read(query.fetch_all(&self.pool))?;
            let is_last = (found.len() as i64) < PAGE;
            for row in found {
                number = row.0;
                see(read(source, row)?)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn commit(
        &self,
        lasts: &BTreeMap<String, Position>,
        rows: &[Logged],
        seen: &[(SeenKey, Seen)],
    ) -> Result<()> {
        let mut history = Vec::with_capacity(rows.len());
        let mut online = Vec::with_capacity(rows.len());
        for logged in rows {
            history.push(to_bytes(&logged.history)?);
            online.push(logged.online.as_ref().map(to_bytes).transpose()?.unwrap_or_default());
        }
        let of_rows = |number: &dyn Fn(&Logged) -> i64| rows.iter().map(number).collect::<Vec<i64>>();
        let previous = |logged: &Logged| lasts.get(&logged.source).map_or(0, |last| last.token);
        // What was noted twice is known as it was noted last; one statement cannot write a key twice.
        let seen: HashMap<Vec<u8>, &Seen> = seen.iter().map(|(key, seen)| (digest(key), seen)).collect();
        let keys: Vec<&[u8]> = seen.keys().map(Vec::as_slice).collect();
        let until: Vec<i64> = seen.values().map(|seen| seen.until_us).collect();
        let contents: Vec<&[u8]> = seen.values().map(|seen| &seen.value[..]).collect();
        let sources: Vec<&str> = rows.iter().map(|logged| &logged.source[..]).collect();
        let written = sqlx::query(COMMIT)
            .bind(sources)
            .bind(of_rows(&|logged| logged.position.number))
            .bind(of_rows(&|logged| logged.position.token))
            .bind(of_rows(&previous))
            .bind(of_rows(&|logged| logged.first as i64))
            .bind(of_rows(&|logged| logged.history.num_rows() as i64))
            .bind(of_rows(&|logged| logged.in_head as i64))
            .bind(history)
            .bind(online)
            .bind(keys)
            .bind(until)
            .bind(contents);
        // It has ended, and so is on disk, when all of the reply is here.
        self.ask(in_time(ANSWER_TIMEOUT, written.execute(&self.pool))).map(drop).map_err(|error| {
            match is_one_of(&error, &TOO_LATE) {
                true => Error::busy("another server pushed in between"),
                false => lost(error),
            }
        })
    }

    fn sealed(&self, source: &str, end: u64) -> Result<()> {
        let noted = "UPDATE push_sources SET sealed = GREATEST(sealed, $2) WHERE source = $1";
        let noted = sqlx::query(noted).bind(source).bind(end as i64);
        self.ask(in_time(ANSWER_TIMEOUT, noted.execute(&self.pool))).map(drop).map_err(lost)
    }

    fn forget_rows(&self, source: &str, number: i64, end: u64, store: &str) -> Result<()> {
        let gone = "WITH kept AS (SELECT LEAST($3, COALESCE(MAX(end_row), 0)) AS until FROM segments \
                    WHERE store = $4 AND log = $5 AND family = $6 AND name = $7 AND replaced IS NULL), \
                    gone AS (DELETE FROM pushed_rows USING kept WHERE source = $1 AND number <= $2 \
                    AND first_row + row_count <= until RETURNING number, token, until), \
                    last AS (SELECT number, token, until FROM gone ORDER BY number DESC LIMIT 1) \
                    UPDATE push_sources SET forgotten = last.number, forgotten_token = last.token, \
                    sealed = GREATEST(sealed, until) FROM last WHERE source = $1";
        let gone = sqlx::query(gone).bind(source).bind(number).bind(end as i64).bind(store).bind(&self.id);
        let (family, name) = match labelled_model(source) {
            Some(model) => ("labels", model),
            None => ("pushed", source),
        };
        let gone = gone.bind(family).bind(name);
        self.ask(in_time(ANSWER_TIMEOUT, gone.execute(&self.pool))).map(drop).map_err(lost)
    }
}

/// Takes the locks of `sources`, in an order that is the same for everybody, and asks how far they are. The empty name
/// is that of none: what is asked of all is said where there are none.
fn take_turn(sources: &BTreeSet<String>) -> String {
    let locks: BTreeSet<i32> = sources.iter().map(|source| lock_of(source)).collect();
    let mut asked = BEGIN.to_owned();
    for lock in locks {
        // A string takes whatever is written.
        let _ = write!(asked, "; SELECT pg_advisory_xact_lock({LOCKS}, {lock})");
    }
    let names = std::iter::once("").chain(sources.iter().map(String::as_str));
    let names: Vec<String> = names.map(|name| format!("('{}')", name.replace('\'', "''"))).collect();
    let _ = write!(
        asked,
        "; SELECT name, COALESCE(commits, 0), COALESCE(token, 0), {APPLIES}, {NOW} \
         FROM (VALUES {}) AS asked (name) LEFT JOIN push_sources ON source = name",
        names.join(", ")
    );
    asked
}

/// Two sources of one lock only wait for one another.
fn lock_of(source: &str) -> i32 {
    Sha256::digest(source).first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes))
}

/// Ends the transaction that has the locks once nobody needs them.
async fn give_back(mut connection: PoolConnection<Postgres>, ended: oneshot::Receiver<()>) {
    let _ = ended.await;
    if in_time(READ_TIMEOUT, sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await.is_err() {
        drop(connection.detach());
    }
}

fn silence() -> sqlx::Error {
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

async fn in_time<T>(time: Duration, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(time, asked).await.unwrap_or_else(|_| Err(silence()))
}

fn is_one_of(error: &sqlx::Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| codes.contains(&&*code))
}

fn no_turn(error: sqlx::Error) -> Error {
    match is_one_of(&error, &["55P03"]) {
        true => Error::busy("another server has held the log of pushed rows for too long"),
        false => lost(error),
    }
}

fn lost(error: sqlx::Error) -> Error {
    Error::from(error).told(|what| format!("the log of pushed rows: {what}"))
}

/// Keys of one length, however long what they name is: PostgreSQL's index takes no more than a third of a page.
fn digest(key: &SeenKey) -> Vec<u8> {
    Sha256::digest(key.bytes()).to_vec()
}

fn read(source: &str, (number, token, first, in_head, history, online): Read) -> Result<Logged> {
    let online = if online.is_empty() { None } else { Some(from_bytes(&online)?) };
    Ok(Logged {
        position: Position { number, token },
        source: source.to_owned(),
        first: first.unsigned_abs(),
        history: from_bytes(&history)?,
        in_head: in_head as usize,
        online,
    })
}
