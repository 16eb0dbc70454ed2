//! Who answers: this process, or the server that has the data folder open?
//!
//! RocksDB belongs to one process. A server that has the folder open says so in `server.json` there, and a command goes
//! to it, over its Unix socket where there is one; else the command opens the folder and asks the same routes in this
//! process. Either way it is one interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{Request, header};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use quern::Client;
use quern_access::{Principal, Proof};
use quern_api::error::Cause;
use quern_wire::{Catalogue, ErrorReply};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::Options;
use super::failure::{Failure, Result};
use crate::error::Error;
use quern_server::{INSTANCE, Node, SOCKET_FILE, Settings, holder, repository};

const SERVER_FILE: &str = "server.json";
/// Replies are read whole; what streams is read by line.
const REPLY_BYTES_MAX: usize = 1 << 30;

/// Who answers.
pub(super) enum Backend {
    /// This process; `_scratch` is its data folder where it has none of its own.
    Here { node: Arc<Node>, routes: Router, _scratch: Option<TempDir> },
    /// The server that has the data folder open.
    There(Client),
}

impl Backend {
    /// For who changes something: the data folder is made where there is none.
    pub(super) async fn open_to_change(directory: &Path, options: &Options) -> Result<Backend> {
        Backend::open_over(options.settings(directory, &[])?, None).await
    }

    /// For who only looks: where there is no data folder, there is none afterwards.
    pub(super) async fn open(directory: &Path, options: &Options) -> Result<Backend> {
        let mut settings = options.settings(directory, &[])?;
        if settings.data.exists() {
            return Backend::open_over(settings, None).await;
        }
        let scratch = tempfile::tempdir().map_err(Error::from)?;
        scratch.path().clone_into(&mut settings.data);
        Backend::open_over(settings, Some(scratch)).await
    }

    async fn open_over(settings: Settings, scratch: Option<TempDir>) -> Result<Backend> {
        let found = Server::find(&settings.data).await;
        if let Some((server, Ok(client))) = found {
            server.check_serves(&settings)?;
            tracing::debug!(url = server.url, "a server has the data folder open and answers");
            return Ok(Backend::There(client));
        }
        let node = open_here(settings).await.map_err(|failure| match found {
            // It is there, or nobody would have the folder.
            Some((server, Err(silent))) if failure.is_in_use() => {
                Failure::Here(Error::busy(server.is_silent(&silent)))
            }
            _ => failure,
        })?;
        Ok(Backend::Here { routes: quern_api::router(Arc::clone(&node)), node, _scratch: scratch })
    }

    /// The server that has the data folder open; or why none answers.
    pub(super) async fn server(settings: &Settings) -> Result<std::result::Result<Client, String>> {
        Ok(match Server::find(&settings.data).await {
            Some((server, Ok(client))) => {
                server.check_serves(settings)?;
                Ok(client)
            }
            Some((server, Err(silent))) => Err(server.is_silent(&silent)),
            None => Err(format!(
                "no server has the data folder {} open; `quern serve` starts one",
                settings.data.display()
            )),
        })
    }

    /// A job that failed after its reply had begun.
    pub(super) fn failed(&self, mut error: ErrorReply) -> Failure {
        // A process that asks itself has no log in which somebody might look for it.
        if matches!(self, Backend::Here { .. }) {
            error.request_id = None;
        }
        Failure::There(quern::Error::Server(Box::new(error)))
    }

    /// What is live.
    pub(super) async fn catalogue(&self) -> Result<Catalogue> {
        self.get("/v1/definitions").await
    }

    /// The same for who names something of it: refused where nothing is, as in a folder that is no repository. `such`
    /// shows where another folder is named.
    pub(super) async fn live(&self, directory: &Path, such: &str) -> Result<Catalogue> {
        let live = self.catalogue().await?;
        if live.number > 0 {
            return Ok(live);
        }
        let folder = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let folder = folder.display();
        Err(Failure::Here(Error::not_found(format!(
            "nothing is live in {folder}; `quern apply {folder}` makes the definitions of a repository live, and where the \
             repository is another folder, name it first, as in `{such}`"
        ))))
    }

    /// Gets `path` and reads the reply.
    pub(super) async fn get<Reply: DeserializeOwned>(&self, path: &str) -> Result<Reply> {
        match self {
            Backend::Here { routes, .. } => {
                let request = Request::get(path).body(Body::empty());
                read(ask(routes, request.map_err(internal)?).await?).await
            }
            Backend::There(client) => Ok(client.get(path).await?),
        }
    }

    /// Posts `request` to `path` and reads the reply.
    pub(super) async fn call<Reply: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Reply> {
        match self {
            Backend::Here { routes, .. } => read(ask(routes, post(path, request)?).await?).await,
            Backend::There(client) => Ok(client.call(path, request).await?),
        }
    }

    /// Posts `request` to `path` and reads the reply as it comes, one JSON document a line.
    pub(super) async fn call_lines<Line: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<BoxStream<'static, Result<Line>>> {
        match self {
            Backend::Here { routes, .. } => {
                Ok(lines(ask(routes, post(path, request)?).await?.into_data_stream()).boxed())
            }
            Backend::There(client) => {
                let lines = client.call_lines(path, request).await?;
                Ok(lines.map(|line| line.map_err(Failure::There)).boxed())
            }
        }
    }
}

