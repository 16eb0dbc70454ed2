//! Is it the server, is it this caller, and where may who ask what? Over TLS, over the Unix socket, and at the listener
//! for administration.

mod client;

use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use quern::Client;
use quern_kit::{Authority, Printed, Process, Repository, Signed, metric, run, until};
use reqwest::{Certificate, Identity, StatusCode, Version, tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::access::streams::{ask, inferring_over};
use super::bounds::{exchange, messages, spine};
use super::oip::call_over;
use crate::planes::{self, instance};

const DAY: Duration = Duration::from_secs(86_400);

/// The planes, with files of TLS beside them as Kubernetes lays them out: links to a folder that a link names.
struct Secured {
    repository: Repository,
    own: Authority,
    clients: Authority,
}

impl Secured {
    async fn new() -> Secured {
        let repository = planes::repository();
        drop(planes::open(&repository).await);
        let (own, clients) = (Authority::new("servers"), Authority::new("clients"));
        let secured = Secured { repository, own, clients };
        secured.renew(0);
        let settings = ["tls_certificate: tls/tls.crt", "tls_key: tls/tls.key", "tls_client_ca: tls/ca.pem"];
        secured.repository.write("quern.yaml", settings.join("\n") + "\ntls_revoked: revoked.pem\n");
        secured.repository.write("revoked.pem", secured.clients.revoke(&[]));
        for name in ["tls.crt", "tls.key", "ca.pem"] {
            symlink(Path::new("..data").join(name), secured.path("tls").join(name)).unwrap();
        }
        secured
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repository.path().join(name)
    }

    /// Signs the server a new certificate, and has the link name its folder, at once.
    fn renew(&self, number: usize) -> Signed {
        let signed = self.own.sign(&["localhost", "127.0.0.1"]);
        let folder = format!("tls/..{number}");
        self.repository.write(format!("{folder}/tls.crt"), &signed.certificate);
        self.repository.write(format!("{folder}/tls.key"), &signed.key);
        self.repository.write(format!("{folder}/ca.pem"), &self.clients.certificate);
        symlink(format!("..{number}"), self.path("tls/..data_tmp")).unwrap();
        std::fs::rename(self.path("tls/..data_tmp"), self.path("tls/..data")).unwrap();
        signed
    }

    /// A client of HTTP that knows the server's authority, and shows this.
    fn http(&self, shows: Option<&Signed>) -> reqwest::ClientBuilder {
        let authority = Certificate::from_pem(self.own.certificate.as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(authority);
        match shows {
            None => client,
            Some(signed) => {
                let both = signed.key.clone() + &signed.certificate;
                client.identity(Identity::from_pem(both.as_bytes()).unwrap())
            }
        }
    }

    /// The same below HTTP.
    fn connector(&self, shows: Option<&Signed>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.own.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => config.with_no_client_auth(),
            Some(signed) => {
                let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// A client of gRPC over the same.
    async fn channel(&self, url: &str, shows: Option<&Signed>) -> Channel {
        let connector = self.connector(shows);
        let address = url.trim_start_matches("https://").to_owned();
        let connect = tower::service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("https://localhost");
        endpoint.connect_with_connector(connect).await.unwrap()
    }
}

async fn predict(client: &reqwest::Client, url: &str) -> reqwest::Result<(Version, Value)> {
    let body = json!({"instances": [instance("N1", 1.0)]}).to_string();
    let reply = client.post(format!("{url}/v1/models/delay:predict")).body(body).send().await?;
    let version = reply.error_for_status_ref()?.version();
    Ok((version, serde_json::from_str(&reply.text().await?).unwrap()))
}

#[derive(Clone, PartialEq, prost::Message)]
struct Live {
    #[prost(bool, tag = "1")]
    live: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_is_spoken_over_tls_on_one_port() {
    let secured = Secured::new().await;
    let server = Process::start(secured.repository.path());
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let workload = secured.clients.sign(&["spiffe://corp/checkout"]);
    for shows in [None, Some(&workload)] {
        let answer = json!({"predictions": [76.5]});
        for (client, version) in [
            (secured.http(shows).http1_only(), Version::HTTP_11),
            (secured.http(shows), Version::HTTP_2),
            (secured.http(shows).max_tls_version(tls::Version::TLS_1_2), Version::HTTP_2),
            (secured.http(shows).min_tls_version(tls::Version::TLS_1_3), Version::HTTP_2),
        ] {
            let predicted = predict(&client.build().unwrap(), &server.url).await.unwrap();
            assert_eq!(predicted, (version, answer.clone()));
        }
        let channel = secured.channel(&server.url, shows).await;
        let live = call_over::<_, Live>(channel.clone(), "ServerLive", Live::default(), &[]).await.unwrap();
        assert!(live.live);
        let rows = messages(spine(1_000), "{\"feature_service\": \"delay_v1\"}", None).await;
        let came = exchange(&channel, rows).await;
        assert!(came.is_ok_and(|messages| messages > 1), "{came:?}");
    }
    // Who does not know the authority learns nothing.
    assert!(predict(&reqwest::Client::new(), &server.url).await.is_err());
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_certificates_that_do_not_hold_are_refused() {
    let secured = Secured::new().await;
    let now = SystemTime::now();
    let id = &["spiffe://corp/checkout"];
    let good = secured.clients.sign(id);
    let wrong = [
        ("of another authority", Authority::new("clients").sign(id)),
        ("of the server's authority", secured.own.sign(id)),
        ("ended", secured.clients.sign_for(now - 2 * DAY..now - DAY, id)),
        ("not yet", secured.clients.sign_for(now + DAY..now + 2 * DAY, id)),
        ("revoked", secured.clients.sign(id)),
    ];
    secured.repository.write("revoked.pem", secured.clients.revoke(&[&wrong[4].1]));
    let server = Process::start(secured.repository.path());
    let ask = async |shows: Option<&Signed>, version: tls::Version| {
        let client = secured.http(shows).min_tls_version(version).max_tls_version(version);
        predict(&client.build().unwrap(), &server.url).await
    };
    for version in [tls::Version::TLS_1_2, tls::Version::TLS_1_3] {
        ask(Some(&good), version).await.unwrap();
        // None need be shown: a caller may bring something else.
        ask(None, version).await.unwrap();
        for (what, signed) in &wrong {
            assert!(ask(Some(signed), version).await.is_err(), "{what}");
        }
    }
    let metrics =
        reqwest::Client::get(&secured.http(None).build().unwrap(), format!("{}/metrics", server.url));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    let refused = metric(&metrics, "quern_tls_handshakes_total{outcome=\"certificate\"}");
    assert!(refused >= Some(10.0), "{refused:?}");
    let ends = metric(&metrics, "quern_tls_certificate_expires_seconds").unwrap();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((ends - now - DAY.as_secs_f64()).abs() < 3_600.0, "{ends}");
    assert!(server.terminate().success());
}

/// Asks again and again until it is told to stop, over connections that are kept or each time over a new one.
async fn ask_on(
    client: reqwest::ClientBuilder,
    url: String,
    (asked, stop): (Arc<AtomicUsize>, Arc<AtomicBool>),
) {
    let client = client.build().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let (_, answer) = predict(&client, &url).await.unwrap();
        assert_eq!(answer, json!({"predictions": [76.5]}));
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_certificates_are_replaced_under_load_and_no_request_fails() {
    let secured = Secured::new().await;
    let server = Process::start(secured.repository.path());
    let workload = secured.clients.sign(&["spiffe://corp/checkout"]);
    let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut asking = Vec::new();
    for shows in [None, Some(&workload)] {
        for client in [
            secured.http(shows),
            secured.http(shows).http1_only(),
            secured.http(shows).http1_only().pool_max_idle_per_host(0),
            secured.http(shows).pool_max_idle_per_host(0),
        ] {
            let told = (Arc::clone(&asked), Arc::clone(&stop));
            asking.push(tokio::spawn(ask_on(client, server.url.clone(), told)));
        }
    }
    let connector = secured.connector(None);
    let address = server.url.trim_start_matches("https://");
    for number in 1..=3 {
        let next = secured.renew(number);
        // A list that is half written in between changes nothing.
        secured.repository.write("revoked.pem", format!("half of list {number}"));
        let next = CertificateDer::from_pem_slice(next.certificate.as_bytes()).unwrap();
        until("a new certificate", async || {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            (stream.get_ref().1.peer_certificates().unwrap()[0] == next).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap();
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 2_000, "{asked}");
    let metrics =
        secured.http(None).build().unwrap().get(format!("{}/metrics", server.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let count = |part: &str, outcome: &str| {
        metric(&metrics, &format!("quern_tls_reloads_total{{outcome=\"{outcome}\",part=\"{part}\"}}"))
    };
    assert_eq!(count("certificate", "taken"), Some(3.0));
    assert_eq!((count("client_ca", "refused"), count("client_ca", "taken")), (Some(3.0), None));
    assert!(server.terminate().success());
}

const CHECKOUT: &str = r#"
kind: Role
name: checkout
members: [{spiffe: "spiffe://corp/checkout"}]
allow: [{predict: [delay]}]
"#;

/// Each message is asked about: the connection was made while the certificate held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_certificate_is_revoked_is_nobody_at_the_next_message() {
    let secured = Secured::new().await;
    secured.repository.write("roles.yaml", CHECKOUT);
    let folder = secured.repository.path();
    run(folder, &["apply"]).answer();
    let server = Process::start_in(folder, &[("QUERN_AUTH", "required".to_owned())]);
    let [revoked, kept] = ["revoked", "kept"].map(|_| secured.clients.sign(&["spiffe://corp/checkout"]));
    let open = async |shows| inferring_over(secured.channel(&server.url, Some(shows)).await, None).await;
    let [mut theirs, mut ours] = [open(&revoked).await, open(&kept).await];
    for stream in [&mut theirs, &mut ours] {
        assert_eq!(stream.next(ask()).await.unwrap().error, "");
    }
    secured.repository.write("revoked.pem", secured.clients.revoke(&[&revoked]));
    let ended = until("a stream that ends", async || theirs.next(ask()).await.err()).await;
    assert_eq!(ended, tonic::Code::Unauthenticated);
    assert_eq!(ours.next(ask()).await.unwrap().error, "");
    drop((theirs, ours));
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_go_over_the_unix_socket() {
    let secured = Secured::new().await;
    let folder = secured.repository.path();
    let socket = secured.path(".quern/quern.sock");
    // What one that was killed has left is replaced.
    Process::start(folder).kill();
    assert!(socket.exists());
    let server = Process::start(folder);
    let metadata = std::fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    // The commands know nothing of the server's authority.
    let said = run(folder, &["status", "--json"]);
    let status: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(status["server"].is_object(), "{status}");
    assert!(run(folder, &["apply"]).answer().contains("no changes"));
    let spine = "tailnum,distance,event_timestamp\nN1,1,2013-01-10T00:00:00Z\n";
    secured.repository.write("spine.csv", spine);
    let train = ["train", "delay_v1", "--spine", "spine.csv", "--out", "set.csv"];
    run(folder, &train).answer();
    assert!(std::fs::read_to_string(secured.path("set.csv")).unwrap().contains("7.5"));
    let client = Client::connect_over_socket(&socket).await.unwrap();
    assert_eq!(client.definitions().await.unwrap().number, 1);
    check_that_another_user_is_refused(folder, &socket);
    assert!(server.terminate().success());
    assert!(!socket.exists());
}

/// Only root can become somebody else.
fn check_that_another_user_is_refused(folder: &Path, socket: &Path) {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    if !is_root {
        eprintln!("another user was not tried: these tests do not run as root");
        return;
    }
    // It is the socket that refuses, and not the folders above it.
    for folder in [folder, socket.parent().unwrap()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ask = |user: &str| {
        let user = format!("--reuid={user}");
        let curl = ["curl", "--silent", "--show-error", "--fail", "--unix-socket"];
        let url = "http://127.0.0.1/v2/health/live";
        let asked =
            Command::new("setpriv").arg(user).arg("--clear-groups").args(curl).arg(socket).arg(url).output();
        let asked = asked.unwrap();
        (asked.status.success(), String::from_utf8_lossy(&asked.stderr).into_owned())
    };
    assert!(ask("0").0, "{}", ask("0").1);
    let (is_answered, said) = ask("65534");
    assert!(!is_answered && !said.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_has_a_listener_of_its_own() {
    let repository = planes::repository();
    drop(planes::open(&repository).await);
    let folder = repository.path();
    let log = folder.join("server.log");
    let environment = [("QUERN_LISTEN_ADMIN", "127.0.0.1:0".to_owned()), ("QUERN_LOG", "info".to_owned())];
    let server = Process::start_logged(folder, &environment, std::fs::File::create(&log).unwrap());
    let said = async || {
        let text = std::fs::read_to_string(&log).unwrap();
        let (_, rest) = text.split_once("admin_url=\"")?;
        rest.split_once('"').map(|(url, _)| url.to_owned())
    };
    let administrators = until("where administrators ask", said).await;
    let callers = server.url.clone();
    let http = reqwest::Client::new();
    let ask = async |url: &str, method: &str, path: &str| {
        let request = http.request(method.parse().unwrap(), format!("{url}{path}"));
        let reply = request.header("content-type", "application/json").body("{}").send().await.unwrap();
        let status = reply.status();
        (status, reply.text().await.unwrap())
    };
    for path in ["check", "plan", "apply", "materialize", "seal", "scrub", "backup", "status"] {
        let method = if path == "status" { "GET" } else { "POST" };
        let (status, text) = ask(&callers, method, &format!("/v1/{path}")).await;
        let unknown = ask(&callers, method, "/v1/unknown").await.1.replace("unknown", path);
        assert_eq!((status, text), (StatusCode::NOT_FOUND, unknown), "{path}");
        let (status, text) = ask(&administrators, method, &format!("/v1/{path}")).await;
        assert!(status != StatusCode::NOT_FOUND, "{path}: {status} {text}");
    }
    assert_eq!(ask(&callers, "GET", "/metrics").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&administrators, "GET", "/metrics").await.0, StatusCode::OK);
    let (status, text) = ask(&callers, "POST", "/v1/models/delay:route").await;
    let unknown = ask(&callers, "POST", "/v1/models/delay:roast").await.1.replace("roast", "route");
    assert_eq!((status, text), (StatusCode::NOT_FOUND, unknown));
    let (status, text) = ask(&administrators, "POST", "/v1/models/delay:route").await;
    assert!(status != StatusCode::NOT_FOUND, "{text}");
    for (url, status) in [(&callers, StatusCode::OK), (&administrators, StatusCode::NOT_FOUND)] {
        let body = json!({"instances": [instance("N1", 1.0)]}).to_string();
        let asked = http.post(format!("{url}/v1/models/delay:predict")).body(body).send().await.unwrap();
        assert_eq!(asked.status(), status);
        for health in ["/v2/health/live", "/v2/health/ready"] {
            assert_eq!(ask(url, "GET", health).await.0, StatusCode::OK, "{url}{health}");
        }
    }
    // A command asks over the Unix socket, where all is answered.
    assert!(run(folder, &["apply"]).answer().contains("no changes"));
    let routed = run(folder, &["route", "delay", "1=50"]);
    assert!(routed.stderr.contains("model `delay` has no route"), "{}", routed.stderr);
    assert!(server.terminate().success());
}

#[test]
fn nobody_listens_in_the_open_by_accident() {
    let repository = planes::repository();
    let folder = repository.path();
    // An address for documents, which no machine has: nothing listens in the open for a test.
    let serve = |more: &[&str]| {
        let Printed { code, stderr, .. } =
            run(folder, &[&["serve", "--listen", "192.0.2.1:7400"], more].concat());
        assert_eq!(code, Some(1), "{stderr}");
        stderr
    };
    let refused = serve(&[]);
    for part in ["`listen: 192.0.2.1:7400`", "listen: 127.0.0.1:7400", "`auth: required`", "`--insecure`"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    let allowed = serve(&["--insecure"]);
    assert!(allowed.contains("nothing can listen at 192.0.2.1:7400"), "{allowed}");
    repository.write("quern.yaml", "tls_certificate: tls.crt\ntls_key: tls.key\n");
    let lost = serve(&[]);
    assert!(lost.contains("`tls_certificate`: ") && lost.contains("tls.crt cannot be read"), "{lost}");
}
