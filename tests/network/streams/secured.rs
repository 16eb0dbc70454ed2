//! Are brokers believed that prove who they are, and told who asks, by every way that there is?
//!
//! No broker that asks for any of it can be had from the registries of packages. So one stands in front of librdkafka's
//! own cluster: it speaks TLS and SASL as brokers do, and hands on what comes after.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use quern_kit::{Authority, Repository, Server, Signed, until};
use ring::{hmac, pbkdf2};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Kafka, definitions, event, until_counted};

const USER: &str = "ann";
const PASSWORD: &str = "a,secret=of ann";
const TOKEN: &str = "a-token-of-ann";
const ROUNDS: u32 = 4_096;
/// Numbers of requests, in Kafka's protocol.
const HANDSHAKE: i16 = 17;
const VERSIONS: i16 = 18;
const AUTHENTICATE: i16 = 36;

/// How a broker is spoken with.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Tls,
    Certificate,
    Sasl(&'static str),
    SaslOverTls(&'static str),
}

/// A broker that asks who asks.
struct Secured {
    kafka: Kafka,
    /// By a name as long as an address, which takes its place in what the cluster says.
    servers: String,
    authority: Authority,
    client: Signed,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Secured {
    /// `host` is in its certificate.
    async fn start(way: Way, host: &str) -> Secured {
        let (kafka, authority) = (Kafka::start(), Authority::new("brokers"));
        let (signed, client) = (authority.sign(&[host]), authority.sign(&["ann.corp"]));
        let tls = tls(&signed, (way == Way::Certificate).then_some(&authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind: u16 = kafka.servers().rsplit_once(':').unwrap().1.parse().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let stream: Box<dyn Stream> = match way {
                        Way::Sasl(_) => Box::new(socket),
                        _ => Box::new(tls.accept(socket).await?),
                    };
                    stand_before(stream, way, (behind, port)).await
                });
            }
        });
        Secured { kafka, servers: format!("localhost:{port}"), authority, client }
    }

    /// Definitions by which it is read; secrets lie in `folder`.
    fn definitions(&self, way: Way, folder: &std::path::Path, password: &str) -> String {
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            format!("{{file: {:?}}}", folder.join(name))
        };
        let ca = format!("ssl_ca: {}", write("ca", &self.authority.certificate));
        let user =
            format!("{{username: {}, password: {}}}", write("user", USER), write("password", password));
        let lines = match way {
            Way::Tls => format!("kafka: {{security_protocol: SSL, {ca}}}"),
            Way::Certificate => format!(
                "kafka: {{security_protocol: SSL, {ca}}}\ncredentials: {{certificate: {}, private_key: {}}}",
                write("certificate", &self.client.certificate),
                write("key", &self.client.key)
            ),
            Way::Sasl(it) => format!(
                "kafka: {{security_protocol: SASL_PLAINTEXT, sasl_mechanism: {it}}}\ncredentials: {user}"
            ),
            Way::SaslOverTls(it) => format!(
                "kafka: {{security_protocol: SASL_SSL, sasl_mechanism: {it}, {ca}}}\ncredentials: {user}"
            ),
        };
        let definitions = definitions("kafka", &self.servers);
        definitions.replacen("\n---", &format!("\n{lines}\n---"), 1)
    }
}

fn tls(signed: &Signed, clients: Option<&Authority>) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = ServerConfig::builder();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
            config.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    Arc::new(config.with_single_cert(chain, key).unwrap()).into()
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut body = vec![0; from.read_u32().await? as usize];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn send(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    to.write_all(&[&(body.len() as u32).to_be_bytes(), body].concat()).await?;
    to.flush().await
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat()
}

