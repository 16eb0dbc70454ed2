//! Who may be connected, and for how long?
//!
//! One loop accepts connections, each is served by a task of its own, and once a second the loop lets go those that
//! only hold on: a head that does not end, a connection that nobody uses, one that is old, a reader that does not read.
//! Their number is bounded, of all clients and of one address; a new one takes the place of the one that has done
//! nothing for longest. A part of the process's descriptors is never given to connections: the stores need them.
//!
//! ```text
//! accept ─► Connections::admit ─► hyper, over a Socket ─► Upload(body) ─► router ─► Reply(body)
//!                  ▲                       │ what was read, when                      │ who waits for whom, since when
//!                  └──────── sweep ◄───────┴──────────────────────────────────────────┘
//! ```

mod bodies;
mod connections;
mod end;
mod socket;
mod sweep;

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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::Service;

use self::bodies::{Reply, Upload};
use self::connections::Admitted;
pub(super) use self::connections::Connections;
use self::end::{END, End};
use self::socket::Socket;
use self::sweep::Verdict;
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

/// Serves `router` on `listener` until `shutdown`, then lets requests under way end, for at most half a minute.
pub(super) async fn run(
    router: Router,
    listener: TcpListener,
    (connections, memory): (Arc<Connections>, Arc<Budget>),
    mut shutdown: BoxFuture<'static, ()>,
) -> Result<()> {
    let mut serving = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    if let Some(admitted) = connections.admit(address.ip()) {
                        serving.spawn(serve(router.clone(), stream, admitted));
                    }
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
    drop(listener);
    connections.close_all();
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(seconds = DRAIN.as_secs(), "requests are still under way; they are cut off");
    }
    Ok(())
}

/// Serves one connection to its end. TLS would stand here, between the stream and HTTP.
async fn serve(router: Router, stream: TcpStream, admitted: Admitted) {
    let connection = Arc::clone(&admitted.connection);
    // A reply is written whole: holding it back for a fuller packet would only delay it.
    let _ = stream.set_nodelay(true);
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&connection)));
    let mut http = Builder::new(Streams);
    // The sweep knows a head that does not end from a connection that waits for its next request.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS_MAX);
    let asked = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let exchange = asked.begin();
        let is_stream = is_grpc(request.headers());
        let request = request.map(|body| Body::new(Upload::new(body, asked.limits(), is_stream)));
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
                    tracing::debug!(cause = error.to_string(), address = %connection.address, "a connection broke off");
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
