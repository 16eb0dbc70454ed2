//! Do two projects on one server keep to themselves, use what is shared with them, and break one another in nothing?

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use quern_kit::{Node, Repository, Result, Server, fixture};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::planes::{self, JANUARY_10_US};

/// Definitions of the project `risk`: names that the planes have as well, over a view that these share.
const RISK: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
push: true
batch: {format: csv, path: visits.csv}
event_timestamp: at
columns: [{name: tailnum, type: string}, {name: at, type: timestamp}, {name: n, type: int64}]
---
kind: FeatureView
name: visits
entities: [plane]
source: landings
features: [n]
---
kind: FeatureService
name: delay_v1
request: [{name: distance, type: float64}]
features: [{view: default.plane_history, features: [last_delay, seats]}, visits]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, last_delay, far]
---
kind: Model
name: delay
versions: [{version: "1", path: linear.onnx, service: delay_v1}]
"#;

/// The folders of both; the planes share their view where `shared`.
fn repositories(shared: &str) -> (Repository, Repository) {
    let (platform, risk) = (planes::repository(), Repository::new(RISK));
    platform.write("definitions.yaml", definitions(shared));
    platform.write("quern.yaml", format!("projects: {}\n", risk.path().display()));
    risk.write("quern.yaml", format!("project: risk\nserved_by: {}\n", platform.path().display()));
    risk.write("visits.csv", "tailnum,at,n\nN1,2013-01-02T00:00:00Z,3\n");
    risk.write("linear.onnx", fixture("linear.onnx"));
    (platform, risk)
}

fn definitions(shared: &str) -> String {
    planes::DEFINITIONS.replace("name: plane_history\n", &format!("name: plane_history\n{shared}"))
}

const SHARED: &str = "share: [risk]\n";

/// A server of the planes that serves `risk` as well, with both applied and materialized.
async fn serve() -> (Server, Repository) {
    let (platform, risk) = repositories(SHARED);
    let node = platform.open_applied().await;
    node.check_project("risk").await.unwrap().apply().await.unwrap();
    node.materialize_to(JANUARY_10_US);
    (Server::of(platform, node).await, risk)
}

