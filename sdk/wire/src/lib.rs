//! What goes over the wire as JSON? Server and clients read and write these same types.
//!
//! Times are RFC 3339 strings, naive ones read as UTC, or whole microseconds since the Unix epoch; replies always
//! give RFC 3339 with `Z`.

mod materialize;
mod plan;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::materialize::{MaterializeLine, MaterializeRequest, Progress, Summary, ViewSummary};
pub use self::plan::{Action, Break, Change, DefinitionKind, KeyChange, Plan, Reason, ViewToMaterialize};
pub use self::verify::{Cause, FeatureReport, ModelReport, Place, Report, VerifyRequest};

/// The metadata of a gRPC status that says when the same call may be made again, in milliseconds (gRPC's proposal A6).
pub const RETRY_PUSHBACK_MS: &str = "grpc-retry-pushback-ms";

/// `POST /get-online-features`, as Feast's feature server speaks it. Either `feature_service` or `features` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OnlineFeatures {
    /// Which columns follow.
    pub metadata: OnlineMetadata,
    /// The columns, join keys first.
    pub results: Vec<OnlineColumn>,
}

/// Names of the columns of a look-up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineMetadata {
    /// In the order of the results.
    pub feature_names: Vec<String>,
}

/// One column of a look-up; the three lists are as long as there are entities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OnlineColumn {
    /// The values; null where there is none.
    pub values: Vec<Value>,
    /// Why a value is what it is.
    pub statuses: Vec<Status>,
    /// Event timestamp of the row that a value was taken from.
    pub event_timestamps: Vec<Option<String>>,
}

/// Why a feature value is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// What answered each instance: a version, `expr` or `constant`; only where it may be one or another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_by: Vec<String>,
    /// Where something else answered than the version whose turn it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<FallbackInfo>,
}

/// Instances that were left to a substitute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// `POST /push`, as Feast's feature server speaks it: rows for a source that takes them.
///
/// What Feast sends besides, `allow_registry_cache` and `transform_on_write`, says nothing here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PushRequest {
    /// Name of the source.
    pub push_source_name: String,
    /// Column → one value per row; all columns of one length.
    pub df: BTreeMap<String, Vec<Value>>,
    /// Where the rows go.
    #[serde(default)]
    pub to: PushTo,
    /// Rows that were pushed before under this key are not taken again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Says where rows go that are pushed over Flight; the command of the descriptor of a `DoPut`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCommand {
    /// Name of the source.
    pub push_source_name: String,
    /// Where the rows go.
    #[serde(default)]
    pub to: PushTo,
    /// Batches that were pushed before under this key, by their place in the upload, are not taken again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Where pushed rows go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushTo {
    /// To look-ups alone: training never sees them.
    Online,
    /// To history alone: look-ups see them once they are materialized.
    Offline,
    /// To both.
    #[default]
    OnlineAndOffline,
}

impl PushTo {
    /// Whether look-ups are to see the rows at once.
    pub fn online(self) -> bool {
        self != PushTo::Offline
    }

    /// Whether history keeps the rows.
    pub fn offline(self) -> bool {
        self != PushTo::Online
    }
}

/// What became of pushed rows: the reply of `POST /push`, and over Flight the metadata of one `PutResult` for each
/// batch. What is told here is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReply {
    /// Over Flight, the place of the batch in the upload, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// How many rows were taken.
    pub accepted: usize,
    /// How many rows were there already: under this idempotency key, or by their `event_id`.
    pub repeated: usize,
    /// The rows that were not taken; all others were.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
}

/// A pushed row that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Place of the row in the request, or in its batch, from 0.
    pub index: usize,
    /// The column at fault; absent where it is the whole row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong.
    pub cause: String,
}

/// Names a training set; the command of a Flight descriptor, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingSetCommand {
    /// Name of the feature service.
    pub feature_service: String,
    /// Whether rows that became known after the query time are invisible.
    #[serde(default)]
    pub as_known: bool,
}

/// Asks a model about the rows that go up; the command of the descriptor of a `DoExchange`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCommand {
    /// Name of the model.
    pub model: String,
    /// Its version; the one that answers by default where none is named.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether each row is predicted as of its `event_timestamp`, from history, instead of now.
    #[serde(default)]
    pub as_of: bool,
}

/// Asks for the logged predictions of a model, with what came true of them: the ticket of a `DoGet`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictionsCommand {
    /// Name of the model.
    pub predictions: String,
    /// Those that arrived at this time or later, in microseconds since the Unix epoch.
    #[serde(default)]
    pub from_us: Option<i64>,
    /// Those that arrived before this time.
    #[serde(default)]
    pub to_us: Option<i64>,
    /// Whether those without a label are left out.
    #[serde(default)]
    pub labelled: bool,
}

