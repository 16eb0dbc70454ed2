//! How is it? The reply of `GET /v1/status`: what is wrong first, and then everything that there is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ramp::RampStatus;

/// How a server is, as far as it knows and its stores say within a second. Times are RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStatus {
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// What is wrong; what keeps it from answering comes first.
    pub troubles: Vec<Trouble>,
    /// The server itself.
    pub server: ServerInfo,
    /// What it keeps everything in.
    pub stores: Stores,
    /// Feature views, by name.
    pub feature_views: Vec<ViewStatus>,
    /// Sources, by name.
    pub sources: Vec<SourceStatus>,
    /// Ramps of models that go on, and how the last ones ended, by model.
    #[serde(default)]
    pub ramps: Vec<RampStatus>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// With what.
    pub part: Part,
    /// Which of these; absent where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What, and the way out.
    pub cause: String,
}

/// What something may be wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The server: it is not ready, or does not do all that it should.
    Server,
    /// The online store.
    OnlineStore,
    /// The registry of definitions.
    Registry,
    /// The log of pushed rows.
    Log,
    /// The store of segments.
    Store,
    /// A feature view.
    FeatureView,
    /// A source.
    Source,
    /// A version of a model.
    Model,
}

/// The server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// The version of Quern.
    pub version: String,
    /// Names the process.
    pub instance: String,
    /// What time it is there.
    pub now: String,
    /// For how long it has been up.
    pub uptime_seconds: u64,
    /// Whether it answers look-ups.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// What it does not do meanwhile.
    pub degraded: Vec<Degraded>,
    /// Number of the apply that is live; 0 before the first one.
    pub apply: u64,
    /// When that was made; null before the first one.
    pub applied_at: Option<String>,
}

/// What a server does not do that answers look-ups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Degraded {
    /// `push`, `materialize` or `definitions`.
    pub part: String,
    /// Why.
    pub cause: String,
}

/// What a server keeps everything in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stores {
    /// The head.
    pub online_store: StoreStatus,
    /// The registry of definitions.
    pub registry: StoreStatus,
    /// The log of pushed rows.
    pub log: LogStatus,
    /// Predictions on their way into files.
    pub predictions: PredictionsStatus,
}

/// One store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// `rocksdb`, `redis`, `sqlite` or `postgresql`.
    pub kind: String,
    /// Where it is, without passwords.
    pub place: String,
    /// Whether it answered just now.
    pub reachable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What went wrong with it last, however long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<PastError>,
}

/// What went wrong once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastError {
    /// When.
    pub at: String,
    /// What.
    pub error: String,
}

/// The log of pushed rows, and how far the head has followed it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogStatus {
    /// `local`, `shared` or `nowhere`; then no pushes are taken.
    pub kind: String,
    /// Commits that the head has not applied yet; null where that could not be found out now.
    pub commits_behind: Option<u64>,
    /// For how long the head has lacked commits and not come nearer; 0 where it has all or goes on.
    pub behind_seconds: u64,
}

/// Predictions that are to be logged, since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PredictionsStatus {
    /// That wait to be written.
    pub waiting: u64,
    /// That were written.
    pub written: u64,
    /// That were dropped: more came than could be written.
    pub dropped: u64,
}

/// How far the head is with a feature view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ViewStatus {
    /// Name of the view.
    pub name: String,
    /// Name of its source.
    pub source: String,
    /// How far it is.
    pub head: HeadState,
    /// The query time up to which it is materialized; null where it is not.
    pub materialized_until: Option<String>,
    /// The latest run of materialize; null where none is known.
    pub last_run: Option<RunStatus>,
    /// When the latest run that did not fail ended.
    pub last_success: Option<String>,
}

/// Whether history is in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadState {
    /// Nothing of it ever was.
    Never,
    /// Rows came in, of a first run that has not ended or of pushes.
    Begun,
    /// All of it, up to a time.
    Materialized,
}

/// A run of materialize for one view. Ages and times are by the clock of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunStatus {
    /// What became of it.
    pub state: RunState,
    /// When it began.
    pub began: String,
    /// When it ended; null while it runs, and where its process died.
    pub ended: Option<String>,
    /// How long it took; null as `ended`.
    pub seconds: Option<f64>,
    /// Seconds since it ended; where it has not, since it began.
    pub age_seconds: f64,
    /// Keys whose head was new; null as `ended`.
    pub rows_written: Option<u64>,
    /// The query time up to which it has materialized.
    pub until: Option<String>,
    /// The process that ran.
    pub instance: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its process is at it.
    Running,
    /// It has ended well.
    Done,
    /// It has ended, and `error` says why.
    Failed,
    /// It began, and its process ended before it did, or has said nothing for a minute.
    Died,
}

/// What is known of a source without reading its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceStatus {
    /// Name of the source.
    pub name: String,
    /// The newest event that materialize or a push brought; null where none is known.
    pub newest_event: Option<String>,
    /// What was pushed; absent where the source takes no pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<PushedStatus>,
    /// Its stream; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
    /// How its rows are pulled of a database; absent where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullStatus>,
}

/// The pulls of a source, as this server made them since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullStatus {
    /// The connection to the database.
    pub connection: String,
    /// Rows that came in.
    pub rows: u64,
    /// When the last pull began that ended well; null where none did.
    pub at: Option<String>,
    /// Why the last one failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Rows that were pushed to a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PushedStatus {
    /// All of them.
    pub rows: u64,
    /// Those that are in no file yet.
    pub tail_rows: u64,
    /// Files of the others.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Commits that the head has not applied yet; null where that could not be found out now.
    pub commits_behind: Option<u64>,
    /// Rows that this server took since it started.
    pub accepted: u64,
    /// Rows that it had already.
    pub repeated: u64,
    /// Rows that it refused.
    pub rejected: u64,
}

/// The stream of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamStatus {
    /// `kafka` or `redis`.
    pub broker: String,
    /// The topic, or the stream's key.
    pub topic: String,
    /// Whether this server reads it, or some of it.
    pub reads: bool,
    /// The partitions of its topic; absent where the broker has none, or they are not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionsStatus>,
    /// Why it cannot be read now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Events that wait to be read by this server, where the broker tells; as of some seconds ago.
    pub waiting_events: Option<u64>,
    /// How far the last event that was read lies behind the stream's last one, where the broker tells.
    pub behind_seconds: Option<f64>,
}

/// The partitions of a topic. Servers that share a log share them: each is read by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionsStatus {
    /// Those that this server reads.
    pub here: Vec<i32>,
    /// How many there are.
    pub all: u64,
}
