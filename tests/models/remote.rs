//! What becomes of a step that asks another server, when that one answers, ends, is slow or says something else?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use quern::Client;
use quern_kit::{Printed, Process, Repository, Server, fixture, free_port, required, run_in, until};
use serde_json::{Value, json};

use super::bounds::{PREDICT, ask, model, service};

/// A server of the model `m`, of this file, which is live.
async fn there(file: &str) -> (Repository, Process) {
    let repository = Repository::new(&model(["float64"; 3], ""));
    repository.write("m.onnx", fixture(file));
    let process = Process::start(repository.path());
    applied(&process).await;
    (repository, process)
}

async fn applied(server: &Process) {
    let client = Client::connect(&server.url).await.unwrap();
    let _: Value = client.call("/v1/apply", &()).await.unwrap();
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
    let server = Server::open(here(port, "", FALLBACK)).await;
    server.apply().await.unwrap();
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[643.0]");
    // Rows of one request go together.
    let rows: Vec<Value> = (0..40).map(|a| json!({"k": "e", "a": a, "b": 2, "c": 3})).collect();
    let right: Vec<f64> = (0..40).map(|a| 2.0 * (320.5 + f64::from(a))).collect();
    let (status, text) = server.ask("POST", PREDICT, json!({"instances": rows}).to_string()).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &reply["predictions"]), (200, &json!(right)));

    other.kill();
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[7.0]");
    let failed = "quern_model_remote_failed_total{cause=\"unavailable\",model=\"m\",version=\"1\"}";
    assert!(server.metric(failed).await > 0.0);
    // What it takes and gives is known from before.
    let kept = server.stop_and_keep().await;
    let server = Server::open(kept).await;
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[7.0]");
    let other = Process::start_at(repository.path(), port);
    until("it is asked again", async || (ask(&server, PREDICT, [1, 2, 3]).await == "[643.0]").then_some(()))
        .await;

    // Another model under the same name, which gives something else.
    other.kill();
    let changed = Repository::new(&model(["float64"; 3], ""));
    changed.write("m.onnx", fixture("classifier.onnx"));
    let other = Process::start_at(changed.path(), port);
    applied(&other).await;
    let failed = failed.replace("unavailable", "failed");
    until("its answer is refused", async || {
        let answer = ask(&server, PREDICT, [1, 2, 3]).await;
        assert_eq!(answer, "[7.0]");
        (server.metric(&failed).await > 0.0).then_some(())
    })
    .await;
    let refused = server.apply().await.unwrap_err();
    assert!(refused.contains("names unknown column `score`"), "{refused}");
    server.stop().await;
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
    let server = Arc::new(Server::open(here(other.port(), ", timeout: 2s", FALLBACK)).await);
    server.apply().await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        tokio::spawn(async move {
            let mut answers = [0, 0];
            // Each has some of both.
            while answers[0] < 20 || answers[1] < 20 {
                let answer = ask(&server, PREDICT, [1, 2, 3]).await;
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
    Arc::into_inner(server).unwrap().stop().await;
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
    without.write("definitions.yaml", text.replace("url: \"grpc://127.0.0.1:", "url: \"grpc://127.0.0.2:"));
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
          help: what it takes and gives is asked when definitions are applied, so it must be there then
        1 mistake

        definitions.yaml:31:14: step `score`: grpc://127.0.0.1:PORT does not have it: unknown model `mx`; known: m
          help: what it takes and gives is asked when definitions are applied, so it must be there then
        1 mistake

        definitions.yaml:31:14: step `score`: grpc://127.0.0.1:PORT does not have it: model `m` has no version `2`; known: 1
          help: what it takes and gives is asked when definitions are applied, so it must be there then
        1 mistake

        definitions.yaml:35:16: the model does not fit what step `score` reads:
          - no column is named `k`, as the model's input is (known: a, b, c)
        what step `score` reads  |  model
          a  float64             |    k  string [N]
          b  float64             |    a  float64 [N]
          c  float64             |    b  float64 [N]
                                 |    c  float64 [N]
        1 mistake

        definitions.yaml:35:37: `url` is a URL of an unknown scheme
          help: a URL is written as in `s3://bucket/folder/`, `kafka://a:9092,b:9092` or `redis://host:6379`
        1 mistake
    "#]].assert_eq(&said.join("\n"));
}
