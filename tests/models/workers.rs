//! What becomes of a request when the worker that runs its model ends, hangs or grows; and of a worker when its server
//! ends?

use std::path::Path;

use quern::Client;
use quern_kit::{Process, Random, Repository, Server, fixture, until};
use serde_json::json;

use super::bounds::{PREDICT, ask, model, serve};

const RATIO: &str = "/v1/models/ratio:predict";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_traps_fails_alone() {
    let definitions =
        model(["int64"; 3], "batching: {concurrency: 1}\n").replace("name: m\n", "name: ratio\n");
    let server = serve(&definitions, &[("m.onnx", &fixture("ratio.onnx"))]).await;
    server.apply().await.unwrap();
    // a / (b + 1) + c
    assert_eq!(ask(&server, RATIO, [10, 1, 7]).await, "[12]");
    for ends in 1..=2 {
        assert_eq!(ask(&server, RATIO, [i64::MIN, -2, 0]).await, "503 unavailable");
        // There is one worker: whoever comes next waits until it is there again.
        assert_eq!(ask(&server, RATIO, [10, 1, 7]).await, "[12]");
        assert_eq!(restarts(&server, "ratio").await, f64::from(ends));
    }
    server.stop().await;
}

/// What zeros end is tried on ones, and is no worse than the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_divides_by_a_feature_is_served() {
    let server = serve(&model(["int64"; 3], ""), &[("m.onnx", &fixture("parts.onnx"))]).await;
    server.apply().await.unwrap();
    // a / b + c
    assert_eq!(ask(&server, PREDICT, [10, 3, 7]).await, "[10]");
    assert_eq!(ask(&server, PREDICT, [10, 0, 7]).await, "500 internal");
    assert_eq!(ask(&server, PREDICT, [10, 3, 7]).await, "[10]");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_answers_for_a_worker_that_ended() {
    let definitions = model(["int64"; 3], "fallback: {to: [{constant: 5}]}\n");
    let server = serve(&definitions, &[("m.onnx", &fixture("ratio.onnx"))]).await;
    server.apply().await.unwrap();
    assert_eq!(ask(&server, PREDICT, [i64::MIN, -2, 0]).await, "[5]");
    server.stop().await;
}

/// The same file in a worker and in the server gives the same bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_what_a_thread_says() {
    let definitions = model(["float64"; 3], "isolation: process\n")
        + "---\nkind: Model\nname: n\nversions:\n  - {version: \"1\", path: m.onnx, service: s}\nisolation: thread\n";
    for name in ["linear.onnx", "classifier.onnx", "classifier_text.onnx", "slow.onnx"] {
        let server = serve(&definitions, &[("m.onnx", &fixture(name))]).await;
        server.apply().await.unwrap();
        let mut random = Random::seeded(7);
        for _ in 0..20 {
            let row = [0; 3].map(|_| random.below(100) as i64);
            let [worker, thread] =
                [ask(&server, PREDICT, row).await, ask(&server, "/v1/models/n:predict", row).await];
            assert_eq!(worker, thread, "{name} {row:?}");
            assert!(worker.starts_with('['), "{worker}");
        }
        server.stop().await;
    }
}

/// The model called `name`, of a file of the same name, in a worker. Servers of one process count together, so that
/// counts are told apart by such names.
async fn serve_in_worker(name: &str) -> Server {
    let definitions = model(["float64"; 3], "isolation: process\nbatching: {concurrency: 1}\n");
    let definitions = definitions.replace("name: m\n", &format!("name: {name}\n"));
    let server = serve(&definitions, &[("m.onnx", &fixture(&format!("{name}.onnx")))]).await;
    server.apply().await.unwrap();
    server
}

async fn restarts(server: &Server, model: &str) -> f64 {
    let series = format!("quern_model_worker_restarts_total{{model=\"{model}\",version=\"1\"}}");
    server.metric(&series).await
}

const HUNGRY: &str = "/v1/models/hungry:predict";
const SLOW: &str = "/v1/models/slow:predict";

/// Nobody has to say that it needs a worker: its file does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_may_take_any_memory_takes_none_of_the_servers() {
    let server = serve(&model(["float64"; 3], ""), &[("m.onnx", &fixture("hungry.onnx"))]).await;
    server.apply().await.unwrap();
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[321.5]");
    assert_eq!(ask(&server, PREDICT, [1 << 30, 0, 0]).await, "503 unavailable");
    assert_eq!(ask(&server, PREDICT, [1, 2, 3]).await, "[321.5]");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_grows_beyond_its_memory_is_ended() {
    let server = serve_in_worker("hungry").await;
    assert_eq!(ask(&server, HUNGRY, [1, 2, 3]).await, "[321.5]");
    // 4 GiB, where 2 are allowed.
    assert_eq!(ask(&server, HUNGRY, [1 << 30, 0, 0]).await, "503 unavailable");
    assert_eq!(ask(&server, HUNGRY, [1, 2, 3]).await, "[321.5]");
    assert_eq!(restarts(&server, "hungry").await, 1.0);
    server.stop().await;
}

