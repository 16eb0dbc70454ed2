//! Who is at the other end of a connection, as far as the connection itself tells?
//!
//! The network tells an address, the Unix socket tells a user, a handshake tells a certificate. Each request finds its
//! [`Peer`] in its extensions, as of the moment at which it came: a certificate may have been revoked, or have ended,
//! since the connection was made. A call whose messages come one by one finds [`Known`] as well, and asks again.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use quern_access::{Principal, Proof};
use rustls::pki_types::UnixTime;

use super::tls::{Chain, Tls};

/// Who asks, as far as the connection tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Peer {
    /// Where they connect from; none over the Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Whose process it is, over the Unix socket: this server's own user, or root.
    pub(crate) local: Option<u32>,
    /// Whom their certificate names, made once for all requests of a connection. None where they showed no certificate,
    /// or one that names nobody or does not hold now.
    pub(crate) certificate: Option<Arc<Principal>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.local) {
            (Some(address), _) => write!(f, "{address}")?,
            (None, Some(user)) => write!(f, "user {user}")?,
            (None, None) => f.write_str("nobody")?,
        }
        match self.certificate.as_ref().map(|named| named.proof()) {
            Some(Proof::Certificate(names)) => write!(f, " ({})", names.join(", ")),
            _ => Ok(()),
        }
    }
}

/// Who is at the other end of one connection, for as long as it is open.
#[derive(Debug)]
pub(crate) struct Known {
    /// Without a certificate.
    bare: Arc<Peer>,
    certified: Option<Certified>,
}

#[derive(Debug)]
struct Certified {
    peer: Arc<Peer>,
    chain: Chain,
    tls: Arc<Tls>,
}

impl Known {
    /// Somebody at this address.
    pub(super) fn at(address: IpAddr) -> Known {
        Known { bare: Arc::new(Peer { address: Some(address), ..Peer::default() }), certified: None }
    }

    /// A process of this user, over the Unix socket.
    pub(super) fn local(user: u32) -> Known {
        Known { bare: Arc::new(Peer { local: Some(user), ..Peer::default() }), certified: None }
    }

    /// The same, who has shown a certificate.
    pub(super) fn showing(self, chain: Chain, tls: Arc<Tls>) -> Known {
        let names = chain.names();
        if names.is_empty() {
            tracing::debug!(peer = %self.bare, "a client's certificate names nobody");
            return self;
        }
        let named = Arc::new(Principal::new(Proof::Certificate(names.to_vec())));
        let peer = Peer { certificate: Some(named), ..Peer::clone(&self.bare) };
        Known { certified: Some(Certified { peer: Arc::new(peer), chain, tls }), ..self }
    }

    /// Who it is at `now`.
    pub(crate) fn peer(&self, now: UnixTime) -> &Arc<Peer> {
        match &self.certified {
            Some(certified) if certified.chain.holds(&certified.tls.believed(), now) => &certified.peer,
            _ => &self.bare,
        }
    }
}
