//! Which version answers whom, and what answers where it does not? Canaries, shadows, ensembles, fallbacks, routes that
//! change under load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::Float32Type;
use expect_test::expect;
use futures::TryStreamExt;
use quern::wire::{BatchCommand, PredictRequest, Predictions};
use quern_kit::{RedisServer, Repository, Server, fixture, until};
use serde_json::{Value, json};

use crate::planes::{self, DEFINITIONS, JANUARY_10_US, instance};

/// The planes, with a model `m` that is declared as `model` says.
fn repository(model: &str) -> Repository {
    let repository = planes::repository();
    repository.write("definitions.yaml", format!("{DEFINITIONS}---\nkind: Model\nname: m\n{model}"));
    for name in ["slow", "fragile"] {
        repository.write(format!("models/{name}.onnx"), fixture(&format!("{name}.onnx")));
    }
    repository
}

async fn start(model: &str) -> Server {
    let repository = repository(model);
    let node = planes::open(&repository).await;
    Server::of(repository, node).await
}

async fn predict(server: &Server, instances: impl IntoIterator<Item = Value>) -> Predictions {
    let instances = instances.into_iter().map(|instance| instance.as_object().unwrap().clone()).collect();
    server.client.predict_with("m", None, &PredictRequest { instances, with_features: false }).await.unwrap()
}

/// Predictions, and who gave them.
fn show(said: &Predictions) -> String {
    let mut text = format!("{}\n", Value::from(said.predictions.clone()));
    if !said.served_by.is_empty() {
        text += &format!("by {}\n", said.served_by.join(", "));
    }
    for left in &said.fallbacks {
        text +=
            &format!("{:?} left to {} for {}: {}\n", left.instances, left.served_by, left.cause, left.detail);
    }
    text
}

