//! How do the events of a broker become rows?
//!
//! Each event is a JSON object, or what a registry's schema says, and is pushed like any other row. How far a stream
//! was read is written in one step with the rows ([`Push`]), and reading begins there: so each event counts once,
//! whenever the server ends. An invalid row is counted, logged and skipped, once any was good; until then, and where
//! there is no room, reading waits. Servers that share a log share a stream: each reads some of its parts, and begins
//! anew where it hears that one has come or gone.
//!
//! Architecture invariant: beside `server/api`, not in it; no other crate knows Kafka.

mod batch;
mod error;
mod kafka;
mod redis;

use std::collections::BTreeMap;
use std::convert::Infallible;
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
use quern_server::error::{NoneTaken, ReadOn};
use quern_server::live::Live;
use quern_server::streamed::{Stream, Streams};
use quern_server::verbs::push::{Push, PushedBatch, StreamShare};
use quern_wire::{PushTo, Rejected};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::batch::Batch;
use self::error::{Error, Kind, Result};

/// How often the stream of a source could not be read.
static ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("quern_stream_errors_total", "How often the stream of a source could not be read", &["source"])
});

/// How often it is looked whether other definitions are live, and how long a failed stream rests.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a server counts as one that reads a stream unless it says so again, and how often it does.
const LEASE: Duration = Duration::from_secs(10);
const RENEWAL: Duration = Duration::from_secs(1);
/// How long a server that ends says so to the others.
const LEAVING: Duration = Duration::from_secs(2);
/// How often a broker is asked how far its stream is.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// The most events that are pushed together, and how long they are waited for.
const EVENTS_MAX: usize = 4_096;
const LINGER: Duration = Duration::from_millis(20);

/// Reads every stream of the live definitions, for as long as the result lives. What is applied later is followed.
pub fn follow(live: Live, push: Arc<Push>, streams: Arc<Streams>) -> Following {
    let (here, ended) = mpsc::channel(1);
    Following {
        reading: Task::spawn(follow_until_dropped(NodeParts { live, push, streams, _here: here })),
        ended,
    }
}

/// Streams that are read.
pub struct Following {
    reading: Task,
    /// Tells nothing but that nobody has the other end any more.
    ended: mpsc::Receiver<Infallible>,
}

impl Following {
    /// Reads on no further, and says so to the other servers: they need not wait until it is clear that this one has
    /// ended. Where they cannot be told within a moment, they do.
    pub async fn end(self) {
        let Following { reading, mut ended } = self;
        drop(reading);
        let _ = tokio::time::timeout(LEAVING, ended.recv()).await;
    }
}

/// What readers have of the node.
#[derive(Clone)]
struct NodeParts {
    live: Live,
    push: Arc<Push>,
    streams: Arc<Streams>,
    /// Dropped by whoever reads no more, and has said so.
    _here: mpsc::Sender<Infallible>,
}

async fn follow_until_dropped(node: NodeParts) {
    let mut reading: BTreeMap<String, Task> = BTreeMap::new();
    let mut number = u64::MAX;
    loop {
        let deployment = node.live.now();
        if deployment.number != number {
            number = deployment.number;
            let sources = &deployment.compiled.catalog.definitions.sources;
            reading.retain(|name, _| sources.get(name).is_some_and(|source| source.stream.is_some()));
            if let Err(cause) = node.push.check() {
                if sources.values().any(|source| source.stream.is_some()) {
                    tracing::warn!(%cause, "streams are not read");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            for source in sources.values().filter(|source| source.stream.is_some()) {
                reading.entry(source.name.clone()).or_insert_with(|| {
                    let reader = Reader { node: node.clone(), source: source.name.clone() };
                    Task::spawn(reader.follow())
                });
            }
        }
        drop(deployment);
        tokio::time::sleep(PAUSE).await;
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
    node: NodeParts,
    source: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (node, source) = (self.node.clone(), self.source.clone());
        node.streams.forget(&source);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // Where this fails, the others wait until our time is over.
                let _ = node.push.leave(&source).await;
                drop(node);
            });
        }
    }
}

impl Reader {
    /// Reads for as long as this is polled, whatever stream the live definitions have.
    async fn follow(self) {
        loop {
            // Where they have none any more, this is about to be dropped.
            if let Some(stream) = self.declared() {
                tokio::select! {
                    () = self.read_on(&stream) => {}
                    () = self.is_other_stream(&stream) => {}
                }
                // What is known here is of the one before.
                self.note(|known| *known = Stream::default());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads the stream for ever; after a failure again from where it was.
    async fn read_on(&self, stream: &StreamSource) {
        loop {
            match self.read(stream).await {
                Ok(()) => {}
                // Another server was faster: one of the two does not know of the other yet. Or we were, and never heard
                // that what was pushed is in the log.
                Err(error) if error.facts::<ReadOn>().is_some() => {
                    tracing::debug!(source = self.source, cause = error.logged(), "reading begins anew");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// Reads what of the stream is this server's to read, until something fails or another share of it is. Where two
    /// read a part of it, for a moment, each event still counts once: what the second one pushes does not begin where
    /// the first one ended.
    async fn read(&self, stream: &StreamSource) -> Result<()> {
        let share = self.node.push.share(&self.source, LEASE).await?;
        let reading = async {
            match stream.broker {
                Broker::Kafka => kafka::read(self, stream, share).await,
                Broker::Redis => redis::read(self, stream, share).await,
            }
        };
        tokio::select! {
            ended = reading => ended,
            () = self.has_other_share(share) => Ok(()),
        }
    }

    /// The stream, as the live definitions have it; none where they have none any more.
    fn declared(&self) -> Option<StreamSource> {
        let live = self.node.live.now();
        live.compiled.catalog.definitions.sources.get(&self.source)?.stream.clone()
    }

    /// Says again and again that this server reads the stream, until another share of it is its own.
    async fn has_other_share(&self, share: StreamShare) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // Where the log does not answer, nobody hears of anybody else, and nobody takes anything in.
            if self.node.push.share(&self.source, LEASE).await.is_ok_and(|now| now != share) {
                return;
            }
        }
    }

    /// Ends once the live definitions have another stream, or none.
    async fn is_other_stream(&self, stream: &StreamSource) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let now = self.declared().map(|now| StreamSource { loc: stream.loc.clone(), ..now });
            if now.as_ref() != Some(stream) {
                return;
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Stream)) {
        self.node.streams.note(&self.source, change);
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

    /// How far parts of the stream were read, as of one moment; of each that never was, none.
    async fn positions(&self, parts: Vec<String>) -> Result<Vec<Option<Vec<u8>>>> {
        let (push, source) = (Arc::clone(&self.node.push), self.source.clone());
        let reading = move || -> Result<_> {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            Ok(push.positions(&source, &parts)?)
        };
        blocking("reading how far a stream was read", reading).await
    }

    /// Pushes events, and notes with them how far the stream was read.
    async fn take(&self, batch: Batch<'_>) -> Result<()> {
        loop {
            let live = self.node.live.now();
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
                Some(_) => self.node.push.push_first(&Caller::owner(), pushed).await,
                None => self.node.push.push(&Caller::owner(), pushed).await,
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
