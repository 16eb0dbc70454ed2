//! What does one learn who may ask one model for predictions, and nothing else? Its inputs, its outputs, its versions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use quern_kit::Repository;
use serde_json::json;

use super::asking::{Asked, HTTP, exchanged, put};
use crate::planes;

/// What the model is made of, beside what callers bring, and what else there is.
const HIDDEN: [&str; 10] = [
    "plane_history",
    "landings",
    "landed_at",
    "delay_v1",
    "carrier",
    "last_delay",
    "seats",
    "class",
    "roles.yaml",
    "reads-view",
];

/// Values of features: of N1, N2 and N3. What a prediction is made of them is its owner's word.
const VALUES: [&str; 2] = ["7.5", "-2.25"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_26_predictions_alone_tell_nothing_of_what_they_are_made_of() {
    let asked = Asked::open().await;
    let bearer = Some(asked.keys["predicts"].as_str());
    let mut heard: Vec<(String, String)> = Vec::new();
    let mut hear = |what: String, said: String| heard.push((what, said));
    for (method, path, body, _) in HTTP {
        let (status, text) = asked.say(method, path, body, bearer).await;
        hear(format!("{method} {path} {body}"), format!("{status} {text}"));
    }
    for (path, body) in probes() {
        let (status, text) = asked.say("POST", &path, &body, bearer).await;
        hear(format!("{path} {body}"), format!("{status} {text}"));
    }
    for path in [
        "/v1/models/dela",
        "/v1/models/clas",
        "/v1/models/carrie/metadata",
        "/v2/models/clas",
        "/v1/models/delay/versions/2",
        "/v2/models/delay/versions/0/ready",
        "/v1/nothing",
    ] {
        let (status, text) = asked.say("GET", path, "", bearer).await;
        hear(path.to_owned(), format!("{status} {text}"));
    }
    let mut flight = asked.flight().await;
    let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    for command in [
        json!({"model": "delay"}),
        json!({"model": "delay", "as_of": true}),
        json!({"model": "dela"}),
        json!({"feature_service": "delay_v"}),
        json!({"feature_service": "carrier_v"}),
    ] {
        let said = exchanged(&mut flight, command.clone(), empty.clone(), bearer).await;
        hear(format!("DoExchange {command}"), format!("{said:?}"));
    }
    for command in
        [json!({"push_source_name": "landing"}), json!({"labels": "clas"}), json!({"labels": "delay"})]
    {
        let said = put(&mut flight, command.clone(), empty.clone(), bearer).await;
        hear(format!("DoPut {command}"), format!("{said:?}"));
    }
    for (what, said) in &heard {
        for hidden in HIDDEN.iter().chain(&VALUES) {
            // What somebody says is no news to them.
            let told = said.matches(hidden).count();
            assert!(told <= what.matches(hidden).count(), "{what}\n{said}\ntells `{hidden}`");
        }
    }
    let said = |part: &str| heard.iter().find(|(what, _)| what.contains(part)).unwrap().1.clone();
    assert!(said("POST /v1/models/delay:predict").starts_with("200"), "{heard:?}");
    assert!(heard.len() > 70, "{}", heard.len());
}

/// What a curious client asks.
fn probes() -> Vec<(String, String)> {
    let predict = "/v1/models/delay:predict";
    let mut probes: Vec<(&str, serde_json::Value)> = vec![
        (predict, json!({"instances": [{}]})),
        (predict, json!({"instances": [{"tailnum": "N1"}]})),
        (predict, json!({"instances": [{"tailnum": 7, "distance": 1}]})),
        (predict, json!({"instances": [{"tailnum": "N1", "distance": 1, "last_dela": 1}]})),
        (predict, json!({"instances": [{"tailnum": "N1", "distance": 1, "seat": 1}]})),
        (
            predict,
            json!({"instances": [{"tailnum": "N1", "distance": 1, "event_timestamp": "2013-01-01T12:00:00Z"}]}),
        ),
        (
            predict,
            json!({"instances": [{"tailnum": "N1", "distance": 1, "event_timestamp": "2999-01-01T12:00:00Z"}]}),
        ),
        (predict, json!({"inputs": {"tailnum": ["N1"], "distance": [1.0]}, "with_features": true})),
        (predict, json!({"inputs": {"tailnum": ["N1"]}})),
        (predict, json!({"inputs": [1]})),
        ("/v1/models/delay/versions/2:predict", json!({"instances": [{}]})),
        ("/v1/models/clas:predict", json!({"instances": [{}]})),
        ("/v1/models/delay:explain", json!({})),
        ("/get-online-features", json!({"entities": {"tailnum": ["N1"]}})),
        ("/get-online-features", json!({"feature_service": "delay_v", "entities": {}})),
        ("/get-online-features", json!({"features": ["plane_histor:seats"], "entities": {}})),
        ("/get-online-features", json!({"features": ["plane_history:seat"], "entities": {}})),
        ("/get-online-features", json!({"features": [], "entities": {}})),
        ("/push", json!({"push_source_name": "landing", "df": {"x": [1]}})),
        ("/write-to-online-store", json!({"feature_view_name": "plane_histor", "df": {}})),
        ("/v1/labels", json!({"model": "delay", "labels": [{"request_id": "r"}]})),
        ("/v1/labels", json!({"model": "clas", "labels": [{"request_id": "r"}]})),
        ("/v1/verify", json!({})),
        ("/v1/verify", json!({"model": "clas"})),
        ("/v1/can", json!({"who": "key:predicts", "action": "read", "what": "delay_v"})),
    ];
    let tensor = |name: &str, datatype: &str, data: serde_json::Value| json!({"name": name, "datatype": datatype, "shape": [1], "data": [data]});
    let (plane, distance) = (tensor("tailnum", "BYTES", json!("N1")), tensor("distance", "FP64", json!(1.0)));
    let infer = "/v2/models/delay/infer";
    probes.extend([
        (infer, json!({"inputs": []})),
        (infer, json!({"inputs": [plane]})),
        (infer, json!({"inputs": [plane, distance, tensor("seat", "INT64", json!(1))]})),
        (infer, json!({"inputs": [plane, distance, tensor("event_timestamp", "INT64", json!(1_357_000_000_000_000_i64))]})),
        (infer, json!({"inputs": [distance, tensor("last_delay", "FP64", json!(1.0)), tensor("far", "BOOL", json!(true))]})),
        (infer, json!({"inputs": [distance, tensor("last_delay", "FP64", json!(1.0))]})),
        (infer, json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]})),
        (infer, json!({"inputs": [plane, distance], "outputs": [{"name": "z"}]})),
    ]);
    probes.into_iter().map(|(path, body)| (path.to_owned(), body.to_string())).collect()
}