/// Lets who asks in, and then hands on what they say; in answers, another broker's place is taken.
async fn stand_before(mut stream: Box<dyn Stream>, way: Way, (behind, port): (u16, u16)) -> io::Result<()> {
    let mut cluster = TcpStream::connect(("127.0.0.1", behind)).await?;
    if let Way::Sasl(mechanism) | Way::SaslOverTls(mechanism) = way {
        let mut exchange = Exchange { mechanism, said: None };
        loop {
            let asked = frame(&mut stream).await?;
            let number = |at: usize| i16::from_be_bytes([asked[at], asked[at + 1]]);
            let (what, version, correlation) = (number(0), number(2), &asked[4..8]);
            let rest = &asked[10 + usize::try_from(number(8)).unwrap_or(0)..];
            let (is_in, reply) = match what {
                VERSIONS => (false, versions(&mut cluster, version).await?),
                HANDSHAKE => (false, [&[0, 0, 0, 0, 0, 1][..], &text(mechanism)].concat()),
                AUTHENTICATE => match exchange.next(&rest[4..]) {
                    Some((is_in, said)) => {
                        let length = (said.len() as u32).to_be_bytes();
                        (is_in, [&[0, 0, 0xff, 0xff][..], &length, &said, &[0; 8]].concat())
                    }
                    None => {
                        let said = text("Authentication failed: nobody knows you");
                        let reply = [correlation, &[0, 58], &said, &[0; 12]].concat();
                        return send(&mut stream, &reply).await;
                    }
                },
                _ => return Ok(()),
            };
            send(&mut stream, &[correlation, &reply].concat()).await?;
            if is_in {
                break;
            }
        }
    }
    let (mut from, mut to) = split(stream);
    let (mut back, mut there) = cluster.split();
    let place = |host: &[u8; 9], port: u16| [&host[..], &u32::from(port).to_be_bytes()].concat();
    let (theirs, ours) = (place(b"127.0.0.1", behind), place(b"localhost", port));
    let up = async {
        loop {
            send(&mut there, &frame(&mut from).await?).await?;
        }
    };
    let down = async {
        loop {
            let mut said = frame(&mut back).await?;
            for at in 0..said.len().saturating_sub(theirs.len() - 1) {
                if said[at..].starts_with(&theirs) {
                    said[at..at + ours.len()].copy_from_slice(&ours);
                }
            }
            send(&mut to, &said).await?;
        }
    };
    tokio::select! { ended = up => ended, ended = down => ended }
}

/// What the cluster understands, and SASL, in the version that was asked for.
async fn versions(cluster: &mut TcpStream, version: i16) -> io::Result<Vec<u8>> {
    send(cluster, &[&VERSIONS.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0], &text("test")].concat()).await?;
    let known = frame(cluster).await?;
    let mut apis: BTreeMap<[u8; 2], [u8; 4]> =
        known[10..].chunks_exact(6).map(|api| ([api[0], api[1]], [api[2], api[3], api[4], api[5]])).collect();
    apis.insert(HANDSHAKE.to_be_bytes(), [0, 0, 0, 1]);
    apis.insert(AUTHENTICATE.to_be_bytes(), [0, 0, 0, 1]);
    apis.insert(VERSIONS.to_be_bytes(), [0, 0, 0, 3]);
    let list =
        apis.iter().flat_map(|(api, range)| [&api[..], range, &[0; 1][..usize::from(version == 3)]].concat());
    let (list, count) = (list.collect::<Vec<u8>>(), apis.len());
    Ok(match version {
        0 => [&[0, 0][..], &(count as u32).to_be_bytes(), &list].concat(),
        1 | 2 => [&[0, 0][..], &(count as u32).to_be_bytes(), &list, &[0; 4]].concat(),
        3 => [&[0, 0, count as u8 + 1][..], &list, &[0; 5]].concat(),
        // Asked once more, in a version that is understood.
        _ => [&[0, 35, 0, 0, 0, 1][..], &VERSIONS.to_be_bytes(), &[0, 0, 0, 3]].concat(),
    })
}

/// How one client proves who it is.
struct Exchange {
    mechanism: &'static str,
    /// Of SCRAM: what was said first, on both sides.
    said: Option<(String, String)>,
}

impl Exchange {
    /// Whether the client is in, and what it is answered; none where it is nobody.
    fn next(&mut self, token: &[u8]) -> Option<(bool, Vec<u8>)> {
        match self.mechanism {
            "PLAIN" => {
                let parts: Vec<&[u8]> = token.split(|byte| *byte == 0).collect();
                (parts[1..] == [USER.as_bytes(), PASSWORD.as_bytes()]).then(|| (true, Vec::new()))
            }
            "OAUTHBEARER" => {
                let said = String::from_utf8_lossy(token);
                said.contains(&format!("auth=Bearer {TOKEN}\u{1}")).then(|| (true, Vec::new()))
            }
            "SCRAM-SHA-256" => self.scram(pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, token),
            _ => self.scram(pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, token),
        }
    }

