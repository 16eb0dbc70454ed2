//! Do all who ask hear how many values could not be computed, each once?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use futures::{StreamExt, TryStreamExt, stream};
use quern::wire::{BatchCommand, PredictRequest};
use quern_kit::{Repository, Server, fixture, required};
use serde_json::{Value, json};

/// Of key 2 nothing can be divided by, of any key nothing by a request of 0.
const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
    kind: Source\nname: s\nbatch: {format: csv, path: rows.csv}\nevent_timestamp: at\n\
    columns: [{name: k, type: int64}, {name: at, type: timestamp}, {name: n, type: int64}]\n---\n\
    kind: FeatureView\nname: latest\nentities: [e]\nsource: s\nfeatures: [{name: share, expr: 100 / n}]\n---\n\
    kind: FeatureView\nname: sums\nentities: [e]\nsource: s\n\
    aggregations: [{name: shares, function: sum, of: 100 / n, windows: [lifetime]}]\n---\n\
    kind: FeatureService\nname: svc\nrequest: [{name: r, type: int64}]\nfeatures: [latest, sums]\n\
    derived: [{name: part, expr: 10 / r, default: 0}]\noutputs: [share, shares_lifetime, part]\n---\n\
    kind: Model\nname: m\nversions:\n  - {version: 1, path: linear.onnx, service: svc}\n  \
    - {version: 2, path: linear.onnx, service: svc}\n\
    fallback: {max_missing: 0.3, to: [{version: 1}, {constant: 7}]}\nroute: {weights: {2: 1}}\n";

const ROWS: &str = "k,at,n\n1,2026-01-01T00:00:00Z,5\n2,2026-01-01T00:00:00Z,0\n";

async fn serve() -> Server {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    repository.write("rows.csv", ROWS);
    repository.write("linear.onnx", fixture("linear.onnx"));
    let node = repository.open_applied().await;
    node.materialize_to(FEBRUARY_US);
    Server::of(repository, node).await
}

/// 2026-02-01.
const FEBRUARY_US: i64 = 1_769_904_000_000_000;

/// Of ten rows three are of key 2, two of nobody's, and one brings a 0.
fn spine(rows: usize) -> RecordBatch {
    let k: Int64Array = (0..rows).map(|row| Some([1, 1, 2, 1, 3, 2, 1, 3, 2, 1][row % 10])).collect();
    let r: Int64Array = (0..rows).map(|row| Some((row % 10) as i64)).collect();
    let times = TimestampMicrosecondArray::from(vec![FEBRUARY_US; rows]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] =
        [("k", Arc::new(k)), ("r", Arc::new(r)), ("event_timestamp", Arc::new(times))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.map(|(feature, rows)| (feature.to_owned(), rows)).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_set_counts_the_rows_of_all_its_batches() {
    let server = serve().await;
    let rows = 20_000;
    let spine = spine(rows);
    let mut set =
        server.client.training_set("svc", spine.schema(), stream::iter([spine]), false).await.unwrap();
    let (mut batches, mut nulls, mut told) = (0, [0; 3], 0);
    while let Some(batch) = set.next().await {
        let batch = batch.unwrap();
        for (output, nulls) in ["share", "shares_lifetime", "part"].into_iter().zip(&mut nulls) {
            *nulls += batch.column_by_name(output).unwrap().null_count();
        }
        batches += 1;
        // What came so far.
        assert!(told < set.notes().failed["part"]);
        told = set.notes().failed["part"];
    }
    assert!(batches > 3, "{batches}");
    // Of key 3 there is no row, which is no failure.
    assert_eq!(nulls, [rows / 2, rows / 2, rows / 10]);
    // The event that sums leave out is one, however many rows see its window.
    let failed = counts([("part", 2_000), ("share", 6_000), ("shares_lifetime", 1)]);
    assert_eq!((set.notes().rows, &set.notes().failed), (20_000, &failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_predictions_count_what_their_versions_saw() {
    let server = serve().await;
    let rows = 5_000;
    for as_of in [false, true] {
        let command = BatchCommand { model: "m".to_owned(), version: None, as_of };
        let table = spine(rows);
        let mut answers =
            server.client.predict_batch(&command, table.schema(), stream::iter([table])).await.unwrap();
        let answered: Vec<RecordBatch> = (&mut answers).try_collect().await.unwrap();
        assert_eq!(answered.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        // Now is answered by what is stored, nulls and all.
        let failed = match as_of {
            false => counts([("part", 500)]),
            true => counts([("part", 500), ("share", 1_500), ("shares_lifetime", 1)]),
        };
        assert_eq!(answers.notes().failed, failed, "as of: {as_of}");
    }
}

/// Whose features are missing is left to another version, which looks up the same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_count_each_value_once_whoever_answers() {
    let server = serve().await;
    let instance = |k: i64, r: i64| json!({"k": k, "r": r});
    let object = |value: Value| value.as_object().unwrap().clone();
    let instances = [instance(3, 0), instance(1, 0), instance(3, 1), instance(2, 5)].map(object).to_vec();
    let request = PredictRequest { instances, with_features: false };
    let said = server.client.predict_with("m", None, &request).await.unwrap();
    assert_eq!(said.served_by, ["1", "2", "1", "2"]);
    assert_eq!(said.failed, counts([("part", 2)]));

    let column = |values: &[i64]| values.iter().map(|value| Value::from(*value)).collect();
    let entities =
        BTreeMap::from([("k".to_owned(), column(&[1, 1, 2])), ("r".to_owned(), column(&[0, 5, 0]))]);
    let found = server.client.get_online_features("svc", entities).await.unwrap();
    assert_eq!(found.metadata.failed, counts([("part", 2)]));
}

/// An event that does not count cannot fail; asked about another one, it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_event_that_does_not_count_nothing_fails() {
    let repository = Repository::new(
        "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
        kind: Source\nname: s\nbatch: {format: csv, path: rows.csv}\nevent_timestamp: at\nevent_id: [id]\ncolumns: \
        [{name: k, type: int64}, {name: at, type: timestamp}, {name: n, type: int64}, {name: id, type: int64}]\n---\n\
        kind: FeatureView\nname: sums\nentities: [e]\nsource: s\n\
        aggregations: [{name: shares, function: sum, of: 100 / n, windows: [lifetime]}]\n---\n\
        kind: FeatureService\nname: svc\nrequest: [{name: id, type: int64}]\n\
        features: [{view: sums, exclude_event: id}]\n",
    );
    repository.write("rows.csv", "k,at,n,id\n1,2026-01-01T00:00:00Z,5,1\n1,2026-01-02T00:00:00Z,0,2\n");
    let node = repository.open_applied().await;
    node.materialize_to(FEBRUARY_US);
    let server = Server::of(repository, node).await;
    let failed = async |ids: &[i64]| {
        let column = |values: Vec<i64>| values.into_iter().map(Value::from).collect::<Vec<_>>();
        let keys = ("k".to_owned(), column(vec![1; ids.len()]));
        let entities = BTreeMap::from([keys, ("id".to_owned(), column(ids.to_vec()))]);
        server.client.get_online_features("svc", entities).await.unwrap().metadata.failed
    };
    assert_eq!(failed(&[2]).await, counts([]));
    assert_eq!(failed(&[1]).await, counts([("shares_lifetime", 1)]));
    assert_eq!(failed(&[1, 2, 2]).await, counts([("shares_lifetime", 1)]));
}
