//! Which labels belong to no request that was logged, and how many of these are kept?
//!
//! A label may come before its prediction is in a file, and its request may be none of the sample: so the newest are
//! kept, as many as there is room for. The others would be there for ever, and anybody may send any number of them.

use std::collections::HashMap;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use quern_engine::size::row_bytes;

use super::{REQUEST_ID, required};
use crate::error::Result;
use crate::logged::{Between, PredictionLog};
use crate::metrics::metrics;

/// What labels that belong to no logged request may hold when they are looked at, of each model.
const STRANGERS_BYTES_MAX: usize = 32 << 20;

/// The labels of `model` without the oldest of those that belong to no logged request, where these hold too much.
pub(super) fn sift(log: &PredictionLog, model: &str, labels: RecordBatch) -> Result<RecordBatch> {
    // What was predicted a moment ago is logged as well.
    log.flush_here();
    let ids = required(&labels, REQUEST_ID)?.as_string::<i32>();
    let mut logged: HashMap<&str, bool> = ids.iter().flatten().map(|id| (id, false)).collect();
    for file in log.files(model, Between::default())? {
        log.request_ids(&file, |id| {
            if let Some(logged) = logged.get_mut(id) {
                *logged = true;
            }
        })?;
    }
    let (mut strangers, mut kept) = (0, vec![true; labels.num_rows()]);
    for row in (0..labels.num_rows()).rev() {
        if !logged.get(ids.value(row)).copied().unwrap_or_default() {
            strangers += row_bytes(&labels.slice(row, 1));
            kept[row] = strangers <= STRANGERS_BYTES_MAX;
        }
    }
    let dropped = kept.iter().filter(|kept| !**kept).count();
    if dropped == 0 {
        return Ok(labels);
    }
    metrics().labels_dropped.with_label_values(&[model]).inc_by(dropped as u64);
    tracing::warn!(model, dropped, "labels that belong to no logged request are more than are kept");
    Ok(filter_record_batch(&labels, &BooleanArray::from(kept))?)
}
