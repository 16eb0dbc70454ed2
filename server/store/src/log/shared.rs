//! Which rows were pushed, at whichever of several servers? The log that they share, in PostgreSQL.
//!
//! A group of pushes is one transaction: the rows and what tells a repetition. Each has a number, one more than the one
//! before, and whoever counts on from a number that is not the last any more has come too late and writes nothing. So
//! the log has one order, whatever becomes of locks and connections.
//!
//! The lock ([`SharedLog::turn`]) is there so that nobody comes too late. It belongs to a transaction that does nothing
//! else: where its server ends, PostgreSQL gives it back at once, and where the server hangs, after twenty seconds.

use std::collections::HashMap;
use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, FromRow, Postgres};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::logged::{Logged, Seen, SeenKey, from_bytes, to_bytes};
use crate::error::{Error, Result};

/// How long PostgreSQL may take to connect, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that nobody used for so long is asked whether it is still there. One in use is not: that would be
/// another round trip for each statement of a push.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// One has the turn, one commits, one copies, one asks for places in streams and one for who reads them.
const CONNECTIONS_MAX: u32 = 5;
/// Rows of the log, or commits, that are fetched at a time.
pub const PAGE: i64 = 64;
/// How far the log is.
const STATE: &str = "SELECT commits, (SELECT COALESCE(MAX(number), 0) FROM applies) FROM push_log";
/// The lock. Its number says nothing; it is the same for all servers of a database. How far the log is, is asked in the
/// same round trip, by a statement that begins once the lock is ours.
const TAKE_TURN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '20s'; \
     SET LOCAL lock_timeout = '25s'; SELECT pg_advisory_xact_lock(7311005824)";
/// A commit is one statement, and so one transaction and one round trip. Nothing is inserted where nothing is counted.
const COMMIT: &str = "WITH counted AS (UPDATE push_log SET commits = commits + 1 WHERE commits = $1 RETURNING commits), \
     logged AS (INSERT INTO pushed_rows (number, source, first_row, row_count, in_head, history, online) \
         SELECT commits, given.* FROM counted, unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], \
         $6::bytea[], $7::bytea[]) AS given), \
     noted AS (INSERT INTO push_seen (key, until, content) \
         SELECT given.* FROM counted, unnest($8::bytea[], $9::bigint[], $10::bytea[]) AS given \
         ON CONFLICT (key) DO UPDATE SET until = excluded.until, content = excluded.content) \
     SELECT commits FROM counted";
/// Nothing is acknowledged that a loss of power could undo, whatever the database is set to.
const DURABLE: (&str, &str) = ("synchronous_commit", "on");

/// The log. All but [`SharedLog::lease`] must be called where blocking is allowed.
#[derive(Debug)]
pub struct SharedLog {
    pool: PgPool,
    runtime: Handle,
    /// Names it.
    pub id: String,
}

/// The turn to commit, given back when this is dropped.
pub struct Turn {
    /// How far the log is; nobody else takes it further.
    pub state: State,
    _end: oneshot::Sender<()>,
}

/// How far the log is.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Number of the last commit.
    pub commits: i64,
    /// Number of the latest apply.
    pub applies: u64,
}

impl From<(i64, i64)> for State {
    fn from((commits, applies): (i64, i64)) -> State {
        State { commits, applies: applies.unsigned_abs() }
    }
}

