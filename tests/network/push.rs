//! What becomes of a pushed row, over HTTP and over Flight, and what survives when the server is killed?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use expect_test::{Expect, expect};
use futures::{StreamExt, stream};
use quern::wire::{PushCommand, PushReply};
use quern_kit::{Node, Process, Push, Random, Repository, Server, run};
use serde_json::{Value, json};

pub(crate) const DEFINITIONS: &str = r#"
kind: Entity
name: card
join_keys: [{name: card, type: string}]
---
kind: Source
name: payments
push: true
event_timestamp: at
event_id: [id]
columns:
  - {name: card, type: string}
  - {name: at, type: timestamp}
  - {name: id, type: int64}
  - {name: amount, type: float64}
  - {name: parts, type: int64}
---
kind: Source
name: logins
batch: {format: csv, path: logins.csv}
event_timestamp: at
columns: [{name: card, type: string}, {name: at, type: timestamp}]
---
kind: FeatureView
name: last_payment
entities: [card]
source: payments
features: [{name: amount}, {name: each, expr: amount / parts}, {name: pieces, expr: 100 / parts, strict: true}]
---
kind: FeatureView
name: spending
entities: [card]
source: payments
aggregations:
  - {name: payments, function: count, windows: [1h, lifetime]}
  - {name: spent, function: sum, of: amount, windows: [1d]}
---
kind: FeatureService
name: fraud
features: [last_payment, spending]
"#;

/// 2026-01-01, noon.
const NOON: &str = "2026-01-01T12:00:00Z";

async fn server() -> Server {
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    let node = repository.open_applied().await;
    Server::of(repository, node).await
}

/// Card, time, id, amount, parts.
type Payment<'a> = (&'a str, &'a str, i64, f64, i64);

