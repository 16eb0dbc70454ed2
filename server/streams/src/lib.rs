//! How do the events of a broker become rows?
//!
//! Each event is a JSON object, or what a registry's schema says, and is pushed like any other row. How far a stream
//! was read is written in one step with the rows ([`Push`]), and reading begins there: so each event counts once,
//! whenever the server ends. An invalid row is counted, logged and skipped, once any was good; until then, and where
//! there is no room, reading waits.
//!
//! Architecture invariant: beside `server/api`, not in it; no other crate knows Kafka.

mod batch;
mod error;
mod kafka;
mod redis;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use feature_defs::{Broker, Server, Source, StreamSource};
use quern_access::Caller;
use quern_base::addresses::resolve;
use quern_base::metrics::{IntCounterVec, counters};
use quern_base::tasks::{Task, blocking};
use quern_decode::json;
use quern_server::error::NoneTaken;
use quern_server::live::Live;
use quern_server::streamed::{Stream, Streams};
use quern_server::verbs::push::{Push, PushedBatch};
use quern_wire::{PushTo, Rejected};
use tokio::runtime::Handle;

use self::batch::Batch;
use self::error::{Error, Kind, Result};

/// How often the stream of a source could not be read.
static ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("quern_stream_errors_total", "How often the stream of a source could not be read", &["source"])
});

/// How often it is looked whether other definitions are live, and how long a failed stream rests.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a server is the one that reads a stream unless it says so again, and how often it does.
const LEASE: Duration = Duration::from_secs(10);
const RENEWAL: Duration = Duration::from_secs(2);
/// How often a broker is asked how far its stream is.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// The most events that are pushed together, and how long they are waited for.
const EVENTS_MAX: usize = 4_096;
const LINGER: Duration = Duration::from_millis(20);

/// Reads every stream of the live definitions, for as long as the result lives. What is applied later is followed.
pub fn follow(live: Live, push: Arc<Push>, streams: Arc<Streams>) -> Task {
    Task::spawn(follow_until_dropped(live, push, streams))
}

