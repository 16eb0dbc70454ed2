//! Several servers over one Redis and one PostgreSQL: is every label that one of them acknowledged known to all,
//! whichever server its prediction was asked of, and whatever becomes of their folders?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use quern::Client;
use quern::wire::{Code, LabelsRequest, PredictionsCommand};
use quern_kit::{Node, Process, Random, RedisServer, Repository, blocking, fixture, required, run};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::shared::Shared;
use crate::planes::DEFINITIONS;

fn definitions() -> String {
    DEFINITIONS.replace("name: delay\nversions", "name: delay\nlog: {sample: 1}\nversions")
}

/// Servers that share everything but their folders.
struct Servers {
    shared: Shared,
    store: TempDir,
}

impl Servers {
    async fn start() -> Servers {
        required("ORT_DYLIB_PATH");
        let store = TempDir::new().unwrap();
        let shared = Shared::begin(&definitions()).await;
        let servers = Servers { shared, store };
        let first = servers.repository();
        blocking(move || run(first.path(), &["apply"]).answer()).await;
        servers
    }

    /// A folder of another server, empty but for what a repository holds.
    fn repository(&self) -> Repository {
        let store =
            format!("store: {}\nstore_shared: true\npredictions_every: 50ms\n", self.store.path().display());
        let repository = self.shared.repository_with(&store);
        repository.write("landings.csv", crate::planes::LANDINGS);
        for name in ["linear", "named", "classifier_text"] {
            repository.write(format!("models/{name}.onnx"), fixture(&format!("{name}.onnx")));
        }
        repository
    }
}

/// Asks under `id` with so many instances.
async fn ask(server: &Process, id: &str, rows: usize) {
    let instances: Vec<Value> = (0..rows).map(|_| json!({"tailnum": "N1", "distance": 7.0})).collect();
    let asked = reqwest::Client::new().post(format!("{}/v1/models/delay:predict", server.url));
    let reply = asked.header("x-request-id", id).json(&json!({"instances": instances})).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200, "{}", reply.text().await.unwrap());
}

async fn label(server: &Process, labels: Value) {
    let labels = serde_json::from_value(labels).unwrap();
    let client = Client::connect(&server.url).await.unwrap();
    let request = LabelsRequest { model: "delay".to_owned(), labels };
    client.label(&request).await.unwrap();
}

/// The labels of all logged predictions, by request and row; none where one has no label.
async fn joined(server: &Process) -> BTreeMap<(String, i64), Option<i64>> {
    let client = Client::connect(&server.url).await.unwrap();
    let command = PredictionsCommand { predictions: "delay".to_owned(), ..PredictionsCommand::default() };
    let rows = client.predictions(&command).await.unwrap();
    let mut found = BTreeMap::new();
    for rows in rows.try_collect::<Vec<RecordBatch>>().await.unwrap() {
        let ids = rows.column_by_name("request_id").unwrap().as_string::<i32>();
        let places = rows.column_by_name("row").unwrap().as_primitive::<Int64Type>();
        let labels = rows.column_by_name("label").map(|labels| labels.as_primitive::<Int64Type>());
        for row in 0..rows.num_rows() {
            let label = labels.and_then(|labels| labels.iter().nth(row).flatten());
            let before = found.insert((ids.value(row).to_owned(), places.value(row)), label);
            assert_eq!(before, None, "{} is there twice", ids.value(row));
        }
    }
    found
}

