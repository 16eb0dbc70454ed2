//! Is the server there? Its connections, how long is waited for an answer, and what happens when none comes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::timeout;

use super::link::Link;
use super::{Connected, FORMAT, Redis, WRITE_PATIENCE};
use crate::error::{Error, Kind, Result};
use crate::metrics::metrics;

/// How often the keeper looks after the connections.
pub(super) const KEEPER_PAUSE: Duration = Duration::from_millis(400);
/// How often it tries to connect while there is none.
const KEEPER_RETRY: Duration = Duration::from_millis(100);
/// The same where what answers is not the store it was: somebody has to look.
const KEEPER_RETRY_OTHER: Duration = Duration::from_secs(5);
/// Failures in a row after which the connections are given up.
const FAILURES_MAX: u32 = 5;

impl Redis {
    /// Connects, checks the format, and reads what is kept; only then the connections are used by others.
    pub(super) async fn connect(&self) -> std::result::Result<(), Failure> {
        let patience = WRITE_PATIENCE.min(self.deadline.max(Duration::from_secs(1)));
        let connected = async {
            // A look-up gives up by its own deadline; the client's is only there to let go of what nobody awaits.
            let reads = Link::connect(&self.address, self.deadline * 2).await?;
            let writes = Link::connect(&self.address, WRITE_PATIENCE).await?;
            let spare = match self.address.hedge {
                Some(_) => Some(Link::connect(&self.address, self.deadline * 2).await?),
                None => None,
            };
            let replicas = match self.address.cluster && self.address.replicas {
                true => Some(Link::connect_to_replicas(&self.address, self.deadline * 2).await?),
                false => None,
            };
            let mut ask = redis::cmd("GET");
            ask.arg(&self.names.format);
            let mut format = writes.command(&ask).await?;
            // A store that has its format is read even while it takes no writes.
            if format == Value::Nil {
                let mut claim = redis::cmd("SET");
                claim.arg(&self.names.format).arg(FORMAT).arg("NX");
                writes.command(&claim).await?;
                format = writes.command(&ask).await?;
            }
            let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
            let failures = AtomicU32::new(0);
            let connected = Connected { number, reads, writes, spare, replicas, failures };
            RedisResult::Ok((connected, format))
        };
        let (connected, format) =
            timeout(3 * patience, connected).await.map_err(|_| Failure::Slow(3 * patience))??;
        if format != Value::BulkString(FORMAT.into()) {
            let found = match &format {
                Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            };
            return Err(Failure::Format(Error::refused(format!(
                "the online store {} has format {found} under the prefix `{}`, and this build reads format {FORMAT}; \
                 choose another `prefix`, or remove its keys and materialize again",
                self.address, self.address.prefix,
            ))));
        }
        let connected = Arc::new(connected);
        let read = timeout(patience, self.read_kept(&connected)).await;
        read.map_err(|_| Failure::Slow(patience))??;
        *self.connected.write() = Some(connected);
        metrics().online_store_up.set(1);
        Ok(())
    }

    /// Whether it is set up in a way that serves: a member of a cluster knows only some of the keys, and eviction turns
    /// rows into `NOT_FOUND`, and nobody would notice. A server that does not say is believed.
    pub(super) async fn look_around(&self) -> Result<()> {
        let connected = self.connected()?;
        let info = redis::cmd("INFO");
        let Ok(Ok(replies)) = timeout(WRITE_PATIENCE, connected.writes.each_master(&info)).await else {
            return Ok(());
        };
        for info in replies.iter().filter_map(|(_, reply)| text(reply)) {
            if field(info, "cluster_enabled") == Some("1") && !self.address.cluster {
                return Err(Error::refused(format!(
                    "the online store {} is a member of a cluster; add `?cluster=true` to its URL",
                    self.address
                )));
            }
            let policy = field(info, "maxmemory_policy").unwrap_or_default();
            if policy.starts_with("allkeys") {
                tracing::warn!(
                    url = %self.address,
                    policy,
                    "this Redis may evict rows, which then say NOT_FOUND; set `maxmemory-policy noeviction`"
                );
            }
        }
        Ok(())
    }

    /// One command, awaited with patience.
    pub(super) fn now(&self, command: &Cmd) -> Result<Value> {
        self.wait(
            self.ask(WRITE_PATIENCE, async |connected: Arc<Connected>| {
                connected.writes.command(command).await
            }),
        )
    }

    /// Whether it is asked at all: the breaker is closed.
    pub fn is_up(&self) -> bool {
        self.connected.read().is_some()
    }

    /// Waits where blocking is allowed.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }

    pub(super) fn connected(&self) -> Result<Arc<Connected>> {
        self.connected.read().clone().ok_or_else(|| {
            metrics().online_store_errors.with_label_values(&["breaker_open"]).inc();
            Error::unavailable(format!(
                "the online store {} does not answer; it is asked again until it does",
                self.address
            ))
        })
    }

    /// Asks within `patience`, and keeps count of what fails.
    pub(super) async fn ask<T>(
        &self,
        patience: Duration,
        call: impl AsyncFnOnce(Arc<Connected>) -> RedisResult<T>,
    ) -> Result<T> {
        self.ask_over(None, patience, call).await
    }

