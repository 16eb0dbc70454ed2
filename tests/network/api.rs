//! What does a client read, over real sockets? Look-ups, predictions, mistakes, applies, and the end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use expect_test::{Expect, expect};
use quern::wire::{OnlineFeatures, PredictRequest};
use quern_kit::{Server, blocking, fixture};
use serde_json::{Value, json};

use crate::planes::{self, DEFINITIONS, JANUARY_10, instance};

/// A line for each column: its name, then value, status and event timestamp of each entity.
fn show(reply: &OnlineFeatures) -> String {
    let mut text = String::new();
    for (name, column) in reply.metadata.feature_names.iter().zip(&reply.results) {
        text += &format!("{name}\n");
        for ((value, status), time) in
            column.values.iter().zip(&column.statuses).zip(&column.event_timestamps)
        {
            text += &format!("  {value} {} {}\n", status.as_str(), time.as_deref().unwrap_or("-"));
        }
    }
    text
}

fn planes(names: &[&str]) -> BTreeMap<String, Vec<Value>> {
    BTreeMap::from([
        ("tailnum".to_owned(), names.iter().map(|name| json!(name)).collect()),
        ("event_timestamp".to_owned(), vec![json!(JANUARY_10); names.len()]),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_by_service() {
    let server = planes::serve().await;
    let mut entities = planes(&["N1", "N2", "N9"]);
    entities.insert("distance".to_owned(), vec![json!(2000), json!(1000.5), json!(null)]);
    let reply = server.client.get_online_features("delay_v1", entities).await.unwrap();
    expect![[r#"
        tailnum
          "N1" PRESENT 1970-01-01T00:00:00Z
          "N2" PRESENT 1970-01-01T00:00:00Z
          "N9" PRESENT 1970-01-01T00:00:00Z
        distance
          2000.0 PRESENT 1970-01-01T00:00:00Z
          1000.5 PRESENT 1970-01-01T00:00:00Z
          null NULL_VALUE 1970-01-01T00:00:00Z
        last_delay
          7.5 PRESENT 2013-01-02T10:00:00Z
          null OUTSIDE_MAX_AGE 2012-06-01T10:00:00Z
          null NOT_FOUND 1970-01-01T00:00:00Z
        far
          true PRESENT 1970-01-01T00:00:00Z
          true PRESENT 1970-01-01T00:00:00Z
          null NULL_VALUE 1970-01-01T00:00:00Z
    "#]]
    .assert_eq(&show(&reply));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_by_features() {
    let server = planes::serve().await;
    let ask = |full_feature_names: bool| {
        let features = ["plane_history:seats", "plane_history:last_delay"];
        let request = json!({
            "features": features, "entities": planes(&["N1", "N2", "N9"]), "full_feature_names": full_feature_names,
        });
        let client = server.client.clone();
        async move { client.call::<OnlineFeatures>("/get-online-features", &request).await.unwrap() }
    };
    expect![[r#"
        tailnum
          "N1" PRESENT 1970-01-01T00:00:00Z
          "N2" PRESENT 1970-01-01T00:00:00Z
          "N9" PRESENT 1970-01-01T00:00:00Z
        plane_history__seats
          null NULL_VALUE 2013-01-02T10:00:00Z
          null OUTSIDE_MAX_AGE 2012-06-01T10:00:00Z
          null NOT_FOUND 1970-01-01T00:00:00Z
        plane_history__last_delay
          7.5 PRESENT 2013-01-02T10:00:00Z
          null OUTSIDE_MAX_AGE 2012-06-01T10:00:00Z
          null NOT_FOUND 1970-01-01T00:00:00Z
    "#]]
    .assert_eq(&show(&ask(true).await));
    expect!["tailnum seats last_delay"].assert_eq(&ask(false).await.metadata.feature_names.join(" "));
}

/// A view with windows beside the planes' own, and one that is never materialized.
fn windows(of: &str) -> String {
    format!(
        "{DEFINITIONS}---\nkind: FeatureView\nname: recent\nentities: [plane]\nsource: landings\naggregations:\n  - {{name: \
         legs, function: count, windows: [{of}]}}\n---\nkind: FeatureView\nname: new{}\nentities: [plane]\nsource: \
         landings\nfeatures: [seats]\n",
        of.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_says_up_to_when_its_views_are_materialized() {
    let repository = planes::repository();
    repository.write("definitions.yaml", windows("10d"));
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node).await;
    server.repository.write("definitions.yaml", windows("10d, 300d"));
    server.apply().await.unwrap();
    let features = ["recent:legs_10d", "recent:legs_300d", "new9:seats", "plane_history:seats"];
    let request =
        json!({"features": features, "entities": planes(&["N1", "N9"]), "full_feature_names": true});
    let (_, text) = server.ask("POST", "/get-online-features", request.to_string()).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    let mut text = format!("{}\n", reply["metadata"]["feature_view_metadata"]);
    let names = reply["metadata"]["feature_names"].as_array().unwrap();
    for (name, column) in names.iter().zip(reply["results"].as_array().unwrap()) {
        text +=
            &format!("{name}: {} {} {}\n", column["values"], column["statuses"], column["event_timestamps"]);
    }
    expect![[r#"
        [{"name":"recent","materialized_until":"2013-01-10T00:00:00Z"},{"name":"new9","materialized_until":null},{"name":"plane_history","materialized_until":"2013-01-10T00:00:00Z"}]
        "tailnum": ["N1","N9"] ["PRESENT","PRESENT"] ["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]
        "recent__legs_10d": [2,0] ["PRESENT","PRESENT"] [null,null]
        "recent__legs_300d": [null,null] ["NOT_FOUND","NOT_FOUND"] [null,null]
        "new9__seats": [null,null] ["NOT_FOUND","NOT_FOUND"] ["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]
        "plane_history__seats": [null,null] ["NULL_VALUE","NOT_FOUND"] ["2013-01-02T10:00:00Z","1970-01-01T00:00:00Z"]
    "#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prediction_by_each_kind_of_model() {
    let server = planes::serve().await;
    let ask = |model: &'static str, instances: [Value; 3]| {
        let client = server.client.clone();
        async move { Value::from(client.predict(model, instances).await.unwrap().predictions) }
    };
    let asked = || [instance("N1", 2000.0), instance("N2", 10.0), instance("N3", 10.0)];
    // distance + 10 * last_delay + 100 * far + 0.5; a null is NaN, and comes back as null.
    expect!["[2175.5,null,-12.0]"].assert_eq(&ask("delay", asked()).await.to_string());
    expect![[r#"[{"code":2,"both":[2000.0,4000.0],"name":"DL","is_ua":false},{"code":-1,"both":[10.0,20.0],"name":"none","is_ua":false},{"code":-1,"both":[10.0,20.0],"name":"none","is_ua":false}]"#]].assert_eq(&ask("carrier", asked()).await.to_string());

    let classes = ask("class", asked()).await;
    for row in [0, 2] {
        let label = classes[row]["output_label"].as_str().unwrap();
        let chances = classes[row]["output_probability"].as_object().unwrap();
        let most = chances.values().map(|chance| chance.as_f64().unwrap()).fold(0.0, f64::max);
        assert_eq!(chances.keys().collect::<Vec<_>>(), ["early", "late", "never"]);
        assert_eq!(chances[label].as_f64(), Some(most), "{classes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prediction_with_the_features_that_the_model_saw() {
    let server = planes::serve().await;
    let asked = [instance("N1", 2000.0), instance("N2", 10.0)];
    let instances = asked.into_iter().map(|instance| instance.as_object().unwrap().clone()).collect();
    let request = PredictRequest { instances, with_features: true };
    let reply = server.client.predict_with("delay", Some("1"), &request).await.unwrap();
    let lines: Vec<String> = serde_json::to_value(&reply)
        .unwrap()
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    expect![[r#"
        predictions: [2175.5,null]
        model_version: "1"
        feature_service: "delay_v1"
        features: {"names":["distance","last_delay","far"],"values":[[2000.0,7.5,true],[10.0,null,false]],"statuses":[["PRESENT","PRESENT","PRESENT"],["PRESENT","OUTSIDE_MAX_AGE","PRESENT"]],"event_timestamps":[[null,"2013-01-02T10:00:00Z",null],[null,"2012-06-01T10:00:00Z",null]]}
    "#]].assert_eq(&lines.concat());
}

/// A name that would be a path elsewhere is a name all the same: none of these applies what lies in the repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_no_path() {
    let server = planes::serve().await;
    server.repository.write("definitions.yaml", DEFINITIONS.replace("ttl: 30d", "ttl: 31d"));
    let mut said = String::new();
    for (model, version) in [
        ("../apply?", None),
        ("../apply#", None),
        ("..%2fapply?", None),
        ("delay:predict/../../apply?", None),
        ("delay", Some("../../../apply?")),
        ("../../v1", Some("../../apply?")),
        ("..", Some("../../apply?")),
    ] {
        let error = server.client.predict_with(model, version, &PredictRequest::default()).await.unwrap_err();
        said += &format!("{:?} {error}\n", error.code());
    }
    expect![[r#"
        Some(NotFound) unknown model `../apply?`; known: carrier, class, delay
        Some(NotFound) unknown model `../apply#`; known: carrier, class, delay
        Some(NotFound) unknown model `..%2fapply?`; known: carrier, class, delay
        Some(NotFound) unknown model `delay:predict/../../apply?`; did you mean `delay`? known: carrier, class, delay
        Some(NotFound) model `delay` has no version `../../../apply?`; known: 1
        Some(NotFound) unknown model `../../v1`; known: carrier, class, delay
        Some(NotFound) nothing answers at `/v1/versions/..%2F..%2Fapply%3F:predict`
    "#]]
    .assert_eq(&said);
    assert_eq!(server.client.definitions().await.unwrap().number, 1);
}

/// What JSON has no numbers for has a name; bytes may be told from text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infinities_go_in_by_name() {
    let server = planes::serve().await;
    let far = async |distance: Value| {
        let entities =
            json!({"tailnum": [{"b64": "TjE="}], "distance": [distance], "event_timestamp": [JANUARY_10]});
        let asked = json!({"feature_service": "delay_v1", "entities": entities}).to_string();
        let (_, text) = server.ask("POST", "/get-online-features", asked).await;
        let reply: Value = serde_json::from_str(&text).unwrap();
        match &reply["results"] {
            Value::Null => reply["error"].to_string(),
            results => {
                let shown = |at: usize| format!("{} {}", results[at]["values"], results[at]["statuses"]);
                (1..4).map(shown).collect::<Vec<_>>().join(" ")
            }
        }
    };
    let mut said = String::new();
    for distance in ["Infinity", "-Infinity", "NaN", "inf", "1e999"] {
        said += &format!("{distance}: {}\n", far(json!(distance)).await);
    }
    expect![[r#"
        Infinity: [null] ["PRESENT"] [7.5] ["PRESENT"] [true] ["PRESENT"]
        -Infinity: [null] ["PRESENT"] [7.5] ["PRESENT"] [false] ["PRESENT"]
        NaN: [null] ["PRESENT"] [7.5] ["PRESENT"] [true] ["PRESENT"]
        inf: "entity 0: column `distance`: expected float64, found string \"inf\""
        1e999: "entity 0: column `distance`: expected float64, found string \"1e999\""
    "#]]
    .assert_eq(&said);
}

/// Each case is `METHOD PATH` and, on the next line, the body.
async fn check_refusals(server: &Server, cases: &[&str], expected: Expect) {
    let mut text = String::new();
    for case in cases {
        let (line, body) = case.split_once('\n').unwrap_or((case, ""));
        let (method, path) = line.split_once(' ').unwrap();
        text += &format!("{}\n", server.refusal(method, path, body.to_owned()).await);
    }
    expected.assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_prediction_request_is_told_what_is_wrong() {
    let server = planes::serve().await;
    let cases = [
        "POST /v1/models/delay:predict\n",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\"",
        "POST /v1/models/delay:predict\n[]",
        "POST /v1/models/delay:predict\n{\"instances\": {}}",
        "POST /v1/models/delay:predict\n{\"instance\": []}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\"}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"distance\": 1}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\", \"distance\": \"far\"}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": 1, \"distance\": 1}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\", \"distance\": 1, \"event_timestamp\": \"noon\"}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\", \"distance\": 1, \"distance\": 2}]}",
        "POST /v1/models/delay:predict\n{\"instances\": [{\"tailnum\": \"N1\", \"distance\": 1, \"seats\": 2}]}",
        "POST /v1/models/carrier:predict\n{\"instances\": [{\"tailnum\": \"N1\", \"distance\": 1e39}]}",
        "POST /v1/models/delays:predict\n{\"instances\": []}",
        "POST /v1/models/delay/versions/2:predict\n{\"instances\": []}",
        "POST /v1/models/delay\n{\"instances\": []}",
        "POST /v1/models/delay:explain\n{\"instances\": []}",
        "GET /v1/models/delay:predict",
        "PUT /v1/models/delay/versions/1:predict",
    ];
    check_refusals(&server, &cases, expect![[r#"
        400 invalid_argument: the body is not valid JSON: EOF while parsing a value at line 1 column 0
        400 invalid_argument: the body is not valid JSON: EOF while parsing an object at line 1 column 31
        400 invalid_argument: the body must be a JSON object with `instances`, `inputs`, `with_features`, `signature_name`, found an array of 0
        400 invalid_argument: `instances`: expected an array of objects, found an object of 0
        400 invalid_argument: unknown key `instance`; did you mean `instances`? known: inputs, instances, signature_name, with_features
        400 invalid_argument: instance 0: column `distance` is missing; feature service `delay_v1` needs `tailnum` (string), `distance` (float64)
        400 invalid_argument: instance 0: column `tailnum` is missing; feature service `delay_v1` needs `tailnum` (string), `distance` (float64)
        400 invalid_argument: instance 0: column `distance`: expected float64, found string "far"
        400 invalid_argument: instance 0: column `tailnum`: expected string, found number 1
        400 invalid_argument: instance 0: column `event_timestamp`: expected timestamp (RFC 3339, or whole microseconds), found string "noon"
        400 invalid_argument: instance 0: column `distance` is given twice
        400 invalid_argument: instance 0: unknown column `seats`; known: distance, event_timestamp, tailnum
        400 invalid_argument: instance 0: column `distance`: expected float32, found number 1e39
        404 not_found: unknown model `delays`; did you mean `delay`? known: carrier, class, delay
        404 not_found: model `delay` has no version `2`; known: 1
        404 not_found: POST to `delay:predict` to predict
        404 not_found: a model cannot `explain`; POST to `delay:predict` to predict
        405 invalid_argument: `/v1/models/delay:predict` does not answer GET
        405 invalid_argument: `/v1/models/delay/versions/1:predict` does not answer PUT
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_look_up_is_told_what_is_wrong() {
    let server = planes::serve().await;
    let cases = [
        "POST /get-online-features\n{",
        "POST /get-online-features\n{}",
        "POST /get-online-features\n{\"feature_service\": \"delay_v1\"}",
        "POST /get-online-features\n{\"feature_service\": \"delay\", \"entities\": {}}",
        "POST /get-online-features\n{\"feature_service\": 1, \"entities\": {}}",
        "POST /get-online-features\n{\"feature_service\": \"delay_v1\", \"features\": [], \"entities\": {}}",
        "POST /get-online-features\n{\"features\": [\"plane_histor:seats\"], \"entities\": {}}",
        "POST /get-online-features\n{\"features\": [\"plane_history:seat\"], \"entities\": {}}",
        "POST /get-online-features\n{\"features\": [\"seats\"], \"entities\": {}}",
        "POST /get-online-features\n{\"features\": [\"plane_history:seats\"], \"entities\": {}}",
        "POST /get-online-features\n{\"features\": [\"plane_history:seats\"], \"entities\": {\"tailnum\": \"N1\"}}",
        "POST /get-online-features\n{\"feature_service\": \"delay_v1\", \"entities\": {\"tailnum\": [\"N1\"]}}",
        "POST /get-online-features\n{\"feature_service\": \"delay_v1\", \"entities\": {\"tailnum\": [\"N1\"], \"distance\": []}}",
        "POST /get-online-features\n{\"feature_service\": \"delay_v1\", \"entities\": {\"tailnum\": [true], \"distance\": [1]}}",
        "DELETE /get-online-features",
        "GET /get-online-feature",
    ];
    check_refusals(&server, &cases, expect![[r#"
        400 invalid_argument: the body is not valid JSON: EOF while parsing an object at line 1 column 1
        400 invalid_argument: name a `feature_service` (known: carrier_v1, delay_v1) or `features`, an array of `view:feature`
        400 invalid_argument: `entities` is missing: an object with an array for each column
        404 not_found: unknown feature service `delay`; did you mean `delay_v1`? known: carrier_v1, delay_v1
        400 invalid_argument: `feature_service`: expected a name, found number 1
        400 invalid_argument: give either `feature_service` or `features`, not both
        404 not_found: unknown feature view `plane_histor`; did you mean `plane_history`? known: plane_history
        404 not_found: feature view `plane_history` has no feature `seat`; did you mean `seats`? known: carrier, last_delay, seats
        400 invalid_argument: `features`: expected `view:feature`, found string "seats"
        400 invalid_argument: column `tailnum` is missing; the request needs `tailnum` (string)
        400 invalid_argument: column `tailnum`: expected an array of values, found string "N1"
        400 invalid_argument: column `distance` is missing; feature service `delay_v1` needs `tailnum` (string), `distance` (float64)
        400 invalid_argument: column `distance` has 0 values and column `tailnum` has 1; all have one for each row
        400 invalid_argument: entity 0: column `tailnum`: expected string, found bool true
        405 invalid_argument: `/get-online-features` does not answer DELETE
        404 not_found: nothing answers at `/get-online-feature`
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_too_large_is_refused_and_the_server_goes_on() {
    let server = planes::serve().await;
    for path in ["/v1/models/delay:predict", "/get-online-features"] {
        let refusal = server.refusal("POST", path, " ".repeat(1_000_001)).await;
        assert_eq!(refusal, "413 too_large: the body is larger than 1000000 bytes (`body_bytes_max`)");
    }
    let many = json!({"instances": vec![instance("N1", 1.0); 10_001]}).to_string();
    expect!["413 too_large: the request brings 10001 instances, at most 10000 are answered at a time: split it, or pull a training set over Arrow Flight"].assert_eq(&server.refusal("POST", "/v1/models/delay:predict", many).await);
    assert_eq!(
        server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap().predictions,
        [json!(76.5)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics() {
    let server = planes::serve().await;
    for (path, said) in [("live", r#"{"live":true}"#), ("ready", r#"{"ready":true}"#)] {
        assert_eq!(server.ask("GET", &format!("/v2/health/{path}"), "").await, (200, said.to_owned()));
    }
    server.client.predict("delay", [instance("N1", 1.0), instance("N2", 1.0)]).await.unwrap();
    server.refusal("POST", "/v1/models/delay:predict", "{").await;
    let metrics = server.metrics().await;
    for series in [
        "quern_requests_total{method=\"POST\",route=\"/v1/models/{call}\",status=\"200\"}",
        "quern_requests_total{method=\"POST\",route=\"/v1/models/{call}\",status=\"400\"}",
        "quern_request_seconds_bucket{route=\"/v1/models/{call}\",le=\"0.001\"}",
        "quern_requests_in_flight",
        "quern_model_requests_total{model=\"delay\",outcome=\"answered\",version=\"1\"}",
        "quern_model_seconds_count{model=\"delay\",version=\"1\"}",
        "quern_model_runs_total{model=\"delay\",version=\"1\"} 1",
        "quern_model_rows_total{model=\"delay\",version=\"1\"} 2",
        "nv_inference_request_success{model=\"delay\",version=\"1\"}",
        "nv_inference_request_failure{model=\"delay\",version=\"1\"}",
        "nv_inference_count{model=\"delay\",version=\"1\"} 2",
        "nv_inference_exec_count{model=\"delay\",version=\"1\"} 1",
        "nv_inference_pending_request_count{model=\"delay\",version=\"1\"} 0",
        "nv_inference_request_duration_us{model=\"delay\",version=\"1\"}",
        "nv_inference_queue_duration_us{model=\"delay\",version=\"1\"}",
        "nv_inference_compute_infer_duration_us{model=\"delay\",version=\"1\"}",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "quern_build_info{version=\"",
        "quern_stage_seconds_count{stage=\"look_up\"}",
        "quern_stage_seconds_count{stage=\"transform\"}",
        "quern_stage_seconds_count{stage=\"inference\"}",
        "quern_feature_values_total{feature_service=\"delay_v1\",status=\"OUTSIDE_MAX_AGE\"}",
        "quern_feature_age_seconds_count{feature_view=\"plane_history\"}",
        "quern_apply_number 1",
        "quern_model_sessions{model=\"delay\",version=\"1\"}",
        "quern_model_sessions_busy{model=\"delay\",version=\"1\"} 0",
        "quern_model_waiting_rows{model=\"delay\",version=\"1\"} 0",
        "quern_rocksdb_block_cache_capacity_bytes 536870912",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_nothing_is_not_ready() {
    let repository = planes::repository();
    let server = Server::open(repository).await;
    assert_eq!(server.ask("GET", "/v2/health/live", "").await.0, 200);
    for path in ["/v2/health/ready", "/health"] {
        let (status, said) = server.ask("GET", path, "").await;
        expect![[r#"503 {"ready":false,"error":"nothing is live yet: `quern apply` the definitions","code":"unavailable"}"#]]
            .assert_eq(&format!("{status} {said}"));
    }
    expect!["404 not_found: unknown model `delay`; nothing has been applied yet; run `quern apply`"]
        .assert_eq(&server.refusal("POST", "/v1/models/delay:predict", "{}").await);
    assert_eq!(server.apply().await.unwrap()["number"], 1);
    assert_eq!(server.ask("GET", "/v2/health/ready", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_that_would_break_a_live_model_is_refused() {
    let server = planes::serve().await;
    let again = server.apply().await.unwrap();
    assert_eq!((&again["number"], &again["applied"]), (&json!(1), &json!(false)));
    let refused = |definitions: String| {
        server.repository.write("definitions.yaml", definitions);
        async { server.apply().await.unwrap_err() }
    };

    let reordered = DEFINITIONS.replace("[distance, last_delay, far]", "[last_delay, distance, far]");
    expect![[r#"
        409 this would break a model in use
        model `class`, version `1`: feature service `delay_v1` would hand it other inputs: input 1 of 3 is `distance float64` and would be `last_delay float64` of 3
          help: leave the service as it is, add a new service and a new model version beside them, and remove the old ones once nobody asks for them
        model `delay`, version `1`: feature service `delay_v1` would hand it other inputs: input 1 of 3 is `distance float64` and would be `last_delay float64` of 3
          help: leave the service as it is, add a new service and a new model version beside them, and remove the old ones once nobody asks for them"#]].assert_eq(&refused(reordered).await);
    let narrower = DEFINITIONS.replace("[distance, last_delay, far]", "[distance, last_delay]");
    expect![[r#"
        422 definitions.yaml:44:22: the model does not fit feature service `delay_v1`:
          - input `input` takes 3 value(s) a row, the columns have 2
        feature service `delay_v1`  |  model
          distance  float64         |    input  float32 [N, 3]
          last_delay  float64       |
          help: this version is live: leave its feature service as it is, add a new service and a new model version beside them, and remove the old ones once nobody asks for them
        definitions.yaml:52:22: the model does not fit feature service `delay_v1`:
          - input `X` takes 3 value(s) a row, the columns have 2
        feature service `delay_v1`  |  model
          distance  float64         |    X  float32 [N, 3]
          last_delay  float64       |
          help: this version is live: leave its feature service as it is, add a new service and a new model version beside them, and remove the old ones once nobody asks for them
        2 mistakes"#]].assert_eq(&refused(narrower).await);
    let total = DEFINITIONS.replace("models/linear.onnx", "models/total.onnx");
    expect!["422 definitions.yaml:44:22: tried on 1 row(s) of zeros, the model fails: reading the model's output `sum`: it has the shape [], which is not one row for each of the 1 that went in"].assert_eq(&refused(total).await);
    server.repository.write("models/linear.onnx", fixture("classifier.onnx"));
    expect![[r#"
        409 this would break a model in use
        model `delay`, version `1`: its files, and what goes in and comes out, are not those of the live one, which is still named by whoever names no version, as the last of `versions`
          help: add it as a new version; or free the name first, in an apply before this one: list another version last"#]].assert_eq(&refused(DEFINITIONS.to_owned()).await);

    assert_eq!(server.client.definitions().await.unwrap().number, 1);
    assert_eq!(
        server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap().predictions,
        [json!(76.5)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_changed_back_goes_live_again() {
    let server = planes::serve().await;
    server.repository.write("models/linear.onnx", fixture("classifier.onnx"));
    assert!(server.apply().await.is_err());
    server.repository.write("models/linear.onnx", fixture("linear.onnx"));
    let second = DEFINITIONS.replace(
        "service: delay_v1}]\n---\nkind: Model\nname: carrier",
        "service: delay_v1}, {version: \"2\", path: models/classifier_text.onnx, service: delay_v1}]\n---\nkind: Model\nname: carrier",
    );
    server.repository.write("definitions.yaml", second);
    assert_eq!(server.apply().await.unwrap()["number"], 2);
    let newest = server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap();
    assert!(newest.predictions[0]["output_label"].is_string(), "{newest:?}");
    let first = server.client.predict_with("delay", Some("1"), &PredictRequest::default()).await.unwrap();
    assert!(first.predictions.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_wholly_of_one_apply() {
    let server = planes::serve().await;
    swap(&server, &server).await;
}

/// Law 6, where it is hardest: model version, feature service and features of one reply belong together, while what
/// `applying` applies takes its place in `asked`.
pub(crate) async fn swap(applying: &Server, asked: &Server) {
    let constants = |name: &str, value: u32| {
        format!(
            "kind: FeatureService\nname: {name}\nfeatures: [plane_history]\nderived:\n  - {{name: a, expr: \"{value}.0\"}}\n  \
             - {{name: b, expr: \"{value}.0\"}}\n  - {{name: c, expr: \"{value}.0\"}}\noutputs: [a, b, c]\n---\n"
        )
    };
    let old = constants("one", 1)
        + "kind: Model\nname: m\nversions: [{version: \"1\", path: models/linear.onnx, service: one}]\n";
    let new = constants("one", 3)
        + &constants("two", 2)
        + "kind: Model\nname: m\nversions:\n  - {version: \"1\", path: models/linear.onnx, service: one}\n  \
           - {version: \"2\", path: models/linear.onnx, service: two}\n";
    let apply = async |definitions: &str| {
        applying.repository.write("swap.yaml", definitions);
        let plan = applying.apply().await.unwrap();
        assert_eq!(plan["applied"], true);
        asked.shows(plan["number"].as_u64().unwrap()).await;
    };
    apply(&old).await;

    let (done, answers) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 4]));
    let askers = (0..4).map(|asker| {
        let (client, done, answers) = (asked.client.clone(), Arc::clone(&done), Arc::clone(&answers));
        tokio::spawn(async move {
            let instances = vec![json!({"tailnum": "N1"}).as_object().unwrap().clone(); 50];
            let request = PredictRequest { instances, with_features: true };
            let version = (asker % 2 == 0).then_some("1");
            let mut seen = BTreeMap::<String, usize>::new();
            while !done.load(Ordering::Relaxed) {
                let reply = client.predict_with("m", version, &request).await.unwrap();
                answers[asker].fetch_add(1, Ordering::Relaxed);
                let features = reply.features.unwrap();
                let value = features.values[0][0].as_f64().unwrap();
                assert!(features.values.iter().flatten().all(|other| *other == json!(value)), "{features:?}");
                assert!(
                    reply.predictions.iter().all(|y| *y == json!(111.0 * value + 0.5)),
                    "{:?}",
                    reply.predictions
                );
                let of =
                    format!("{} {} {value}", reply.model_version.unwrap(), reply.feature_service.unwrap());
                *seen.entry(of).or_default() += 1;
            }
            seen
        })
    });
    let askers: Vec<_> = askers.collect();
    for number in 0..20 {
        apply(if number % 2 == 0 { &new } else { &old }).await;
        // The next swap waits until everyone has asked since this one, and not only been answered.
        let before: Vec<usize> = answers.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let behind = || answers.iter().zip(&before).any(|(now, then)| now.load(Ordering::Relaxed) < then + 2);
        while behind() && askers.iter().all(|asker| !asker.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut seen = BTreeMap::<String, usize>::new();
    for asker in askers {
        asker.await.unwrap().into_iter().for_each(|(of, count)| *seen.entry(of).or_default() += count);
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["1 one 1", "1 one 3", "2 two 2"], "{seen:?}");
}

/// Told to stop while a request is under way: it is answered, and nobody else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_end() {
    let server = planes::serve().await;
    let address: SocketAddr = server.client.url().trim_start_matches("http://").parse().unwrap();
    let body = json!({"instances": [instance("N1", 1.0)]}).to_string();
    let head = format!(
        "POST /v1/models/delay:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    let begun = blocking(move || {
        stream.write_all(head.as_bytes()).unwrap();
        // The server asks for the body when the request is under way.
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
        reader
    });
    let mut reader = begun.await;
    let ended = server.stop();
    let reply = blocking(move || {
        // It listens no longer.
        while TcpStream::connect(address).is_ok() {}
        reader.get_mut().write_all(body.as_bytes()).unwrap();
        let mut reply = String::new();
        reader.read_to_string(&mut reply).unwrap();
        reply
    });
    let reply = reply.await;
    ended.await;
    let reply = reply.trim_start();
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("{\"predictions\":[76.5]}"), "{reply}");
}
