//! Who may ask the server what? One port for HTTP/1.1, HTTP/2, gRPC and Arrow Flight, another for administrators where
//! the settings name one, and a Unix socket for commands on the same machine.
//!
//! | route | room |
//! |---|---|
//! | `POST /get-online-features` | [`feast`] |
//! | `POST /push`, `/write-to-online-store` | [`push`] |
//! | `POST /v1/models/{model}[/versions/{version}]:predict`, `{model}:route`, and what TensorFlow Serving says of a model | [`predict`], [`models`] |
//! | `/v2/…`, `inference.GRPCInferenceService`: the Open Inference Protocol | [`v2`] |
//! | `POST /v1/check`, `/v1/plan`, `/v1/apply`, `/v1/materialize`, `/v1/can` | [`admin`] |
//! | `POST /v1/verify`, `/v1/labels` | [`monitor`] |
//! | `POST /v1/seal`, `/v1/scrub`, `/v1/backup` | [`upkeep`] |
//! | `/v1/keys`, `/v1/keys/revoke` | [`keys`] |
//! | Arrow Flight | [`flight`] |
//! | who may be connected, over what, and who they are | [`listen`] |
//! | what a request may hold | [`memory`] |
//! | which requests have threads of their own | [`large`] |
//! | whether a web page may ask it | [`browser`] |
//! | who asks | [`who`] |
//! | `/login`, `/login/callback`, `/logout`: people in a browser, and what that keeps of them | [`login`], [`session`] |
//! | who asks over a stream that stays open | [`asker`] |
//! | how every request ended: counted, logged, traced | [`observe`] |
//! | the names in a path | [`path`] |
//! | how a long job says how far it is | [`lines`] |
//! | what is live, for who asks | [`catalogue`] |
//! | what can be asked, for programs | [`openapi`] |
//! | the rest: health, status, metrics, who one is | [`http`] |
//!
//! Architecture invariant: no RocksDB, Redis, SQL, ONNX Runtime or Parquet; and nothing here computes. A handler reads
//! a request, calls a verb, and shows what came of it; [`error`] alone knows status codes, and `quern_decode` alone
//! knows how values look.

mod admin;
mod asker;
mod broken;
mod browser;
mod catalogue;
pub mod error;
mod feast;
mod flight;
mod http;
mod keys;
mod large;
mod lines;
mod listen;
mod login;
mod memory;
mod metrics;
mod models;
mod monitor;
mod observe;
mod openapi;
mod path;
mod predict;
mod push;
mod session;
mod terms;
pub mod trace;
mod upkeep;
mod v2;
mod weighed;
mod who;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;

use quern_server::Node;

pub use self::error::{Error, Result};
use self::listen::{Connections, Routers};
pub use self::listen::{Doors, Tls};

/// How long what is done beside answering may take to end.
const KEEPING_ENDS: Duration = Duration::from_secs(3);

/// Answers at `doors` until `shutdown`, then lets the requests under way end, for at most half a minute. Meanwhile it
/// follows the applies of other servers, brings in what they left behind, has ramps go on, keeps the store in order,
/// and sees how far the head is.
///
/// Boxed, so that all of it is compiled here, as fast as this crate is.
///
/// # Errors
/// The listeners' own failures.
pub fn serve(
    node: Arc<Node>,
    doors: Doors,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let (_keys, _following, _completing) = (node.keys.start(), node.follow.start(), node.push.complete());
        let (keeping, merging) = (node.segments.keep(), node.predictions.keep());
        let _compacting = node.labels.keep();
        let _looking = node.lag.start(Arc::clone(&node.runs));
        let ramping = node.apply.keep_ramping();
        let limits = (Connections::new(&node.settings), Arc::clone(&node.memory));
        let ended = listen::run(routers(&node), doors, limits, shutdown).await;
        drop(ramping);
        // Where the registry does not answer, what was counted since the last word is lost.
        let _ = tokio::time::timeout(KEEPING_ENDS, node.apply.note_ramp_counts()).await;
        node.predictions.flush().await;
        tokio::join!(keeping.end(KEEPING_ENDS), merging.end(KEEPING_ENDS));
        node.segments.leave().await;
        ended
    })
}

/// Everything that the server answers.
pub fn router(node: Arc<Node>) -> Router {
    let hosts = node.settings.hosts_at(node.settings.listen);
    finished(everything(&node), node, hosts)
}

/// What is answered where: all of it at one place, or what administrators ask apart.
fn routers(node: &Arc<Node>) -> Routers {
    // No web page gets at a Unix socket, and it has no name.
    let own = finished(everything(node), Arc::clone(node), Vec::new());
    let settings = &node.settings;
    let Some(admin) = settings.listen_admin else {
        let listen = router(Arc::clone(node));
        return Routers { listen: listen.clone(), admin: listen, own };
    };
    let asked = callers(node).merge(predict::routes_to_callers());
    let administered = administrators().merge(predict::routes_to_administrators());
    Routers {
        listen: finished(asked, Arc::clone(node), settings.hosts_at(settings.listen)),
        admin: finished(administered, Arc::clone(node), settings.hosts_at(admin)),
        own,
    }
}

fn everything(node: &Arc<Node>) -> Router<Arc<Node>> {
    callers(node).merge(administrators()).merge(predict::routes())
}

/// What whoever uses features and models asks.
fn callers(node: &Arc<Node>) -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/definitions", get(catalogue::definitions))
        .route("/get-online-features", post(feast::get_online_features))
        .route("/push", post(push::push_rows))
        .route("/write-to-online-store", post(push::write_to_online_store))
        .route("/v1/models/{model}/versions/{call}", post(predict::version).get(models::version_status))
        .route("/v1/models/{model}/metadata", get(models::metadata))
        .route("/v1/models/{model}/versions/{version}/metadata", get(models::metadata))
        .merge(v2::routes())
        .merge(monitor::routes())
        .merge(flight::routes(Arc::clone(node)))
}

/// What whoever changes and watches the server asks.
fn administrators() -> Router<Arc<Node>> {
    Router::new()
        .route("/metrics", get(http::show_metrics))
        .route("/v1/status", get(http::status))
        .merge(admin::routes())
        .merge(upkeep::routes())
        .merge(keys::routes())
}

/// The same with what is answered everywhere, and with all that is done of every request to a server of these names.
fn finished(routes: Router<Arc<Node>>, node: Arc<Node>, hosts: Vec<String>) -> Router {
    let hosts: Arc<[String]> = hosts.into();
    routes
        .route("/", get(http::index))
        .route("/openapi.json", get(openapi::openapi))
        .route("/health", get(http::ready))
        .route("/v2/health/live", get(http::live))
        .route("/v2/health/ready", get(http::ready))
        .route("/v1/me", get(http::me))
        .merge(login::routes())
        .fallback(http::no_such_path)
        .method_not_allowed_fallback(http::no_such_method)
        // One layer: each would be a box and a clone for every request. The first is the outermost.
        .layer(
            ServiceBuilder::new()
                .layer(from_fn(observe::observe))
                .layer(from_fn_with_state(hosts, browser::guard))
                .layer(from_fn_with_state(Arc::clone(&node), who::settle))
                .layer(from_fn_with_state(Arc::clone(&node), memory::leased))
                .layer(from_fn(large::apart))
                .layer(CatchPanicLayer::custom(http::panicked))
                // The limit on a body is a limit on what comes out: whoever reads it counts.
                .layer(RequestDecompressionLayer::new()),
        )
        .with_state(node)
}

#[cfg(test)]
mod tests;
