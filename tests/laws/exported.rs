//! What is exported is what look-ups find, of every key, bit for bit; called by the laws of rows and of windows, whose
//! oracles say what look-ups find.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion_common::ScalarValue;
use proptest::prelude::*;
use quern::wire::ViewCommand;
use quern_kit::{Node, RowState};

/// One of the views of a service.
pub(super) struct Exported<'a> {
    pub(super) service: &'a str,
    pub(super) view: &'a str,
    /// Its place among the views of the service.
    pub(super) place: usize,
    /// The place of its first feature among the service's outputs.
    pub(super) first: usize,
    /// The places of its keys among the service's inputs.
    pub(super) keys: Vec<usize>,
}

/// The latest rows at each of these times, and look-ups of `inputs`, among which each key is once.
pub(super) async fn check_latest(
    node: &Node,
    of: Exported<'_>,
    inputs: &RecordBatch,
    times_us: [i64; 2],
) -> Result<(), TestCaseError> {
    for at_us in times_us {
        let view = of.view.to_owned();
        let command = ViewCommand { view, latest: true, at_us: Some(at_us), ..ViewCommand::default() };
        let exported = node.export(&command).unwrap();
        let vectors = node.service(of.service).look_up(inputs.clone(), vec![at_us; inputs.num_rows()]).await;
        let (vectors, keys) = (vectors.unwrap(), of.keys.len());
        let found = &vectors.found[of.place];
        let features = exported.num_columns() - exported.schema().index_of("event_timestamp").unwrap() - 1;
        let created = usize::from(exported.column_by_name("created_timestamp").is_some());
        let looked_up = |row: &usize| {
            let keys = of.keys.iter().map(|place| inputs.column(*place));
            let features = vectors.vectors.columns()[of.first..].iter().take(features - created);
            // Windows are of the moment.
            let time_us = found.event_timestamps.get(*row).copied().unwrap_or(at_us);
            format!("{} at {time_us}: {}", show(keys, *row), show(features, *row))
        };
        let present = |row: &usize| found.states[*row] == RowState::Present;
        let mut expected: Vec<String> =
            (0..inputs.num_rows()).filter(present).map(|row| looked_up(&row)).collect();
        let times = exported.column(keys).as_primitive::<TimestampMicrosecondType>();
        let told = |row: usize| {
            let (keys_of, features) = exported.columns().split_at(keys);
            let features = &features[1 + created..];
            format!("{} at {}: {}", show(keys_of.iter(), row), times.value(row), show(features.iter(), row))
        };
        let mut told: Vec<String> = (0..exported.num_rows()).map(told).collect();
        expected.sort();
        told.sort();
        prop_assert_eq!(told, expected, "of {} at {}", of.view, at_us);
    }
    Ok(())
}

/// Values of a row.
pub(super) fn show<'a>(columns: impl Iterator<Item = &'a ArrayRef>, row: usize) -> String {
    let values: Vec<ScalarValue> =
        columns.map(|column| ScalarValue::try_from_array(column, row).unwrap()).collect();
    format!("{values:?}")
}