const STRICT: &str = r#"
---
kind: FeatureView
name: plane_last
entities: [plane]
source: landings
features: [{name: last_delay, expr: delay}, carrier]
---
kind: FeatureService
name: strict_v1
features: [{view: plane_last, features: [last_delay, carrier]}]
request: [{name: distance, type: float64}]
derived: [{name: far, expr: "CAST(carrier AS BIGINT) > 0", strict: true, default: false}]
outputs: [distance, last_delay, far]
---
kind: Model
name: strict
versions: [{version: "1", path: models/linear.onnx, service: strict_v1}]
---
kind: Model
name: falls
versions: [{version: "1", path: models/linear.onnx, service: strict_v1}]
route: {weights: {"1": 1}}
fallback: {max_missing: 0, to: [{constant: 7}]}
---
kind: Role
name: asks
members: [{key: asks}]
allow: [{predict: [strict, falls]}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_and_what_stands_in_is_not_explained() {
    let asked = Asked::open_in(planes::repository(), STRICT, &[], &["asks", "admin"]).await;
    let ask = |tailnum: &str| json!({"instances": [{"tailnum": tailnum, "distance": 1}]}).to_string();
    let said = async |model: &str, tailnum: &str, who: &str| {
        let bearer = Some(asked.keys[who].as_str());
        asked.say("POST", &format!("/v1/models/{model}:predict"), &ask(tailnum), bearer).await
    };
    // What the owner is told, so that there is something to hide.
    let (status, told) = said("strict", "N1", "admin").await;
    assert!(status == 400 && told.contains("`far`"), "{status} {told}");
    let (status, veiled) = said("strict", "N1", "asks").await;
    assert!(status == 400 && veiled.contains("the prediction cannot be computed"), "{status} {veiled}");
    for hidden in ["carrier", "far", "strict_v1", "plane_last", "BIGINT"] {
        assert!(!veiled.contains(hidden), "{status} {veiled}, of {told}");
    }
    let (_, told) = said("falls", "N9", "admin").await;
    assert!(told.contains("\"fallbacks\"") && told.contains("missing"), "{told}");
    let (status, veiled) = said("falls", "N9", "asks").await;
    assert_eq!(status, 200, "{veiled}");
    assert!(!veiled.contains("fallbacks") && !veiled.contains("missing"), "{veiled}");
    let mut flight = asked.flight().await;
    for (model, tailnum, hidden) in [
        ("strict", "N1", ["carrier", "far", "BIGINT"]),
        ("falls", "N9", ["fallback_cause", "missing", "last_delay"]),
    ] {
        let mut batch = async |who: &str| {
            let bearer = Some(asked.keys[who].as_str());
            format!("{:?}", exchanged(&mut flight, json!({"model": model}), plane(tailnum), bearer).await)
        };
        let (told, veiled) = (batch("admin").await, batch("asks").await);
        assert!(hidden.iter().any(|hidden| told.contains(hidden)), "there is nothing to hide in {told}");
        for hidden in hidden {
            assert!(!veiled.contains(hidden), "{hidden} in {veiled}, of {told}");
        }
    }
}

fn plane(tailnum: &str) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("tailnum", Arc::new(StringArray::from(vec![tailnum]))),
        ("distance", Arc::new(Float64Array::from(vec![1.0]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replies_show_by_sql_alone_must_be_said() {
    let check = async |model: &str, more: &str| {
        let repository: Repository = planes::repository();
        let roles = "\n---\nkind: Role\nname: team\nmembers: [{key: t}]\nallow: [{read: [{view: plane_history, except: [seats]}]}]\n";
        repository.write("roles.yaml", format!("kind: Model\nname: mine\n{model}{roles}{more}"));
        let node = repository.open().await;
        node.apply().await.map(|plan| plan.number).map_err(|error| error.to_string())
    };
    let steps = "versions:\n- version: 1\n  service: delay_v1\n  steps:\n  - {name: a, path: models/linear.onnx}\n  - {name: b, expr: \"CAST(coalesce(last_delay, 0) AS FLOAT)\"}\n";
    let refused = check(steps, "").await.unwrap_err();
    assert!(
        refused.contains("show `plane_history:last_delay` by SQL")
            && refused.contains("reveals: [\"plane_history:last_delay\"]"),
        "{refused}"
    );
    assert!(check(&format!("reveals: [\"plane_history:last_delay\"]\n{steps}"), "").await.is_ok());
    let model_alone = steps.replace("coalesce(last_delay, 0)", "a * 2");
    assert!(check(&model_alone, "").await.is_ok(), "what a model computes is its owner's word");
    let derived = steps.replace("coalesce(last_delay, 0)", "far");
    assert!(check(&derived, "").await.is_ok(), "`far` is of what the caller brings");
    let fallback = "versions: [{version: 1, path: models/linear.onnx, service: delay_v1}]\n\
                    fallback: {to: [{expr: \"coalesce(last_delay, 0)\"}]}\n";
    assert!(check(fallback, "").await.unwrap_err().contains("by SQL"));
    // Whoever answers for a model may read what goes into it; `delay_v1` takes seats as well, which the role may not.
    let owned = format!("owner: team\n{model_alone}");
    let refused = check(&owned, "").await.unwrap_err();
    assert!(refused.contains("role `team`") && refused.contains("`plane_history:seats`"), "{refused}");
    let may = "---\nkind: Role\nname: other\nmembers: [{key: o}]\nallow: [{read: [{service: delay_v1}]}]\n";
    assert!(check(&owned.replace("team", "other"), may).await.is_ok());
}
