//! Is a file touched that has not changed since it was read?

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use quern_kit::{Node, Process, Repository, Store, Summary, metric};
use serde_json::Value;

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n---\n\
    kind: Source\nname: s\nbatch: {format: parquet, path: data/*.parquet}\nevent_timestamp: at\n---\n\
    kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [x]\n---\n\
    kind: FeatureView\nname: w\nentities: [e]\nsource: s\naggregations:\n  \
    - {name: events, function: count, windows: [1d, 30d]}\n---\n\
    kind: FeatureService\nname: svc\nfeatures: [v, w]\n";

const HOUR_US: i64 = 3_600_000_000;
/// 2024-03-01, noon.
const NOW_US: i64 = 1_709_294_400_000_000;

/// Of each row its key, how many hours before now it was, and its value.
fn rows(rows: &[(&str, i64, i64)], now_us: i64) -> RecordBatch {
    let times = rows.iter().map(|row| now_us - row.1 * HOUR_US);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
    RecordBatch::try_from_iter([("k", keys), ("at", times), ("x", values)]).unwrap()
}

/// The latest value of `a` and `b`, and how many events each has had.
async fn found(node: &Node, at_us: i64) -> Vec<(Option<i64>, i64)> {
    let service = node.service("svc");
    let keys = service.inputs(vec![Arc::new(StringArray::from(vec!["a", "b"]))]);
    let found = service.look_up(keys, vec![at_us; 2]).await.unwrap().vectors;
    let number = |name: &str| found.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let (x, events) = (number("x"), number("events_30d"));
    (0..2).map(|row| (x.is_valid(row).then(|| x.value(row)), events.value(row))).collect()
}

fn read(summary: &Summary) -> Vec<u64> {
    summary.views.iter().map(|view| view.rows_read).collect()
}

async fn what_is_new_is_seen_and_what_is_not_is_not_read_again(store: Store) {
    let repository = Repository::new(DEFINITIONS);
    repository.write_parquet("data/m.parquet", &rows(&[("a", 3, 1), ("b", 2, 2)], NOW_US));
    repository.write_parquet("data/f.parquet", &rows(&[("b", -2, 3)], NOW_US));
    let node = repository.open_applied_on(store).await;
    assert_eq!(read(&node.materialize(NOW_US)), [2, 3], "one is yet to come");
    let again = node.materialize(NOW_US + HOUR_US);
    assert_eq!(read(&again), [0, 0], "nothing has changed");
    assert_eq!(again.views[0].to_us, NOW_US + HOUR_US);
    assert_eq!(found(&node, NOW_US + HOUR_US).await, [(Some(1), 1), (Some(2), 1)]);
    // No file has changed, but what was yet to come has come.
    let now_us = NOW_US + 3 * HOUR_US;
    assert_eq!(read(&node.materialize(now_us)), [3, 3]);
    assert_eq!(found(&node, now_us).await, [(Some(1), 1), (Some(3), 2)]);
    // A file of the same times, whose rows count as arrived before those that are known.
    repository.write_parquet("data/a.parquet", &rows(&[("a", 3, 10), ("b", -2, 30)], NOW_US));
    assert_eq!(read(&node.materialize(now_us + 1)), [5, 5]);
    assert_eq!(found(&node, now_us + 1).await, [(Some(1), 2), (Some(3), 3)]);
    // Files that are written anew at the same times, and one that came late.
    repository.write_parquet("data/m.parquet", &rows(&[("a", 3, 4), ("b", 2, 2)], NOW_US));
    repository.write_parquet("data/f.parquet", &rows(&[("b", -2, 5)], NOW_US));
    repository.write_parquet("data/z.parquet", &rows(&[("a", 1, 6)], NOW_US));
    assert_eq!(read(&node.materialize(now_us + 2)), [6, 6]);
    assert_eq!(found(&node, now_us + 2).await, [(Some(6), 3), (Some(5), 3)]);
    assert_eq!(read(&node.materialize(now_us + 3)), [0, 0]);
    // One that is gone: its events are in no window any more.
    std::fs::remove_file(repository.path().join("data/a.parquet")).unwrap();
    assert_eq!(read(&node.materialize(now_us + 4)), [4, 4]);
    assert_eq!(found(&node, now_us + 4).await, [(Some(6), 2), (Some(5), 2)]);
    // Whoever says how far to look back has reasons to, and a head that was lost has nothing.
    assert_eq!(read(&node.materialize_to(now_us + 5)), [4, 4]);
    assert_eq!(read(&node.materialize(now_us + 6)), [4, 4], "of another watermark than it had left");
    assert_eq!(read(&node.materialize(now_us + 7)), [0, 0]);
    node.head().drop_views(&[node.view("v")]).unwrap();
    assert_eq!(read(&node.materialize(now_us + 8)), [4, 0]);
    assert_eq!(found(&node, now_us + 8).await, [(Some(6), 2), (Some(5), 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_is_seen_and_what_is_not_is_not_read_again_in_rocksdb() {
    what_is_new_is_seen_and_what_is_not_is_not_read_again(Store::Rocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_is_seen_and_what_is_not_is_not_read_again_in_redis() {
    what_is_new_is_seen_and_what_is_not_is_not_read_again(Store::Redis).await;
}

/// Asks a server to materialize all, and returns how many rows of each view it read and how many files it opened.
async fn opened(server: &Process) -> (Vec<u64>, f64) {
    let count = async || {
        let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
        metric(&metrics, "quern_history_files_opened_total").unwrap()
    };
    let before = count().await;
    let request = reqwest::Client::new().post(format!("{}/v1/materialize", server.url));
    let reply = request.header("content-type", "application/json").body("{}").send().await.unwrap();
    let text = reply.text().await.unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let summary: Summary =
        serde_json::from_value(last["summary"].clone()).unwrap_or_else(|_| panic!("{text}"));
    (read(&summary), count().await - before)
}

/// In a process of its own: what it counts, nobody else has opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_opened_again_when_it_has_changed_or_its_rows_are_read() {
    let repository = Repository::new(DEFINITIONS);
    let now_us = chrono::Utc::now().timestamp_micros();
    // Of the last day are two of them.
    for file in 0..20 {
        let rows = rows(&[("a", 1 + file * 13, file), ("b", 2 + file * 13, file)], now_us);
        repository.write_parquet(&format!("data/{file:02}.parquet"), &rows);
    }
    quern_kit::run(repository.path(), &["apply"]).answer();
    let server = Process::start(repository.path());
    let (rows_read, files) = opened(&server).await;
    assert_eq!(rows_read, [40, 40]);
    assert!(files >= 20.0, "{files}");
    assert_eq!(opened(&server).await, (vec![0, 0], 0.0));
    // One of the last day is looked at, and with it only those of that day are read.
    repository.write_parquet("data/20.parquet", &rows(&[("a", 3, 1)], now_us));
    let (rows_read, files) = opened(&server).await;
    assert_eq!(rows_read[0], 5);
    assert!((3.0..25.0).contains(&files), "{files}");
    assert_eq!(opened(&server).await, (vec![0, 0], 0.0));
    // One that is old news comes in as well, and what has come since is read with it.
    repository.write_parquet("data/21.parquet", &rows(&[("c", 500, 1)], now_us));
    assert_eq!(opened(&server).await.0, [42, 42]);
    assert_eq!(opened(&server).await, (vec![0, 0], 0.0));
}
