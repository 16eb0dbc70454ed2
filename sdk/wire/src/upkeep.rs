//! What is done for what is kept: written into segments now, read whole, copied?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ErrorReply;

/// Which sources' pushed rows are to be written into segments.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SealRequest {
    /// Sources; none means all.
    pub sources: Vec<String>,
}

/// What was written into segments.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Sealed {
    /// Source by source.
    pub sources: Vec<SealedSource>,
}

/// What was written of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealedSource {
    /// Name of the source.
    pub source: String,
    /// Rows that lie in segments now and did not before.
    pub rows: u64,
    /// The segments that hold them.
    pub segments: u64,
    /// Rows of before the request that lie in the log alone still: the head is being made, or another server writes
    /// them just now.
    pub left: u64,
}

/// How all is to be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubRequest {
    /// The most MiB to read in a second; absent: as fast as the disks give them.
    pub mib_per_second: Option<u64>,
}

/// One line of the reply of `POST /v1/scrub`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScrubLine {
    /// How far it is.
    Progress(ScrubProgress),
    /// Something is damaged or missing.
    Damaged(Damaged),
    /// All was read; the last line.
    Summary(ScrubSummary),
    /// It failed; the last line.
    #[serde(untagged)]
    Error(ErrorReply),
}

/// How far a scrub is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScrubProgress {
    /// What is read now: `registry`, `log`, `models` or `segments`.
    pub part: String,
    /// Bytes read so far.
    pub done_bytes: u64,
    /// Bytes to read, as far as is known.
    pub total_bytes: u64,
}

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damaged {
    /// What it is of: `registry`, `log`, `models` or `segments`.
    pub part: String,
    /// Which it is: the path of a segment in the store, the digest of a model, a folder or file of the data folder.
    pub name: String,
    /// What is wrong with it, and the way out.
    pub error: String,
}

/// What was read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ScrubSummary {
    /// Segments that count.
    pub segments: u64,
    /// Model files.
    pub models: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// How many things are damaged or missing.
    pub damaged: u64,
    /// What was not looked at, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Seconds.
    pub seconds: f64,
}

/// Where a backup goes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// A folder of the server's machine, by its whole path: new or empty.
    pub to: String,
}

/// One line of the reply of `POST /v1/backup`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupLine {
    /// How far it is.
    Progress(Copied),
    /// The backup is whole; the last line.
    Summary(BackupSummary),
    /// It failed, and nothing is left of it; the last line.
    #[serde(untagged)]
    Error(ErrorReply),
}

/// How far a copy is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Copied {
    /// The file that is copied now.
    pub file: String,
    /// Bytes copied so far.
    pub done_bytes: u64,
    /// Bytes to copy, as far as is known.
    pub total_bytes: u64,
}

/// What was copied.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct BackupSummary {
    /// Where it is.
    pub to: String,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The segments among them.
    pub segments: u64,
    /// The last commit of each source that is in it; empty where this server has no log.
    #[serde(default)]
    pub positions: BTreeMap<String, i64>,
    /// What is not in it, and what is to be done about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Seconds.
    pub seconds: f64,
}
