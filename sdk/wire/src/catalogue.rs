//! What is declared and live, and which version answers whom?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ModelFit, TrainingSetPin};

/// The reply of `POST /v1/check`: the definitions hold, and this many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// How many entities.
    pub entities: usize,
    /// How many sources.
    pub sources: usize,
    /// How many feature views.
    pub feature_views: usize,
    /// How many feature services.
    pub feature_services: usize,
    /// How many models.
    pub models: usize,
    /// How many roles.
    #[serde(default)]
    pub roles: usize,
    /// How many connections.
    #[serde(default)]
    pub connections: usize,
    /// How columns go into its models, and how these were tried.
    #[serde(default)]
    pub fits: Vec<ModelFit>,
    /// Columns that some files of its sources lack.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `GET /v1/definitions`: what is live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Catalogue {
    /// Number of the apply that made it live; 0 before the first one.
    pub number: u64,
    /// Entities, by name.
    pub entities: Vec<EntityInfo>,
    /// Connections, by name: those that who asks may change, or whose owner's definitions they may.
    #[serde(default)]
    pub connections: Vec<ConnectionInfo>,
    /// Feature views, by name.
    pub feature_views: Vec<FeatureViewInfo>,
    /// Feature services, by name.
    pub feature_services: Vec<FeatureServiceInfo>,
    /// Models, by name.
    pub models: Vec<ModelInfo>,
    /// The fingerprint of `exp`, `sin` and their like; `quern.functions` of a training set that was made by the same.
    pub functions: String,
}

/// An entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EntityInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What identifies one, in key order.
    pub join_keys: Vec<ColumnInfo>,
}

/// Where definitions may lead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What may be reached; no secret is in it.
    pub url: String,
}

/// A feature view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureViewInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of the entities that make up the key.
    pub entities: Vec<String>,
    /// Name of the source; empty for who may neither push to it nor apply it or the view.
    pub source: String,
    /// How long a row counts; absent: for ever.
    pub ttl_us: Option<i64>,
    /// How late a row becomes visible.
    pub lag_us: i64,
    /// Whether a row counts at the very time at which it becomes visible: `including` or `before`.
    pub at: String,
    /// The features, in order.
    pub features: Vec<ColumnInfo>,
}

/// A feature service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureServiceInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What a request or a spine row brings: join keys, then request columns.
    pub inputs: Vec<ColumnInfo>,
    /// How many of `inputs` are join keys.
    pub join_keys: usize,
    /// What leaves: the columns of the training set and the input of a model.
    pub outputs: Vec<ColumnInfo>,
}

/// A named, typed column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// Type, in the words of the definition language.
    #[serde(rename = "type")]
    pub dtype: String,
}

/// A model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Versions as listed; the last one answers requests that name none.
    pub versions: Vec<ModelVersionInfo>,
}

/// A version of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelVersionInfo {
    /// Unique within the model.
    pub version: String,
    /// Name of the feature service that feeds it.
    pub feature_service: String,
    /// SHA-256 of the ONNX file; of an ensemble, that of its steps.
    pub digest: String,
    /// What its files run on, as `cpu` or `cuda`.
    #[serde(default)]
    pub execution_providers: Vec<String>,
    /// Why it answers nobody, where its files were kept and are not to be had any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The training set that it was trained on, where its definition says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<TrainingSetPin>,
    /// Its share of the requests that name no version, in parts of all weights of the model.
    #[serde(default)]
    pub weight: u64,
}
