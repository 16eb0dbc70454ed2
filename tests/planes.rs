//! A few planes, three models, and a server on them: what the tests of the edges ask.

use std::future::Future;
use std::sync::Arc;

use quern::Client;
use quern_kit::{blocking, fixture, required, until};
use quern_server::api::serve;
use quern_server::{Quern, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Repository, materialize_to};

/// 2013-01-10, a moment after everything that the planes did.
pub(crate) const JANUARY_10: &str = "2013-01-10T00:00:00Z";
pub(crate) const JANUARY_10_US: i64 = 1_357_776_000_000_000;

pub(crate) const DEFINITIONS: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: csv, path: landings.csv}
event_timestamp: landed_at
created_timestamp: loaded_at
columns:
  - {name: tailnum, type: string}
  - {name: landed_at, type: timestamp}
  - {name: loaded_at, type: timestamp}
  - {name: delay, type: float64}
  - {name: seats, type: int64}
  - {name: carrier, type: string}
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
ttl: 30d
features:
  - {name: last_delay, expr: delay}
  - {name: seats}
  - {name: carrier, default: none}
---
kind: FeatureService
name: delay_v1
request: [{name: distance, type: float64}]
features: [{view: plane_history, features: [last_delay, seats]}]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, last_delay, far]
---
kind: FeatureService
name: carrier_v1
request: [{name: distance, type: float32}]
features: [{view: plane_history, features: [carrier]}]
outputs: [carrier, distance]
---
kind: Model
name: delay
versions: [{version: "1", path: models/linear.onnx, service: delay_v1}]
---
kind: Model
name: carrier
versions: [{version: "1", path: models/named.onnx, service: carrier_v1}]
---
kind: Model
name: class
versions: [{version: "1", path: models/classifier_text.onnx, service: delay_v1}]
"#;

/// N1's last number of seats is null, and its second landing was noted late; N2 was last seen long ago.
pub(crate) const LANDINGS: &str = "tailnum,landed_at,loaded_at,delay,seats,carrier\n\
    N1,2013-01-01T10:00:00Z,2013-01-01T10:00:00Z,5,100,UA\n\
    N1,2013-01-02T10:00:00Z,2013-01-05T00:00:00Z,7.5,,DL\n\
    N2,2012-06-01T10:00:00Z,2012-06-01T10:00:00Z,1,50,AA\n\
    N3,2013-01-03T10:00:00Z,2013-01-03T10:00:00Z,-2.25,20,\n";

/// The planes on disk, nothing applied yet.
pub(crate) fn repository() -> Repository {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    repository.write("landings.csv", LANDINGS);
    for name in ["linear", "named", "classifier_text", "total"] {
        repository.write(format!("models/{name}.onnx"), fixture(&format!("{name}.onnx")));
    }
    repository
}

/// A server of this process over real sockets.
pub(crate) struct Server {
    pub(crate) repository: Repository,
    pub(crate) client: Client,
    pub(crate) http: reqwest::Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<quern_server::Result<()>>,
}

impl Server {
    /// The planes, applied, materialized up to [`JANUARY_10`] and served.
    pub(crate) async fn start() -> Server {
        let repository = repository();
        let quern = repository.open_applied().await;
        let quern = blocking(move || {
            materialize_to(&quern, JANUARY_10_US);
            quern
        })
        .await;
        drop(quern);
        let flags = [("body_bytes_max", "1000000".to_owned())];
        let settings = Settings::load_from(repository.path(), |_| None, &flags).unwrap();
        Server::of(repository, Quern::open(settings).await.unwrap()).await
    }

    pub(crate) async fn of(repository: Repository, quern: Arc<Quern>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(serve(quern, listener, async {
            let _ = stopped.await;
        }));
        let client = Client::connect(url).await.unwrap();
        Server { repository, client, http: reqwest::Client::new(), stop, ended }
    }

    /// Tells it to stop; the result ends when it has.
    pub(crate) fn stop(self) -> impl Future<Output = ()> {
        self.stop.send(()).unwrap();
        async { self.ended.await.unwrap().unwrap() }
    }

    /// Stops it, and keeps its repository.
    pub(crate) async fn stop_and_keep(self) -> Repository {
        self.stop.send(()).unwrap();
        drop((self.client, self.http));
        self.ended.await.unwrap().unwrap();
        self.repository
    }

    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.client.url())
    }

    /// Status and body of the reply.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let method = method.parse().unwrap();
        let reply = self.http.request(method, self.address(path)).body(body).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// What the server says of a request that it refuses: status, code, words.
    pub(crate) async fn refusal(&self, method: &str, path: &str, body: impl Into<reqwest::Body>) -> String {
        let (status, text) = self.ask(method, path, body).await;
        let reply: quern::wire::ErrorReply = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let code = serde_json::to_value(reply.code).unwrap();
        format!("{status} {}: {}", code.as_str().unwrap(), reply.error)
    }

    /// Waits until the apply with this number, or a later one, is live here.
    pub(crate) async fn shows(&self, number: u64) {
        let live = async || (self.client.definitions().await.unwrap().number >= number).then_some(());
        until("an apply that goes live", live).await;
    }

    /// Applies what lies in the repository now; the plan, or the refusal.
    pub(crate) async fn apply(&self) -> Result<Value, String> {
        let (status, text) = self.ask("POST", "/v1/apply", "").await;
        match status {
            200 => Ok(serde_json::from_str(&text).unwrap()),
            _ => {
                let reply: Value = serde_json::from_str(&text).unwrap();
                Err(format!("{status} {}", reply["error"].as_str().unwrap()))
            }
        }
    }
}

/// An instance of plane `tailnum` asking at [`JANUARY_10`].
pub(crate) fn instance(tailnum: &str, distance: f64) -> Value {
    json!({"tailnum": tailnum, "distance": distance, "event_timestamp": JANUARY_10})
}
