//! Who may ask the server what? One port for HTTP/1.1, HTTP/2, gRPC and Arrow Flight.
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
//! | Arrow Flight | [`flight`] |
//! | who may be connected | [`listen`] |
//! | what a request may hold | [`memory`] |
//! | which requests have threads of their own | [`large`] |
//! | whether a web page may ask it | [`browser`] |
//! | how every request ended: counted, logged, traced | [`observe`] |
//! | the names in a path | [`path`] |
//! | how a long job says how far it is | [`lines`] |
//! | what is live, for who asks | [`catalogue`] |
//! | who asks | [`who`] |
//! | the rest: health, status, metrics | [`http`] |
//!
//! Architecture invariant: no RocksDB, Redis, SQL, ONNX Runtime or Parquet; and nothing here computes. A handler reads
//! a request, calls a verb, and shows what came of it; [`error`] alone knows status codes, and `quern_decode` alone
//! knows how values look.

mod admin;
mod broken;
mod browser;
mod catalogue;
pub mod error;
mod feast;
mod flight;
mod http;
mod large;
mod lines;
mod listen;
mod memory;
mod metrics;
mod models;
mod monitor;
mod observe;
mod path;
mod predict;
mod push;
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
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;

use quern_server::Node;

pub use self::error::{Error, Result};
use self::listen::Connections;

/// How long what is done beside answering may take to end.
const KEEPING_ENDS: Duration = Duration::from_secs(3);

/// Answers on `listener` until `shutdown`, then lets the requests under way end, for at most half a minute. Meanwhile
/// it follows the applies of other servers, brings in what they left behind, keeps the store in order, and sees how far
/// the head is.
///
/// Boxed, so that all of it is compiled here, as fast as this crate is.
///
/// # Errors
/// The listener's own failures.
pub fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let (_following, _completing) = (node.follow.start(), node.push.complete());
        let (keeping, merging) = (node.segments.keep(), node.predictions.keep());
        let _compacting = node.labels.keep();
        let _looking = node.lag.start(Arc::clone(&node.runs));
        let limits = (Connections::new(&node.settings), Arc::clone(&node.memory));
        let ended = listen::run(router(Arc::clone(&node)), listener, limits, shutdown).await;
        node.predictions.flush().await;
        tokio::join!(keeping.end(KEEPING_ENDS), merging.end(KEEPING_ENDS));
        node.segments.leave().await;
        ended
    })
}

/// Everything that the server answers.
pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/", get(http::index))
        .route("/metrics", get(http::show_metrics))
        .route("/v2/health/live", get(http::live))
        .route("/v2/health/ready", get(http::ready))
        .route("/v1/definitions", get(catalogue::definitions))
        .route("/v1/status", get(http::status))
        .route("/get-online-features", post(feast::get_online_features))
        .route("/push", post(push::push_rows))
        .route("/write-to-online-store", post(push::write_to_online_store))
        .route("/v1/models/{call}", post(predict::model).get(models::status))
        .route("/v1/models/{model}/versions/{call}", post(predict::version).get(models::version_status))
        .route("/v1/models/{model}/metadata", get(models::metadata))
        .route("/v1/models/{model}/versions/{version}/metadata", get(models::metadata))
        .merge(v2::routes())
        .merge(admin::routes())
        .merge(monitor::routes())
        .merge(upkeep::routes())
        .merge(flight::routes(Arc::clone(&node)))
        .fallback(http::no_such_path)
        .method_not_allowed_fallback(http::no_such_method)
        // One layer: each would be a box and a clone for every request. The first is the outermost.
        .layer(
            ServiceBuilder::new()
                .layer(from_fn(observe::observe))
                .layer(from_fn_with_state(Arc::clone(&node), browser::guard))
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
