//! Who may be connected, and for how long?
//!
//! One loop accepts connections, each is served by a task of its own, and once a second the loop lets go those that
//! only hold on: a head that does not end, a connection that nobody uses, one that is old, a reader that does not read.
//! Their number is bounded, of all clients and of one address; a new one takes the place of the one that has done
//! nothing for longest. A part of the process's descriptors is never given to connections: the stores need them.
//!
//! ```text
//! accept ─► Connections::admit ─► TLS ─► hyper, over a Socket ─► Upload(body) ─► router ─► Reply(body)
//!                  ▲               │           │ what was read, when                 │ who waits for whom, since when
//!                  └──── sweep ◄───┴───────────┴─────────────────────────────────────┘
//! ```
//!
//! [`doors`] says where they come in, [`tls`] who proves what, and [`peer`] who each of them is.

mod bodies;
mod certificate;
mod connections;
mod doors;
mod end;
mod own_socket;
pub(super) mod peer;
mod plain;
mod socket;
mod sweep;
mod tls;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quern_base::memory::Budget;
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::Service;

use self::bodies::{Reply, Upload};
pub(super) use self::connections::Connections;
use self::connections::{Admitted, Connection};
use self::doors::Came;
pub use self::doors::Doors;
pub(super) use self::doors::Routers;
use self::end::{END, End};
pub(super) use self::peer::{Known, Peer};
use self::socket::{Socket, Stream};
use self::sweep::Verdict;
pub use self::tls::Tls;
use super::memory::is_grpc;
use crate::error::Result;

/// How long requests under way may take once the server was told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// How often connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How long to wait where the machine has no descriptor left for a connection.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How often a silent connection over HTTP/2 is asked whether anybody is there, and how long for an answer.
const PING: Duration = Duration::from_secs(30);
/// Streams of one connection over HTTP/2.
const STREAMS_MAX: u32 = 200;

/// Serves `routers` at `doors` until `shutdown`, then lets requests under way end, for at most half a minute.
pub(super) async fn run(
    routers: Routers,
    doors: Doors,
    (connections, memory): (Arc<Connections>, Arc<Budget>),
    mut shutdown: BoxFuture<'static, ()>,
) -> Result<()> {
    let _following = doors.tls.as_ref().map(Tls::follow);
    let mut serving = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = poll_fn(|context| doors.poll_accept(&routers, context)) => match accepted {
                Ok((came, router)) => {
                    let address = if let Came::Network(_, address) = &came { Some(*address) } else { None };
                    if let Some(admitted) = connections.admit(address) {
                        serving.spawn(serve(router.clone(), came, doors.tls.clone(), admitted));
                    }
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    tracing::debug!(cause = error.to_string(), "a connection was not let in");
                }
                Err(error) => {
                    tracing::warn!(cause = error.to_string(), "a connection was not accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            _ = sweep.tick() => connections.sweep(memory.is_used_up()),
            Some(_) = serving.join_next() => {}
        }
    }
    drop(doors);
    connections.close_all();
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(seconds = DRAIN.as_secs(), "requests are still under way; they are cut off");
    }
    Ok(())
}

/// Serves one connection to its end, after a handshake where there is to be one.
async fn serve(router: Router, came: Came, tls: Option<Arc<Tls>>, admitted: Admitted) {
    let connection = &admitted.connection;
    match (came, tls) {
        (Came::Own(stream, user), _) => speak(router, Box::new(stream), Known::local(user), connection).await,
        (Came::Network(stream, address), None) => {
            // A reply is written whole: holding it back for a fuller packet would only delay it.
            let _ = stream.set_nodelay(true);
            speak(router, Box::new(stream), Known::at(address), connection).await;
        }
        (Came::Network(stream, address), Some(tls)) => {
            let _ = stream.set_nodelay(true);
            connection.begins_handshake();
            let Some(shaken) = unless_ended(connection, shake_hands(stream, &tls)).await else { return };
            connection.has_shaken_hands();
            let known = Known::at(address);
            match shaken {
                Ok((stream, None)) => speak(router, Box::new(stream), known, connection).await,
                Ok((stream, Some(chain))) => {
                    speak(router, Box::new(stream), known.showing(chain, tls), connection).await;
                }
                Err(error) => tracing::debug!(cause = error.to_string(), %address, "a handshake failed"),
            }
        }
    }
}

type Shaken = (tokio_rustls::server::TlsStream<TcpStream>, Option<tls::Chain>);

/// Begins TLS; who begins something else is told so.
async fn shake_hands(stream: TcpStream, tls: &Tls) -> io::Result<Shaken> {
    match plain::speaks_tls(&stream).await? {
        true => tls.accept(stream).await,
        false => {
            tls::count("plain");
            plain::refuse(stream).await?;
            Err(io::Error::new(ErrorKind::InvalidData, "the client does not speak TLS"))
        }
    }
}

/// What `work` makes; nothing where the connection is to end before. Nothing of a request has come yet.
async fn unless_ended<T>(connection: &Connection, work: impl Future<Output = T>) -> Option<T> {
    let mut verdicts = connection.verdicts();
    tokio::select! {
        done = work => Some(done),
        _ = verdicts.wait_for(|verdict| *verdict != Verdict::Keep) => None,
    }
}

/// Answers what comes over one connection.
async fn speak(router: Router, stream: Box<dyn Stream>, known: Known, connection: &Arc<Connection>) {
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(connection)));
    let mut http = Builder::new(Streams);
    // The sweep knows a head that does not end from a connection that waits for its next request.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS_MAX);
    let (peer, known) = (Arc::clone(known.peer(UnixTime::now())), Arc::new(known));
    let asked = Arc::clone(connection);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let exchange = asked.begin();
        let is_stream = is_grpc(request.headers());
        request.extensions_mut().insert(Arc::clone(known.peer(UnixTime::now())));
        if is_stream {
            request.extensions_mut().insert(Arc::clone(&known));
        }
        let version = request.version();
        let request = request.map(|body| Body::new(Upload::new(body, version, asked.limits(), is_stream)));
        let mut router = router.clone();
        async move {
            let response = Service::call(&mut router, request).await?;
            Ok::<_, std::convert::Infallible>(Reply::of(response, exchange))
        }
    });
    let mut verdicts = connection.verdicts();
    let mut serving = std::pin::pin!(http.serve_connection(socket, service));
    loop {
        // One may have fallen before this task began.
        let verdict = *verdicts.borrow_and_update();
        match verdict {
            Verdict::Keep => {}
            Verdict::Close => serving.as_mut().graceful_shutdown(),
            Verdict::Cut => return,
        }
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(cause = error.to_string(), %peer, "a connection broke off");
                }
                return;
            }
            Ok(()) = verdicts.changed() => {}
        }
    }
}

/// Runs the streams of a connection over HTTP/2, each in a task that can be told to end: that resets the stream.
#[derive(Debug, Clone, Copy)]
struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let end = End::default();
        tokio::spawn(END.scope(end.clone(), async move {
            tokio::select! {
                _ = stream => {}
                () = end.told() => {}
            }
        }));
    }
}

#[cfg(test)]
mod tests;
