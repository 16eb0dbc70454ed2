//! Which rows are pushed, and what became of them?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /push`, as Feast's feature server speaks it: rows for a source that takes them.
///
/// What Feast sends besides, `allow_registry_cache` and `transform_on_write`, says nothing here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// False where look-ups do not see all of them yet; absent where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
}

/// A pushed row that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// Place of the row in the request, or in its batch, from 0.
    pub index: usize,
    /// The column at fault; absent where it is the whole row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What is wrong.
    pub cause: String,
}