/// Rounds that take hours.
const HOURS: i64 = 1 << 29;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_run_in_a_worker_and_not_the_worker() {
    let server = serve_in_worker("slow").await;
    let body = json!({"instances": [{"k": "e1", "a": HOURS, "b": 0, "c": 0}]}).to_string();
    for _ in 0..3 {
        let request = reqwest::Client::new().post(server.address(SLOW)).body(body.clone());
        let late = request.header("x-request-timeout-ms", "100").send().await.unwrap();
        assert_eq!(late.status(), 504);
        assert_eq!(ask(&server, SLOW, [1, 2, 3]).await, "[321.5]");
    }
    assert_eq!(restarts(&server, "slow").await, 0.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_end_with_a_server_that_is_killed() {
    let repository = Repository::new(&model(["float64"; 3], "isolation: process\n"));
    repository.write("m.onnx", fixture("slow.onnx"));
    let server = Process::start(repository.path());
    let client = Client::connect(&server.url).await.unwrap();
    let _: serde_json::Value = client.call("/v1/apply", &()).await.unwrap();
    let instance = json!({"k": "e1", "a": HOURS, "b": 0, "c": 0});
    let waiting = tokio::spawn(async move { client.predict("m", [instance]).await.map(drop) });
    let workers = server.children();
    assert!(!workers.is_empty());
    let busy = || workers.iter().any(|id| cpu_ticks(*id).is_some_and(|ticks| ticks > 20));
    until("a worker is busy", async || busy().then_some(())).await;
    server.kill();
    assert!(waiting.await.unwrap().is_err());
    let running = || workers.iter().any(|id| cpu_ticks(*id).is_some());
    until("the workers end", async || (!running()).then_some(())).await;
}

/// What a hostile model reads first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_is_in_the_environment_of_a_worker() {
    let repository = Repository::new(&model(["float64"; 3], "isolation: process\n"));
    repository.write("m.onnx", fixture("linear.onnx"));
    let secrets =
        [("PGPASSWORD", "hidden-1"), ("AWS_SECRET_ACCESS_KEY", "hidden-2"), ("OMP_NUM_THREADS", "3")];
    let secrets = secrets.map(|(name, value)| (name, value.to_owned()));
    let server = Process::start_in(repository.path(), &secrets);
    let client = Client::connect(&server.url).await.unwrap();
    let _: serde_json::Value = client.call("/v1/apply", &()).await.unwrap();
    let environment = |id: u32| std::fs::read(format!("/proc/{id}/environ")).unwrap();
    let has = |id: u32, text: &str| String::from_utf8_lossy(&environment(id)).contains(text);
    assert!(has(server.id(), "hidden-1"));
    let workers = server.children();
    assert!(!workers.is_empty());
    for id in workers {
        assert!(has(id, "PATH=") && has(id, "OMP_NUM_THREADS=3") && has(id, "ORT_DYLIB_PATH="));
        assert!(!has(id, "hidden") && !has(id, "QUERN_"), "{id}");
    }
    let instance = json!({"k": "e1", "a": 1, "b": 2, "c": 3});
    assert_eq!(client.predict("m", [instance]).await.unwrap().predictions, [json!(321.5)]);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ended_while_nobody_asked_is_started_before_it_is_asked() {
    let repository = Repository::new(&model(["float64"; 3], "isolation: process\n"));
    repository.write("m.onnx", fixture("linear.onnx"));
    let server = Process::start(repository.path());
    let client = Client::connect(&server.url).await.unwrap();
    let _: serde_json::Value = client.call("/v1/apply", &()).await.unwrap();
    let workers = server.children();
    assert!(!workers.is_empty());
    for worker in &workers {
        let kill = std::process::Command::new("kill").args(["-KILL", &worker.to_string()]).status();
        assert!(kill.unwrap().success());
    }
    // A process whose first thread has ended is none to its parent until the others have.
    let threads = |id: &u32| std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    let running = || workers.iter().any(|id| cpu_ticks(*id).is_some() || threads(id) > 1);
    until("the workers end", async || (!running()).then_some(())).await;
    for _ in 0..2 * workers.len() {
        let instance = json!({"k": "e1", "a": 1, "b": 2, "c": 3});
        assert_eq!(client.predict("m", [instance]).await.unwrap().predictions, [json!(321.5)]);
    }
    server.terminate();
}

/// What a process has had of the processor, where it has not ended.
fn cpu_ticks(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    (fields[0] != "Z").then(|| fields[11].parse().unwrap())
}
