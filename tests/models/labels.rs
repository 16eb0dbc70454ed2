//! Do labels find the predictions that they belong to, whenever they come and however often?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use futures::TryStreamExt;
use quern::wire::{LabelsRequest, PredictionsCommand};
use quern_kit::{Compacted, Node, Random, Room, Server, until};
use serde_json::{Value, json};

use super::predictions::{ask, repository};
use crate::planes::{self, JANUARY_10_US, instance};

fn command(labelled: bool) -> PredictionsCommand {
    PredictionsCommand { predictions: "delay".to_owned(), labelled, ..PredictionsCommand::default() }
}

/// The joined set, without the columns that are others each time.
async fn joined(server: &Server, command: &PredictionsCommand) -> String {
    let rows = server.client.predictions(command).await.unwrap();
    let schema = rows.schema().clone();
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    let is_stable = |name: &str| !["arrived_at", "latency_us", "labelled_at"].contains(&name);
    let places: Vec<usize> =
        (0..schema.fields().len()).filter(|place| is_stable(schema.field(*place).name())).collect();
    let batches: Vec<_> = batches.iter().map(|rows| rows.project(&places).unwrap()).collect();
    format!("{}\n", pretty_format_batches(&batches).unwrap())
}

async fn check(server: &Server, labelled: bool, expected: Expect) {
    expected.assert_eq(&joined(server, &command(labelled)).await);
}

async fn label(server: &Server, labels: Value) -> String {
    let body = json!({"model": "delay", "labels": labels}).to_string();
    let (status, text) = server.ask("POST", "/v1/labels", body).await;
    format!("{status} {text}")
}