async fn apply_risk(server: &Server) -> std::result::Result<Value, String> {
    let (status, text) = server.ask("POST", "/v1/apply", r#"{"project": "risk"}"#).await;
    match status {
        200 => Ok(serde_json::from_str(&text).unwrap()),
        _ => Err(text),
    }
}

async fn predict(server: &Server, model: &str, tailnum: &str, distance: f64) -> Value {
    let body = json!({"instances": [planes::instance(tailnum, distance)]}).to_string();
    let (status, text) = server.ask("POST", &format!("/v1/models/{model}:predict"), body).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["predictions"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_names_of_its_own_and_what_is_shared_is_the_same() {
    let (server, _risk) = serve().await;
    for tailnum in ["N1", "N2", "N3"] {
        let ours = predict(&server, "delay", tailnum, 1_200.0).await;
        for model in ["risk.delay", "risk%2Edelay"] {
            assert_eq!(predict(&server, model, tailnum, 1_200.0).await, ours, "{model}");
        }
    }
    let look_up =
        json!({"features": ["plane_history:seats", "risk.visits:n"], "entities": {"tailnum": ["N1"]}});
    let (status, text) = server.ask("POST", "/get-online-features", look_up.to_string()).await;
    assert_eq!(status, 200, "{text}");
    let push = json!({"push_source_name": "risk.landings",
        "df": {"tailnum": ["N2"], "at": ["2013-01-03T00:00:00Z"], "n": [7]}});
    let (status, text) = server.ask("POST", "/push", push.to_string()).await;
    assert_eq!(status, 200, "{text}");
    // What is pushed to one is no row of the other, of which the source has the same name.
    let refused =
        json!({"push_source_name": "landings", "df": {"tailnum": ["N2"], "at": ["2013-01-03T00:00:00Z"]}});
    assert_eq!(server.ask("POST", "/push", refused.to_string()).await.0, 409);
    let catalogue = server.ask("GET", "/v1/definitions", "").await.1;
    let catalogue: Value = serde_json::from_str(&catalogue).unwrap();
    let names = |kind: &str| -> Vec<String> {
        catalogue[kind].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("models"), ["carrier", "class", "delay", "risk.delay"]);
    assert_eq!(names("feature_views"), ["plane_history", "risk.visits"]);
    // All of it is there again after a restart, and what was pushed as well.
    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    let spine = spine();
    let of = |service: &str| node.service(service).training_set(&spine, false);
    assert_eq!(of("risk.delay_v1").columns(), of("delay_v1").columns());
    assert_eq!(node.pushed_rows("risk.landings"), 1);
    node.seal("risk.landings");
    assert_eq!(node.pushed_rows("risk.landings"), 1);
}

fn spine() -> RecordBatch {
    let tailnums = ["N1", "N2", "N3", "N4"];
    let columns: [(&str, ArrayRef); 3] = [
        ("tailnum", Arc::new(StringArray::from(tailnums.to_vec()))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![JANUARY_10_US; 4]).with_timezone("UTC")),
        ),
        ("distance", Arc::new(Float64Array::from(vec![1_200.0; 4]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_replaces_its_own_project_and_breaks_no_other() {
    let (server, risk) = serve().await;
    let platform = &server.repository;
    let refused = |text: String, what: &str| assert!(text.contains(what), "{text}");
    // Neither takes anything of the other away.
    let plan = server.apply().await.unwrap();
    assert_eq!((&plan["applied"], &plan["changes"]), (&json!(false), &json!([])));
    // What goes on there, computed in another way, is named: the model, and the service that training sets are of.
    platform.write("definitions.yaml", definitions(SHARED).replace("ttl: 30d", "ttl: 29d"));
    let (status, plan) = server.ask("POST", "/v1/plan", "").await;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let affected: Vec<&str> =
        plan["affected"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let cause = "(`ttl` of feature view `plane_history`: 30d → 29d)";
    assert!(status == 200 && affected.iter().all(|note| note.ends_with(cause)), "{affected:?}");
    assert!(affected[0].contains("model `risk.delay`, version `1`"), "{affected:?}");
    let services: Vec<&&str> = affected.iter().filter(|note| note.starts_with("feature service")).collect();
    assert!(matches!(*services, [note] if note.contains("`risk.delay_v1`")), "{affected:?}");
    // No longer shared, no longer there, of another type: each breaks the other.
    for (from, to, what) in [
        (SHARED, "", "risk: definitions.yaml:22:19: unknown feature view `plane_history`"),
        (SHARED, "share: [growth]\n", "project `risk` is live and needs what it uses to stay as it is"),
        ("  - {name: seats}\n", "", "`seats` is no feature of feature view `plane_history`"),
        ("{name: last_delay, expr: delay}", "{name: last_delay, expr: seats}", "risk.delay"),
    ] {
        let text = definitions(SHARED);
        assert!(text.contains(from));
        platform.write("definitions.yaml", text.replace(from, to));
        refused(server.apply().await.unwrap_err(), what);
    }
    // In its own terms, its places are as they are and those of others bear their project.
    risk.write("definitions.yaml", RISK.replace("features: [n]", "features: [m]"));
    let text = apply_risk(&server).await.unwrap_err();
    refused(text, "definitions.yaml:17:12: `m` is not among the declared columns of source `risk.landings`");
    // What is not shared looks like what is not there.
    risk.write("definitions.yaml", RISK.replace("source: landings", "source: default.landings"));
    let hidden = apply_risk(&server).await.unwrap_err();
    risk.write("definitions.yaml", RISK.replace("source: landings", "source: default.nothing"));
    let missing = apply_risk(&server).await.unwrap_err();
    let told = |text: &str| serde_json::from_str::<Value>(text).unwrap()["error"].to_string();
    assert_eq!(told(&hidden).replace("`landings`", "`nothing`"), told(&missing));
    // Away with what uses it, and what is used may go.
    let (without, _) = RISK.split_once("---\nkind: FeatureService").unwrap();
    risk.write("definitions.yaml", without);
    let plan = apply_risk(&server).await.unwrap();
    let changed: Vec<&str> =
        plan["changes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(changed, ["risk.delay_v1", "risk.delay"]);
    platform.write("definitions.yaml", definitions(""));
    assert_eq!(server.apply().await.unwrap()["applied"], true);
    let (status, text) = server.ask("POST", "/v1/apply", r#"{"project": "growth"}"#).await;
    assert!(status == 404 && text.contains("serves no project `growth`; known: default, risk"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_below_the_own_folder() {
    let (platform, risk) = repositories(SHARED);
    risk.write(
        "definitions.yaml",
        RISK.replace("visits.csv", &format!("{}/landings.csv", platform.path().display())),
    );
    let node = platform.open_applied().await;
    let server = Server::of(platform, node).await;
    let text = apply_risk(&server).await.unwrap_err();
    assert!(text.contains("lies outside of the repository"), "{text}");
}

#[tokio::test]
async fn settings_say_who_serves_whom() {
    let (platform, risk) = repositories(SHARED);
    let opened = |repository: &Repository| {
        let path = repository.path().to_owned();
        async move { Node::open(&path, &[]).await.map(drop).map_err(|error| error.to_string()) }
    };
    async fn refused(opened: impl Future<Output = std::result::Result<(), String>>, what: &str) {
        let error = opened.await.unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let opens: Result<()> = Node::open(risk.path(), &[]).await.map(drop);
    opens.unwrap();
    let project = format!("project: risk\nserved_by: {}\n", platform.path().display());
    risk.write("quern.yaml", format!("{project}listen: 127.0.0.1:1\n"));
    refused(opened(&platform), "whose quern.yaml says `listen`").await;
    risk.write("quern.yaml", "");
    refused(opened(&platform), "is the project `default`, and so is").await;
    risk.write("quern.yaml", "project: a.b\n");
    refused(opened(&platform), "`a.b` is no name of letters").await;
    platform.write("quern.yaml", "");
    risk.write("quern.yaml", &project);
    refused(opened(&risk), "does not list").await;
}
