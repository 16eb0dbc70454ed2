//! What becomes of a step that asks another server, when that one answers, ends, is slow or says something else?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use expect_test::expect;
use futures::TryStreamExt;
use quern::Client;
use quern_kit::{
    Printed, Process, Repository, Server, fixture, free_port, metric, required, run, run_in, until,
};
use quern_wire::PredictionsCommand;
use serde_json::{Value, json};

use super::bounds::{PREDICT, ask, model, service};

/// A server of the model `m`, of this file, which is live.
async fn there(file: &str) -> (Repository, Process) {
    let repository = Repository::new(&model(["float64"; 3], ""));
    repository.write("m.onnx", fixture(file));
    let process = Process::start(repository.path());
    applied(&process).await.unwrap();
    (repository, process)
}

async fn applied(server: &Process) -> Result<Value, String> {
    let client = Client::connect(&server.url).await.unwrap();
    client.call("/v1/apply", &()).await.map_err(|error| error.to_string())
}

/// What a server of its own process says of these rows. Servers of this one share their counters with other tests.
async fn says(server: &Process, rows: Value) -> String {
    let request = reqwest::Client::new().post(format!("{}{PREDICT}", server.url));
    let reply = request.body(json!({"instances": rows}).to_string()).send().await.unwrap();
    let (status, text) = (reply.status(), reply.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["predictions"].to_string()
}

async fn counted(server: &Process, series: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
    metric(&text, series).unwrap_or_default()
}

/// A model that doubles what the model `m` at `port` says of its columns.
fn here(port: u16, remote: &str, rest: &str) -> Repository {
    let service = service(["float64"; 3]).replace("outputs: [a, b, c]", "outputs: [k, a, b, c]");
    Repository::new(&format!(
        "{service}kind: Connection\nname: inference\nurl: \"grpc://127.0.0.1:{port}\"\n---\n\
         kind: Model\nname: m\n{rest}versions:\n  - version: 1\n    service: s\n    steps:\n      \
         - {{name: twice, expr: score * 2}}\n      \
         - {{name: score, remote: {{url: \"grpc://127.0.0.1:{port}\", model: m{remote}}}}}\n    outputs: [twice]\n"
    ))
}

const FALLBACK: &str = "fallback: {to: [{constant: 7}]}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_asks_another_server_and_goes_on_without_it() {
    let (repository, other) = there("linear.onnx").await;
    let port = other.port();
    let ours = here(port, "", FALLBACK);
    let server = Process::start(ours.path());
    applied(&server).await.unwrap();
    let row = || json!([{"k": "e", "a": 1, "b": 2, "c": 3}]);
    assert_eq!(says(&server, row()).await, "[643.0]");
    // Rows of one request go together.
    let rows: Vec<Value> = (0..40).map(|a| json!({"k": "e", "a": a, "b": 2, "c": 3})).collect();
    let right: Vec<f64> = (0..40).map(|a| 2.0 * (320.5 + f64::from(a))).collect();
    assert_eq!(says(&server, json!(rows)).await, json!(right).to_string());

    other.kill();
    assert_eq!(says(&server, row()).await, "[7.0]");
    // Nor does it keep anybody from applying: what it told stays.
    ours.write("roles.yaml", "kind: Entity\nname: other\njoin_keys: [{name: other, type: int64}]\n");
    let applied_without = applied(&server).await.unwrap().to_string();
    assert!(applied_without.contains("what it told when the version went live stays"), "{applied_without}");
    let failed = "quern_model_remote_failed_total{cause=\"unavailable\",model=\"m\",version=\"1\"}";
    assert!(counted(&server, failed).await > 0.0);
    // What it takes and gives is known from before.
    server.kill();
    let server = Process::start(ours.path());
    assert_eq!(says(&server, row()).await, "[7.0]");
    let other = Process::start_at(repository.path(), port);
    until("it is asked again", async || (says(&server, row()).await == "[643.0]").then_some(())).await;

    // Another model under the same name, which gives something else.
    other.kill();
    let changed = Repository::new(&model(["float64"; 3], ""));
    changed.write("m.onnx", fixture("classifier.onnx"));
    let other = Process::start_at(changed.path(), port);
    applied(&other).await.unwrap();
    let failed = failed.replace("unavailable", "failed");
    until("its answer is refused", async || {
        assert_eq!(says(&server, row()).await, "[7.0]");
        (counted(&server, &failed).await > 0.0).then_some(())
    })
    .await;
    let refused = applied(&server).await.unwrap_err();
    assert!(refused.contains("names unknown column `score`"), "{refused}");
}