async fn start() -> Server {
    let repository = repository();
    let node = planes::open(&repository).await;
    Server::of(repository, node).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_join_their_predictions_and_the_last_one_counts() {
    let server = start().await;
    ask(&server, "a", "/v1/models/delay:predict", vec![instance("N1", 2000.0), instance("N3", 1.0)]).await;
    ask(&server, "b", "/v1/models/delay:predict", vec![instance("N4", 5.0)]).await;
    check(
        &server,
        true,
        expect![[r#"
        ++
        ++
    "#]],
    )
    .await;
    let labels = json!([{"request_id": "a", "row": 1, "label": 1}, {"request_id": "b", "label": 2.5}, {"request_id": "lost", "label": 3}]);
    assert_eq!(label(&server, labels).await, "200 {\"accepted\":3}");
    // Whole numbers, a fraction, and a column that comes later; of row 1 the last counts.
    let again = json!([{"request_id": "a", "row": 1, "label": 8, "by": "tower"}, {"request_id": "a", "row": 1, "label": 9}]);
    assert!(label(&server, again).await.starts_with("200"));
    check(&server, false, expect![[r#"
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
        | request_id | row | event_timestamp      | version | reason  | tailnum | distance | last_delay | far   | prediction.y | label | by |
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
        | a          | 0   | 2013-01-10T00:00:00Z | 1       | default | N1      | 2000.0   | 7.5        | true  | 2175.5       |       |    |
        | a          | 1   | 2013-01-10T00:00:00Z | 1       | default | N3      | 1.0      | -2.25      | false | -21.0        | 9.0   |    |
        | b          | 0   | 2013-01-10T00:00:00Z | 1       | default | N4      | 5.0      |            | false | NaN          | 2.5   |    |
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
    "#]]).await;
    check(&server, true, expect![[r#"
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
        | request_id | row | event_timestamp      | version | reason  | tailnum | distance | last_delay | far   | prediction.y | label | by |
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
        | a          | 1   | 2013-01-10T00:00:00Z | 1       | default | N3      | 1.0      | -2.25      | false | -21.0        | 9.0   |    |
        | b          | 0   | 2013-01-10T00:00:00Z | 1       | default | N4      | 5.0      |            | false | NaN          | 2.5   |    |
        +------------+-----+----------------------+---------+---------+---------+----------+------------+-------+--------------+-------+----+
    "#]]).await;
    let none = PredictionsCommand { to_us: Some(0), ..command(false) };
    assert!(!joined(&server, &none).await.contains("N1"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_belong_to_nothing_are_told_why() {
    let server = start().await;
    let mut said = String::new();
    for labels in [
        json!([]),
        json!([{"row": 1, "label": 2}]),
        json!([{"request_id": "a", "row": 0.5, "label": 2}]),
        json!([{"request_id": "a", "label": 2}, {"label": 2}]),
        json!([{"request_id": "a", "label": "x"}, {"request_id": "a", "label": 2}]),
        json!([{"request_id": "a", "label": [1]}]),
        json!([{"request_id": "a", "labelled_at": 1}]),
        json!(7),
    ] {
        said += &(label(&server, labels).await + "\n");
    }
    assert!(label(&server, json!([{"request_id": "a", "label": 2}])).await.starts_with("200"));
    said += &label(&server, json!([{"request_id": "a", "label": "x"}])).await;
    expect![[r#"
        400 {"error":"`labels` is empty; give each as in `{\"request_id\": \"…\", \"row\": 0, \"label\": 1.0}`","code":"invalid_argument"}
        400 {"error":"labels need a column `request_id`","code":"invalid_argument"}
        400 {"error":"the labels' column `row` cannot be read as int64: 0.5 is not a whole number","code":"invalid_argument"}
        400 {"error":"label 1 has no `request_id`","code":"invalid_argument"}
        400 {"error":"the labels' column `label` must be all numbers, all texts or all `true` and `false`","code":"invalid_argument"}
        400 {"error":"the labels' column `label` must be all numbers, all texts or all `true` and `false`","code":"invalid_argument"}
        400 {"error":"labels have a column `labelled_at` already; name it otherwise","code":"invalid_argument"}
        400 {"error":"the request: invalid type: integer `7`, expected a sequence at line 1 column 27","code":"invalid_argument"}
        400 {"error":"the labels' column `label` was int64 before, and is string now","code":"invalid_argument"}"#]].assert_eq(&said);
    let unknown = LabelsRequest { model: "dely".to_owned(), ..LabelsRequest::default() };
    assert!(server.client.label(&unknown).await.is_err());
    let unknown = PredictionsCommand { predictions: "dely".to_owned(), ..PredictionsCommand::default() };
    let error = server.client.predictions(&unknown).await.err().unwrap().to_string();
    assert!(error.contains("did you mean `delay`?"), "{error}");
    server.stop().await;
}

fn rows(ids: &[String], labels: &[f64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("request_id", Arc::new(StringArray::from_iter_values(ids))),
        ("row", Arc::new(Int64Array::from(vec![0; ids.len()]))),
        ("label", Arc::new(Float64Array::from(labels.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// What labels of requests that nobody logged may take, and how many labels are looked at together.
const ROOM_BYTES: u64 = 32 << 20;
const TOGETHER: usize = 1 << 19;

/// The label of a request's first row; none where it has none.
fn label_of(node: &Node, id: &str) -> Option<f64> {
    let values = node.labels("delay").value("label", id, 0)?;
    Some(values.as_primitive::<Float64Type>().value(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_segments_become_one_and_nothing_is_lost() {
    let repository = repository();
    let node = planes::open(&repository).await;
    for round in 0..150 {
        let ids = [format!("own-{round}"), "shared".to_owned()];
        node.label("delay", &rows(&ids, &[f64::from(round), f64::from(round)]), round.into());
        if round % 10 == 9 {
            node.seal_labels("delay");
        }
    }
    assert_eq!(node.label_segments("delay").len(), 15);
    let before = node.labels("delay");
    let expected = Compacted { parts: 15, wholes: 1, superseded: 149, dropped: 0 };
    assert_eq!(node.compact_labels(ROOM_BYTES, TOGETHER), expected);
    let segments = node.label_segments("delay");
    assert_eq!((segments.len(), segments[0].range.end, segments[0].rows), (1, 300, 151));
    // Nothing has come since.
    assert_eq!(node.compact_labels(ROOM_BYTES, TOGETHER), Compacted::default());
    // Whoever has listed the segments before reads them still.
    assert_eq!(before.value("label", "shared", 0).unwrap().as_primitive::<Float64Type>().value(0), 149.0);
    node.label("delay", &rows(&["own-7".to_owned()], &[-7.0]), 7);
    drop((before, node));
    let node = repository.open().await;
    assert_eq!(node.label_tail_rows("delay"), 1);
    for round in (0..150).filter(|round| *round != 7) {
        assert_eq!(label_of(&node, &format!("own-{round}")), Some(f64::from(round)));
    }
    assert_eq!((label_of(&node, "shared"), label_of(&node, "own-7")), (Some(149.0), Some(-7.0)));
    assert_eq!(label_of(&node, "nobody"), None);
}

/// Whatever comes, and whatever is done with it in between, every label is found that a naive oracle has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_label_is_found_whatever_is_written_compacted_and_opened_again() {
    let mut random = Random::new("labels");
    for _ in 0..quern_kit::cases(4) {
        let repository = repository();
        let mut node = planes::open(&repository).await;
        let mut oracle: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for step in 0..60 {
            match random.below(10) {
                0 | 1 => node.seal_labels("delay"),
                2 => drop(node.compact_labels(ROOM_BYTES, 1 + random.below(40) as usize)),
                3 => {
                    drop(node);
                    node = repository.open().await;
                }
                _ => {
                    let count = 1 + random.below(20);
                    let keys: Vec<(String, i64)> = (0..count)
                        .map(|_| (format!("r{}", random.below(40)), random.below(3) as i64))
                        .collect();
                    let values: Vec<i64> = (0..count).map(|_| random.below(1_000) as i64).collect();
                    node.label("delay", &typed(&mut random, &keys, &values), step);
                    oracle.extend(keys.into_iter().zip(values));
                }
            }
            if random.below(6) == 0 || step == 59 {
                check_all(&node, &oracle);
            }
        }
    }
}

/// Labels whose columns differ from call to call: whole numbers or others, and a text beside them or none.
fn typed(random: &mut Random, keys: &[(String, i64)], values: &[i64]) -> RecordBatch {
    let label: ArrayRef = match random.below(2) {
        0 => Arc::new(Int64Array::from(values.to_vec())),
        _ => Arc::new(Float64Array::from_iter_values(values.iter().map(|value| *value as f64))),
    };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("request_id".to_owned(), Arc::new(StringArray::from_iter_values(keys.iter().map(|(id, _)| id)))),
        ("row".to_owned(), Arc::new(Int64Array::from_iter_values(keys.iter().map(|(_, row)| *row)))),
        ("label".to_owned(), label),
    ];
    if random.below(3) == 0 {
        let by = values.iter().map(|value| format!("by {value}"));
        columns.push((format!("by{}", random.below(3)), Arc::new(StringArray::from_iter_values(by))));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

fn check_all(node: &Node, oracle: &BTreeMap<(String, i64), i64>) {
    let labels = node.labels("delay");
    for id in 0..41 {
        for row in 0..3 {
            let key = (format!("r{id}"), row);
            let found = labels.value("label", &key.0, row).map(|values| {
                let values = arrow::compute::cast(&values, &DataType::Float64).unwrap();
                values.as_primitive::<Float64Type>().value(0)
            });
            assert_eq!(found, oracle.get(&key).map(|value| *value as f64), "{key:?}");
        }
    }
}

/// Of strangers the newest stay, all of them that have room, and nothing else goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_beyond_the_room_go_oldest_first_and_nobody_else() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    for id in ["a", "b"] {
        ask(&server, id, "/v1/models/delay:predict", vec![instance("N1", 2000.0)]).await;
    }
    let mut random = Random::new("strangers");
    let mut ids: Vec<String> = (0..2_000).map(|n| format!("no-{n}-{:016x}", random.draw())).collect();
    ids.insert(0, "a".to_owned());
    ids.insert(500, "b".to_owned());
    node.label("delay", &rows(&ids, &vec![1.0; ids.len()]), 0);
    node.seal_labels("delay");
    let bytes = node.label_segments("delay")[0].bytes;
    // Room for about a quarter.
    let compacted = node.compact_labels(bytes / 4, 100);
    let kept: Vec<bool> = ids.iter().map(|id| label_of(&node, id).is_some()).collect();
    let gone = kept.iter().filter(|kept| !**kept).count();
    assert_eq!(compacted, Compacted { parts: 1, wholes: 1, superseded: 0, dropped: gone });
    assert!((1_490..1_510).contains(&gone), "{gone}");
    assert!(kept[0] && kept[500]);
    let strangers: Vec<bool> = (0..ids.len()).filter(|n| ![0, 500].contains(n)).map(|n| kept[n]).collect();
    assert!(strangers.is_sorted(), "{strangers:?}");
    drop(node);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_flood_of_labels_leaves_those_of_logged_requests() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    ask(&server, "a", "/v1/models/delay:predict", vec![instance("N1", 2000.0)]).await;
    let of_a = json!([{"request_id": "a", "label": 7.5, "note": "ours"}]);
    assert!(label(&server, of_a).await.starts_with("200"));
    let mut random = Random::new("flood");
    // What a store cannot make smaller.
    let mut note = || (0..62).map(|_| format!("{:016x}", random.draw())).collect::<String>();
    for call in 0..12 {
        let rows = (0..10_000)
            .map(|row| format!("{{\"request_id\":\"no-{call}-{row}\",\"note\":\"xxx{}\"}}", note()));
        let rows = rows.collect::<Vec<_>>().join(",");
        let body = format!("{{\"model\":\"delay\",\"labels\":[{rows}]}}");
        let (status, text) = server.ask("POST", "/v1/labels", body).await;
        assert_eq!(status, 200, "{text}");
    }
    // 64 MiB in memory are written into a segment by themselves.
    until("a segment of labels", async || (!node.label_segments("delay").is_empty()).then_some(())).await;
    node.seal_labels("delay");
    assert_eq!(node.label_tail_rows("delay"), 0);
    // 120 MB in hexadecimal came, which are 60 in the store. What has no room goes, and is counted, whether this sees to
    // it or the server has.
    node.compact_labels(ROOM_BYTES, TOGETHER);
    let dropped = server.metric("quern_labels_dropped_total{model=\"delay\"}").await;
    assert!((30_000.0..60_000.0).contains(&dropped), "{dropped}");
    let kept = joined(&server, &command(true)).await;
    assert!(kept.contains("ours") && !kept.contains("xxx"), "{kept}");
    // One that comes before its prediction is among the newest.
    assert!(
        label(&server, json!([{"request_id": "early", "label": 1, "note": "soon"}])).await.starts_with("200")
    );
    node.seal_labels("delay");
    node.compact_labels(ROOM_BYTES, TOGETHER);
    ask(&server, "early", "/v1/models/delay:predict", vec![instance("N3", 1.0)]).await;
    assert!(joined(&server, &command(true)).await.contains("soon"));
    drop(node);
    server.stop().await;
}

/// However many predictions and labels there are, what is held of them is what there is room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_holds_a_bounded_part_of_predictions_and_labels() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let count = 600;
    let tails = super::predictions::table_of(&vec!["N1"; count]).columns().to_vec();
    node.model("delay").predict("many", tails, vec![JANUARY_10_US; count]).await;
    for round in 0..3 {
        let labels = (0..count).map(|row| format!("{round}-{row}{}", "x".repeat(500)));
        let columns: [(&str, ArrayRef); 3] = [
            ("request_id", Arc::new(StringArray::from(vec!["many"; count]))),
            ("row", Arc::new(Int64Array::from_iter_values(0..count as i64))),
            ("text", Arc::new(StringArray::from_iter_values(labels))),
        ];
        node.label("delay", &RecordBatch::try_from_iter(columns).unwrap(), round);
        if round < 2 {
            node.seal_labels("delay");
        }
    }
    let all = Room { rows: 1 << 17, bytes: 64 << 20 };
    let (counted, [rows, labels]) = node.joined("delay", all).await;
    assert_eq!(counted, [count, count]);
    // The last of three, and each once.
    assert!((500 * count..600 * count).contains(&labels), "{labels}");
    let few = Room { rows: 1 << 17, bytes: 20_000 };
    let (counted, most) = node.joined("delay", few).await;
    assert_eq!(counted, [count, count]);
    // Predictions are read some thousands at a time.
    assert!(most[0] <= rows && most[1] <= 20_000, "{most:?}");
    let (counted, most) = node.joined("delay", Room { rows: 100, bytes: 1 }).await;
    assert_eq!(counted, [count, count]);
    // A row alone has what it has.
    assert!(most[1] < 600, "{most:?}");
}