    fn scram(
        &mut self,
        stretch: pbkdf2::Algorithm,
        kind: hmac::Algorithm,
        token: &[u8],
    ) -> Option<(bool, Vec<u8>)> {
        let (token, salt) = (str::from_utf8(token).ok()?, b"salt and pepper");
        let Some((bare, first)) = &self.said else {
            let bare = token.splitn(3, ',').nth(2)?;
            let nonce = bare.split_once("r=")?.1;
            let said = format!("r={nonce}more,s={},i={ROUNDS}", BASE64.encode(salt));
            self.said = Some((bare.to_owned(), said.clone()));
            return bare.starts_with(&format!("n={USER},")).then(|| (false, said.into_bytes()));
        };
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(kind, key), text).as_ref().to_vec();
        let mut salted = vec![0; kind.digest_algorithm().output_len()];
        pbkdf2::derive(stretch, NonZeroU32::new(ROUNDS)?, salt, PASSWORD.as_bytes(), &mut salted);
        let (without, proof) = token.rsplit_once(",p=")?;
        let all = format!("{bare},{first},{without}");
        let key = mac(&salted, b"Client Key");
        let stored = ring::digest::digest(kind.digest_algorithm(), &key);
        let wanted: Vec<u8> =
            key.iter().zip(mac(stored.as_ref(), all.as_bytes())).map(|(a, b)| a ^ b).collect();
        let answer = format!("v={}", BASE64.encode(mac(&mac(&salted, b"Server Key"), all.as_bytes())));
        (BASE64.decode(proof).ok()? == wanted).then(|| (true, answer.into_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_asked_by_each_way_that_they_know() {
    let ways = [
        Way::Tls,
        Way::Certificate,
        Way::Sasl("SCRAM-SHA-256"),
        Way::SaslOverTls("PLAIN"),
        Way::SaslOverTls("SCRAM-SHA-256"),
        Way::SaslOverTls("SCRAM-SHA-512"),
    ];
    for way in ways {
        let secured = Secured::start(way, "localhost").await;
        let secrets = tempfile::tempdir().unwrap();
        counts_all(&secured, &secured.definitions(way, secrets.path(), PASSWORD)).await;
    }
}

/// What is sent comes in.
async fn counts_all(secured: &Secured, definitions: &str) {
    let repository = Repository::new(definitions);
    let node = repository.open_applied().await;
    secured.kafka.send(&(0..30).map(event).collect::<Vec<_>>());
    let server = Server::of(repository, node).await;
    until_counted(server.client.url(), 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_asked_for_where_the_connection_says() {
    let way = Way::SaslOverTls("OAUTHBEARER");
    let secured = Secured::start(way, "localhost").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let give = async |form: String| {
        assert_eq!(
            form,
            "grant_type=client_credentials&scope=kafka&client_id=ann&client_secret=a%2Csecret%3Dof+ann"
        );
        format!("{{\"access_token\": \"{TOKEN}\", \"expires_in\": 300}}")
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/token", post(give))).await });
    let secrets = tempfile::tempdir().unwrap();
    let definitions = secured.definitions(way, secrets.path(), PASSWORD);
    let definitions = definitions.replace("username:", "client_id:").replace("password:", "client_secret:");
    let definitions =
        definitions.replace("OAUTHBEARER,", &format!("OAUTHBEARER, token_url: \"{url}\", scope: kafka,"));
    counts_all(&secured, &definitions).await;
}

/// Why the stream of a server with these definitions cannot be read.
async fn trouble(definitions: &str) -> String {
    let repository = Repository::new(definitions);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    until("a stream that cannot be read", told).await.troubles.remove(0).cause
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_nothing_hears_nothing_and_is_told_why() {
    let secrets = tempfile::tempdir().unwrap();
    for way in [Way::SaslOverTls("PLAIN"), Way::SaslOverTls("SCRAM-SHA-512")] {
        let secured = Secured::start(way, "localhost").await;
        let cause = trouble(&secured.definitions(way, secrets.path(), "another-word")).await;
        assert!(
            cause.contains("SASL authentication error: Authentication failed: nobody knows you"),
            "{cause}"
        );
        assert!(!cause.contains("another-word"), "{cause}");
    }
    // Who is not what its certificate says, or is vouched for by nobody.
    let secured = Secured::start(Way::Tls, "elsewhere.corp").await;
    let definitions = secured.definitions(Way::Tls, secrets.path(), PASSWORD);
    let cause = trouble(&definitions).await;
    assert!(cause.contains("certificate verify failed"), "{cause}");
    let secured = Secured::start(Way::Tls, "localhost").await;
    let definitions = secured.definitions(Way::Tls, secrets.path(), PASSWORD);
    std::fs::write(secrets.path().join("ca"), Authority::new("others").certificate).unwrap();
    let cause = trouble(&definitions).await;
    assert!(cause.contains("certificate verify failed"), "{cause}");
    // Who speaks in the open with one that does not, and whose secret is told nowhere.
    std::fs::write(secrets.path().join("ca"), &secured.authority.certificate).unwrap();
    let open = trouble(&super::definitions("kafka", &secured.servers)).await;
    assert!(open.contains("its stream cannot be read, and is tried again: Kafka: "), "{open}");
    std::fs::remove_file(secrets.path().join("ca")).unwrap();
    let untold = trouble(&definitions).await;
    assert!(untold.contains("connection `broker` has `ssl_ca` told by the file"), "{untold}");
}
