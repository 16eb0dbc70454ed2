//! What is asked over Arrow Flight, where the rows are tables? And labels, which may be JSON as well.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::pin::TrainingSetPin;

/// In the metadata of a training set's Arrow schema: the name of its feature service.
pub const FEATURE_SERVICE: &str = "quern.feature_service";
/// And the names of the service's outputs in its order, a JSON array: the columns that a model takes, as it takes them.
pub const OUTPUTS: &str = "quern.outputs";
/// And what stands for null in those that declare it, a JSON object; absent where none does.
pub const DEFAULTS: &str = "quern.defaults";
/// And the fingerprint of `exp`, `sin` and their like, as the server computed them: whoever serves a model that was
/// trained with this table serves the same bits if it has the same fingerprint.
pub const FUNCTIONS: &str = "quern.functions";
/// In the metadata of a table that is whole, in memory or as a Parquet file: how many values of each feature are null
/// because they could not be computed, a JSON object; absent where none is.
pub const FAILED: &str = "quern.failed";
/// And what a training set was made of, as JSON: a [`TrainingSetPin`], by which a model version remembers it.
pub const TRAINING_SET: &str = "quern.training_set";
/// In the metadata of the Arrow schema of a batch prediction: the column that says who answered each row.
pub const SERVED_BY: &str = "quern.served_by";
/// And the one that says why, where it was not the version whose turn it was.
pub const FALLBACK_CAUSE: &str = "quern.fallback_cause";

/// Names a training set; the command of a Flight descriptor, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingSetCommand {
    /// Name of the feature service.
    pub feature_service: String,
    /// Whether rows that became known after the query time are invisible.
    #[serde(default)]
    pub as_known: bool,
    /// How many of its batches came already: of one that broke off, those that follow are sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
}

/// What else there is to say of a training set or a batch prediction: the metadata of its record batches, as JSON. Each
/// says what came with its own rows, and all of them [together](TableNotes::add) what there is to say of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableNotes {
    /// How many rows the spine has; with the first batch of a training set.
    #[serde(skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// How many of them see a row of history that became visible at their very `event_timestamp`, by feature view: it
    /// may be the event that they stand for. Views with `at: before` see none. With the first batch of a training set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub coinciding: BTreeMap<String, u64>,
    /// Of how many rows each feature is null because it could not be computed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// What was read of the files of sources in object stores; with the first batch of a training set.
    #[serde(skip_serializing_if = "ObjectReads::is_none")]
    pub read: ObjectReads,
    /// What it was made of; with the last batch of a training set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Box<TrainingSetPin>>,
}

/// What was read of files in object stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectReads {
    /// Requests for parts of files, without those that were sent again, and without those that list files.
    pub requests: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that were read of copies in the data folder instead.
    pub copied_bytes: u64,
}

impl ObjectReads {
    fn is_none(&self) -> bool {
        *self == ObjectReads::default()
    }
}

fn is_zero(rows: &u64) -> bool {
    *rows == 0
}

impl TableNotes {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == TableNotes::default()
    }

    /// Adds what came with other rows.
    pub fn add(&mut self, other: &TableNotes) {
        let TableNotes { rows, coinciding, failed, read, pin } = other;
        self.rows += rows;
        self.read.requests += read.requests;
        self.read.bytes += read.bytes;
        self.read.copied_bytes += read.copied_bytes;
        if pin.is_some() {
            self.pin.clone_from(pin);
        }
        for (all, more) in [(&mut self.coinciding, coinciding), (&mut self.failed, failed)] {
            for (name, count) in more {
                *all.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// What people should be told, if anything.
    pub fn warnings(&self) -> Vec<String> {
        let view = |(view, count): (&String, &u64)| format!("\n  {view}: {count} of {} rows", self.rows);
        let views: String = self.coinciding.iter().map(view).collect();
        let coinciding = (!views.is_empty()).then(|| {
            format!(
                "rows of the spine see a row that became visible at their very `event_timestamp`, in feature views{views}\n  \
                 where it is the event that they stand for, give the view `at: before`, or the service `exclude_event`"
            )
        });
        let failed = self.failed.iter().map(|(feature, count)| match count {
            1 => format!("1 value of `{feature}` could not be computed"),
            _ => format!("{count} values of `{feature}` could not be computed"),
        });
        coinciding.into_iter().chain(failed).collect()
    }
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
    /// How many of its batches came already: of a table that broke off, those that follow are sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
}

/// Asks for the rows of a feature view as one table: the ticket of a `DoGet`, as JSON. Its columns are the join keys,
/// `event_timestamp`, `created_timestamp` where the view's source has one, and the features.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewCommand {
    /// Name of the feature view.
    pub view: String,
    /// Its features that are wanted, in this order; all where none is named.
    #[serde(default)]
    pub features: Vec<String>,
    /// Rows with this event timestamp or a later one, in microseconds since the Unix epoch.
    #[serde(default)]
    pub from_us: Option<i64>,
    /// Rows with an earlier event timestamp.
    #[serde(default)]
    pub to_us: Option<i64>,
    /// Whether there is one row for each entity instead, with what a look-up finds at one moment.
    #[serde(default)]
    pub latest: bool,
    /// That moment; now where none is named.
    #[serde(default)]
    pub at_us: Option<i64>,
    /// How many of its batches came already: of a table that broke off, those that follow are sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
}

/// Asks for the rows of a source's history as one table, in its own columns: the ticket of a `DoGet`, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCommand {
    /// Name of the source.
    pub source: String,
    /// Rows with this event timestamp or a later one, in microseconds since the Unix epoch.
    #[serde(default)]
    pub from_us: Option<i64>,
    /// Rows with an earlier event timestamp.
    #[serde(default)]
    pub to_us: Option<i64>,
    /// How many of its batches came already: of a table that broke off, those that follow are sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
}

/// Says whose labels go up: the command of the descriptor of a `DoPut`, as JSON. The rows have `request_id`, `row`
/// (0 where there is no such column), and what came true in any other columns, such as `label`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsCommand {
    /// Name of the model.
    pub labels: String,
}

/// `POST /v1/labels`: what came true of predictions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LabelsRequest {
    /// Name of the model.
    pub model: String,
    /// For each `request_id`, `row` (0 where it is not said), and any other columns, such as `label`.
    pub labels: Vec<Map<String, Value>>,
}

/// What became of labels; over Flight the metadata of one `PutResult` for each batch. What is told here is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelsReply {
    /// How many were taken.
    pub accepted: usize,
}
