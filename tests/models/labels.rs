//! Do labels find the predictions that they belong to, whenever they come and however often?

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use futures::TryStreamExt;
use quern::wire::{LabelsRequest, PredictionsCommand};
use quern_kit::Server;
use serde_json::{Value, json};

use super::predictions::{ask, repository};
use crate::planes::{self, instance};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_become_one_and_nothing_is_lost() {
    let repository = repository();
    let node = planes::open(&repository).await;
    let files = || std::fs::read_dir(repository.path().join(".quern/labels/delay")).unwrap().count();
    for round in 0..150 {
        let ids = [format!("own-{round}"), "shared".to_owned()];
        node.label("delay", &rows(&ids, &[f64::from(round), f64::from(round)]), round.into());
    }
    assert!(files() < 128, "{} files", files());
    drop(node);
    let known = repository.open().await.labels("delay");
    let label = |id: &str| {
        let values = known.value("label", id, 0).unwrap();
        let values: &Float64Array = arrow::array::AsArray::as_primitive(&values);
        values.value(0)
    };
    for round in 0..150 {
        assert_eq!(label(&format!("own-{round}")), f64::from(round));
    }
    assert_eq!(label("shared"), 149.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_flood_of_labels_leaves_those_of_logged_requests() {
    let server = start().await;
    ask(&server, "a", "/v1/models/delay:predict", vec![instance("N1", 2000.0)]).await;
    let of_a = json!([{"request_id": "a", "label": 7.5, "note": "ours"}]);
    assert!(label(&server, of_a).await.starts_with("200"));
    let note = "x".repeat(1_000);
    let flood = (0..8).flat_map(|call| {
        let rows =
            (0..10_000).map(|row| format!("{{\"request_id\":\"no-{call}-{row}\",\"note\":\"{note}\"}}"));
        [format!("{{\"model\":\"delay\",\"labels\":[{}]}}", rows.collect::<Vec<_>>().join(","))]
    });
    for body in flood {
        let (status, text) = server.ask("POST", "/v1/labels", body).await;
        assert_eq!(status, 200, "{text}");
    }
    // 80 MB came, and half of what a table may grow by is left to those that belong to nothing.
    let dropped = server.metric("quern_labels_dropped_total{model=\"delay\"}").await;
    assert!((30_000.0..60_000.0).contains(&dropped), "{dropped}");
    let kept = joined(&server, &command(true)).await;
    assert!(kept.contains("ours") && !kept.contains("xxx"), "{kept}");
    // One that comes before its prediction is among the newest.
    assert!(
        label(&server, json!([{"request_id": "early", "label": 1, "note": "soon"}])).await.starts_with("200")
    );
    ask(&server, "early", "/v1/models/delay:predict", vec![instance("N3", 1.0)]).await;
    assert!(joined(&server, &command(true)).await.contains("soon"));
    server.stop().await;
}
