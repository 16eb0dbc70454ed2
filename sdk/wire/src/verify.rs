//! Which logged predictions are verified, and what came of it?

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which logged predictions to verify.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct VerifyRequest {
    /// Of this model; else of all that have a log.
    #[serde(default)]
    pub model: Option<String>,
    /// That arrived at this time (µs) or later.
    #[serde(default)]
    pub from_us: Option<i64>,
    /// That arrived before this time (µs).
    #[serde(default)]
    pub to_us: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Model by model.
    pub models: Vec<ModelReport>,
}

/// What came of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelReport {
    /// The model.
    pub model: String,
    /// Logged predictions whose vectors were computed again.
    pub rows: u64,
    /// Those in which a feature differs.
    pub rows_differ: u64,
    /// Logged predictions whose vectors could not be computed again, by cause.
    pub not_compared: BTreeMap<String, u64>,
    /// The columns that models on other servers gave on the way: these may say something else tomorrow.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub not_reproducible: BTreeSet<String>,
    /// Logged predictions that were made again from what these said then.
    #[serde(default)]
    pub replayed: u64,
    /// Those that came out otherwise.
    #[serde(default)]
    pub replayed_differ: u64,
    /// Feature by feature.
    pub features: Vec<FeatureReport>,
}

/// What came of one feature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureReport {
    /// The feature service.
    pub feature_service: String,
    /// The feature.
    pub feature: String,
    /// How many values were compared.
    pub rows: u64,
    /// How many differ.
    pub differ: u64,
    /// How many differ by cause.
    pub causes: BTreeMap<Cause, u64>,
    /// The first that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Place>,
}

/// Where a logged prediction is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// The request.
    pub request_id: String,
    /// The place in the request.
    pub row: i64,
}

impl Report {
    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.models.iter().all(|model| model.rows_differ == 0 && model.replayed_differ == 0)
    }
}

/// Why a value differs, the plainest first: where several hold, the first of them is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The feature view, its source or the feature service is defined otherwise now.
    ChangedDefinition,
    /// The online store did not answer, and a default stood in.
    Unavailable,
    /// A row that served is in history no more, or never was: it was pushed to the head alone, or its file is gone.
    NotInHistory,
    /// `exp`, `sin` or their like give other bits here than where it was served: another version of Quern.
    OtherFunctions,
    /// History holds a row, visible at the query time, that was not in the head then.
    LateData,
}

impl Cause {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::ChangedDefinition => "changed definition",
            Cause::Unavailable => "store unavailable",
            Cause::NotInHistory => "not in history",
            Cause::OtherFunctions => "other functions",
            Cause::LateData => "late data",
        }
    }
}
