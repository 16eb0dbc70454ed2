//! Do labels find the predictions that they belong to, whenever they come and however often?

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use futures::TryStreamExt;
use quern::wire::{LabelsRequest, PredictionsCommand};
use quern_kit::{Process, Room, Server, run};
use serde_json::{Value, json};

use super::predictions::{ask, repository};
use crate::planes::{self, JANUARY_10_US, instance};

pub(super) fn command(labelled: bool) -> PredictionsCommand {
    PredictionsCommand { predictions: "delay".to_owned(), labelled, ..PredictionsCommand::default() }
}

/// The joined set, without the columns that are others each time.
pub(super) async fn joined(server: &Server, command: &PredictionsCommand) -> String {
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

pub(super) async fn label(server: &Server, labels: Value) -> String {
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
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
        | request_id | row | event_timestamp      | version | digest                                                           | reason | served_by | principal | tailnum | distance | last_delay | far   | prediction.y | label | by |
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
        | a          | 0   | 2013-01-10T00:00:00Z | 1       | 326223638f35a66efc76f86c4b6a6d93c4a048fc73d1234b78508db0b05f8855 | route  | 1         | anyone    | N1      | 2000.0   | 7.5        | true  | 2175.5       |       |    |
        | a          | 1   | 2013-01-10T00:00:00Z | 1       | 326223638f35a66efc76f86c4b6a6d93c4a048fc73d1234b78508db0b05f8855 | route  | 1         | anyone    | N3      | 1.0      | -2.25      | false | -21.0        | 9.0   |    |
        | b          | 0   | 2013-01-10T00:00:00Z | 1       | 326223638f35a66efc76f86c4b6a6d93c4a048fc73d1234b78508db0b05f8855 | route  | 1         | anyone    | N4      | 5.0      |            | false | NaN          | 2.5   |    |
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
    "#]]).await;
    check(&server, true, expect![[r#"
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
        | request_id | row | event_timestamp      | version | digest                                                           | reason | served_by | principal | tailnum | distance | last_delay | far   | prediction.y | label | by |
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
        | a          | 1   | 2013-01-10T00:00:00Z | 1       | 326223638f35a66efc76f86c4b6a6d93c4a048fc73d1234b78508db0b05f8855 | route  | 1         | anyone    | N3      | 1.0      | -2.25      | false | -21.0        | 9.0   |    |
        | b          | 0   | 2013-01-10T00:00:00Z | 1       | 326223638f35a66efc76f86c4b6a6d93c4a048fc73d1234b78508db0b05f8855 | route  | 1         | anyone    | N4      | 5.0      |            | false | NaN          | 2.5   |    |
        +------------+-----+----------------------+---------+------------------------------------------------------------------+--------+-----------+-----------+---------+----------+------------+-------+--------------+-------+----+
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

/// What an earlier build has kept is not read, and a server says so once, with the way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_of_an_earlier_build_are_named_at_the_start() {
    let repository = repository();
    run(repository.path(), &["apply"]).answer();
    let said = || {
        let log = repository.path().join("log.txt");
        Process::start_logged(repository.path(), &[], File::create(&log).unwrap()).kill();
        std::fs::read_to_string(log).unwrap().matches("labels of an earlier build").count()
    };
    std::fs::create_dir_all(repository.path().join(".quern/labels/delay")).unwrap();
    assert_eq!(said(), 0);
    repository.write(".quern/labels/delay/00000000000000000007.parquet", "any");
    assert_eq!(said(), 1);
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