/// For who asks about what is kept: there is nothing of it where there is no data folder.
pub(super) async fn existing(directory: &Path, options: &Options) -> Result<Backend> {
    let settings = options.settings(directory, &[])?;
    if !settings.data.exists() {
        return Err(Failure::Here(Error::not_found(format!(
            "there is no data folder {}: nothing is kept yet; `quern apply` makes one",
            settings.data.display()
        ))));
    }
    Backend::open_over(settings, None).await
}

/// Opens the data folder, and makes one only where there are definitions: not wherever a command happens to be typed.
pub(super) async fn open_here(settings: Settings) -> Result<Arc<Node>> {
    if !settings.data.exists() {
        repository::read(&settings, &settings.applies)?;
    }
    Ok(Node::open(settings).await?)
}

/// The same for a server, which says itself how far its head is.
pub(super) async fn open_behind(settings: Settings) -> Result<Arc<Node>> {
    if !settings.data.exists() {
        repository::read(&settings, &settings.applies)?;
    }
    Ok(Node::open_behind(settings).await?)
}

fn post(path: &str, request: &impl Serialize) -> Result<Request<Body>> {
    let body = serde_json::to_vec(request).map_err(internal)?;
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
    request.map_err(internal)
}

async fn ask(routes: &Router, mut request: Request<Body>) -> Result<Body> {
    // Whoever runs a command on the folder owns it.
    request.extensions_mut().insert(Arc::new(Principal::new(Proof::Owner)));
    let reply = match routes.clone().oneshot(request).await {
        Ok(reply) => reply,
        Err(never) => match never {},
    };
    if reply.status().is_success() {
        return Ok(reply.into_body());
    }
    let (mut parts, body) = reply.into_parts();
    // Nobody else has the error any more; an edge that has none says all there is to say.
    match parts.extensions.remove().and_then(|Cause(error)| Arc::into_inner(error)) {
        Some(error) => Err(error.into()),
        None => Err(Failure::There(quern::Error::Server(Box::new(read(body).await?)))),
    }
}

async fn read<Reply: DeserializeOwned>(body: Body) -> Result<Reply> {
    let bytes = to_bytes(body, REPLY_BYTES_MAX).await.map_err(internal)?;
    serde_json::from_slice(&bytes).map_err(internal)
}

/// In this process a chunk of the body is a line.
fn lines<Line: DeserializeOwned>(body: BodyDataStream) -> impl Stream<Item = Result<Line>> {
    body.map(|chunk| serde_json::from_slice(&chunk.map_err(internal)?).map_err(internal))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::Here(Error::broken(error.to_string()))
}

/// The server that has a data folder open, as it says so there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Server {
    pid: u32,
    /// Names the process, as the lock of the folder does.
    instance: String,
    /// Where it answers.
    pub(super) url: String,
    repository: PathBuf,
}

impl Server {
    /// Says in the data folder that this process answers at `url`, for as long as the result lives.
    pub(super) fn announce(node: &Node, url: &str) -> Result<Announcement> {
        let path = node.settings.data.join(SERVER_FILE);
        let server = Server {
            pid: std::process::id(),
            instance: INSTANCE.clone(),
            url: url.to_owned(),
            repository: node.settings.own.repository.clone(),
        };
        let text = serde_json::to_vec_pretty(&server).map_err(internal)?;
        let temporary = path.with_extension("json.part");
        let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| internal(format!("{}: {error}", path.display())))?;
        Ok(Announcement(path))
    }

    /// Refuses where it serves another repository.
    fn check_serves(&self, settings: &Settings) -> Result<()> {
        if self.repository == settings.own.repository {
            return Ok(());
        }
        Err(Failure::Here(Error::refused(format!(
            "the server at {} has the data folder {} open and serves {}, not {}",
            self.url,
            settings.data.display(),
            self.repository.display(),
            settings.own.repository.display()
        ))))
    }

    fn is_silent(&self, why: &quern::Error) -> String {
        format!(
            "the server at {} has the data folder open and does not answer: {why}; try again, or look into its log",
            self.url
        )
    }

    /// The server that has `data` open, and whether it answers. What one that was killed left behind names nobody,
    /// though another server may answer there by now.
    async fn find(data: &Path) -> Option<(Server, quern::Result<Client>)> {
        let text = fs::read(data.join(SERVER_FILE)).ok()?;
        let server: Server = serde_json::from_slice(&text).ok()?;
        if holder(data)? != server.instance {
            return None;
        }
        let socket = data.join(SOCKET_FILE);
        let client = match UnixStream::connect(&socket).await {
            Ok(_) => Client::connect_over_socket(&socket).await,
            // There is none where the path is too long for one, and another user may not open it.
            Err(_) => Client::connect(&server.url).await,
        };
        Some((server, client))
    }
}

/// Withdraws what it announced when it is dropped.
#[derive(Debug)]
pub(super) struct Announcement(PathBuf);

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
