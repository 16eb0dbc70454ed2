//! What does it cost to be asked who one is? One-row predictions over kept connections: with an API key, with a token,
//! over TLS with a client's certificate, beside the same of a server that asks nobody.
//!
//! Each server answers on threads of its own, all in this process; a closed loop on one more thread asks one after the
//! other, over and over. Every principal has one role, so that each request is a decision as well. `who [--seconds N]`:
//! N seconds (1) for each turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quern_benches::load::{Turn, load};
use quern_benches::{Bench, median, online};
use quern_kit::{Authority, Random, Repository, Signed};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TURNS: usize = 9;
const CONNECTIONS: [usize; 2] = [1, 8];
const ISSUER: &str = "https://sso.corp";
const ROLES: &str = "kind: Role\nname: app\nallow: [{predict: [scoring]}]\n\
    members: [{key: app}, {spiffe: \"spiffe://corp/app\"}, {jwt: {claim: groups, has: app}}]\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().position(|argument| argument == "--seconds");
    let turn = seconds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(1.0);
    let turn = Duration::from_secs_f64(turn);

    let signer = Signer::new();
    let (own, clients) = (Authority::new("servers"), Authority::new("clients"));
    let open = Served::new("open", |repository| settings(repository, &[]));
    let asking = Served::new("asking", |repository| {
        repository.write("jwks.json", signer.keys());
        settings(repository, &[("auth", "required"), ("jwt_issuers", ISSUER), ("jwt_keys", "jwks.json")])
    });
    let tls = Served::new("tls", |repository| {
        let server = own.sign(&["localhost"]);
        repository.write("tls.crt", server.certificate);
        repository.write("tls.key", server.key);
        repository.write("ca.pem", &clients.certificate);
        let named = [("tls_certificate", "tls.crt"), ("tls_key", "tls.key"), ("tls_client_ca", "ca.pem")];
        settings(repository, &[&named[..], &[("auth", "required")]].concat())
    });
    let key = asking.bench.runtime.block_on(asking.bench.node.key("app"));
    let certificate = connector(&own, &clients.sign(&["spiffe://corp/app"]));

    println!("{:24} {:>10} {:>9} {:>9} {:>9}", "", "requests/s", "p50 µs", "CPU µs", "CPU ÷ open");
    for connections in CONNECTIONS {
        let mut seen: [Vec<Turn>; 4] = Default::default();
        let (plain, keyed) = (requests(""), requests(&format!("authorization: Bearer {key}\r\n")));
        let tokens = requests(&format!("authorization: Bearer {}\r\n", signer.token()));
        for _ in 0..TURNS {
            seen[0].push(open.load((&plain, connections), turn));
            seen[1].push(asking.load((&keyed, connections), turn));
            seen[2].push(asking.load((&tokens, connections), turn));
            let (address, connector) = (tls.address, certificate.clone());
            let connect = move || secured(address, connector.clone());
            seen[3].push(load("tls", connect, (&plain, connections), turn));
        }
        println!("{connections} connection(s)");
        let middle =
            |turns: &[Turn], of: fn(&Turn) -> f64| median(&mut turns.iter().map(of).collect::<Vec<_>>());
        let open = middle(&seen[0], |turn| turn.cpu_us);
        for (name, turns) in ["nothing, in the clear", "an API key", "a token", "mTLS"].iter().zip(&seen) {
            let cpu = middle(turns, |turn| turn.cpu_us);
            println!(
                "  {name:22} {:10.0} {:9.1} {cpu:9.1} {:9.3}",
                middle(turns, |turn| turn.per_second),
                middle(turns, |turn| turn.p50_us),
                cpu / open
            );
        }
    }
}

/// The files of settings, by their whole paths, and roles.
fn settings(repository: &Repository, named: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    repository.write("roles.yaml", ROLES);
    let whole = |value: &str| match repository.path().join(value) {
        path if path.is_file() => path.display().to_string(),
        _ => value.to_owned(),
    };
    named.iter().map(|(name, value)| (*name, whole(value))).collect()
}

/// A server on threads that have its name.
struct Served {
    name: &'static str,
    bench: Bench,
    address: SocketAddr,
    _threads: Runtime,
}

impl Served {
    fn new(name: &'static str, settings: impl FnOnce(&Repository) -> Vec<(&'static str, String)>) -> Served {
        let bench = online::bench_with(settings);
        let threads = tokio::runtime::Builder::new_multi_thread().thread_name(name).enable_all().build();
        let threads = threads.expect("a tokio runtime");
        let address = threads.block_on(quern_kit::serve(&bench.node));
        Served { name, bench, address, _threads: threads }
    }

    fn load(&self, asked: (&Arc<Vec<Vec<u8>>>, usize), turn: Duration) -> Turn {
        let address = self.address;
        load(self.name, move || connected(address), asked, turn)
    }
}

async fn connected(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secured(
    address: SocketAddr,
    connector: TlsConnector,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, connected(address).await?).await
}

fn connector(own: &Authority, client: &Signed) -> TlsConnector {
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(pem(&own.certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("PEM");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![pem(&client.certificate)], key);
    TlsConnector::from(Arc::new(config.expect("a certificate and its key")))
}

/// Whole requests of one row, as they go over the wire, with these headers.
fn requests(headers: &str) -> Arc<Vec<Vec<u8>>> {
    let mut random = Random::seeded(11);
    let request = |_| {
        let id = online::ids(&mut random, 1)[0];
        let body =
            json!({"instances": [{"id": id, "amount": random.unit() * 200.0, "hour": random.below(24)}]});
        let body = body.to_string();
        let length = body.len();
        format!(
            "POST /v1/models/scoring:predict HTTP/1.1\r\nhost: localhost\r\n{headers}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    Arc::new((0..512).map(request).collect())
}

/// Signs tokens of [`ISSUER`].
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Signer(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
    }

    /// Its public half, as a JSON Web Key Set.
    fn keys(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k"}]}).to_string()
    }

    fn token(&self) -> String {
        let now = online::now_us() / 1_000_000;
        let claims = json!({
            "iss": ISSUER, "aud": "quern", "sub": "app", "groups": ["app"], "iat": now, "exp": now + 3_600,
        });
        let part = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": "k"})), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes())))
    }
}