/// Says whose labels go up: the command of the descriptor of a `DoPut`, as JSON. The rows have `request_id`, `row`
/// (0 where there is no such column), and what came true in any other columns, such as `label`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsCommand {
    /// Name of the model.
    pub labels: String,
}

/// `POST /v1/labels`: what came true of predictions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelsRequest {
    /// Name of the model.
    pub model: String,
    /// For each `request_id`, `row` (0 where it is not said), and any other columns, such as `label`.
    pub labels: Vec<Map<String, Value>>,
}

/// What became of labels; over Flight the metadata of one `PutResult` for each batch. What is told here is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsReply {
    /// How many were taken.
    pub accepted: usize,
}

/// The reply of `POST /v1/check`: the definitions hold, and this many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// `GET /v1/definitions`: what is live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Number of the apply that made it live; 0 before the first one.
    pub number: u64,
    /// Entities, by name.
    pub entities: Vec<EntityInfo>,
    /// Feature views, by name.
    pub feature_views: Vec<FeatureViewInfo>,
    /// Feature services, by name.
    pub feature_services: Vec<FeatureServiceInfo>,
    /// Models, by name.
    pub models: Vec<ModelInfo>,
}

/// An entity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What identifies one, in key order.
    pub join_keys: Vec<ColumnInfo>,
}

/// A feature view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureViewInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of the entities that make up the key.
    pub entities: Vec<String>,
    /// Name of the source.
    pub source: String,
    /// How long a row counts; absent: for ever.
    pub ttl_us: Option<i64>,
    /// How late a row becomes visible.
    pub lag_us: i64,
    /// The features, in order.
    pub features: Vec<ColumnInfo>,
}

/// A feature service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// Type, in the words of the definition language.
    #[serde(rename = "type")]
    pub dtype: String,
}

/// A model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Versions as listed; the last one answers requests that name none.
    pub versions: Vec<ModelVersionInfo>,
}

/// A version of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its share of the requests that name no version, in parts of all weights of the model.
    #[serde(default)]
    pub weight: u64,
}

/// `POST /v1/models/{model}:route`: which version answers whom from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// Version → its weight; none gives back those that are declared.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
}

/// Its reply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// Number of the apply that is live now.
    pub number: u64,
    /// Version → its weight, of all versions.
    pub weights: BTreeMap<String, u64>,
}

/// The body of every reply that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// What went wrong and how to go on.
    pub error: String,
    /// What kind of failure it is.
    pub code: Code,
    /// When the same request may be sent again, in milliseconds, where the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Mistakes in definitions, where `code` is `definitions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<Mistake>,
    /// The rows of a push of which none was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

impl ErrorReply {
    /// One that lists nothing.
    pub fn new(code: Code, error: impl Into<String>) -> ErrorReply {
        let error = error.into();
        ErrorReply { error, code, retry_after_ms: None, mistakes: Vec::new(), rejected: Vec::new() }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is wrong.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// Sound, but refused in the state that things are in.
    Refused,
    /// Larger than the server accepts.
    TooLarge,
    /// More than the server can take at the moment; the same request may be sent again later.
    Overloaded,
    /// The answer was not there in time.
    Late,
    /// A part that the request needs is not there; later it may be.
    Unavailable,
    /// The server's own fault.
    Internal,
    /// Definitions have mistakes.
    Definitions,
}

/// One mistake in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// File, relative to the repository's root.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub cause: String,
    /// The way out, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.cause)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_reads_as_feast_writes_it() {
        let text = r#"{"push_source_name": "landings", "df": {"tailnum": ["N1"], "delay": [1.5]}, "to": "online",
            "allow_registry_cache": true, "transform_on_write": true}"#;
        let request: PushRequest = serde_json::from_str(text).unwrap();
        assert_eq!(request.to, PushTo::Online);
        assert_eq!(request.df["delay"], [Value::from(1.5)]);
        let bare: PushRequest =
            serde_json::from_str(r#"{"push_source_name": "landings", "df": {}}"#).unwrap();
        assert!(bare.to.online() && bare.to.offline());
        assert_eq!(bare.idempotency_key, None);
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let reply = PushReply { accepted: 2, rejected: vec![Rejected::default()], ..PushReply::default() };
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            r#"{"accepted":2,"repeated":0,"rejected":[{"index":0,"cause":""}]}"#
        );
        let error: ErrorReply = serde_json::from_str(r#"{"error": "later", "code": "overloaded"}"#).unwrap();
        assert_eq!((error.code, error.rejected.len()), (Code::Overloaded, 0));
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":"later","code":"overloaded"}"#);
        let error = ErrorReply { retry_after_ms: Some(1_000), ..error };
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":"later","code":"overloaded","retry_after_ms":1000}"#
        );
    }
}
