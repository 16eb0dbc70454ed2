//! What does a server say of itself and its models in the Open Inference Protocol's JSON?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Degraded;

/// `GET /v2/health/live`: the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// Always true.
    pub live: bool,
}

/// `GET /v2/health/ready`: whether look-ups are answered. Where they are not, what is said of the error stands beside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// Whether they are.
    pub ready: bool,
    /// What the server does not do meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Degraded>,
}

/// `GET /v2/models/{model}/ready`: whether a model answers. Where it does not, the error stands beside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelReady {
    /// Name of the model.
    pub name: String,
    /// The version, where one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it does.
    pub ready: bool,
}

/// `GET /v2`: what the server calls itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InferenceServer {
    /// Always `quern`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it can beyond the protocol.
    pub extensions: Vec<String>,
}

/// `GET /v2/models/{model}`: what a model takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InferenceModel {
    /// Its name.
    pub name: String,
    /// Its versions, as listed.
    pub versions: Vec<String>,
    /// What runs it, in Triton's words.
    pub platform: String,
    /// What an instance brings.
    pub inputs: Vec<TensorInfo>,
    /// What the model answers.
    pub outputs: Vec<TensorInfo>,
}

/// An input or output of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The protocol's name of its type.
    pub datatype: String,
    /// -1 where a length is free.
    pub shape: Vec<i64>,
}

/// `GET /v2/models/{model}/config`: the same in the words of Triton's configuration of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InferenceConfig {
    /// Name of the model.
    pub name: String,
    /// What runs it.
    pub platform: String,
    /// The same.
    pub backend: String,
    /// Always 0: the first dimension is listed, as Triton has it for models that batch by themselves.
    pub max_batch_size: u64,
    /// What an instance brings.
    pub input: Vec<ConfigTensor>,
    /// What the model answers.
    pub output: Vec<ConfigTensor>,
}

/// An input or output of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigTensor {
    /// Its name.
    pub name: String,
    /// Triton's name of its type.
    pub data_type: String,
    /// -1 where a length is free.
    pub dims: Vec<i64>,
    /// Whether it may be left out; absent where it may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// `POST /v2/repository/index`: one version of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryModel {
    /// Name of the model.
    pub name: String,
    /// The version.
    pub version: String,
    /// Always `READY`.
    pub state: String,
    /// Always empty.
    pub reason: String,
}

/// `GET /v2/models[/{model}[/versions/{version}]]/stats`: what versions of models have been asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelStatistics {
    /// Version by version.
    pub model_stats: Vec<VersionStatistics>,
}

/// What one version has been asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionStatistics {
    /// Name of the model.
    pub name: String,
    /// The version.
    pub version: String,
    /// When its last run ended, in milliseconds since the Unix epoch; 0 before the first.
    pub last_inference: u64,
    /// Rows that it was run on.
    pub inference_count: u64,
    /// Its runs.
    pub execution_count: u64,
    /// What they took, and requests with them.
    pub inference_stats: InferenceStatistics,
    /// Always empty: runs are not counted by how many rows they have.
    pub batch_stats: Vec<Value>,
}

/// How often, and for how long together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InferenceStatistics {
    /// Requests that were answered.
    pub success: StatisticDuration,
    /// Requests that were not.
    pub fail: StatisticDuration,
    /// Requests that waited for a session.
    pub queue: StatisticDuration,
    /// Always 0: it is a part of `compute_infer`.
    pub compute_input: StatisticDuration,
    /// Runs.
    pub compute_infer: StatisticDuration,
    /// Always 0: it is a part of `compute_infer`.
    pub compute_output: StatisticDuration,
    /// Always 0: no answer is kept.
    pub cache_hit: StatisticDuration,
    /// Always 0.
    pub cache_miss: StatisticDuration,
}

/// How often something happened, and how long it took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// How long, in nanoseconds.
    pub ns: u64,
}
