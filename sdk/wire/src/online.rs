//! What does a look-up ask, and what comes back?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /get-online-features`, as Feast's feature server speaks it. Either `feature_service` or `features` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlineFeaturesRequest {
    /// Name of the feature service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_service: Option<String>,
    /// `view:feature` references, where there is no feature service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Column → one value per entity: join keys, request columns, and `event_timestamp` where it is not now.
    pub entities: BTreeMap<String, Vec<Value>>,
    /// Whether features are named `view__feature`.
    #[serde(default)]
    pub full_feature_names: bool,
}

/// The reply of `POST /get-online-features`: one result for each of `metadata.feature_names`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlineFeatures {
    /// Which columns follow.
    pub metadata: OnlineMetadata,
    /// The columns, join keys first.
    pub results: Vec<OnlineColumn>,
}

/// Names of the columns of a look-up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnlineMetadata {
    /// In the order of the results.
    pub feature_names: Vec<String>,
    /// The type of each, which JSON does not tell, in the words of the definitions: `int64`, `timestamp`, …
    #[serde(default)]
    pub feature_types: Vec<String>,
    /// How far each of the feature views is that were asked: a value that is not found may be of an entity that nobody
    /// knows, or of a view that was never materialized.
    #[serde(default)]
    pub feature_view_metadata: Vec<FeatureViewMetadata>,
    /// How many values of each feature are null because they could not be computed; absent where none is. What is
    /// stored as null does not count again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
}

/// How far a feature view is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureViewMetadata {
    /// Name of the view.
    pub name: String,
    /// The query time up to which its history is materialized; null where it never was.
    #[serde(default)]
    pub materialized_until: Option<String>,
}

/// One column of a look-up; the three lists are as long as there are entities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlineColumn {
    /// The values; null where there is none.
    pub values: Vec<Value>,
    /// Why a value is what it is.
    pub statuses: Vec<Status>,
    /// Event timestamp of the row that a value was taken from; the epoch where there is none, and null for windows,
    /// which are of many rows.
    pub event_timestamps: Vec<Option<String>>,
}

/// Why a feature value is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Found.
    Present,
    /// Found, and stored as null.
    NullValue,
    /// No row of this entity is visible.
    NotFound,
    /// The latest visible row is older than the view's TTL.
    OutsideMaxAge,
    /// The online store did not answer: the value is the declared default.
    Unavailable,
}

impl Status {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Present => "PRESENT",
            Status::NullValue => "NULL_VALUE",
            Status::NotFound => "NOT_FOUND",
            Status::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Status::Unavailable => "UNAVAILABLE",
        }
    }
}
