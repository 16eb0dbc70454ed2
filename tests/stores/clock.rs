//! What becomes of the head when a clock was wrong? Nothing for good.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::Int64Type;
use quern_kit::{Node, Repository, Status, Store, metric};

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n---\n\
    kind: Source\nname: s\nbatch: {format: csv, path: data/*.csv}\nevent_timestamp: at\n\
    columns: [{name: k, type: string}, {name: at, type: timestamp}, {name: x, type: int64}]\n---\n\
    kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [x]\n---\n\
    kind: FeatureView\nname: w\nentities: [e]\nsource: s\naggregations:\n  \
    - {name: events, function: count, windows: [1d, 30d, lifetime]}\n---\n\
    kind: FeatureService\nname: svc\nfeatures: [v, w]\n";

const DAY_US: i64 = 86_400_000_000;
/// 2024-03-01
const NOW_US: i64 = 1_709_251_200_000_000;

/// What is looked up for `a` and `b` at this time: the latest value, and how many events there were.
async fn found(node: &Node, at_us: i64) -> Vec<(Status, Option<i64>, i64)> {
    let service = node.service("svc");
    let keys = service.inputs(vec![Arc::new(StringArray::from(vec!["a", "b"]))]);
    let found = service.look_up(keys, vec![at_us; 2]).await.unwrap();
    let number = |name: &str| found.vectors.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (x, events) = (number("x"), number("events_30d"));
    (0..2)
        .map(|row| (found.status(0, row), x.is_valid(row).then(|| x.value(row)), events.value(row)))
        .collect()
}

async fn a_run_under_a_clock_that_was_ahead_hides_nothing(store: Store) {
    let repository = Repository::new(DEFINITIONS);
    repository.write("data/0.csv", "k,at,x\na,2024-02-20T00:00:00Z,1\n");
    let node = repository.open_applied_on(store).await;
    assert!(node.materialize(NOW_US + 400 * DAY_US).warnings.is_empty());
    let until = |node: &Node| {
        metric(&node.metrics(), "quern_materialized_until_seconds{feature_view=\"v\"}").unwrap()
    };
    assert_eq!(until(&node), ((NOW_US + 400 * DAY_US) / 1_000_000) as f64);
    // Of before the look-back, of which the run ahead knew nothing.
    repository.write("data/1.csv", "k,at,x\na,2024-02-10T00:00:00Z,7\nb,2024-02-21T00:00:00Z,8\n");
    let warnings = node.materialize(NOW_US).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("feature view `v` was materialized up to 2025-04-05T00:00:00Z"),
        "{warnings:?}"
    );
    let expected = [(Status::Present, Some(1), 2), (Status::Present, Some(8), 1)];
    assert_eq!(found(&node, NOW_US).await, expected);
    assert_eq!(until(&node), (NOW_US / 1_000_000) as f64);
    // From then on all is as ever; clocks of servers that share a head may differ by a little.
    repository.write("data/2.csv", "k,at,x\nb,2024-02-29T12:00:00Z,9\n");
    assert!(node.materialize(NOW_US + 10_000_000).warnings.is_empty());
    assert!(node.materialize(NOW_US).warnings.is_empty());
    let expected = [(Status::Present, Some(1), 2), (Status::Present, Some(9), 2)];
    assert_eq!(found(&node, NOW_US).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_under_a_clock_that_was_ahead_hides_nothing_in_rocksdb() {
    a_run_under_a_clock_that_was_ahead_hides_nothing(Store::Rocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_under_a_clock_that_was_ahead_hides_nothing_in_redis() {
    a_run_under_a_clock_that_was_ahead_hides_nothing(Store::Redis).await;
}
