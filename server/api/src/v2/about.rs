//! `GET /v2/…` and `POST /v2/repository/…`: what does the server say of itself and its models, in JSON?

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::metadata::{self, Port};
use super::{applied_not_loaded, statistics};
use crate::error::{ApiResult, beside};
use crate::http::json_reply;
use crate::models::Found;
use crate::who::Who;
use quern_decode::datatype::Datatype;
use quern_server::Node;
use quern_server::live::LiveVersion;
use quern_wire::{
    ConfigTensor, InferenceConfig, InferenceModel, ModelReady, ModelStatistics, RepositoryModel, TensorInfo,
};

pub(super) async fn server() -> Response {
    json_reply(&metadata::server())
}

pub(super) async fn model(Found { named, target }: Found) -> Response {
    let port = |Port { name, datatype, shape }| {
        let datatype = Datatype::name(datatype).to_owned();
        TensorInfo { name, datatype, shape }
    };
    json_reply(&InferenceModel {
        name: named.model,
        versions: metadata::versions(&target),
        platform: metadata::PLATFORM.to_owned(),
        inputs: metadata::inputs(&target).into_iter().map(port).collect(),
        outputs: metadata::outputs(&target).into_iter().map(port).collect(),
    })
}

pub(super) async fn ready(Found { named, target }: Found) -> Response {
    let said = |ready| ModelReady { name: named.model.clone(), version: named.version.clone(), ready };
    match target.is_ready() {
        Ok(()) => json_reply(&said(true)),
        Err(error) => beside(&said(false), error.into()),
    }
}

pub(super) async fn config(Found { named, target }: Found) -> Response {
    let port = |Port { name, datatype, shape }| {
        let (data_type, _) = Datatype::in_config(datatype);
        ConfigTensor { name, data_type: data_type.to_owned(), dims: shape, optional: false }
    };
    let time = ConfigTensor { optional: true, ..port(metadata::query_time()) };
    json_reply(&InferenceConfig {
        name: named.model,
        platform: metadata::PLATFORM.to_owned(),
        backend: metadata::BACKEND.to_owned(),
        max_batch_size: 0,
        input: metadata::inputs(&target).into_iter().map(port).chain([time]).collect(),
        output: metadata::outputs(&target).into_iter().map(port).collect(),
    })
}

pub(super) async fn stats(Found { named, target }: Found) -> Response {
    json_reply(&ModelStatistics { model_stats: statistics::of(&target, named.version.is_some()) })
}

/// Of every model.
pub(super) async fn all_stats(State(node): State<Arc<Node>>, Who(who): Who) -> Response {
    let live = node.live();
    json_reply(&ModelStatistics { model_stats: statistics::of_all(&live, &live.seen_by(&who)) })
}

/// Every model; all are ready.
pub(super) async fn index(State(node): State<Arc<Node>>, Who(who): Who) -> Response {
    let live = node.live();
    let seen = live.seen_by(&who);
    let entry = |(name, version): (&str, &LiveVersion)| RepositoryModel {
        name: name.to_owned(),
        version: version.version.clone(),
        state: "READY".to_owned(),
        reason: String::new(),
    };
    json_reply(&metadata::index(&live, &seen).map(entry).collect::<Vec<_>>())
}

pub(super) async fn load() -> ApiResult<Response> {
    Err(applied_not_loaded().into())
}