/// What a row of the log is read as.
type Read = (i64, String, i64, i64, Vec<u8>, Vec<u8>);

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
        let id = answer(sqlx::query_scalar("SELECT id FROM push_log").fetch_one(&pool)).await?;
        Ok(SharedLog { pool, runtime: Handle::current(), id })
    }

    /// Waits for the turn to commit.
    pub fn turn(&self) -> Result<Turn> {
        self.wait(async {
            let mut connection = answer(self.pool.acquire()).await?;
            let asked = sqlx::raw_sql(AssertSqlSafe(format!("{TAKE_TURN}; {STATE}")));
            let taken = in_time(asked.fetch_all(&mut *connection)).await;
            match taken.and_then(|rows| <(i64, i64)>::from_row(rows.last().ok_or(sqlx::Error::RowNotFound)?))
            {
                Ok(state) => {
                    let (end, ended) = oneshot::channel::<()>();
                    self.runtime.spawn(give_back(connection, ended));
                    Ok(Turn { state: state.into(), _end: end })
                }
                Err(error) => {
                    // It may wait for the lock still, and must not get it.
                    drop(connection.detach());
                    Err(no_turn(error))
                }
            }
        })
    }

    /// How far it is.
    pub fn state(&self) -> Result<State> {
        let asked = sqlx::query_as(STATE).fetch_one(&self.pool);
        self.wait(answer(asked)).map(<State as From<(i64, i64)>>::from)
    }

    /// Rows after commit `known` that no copy has whose next rows are numbered as in `ends`, by source; in their order.
    /// There may be more, and the number up to which these are all.
    pub fn since(&self, known: i64, ends: &[(String, u64)]) -> Result<(Vec<Logged>, Option<i64>)> {
        let asked = "SELECT number, source, first_row, in_head, history, ''::bytea FROM pushed_rows \
                     LEFT JOIN unnest($2::text[], $3::bigint[]) AS here (name, until) ON name = source \
                     WHERE number > $1 AND row_count > 0 AND first_row + row_count > COALESCE(until, 0) \
                     ORDER BY number, source LIMIT $4";
        let (names, ends): (Vec<String>, Vec<i64>) =
            ends.iter().map(|(name, end)| (name.clone(), *end as i64)).unzip();
        let query = sqlx::query_as(asked).bind(known).bind(names).bind(ends).bind(PAGE);
        let found: Vec<Read> = self.wait(answer(query.fetch_all(&self.pool)))?;
        // The rest of the last commit may be on the next page.
        let more = found.last().filter(|_| found.len() as i64 == PAGE).map(|last| last.0 - 1);
        Ok((found.into_iter().map(read).collect::<Result<_>>()?, more))
    }

    /// Everything after commit `number`, up to a page of it; in its order, and always whole commits.
    pub fn after(&self, number: i64) -> Result<Vec<Logged>> {
        let asked = "SELECT number, source, first_row, in_head, history, online FROM pushed_rows \
                     WHERE number > $1 AND number <= $1 + $2 ORDER BY number, source";
        let query = sqlx::query_as(asked).bind(number).bind(PAGE);
        let found: Vec<Read> = self.wait(answer(query.fetch_all(&self.pool)))?;
        found.into_iter().map(read).collect()
    }

    /// What is known of each of `keys` at `now_us`.
    pub fn seen(&self, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Vec<u8>> = keys.iter().map(digest).collect();
        let asked = "SELECT key, until, content FROM push_seen WHERE key = ANY($1) AND until >= $2";
        let query = sqlx::query_as(asked).bind(&keys).bind(now_us);
        let found: Vec<(Vec<u8>, i64, Vec<u8>)> = self.wait(answer(query.fetch_all(&self.pool)))?;
        let found: HashMap<Vec<u8>, Seen> =
            found.into_iter().map(|(key, until_us, value)| (key, Seen { until_us, value })).collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    /// Writes the commit after number `last`, all of it or nothing. It is on disk when this returns.
    ///
    /// # Errors
    /// `Kind::Unavailable` where another came in between, and where nobody knows whether it was written.
    pub fn commit(&self, last: i64, rows: &[Logged], seen: &[(SeenKey, Seen)]) -> Result<()> {
        let mut history = Vec::with_capacity(rows.len());
        let mut online = Vec::with_capacity(rows.len());
        for logged in rows {
            history.push(to_bytes(&logged.history)?);
            online.push(logged.online.as_ref().map(to_bytes).transpose()?.unwrap_or_default());
        }
        let of_rows = |number: fn(&Logged) -> i64| rows.iter().map(number).collect::<Vec<i64>>();
        // What was noted twice is known as it was noted last; one statement cannot write a key twice.
        let seen: HashMap<Vec<u8>, &Seen> = seen.iter().map(|(key, seen)| (digest(key), seen)).collect();
        let keys: Vec<&[u8]> = seen.keys().map(Vec::as_slice).collect();
        let until: Vec<i64> = seen.values().map(|seen| seen.until_us).collect();
        let contents: Vec<&[u8]> = seen.values().map(|seen| &seen.value[..]).collect();
        let sources: Vec<&str> = rows.iter().map(|logged| &logged.source[..]).collect();
        let written = sqlx::query(COMMIT)
            .bind(last)
            .bind(sources)
            .bind(of_rows(|logged| logged.first as i64))
            .bind(of_rows(|logged| logged.history.num_rows() as i64))
            .bind(of_rows(|logged| logged.in_head as i64))
            .bind(history)
            .bind(online)
            .bind(keys)
            .bind(until)
            .bind(contents);
        // It has ended, and so is on disk, when all of the reply is here.
        let written = self.wait(answer(written.execute(&self.pool)))?;
        match written.rows_affected() {
            1 => Ok(()),
            _ => Err(Error::busy("another server pushed in between")),
        }
    }

    /// Drops what need not be known any more at `now_us`.
    pub fn forget(&self, now_us: i64) -> Result<()> {
        let dropped = sqlx::query("DELETE FROM push_seen WHERE until < $1").bind(now_us);
        self.wait(answer(dropped.execute(&self.pool))).map(drop)
    }

    /// Whether `reader` is the one that reads the stream of `source`, for as many seconds from now on.
    pub async fn lease(&self, source: &str, reader: &str, seconds: f64) -> Result<bool> {
        let asked = "INSERT INTO stream_readers (source, reader, until) \
                     VALUES ($1, $2, now() + $3 * interval '1 second') \
                     ON CONFLICT (source) DO UPDATE SET reader = excluded.reader, until = excluded.until \
                     WHERE stream_readers.reader = excluded.reader OR stream_readers.until < now()";
        let query = sqlx::query(asked).bind(source).bind(reader).bind(seconds);
        Ok(answer(query.execute(&self.pool)).await?.rows_affected() == 1)
    }

    /// Waits where blocking is allowed.
    fn wait<F: Future>(&self, future: F) -> F::Output {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }
}