fn frame(rows: &[Payment<'_>]) -> Value {
    let column = |of: &dyn Fn(&Payment<'_>) -> Value| rows.iter().map(of).collect::<Value>();
    json!({
        "card": column(&|row| json!(row.0)),
        "at": column(&|row| json!(row.1)),
        "id": column(&|row| json!(row.2)),
        "amount": column(&|row| json!(row.3)),
        "parts": column(&|row| json!(row.4)),
    })
}

async fn post(server: &Server, path: &str, body: &Value) -> String {
    let (status, text) = server.ask("POST", path, body.to_string()).await;
    format!("{status} {text}")
}

async fn pushed(server: &Server, df: Value) -> String {
    post(server, "/push", &json!({"push_source_name": "payments", "df": df})).await
}

/// The features of `card` as of `at`, as a look-up has them.
async fn features(server: &Server, card: &str, at: &str) -> String {
    let body = json!({"feature_service": "fraud", "entities": {"card": [card], "event_timestamp": [at]}});
    let (status, text) = server.ask("POST", "/get-online-features", body.to_string()).await;
    assert_eq!(status, 200, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    let names = reply["metadata"]["feature_names"].as_array().unwrap().iter();
    let values = names.zip(reply["results"].as_array().unwrap());
    values
        .skip(1)
        .map(|(name, column)| format!("{}={} ", name.as_str().unwrap(), column["values"][0]))
        .collect()
}

fn is(found: &str, expected: Expect) {
    expected.assert_eq(found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_in_look_ups_and_history_at_once_and_survives_a_restart() {
    let server = server().await;
    let rows = frame(&[("a", "2026-01-01T11:00:00Z", 1, 10.0, 4), ("a", "2026-01-01T11:30:00Z", 2, 2.5, 1)]);
    is(&pushed(&server, rows.clone()).await, expect![[r#"200 {"accepted":2,"repeated":0,"rejected":[]}"#]]);
    let expected =
        expect![[r#"amount=2.5 each=2.5 pieces=100 payments_1h=2 payments_lifetime=2 spent_1d=12.5 "#]];
    is(&features(&server, "a", NOON).await, expected);
    // History says the same, and knows what was before.
    let trained = trained(&server, "a").await;
    is(&trained, expect!["2.5 2 12.5"]);
    let before = expect!["amount=10.0 each=2.5 pieces=25 payments_1h=1 payments_lifetime=1 spent_1d=10.0 "];
    is(&features(&server, "a", "2026-01-01T11:10:00Z").await, before);
    // The same again, late ones and a corrected one.
    is(&pushed(&server, rows).await, expect![[r#"200 {"accepted":0,"repeated":2,"rejected":[]}"#]]);
    let rows = frame(&[("a", "2026-01-01T11:15:00Z", 3, 1.0, 1), ("a", "2026-01-01T11:00:00Z", 1, 20.0, 4)]);
    is(&pushed(&server, rows).await, expect![[r#"200 {"accepted":2,"repeated":0,"rejected":[]}"#]]);
    let after = "amount=2.5 each=2.5 pieces=100 payments_1h=3 payments_lifetime=3 spent_1d=23.5 ";
    assert_eq!(features(&server, "a", NOON).await, after);

    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    // Nothing changes when the head is made anew from history, from the tail and from a file.
    let server = Server::of(repository, node.clone()).await;
    assert_eq!(features(&server, "a", NOON).await, after);
    for seal in [false, true] {
        assert_eq!(node.tail_rows("payments"), 4);
        if seal {
            node.seal("payments");
            assert_eq!(node.tail_rows("payments"), 0);
        }
        node.materialize_to(1_800_000_000_000_000);
        assert_eq!(features(&server, "a", NOON).await, after);
    }
    drop(node);
    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    assert_eq!(node.pushed_rows("payments"), 4);
    let server = Server::of(repository, node).await;
    let rows = frame(&[("a", "2026-01-01T11:15:00Z", 3, 1.0, 1), ("b", "2026-01-01T11:15:00Z", 4, 1.0, 1)]);
    is(&pushed(&server, rows).await, expect![[r#"200 {"accepted":1,"repeated":1,"rejected":[]}"#]]);
    assert_eq!(features(&server, "a", NOON).await, after);
}

async fn trained(server: &Server, card: &str) -> String {
    let at = TimestampMicrosecondArray::from(vec![1_767_268_800_000_000]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] =
        [("card", Arc::new(StringArray::from(vec![card]))), ("event_timestamp", Arc::new(at))];
    let spine = RecordBatch::try_from_iter(columns).unwrap();
    let set =
        server.client.training_set("fraud", spine.schema(), stream::iter([spine]), false).await.unwrap();
    let batches: Vec<RecordBatch> = set.map(Result::unwrap).collect().await;
    let value = |name: &str| {
        let column = batches[0].column_by_name(name).unwrap();
        arrow::util::display::array_value_to_string(column, 0).unwrap()
    };
    format!("{} {} {}", value("amount"), value("payments_lifetime"), value("spent_1d"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_come_back_with_their_place_and_good_ones_are_taken() {
    let server = server().await;
    let mut rows = frame(&[
        ("a", NOON, 1, 1.0, 2),
        ("b", NOON, 2, 2.0, 0),
        ("c", NOON, 3, 3.0, 1),
        ("d", "yesterday", 4, 4.0, 1),
        ("e", NOON, 5, 5.0, 1),
        ("f", NOON, 6, 6.0, 1),
    ]);
    rows["card"][4] = Value::Null;
    rows["at"][2] = Value::Null;
    rows["amount"][5] = json!("much");
    is(
        &pushed(&server, rows).await,
        expect![[
            r#"200 {"accepted":1,"repeated":0,"rejected":[{"index":1,"cause":"`pieces` of feature view `last_payment` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`"},{"index":2,"column":"at","cause":"the event timestamp is null"},{"index":3,"column":"at","cause":"expected timestamp (RFC 3339, or whole microseconds), found string \"yesterday\""},{"index":4,"cause":"the join key of feature view `last_payment` and of `spending` is null"},{"index":5,"column":"amount","cause":"expected float64, found string \"much\""}]}"#
        ]],
    );
    is(
        &features(&server, "a", NOON).await,
        expect!["amount=1.0 each=0.5 pieces=50 payments_1h=1 payments_lifetime=1 spent_1d=1.0 "],
    );
    is(
        &features(&server, "b", NOON).await,
        expect!["amount=null each=null pieces=null payments_1h=0 payments_lifetime=0 spent_1d=null "],
    );

    let mut refusals = String::new();
    for body in [
        json!({"push_source_name": "payments", "df": frame(&[("a", NOON, 1, 1.0, 0)])}),
        json!({"push_source_name": "payment", "df": frame(&[("a", NOON, 1, 1.0, 1)])}),
        json!({"push_source_name": "logins", "df": {"card": ["a"], "at": [NOON]}}),
        json!({"push_source_name": "payments", "df": {"card": ["a"], "at": [NOON], "amuont": [1]}}),
        json!({"push_source_name": "payments", "df": {"card": ["a"], "at": [NOON]}}),
        json!({"push_source_name": "payments", "df": {"card": ["a"], "at": []}}),
        json!({"push_source_name": "payments", "df": {}}),
        json!({"push_source_name": "payments"}),
        json!({"push_source_name": "payments", "df": frame(&[]), "to": "offlin"}),
        json!({"push_source_name": 7, "df": frame(&[])}),
    ] {
        refusals += &server.refusal("POST", "/push", body.to_string()).await;
        refusals += "\n";
    }
    is(
        &refusals,
        expect![[r#"
            400 invalid_argument: none of the 1 rows was taken; row 0: `pieces` of feature view `last_payment` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            404 not_found: unknown source `payment`; did you mean `payments`? known: payments
            409 refused: source `logins` takes no pushed rows; give it `push: true` (definitions.yaml:19) and apply
            400 invalid_argument: `df`: unknown column `amuont`; did you mean `amount`? known: amount, at, card, id, parts
            400 invalid_argument: source `payments`: column `id` is missing; rows have `card` (string), `at` (timestamp), `id` (int64), `amount` (float64), `parts` (int64)
            400 invalid_argument: column `at` has 0 values and column `card` has 1; all have one for each row
            400 invalid_argument: `df` has no columns; give an array for each column of the source
            400 invalid_argument: `df` is missing: an object with an array for each column
            400 invalid_argument: `to`: unknown `offlin`; did you mean `offline`? known: offline, online, online_and_offline
            400 invalid_argument: `push_source_name`: expected text, found number 7
        "#]],
    );
}

/// A table that was a CSV file has its times as text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_may_be_text_over_flight_as_in_json() {
    let server = server().await;
    let times = ["2026-01-01T12:00:00Z", "2026-01-01 12:00:00", "noon", "2026-01-01T13:00:00.5+01:00"];
    let rows = RecordBatch::try_from_iter([
        ("card", Arc::new(StringArray::from(vec!["t"; 4])) as ArrayRef),
        ("at", Arc::new(StringArray::from(times.to_vec()))),
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("amount", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0]))),
        ("parts", Arc::new(Int64Array::from(vec![1; 4]))),
    ])
    .unwrap();
    let command = PushCommand { push_source_name: "payments".to_owned(), ..PushCommand::default() };
    let push = server.client.push(&command, rows.schema(), stream::iter([rows])).await.unwrap();
    is(
        &serde_json::to_string(&push.finish().await.unwrap()).unwrap(),
        expect![[
            r#"{"accepted":3,"repeated":0,"rejected":[{"index":2,"column":"at","cause":"expected timestamp (RFC 3339), found string \"noon\""}]}"#
        ]],
    );
    is(
        &features(&server, "t", "2026-01-01T12:00:01Z").await,
        expect!["amount=4.0 each=4.0 pieces=100 payments_1h=3 payments_lifetime=3 spent_1d=7.0 "],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_rows_go_is_the_callers_choice() {
    let server = server().await;
    let row = |card: &'static str| frame(&[(card, "2026-01-01T11:30:00Z", 1, 1.0, 1)]);
    let body = |card, to| json!({"push_source_name": "payments", "df": row(card), "to": to});
    for (card, to) in [("both", "online_and_offline"), ("off", "offline")] {
        assert!(post(&server, "/push", &body(card, to)).await.starts_with("200"));
    }
    let refused = body("on", "online").to_string();
    assert_eq!(
        server.refusal("POST", "/push", refused).await,
        "409 refused: windows of feature view `spending` count what lies in history, where rows that are pushed `to: \
         online` are not; push them `to: online_and_offline`"
    );
    let mut said = String::new();
    for card in ["on", "off", "both"] {
        let online = features(&server, card, NOON).await;
        said += &format!("{card}: online {online}, history {}\n", trained(&server, card).await);
    }
    is(
        &said,
        expect![[r#"
            on: online amount=null each=null pieces=null payments_1h=0 payments_lifetime=0 spent_1d=null , history  0 
            off: online amount=null each=null pieces=null payments_1h=0 payments_lifetime=0 spent_1d=null , history 1.0 1 1.0
            both: online amount=1.0 each=1.0 pieces=100 payments_1h=1 payments_lifetime=1 spent_1d=1.0 , history 1.0 1 1.0
        "#]],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_pushed_as_times_count_what_the_format_says() {
    let with = |format: &str| {
        let definitions = DEFINITIONS.replacen("type: timestamp}", &format!("type: timestamp{format}}}"), 1);
        let repository = Repository::new(&definitions);
        repository.write("logins.csv", "card,at\n");
        repository
    };
    let numbers = |at: ArrayRef| {
        let columns: [(&str, ArrayRef); 5] = [
            ("card", Arc::new(StringArray::from(vec!["a"]))),
            ("at", at),
            ("id", Arc::new(Int64Array::from(vec![2]))),
            ("amount", Arc::new(Float64Array::from(vec![2.5]))),
            ("parts", Arc::new(Int64Array::from(vec![1]))),
        ];
        Push::new("payments", RecordBatch::try_from_iter(columns).unwrap())
    };
    let whole = || -> ArrayRef { Arc::new(Int64Array::from(vec![1_767_267_000])) };
    let mut json = frame(&[("a", NOON, 1, 10.0, 4)]);
    json["at"] = json!([1_767_265_200]);

    let repository = with("");
    let node = repository.open_applied().await;
    let refused = node.push(numbers(whole())).await.unwrap_err().to_string();
    is(
        &refused,
        expect![
            "source `payments`: column `at` is int64, and must be timestamp; its `format` says what numbers count"
        ],
    );
    let server = Server::of(repository, node).await;
    is(
        &pushed(&server, json.clone()).await,
        expect![[
            r#"400 {"error":"none of the 1 rows was taken; row 0, column `at`: expected timestamp (RFC 3339, or whole microseconds), found number 1767265200, which looks like seconds (in microseconds it is 1767265200000000); `format` says of a source's column what its numbers count","code":"invalid_argument","rejected":[{"index":0,"column":"at","cause":"expected timestamp (RFC 3339, or whole microseconds), found number 1767265200, which looks like seconds (in microseconds it is 1767265200000000); `format` says of a source's column what its numbers count"}]}"#
        ]],
    );
    server.stop().await;

    let repository = with(", format: epoch_s");
    let node = repository.open_applied().await;
    assert_eq!(node.push(numbers(whole())).await.unwrap().accepted, 1);
    let server = Server::of(repository, node.clone()).await;
    is(&pushed(&server, json).await, expect![[r#"200 {"accepted":1,"repeated":0,"rejected":[]}"#]]);
    let half: ArrayRef = Arc::new(Float64Array::from(vec![1_767_267_000.5]));
    assert_eq!(node.push(numbers(half)).await.unwrap().accepted, 1);
    let found = features(&server, "a", "2026-01-01T11:30:00.4Z").await;
    is(&found, expect!["amount=2.5 each=2.5 pieces=100 payments_1h=2 payments_lifetime=2 spent_1d=12.5 "]);
    is(
        &features(&server, "a", "2026-01-01T11:30:00.5Z").await,
        expect!["amount=2.5 each=2.5 pieces=100 payments_1h=3 payments_lifetime=3 spent_1d=15.0 "],
    );
    is(&trained(&server, "a").await, expect!["2.5 3 15.0"]);
    drop(node);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_counts_once_under_its_idempotency_key() {
    let server = server().await;
    let rows = frame(&[("a", NOON, 1, 1.0, 1), ("a", NOON, 2, 1.0, 0)]);
    let mut body = json!({"push_source_name": "payments", "df": rows, "idempotency_key": "k"});
    let first = post(&server, "/push", &body).await;
    assert!(first.starts_with(r#"200 {"accepted":1,"repeated":0,"rejected":[{"index":1"#), "{first}");
    let again = post(&server, "/push", &body).await;
    assert!(again.starts_with(r#"200 {"accepted":0,"repeated":1,"rejected":[{"index":1"#), "{again}");
    body["df"] = frame(&[("a", NOON, 3, 1.0, 1)]);
    is(
        &server.refusal("POST", "/push", body.to_string()).await,
        expect!["409 refused: the idempotency key `k` was used for other rows; give each push its own"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_queue_holds_is_turned_away_with_advice() {
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    drop(repository.open_applied().await);
    let node = repository.open_with(&[("push_queue_rows", "3".to_owned())]).await.unwrap();
    let server = Server::of(repository, node.clone()).await;
    let rows = |n: i64| frame(&(0..n).map(|id| ("a", NOON, id, 1.0, 1)).collect::<Vec<_>>());
    is(
        &server
            .refusal("POST", "/push", json!({"push_source_name": "payments", "df": rows(4)}).to_string())
            .await,
        expect![
            "413 too_large: the push brings 4 rows, and 3 may wait at a time (`push_queue_rows`); send it in parts"
        ],
    );
    // Whoever makes the head keeps pushes waiting for a moment: here it is a long one.
    let (held, hold) = std::sync::mpsc::channel::<()>();
    let (holding, is_held) = tokio::sync::oneshot::channel();
    let blocker = tokio::task::spawn_blocking(move || {
        node.hold_pushes(|| {
            holding.send(()).unwrap();
            hold.recv().unwrap();
        });
    });
    is_held.await.unwrap();
    let body = json!({"push_source_name": "payments", "df": rows(2)}).to_string();
    let waiting = {
        let (http, address, body) = (server.http.clone(), server.address("/push"), body.clone());
        tokio::spawn(async move {
            http.post(address).header("content-type", "application/json").body(body).send().await.unwrap()
        })
    };
    let reply = loop {
        // Until the first one waits, this one is taken in its place and waits too; then it is turned away.
        let asked = server
            .http
            .post(server.address("/push"))
            .header("content-type", "application/json")
            .body(body.clone())
            .send();
        if let Ok(reply) = tokio::time::timeout(Duration::from_millis(50), asked).await {
            break reply.unwrap();
        }
    };
    assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    is(
        &reply.text().await.unwrap(),
        expect![[
            r#"{"error":"2 pushed rows wait to be written, and 3 may (`push_queue_rows`)","code":"overloaded","retry_after_ms":1000}"#
        ]],
    );
    held.send(()).unwrap();
    blocker.await.unwrap();
    // Of the first two one was taken and the other was not.
    assert!([200, 429].contains(&waiting.await.unwrap().status().as_u16()));
    // As a client does: again, until there is room.
    while !pushed(&server, rows(3)).await.starts_with("200") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_feasts_client_sends_is_understood() {
    let server = server().await;
    let body = json!({
        "feature_view_name": "last_payment",
        "df": {
            "card": ["a", "b"], "amount": [1.5, 2.0], "parts": [1, 2],
            "event_timestamp": ["2026-01-01T11:00:00.500000", "2026-01-01T11:00:00"],
            "created": ["2026-01-01T11:00:00", "NaT"],
        },
        "allow_registry_cache": false,
    });
    let said = post(&server, "/write-to-online-store", &body).await;
    is(&said, expect![[r#"200 {"accepted":2,"repeated":0,"rejected":[]}"#]]);
    is(
        &features(&server, "b", NOON).await,
        expect!["amount=2.0 each=1.0 pieces=50 payments_1h=0 payments_lifetime=0 spent_1d=null "],
    );
    let unknown = json!({"feature_view_name": "last", "df": {}}).to_string();
    is(
        &server.refusal("POST", "/write-to-online-store", unknown).await,
        expect![
            "404 not_found: unknown feature view `last`; did you mean `last_payment`? known: last_payment, spending"
        ],
    );
}

/// `count` rows of ten cards; their ids count on from `first`.
pub(crate) fn rows(first: i64, count: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + count).collect();
    let cards = ids.iter().map(|id| format!("card {}", id % 10));
    let at = ids.iter().map(|id| 1_767_225_600_000_000 + id * 1_000_000);
    let columns: [(&str, ArrayRef); 5] = [
        ("card", Arc::new(StringArray::from_iter_values(cards))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("amount", Arc::new(Float64Array::from_iter_values(ids.iter().map(|id| *id as f64)))),
        ("parts", Arc::new(Int64Array::from(vec![1; ids.len()]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Count and latest amount of each card at the end of time, by the head and by history.
pub(crate) async fn both(node: &Node) -> [BTreeMap<String, (i64, String)>; 2] {
    let service = node.service("fraud");
    let head = head_vectors(node).await;
    let (cards, q_us) = (ten_cards(), Q_US);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![q_us; 10]).with_timezone("UTC"));
    let spine = RecordBatch::try_from_iter([("card", cards), ("event_timestamp", times)]).unwrap();
    let history = service.training_set(&spine, false);
    [head, history].map(|batch| by_card(&batch))
}

/// After every event, µs.
const Q_US: i64 = 1_900_000_000_000_000;

fn ten_cards() -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..10).map(|card| format!("card {card}"))))
}

async fn head_vectors(node: &Node) -> RecordBatch {
    let service = node.service("fraud");
    service.look_up(service.inputs(vec![ten_cards()]), vec![Q_US; 10]).await.unwrap().vectors
}

/// The same, by the head alone.
pub(crate) async fn head_counts(node: &Node) -> BTreeMap<String, (i64, String)> {
    by_card(&head_vectors(node).await)
}

fn by_card(batch: &RecordBatch) -> BTreeMap<String, (i64, String)> {
    let counts = batch.column_by_name("payments_lifetime").unwrap().as_primitive::<Int64Type>().clone();
    let amounts = batch.column_by_name("amount").unwrap();
    let amount = |row| arrow::util::display::array_value_to_string(amounts, row).unwrap();
    (0..10).map(|row| (format!("card {row}"), (counts.value(row), amount(row)))).collect()
}

/// Of events of one instant the later one is what was pushed later, however they were pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_instant_count_in_the_order_in_which_they_were_pushed() {
    let ordered = "aggregations:\n  - {name: ids, function: last_n, of: id, n: 3, windows: [7d, lifetime]}\n  \
                   - {name: first, function: first, of: id, windows: [7d, lifetime]}\n  \
                   - {name: last, function: last, of: id, windows: [7d, lifetime]}\n  \
                   - {name: top, function: top_n_by, of: id, by: parts, n: 2, windows: [7d, lifetime]}\n";
    let (before, rest) = DEFINITIONS.split_once("aggregations:\n").unwrap();
    let rest = rest.split_once("---").unwrap().1;
    for id in ["event_id: [id]\n", ""] {
        let definitions = format!("{before}{ordered}---{rest}").replace("event_id: [id]\n", id);
        let repository = Repository::new(&definitions);
        repository.write("logins.csv", "card,at\n");
        let node = repository.open_applied().await;
        for first in [1, 2, 3] {
            let rows = rows(first, 1);
            let columns = rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, column)| {
                let column: ArrayRef = match field.name().as_str() {
                    "card" => Arc::new(StringArray::from(vec!["card 0"])),
                    "at" => {
                        let at = vec![1_767_225_600_000_000];
                        Arc::new(TimestampMicrosecondArray::from(at).with_timezone("UTC"))
                    }
                    _ => Arc::clone(column),
                };
                (field.name().clone(), column)
            });
            let rows = RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap();
            node.push(Push::new("payments", rows)).await.unwrap();
        }
        let service = node.service("fraud");
        let (cards, q_us): (ArrayRef, _) =
            (Arc::new(StringArray::from(vec!["card 0"])), 1_767_300_000_000_000);
        let head =
            service.look_up(service.inputs(vec![Arc::clone(&cards)]), vec![q_us]).await.unwrap().vectors;
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![q_us]).with_timezone("UTC"));
        let spine = RecordBatch::try_from_iter([("card", cards), ("event_timestamp", times)]).unwrap();
        let history = service.training_set(&spine, false);
        for (name, expected) in [("ids", "[3, 2, 1]"), ("first", "1"), ("last", "3"), ("top", "[3, 2]")] {
            for name in ["7d", "lifetime"].map(|window| format!("{name}_{window}")) {
                let said = [&head, &history].map(|batch| {
                    let column = batch.column_by_name(&name).unwrap();
                    arrow::util::display::array_value_to_string(column, 0).unwrap()
                });
                assert_eq!(said, [expected; 2], "{name}, by the head and by history");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_runs_over_history_at_the_same_time_end_in_one_truth() {
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    let node = repository.open_applied().await;
    let done = Arc::new(AtomicBool::new(false));
    let running = {
        let (node, done) = (node.clone(), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                node.materialize_to(1_800_000_000_000_000);
                let end = node.pushed_rows("payments");
                if runs % 3 == 2 {
                    node.seal("payments");
                }
                runs += 1;
                assert!(end <= 4_000);
            }
            runs
        })
    };
    let pushers = (0..4).map(|pusher| {
        let node = node.clone();
        tokio::spawn(async move {
            for chunk in 0..100 {
                let rows = rows(pusher * 1_000 + chunk * 10, 10);
                assert_eq!(node.push(Push::new("payments", rows)).await.unwrap().accepted, 10);
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    println!("{} runs over history meanwhile", running.await.unwrap());
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
    assert!(head.values().all(|(count, _)| *count == 400), "{head:?}");
}

const KILLS: i64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_fifty_times_loses_no_acknowledged_row_and_doubles_none() {
    let mut random = Random::new("push");
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    run(repository.path(), &["apply"]).answer();
    // Every id up to here is acknowledged; a push that was cut off is sent again, as a client does.
    let mut acknowledged = 0;
    let mut cut_off = 0;
    for _ in 0..KILLS {
        let server = Process::start(repository.path());
        let client = quern::Client::connect(server.url.as_str()).await.unwrap();
        let until = tokio::time::Instant::now() + random.part_of(Duration::from_millis(150));
        let pushing = tokio::spawn(push_on(client, acknowledged));
        tokio::time::sleep_until(until).await;
        server.kill();
        let (end, was_cut) = pushing.await.unwrap();
        acknowledged = end;
        cut_off += i64::from(was_cut);
    }
    println!("{acknowledged} rows acknowledged, {cut_off} of {KILLS} kills cut a push off");
    assert!(cut_off > KILLS / 2 && acknowledged > 100);
    let node = repository.open().await;
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
    let counts: Vec<i64> = head.values().map(|(count, _)| *count).collect();
    let total: i64 = counts.iter().sum();
    // The last push may be in without an answer; no other row is.
    assert!((acknowledged..=acknowledged + 10).contains(&total), "{total} of {acknowledged}");
    let ids = node.pushed_rows("payments") as i64;
    assert_eq!(ids, total, "rows of history");
}

/// The rows as `/push` takes them.
pub(crate) fn columns(batch: &RecordBatch) -> Value {
    let value = |name: &str| -> Vec<Value> {
        let column = batch.column_by_name(name).unwrap();
        let text = |row| arrow::util::display::array_value_to_string(column, row).unwrap();
        let cell = |row| match name {
            "card" | "at" => json!(text(row)),
            _ => serde_json::from_str(&text(row)).unwrap(),
        };
        (0..batch.num_rows()).map(cell).collect()
    };
    ["card", "at", "id", "amount", "parts"].into_iter().map(|name| (name, value(name))).collect()
}

/// Pushes ten rows at a time from id `first` on until the server is gone; the first id that was not acknowledged, and
/// whether a push was under way.
async fn push_on(client: quern::Client, first: i64) -> (i64, bool) {
    let mut next = first;
    loop {
        let body = json!({"push_source_name": "payments", "df": columns(&rows(next, 10))});
        match client.call::<PushReply>("/push", &body).await {
            Ok(reply) => assert_eq!(reply.accepted + reply.repeated, 10),
            Err(quern::Error::Server(reply)) => panic!("{reply:?}"),
            Err(_) => return (next, true),
        }
        next += 10;
    }
}