fn of(rows: &[(&str, i64, Option<i64>)]) -> BTreeMap<(String, i64), Option<i64>> {
    rows.iter().map(|(id, row, label)| (((*id).to_owned(), *row), *label)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_label_each_others_predictions_and_a_kill_or_an_empty_folder_loses_none() {
    let servers = Servers::start().await;
    let (here, there) = (servers.repository(), servers.repository());
    let (first, second) = (Process::start(here.path()), Process::start(there.path()));
    ask(&first, "q-1", 2).await;
    ask(&second, "q-2", 1).await;
    // Each server writes its own down when it is asked.
    for server in [&first, &second] {
        joined(server).await;
    }
    label(&second, json!([{"request_id": "q-1", "row": 1, "label": 1}])).await;
    label(&first, json!([{"request_id": "q-2", "label": 2}, {"request_id": "nobody", "label": 9}])).await;
    let expected = of(&[("q-1", 0, None), ("q-1", 1, Some(1)), ("q-2", 0, Some(2))]);
    for server in [&first, &second] {
        assert_eq!(joined(server).await, expected);
    }
    // The later one counts, whichever server it was told.
    label(&first, json!([{"request_id": "q-1", "row": 1, "label": 3}])).await;
    label(&second, json!([{"request_id": "q-1", "row": 1, "label": 4}])).await;
    label(&second, json!([{"request_id": "q-2", "label": 5}])).await;
    label(&first, json!([{"request_id": "q-2", "label": 6}])).await;
    first.kill();
    second.kill();
    let expected = of(&[("q-1", 0, None), ("q-1", 1, Some(4)), ("q-2", 0, Some(6))]);
    let empty = servers.repository();
    let third = Process::start(empty.path());
    assert_eq!(joined(&third).await, expected);
    let again = Process::start(here.path());
    assert_eq!(joined(&again).await, expected);
    for server in [&third, &again] {
        follows(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_labels_of_one_server_survive_a_kill() {
    let repository = crate::models::logged_planes();
    run(repository.path(), &["apply"]).answer();
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let server = Process::start(repository.path());
        let id = format!("q-{round}");
        ask(&server, &id, 1).await;
        joined(&server).await;
        label(&server, json!([{"request_id": id, "label": round}])).await;
        server.kill();
        expected.insert((id, 0), Some(round));
    }
    let server = Process::start(repository.path());
    assert_eq!(joined(&server).await, expected);
    label(&server, json!([{"request_id": "q-0", "label": 0}])).await;
    follows(&server).await;
}

/// No head follows labels, so none lags behind them.
async fn follows(server: &Process) {
    let status = reqwest::get(format!("{}/v1/status", server.url)).await.unwrap();
    let status: Value = serde_json::from_str(&status.text().await.unwrap()).unwrap();
    assert_eq!(status["stores"]["log"]["commits_behind"], json!(0), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_without_a_log_are_refused_with_the_way_out() {
    let redis = RedisServer::start(&[]);
    let repository = crate::models::logged_planes();
    repository.write("quern.yaml", format!("online: {}\n", redis.url()));
    let node = repository.open_applied().await;
    let error = node.try_label("delay", &labels(&[("a", 1)]), 0).unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(error.to_string().contains("set `registry: postgres://…` on each of them"), "{error}");
    assert!(node.labels("delay").value("label", "a", 0).is_none());
}

fn labels(rows: &[(&str, i64)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, _)| id)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, label)| *label)));
    RecordBatch::try_from_iter([("request_id", ids), ("label", values)]).unwrap()
}

/// The label that a server knows of each request.
fn known(node: &Node, requests: u64) -> BTreeMap<String, i64> {
    let labels = node.labels("delay");
    let of = |id: String| {
        let label = labels.value("label", &id, 0)?;
        Some((id, label.as_primitive::<Int64Type>().value(0)))
    };
    (0..requests).filter_map(|n| of(format!("r{n}"))).collect()
}

/// Servers label, seal, compact, forget and read in any order: all find what a naive oracle has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_servers_do_in_turn_all_find_the_last_label() {
    let servers = Servers::start().await;
    let repositories = [(); 3].map(|()| servers.repository());
    let mut nodes = Vec::new();
    for repository in &repositories {
        nodes.push(repository.open().await);
    }
    let (mut random, mut oracle) = (Random::new("labels of servers"), BTreeMap::new());
    let mut gone = 0;
    for step in 0..120 {
        let node = random.pick(&nodes);
        match random.below(12) {
            0 => node.forget_sealed(),
            1..=3 => node.seal_labels("delay"),
            4 | 5 => gone += node.compact_labels(32 << 20, 1 + random.below(20) as usize).superseded,
            6 | 7 => assert_eq!(known(&node, 31), oracle),
            _ => {
                let rows: Vec<(String, i64)> =
                    (0..=random.below(9)).map(|_| (format!("r{}", random.below(30)), step)).collect();
                let given: Vec<(&str, i64)> = rows.iter().map(|(id, label)| (&id[..], *label)).collect();
                node.label("delay", &labels(&given), step);
                oracle.extend(rows);
            }
        }
    }
    for node in &nodes {
        assert_eq!(known(node, 31), oracle);
        node.seal_labels("delay");
        gone += node.compact_labels(32 << 20, 7).superseded;
        assert_eq!(known(node, 31), oracle);
    }
    assert!(gone > 0);
    // A server that has nothing but what the others share.
    let late = servers.repository();
    assert_eq!(known(&late.open().await, 31), oracle);
}

/// Types are looked at in turn: of two servers that bring one column in two types at once, one is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_that_race_with_one_column_in_two_types_one_is_refused() {
    let servers = Servers::start().await;
    let (here, there) = (servers.repository(), servers.repository());
    let nodes = [here.open().await, there.open().await];
    for round in 0..8 {
        let putting = nodes.iter().enumerate().map(|(place, node)| {
            let node = node.clone();
            let value: ArrayRef = match place {
                0 => Arc::new(Int64Array::from(vec![1])),
                _ => Arc::new(StringArray::from(vec!["one"])),
            };
            let id: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
            let column = format!("column{round}");
            let rows = RecordBatch::try_from_iter([("request_id", id), (&column[..], value)]).unwrap();
            tokio::task::spawn_blocking(move || node.try_label("delay", &rows, 0))
        });
        let mut taken = 0;
        for put in putting.collect::<Vec<_>>() {
            match put.await.unwrap() {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error.code, Code::InvalidArgument, "{error}");
                    assert!(error.to_string().contains("before, and is"), "{error}");
                }
            }
        }
        assert_eq!(taken, 1, "round {round}");
        assert!(nodes[1].labels("delay").value(&format!("column{round}"), "a", 0).is_some());
    }
}

/// Two servers with a store each and one log: both find all, before and after each has written its own segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_with_stores_of_their_own_find_all_labels() {
    let servers = Servers::start().await;
    let (here, there) = (servers.repository(), servers.repository());
    let own = TempDir::new().unwrap();
    let settings = [("store", own.path().display().to_string()), ("store_shared", "false".to_owned())];
    let (first, second) = (here.open().await, there.open_with(&settings).await.unwrap());
    first.label("delay", &labels(&[("r0", 1), ("r1", 1)]), 0);
    second.label("delay", &labels(&[("r1", 2), ("r2", 2)]), 0);
    let expected: BTreeMap<String, i64> =
        [("r0", 1), ("r1", 2), ("r2", 2)].map(|(id, label)| (id.to_owned(), label)).into();
    for node in [&first, &second] {
        assert_eq!(known(node, 3), expected);
        node.seal_labels("delay");
        assert_eq!((node.label_tail_rows("delay"), node.label_segments("delay").len()), (0, 1));
        node.compact_labels(32 << 20, 1);
        assert_eq!(known(node, 3), expected);
    }
}