    /// The same over the connection `over` and no later one, where one is given: a Redis that fails over may have lost
    /// the last of what it was told before.
    pub(super) async fn ask_over<T>(
        &self,
        over: Option<u64>,
        patience: Duration,
        call: impl AsyncFnOnce(Arc<Connected>) -> RedisResult<T>,
    ) -> Result<T> {
        let connected = self.connected()?;
        if over.is_some_and(|over| over != connected.number) {
            return Err(Error::busy("the connection to the online store was lost in between"));
        }
        match timeout(patience, call(Arc::clone(&connected))).await {
            Ok(Ok(reply)) => {
                if connected.failures.load(Ordering::Relaxed) != 0 {
                    connected.failures.store(0, Ordering::Relaxed);
                }
                Ok(reply)
            }
            Ok(Err(error)) => {
                let explained = self.explain(&error);
                self.note_failure(&explained);
                // An answer that is an error is an answer: a row that no build can read is not the server's fault.
                if refuses_writes(&error) {
                    // It answers: look-ups go on.
                    metrics().online_store_errors.with_label_values(&["read_only"]).inc();
                } else if explained.kind() == Kind::Unavailable {
                    // The client of a cluster connects to its servers anew by itself.
                    let broken = error.is_unrecoverable_error() && !connected.reads.is_cluster();
                    self.failed(&connected, kind(&error), broken);
                }
                Err(explained)
            }
            Err(_) => {
                self.failed(&connected, "timeout", false);
                let late = self.slow(patience);
                self.note_failure(&late);
                Err(late)
            }
        }
    }

    /// Counts a failure of these connections, and gives them up if it was one too many, or if they are broken.
    fn failed(&self, connected: &Arc<Connected>, kind: &str, broken: bool) {
        metrics().online_store_errors.with_label_values(&[kind]).inc();
        let failures = connected.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < FAILURES_MAX && !broken {
            return;
        }
        let mut current = self.connected.write();
        // Those of before may still fail: that says nothing about the present ones.
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connected)) {
            *current = None;
            metrics().online_store_up.set(0);
            metrics().online_store_breaker_opened.inc();
            tracing::warn!(url = %self.address, kind, failures, "the online store does not answer: breaker open");
            self.lost.notify_one();
        }
    }

    pub(super) fn slow(&self, patience: Duration) -> Error {
        let hint = if patience <= self.deadline { " (`online_timeout`)" } else { "" };
        Error::unavailable(format!(
            "the online store {} did not answer within {} ms{hint}",
            self.address,
            patience.as_millis()
        ))
    }

    pub(super) fn explain(&self, error: &RedisError) -> Error {
        let address = &self.address;
        match error.kind() {
            _ if refuses_writes(error) => {
                Error::busy(format!("the online store {address} takes no writes; look-ups go on"))
                    .because(error.to_string())
            }
            ErrorKind::Server(ServerErrorKind::Moved) if !address.cluster => Error::refused(format!(
                "the online store {address} is a member of a cluster; add `?cluster=true` to its URL"
            )),
            ErrorKind::InvalidClientConfig => Error::invalid(format!("the online store {address}: {error}")),
            ErrorKind::UnexpectedReturnType
            | ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm) => {
                Error::internal(format!("the online store {address}"), error.to_string())
            }
            _ => Error::unavailable(format!("the online store {address} cannot be asked"))
                .because(error.to_string()),
        }
    }
}

/// Ends the keeper.
impl Drop for Redis {
    fn drop(&mut self) {
        self.lost.notify_one();
    }
}

/// Why connecting failed.
pub(super) enum Failure {
    Server(RedisError),
    Slow(Duration),
    Format(Error),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Failure::Server(error)
    }
}

/// Keeps the connections, and what is known of the tiles kept, until the store is closed.
pub(super) async fn keep(redis: Weak<Redis>) {
    loop {
        let Some(redis) = redis.upgrade() else { return };
        if redis.connected.read().is_some() {
            let asked = redis
                .ask(redis.deadline, async |connected: Arc<Connected>| redis.read_kept(&connected).await);
            // What fails is counted; nobody waits for it.
            let _ = asked.await;
            let lost = Arc::clone(&redis.lost);
            // Nothing of the store is held while nothing happens, so that it can be closed.
            drop(redis);
            let _ = timeout(KEEPER_PAUSE, lost.notified()).await;
            continue;
        }
        let pause = match redis.connect().await {
            Ok(()) => {
                tracing::info!(url = %redis.address, "the online store answers again: breaker closed");
                continue;
            }
            Err(Failure::Format(error)) => {
                tracing::error!(%error, "the online store is another one now");
                KEEPER_RETRY_OTHER
            }
            Err(_) => KEEPER_RETRY,
        };
        drop(redis);
        tokio::time::sleep(pause).await;
    }
}

/// Whether the server answers, but takes no writes: its memory or its disk is full, or it is a replica, or lacks them.
fn refuses_writes(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF" | "READONLY" | "NOREPLICAS"))
}

/// What kind of failure it is, for the metric.
fn kind(error: &RedisError) -> &'static str {
    match error.kind() {
        _ if error.is_timeout() => "timeout",
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => "connection",
        _ => "server",
    }
}

/// A text reply.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// The value of `name` in a reply to INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
