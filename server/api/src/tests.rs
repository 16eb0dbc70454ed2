use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use feature_defs::Operation;
use quern_access::Caller;
use quern_wire::MaterializeRequest;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use quern_server::{Program, Settings};

const DEFINITIONS: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: csv, path: "landings.csv"}
event_timestamp: landed_at
columns:
  - {name: tailnum, type: string}
  - {name: landed_at, type: timestamp}
  - {name: delay, type: float64}
  - {name: seats, type: int64}
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
ttl: 30d
features:
  - {name: last_delay, expr: delay}
  - {name: seats}
---
kind: FeatureService
name: arrival_delay_v1
request: [{name: distance, type: float64}]
features: [{view: plane_history}]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, last_delay, far]
---
kind: FeatureService
name: everything
request:
  - {name: at, type: timestamp}
  - {name: day, type: date}
  - {name: raw, type: bytes}
  - {name: small, type: int32}
  - {name: single, type: float32}
  - {name: list, type: "list<float32>"}
  - {name: pair, type: "list<int64, 2>"}
features: [{view: plane_history, features: [seats]}]
outputs: [at, day, raw, small, single, list, pair]
---
kind: Model
name: arrival_delay
versions: [{version: "1", path: linear.onnx, service: arrival_delay_v1}]
"#;

const LANDINGS: &str = "tailnum,landed_at,delay,seats\n\
    N1,2013-01-01T10:00:00Z,5,100\n\
    N1,2013-01-02T10:00:00Z,7.5,\n\
    N2,2012-06-01T10:00:00Z,1,50\n";

/// Where the set-up installs ONNX Runtime.
fn installed() -> Option<std::path::PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/quern"));
    let cache = std::env::var_os("QUERN_CACHE").map(Into::into).or_else(home)?;
    let pythons = std::fs::read_dir(cache.join("venv/lib")).ok()?.flatten();
    pythons.map(|python| python.path().join("site-packages/onnxruntime/capi")).find(|path| path.is_dir())
}

#[test]
#[ignore = "the worker that the other tests start"]
fn worker() {
    quern_server::worker().unwrap();
}

