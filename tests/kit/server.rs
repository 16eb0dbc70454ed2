//! What does a client see? A server of this process, over real sockets.

use std::future::Future;
use std::sync::Arc;

use quern::Client;
use quern::wire::ErrorReply;
use quern_api::{Doors, Tls};
use quern_server::Settings;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Node, Repository, Result, metric, until};

/// A node that answers, and its repository.
pub struct Server {
    /// Where its definitions lie.
    pub repository: Repository,
    /// Asks it as users of the SDK do.
    pub client: Client,
    /// Asks it as anybody does.
    pub http: reqwest::Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<()>>,
}

/// Serves `node` on a free port until the process ends, over TLS where its settings say so.
pub async fn serve(node: &Node) -> std::net::SocketAddr {
    let settings = Settings { listen: ([127, 0, 0, 1], 0).into(), ..(*node.inner.settings).clone() };
    let doors = Doors::open(&settings, Tls::load(&settings).unwrap()).unwrap();
    let url = doors.url().unwrap();
    tokio::spawn(quern_api::serve(Arc::clone(&node.inner), doors, Box::pin(std::future::pending())));
    url.split_once("://").unwrap().1.parse().unwrap()
}

impl Server {
    /// Opens the repository as it stands, and serves it.
    pub async fn open(repository: Repository) -> Server {
        let node = repository.open().await;
        Server::of(repository, node).await
    }

    /// Serves `node` on a free port.
    pub async fn of(repository: Repository, node: Node) -> Server {
        let settings = Settings { listen: ([127, 0, 0, 1], 0).into(), ..(*node.inner.settings).clone() };
        let doors = Doors::open(&settings, Tls::load(&settings).unwrap()).unwrap();
        let url = doors.url().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (live, push) = (node.inner.live.clone(), Arc::clone(&node.inner.push));
        let streams = quern_streams::follow(live, push, Arc::clone(&node.inner.streams));
        let serving = quern_api::serve(
            Arc::clone(&node.inner),
            doors,
            Box::pin(async {
                let _ = stopped.await;
            }),
        );
        drop(node);
        let ended = tokio::spawn(async {
            let ended = serving.await;
            streams.end().await;
            Ok(ended?)
        });
        let client = Client::connect(url).await.unwrap();
        Server { repository, client, http: reqwest::Client::new(), stop, ended }
    }

    /// Tells it to stop; the result ends when it has.
    pub fn stop(self) -> impl Future<Output = ()> {
        self.stop.send(()).unwrap();
        async { self.ended.await.unwrap().unwrap() }
    }

    /// Stops it, and keeps its repository.
    pub async fn stop_and_keep(self) -> Repository {
        self.stop.send(()).unwrap();
        drop((self.client, self.http));
        self.ended.await.unwrap().unwrap();
        self.repository
    }

    /// Returns the URL of a path.
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.client.url())
    }

    /// Sends a request, and returns status and body of the reply.
    pub async fn ask(&self, method: &str, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let method = method.parse().unwrap();
        let reply = self
            .http
            .request(method, self.address(path))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// Sends a request that is refused, and returns status, code and words.
    pub async fn refusal(&self, method: &str, path: &str, body: impl Into<reqwest::Body>) -> String {
        let (status, text) = self.ask(method, path, body).await;
        let reply: ErrorReply = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let code = serde_json::to_value(reply.code).unwrap();
        format!("{status} {}: {}", code.as_str().unwrap(), reply.error)
    }

    /// Applies what lies in the repository now: the plan, or the refusal.
    ///
    /// # Errors
    /// Status and words of the refusal.
    pub async fn apply(&self) -> std::result::Result<Value, String> {
        let (status, text) = self.ask("POST", "/v1/apply", "").await;
        let reply: Value = serde_json::from_str(&text).unwrap();
        match status {
            200 => Ok(reply),
            _ => Err(format!("{status} {}", reply["error"].as_str().unwrap())),
        }
    }

    /// Waits until the apply with this number, or a later one, is live here.
    pub async fn shows(&self, number: u64) {
        let live = async || (self.client.definitions().await.unwrap().number >= number).then_some(());
        until("an apply that goes live", live).await;
    }

    /// Returns its metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        self.ask("GET", "/metrics", "").await.1
    }

    /// Returns the value of a metric.
    ///
    /// # Panics
    /// Where there is no such metric.
    pub async fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics().await;
        metric(&metrics, series).unwrap_or_else(|| panic!("{series} is not in\n{metrics}"))
    }
}
