//! How do those requests and replies look that are read and written by hand?
//!
//! Only to be described; tests hold the replies of a server to it.

#![expect(dead_code, reason = "described, and never made")]

use std::collections::BTreeMap;

use quern_wire::{ErrorReply, ModelReady, Predictions, Ready};
use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Rows for the online store alone, as Feast's client sends them for each feature view.
#[derive(JsonSchema)]
pub(super) struct WriteToOnlineStore {
    /// Name of the feature view.
    feature_view_name: String,
    /// Column → one value per row; all columns of one length.
    df: BTreeMap<String, Vec<Value>>,
}

/// Instances by row or by column.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum PredictBody {
    /// By row.
    Rows {
        /// An object for each, with its join keys, request columns, and `event_timestamp` where it is not now; or its
        /// bare value where one column is wanted.
        instances: Vec<Value>,
        /// Whether the reply carries the feature vectors that the model saw.
        with_features: Option<bool>,
        /// `serving_default`, or none.
        signature_name: Option<String>,
    },
    /// By column.
    Columns {
        /// An array for each column; or one array where one column is wanted.
        inputs: Inputs,
        /// As by row.
        with_features: Option<bool>,
        /// As by row.
        signature_name: Option<String>,
    },
}

/// Columns.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Inputs {
    /// By name.
    Named(BTreeMap<String, Vec<Value>>),
    /// The only one.
    Only(Vec<Value>),
}

/// Predictions by row or by column.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Predicted {
    /// By row.
    Rows(Box<Predictions>),
    /// By column: what else there is is as by row.
    Columns {
        /// The values of the only output; or an object with an array for each.
        outputs: Value,
    },
}

/// The state of a model's versions.
#[derive(JsonSchema)]
pub(super) struct ModelStatus {
    /// Version by version.
    model_version_status: Vec<ModelVersionStatus>,
}

/// The state of one.
#[derive(JsonSchema)]
pub(super) struct ModelVersionStatus {
    /// The version.
    version: String,
    /// `AVAILABLE`, or `END` where its files are lost.
    state: String,
    /// Why.
    status: StatusProto,
}

/// An error, or none.
#[derive(JsonSchema)]
pub(super) struct StatusProto {
    /// `OK` or `DATA_LOSS`.
    error_code: String,
    /// What is wrong, for who may know what goes into the model.
    error_message: String,
}

/// What a model takes and gives, as TensorFlow Serving says it.
#[derive(JsonSchema)]
pub(super) struct ModelMetadata {
    /// `name`, `signature_name` and `version`.
    model_spec: BTreeMap<String, String>,
    /// Signatures: `signature_def.signature_def.serving_default`.
    metadata: Value,
}

/// Tensors for a model.
#[derive(JsonSchema)]
pub(super) struct InferRequest {
    /// What each instance brings, or its whole feature vector.
    inputs: Vec<InferInput>,
    /// The outputs that are wanted; all where none is named.
    outputs: Option<Vec<InferOutput>>,
    /// Names the request; comes back.
    id: Option<String>,
    /// `timeout` in microseconds, `priority`, `binary_data_output`.
    parameters: Option<Map<String, Value>>,
}

/// A tensor that goes in.
#[derive(JsonSchema)]
pub(super) struct InferInput {
    /// Its name.
    name: String,
    /// The type of its cells, as in `FP32` or `BYTES`.
    datatype: String,
    /// The length of each dimension; the first counts instances.
    shape: Vec<u64>,
    /// `binary_data_size`, where its cells follow the JSON.
    parameters: Option<Map<String, Value>>,
    /// Its cells, nested or flat.
    data: Option<Vec<Value>>,
}

/// An output that is wanted.
#[derive(JsonSchema)]
pub(super) struct InferOutput {
    /// Its name.
    name: String,
    /// `binary_data`: whether its cells are to follow the JSON.
    parameters: Option<Map<String, Value>>,
}

/// What a model answered.
#[derive(JsonSchema)]
pub(super) struct InferReply {
    /// Name of the model.
    model_name: String,
    /// What answered; of several all, with commas between.
    model_version: String,
    /// The request's name.
    #[schemars(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Tensor by tensor.
    outputs: Vec<InferTensor>,
}

/// A tensor that comes out.
#[derive(JsonSchema)]
pub(super) struct InferTensor {
    /// Its name.
    name: String,
    /// The type of its cells.
    datatype: String,
    /// The length of each dimension.
    shape: Vec<u64>,
    /// `binary_data_size`, where its cells follow the JSON.
    #[schemars(skip_serializing_if = "Option::is_none")]
    parameters: Option<Map<String, Value>>,
    /// Its cells, row by row; null where a number is not finite.
    #[schemars(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<Value>>,
}

/// Why a server answers no look-ups.
#[derive(JsonSchema)]
pub(super) struct NotReady {
    #[schemars(flatten)]
    said: Ready,
    #[schemars(flatten)]
    error: ErrorReply,
}

/// Why a model does not answer.
#[derive(JsonSchema)]
pub(super) struct ModelNotReady {
    #[schemars(flatten)]
    said: ModelReady,
    #[schemars(flatten)]
    error: ErrorReply,
}

/// What is called so; no member of it is promised.
pub(super) type Anything = Map<String, Value>;
