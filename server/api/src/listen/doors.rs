//! Where is the server reached, and by whom over what?
//!
//! ```text
//! listen ───────► TCP, or TLS over it ─► what callers ask; all, where there is no `listen_admin`
//! listen_admin ─► TCP, or TLS over it ─► what administrators ask
//! quern.sock ───► Unix socket          ─► all
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use quern_server::settings::Settings;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};

use super::own_socket::OwnSocket;
use super::tls::Tls;
use crate::error::{Error, Result};

/// Connections that have come and that nobody has taken yet: where there is no room for one, its client tries again a
/// second later.
const BACKLOG: u32 = 4_096;

/// Where a server is reached.
#[derive(Debug)]
pub struct Doors {
    listener: TcpListener,
    admin: Option<TcpListener>,
    own: Option<OwnSocket>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// What is asked at which of them.
#[derive(Debug, Clone)]
pub(crate) struct Routers {
    /// At the one that `listen` names.
    pub(crate) listen: Router,
    /// At the one that `listen_admin` names.
    pub(crate) admin: Router,
    /// Over the Unix socket.
    pub(crate) own: Router,
}

/// Who has come.
#[derive(Debug)]
pub(super) enum Came {
    /// Over the network.
    Network(TcpStream, IpAddr),
    /// Over the Unix socket, and whose process it is.
    Own(UnixStream, u32),
}

impl Doors {
    /// Listens where the settings say, over `tls` where there is any. The data folder is there.
    ///
    /// # Errors
    /// Addresses that cannot be listened at.
    pub fn open(settings: &Settings, tls: Option<Arc<Tls>>) -> Result<Doors> {
        let listener = bound("listen", settings.listen)?;
        let admin = settings.listen_admin.map(|listen| bound("listen_admin", listen)).transpose()?;
        Ok(Doors { listener, admin, own: OwnSocket::open(&settings.data), tls })
    }

    /// Where this machine reaches it.
    ///
    /// # Errors
    /// The listener's own failures.
    pub fn url(&self) -> Result<String> {
        self.url_of(&self.listener)
    }

    /// Where this machine reaches what administrators ask, where that is elsewhere.
    ///
    /// # Errors
    /// The listener's own failures.
    pub fn admin_url(&self) -> Result<Option<String>> {
        self.admin.as_ref().map(|admin| self.url_of(admin)).transpose()
    }

    fn url_of(&self, listener: &TcpListener) -> Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", reachable(listener.local_addr()?)))
    }

    /// The next one who comes, and what they may ask. Those that few may enter come first, however many wait at the
    /// other.
    pub(super) fn poll_accept<'r>(
        &self,
        routers: &'r Routers,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Came, &'r Router)>> {
        if let Some(own) = &self.own
            && let Poll::Ready(accepted) = own.poll_accept(context)
        {
            return Poll::Ready(accepted.map(|(stream, user)| (Came::Own(stream, user), &routers.own)));
        }
        let network = |(stream, address): (TcpStream, SocketAddr)| Came::Network(stream, address.ip());
        if let Some(admin) = &self.admin
            && let Poll::Ready(accepted) = admin.poll_accept(context)
        {
            return Poll::Ready(accepted.map(|accepted| (network(accepted), &routers.admin)));
        }
        let accepted = self.listener.poll_accept(context);
        accepted.map(|accepted| accepted.map(|accepted| (network(accepted), &routers.listen)))
    }
}

#[cfg(test)]
impl Doors {
    /// One alone.
    pub(super) fn of(listener: TcpListener, tls: Option<Arc<Tls>>) -> Doors {
        Doors { listener, admin: None, own: None, tls }
    }

    /// The same with a Unix socket in this folder.
    pub(super) fn in_folder(self, data: &std::path::Path) -> Doors {
        Doors { own: OwnSocket::open(data), ..self }
    }
}

fn bound(setting: &str, listen: SocketAddr) -> Result<TcpListener> {
    let bound = || {
        let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As any server: connections of the one before may linger.
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| Error::invalid(format!("nothing can listen at {listen} (`{setting}`): {error}")))
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
