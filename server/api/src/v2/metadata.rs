//! What is live, and what does it take and give, in the protocol's words?

use std::sync::Arc;

use arrow::datatypes::Schema;
use quern_engine::schema::EVENT_TIMESTAMP;

use quern_access::{Action, Question};
use quern_decode::datatype::{Datatype, shape};
use quern_server::Deployment;
use quern_server::live::{LiveModel, LiveVersion, Seen};
use quern_server::verbs::predict::Target;
use quern_wire::InferenceServer;

const NAME: &str = "quern";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];
/// What runs the models, in Triton's words.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";
pub(super) const BACKEND: &str = "onnxruntime";

/// What the server calls itself.
pub(super) fn server() -> InferenceServer {
    let extensions = EXTENSIONS.map(str::to_owned).to_vec();
    InferenceServer { name: NAME.to_owned(), version: VERSION.to_owned(), extensions }
}

/// One input or output of a model.
#[derive(Debug)]
pub(super) struct Port {
    pub name: String,
    pub datatype: Datatype,
    /// -1 where a length is free.
    pub shape: Vec<i64>,
}

fn ports(schema: &Schema) -> Vec<Port> {
    let port = |field: &arrow::datatypes::FieldRef| Port {
        name: field.name().clone(),
        datatype: Datatype::of(field.data_type()),
        shape: shape(field.data_type()),
    };
    schema.fields().iter().map(port).collect()
}

/// What an instance brings.
pub(super) fn inputs(target: &Target) -> Vec<Port> {
    ports(target.inputs().schema)
}

/// What it may bring besides: the query time, µs.
pub(super) fn query_time() -> Port {
    Port { name: EVENT_TIMESTAMP.to_owned(), datatype: Datatype::Int64, shape: vec![-1] }
}

/// What the model answers.
pub(super) fn outputs(target: &Target) -> Vec<Port> {
    let mut ports = ports(&target.version().model.outputs);
    for port in ports.iter_mut().filter(|port| is_column(target, &port.name)) {
        port.shape.push(1);
    }
    ports
}

/// Whether the model calls this output `[N, 1]`, which is a plain value elsewhere.
pub(super) fn is_column(target: &Target, output: &str) -> bool {
    let named = target.version().model.signature.outputs.iter().find(|port| port.name == output);
    named.is_some_and(|port| matches!(port.shape[..], [_, Some(1)]))
}

/// The versions of the model.
pub(super) fn versions(target: &Target) -> Vec<String> {
    target.model().versions.iter().map(|version| version.version.clone()).collect()
}

/// Every model that is live and may be asked, and each of its versions.
pub(super) fn index<'a>(
    live: &'a Deployment,
    seen: &Seen<'_>,
) -> impl Iterator<Item = (&'a str, &'a LiveVersion)> {
    let may = |model: &&Arc<LiveModel>| seen.may(Question::Do(Action::Predict, &model.name));
    let versions =
        |model: &'a Arc<LiveModel>| model.versions.iter().map(|version| (&*model.name, version.as_ref()));
    live.models.values().filter(may).flat_map(versions)
}
