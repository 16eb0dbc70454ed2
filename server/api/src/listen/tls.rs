//! What proves that this server is who it says, and whose certificates does it believe?
//!
//! Two [`Part`]s of files: the server's own certificate with its key, and the authorities of clients with the lists of
//! what they revoked. Both are looked at every few seconds, and what changed is what the next handshake gets;
//! connections that are open stay. What cannot be used is warned of, and what was there before stays in use.
//!
//! A client's certificate is asked for and not required: a caller may bring something else that says who they are. One
//! that is shown must hold, in the handshake and then at each request ([`Chain::holds`]).

mod chain;
mod files;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use quern_base::metrics::{IntCounterVec, IntGauge, counters, gauge};
use quern_base::tasks::{Task, blocking};
use quern_server::settings::Settings;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) use self::chain::Chain;
use self::files::{Identity, Part, Trust};
use crate::error::{Error, Result};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often a certificate that has ended is warned of.
const WARN: Duration = Duration::from_secs(3_600);
/// What may be spoken over TLS, in the order in which it is liked.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

struct Metrics {
    expires: IntGauge,
    reloads: IntCounterVec,
    handshakes: IntCounterVec,
}

fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        expires: gauge(
            "quern_tls_certificate_expires_seconds",
            "When the server's certificate ends, in seconds since the Unix epoch",
        ),
        reloads: counters(
            "quern_tls_reloads_total",
            "Changes of the files of TLS by part (`certificate`, `client_ca`) and outcome (`taken`, `refused`)",
            &["part", "outcome"],
        ),
        handshakes: counters(
            "quern_tls_handshakes_total",
            "Handshakes by outcome: `done`, `certificate` (a client's does not hold), `plain` (no TLS), `failed`",
            &["outcome"],
        ),
    });
    &METRICS
}

/// The files of TLS, and what they say now.
#[derive(Debug)]
pub struct Tls {
    identity: Part<Identity>,
    trust: Option<Part<Trust>>,
    held: RwLock<Held>,
    warned: Mutex<Option<SystemTime>>,
}

/// What the next handshake gets.
#[derive(Debug, Clone)]
struct Held {
    identity: Arc<Identity>,
    trust: Arc<Trust>,
    config: Arc<ServerConfig>,
}

impl Held {
    fn new(identity: Arc<Identity>, trust: Arc<Trust>) -> Result<Held> {
        let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let verifier = match &trust.verifier {
            Some(verifier) => Arc::clone(verifier),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = versions
            .map_err(|error| Error::internal("TLS", error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Held { identity, trust, config: Arc::new(config) })
    }
}

/// The cryptography, chosen here and not by whoever came first in this process.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

impl Tls {
    /// Reads the files that the settings name; none where they name none.
    ///
    /// # Errors
    /// What cannot be read or used, with its setting, its file and the way out.
    pub fn load(settings: &Settings) -> Result<Option<Arc<Tls>>> {
        let (Some(certificate), Some(key)) = (&settings.tls_certificate, &settings.tls_key) else {
            return Ok(None);
        };
        let identity = Part::of_identity(certificate, key);
        let trust =
            settings.tls_client_ca.as_ref().map(|ca| Part::of_trust(ca, settings.tls_revoked.as_ref()));
        let trusted = match &trust {
            Some(trust) => trust.first()?,
            None => Trust::default(),
        };
        let held = Held::new(Arc::new(identity.first()?), Arc::new(trusted))?;
        metrics().expires.set(held.identity.not_after_s as i64);
        let tls = Tls { identity, trust, held: RwLock::new(held), warned: Mutex::default() };
        tls.warn_of_the_end(SystemTime::now());
        Ok(Some(Arc::new(tls)))
    }

    /// Looks at the files again and again while the result lives.
    pub(super) fn follow(self: &Arc<Self>) -> Task {
        let tls = Arc::clone(self);
        Task::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let looking = Arc::clone(&tls);
                let looked = blocking("looking at the files of TLS", move || looking.look()).await;
                if let Err(error) = looked {
                    tracing::warn!(cause = error.to_string(), "the files of TLS were not looked at");
                }
            }
        })
    }

    /// Takes what has changed in the files.
    pub(super) fn look(&self) -> Result<()> {
        let identity = self.identity.changed().map(Arc::new);
        let trust = self.trust.as_ref().and_then(Part::changed).map(Arc::new);
        if identity.is_some() || trust.is_some() {
            let before = self.held.read().clone();
            let held = Held::new(identity.unwrap_or(before.identity), trust.unwrap_or(before.trust))?;
            metrics().expires.set(held.identity.not_after_s as i64);
            *self.held.write() = held;
            *self.warned.lock() = None;
        }
        self.warn_of_the_end(SystemTime::now());
        Ok(())
    }

    /// A certificate that has ended is better than none: clients that look will refuse it, and say so.
    fn warn_of_the_end(&self, now: SystemTime) {
        let mut warned = self.warned.lock();
        let is_said = warned.is_some_and(|then| now.duration_since(then).is_ok_and(|since| since < WARN));
        let not_after_s = self.held.read().identity.not_after_s;
        if not_after_s < seconds(now) && !is_said {
            let ended = quern_base::clock::shown(not_after_s.saturating_mul(1_000_000) as i64);
            tracing::warn!(ended, "the server's certificate has ended; put a new one into `tls_certificate`");
            *warned = Some(now);
        }
    }

    /// Whom it believes now.
    pub(super) fn believed(&self) -> Arc<Trust> {
        Arc::clone(&self.held.read().trust)
    }

    /// Shakes hands, and returns with the stream the certificate that the client has shown.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Chain>)> {
        let held = self.held.read().clone();
        let accepted = TlsAcceptor::from(held.config).accept(stream).await;
        count(outcome(&accepted));
        let stream = accepted?;
        let shown = stream.get_ref().1.peer_certificates();
        let chain = shown.and_then(|shown| Chain::shown(shown, held.trust));
        Ok((stream, chain))
    }
}

/// Counts a handshake.
pub(super) fn count(outcome: &str) {
    metrics().handshakes.with_label_values(&[outcome]).inc();
}

fn outcome<T>(accepted: &io::Result<T>) -> &'static str {
    let error = match accepted {
        Ok(_) => return "done",
        Err(error) => error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()),
    };
    match error {
        Some(rustls::Error::InvalidCertificate(_)) => "certificate",
        _ => "failed",
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