async fn follow_until_dropped(live: Live, push: Arc<Push>, streams: Arc<Streams>) {
    let mut reading: BTreeMap<String, (StreamSource, Task)> = BTreeMap::new();
    let mut number = u64::MAX;
    loop {
        let deployment = live.now();
        if deployment.number != number {
            number = deployment.number;
            let sources = &deployment.compiled.catalog.definitions.sources;
            let is_same = |name: &String, stream: &StreamSource| {
                sources.get(name).and_then(|source| source.stream.as_ref()).is_some_and(|now| {
                    let (now, stream) = (StreamSource { loc: stream.loc.clone(), ..now.clone() }, stream);
                    now == *stream
                })
            };
            reading.retain(|name, (stream, _)| is_same(name, stream));
            if let Err(cause) = push.check() {
                if sources.values().any(|source| source.stream.is_some()) {
                    tracing::warn!(%cause, "streams are not read");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            for source in sources.values() {
                let Some(stream) = &source.stream else { continue };
                reading.entry(source.name.clone()).or_insert_with(|| {
                    let (live, push, streams) = (live.clone(), Arc::clone(&push), Arc::clone(&streams));
                    let reader = Reader { live, push, streams, source: source.name.clone() };
                    (stream.clone(), Task::spawn(read(reader, stream.clone())))
                });
            }
        }
        drop(deployment);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads a stream for ever; after a failure again from where it was. Of servers that share a log one reads.
async fn read(reader: Reader, stream: StreamSource) {
    loop {
        let reading = async {
            if !reader.has_turn().await? {
                return Ok(());
            }
            match stream.broker {
                Broker::Kafka => kafka::read(&reader, &stream).await,
                Broker::Redis => redis::read(&reader, &stream).await,
            }
        };
        let ended = tokio::select! {
            ended = reading => ended,
            () = reader.loses_turn() => Ok(()),
        };
        match ended {
            Ok(()) => tokio::time::sleep(PAUSE).await,
            Err(error) => reader.rest(&error).await,
        }
    }
}

/// The addresses of a stream's servers, as they are now: one whose name nobody knows may be missing.
async fn addresses(servers: &[Server]) -> io::Result<Vec<SocketAddr>> {
    let hosts = servers.iter().map(|server| (server.host.as_str(), server.port));
    let (found, unknown) = resolved(hosts, servers).await?;
    match unknown.filter(|_| found.is_empty()) {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// The addresses of `hosts`, and why one of them has none; an error where one leads elsewhere than `named` servers do.
async fn resolved(
    hosts: impl Iterator<Item = (&str, u16)>,
    named: &[Server],
) -> io::Result<(Vec<SocketAddr>, Option<io::Error>)> {
    let named: Vec<&str> = named.iter().map(|server| server.host.as_str()).collect();
    let (mut found, mut unknown) = (Vec::new(), None);
    for host in hosts {
        match resolve(host, &named).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => unknown = Some(error),
        }
    }
    Ok((found, unknown))
}

/// Takes in the events of one source's stream.
struct Reader {
    live: Live,
    push: Arc<Push>,
    streams: Arc<Streams>,
    source: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (push, source) = (Arc::clone(&self.push), self.source.clone());
        self.streams.forget(&source);
        // Another server need not wait until our turn is over; where this fails, it does.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { push.lease(&source, Duration::ZERO).await });
        }
    }
}

impl Reader {
    /// Whether this server is the one that reads the stream. Where two do, for a moment, each event still counts once:
    /// what the second one pushes does not begin where the first one ended.
    async fn has_turn(&self) -> Result<bool> {
        let reads = self.push.lease(&self.source, LEASE).await?;
        self.note(|stream| match reads {
            true => stream.reads = true,
            // What is known of it here is of before.
            false => *stream = Stream::default(),
        });
        Ok(reads)
    }

    fn note(&self, change: impl FnOnce(&mut Stream)) {
        self.streams.note(&self.source, change);
    }

    /// Notes why the stream cannot be read, and waits for a moment.
    async fn rest(&self, error: &Error) {
        ERRORS.with_label_values(&[&self.source]).inc();
        let (source, cause) = (&self.source, error.logged());
        let mut is_told = false;
        self.note(|stream| {
            is_told = stream.cause.replace(cause.clone()).is_some_and(|before| before == cause)
        });
        match is_told {
            true => tracing::debug!(source, cause, "a stream cannot be read; it is tried again"),
            false => tracing::warn!(source, cause, "a stream cannot be read; it is tried again"),
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Notes that the stream can be read.
    fn reads_on(&self) {
        self.note(|stream| stream.cause = None);
    }

    /// Ends once another server reads.
    async fn loses_turn(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Ok(false) = self.has_turn().await {
                return;
            }
        }
    }

    /// How far the part of the stream called `part` was read; none where it never was.
    async fn position(&self, part: &str) -> Result<Option<Vec<u8>>> {
        let (push, source, part) = (Arc::clone(&self.push), self.source.clone(), part.to_owned());
        let reading = move || -> Result<_> { Ok(push.position(&source, &part)?) };
        blocking("reading how far a stream was read", reading).await
    }

    /// Pushes events, and notes with them how far the stream was read.
    async fn take(&self, batch: Batch<'_>) -> Result<()> {
        loop {
            let live = self.live.now();
            let source = live.compiled.catalog.definitions.sources.get(&self.source);
            let Some((source, schema)) = source.zip(live.compiled.source_schemas.get(&self.source)) else {
                return Err(Error::refused(format!("source `{}` is gone", self.source)));
            };
            let (rows, rejected) = json::events(source, schema, batch.events)?;
            let pushed = PushedBatch {
                source: self.source.clone(),
                rows,
                rejected,
                to: PushTo::OnlineAndOffline,
                view: None,
                idempotency_key: None,
                positions: batch.positions.clone(),
            };
            let reply = match batch.way_past {
                Some(_) => self.push.push_first(&Caller::owner(), pushed).await,
                None => self.push.push(&Caller::owner(), pushed).await,
            };
            match reply {
                Ok(reply) => {
                    if batch.way_past.is_some() {
                        self.note_lacking(&batch, source);
                    }
                    self.note_rejected(&batch, &reply.rejected);
                    self.reads_on();
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), Kind::Overloaded | Kind::Unavailable) => {
                    self.reads_on();
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let Some((NoneTaken(rejected), way_past)) =
                        error.facts::<NoneTaken>().zip(batch.way_past)
                    else {
                        return Err(error.into());
                    };
                    return Err(batch.held(rejected, way_past));
                }
            }
        }
    }

    fn note_rejected(&self, batch: &Batch<'_>, rejected: &[Rejected]) {
        let Some(Rejected { cause, .. }) = rejected.first() else { return };
        let (source, rows, first) = (&self.source, rejected.len(), batch.first(rejected));
        tracing::warn!(source, rows, first, "events of a stream were left behind");
        // The cause quotes the event.
        tracing::debug!(source, cause, "the first event that is no good");
    }

    /// Says which columns none of the first events has: what is misspelt is null without another word.
    fn note_lacking(&self, batch: &Batch<'_>, source: &Source) {
        let columns = batch.lacking(source);
        if !columns.is_empty() {
            let (source, events, columns) = (&self.source, batch.events.len(), columns.join(", "));
            tracing::warn!(
                source,
                events,
                columns,
                "columns are null: none of the first events of a stream has them"
            );
        }
    }
}
