//! The Open Inference Protocol, version 2, as KServe's and Triton's clients speak it, over REST and over gRPC.
//!
//! | question | room |
//! |---|---|
//! | what is live, and what does it take? | [`metadata`] |
//! | the same in JSON | [`about`] |
//! | requests and replies in JSON and in raw bytes | [`rest`] |
//! | the same over gRPC, and its messages | [`grpc`], [`messages`] |
//! | what do tensors bring to a model? | [`ask`] |
//! | what has each version been asked? | [`statistics`] |
//!
//! The protocol is <https://github.com/kserve/open-inference-protocol>, with Triton's extensions for binary tensors,
//! for the index of models, for their configuration and for their statistics.

mod about;
mod ask;
mod grpc;
mod metadata;
mod rest;
mod statistics;
mod weight;

use quern_access::Caller;
use quern_base::clock::now_us;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::http::count;
use super::memory::Held;
use super::terms::Terms;
use crate::error::{Error, Result};
use quern_decode::tensor::Tensor;
use quern_server::Node;
use quern_server::verbs::predict::{Answer, Target};

/// The protocol's routes, of REST and of gRPC.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/v2", get(about::server))
        .route("/v2/", get(about::server))
        .route("/v2/models/{model}", get(about::model))
        .route("/v2/models/{model}/versions/{version}", get(about::model))
        .route("/v2/models/{model}/ready", get(about::ready))
        .route("/v2/models/{model}/versions/{version}/ready", get(about::ready))
        .route("/v2/models/{model}/config", get(about::config))
        .route("/v2/models/{model}/versions/{version}/config", get(about::config))
        .route("/v2/models/stats", get(about::all_stats))
        .route("/v2/models/{model}/stats", get(about::stats))
        .route("/v2/models/{model}/versions/{version}/stats", get(about::stats))
        .route("/v2/models/{model}/infer", post(rest::infer))
        .route("/v2/models/{model}/versions/{version}/infer", post(rest::infer))
        .route("/v2/repository/index", post(about::index))
        .route("/v2/repository/models/{model}/{verb}", post(about::load))
        .merge(grpc::routes())
}

/// One request, however it came.
struct Request {
    tensors: Vec<Tensor>,
    /// The outputs that are wanted, in this order; all where none is named.
    outputs: Vec<String>,
    terms: Terms,
    held: Held,
}

/// What became of it.
struct Reply {
    /// The version that answered; several where several did, joined by commas.
    version: String,
    outputs: Vec<Tensor>,
}

async fn infer((node, who): (&Arc<Node>, &Caller), target: Target, request: Request) -> Result<Reply> {
    let Request { tensors, outputs, terms, held } = request;
    // What it holds is given back with the reply: a stream may bring many requests.
    let held = held.apart();
    let target = &target.within(&held.0);
    let given = ask::given(target, &tensors, now_us())?;
    let rows = tensors.iter().filter_map(|tensor| tensor.shape.first().copied()).max().unwrap_or_default();
    node.take_rows(who, rows)?;
    held.take_cells(rows, target.version().service.outputs.fields().len())?;
    let answer = target.predict(&node.predict, terms.ask(given)).await?;
    answer.parts.iter().filter_map(|part| part.vectors.as_ref()).for_each(count);
    Ok(Reply { version: version(&answer), outputs: pick(target, &answer, &outputs)? })
}

fn version(answer: &Answer) -> String {
    let mut versions: Vec<&str> = Vec::new();
    for part in &answer.parts {
        if !versions.contains(&part.served_by.as_str()) {
            versions.push(&part.served_by);
        }
    }
    versions.join(",")
}

fn pick(target: &Target, answer: &Answer, wanted: &[String]) -> Result<Vec<Tensor>> {
    let schema = answer.outputs.schema_ref();
    let tensor = |place: usize| -> Result<Tensor> {
        let name = schema.field(place).name();
        let mut tensor = Tensor::of(name, answer.outputs.column(place))?;
        if metadata::is_column(target, name) && tensor.shape.len() == 1 {
            tensor.shape.push(1);
        }
        Ok(tensor)
    };
    if wanted.is_empty() {
        return (0..schema.fields().len()).map(tensor).collect();
    }
    let named = |name: &String| {
        let place = schema.index_of(name).map_err(|_| {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            Error::invalid(format!("unknown output `{name}`; {}", feature_defs::suggest(name, known)))
        })?;
        tensor(place)
    };
    wanted.iter().map(named).collect()
}

/// Why nothing is loaded, and nothing unloaded.
fn applied_not_loaded() -> Error {
    Error::refused(
        "models are not loaded one by one: they are part of the definitions, which `quern apply` makes live",
    )
}
