//! What does a model get, and what does it say?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Status;

/// The header that names the version that is to answer; in a reply, those that answered, with commas between.
pub const VERSION_HEADER: &str = "x-quern-version";

/// `POST /v1/models/{model}[/versions/{version}]:predict`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictRequest {
    /// Join keys and request columns of each row; `event_timestamp` where it is not now.
    pub instances: Vec<Map<String, Value>>,
    /// Whether the reply carries the feature vectors that the model saw.
    #[serde(default)]
    pub with_features: bool,
}

/// The reply of a prediction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predictions {
    /// One for each instance: a value, a row, or an object where the model has several outputs.
    pub predictions: Vec<Value>,
    /// The version that answered; only with `with_features`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<String>,
    /// The feature service that fed it; only with `with_features`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_service: Option<String>,
    /// What the model saw; only with `with_features`, and where one version answered all instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureVectors>,
    /// How many values of each feature are null because they could not be computed; absent where none is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// What each version saw; only with `with_features`, and where several answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PredictPart>,
    /// What answered each instance: a version, `expr` or `constant`; only where it may be one or another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_by: Vec<String>,
    /// Where something else answered than the version whose turn it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<FallbackInfo>,
}

/// Instances that one version answered, or would have where something stood in for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictPart {
    /// Their places in the request, from 0.
    pub instances: Vec<usize>,
    /// The version.
    pub model_version: String,
    /// The feature service that fed it; absent where nothing could be looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_service: Option<String>,
    /// What it saw of these instances, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureVectors>,
}

/// Instances that were left to a substitute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FallbackInfo {
    /// Their places in the request, from 0.
    pub instances: Vec<usize>,
    /// What answered them: a version, `expr` or `constant`.
    pub served_by: String,
    /// `error`, `timeout`, `overload`, `unavailable`, `stale` or `missing`.
    pub cause: String,
    /// The cause, for people.
    pub detail: String,
}

/// Feature vectors row by row; every inner list is as long as `names`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureVectors {
    /// Names of the features, in the model's order.
    pub names: Vec<String>,
    /// For each instance its values.
    pub values: Vec<Vec<Value>>,
    /// For each instance the statuses of its values.
    pub statuses: Vec<Vec<Status>>,
    /// For each instance the event timestamps of the rows that its values were taken from.
    pub event_timestamps: Vec<Vec<Option<String>>>,
}
