//! Who is believed to be who, over TLS and while the files change?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::{Extension, Router, routing::get};
use quern_base::memory::Budget;
use quern_server::settings::Settings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Chain, Tls, provider};
use crate::listen::connections::Connections;
use crate::listen::peer::{Known, Peer};
use crate::listen::{Doors, Routers, run};

#[path = "../../../../../tests/kit/certificates.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "the kit's, of which these tests need a part")]
mod certificates;

use certificates::{Authority, Signed};

const ID: &str = "spiffe://corp/checkout";

/// Files of TLS, and the authorities that sign what is in them.
struct Files {
    folder: TempDir,
    own: Authority,
    clients: Authority,
}

impl Files {
    fn new() -> Files {
        let files = Files {
            folder: tempfile::tempdir().unwrap(),
            own: Authority::new("servers"),
            clients: Authority::new("clients"),
        };
        files.renew();
        files.write("ca.pem", &files.clients.certificate);
        files.write("revoked.pem", &files.clients.revoke(&[]));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Has a new certificate for the server.
    fn renew(&self) -> Signed {
        let signed = self.own.sign(&["localhost", "127.0.0.1"]);
        self.write("tls.crt", &signed.certificate);
        self.write("tls.key", &signed.key);
        signed
    }

    fn settings(&self) -> Settings {
        let names = [
            ("tls_certificate", "tls.crt"),
            ("tls_key", "tls.key"),
            ("tls_client_ca", "ca.pem"),
            ("tls_revoked", "revoked.pem"),
        ];
        let flags = names.map(|(setting, name)| (setting, self.path(name).display().to_string()));
        Settings::load_from(Path::new("."), |_| None, &flags).unwrap()
    }

    fn load(&self) -> Result<Arc<Tls>, String> {
        Tls::load(&self.settings()).map(Option::unwrap).map_err(|error| error.to_string())
    }

    /// What a client needs that shows this, or nothing.
    fn client(&self, shows: Option<&Signed>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.own.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shows {
            None => config.with_no_client_auth(),
            Some(signed) => {
                let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// A server that says who asks.
struct Server {
    address: SocketAddr,
    tls: Arc<Tls>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<crate::Result<()>>,
}

impl Server {
    async fn start(files: &Files, change: impl FnOnce(&mut Connections)) -> Server {
        let settings = files.settings();
        let mut connections = Connections::of(&settings);
        change(&mut connections);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tls) = (listener.local_addr().unwrap(), files.load().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let router =
            Router::new().route("/", get(async |Extension(peer): Extension<Arc<Peer>>| peer.to_string()));
        let routers = Routers { listen: router.clone(), admin: router.clone(), own: router };
        let bounds = (Arc::new(connections), Budget::new(1 << 20));
        let shutdown = Box::pin(async {
            let _ = stopped.await;
        });
        let doors = Doors::of(listener, Some(Arc::clone(&tls)));
        Server { address, tls, stop, ended: tokio::spawn(run(routers, doors, bounds, shutdown)) }
    }

    async fn connect(&self, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        client.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// Who asks over this connection, in the server's words.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await?));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8(body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_a_request_is_by_whom_its_certificate_names_now() {
    let files = Files::new();
    let server = Server::start(&files, |_| {}).await;
    let workload = files.clients.sign(&[ID, "Node-7.corp"]);
    let (known, unknown) = (files.client(Some(&workload)), files.client(None));
    let named = format!("127.0.0.1 ({ID}, node-7.corp)");
    let mut kept = server.connect(&known).await.unwrap();
    assert_eq!(ask(&mut kept).await.unwrap(), named);
    assert_eq!(ask(&mut server.connect(&unknown).await.unwrap()).await.unwrap(), "127.0.0.1");
    let two = files.clients.sign(&[ID, "spiffe://corp/other", "node-8.corp"]);
    let mut two = server.connect(&files.client(Some(&two))).await.unwrap();
    assert_eq!(ask(&mut two).await.unwrap(), "127.0.0.1 (node-8.corp)");
    // A new list of what was revoked counts for connections that are open, and so does one that takes it back.
    files.write("revoked.pem", &files.clients.revoke(&[&workload]));
    server.tls.look().unwrap();
    assert_eq!(ask(&mut kept).await.unwrap(), "127.0.0.1");
    // In TLS 1.3 a client hears it with its first answer.
    let refused = async { ask(&mut server.connect(&known).await?).await };
    assert!(refused.await.is_err());
    files.write("revoked.pem", &files.clients.revoke(&[]));
    server.tls.look().unwrap();
    assert_eq!(ask(&mut kept).await.unwrap(), named);
    // Another authority is believed instead.
    files.write("ca.pem", &Authority::new("others").certificate);
    server.tls.look().unwrap();
    assert_eq!(ask(&mut kept).await.unwrap(), "127.0.0.1");
    drop((kept, two));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_a_certificate_ends_while_its_connection_is_open() {
    let files = Files::new();
    let tls = files.load().unwrap();
    let now = SystemTime::now();
    let ends = now + Duration::from_secs(60);
    let signed = files.clients.sign_for(now - Duration::from_secs(60)..ends, &[ID]);
    let shown = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let chain = Chain::shown(&[shown], tls.believed()).unwrap();
    let known = Known::at([127, 0, 0, 1].into()).showing(chain, Arc::clone(&tls));
    let at = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        known.peer(UnixTime::since_unix_epoch(since)).certificate.clone()
    };
    let named = at(now).unwrap();
    assert_eq!(named.name(), ID);
    assert!(Arc::ptr_eq(&named, &at(now).unwrap()), "made once for all requests");
    assert_eq!(at(ends + Duration::from_secs(1)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_what_cannot_be_used_leaves_what_was_there() {
    let files = Files::new();
    let server = Server::start(&files, |_| {}).await;
    let client = files.client(Some(&files.clients.sign(&[ID])));
    let shown = async || {
        let mut stream = server.connect(&client).await.unwrap();
        assert!(ask(&mut stream).await.unwrap().contains(ID));
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    let counted =
        |part: &str, outcome: &str| super::metrics().reloads.with_label_values(&[part, outcome]).get();
    let refused = || counted("certificate", "refused") + counted("client_ca", "refused");
    for (name, text) in [("tls.crt", "half a"), ("tls.key", ""), ("ca.pem", "none"), ("revoked.pem", "none")]
    {
        let (before, path) = (refused(), files.path(name));
        let good = std::fs::read_to_string(&path).unwrap();
        files.write(name, text);
        (0..3).for_each(|_| server.tls.look().unwrap());
        // Others of these tests count here as well.
        assert!(refused() > before, "{name}");
        assert_eq!(shown().await, first, "{name}");
        std::fs::remove_file(&path).unwrap();
        server.tls.look().unwrap();
        assert_eq!(shown().await, first, "{name} is gone");
        files.write(name, &good);
        server.tls.look().unwrap();
    }
    // Between a new certificate and its key there is a moment.
    let next = files.own.sign(&["localhost"]);
    files.write("tls.crt", &next.certificate);
    server.tls.look().unwrap();
    assert_eq!(shown().await, first);
    files.write("tls.key", &next.key);
    server.tls.look().unwrap();
    let next = CertificateDer::from_pem_slice(next.certificate.as_bytes()).unwrap();
    assert_eq!(shown().await, next.to_vec());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_a_handshake_that_never_ends_is_let_go_and_others_are_served() {
    let files = Files::new();
    let server = Server::start(&files, |connections| {
        connections.limits.head = Duration::from_millis(100);
        connections.limits.idle = Duration::from_secs(600);
    })
    .await;
    let mut halves = Vec::new();
    // Nothing at all, the beginning of a record, and half a greeting.
    for begun in [&b""[..], &[22, 3], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]].into_iter().cycle().take(30) {
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(begun).await.unwrap();
        halves.push(half);
    }
    let client = files.client(None);
    let mut served = server.connect(&client).await.unwrap();
    assert_eq!(ask(&mut served).await.unwrap(), "127.0.0.1");
    for mut half in halves {
        match half.read(&mut [0; 64]).await {
            Ok(bytes) => assert_eq!(bytes, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // Who has shaken hands may think about it.
    assert_eq!(ask(&mut served).await.unwrap(), "127.0.0.1");
    drop(served);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_who_does_not_speak_tls_is_told_so() {
    let files = Files::new();
    let server = Server::start(&files, |_| {}).await;
    for asked in ["GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("ask at `https://`"), "{answer}");
    }
    server.stop().await;
}

#[test]
fn a_wrong_file_is_named_at_the_start() {
    let files = Files::new();
    let check = |name: &str, text: Option<&str>, parts: &[&str]| {
        let path = files.path(name);
        let good = std::fs::read_to_string(&path).unwrap();
        match text {
            Some(text) => files.write(name, text),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let refused = files.load().unwrap_err();
        for part in parts.iter().copied().chain([name, "in PEM"]) {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        files.write(name, &good);
    };
    check("tls.crt", None, &["`tls_certificate`", "cannot be read: No such file"]);
    check("tls.crt", Some("text"), &["`tls_certificate`", "holds none"]);
    check(
        "tls.crt",
        Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        &["is no X.509"],
    );
    check("tls.key", None, &["`tls_key`", "cannot be read"]);
    check("tls.key", Some("secret"), &["`tls_key`", "holds no private key", "without a password"]);
    check(
        "tls.key",
        Some(&files.own.sign(&["localhost"]).key),
        &["`tls_key`", "the key of another certificate"],
    );
    check("ca.pem", Some("none"), &["`tls_client_ca`", "holds none"]);
    check("revoked.pem", Some("none"), &["`tls_revoked`", "holds none", "CRL"]);
    let list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    check("revoked.pem", Some(list), &["`tls_revoked`", "cannot be used"]);
    files.load().unwrap();
}

#[test]
fn a_certificate_that_has_ended_keeps_no_server_from_starting() {
    let files = Files::new();
    let day = Duration::from_secs(86_400);
    let ended = files.own.sign_for(SystemTime::now() - 2 * day..SystemTime::now() - day, &["localhost"]);
    files.write("tls.crt", &ended.certificate);
    files.write("tls.key", &ended.key);
    assert!(files.load().is_ok_and(|tls| tls.warned.lock().is_some()));
    files.renew();
    assert!(files.load().is_ok_and(|tls| tls.warned.lock().is_none()));
}