/// A server of one small repository, without its socket.
struct Server {
    router: Router,
    _repository: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        let repository = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(repository.path().join(name), text).unwrap();
        write("definitions.yaml", DEFINITIONS.as_bytes());
        write("landings.csv", LANDINGS.as_bytes());
        write("linear.onnx", &std::fs::read(fixtures().join("linear.onnx")).unwrap());
        let mut settings =
            Settings::load(repository.path(), &[("body_bytes_max", "1000000".to_owned())]).unwrap();
        settings.onnxruntime = settings.onnxruntime.or(installed());
        // A test of this very program is the worker.
        let arguments = ["--exact", "tests::worker", "--ignored", "--nocapture"].map(Into::into).to_vec();
        settings.worker = Program { path: std::env::current_exe().unwrap(), arguments };
        let node = Node::open(settings).await.unwrap();
        let project = node.settings.applies.clone();
        let candidate = node.apply.check(Caller::owner(), project).await.unwrap();
        node.apply.apply(candidate).await.unwrap();
        let node = tokio::task::spawn_blocking(move || {
            let request = serde_json::from_value::<MaterializeRequest>(json!({})).unwrap();
            let (live, now_us) = (node.live(), quern_base::clock::now_us());
            let permitted = live.seen_by(&Caller::owner()).operate(Operation::Materialize).unwrap();
            node.materialize.run((&live, &permitted), &request, now_us, &|_| {}).unwrap();
            node
        });
        Server { router: router(node.await.unwrap()), _repository: repository }
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.ask("POST", path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The status and the words of a reply that is none of success.
    async fn refuse(&self, path: &str, body: impl Into<Body>) -> (u16, String) {
        let (status, text) = self.ask("POST", path, body).await;
        let reply: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        (status.as_u16(), reply["error"].as_str().unwrap().to_owned())
    }
}

fn fixtures() -> std::path::PathBuf {
    Path::new("../../tests/fixtures").to_owned()
}

const PREDICT: &str = "/v1/models/arrival_delay:predict";
const JANUARY_3: &str = "2013-01-03T00:00:00Z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_by_entity() {
    let server = Server::start().await;
    let instances = json!([
        {"tailnum": "N1", "distance": 2000, "event_timestamp": JANUARY_3},
        {"event_timestamp": 1357171200000000i64, "distance": 10.5, "tailnum": "N1"},
        {"tailnum": "N2", "distance": 1.0, "event_timestamp": "2013-01-03T00:00:00"},
    ]);
    // y = distance + 10 * last_delay + 100 * far + 0.5
    let plain = server.post(PREDICT, json!({"instances": instances})).await;
    assert_eq!(plain, json!({"predictions": [2175.5, 86.0, null]}));
    let told = server
        .post(
            "/v1/models/arrival_delay/versions/1:predict",
            json!({"instances": instances, "with_features": true}),
        )
        .await;
    let expected = json!({
        "predictions": [2175.5, 86.0, null],
        "model_version": "1",
        "feature_service": "arrival_delay_v1",
        "features": {
            "names": ["distance", "last_delay", "far"],
            "values": [[2000.0, 7.5, true], [10.5, 7.5, false], [1.0, null, false]],
            "statuses": [
                ["PRESENT", "PRESENT", "PRESENT"],
                ["PRESENT", "PRESENT", "PRESENT"],
                ["PRESENT", "OUTSIDE_MAX_AGE", "PRESENT"],
            ],
            "event_timestamps": [
                [null, "2013-01-02T10:00:00Z", null],
                [null, "2013-01-02T10:00:00Z", null],
                [null, "2012-06-01T10:00:00Z", null],
            ],
        },
    });
    assert_eq!(told, expected);
    assert_eq!(server.post(PREDICT, json!({"instances": []})).await, json!({"predictions": []}));
    let unknown_key =
        json!({"instances": [{"tailnum": null, "distance": null}], "signature_name": "serving_default"});
    assert_eq!(server.post(PREDICT, unknown_key).await, json!({"predictions": [null]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_as_feast_has_them() {
    let server = Server::start().await;
    let mut reply = server
        .post(
            "/get-online-features",
            json!({
                "features": ["plane_history:last_delay", "plane_history:seats"],
                "entities": {"tailnum": ["N1", "N2", "N3"], "event_timestamp": [JANUARY_3, JANUARY_3, JANUARY_3]},
                "full_feature_names": true,
            }),
        )
        .await;
    let epoch = "1970-01-01T00:00:00Z";
    let times = json!(["2013-01-02T10:00:00Z", "2012-06-01T10:00:00Z", epoch]);
    let expected = json!({
        "metadata": {
            "feature_names": ["tailnum", "plane_history__last_delay", "plane_history__seats"],
            "feature_types": ["string", "float64", "int64"],
        },
        "results": [
            {
                "values": ["N1", "N2", "N3"],
                "statuses": ["PRESENT", "PRESENT", "PRESENT"],
                "event_timestamps": [epoch, epoch, epoch],
            },
            {
                "values": [7.5, null, null],
                "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
                "event_timestamps": times,
            },
            {
                "values": [null, null, null],
                "statuses": ["NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
                "event_timestamps": times,
            },
        ],
    });
    let views = reply["metadata"].as_object_mut().unwrap().remove("feature_view_metadata").unwrap();
    assert_eq!((views.as_array().unwrap().len(), views[0]["name"].as_str()), (1, Some("plane_history")));
    assert!(views[0]["materialized_until"].is_string(), "{views}");
    assert_eq!(reply, expected);
    let names = |reply: Value| reply["metadata"]["feature_names"].clone();
    let request = json!({
        "feature_service": "arrival_delay_v1",
        "entities": {"tailnum": ["N1"], "distance": [1], "event_timestamp": [JANUARY_3]},
    });
    let by_service = server.post("/get-online-features", request.clone()).await;
    assert_eq!(names(by_service), json!(["tailnum", "distance", "last_delay", "far"]));
    let mut full = request;
    full["full_feature_names"] = json!(true);
    let by_service = server.post("/get-online-features", full).await;
    assert_eq!(names(by_service), json!(["tailnum", "distance", "plane_history__last_delay", "far"]));
    let twice = |full: bool| {
        let features = ["plane_history:seats"; 2];
        let entities = json!({"tailnum": ["N1"], "event_timestamp": [JANUARY_3]});
        json!({"features": features, "entities": entities, "full_feature_names": full}).to_string()
    };
    let told =
        (400, "feature `plane_history__seats`: it is asked for twice; name each feature once".to_owned());
    assert_eq!(server.refuse("/get-online-features", twice(true)).await, told);
    let told = "feature `seats`: two features are called so; ask with `full_feature_names: true`".to_owned();
    assert_eq!(server.refuse("/get-online-features", twice(false)).await, (400, told));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_type_come_back_as_they_went_in() {
    let server = Server::start().await;
    let entities = json!({
        "tailnum": ["N1", "N1", "N1", "N1"],
        "at": ["2013-01-01T05:00:00.25-05:00", 1_357_034_401_500_000_i64, "1969-12-31 23:59:59.999999", null],
        "day": ["2013-02-28", "1900-01-01", "2013-12-31", null],
        "raw": ["3q2+7w==", {"b64": "3q2+7w"}, "", null],
        "small": [1, -2.0, 2147483647, null],
        "single": [0.5, 3, -1e-3, null],
        "list": [[1, null, 2.5], [], [0], null],
        "pair": [[1, 2], [3.0, null], [9007199254740993i64, -1], null],
    });
    let reply = server
        .post("/get-online-features", json!({"feature_service": "everything", "entities": entities}))
        .await;
    let values: Vec<&Value> =
        reply["results"].as_array().unwrap().iter().skip(1).map(|column| &column["values"]).collect();
    let expected = json!([
        ["2013-01-01T10:00:00.250Z", "2013-01-01T10:00:01.500Z", "1969-12-31T23:59:59.999999Z", null],
        ["2013-02-28", "1900-01-01", "2013-12-31", null],
        ["3q2+7w==", "3q2+7w==", "", null],
        [1, -2, 2147483647, null],
        [0.5, 3.0, f64::from(-1e-3f32), null],
        [[1.0, null, 2.5], [], [0.0], null],
        [[1, 2], [3, null], [9007199254740993i64, -1], null],
    ]);
    assert_eq!(json!(values), expected);
    for (column, value, said) in [
        ("at", json!("soon"), "expected timestamp (RFC 3339, or whole microseconds), found string \"soon\""),
        (
            "at",
            json!(1_357_034_401),
            "expected timestamp (RFC 3339, or whole microseconds), found number 1357034401, which looks like seconds (in \
             microseconds it is 1357034401000000)",
        ),
        (
            "event_timestamp",
            json!(1_357_034_401_000_i64),
            "expected timestamp (RFC 3339, or whole microseconds), found number 1357034401000, which looks like \
             milliseconds (in microseconds it is 1357034401000000)",
        ),
        (
            "at",
            json!(1.5),
            "expected timestamp (RFC 3339, or whole microseconds), found number 1.5, which is too near to 1970 to be \
             taken for microseconds: write it as RFC 3339",
        ),
        ("day", json!("2013-02-30"), "expected date (`YYYY-MM-DD`), found string \"2013-02-30\""),
        ("raw", json!("*"), "expected bytes (base64), found string \"*\""),
        ("small", json!(2147483648i64), "expected int32, found number 2147483648"),
        ("small", json!(1.5), "expected int32, found number 1.5"),
        ("small", json!(true), "expected int32, found bool true"),
        ("single", json!(1e39), "expected float32, found number 1e39"),
        ("list", json!([1, "x"]), "expected float32 items, found string \"x\" in the list"),
        ("pair", json!([1]), "expected list<int64, 2>, found an array of 1"),
        ("pair", json!({"a": 1}), "expected list<int64, 2>, found an object of 1"),
    ] {
        let mut wrong = entities.clone();
        // The query time is none of the entities' columns until a request brings it.
        if wrong.get(column).is_none() {
            wrong[column] = json!([null, null, null, null]);
        }
        wrong[column][2] = value;
        let body = json!({"feature_service": "everything", "entities": wrong}).to_string();
        let expected = format!("entity 2: column `{column}`: {said}");
        assert_eq!(server.refuse("/get-online-features", body).await, (400, expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_a_status() {
    let server = Server::start().await;
    let predict =
        |instance: Value| json!({"instances": [{"tailnum": "N1", "distance": 1}, instance]}).to_string();
    let needs = "feature service `arrival_delay_v1` needs `tailnum` (string), `distance` (float64)";
    let cases = [
        (
            PREDICT,
            "{".to_owned(),
            400,
            "the body is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            PREDICT,
            "{}".to_owned(),
            400,
            "`instances` is missing: an array of objects; or `inputs`, an object of arrays",
        ),
        (
            PREDICT,
            r#"{"instances": 1}"#.to_owned(),
            400,
            "`instances`: expected an array of objects, found number 1",
        ),
        (
            PREDICT,
            predict(json!({"tailnum": "N1", "distance": "far"})),
            400,
            "instance 1: column `distance`: expected float64, found string \"far\"",
        ),
        (
            PREDICT,
            predict(json!({"tailnum": "N1"})),
            400,
            &format!("instance 1: column `distance` is missing; {needs}"),
        ),
        (
            PREDICT,
            predict(json!({"distance": 1})),
            400,
            &format!("instance 1: column `tailnum` is missing; {needs}"),
        ),
        (
            PREDICT,
            predict(json!({"tailnum": "N1", "distanc": 1})),
            400,
            "instance 1: unknown column `distanc`; did you mean `distance`? known: distance, event_timestamp, tailnum",
        ),
        (
            PREDICT,
            predict(json!(["N1", 1])),
            400,
            "instance 1: expected an object with `tailnum` (string), `distance` (float64), found an array of 2",
        ),
        (
            "/v1/models/arrival_dela:predict",
            "{}".to_owned(),
            404,
            "unknown model `arrival_dela`; did you mean `arrival_delay`? known: arrival_delay",
        ),
        (
            "/v1/models/arrival_delay/versions/2:predict",
            "{}".to_owned(),
            404,
            "model `arrival_delay` has no version `2`; known: 1",
        ),
        (
            "/v1/models/arrival_delay:explain",
            "{}".to_owned(),
            404,
            "a model cannot `explain`; POST to `arrival_delay:predict` to predict",
        ),
        (
            "/get-online-features",
            json!({"feature_service": "arrival_delay", "entities": {}}).to_string(),
            404,
            "unknown feature service `arrival_delay`; did you mean `arrival_delay_v1`? \
             known: arrival_delay_v1, everything",
        ),
        (
            "/get-online-features",
            json!({"feature_service": "arrival_delay_v1", "entities": {"tailnum": ["N1"], "distance": []}})
                .to_string(),
            400,
            "column `distance` has 0 values and column `tailnum` has 1; all have one for each row",
        ),
        (
            "/get-online-features",
            json!({"features": ["plane_history.seats"], "entities": {"tailnum": ["N1"]}}).to_string(),
            400,
            "`features`: expected `view:feature`, found string \"plane_history.seats\"",
        ),
        ("/nowhere", String::new(), 404, "nothing answers at `/nowhere`"),
        ("/metrics", String::new(), 405, "`/metrics` does not answer POST"),
        (PREDICT, " ".repeat(1_000_001), 413, "the body is larger than 1000000 bytes (`body_bytes_max`)"),
    ];
    for (path, body, status, said) in cases {
        assert_eq!(server.refuse(path, body).await, (status, said.to_owned()));
    }
    let many = json!({"instances": vec![json!({"tailnum": "N1", "distance": 1}); 10_001]}).to_string();
    let (status, said) = server.refuse(PREDICT, many).await;
    assert!(status == 413 && said.starts_with("the request brings 10001 instances, at most 10000"), "{said}");
    // Whatever comes, the server answers.
    for body in [
        &b"\xff\xfe"[..],
        b"[[[",
        b"\"\\ud800\"",
        b"{\"instances\":[{\"tailnum\":\"\\u0000\",\"distance\":1}]}",
    ] {
        let (status, text) = server.ask("POST", PREDICT, body.to_vec()).await;
        assert!(status.as_u16() < 500, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_says_how_it_is() {
    let server = Server::start().await;
    for path in ["/", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.ask("GET", path, "").await.0, StatusCode::OK);
    }
    server.post(PREDICT, json!({"instances": [{"tailnum": "N1", "distance": 1}]})).await;
    let (_, metrics) = server.ask("GET", "/metrics", "").await;
    for name in [
        "quern_requests_total{method=\"POST\",route=\"/v1/models/{call}\",status=\"200\"}",
        "quern_stage_seconds_count{stage=\"inference\"}",
        "quern_feature_values_total{feature_service=\"arrival_delay_v1\",status=\"",
        "quern_apply_number 1",
        "quern_model_sessions{model=\"arrival_delay\",version=\"1\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let (_, catalogue) = server.ask("GET", "/v1/definitions", "").await;
    let catalogue: quern_wire::Catalogue = serde_json::from_str(&catalogue).unwrap();
    assert_eq!((catalogue.number, catalogue.models[0].versions[0].digest.len()), (1, 64));
}
