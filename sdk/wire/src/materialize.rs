//! Which views become the head, how far is it, and what was done?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ErrorReply;

/// Which views, and which stretch of time.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaterializeRequest {
    /// Feature views; none means all.
    pub views: Vec<String>,
    /// Only rows that became visible at or after this query time, µs: a backfill. Absent: since the watermark.
    pub from_us: Option<i64>,
    /// Only rows visible at this query time, µs. Absent: now.
    pub to_us: Option<i64>,
    /// How far behind the watermark late rows are looked for, µs.
    pub look_back_us: Option<i64>,
    /// Go on without pushed rows that the log has lost: the views of their sources are made anew from what is left.
    pub accept_loss: bool,
}

/// How far one view is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The view; or, as `NAME (pulled)`, a source of a database that is pulled.
    pub view: String,
    /// Rows of history passed, both passes counted; or rows that came in.
    pub done_rows: u64,
    /// Rows to pass, as far as is known.
    pub total_rows: u64,
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// View by view.
    pub views: Vec<ViewSummary>,
    /// Source by source, of those whose rows are a database's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled: Vec<PullSummary>,
    /// Seconds for all.
    pub wall_seconds: f64,
    /// What was odd and is to be looked at; for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What was pulled of a database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PullSummary {
    /// The source.
    pub source: String,
    /// Rows that are new.
    pub rows: u64,
    /// Rows of the overlap that were there already.
    pub known: u64,
    /// Rows that are no good, or have no cursor.
    pub rejected: u64,
    /// Seconds.
    pub seconds: f64,
}

/// What was done for one view.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ViewSummary {
    /// The view.
    pub view: String,
    /// The query time up to which it is materialized, µs.
    pub to_us: i64,
    /// Rows of history read.
    pub rows_read: u64,
    /// Keys whose head is new.
    pub rows_written: u64,
    /// Keys whose head was this row already.
    pub rows_unchanged: u64,
    /// Keys whose head was a later row.
    pub rows_older: u64,
    /// Keys of which a row went out of the head that history has no more: its file is gone, or has changed.
    #[serde(default)]
    pub rows_removed: u64,
    /// Rows that the view's `where` leaves out.
    pub rows_filtered: u64,
    /// Values that are null because they could not be computed, by feature; `where` stands for rows that the view's
    /// `where` left out for that reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// The first row in which each failed, such as `data/orders.csv, row 34`, where it is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_first: BTreeMap<String, String>,
    /// Those among them of features that are `strict`: their rows were left out.
    #[serde(default)]
    pub refused: u64,
    /// Rows that cannot be stored, by cause.
    pub rejected: BTreeMap<String, u64>,
    /// Seconds.
    pub seconds: f64,
}

/// One line of the reply of `POST /v1/materialize`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaterializeLine {
    /// How far it is.
    Progress(Progress),
    /// It is done; the last line.
    Summary(Summary),
    /// It failed; the last line.
    #[serde(untagged)]
    Error(ErrorReply),
}