/// What the other server said is kept, and what came of it is made again from that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_said_is_in_the_log() {
    let (_there, other) = there("linear.onnx").await;
    let ours = here(other.port(), "", &format!("log: {{sample: 1}}\n{FALLBACK}"));
    let server = Process::start(ours.path());
    applied(&server).await.unwrap();
    let rows = json!([{"k": "e", "a": 1, "b": 2, "c": 3}, {"k": "e", "a": 2, "b": 2, "c": 3}]);
    assert_eq!(says(&server, rows.clone()).await, "[643.0,645.0]");
    other.kill();
    assert_eq!(says(&server, rows).await, "[7.0,7.0]");
    let path = ours.path().to_owned();
    let verified =
        tokio::task::spawn_blocking(move || run(&path, &["verify", "--model", "m"])).await.unwrap();
    expect![[r#"
        model m: 4 predictions compared, 0 differ
        not reproducible: score, of other servers; from what they said then, 2 predictions made again, 0 differ
        feature service  feature  compared  differ  why  first
        s                k               4       0
        s                a               4       0
        s                b               4       0
        s                c               4       0
    "#]].assert_eq(&format!("{}{}", verified.stdout, verified.stderr));
    let client = Client::connect(&server.url).await.unwrap();
    let of = PredictionsCommand { predictions: "m".to_owned(), ..PredictionsCommand::default() };
    let logged = client.predictions(&of).await.unwrap();
    let batches: Vec<RecordBatch> = logged.try_collect().await.unwrap();
    let said: Vec<Option<f32>> = batches
        .iter()
        .flat_map(|rows| rows.column_by_name("asked.score").unwrap().as_primitive::<Float32Type>().iter())
        .collect();
    assert_eq!(said, [Some(321.5), Some(322.5), None, None]);
}

const CLIENTS: usize = 8;
/// Rounds that take hours.
const HOURS: i64 = 1 << 29;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_slow_is_given_up_in_time() {
    let (_there, other) = there("slow.onnx").await;
    for (rest, late) in [(FALLBACK, "[7.0]"), ("", "504 late")] {
        let server = Server::open(here(other.port(), ", timeout: 200ms", rest)).await;
        server.apply().await.unwrap();
        assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[643.0]");
        assert_eq!(ask(&server, PREDICT, [HOURS, 2, 3]).await, late);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_request_is_answered_while_the_other_server_ends() {
    let (_there, other) = there("linear.onnx").await;
    let ours = here(other.port(), ", timeout: 2s", FALLBACK);
    let server = Arc::new(Process::start(ours.path()));
    applied(&server).await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        tokio::spawn(async move {
            let mut answers = [0, 0];
            // Each has some of both.
            while answers[0] < 20 || answers[1] < 20 {
                let answer = says(&server, json!([{"k": "e", "a": 1, "b": 2, "c": 3}])).await;
                let place = ["[643.0]", "[7.0]"].iter().position(|right| *right == answer);
                answers[place.unwrap_or_else(|| panic!("{answer}"))] += 1;
                if place == Some(0) && answers[0] == 20 {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    until("all have what they want of it", async || (done.load(Ordering::Relaxed) == CLIENTS).then_some(()))
        .await;
    other.kill();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_said_where_it_is_named() {
    required("ORT_DYLIB_PATH");
    let (_there, other) = there("linear.onnx").await;
    let port = other.port();
    let check = |repository: Repository| {
        let Printed { stdout, stderr, .. } = run_in(repository.path(), &["check"], &[]);
        format!("{stdout}{stderr}").replace(&port.to_string(), "PORT")
    };
    let closed = free_port();
    let mut said = vec![
        check(here(port, "", "")),
        check(here(closed, "", "")).replace(&closed.to_string(), "CLOSED"),
        check(here(port, "x", "")),
        check(here(port, ", version: 2", "")),
    ];
    let without = here(port, "", "");
    let text = std::fs::read_to_string(without.path().join("definitions.yaml")).unwrap();
    let connection = format!("kind: Connection\nname: inference\nurl: \"grpc://127.0.0.1:{port}\"\n---\n");
    without.write("definitions.yaml", text.replace(&connection, ""));
    said.push(check(without));
    let mixed = text.replace("outputs: [k, a, b, c]", "outputs: [a, b, c]");
    let open = here(port, "", "");
    open.write("definitions.yaml", mixed);
    said.push(check(open));
    let elsewhere = here(port, "", "");
    elsewhere.write("definitions.yaml", text.replace("{url: \"grpc", "{url: \"http"));
    said.push(check(elsewhere));
    expect![[r#"
        the definitions hold: entities 1, sources 1, feature views 1, feature services 1, models 1, connections 1

        model `m`, version `1`, step `score`: fitted to what its server tells of it
          input  takes        from
          k      string [N]   k (string, null: refused)
          a      float64 [N]  a (float64, null: NaN)
          b      float64 [N]  b (float64, null: NaN)
          c      float64 [N]  c (float64, null: NaN)

        definitions.yaml:31:14: step `score`: grpc://127.0.0.1:CLOSED does not tell about model `m`: Connection refused (os error 111)
          help: what it takes and gives is asked when definitions are applied: it must answer then
        1 mistake

        definitions.yaml:31:14: step `score`: grpc://127.0.0.1:PORT does not have it: unknown model `mx`; known: m
          help: what it takes and gives is asked when definitions are applied: it must answer then
        1 mistake

        definitions.yaml:31:14: step `score`: grpc://127.0.0.1:PORT does not have it: model `m` has no version `2`; known: 1
          help: what it takes and gives is asked when definitions are applied: it must answer then
        1 mistake

        definitions.yaml:31:37: no connection of its project leads to grpc://127.0.0.1:PORT
          help: where definitions may lead, an administrator says: `{kind: Connection, name: inference, url: "grpc://127.0.0.1:PORT"}`
        1 mistake

        definitions.yaml:35:16: the model does not fit what step `score` reads:
          - no column is named `k`, as the model's input is (known: a, b, c)
        what step `score` reads  |  model
          a  float64             |    k  string [N]
          b  float64             |    a  float64 [N]
          c  float64             |    b  float64 [N]
                                 |    c  float64 [N]
        1 mistake

        definitions.yaml:35:37: `url` must be a URL as `grpc://host:8001` or `grpcs://host:443`: of a model on another server only gRPC is spoken
        1 mistake
    "#]].assert_eq(&said.join("\n"));
}
