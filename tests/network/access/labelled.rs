//! For whose predictions does a label count?

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use arrow_flight::Ticket;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use serde_json::json;

use super::asking::{Asked, with};
use crate::planes;

const LABELLERS: &str = r#"
---
kind: Role
name: asks
members: [{key: one}, {key: two}]
allow: [{predict: [delay], label: [delay]}]
---
kind: Role
name: labels
members: [{key: labels}]
allow: [{label: [delay]}]
---
kind: Role
name: knows
members: [{key: knows}]
allow: [{label: [delay], read_log: [delay]}]
"#;

async fn asked() -> Asked {
    let repository = planes::repository();
    let logged =
        planes::DEFINITIONS.replace("name: delay\nversions", "name: delay\nlog: {sample: 1}\nversions");
    repository.write("definitions.yaml", logged);
    Asked::open_in(repository, LABELLERS, &[], &["one", "two", "labels", "knows", "admin"]).await
}

/// Who asked for what, and which label counts for it.
async fn joined(asked: &Asked) -> Vec<String> {
    let ticket = with(Ticket::new(json!({"predictions": "delay"}).to_string()), Some(&asked.keys["knows"]));
    let down = asked.flight().await.do_get(ticket).await.unwrap().into_inner();
    let rows = FlightRecordBatchStream::new_from_flight_data(
        down.map_err(|status| FlightError::Tonic(Box::new(status))),
    );
    let mut shown = Vec::new();
    for rows in rows.try_collect::<Vec<RecordBatch>>().await.unwrap() {
        let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (ids, principals) = (text("request_id"), text("principal"));
        let labels = rows.column_by_name("label").map(|labels| labels.as_primitive::<Float64Type>().clone());
        for row in 0..rows.num_rows() {
            let label = labels.as_ref().filter(|labels| labels.is_valid(row)).map(|labels| labels.value(row));
            shown.push(format!("{} of {}: {label:?}", ids.value(row), principals.value(row)));
        }
        assert!(rows.column_by_name("label.principal").is_none());
    }
    shown.sort();
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_counts_for_its_sender_or_by_who_reads_the_log_for_all() {
    let asked = asked().await;
    for (who, id) in [("one", "r"), ("two", "r"), ("one", "s")] {
        let asking = asked.server.http.post(asked.server.address("/v1/models/delay:predict"));
        let instances = json!({"instances": [{"tailnum": "N1", "distance": 10}]});
        let asking = asking.bearer_auth(&asked.keys[who]).header("x-request-id", id).json(&instances);
        assert_eq!(asking.send().await.unwrap().status().as_u16(), 200);
    }
    let label = async |who: &str, id: &str, value: f64| {
        let body = json!({"model": "delay", "labels": [{"request_id": id, "label": value}]}).to_string();
        let (status, told) = asked.say("POST", "/v1/labels", &body, Some(&asked.keys[who])).await;
        assert_eq!(status, 200, "{told}");
    };
    label("one", "r", 1.5).await;
    label("two", "r", 2.5).await;
    label("two", "s", 8.5).await;
    label("labels", "s", 9.5).await;
    let first = ["r of key:one: Some(1.5)", "r of key:two: Some(2.5)", "s of key:one: None"];
    assert_eq!(joined(&asked).await, first);
    label("knows", "r", 3.5).await;
    label("knows", "s", 4.5).await;
    label("one", "r", 5.5).await;
    let then = ["r of key:one: Some(5.5)", "r of key:two: Some(3.5)", "s of key:one: Some(4.5)"];
    assert_eq!(joined(&asked).await, then);
    // The name is not for callers to say.
    let body = json!({"model": "delay", "labels": [{"request_id": "r", "principal": "key:two"}]}).to_string();
    let (status, told) = asked.say("POST", "/v1/labels", &body, Some(&asked.keys["one"])).await;
    assert!(status == 400 && told.contains("`principal`"), "{told}");
}