/// Each metric whose line starts with `name`.
async fn metrics(server: &Server, name: &str) -> String {
    let text = server.metrics().await;
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains("\"m\""))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Two versions whose answers differ: the second gives twice as much.
const TWO: &str = r#"
versions:
  - {version: "1", path: models/linear.onnx, service: delay_v1}
  - version: "2"
    service: delay_v1
    steps: [{name: once, path: models/linear.onnx}, {name: y, expr: "CAST(once * 2 AS FLOAT)"}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_gets_its_share_and_entities_stick() {
    const ENTITIES: usize = 100_000;
    let server = start(&format!("{TWO}route: {{weights: {{\"1\": 90, \"2\": 10}}}}\n")).await;
    let all = async || {
        let mut second = BTreeSet::new();
        for start in (0..ENTITIES).step_by(10_000) {
            let said =
                predict(&server, (start..start + 10_000).map(|n| instance(&format!("P{n}"), 1.0))).await;
            assert_eq!(said.served_by.len(), 10_000);
            second.extend(
                (start..).zip(&said.served_by).filter(|(_, version)| *version == "2").map(|(n, _)| n),
            );
        }
        second
    };
    // Five standard deviations of a binomial distribution.
    let within = |seen: usize, share: f64| {
        let expected = ENTITIES as f64 * share;
        let deviation = (ENTITIES as f64 * share * (1.0 - share)).sqrt();
        assert!((seen as f64 - expected).abs() < 5.0 * deviation, "{seen} of {ENTITIES} for {share}");
    };
    let ten = all().await;
    within(ten.len(), 0.1);
    assert_eq!(all().await, ten, "the same entity gets the same version");
    // One at a time or many: nobody's version depends on the company.
    for n in [0, 17, 4_711, *ten.first().unwrap()] {
        let alone = predict(&server, [instance(&format!("P{n}"), 1.0)]).await;
        assert_eq!(alone.served_by[0] == "2", ten.contains(&n));
    }
    let (status, reply) = server.ask("POST", "/v1/models/m:route", r#"{"weights": {"1": 4, "2": 1}}"#).await;
    let expected = r#"{"number":2,"weights":{"1":4,"2":1},"percent":{"1":80.0,"2":20.0},"percent_before":{"1":90.0,"2":10.0}}"#;
    assert_eq!((status, reply.as_str()), (200, expected));
    let twenty = all().await;
    within(twenty.len(), 0.2);
    assert!(twenty.is_superset(&ten), "a share that grows takes nothing back");
}

/// Who answers, and what each version saw of the instances that were its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_over_two_versions_are_told_part_by_part() {
    let server = start(&format!("{TWO}route: {{weights: {{\"1\": 1, \"2\": 1}}}}\n")).await;
    let instances: Vec<_> = (0..8).map(|n| instance(&format!("P{n}"), f64::from(n))).collect();
    let ask = async |path: &str, with_features: bool| {
        let body = json!({"instances": instances, "with_features": with_features}).to_string();
        let asked = server.http.post(server.address(&format!("/v1/models/{path}:predict"))).body(body);
        let reply = asked.send().await.unwrap();
        let versions = reply.headers()["x-quern-version"].to_str().unwrap().to_owned();
        (versions, serde_json::from_str::<Predictions>(&reply.text().await.unwrap()).unwrap())
    };
    let (versions, said) = ask("m", true).await;
    assert_eq!((versions.as_str(), said.features), ("1,2", None));
    assert_eq!(said.parts.len(), 2);
    let mut seen = vec![""; 8];
    for part in &said.parts {
        let features = part.features.as_ref().unwrap();
        assert_eq!(
            (part.feature_service.as_deref(), features.names[0].as_str()),
            (Some("delay_v1"), "distance")
        );
        for (place, values) in part.instances.iter().zip(&features.values) {
            assert_eq!(values[0], json!(*place as f64));
            seen[*place] = &part.model_version;
        }
    }
    assert_eq!(seen, said.served_by);
    // One version alone is told as before, and by its name in any case.
    let (versions, said) = ask("m/versions/2", true).await;
    assert_eq!((versions.as_str(), said.model_version.as_deref(), said.parts.len()), ("2", Some("2"), 0));
    assert_eq!(said.features.unwrap().values.len(), 8);
    let (versions, said) = ask("m/versions/2", false).await;
    assert_eq!((versions.as_str(), said.served_by.len()), ("2", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_is_set_leaves_the_others_as_they_are_or_scales_them() {
    let third = "  - {version: \"3\", path: models/linear.onnx, service: delay_v1}\n";
    let server = start(&format!("{TWO}{third}route: {{weights: {{\"1\": 90, \"2\": 10}}}}\n")).await;
    let mut text = String::new();
    for shares in [
        r#"{"2": 50}"#,
        r#"{"3": "30%"}"#,
        r#"{"3": "30%"}"#,
        r#"{"1": "20%", "2": "30%"}"#,
        r#"{"3": "0%"}"#,
        r#"{"2": 0, "3": 1}"#,
        r#"{"1": "0.5%"}"#,
    ] {
        let (status, reply) =
            server.ask("POST", "/v1/models/m:route", format!("{{\"weights\": {shares}}}")).await;
        let routed: Value = serde_json::from_str(&reply).unwrap();
        text += &format!("{status} {shares}: apply {}, {}\n", routed["number"], routed["weights"]);
        text += &format!("    {} before {}\n", routed["percent"], routed["percent_before"]);
    }
    expect![[r#"
        200 {"2": 50}: apply 2, {"1":90,"2":50,"3":0}
            {"1":64.28571428571429,"2":35.714285714285715,"3":0.0} before {"1":90.0,"2":10.0,"3":0.0}
        200 {"3": "30%"}: apply 3, {"1":45,"2":25,"3":30}
            {"1":45.0,"2":25.0,"3":30.0} before {"1":64.28571428571429,"2":35.714285714285715,"3":0.0}
        200 {"3": "30%"}: apply 3, {"1":45,"2":25,"3":30}
            {"1":45.0,"2":25.0,"3":30.0} before {"1":45.0,"2":25.0,"3":30.0}
        200 {"1": "20%", "2": "30%"}: apply 4, {"1":20,"2":30,"3":50}
            {"1":20.0,"2":30.0,"3":50.0} before {"1":45.0,"2":25.0,"3":30.0}
        200 {"3": "0%"}: apply 5, {"1":40,"2":60,"3":0}
            {"1":40.0,"2":60.0,"3":0.0} before {"1":20.0,"2":30.0,"3":50.0}
        200 {"2": 0, "3": 1}: apply 6, {"1":40,"2":0,"3":1}
            {"1":97.5609756097561,"2":0.0,"3":2.4390243902439024} before {"1":40.0,"2":60.0,"3":0.0}
        200 {"1": "0.5%"}: apply 7, {"1":5,"2":0,"3":995}
            {"1":0.5,"2":0.0,"3":99.5} before {"1":97.5609756097561,"2":0.0,"3":2.4390243902439024}
    "#]]
    .assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_salt_divides_in_another_way_and_other_columns_too() {
    let route = |rest: &str| format!("{TWO}route: {{weights: {{\"1\": 1, \"2\": 1}}{rest}}}\n");
    let mut divisions = BTreeSet::new();
    for rest in ["", ", salt: spring", ", sticky: [tailnum]"] {
        let server = start(&route(rest)).await;
        let said = predict(&server, (0..64).map(|n| instance(&format!("P{n}"), f64::from(n)))).await;
        divisions.insert(said.served_by);
    }
    // The join keys are what sticks where nothing is said.
    assert_eq!(divisions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_named_answers_whatever_the_route_says() {
    let server = start(&format!("{TWO}route: {{weights: {{\"1\": 1, \"2\": 0}}}}\n")).await;
    let body = json!({"instances": [instance("N1", 2000.0)]}).to_string();
    let mut text = String::new();
    for (path, header) in [("m", None), ("m/versions/2", None), ("m", Some("2")), ("m", Some("3"))] {
        let request = server.http.post(server.address(&format!("/v1/models/{path}:predict")));
        let request =
            header.into_iter().fold(request, |request, name| request.header("x-quern-version", name));
        let reply = request.body(body.clone()).send().await.unwrap();
        text += &format!("{} {}\n", reply.status().as_u16(), reply.text().await.unwrap());
    }
    expect![[r#"
        200 {"predictions":[2175.5],"served_by":["1"]}
        200 {"predictions":[4351.0]}
        200 {"predictions":[4351.0]}
        404 {"error":"model `m` has no version `3`; known: 1, 2","code":"not_found"}
    "#]]
    .assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_fails_is_nobodys_business() {
    let server = start(
        r#"
versions:
  - {version: "1", path: models/linear.onnx, service: delay_v1}
  - {version: "2", path: models/fragile.onnx, service: delay_v1}
route: {weights: {"1": 1}, shadow: ["2"]}
"#,
    )
    .await;
    expect![[r#"
        [575.5]
        by 1
    "#]]
    .assert_eq(&show(&predict(&server, [instance("N1", 500.0)]).await));
    expect![[r#"
        [5175.5,-21.0]
        by 1, 1
    "#]]
    .assert_eq(&show(&predict(&server, [instance("N1", 5000.0), instance("N3", 1.0)]).await));
    until("both shadows", async || {
        let shown = metrics(&server, "quern_shadow_predictions_total").await;
        (shown.lines().count() == 2).then_some(shown)
    })
    .await;
    expect![[r#"
        quern_shadow_predictions_total{model="m",outcome="answered",version="2"} 1
        quern_shadow_predictions_total{model="m",outcome="failed",version="2"} 2
    "#]]
    .assert_eq(&metrics(&server, "quern_shadow_predictions_total").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_feed_one_another_in_any_order() {
    let server = start(
        r#"
versions:
  - version: "1"
    service: delay_v1
    steps:
      - {name: vote, expr: "(2 * a + b) / 3"}
      - {name: a, path: models/linear.onnx}
      - {name: b, path: models/linear.onnx, inputs: [scaled, last_delay, a]}
      - {name: scaled, expr: "distance / 1000"}
    outputs: [a, vote, scaled, far]
"#,
    )
    .await;
    // a = distance + 10 * last_delay + 100 * far + 0.5; b = scaled + 10 * last_delay + 100 * a + 0.5.
    expect![[r#"
        [{"a":2175.5,"vote":73992.8359375,"scaled":2.0,"far":true},{"a":-12.0,"vote":-415.3299865722656,"scaled":0.01,"far":false}]
    "#]]
        .assert_eq(&show(&predict(&server, [instance("N1", 2000.0), instance("N3", 10.0)]).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_answer_for_one_another_is_not_applied() {
    let server = start(TWO).await;
    let mut text = String::new();
    for model in [
        // Steps that wait for one another; a column that is none; a name that is taken.
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: a, expr: b}, {name: b, expr: a}]}\n",
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: a, expr: distanze}]}\n",
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: a, expr: b}, {name: b, expr: c__x}, {name: c, expr: \
         distance}]}\n",
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: far, expr: distance}]}\n",
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: a, path: models/linear.onnx, inputs: [far]}]}\n",
        // Outputs that differ, columns that nobody brings, substitutes that do not fit.
        "versions:\n  - {version: 3, path: models/linear.onnx, service: delay_v1}\n  - {version: 4, path: models/named.onnx, \
         service: carrier_v1}\nroute: {weights: {3: 1}}\n",
        "versions:\n  - {version: 3, path: models/linear.onnx, service: delay_v1}\nroute: {weights: {3: 1}, sticky: [taelnum, \
         distance]}\n",
        "versions:\n  - {version: 3, path: models/linear.onnx, service: delay_v1}\nfallback: {to: [{expr: last_delai}, \
         {constant: none}]}\n",
        "versions:\n  - {version: 3, path: models/named.onnx, service: carrier_v1}\nfallback: {to: [{constant: 1}]}\n",
        "versions:\n  - {version: 3, service: delay_v1, steps: [{name: a, expr: CAST(distance AS INT)}]}\nfallback: {to: [{constant: \
         1.5}, {constant: 3000000000}, {constant: true}]}\n",
    ] {
        server
            .repository
            .write("definitions.yaml", format!("{DEFINITIONS}---\nkind: Model\nname: m\n{model}"));
        text += &format!("{}\n", server.apply().await.unwrap_err());
    }
    expect![[r#"
        422 definitions.yaml:57:61: steps wait for one another: a → b → a
          help: let one of them read other columns
        422 definitions.yaml:57:61: `distanze` names unknown column `distanze`
          help: did you mean `distance`? known: distance, far, last_delay
        422 definitions.yaml:57:81: `c__x` names unknown column `c__x`
          help: known: c, distance, far, last_delay; text stands in single quotes: 'text'
        422 definitions.yaml:57:52: `far` is a column of the feature service, or of another step, already
          help: give the step another name
        422 definitions.yaml:57:52: the model does not fit what step `a` reads:
          - input `input` takes 3 value(s) a row, the columns have 1
        what step `a` reads  |  model
          far  bool          |    input  float32 [N, 3]
        422 definitions.yaml:58:15: version `4` gives code int64, both list<float32, 2>, name string, is_ua bool, and version `3` gives y float32: they cannot answer for one another
          help: name and cast the outputs alike with `steps` and `outputs`, or declare two models
        definitions.yaml:58:15: version `4` wants `distance` as float32, another version as float64
          help: a request brings a column once: give it one type in both feature services
        2 mistakes
        422 definitions.yaml:58:35: `taelnum` is no column that a request brings
          help: did you mean `tailnum`? known: distance, tailnum
        definitions.yaml:58:44: `distance` is float64, which no version sticks to
          help: name join keys, or texts or whole numbers
        2 mistakes
        422 definitions.yaml:58:24: `last_delai` names unknown column `last_delai` (over feature service `delay_v1`)
          help: did you mean `last_delay`? known: distance, far, last_delay
        definitions.yaml:58:48: `constant` stands in for a value of type float32, and must be a finite number in the range of `float32`; found "none"
        2 mistakes
        422 definitions.yaml:58:28: the model has several outputs (code, both, name, is_ua), and this is one value
          help: fall back to a version, or keep one output with `steps` and `outputs`
        422 definitions.yaml:58:28: `constant` stands in for a value of type int32, and must be a whole number of 32 bits; found 1.5
        definitions.yaml:58:45: `constant` stands in for a value of type int32, and must be a whole number of 32 bits; found 3000000000
        definitions.yaml:58:69: `constant` stands in for a value of type int32, and must be a whole number of 32 bits; found true
        3 mistakes
    "#]].assert_eq(&text);
}

/// Linear, as long as it is let: what it is asked decides how long it takes, and whether it fails.
fn falling(path: &str, rest: &str) -> String {
    format!(
        "versions:\n  - {{version: \"1\", path: models/linear.onnx, service: delay_v1}}\n  - {{version: \"2\", path: \
         models/{path}.onnx, service: delay_v1}}\nroute: {{weights: {{\"2\": 1}}}}\n{rest}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_model_is_answered_for() {
    let server =
        start(&falling("fragile", "fallback: {to: [{version: 2}, {version: 1}, {constant: 7}]}")).await;
    expect![[r#"
        [575.5]
        by 2
    "#]]
    .assert_eq(&show(&predict(&server, [instance("N1", 500.0)]).await));
    expect![[r#"
        [5175.5,-21.0]
        by 1, 1
        [0, 1] left to 1 for error: the server failed (model `m`, version `2`: running the model); its log has the cause, by this request's id
    "#]]
    .assert_eq(&show(&predict(&server, [instance("N1", 5000.0), instance("N3", 1.0)]).await));
    // Other tests share the process and its counters; of those that fail so, there is only this one.
    expect![[r#"
        quern_fallbacks_total{cause="error",model="m",served_by="1"} 2
    "#]]
    .assert_eq(&metrics(&server, "quern_fallbacks_total{cause=\"error\"").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_model_is_not_waited_for() {
    let server =
        start(&falling("slow", "fallback: {timeout: 40ms, to: [{expr: \"last_delay * 2\"}, {constant: 7}]}"))
            .await;
    // As many rounds as would take minutes.
    expect![[r#"
        [15.0]
        by expr
        [0] left to expr for timeout: the model did not answer in time
    "#]]
    .assert_eq(&show(&predict(&server, [instance("N1", 10_000_000.0)]).await));
    // The run was given up: its sessions are there for others, however many asked.
    let many = (0..8).map(|_| predict(&server, [instance("N1", 10_000_000.0)]));
    for said in futures::future::join_all(many).await {
        assert_eq!(said.fallbacks[0].served_by, "expr");
    }
    let quick = until("a session that is free again", async || {
        let said = predict(&server, [instance("N3", 1.0)]).await;
        said.fallbacks.is_empty().then_some(said)
    });
    expect![[r#"
        [-21.0]
        by 2
    "#]]
    .assert_eq(&show(&quick.await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_online_store_that_does_not_answer_is_answered_for() {
    let mut redis = RedisServer::start(&[]);
    let repository =
        repository(&falling("linear", "fallback: {to: [{version: 1}, {expr: distance}, {constant: 7}]}"));
    let settings = [("online", redis.url()), ("online_timeout", "2s".to_owned())];
    let node = repository.open_applied_with(&settings).await;
    node.materialize_to(JANUARY_10_US);
    let server = Server::of(repository, node).await;
    let port = redis.port().to_string();
    let asked = async || show(&predict(&server, [instance("N1", 500.0)]).await).replace(&port, "PORT");
    let sound = "[575.5]\nby 2\n";
    assert_eq!(asked().await, sound);

    // It hangs, and the substitutes that would ask it too are passed over.
    redis.signal("STOP");
    expect![[r#"
        [7.0]
        by constant
        [0] left to constant for unavailable: the online store redis://127.0.0.1:PORT did not answer within 2000 ms (`online_timeout`)
    "#]].assert_eq(&asked().await);
    redis.signal("CONT");
    until("a Redis that answers again", async || (asked().await == sound).then_some(())).await;
    let counted = metrics(&server, "quern_fallbacks_total{cause=\"unavailable\"").await;
    assert!(counted.contains("served_by=\"constant\""), "{counted}");

    redis.kill();
    let gone = asked().await;
    let constant =
        "[7.0]\nby constant\n[0] left to constant for unavailable: the online store redis://127.0.0.1:PORT";
    assert!(gone.starts_with(constant), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_the_queue_full_is_answered_for_at_once() {
    let rest = "fallback: {timeout: 5s, to: [{constant: 7}]}\nbatching: {queue_rows: 1, concurrency: 1, max_rows: 1}";
    let server = Arc::new(start(&falling("slow", rest)).await);
    // One runs, one waits, and the others find no room.
    let many = (0..6).map(|_| predict(&server, [instance("N1", 20_000.0)]));
    let said = futures::future::join_all(many).await;
    let causes = said.iter().flat_map(|said| &said.fallbacks).map(|left| left.cause.as_str());
    let mut counts = BTreeMap::new();
    causes.for_each(|cause| *counts.entry(cause.to_owned()).or_insert(0) += 1);
    assert!(counts.get("overload").is_some_and(|full| *full >= 4), "{counts:?}");
    assert!(said.iter().any(|said| said.fallbacks.is_empty()), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_that_are_too_old_or_too_few_are_not_left_to_the_model() {
    // N1 landed 8 days before, N2 a year before (beyond the TTL of its view), N3 7 days before; N9 never did.
    let rest = "fallback: {max_age: 7d12h, max_missing: 0.5, to: [{expr: \"-last_delay\"}, {constant: 7}]}";
    let server = start(&falling("linear", rest)).await;
    let instances = ["N1", "N2", "N3", "N9"].map(|plane| instance(plane, 1.0));
    expect![[r#"
        [-7.5,null,-21.0,null]
        by expr, expr, 2, expr
        [1, 3] left to expr for missing: more features are missing than `max_missing` allows
        [0] left to expr for stale: a feature is older than `max_age`
    "#]]
    .assert_eq(&show(&predict(&server, instances).await));
}

/// A model over a window of an hour.
const WINDOWED: &str = r#"
versions: [{version: "1", path: models/linear.onnx, service: landed}]
fallback: {max_missing: 0, to: [{constant: 7}]}
---
kind: FeatureView
name: landings_1h
entities: [plane]
source: landings
aggregations: [{name: landed, function: count, windows: [1h]}]
---
kind: FeatureService
name: landed
request: [{name: distance, type: float64}]
features: [landings_1h]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, landed_1h, far]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_no_window_has_seen_is_missing_and_an_empty_window_is_not() {
    let server = start(WINDOWED).await;
    // N1 landed 8 days before, and N9 never did; N3 had not landed yet at the turn of the year.
    let at = |plane: &str, time: &str| {
        let mut instance = instance(plane, 1.0);
        instance["event_timestamp"] = json!(time);
        instance
    };
    let new_year = "2013-01-01T00:00:00Z";
    let instances = [instance("N1", 1.0), instance("N9", 1.0), at("N3", new_year), at("N2", new_year)];
    let alone = predict(&server, instances).await;
    expect![[r#"
        [1.5,7.0,7.0,1.5]
        by 1, constant, constant, 1
        [1, 2] left to constant for missing: more features are missing than `max_missing` allows
    "#]]
    .assert_eq(&show(&alone));
    // Of history it is the same, and so it is now.
    let asked = table([("N1", 1.0), ("N9", 1.0)]);
    for as_of in [true, false] {
        let said = batch(&server, &command(as_of), &asked).await.unwrap();
        let served_by = said.column_by_name("served_by").unwrap().as_string::<i32>();
        assert_eq!(served_by.iter().flatten().collect::<Vec<_>>(), ["1", "constant"], "as of: {as_of}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_versions_name_is_free_once_nothing_names_it() {
    let two = TWO.replacen("versions:", "log: {sample: 1}\nversions:", 1);
    let three = two.replace("once * 2", "once * 3");
    let repository = repository(&format!("{two}route: {{weights: {{\"1\": 90, \"2\": 10}}}}\n"));
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node.clone()).await;
    let apply = async |model: &str| {
        let text = format!("{DEFINITIONS}---\nkind: Model\nname: m\n{model}");
        server.repository.write("definitions.yaml", text);
        server.apply().await
    };
    let second = async || {
        let instances = vec![instance("N1", 2000.0).as_object().unwrap().clone()];
        let request = PredictRequest { instances, with_features: false };
        server.client.predict_with("m", Some("2"), &request).await.unwrap().predictions
    };
    assert_eq!(second().await, [json!(4351.0)]);
    let mut refused = String::new();
    for rest in [
        "route: {weights: {\"1\": 90, \"2\": 10}}\n",
        "route: {weights: {\"1\": 1}, shadow: [\"2\"]}\nfallback: {to: [{version: 2}]}\n",
        "",
    ] {
        apply(&format!("{two}{rest}")).await.unwrap();
        refused += &format!("{}\n", apply(&format!("{three}{rest}")).await.unwrap_err());
    }
    // Weights that were set in flight are a route as well, whatever is declared.
    let routed = format!("{two}route: {{weights: {{\"1\": 1}}}}\n");
    apply(&routed).await.unwrap();
    let route = async |body: &'static str| server.ask("POST", "/v1/models/m:route", body).await.0;
    assert_eq!(route(r#"{"weights": {"2": "5%"}}"#).await, 200);
    let new = format!("{three}route: {{weights: {{\"1\": 1}}}}\n");
    refused += &format!("{}\n", apply(&new).await.unwrap_err());
    expect![[r#"
        409 this would break a model in use
        model `m`, version `2`: its files, and what goes in and comes out, are not those of the live one, which is still named by the route, with the weight 10 (definitions.yaml:63)
          help: add it as a new version; or free the name first, in an apply before this one: take it out of all that (`quern route m 2=0` takes its weight, and ends a ramp)
        409 this would break a model in use
        model `m`, version `2`: its files, and what goes in and comes out, are not those of the live one, which is still named by `shadow` (definitions.yaml:63), by `fallback` (definitions.yaml:64)
          help: add it as a new version; or free the name first, in an apply before this one: take it out of all that (`quern route m 2=0` takes its weight, and ends a ramp)
        409 this would break a model in use
        model `m`, version `2`: its files, and what goes in and comes out, are not those of the live one, which is still named by whoever names no version, as the last of `versions`
          help: add it as a new version; or free the name first, in an apply before this one: list another version last
        409 this would break a model in use
        model `m`, version `2`: its files, and what goes in and comes out, are not those of the live one, which is still named by `quern route`, with the weight 5
          help: add it as a new version; or free the name first, in an apply before this one: take it out of all that (`quern route m 2=0` takes its weight, and ends a ramp)
    "#]].assert_eq(&refused);
    let before = metrics(&server, "quern_model_info").await;
    assert_eq!(route("{}").await, 200);
    apply(&new).await.unwrap();
    assert_eq!(second().await, [json!(6526.5)]);
    let after = metrics(&server, "quern_model_info").await;
    let (same, other): (Vec<_>, Vec<_>) = before.lines().partition(|line| line.contains("version=\"1\""));
    assert!(same.iter().all(|line| after.contains(line)) && !after.contains(other[0]), "{before}{after}");

    // The log tells the two apart, and who names a version from whom the route sent there.
    let logged = node.logged("m").await.unwrap();
    let text = |column: &str| -> Vec<String> {
        let column = logged.column_by_name(column).unwrap().as_string::<i32>();
        column.iter().flatten().map(str::to_owned).collect()
    };
    assert_eq!((text("version"), text("reason")), (vec!["2".to_owned(); 2], vec!["pinned".to_owned(); 2]));
    let digests = text("digest");
    assert!(other[0].contains(&digests[0]) && after.contains(&digests[1]), "{digests:?}");
    let report = node.verify("m").await;
    assert_eq!(report.models[0].rows, 1);
    let causes: Vec<_> = report.models[0].not_compared.iter().collect();
    assert_eq!(causes, [(&"another model is live as version `2`".to_owned(), &1)]);
    // Under another name it is the same model still.
    let renamed = two.replace("version: \"2\"", "version: \"3\"");
    apply(&format!("{}route: {{weights: {{\"1\": 1}}}}\n", renamed)).await.unwrap();
    assert_eq!(node.verify("m").await.models[0].rows, 1);
    drop(node);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_applies_change_under_load_and_nobody_notices() {
    let model = format!("{TWO}route: {{weights: {{\"1\": 1, \"2\": 0}}}}\n");
    let server = Arc::new(start(&model).await);
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let callers = (0..8).map(|caller| {
        let (server, done, answered) = (Arc::clone(&server), Arc::clone(&done), Arc::clone(&answered));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let planes: Vec<Value> = (0..4).map(|n| instance(&format!("P{caller}{n}"), 1.0)).collect();
                let said = predict(&server, planes).await;
                assert_eq!(said.predictions.len(), 4);
                // A request sees one apply: 0 % or 100 %, never something between.
                let versions: BTreeSet<_> = said.served_by.iter().collect();
                assert!(versions.len() == 1, "{versions:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for round in 0..10 {
        let all = if round % 2 == 0 { "2" } else { "1" };
        let weights = format!("{{\"weights\": {{\"{all}\": \"100%\"}}}}");
        let (status, text) = server.ask("POST", "/v1/models/m:route", weights).await;
        assert_eq!(status, 200, "{text}");
        // A new version beside them, loaded while they answer.
        let third = format!("  - {{version: \"r{round}\", path: models/linear.onnx, service: delay_v1}}\n");
        let model = model.replace("route:", &format!("{third}route:"));
        let model = model.replace(&format!("{third}\n"), &third);
        server
            .repository
            .write("definitions.yaml", format!("{DEFINITIONS}---\nkind: Model\nname: m\n{model}"));
        server.apply().await.unwrap();
        let before = answered.load(Ordering::Relaxed);
        until("answers", async || (answered.load(Ordering::Relaxed) > before + 20).then_some(())).await;
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    // What was set outlives a restart; what is declared anew takes its place.
    let Some(server) = Arc::into_inner(server) else { panic!("nobody else has it") };
    let repository = server.stop_and_keep().await;
    let server = Server::open(repository).await;
    let weights = async |server: &Server| {
        let live = server.client.definitions().await.unwrap();
        let model = live.models.into_iter().find(|model| model.name == "m").unwrap();
        model.versions.into_iter().map(|version| (version.version, version.weight)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&server).await[..2], [("1".to_owned(), 100), ("2".to_owned(), 0)]);
    let (status, _) = server.ask("POST", "/v1/models/m:route", r#"{"weights": {"2": 3, "1": 1}}"#).await;
    assert_eq!(status, 200);
    assert_eq!(weights(&server).await[..2], [("1".to_owned(), 1), ("2".to_owned(), 3)]);
    let (status, _) = server.ask("POST", "/v1/models/m:route", "{}").await;
    assert_eq!(status, 200);
    assert_eq!(weights(&server).await[..2], [("1".to_owned(), 1), ("2".to_owned(), 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_route_is_told_what_is_wrong() {
    let server = start(&format!("{TWO}route: {{weights: {{\"1\": 1}}}}\n")).await;
    let mut text = String::new();
    for (path, body) in [
        ("m:route", r#"{"weights": {"3": 1}}"#),
        ("m:route", r#"{"weights": {"1": 0}}"#),
        ("m:route", r#"{"weights": {"1": -1}}"#),
        ("m:route", r#"{"weights": {"1": "60%", "2": "50%"}}"#),
        ("m:route", r#"{"weights": {"1": "60%", "2": "30%"}}"#),
        ("m:route", r#"{"weights": {"1": "60%"}}"#),
        ("m:route", r#"{"weights": {"1": "60%", "2": 1}}"#),
        ("m:route", r#"{"wights": {"1": 1}}"#),
        ("n:route", r#"{"weights": {"1": 1}}"#),
        ("delay:route", r#"{"weights": {"1": 1}}"#),
        ("m/versions/1:route", ""),
        ("m:ramp", ""),
    ] {
        text +=
            &format!("{}\n", server.refusal("POST", &format!("/v1/models/{path}"), body.to_owned()).await);
    }
    expect![[r#"
        404 not_found: model `m` has no version `3`; known: 1, 2
        400 invalid_argument: every weight is 0, so no version would answer; give one a weight
        400 invalid_argument: the body is neither {"weights": {"version": 90 or "10%", …}} nor {"ramp": {"version": …, "steps": ["10%", …], "every": "10m"}}: `-1` is no share: give a weight, a whole number such as `10`, or a percentage such as `10%` at line 1 column 21
        400 invalid_argument: the percentages add up to 110 %, and all there is are 100 %
        400 invalid_argument: the percentages of all versions add up to 90 %, not to 100 %
        400 invalid_argument: 40 % are left, and what is not named (`2`) has no weight to be scaled; name the percentages of all versions
        400 invalid_argument: give weights or percentages, not both: `50` is a weight beside those of the other versions, `"50%"` a part of all
        400 invalid_argument: the body is neither {"weights": {"version": 90 or "10%", …}} nor {"ramp": {"version": …, "steps": ["10%", …], "every": "10m"}}: unknown field `wights`, expected `weights` or `ramp` at line 1 column 9
        404 not_found: unknown model `n`; known: carrier, class, delay, m
        409 refused: model `delay` has no route; declare one (definitions.yaml:43) and apply: `route: {weights: {"1": 100}}` leaves all as it is
        404 not_found: a version has no route; POST to `m:route`
        404 not_found: a model cannot `ramp`; POST to `m:predict` to predict
    "#]].assert_eq(&text);
}

/// A plane and the distance that it is asked about, by row.
fn table<'a>(rows: impl IntoIterator<Item = (&'a str, f64)>) -> RecordBatch {
    let (planes, distances): (Vec<&str>, Vec<f64>) = rows.into_iter().unzip();
    let at = TimestampMicrosecondArray::from(vec![JANUARY_10_US; planes.len()]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("tailnum", Arc::new(StringArray::from(planes))),
        ("event_timestamp", Arc::new(at)),
        ("distance", Arc::new(Float64Array::from(distances))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn batch(server: &Server, command: &BatchCommand, table: &RecordBatch) -> quern::Result<RecordBatch> {
    let rows = futures::stream::iter([table.clone()]);
    let rows = server.client.predict_batch(command, table.schema(), rows).await?;
    let schema = Arc::clone(rows.schema());
    Ok(concat_batches(&schema, &rows.try_collect::<Vec<_>>().await?).unwrap())
}

fn command(as_of: bool) -> BatchCommand {
    BatchCommand { model: "m".to_owned(), version: None, as_of }
}

/// How many rows have each value of a column; none is counted as empty.
fn counts(rows: &RecordBatch, column: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in rows.column_by_name(column).unwrap().as_string::<i32>() {
        *counts.entry(value.unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_batch_is_answered_by_whom_it_would_be_answered_alone() {
    // The second version is fed by another service, which wants another column.
    let model = TWO.replace("version: \"2\"\n    service: delay_v1", "version: \"2\"\n    service: delay_v2")
        + "route: {weights: {\"1\": 1, \"2\": 1}}\nfallback: {max_age: 7d12h, max_missing: 0.5, to: [{expr: \"-last_delay\"}, {constant: 7}]}\n---\n\
           kind: FeatureService\nname: delay_v2\nrequest: [{name: distance, type: float64}, {name: extra, type: float64}]\n\
           features: [{view: plane_history, features: [last_delay]}]\nderived: [{name: far, expr: \"distance > 1000\"}]\n\
           outputs: [extra, last_delay, far]\n";
    let server = start(&model).await;
    let planes: Vec<String> = (0..2_500).map(|n| format!("P{n}")).collect();
    let planes: Vec<&str> = ["N1", "N2", "N3"].into_iter().chain(planes.iter().map(String::as_str)).collect();
    let asked = table(planes.iter().map(|plane| (*plane, 2_000.0)));
    let extra: ArrayRef = Arc::new(Float64Array::from(vec![1.5; planes.len()]));
    let columns = asked.columns().iter().cloned().chain([extra]);
    let names = ["tailnum", "event_timestamp", "distance", "extra"];
    let asked = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
    let instances = planes.iter().map(|plane| {
        let mut instance = instance(plane, 2_000.0);
        instance["extra"] = json!(1.5);
        instance
    });
    let alone = predict(&server, instances).await;
    let said = batch(&server, &command(true), &asked).await.unwrap();
    let names: Vec<&String> = said.schema_ref().fields().iter().map(|field| field.name()).collect();
    assert_eq!(names[4..], ["y", "served_by", "fallback_cause"]);
    let served_by: Vec<&str> = said.column(5).as_string::<i32>().iter().flatten().collect();
    assert_eq!(served_by, alone.served_by, "as of then");
    let outputs = said.column(4).as_primitive::<Float32Type>();
    for (row, (output, alone)) in outputs.iter().zip(&alone.predictions).enumerate() {
        // Over JSON there is no NaN.
        let output = output.filter(|output| !output.is_nan()).map(f64::from);
        assert_eq!(alone.as_f64(), output, "row {row}");
    }
    let mut causes = vec![None; planes.len()];
    for left in &alone.fallbacks {
        left.instances.iter().for_each(|row| causes[*row] = Some(left.cause.as_str()));
    }
    assert_eq!(said.column(6).as_string::<i32>().iter().collect::<Vec<_>>(), causes);
    let by = counts(&said, "served_by");
    assert!(by["expr"] > 2_000 && by.values().sum::<usize>() == planes.len(), "{by:?}");

    // Now all that is known is too old, whoever's turn it is; a version that is named answers every row.
    let now = batch(&server, &command(false), &asked).await.unwrap();
    assert_eq!(counts(&now, "fallback_cause"), BTreeMap::from([("missing".to_owned(), planes.len())]));
    for as_of in [false, true] {
        let named = BatchCommand { version: Some("1".to_owned()), ..command(as_of) };
        let said = batch(&server, &named, &asked).await.unwrap();
        assert_eq!(said.schema_ref().fields().last().unwrap().name(), "y");
    }
    let taken = RecordBatch::try_from_iter(
        ["served_by", "tailnum", "distance", "extra"]
            .into_iter()
            .zip([0, 0, 2, 3].map(|place| asked.column(place).clone())),
    );
    let refused = batch(&server, &command(false), &taken.unwrap()).await.unwrap_err();
    expect!["the table's column is named `served_by`, as is the one that says who of model `m` answered a row; rename or drop the table's column, or name a version, which answers all rows"].assert_eq(&refused.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_counts_for_each_row_of_a_batch() {
    // A run takes 0.4 s or so, however many rows it has: longer than one row may, and shorter than all of them.
    let server = start(&falling("slow", "fallback: {timeout: 100ms, to: [{constant: 7}]}")).await;
    let planes: Vec<String> = (0..300).map(|n| format!("P{n}")).collect();
    let all =
        |distance: f64, rows: usize| table(planes[..rows].iter().map(|plane| (plane.as_str(), distance)));
    for as_of in [false, true] {
        let said = batch(&server, &command(as_of), &all(20_000.0, 300)).await.unwrap();
        assert_eq!(counts(&said, "served_by"), BTreeMap::from([("2".to_owned(), 300)]), "as of: {as_of}");
    }
    let late = batch(&server, &command(false), &all(10_000_000.0, 3)).await.unwrap();
    assert_eq!(counts(&late, "served_by"), BTreeMap::from([("constant".to_owned(), 3)]));
    assert_eq!(counts(&late, "fallback_cause"), BTreeMap::from([("timeout".to_owned(), 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_model_cannot_bear_is_left_alone() {
    let server = start(&falling("fragile", "fallback: {to: [{version: 1}]}")).await;
    let planes: Vec<String> = (0..900).map(|n| format!("P{n}")).collect();
    let distance = |n: usize| if [0, 17, 431, 899].contains(&n) { 5_000.0 } else { n as f64 };
    let asked = table(planes.iter().enumerate().map(|(n, plane)| (plane.as_str(), distance(n))));
    for as_of in [false, true] {
        let said = batch(&server, &command(as_of), &asked).await.unwrap();
        let causes = said.column_by_name("fallback_cause").unwrap();
        let left: Vec<usize> = (0..900).filter(|row| causes.is_valid(*row)).collect();
        assert_eq!(left, [0, 17, 431, 899]);
        assert_eq!(counts(&said, "served_by"), BTreeMap::from([("1".to_owned(), 4), ("2".to_owned(), 896)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_batch_wait_where_others_would_be_turned_away() {
    let rest = "fallback: {to: [{constant: 7}]}\nbatching: {queue_rows: 1, concurrency: 1}";
    let server = start(&falling("slow", rest)).await;
    let asked = table((0..10_000).map(|_| ("N1", 1_000.0)));
    let said = batch(&server, &command(false), &asked).await.unwrap();
    assert_eq!(counts(&said, "served_by"), BTreeMap::from([("2".to_owned(), 10_000)]));
}