/// Ends the transaction that has the lock once nobody needs it.
async fn give_back(mut connection: PoolConnection<Postgres>, ended: oneshot::Receiver<()>) {
    let _ = ended.await;
    if in_time(sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await.is_err() {
        drop(connection.detach());
    }
}

async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| Err(sqlx::Error::Io(ErrorKind::TimedOut.into()));
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(late)
}

async fn answer<T>(asked: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    in_time(asked).await.map_err(lost)
}

fn no_turn(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(late) if late.code().as_deref() == Some("55P03") => {
            Error::busy("another server has held the log of pushed rows for too long")
        }
        _ => lost(error),
    }
}

fn lost(error: sqlx::Error) -> Error {
    Error::from(error).told(|what| format!("the log of pushed rows: {what}"))
}

/// Keys of one length, however long what they name is: PostgreSQL's index takes no more than a third of a page.
fn digest(key: &SeenKey) -> Vec<u8> {
    Sha256::digest(key.bytes()).to_vec()
}

fn read((number, source, first, in_head, history, online): Read) -> Result<Logged> {
    let online = if online.is_empty() { None } else { Some(from_bytes(&online)?) };
    Ok(Logged {
        number,
        source,
        first: first.unsigned_abs(),
        history: from_bytes(&history)?,
        in_head: in_head as usize,
        online,
    })
}
