//! `quern serve`: from the first connection to the last one answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::backend::{Server, open_behind};
use super::failure::Result;
use super::output::print;
use super::{Options, Repository};
use crate::error::Error;
use quern_api::trace::export::Traces;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

/// Connections that have come and that nobody has taken yet: where there is no room for one, its client tries again a
/// second later.
const BACKLOG: u32 = 4_096;

fn bound(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As any server: connections of the one before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let settings = options.settings(&arguments.repository.folder(), arguments.listen.as_ref())?;
    let listen = settings.listen;
    let node = open_behind(settings).await?;
    let _catching_up = node.go_on_catching_up().await;
    let listener =
        bound(listen).map_err(|error| Error::invalid(format!("nothing can listen at {listen}: {error}")))?;
    let url = format!("http://{}", reachable(listener.local_addr().map_err(Error::from)?));
    // Before anybody hears of us: who is told to stop right after must end in good order, too.
    let stop = told_to_stop()?;
    let announcement = Server::announce(&node, &url)?;
    print(format!("listening on {url}"));
    let number = node.live().number;
    tracing::info!(url, apply = number, data = %node.settings.data.display(), "serving");
    if number == 0 {
        tracing::warn!("nothing has been applied yet; run `quern apply`");
    }
    for folder in node.settings.roots.iter().filter(|folder| !folder.is_dir()) {
        tracing::warn!(folder = %folder.display(), "a folder that `roots` names is not there");
    }
    if node.settings.hosts.is_empty() {
        tracing::warn!("any name of this server will do; `hosts` in quern.yaml says which it has");
    }
    let streams = Arc::clone(&node.streams);
    let _streams = quern_streams::follow(node.live.clone(), Arc::clone(&node.push), streams);
    quern_api::serve(node, listener, Box::pin(stop)).await?;
    drop(announcement);
    tracing::info!("stopped");
    Ok(())
}

/// What sends the traces of the server to come, where the settings name a collector.
pub(super) fn traces(arguments: &Arguments, options: &Options) -> Result<Option<Traces>> {
    // Settings that cannot be read are the server's to report.
    let settings = options.settings(&arguments.repository.folder(), arguments.listen.as_ref());
    let url = settings.ok().and_then(|settings| settings.otlp);
    Ok(url.map(|url| Traces::start(&url)).transpose()?)
}

/// Ends at SIGINT or SIGTERM, from now on.
fn told_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let heard = |kind| signal(kind).map_err(|error| Error::internal("signals cannot be waited for", error));
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: requests under way are answered, new ones are not");
    })
}

/// Where this machine reaches a server that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
