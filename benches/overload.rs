//! What is left of a server's work when it gets ten times what it can do? Goodput and memory under an open loop:
//! requests come at a rate, whether or not the earlier ones are answered.
//!
//! Models take 1, 10, 36 and 100 ms for a run; rows of several requests share one (`shared`) or do not (`alone`). Each
//! request may take as long as five runs. Good are answers within that; everything else must be turned away early and
//! cheaply. Requests enter where a socket's would, behind the sockets: what is measured is the queue. The capacity is
//! that of runs with a row each, so that shared runs may answer more.
//!
//! `overload [FILTER] [--seconds N] [--turns N]`: N seconds (4) for each rate, all of it N times (1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use quern_benches::{Bench, median};
use quern_kit::{Repository, fixture};
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFINITIONS: &str = r#"
{kind: Entity, name: e, join_keys: [{name: id, type: int64}]}
---
{kind: Source, name: s, batch: {format: parquet, path: rows.parquet}, event_timestamp: at}
---
{kind: FeatureView, name: v, entities: [e], source: s, features: [{name: a, expr: x}, {name: b, expr: x}]}
---
{kind: FeatureService, name: f, request: [{name: rounds, type: float64}], features: [v], outputs: [rounds, a, b]}
---
{kind: Model, name: alone, versions: [{version: 1, path: slow.onnx, service: f}], isolation: thread, batching: {max_rows: 1}}
---
{kind: Model, name: shared, versions: [{version: 1, path: slow.onnx, service: f}], isolation: thread}
"#;

const MODELS: [&str; 2] = ["alone", "shared"];
const RUN_MS: [f64; 4] = [1.0, 10.0, 36.0, 100.0];
/// What comes in, in capacities.
const RATES: [f64; 5] = [0.5, 1.0, 2.0, 5.0, 10.0];
/// How many runs a request may take.
const DEADLINE_RUNS: f64 = 5.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<f64>().ok()
    };
    let seconds = Duration::from_secs_f64(number("--seconds").unwrap_or(4.0));
    let filter = arguments.get(1).filter(|first| !first.starts_with("--")).map_or("", |filter| filter);
    let bench = open();
    let router = bench.node.router();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    println!("good/s at {RATES:?} capacities; the last of them beside the best");
    for _ in 0..number("--turns").unwrap_or(1.0) as usize {
        for (model, wanted) in MODELS.into_iter().flat_map(|model| RUN_MS.map(|ms| (model, ms))) {
            let name = format!("{model} {wanted} ms");
            if !name.contains(filter) {
                continue;
            }
            let (rounds, ms) = bench.runtime.block_on(rounds(&router, model, wanted));
            let ask = Ask { model, rounds, deadline: Duration::from_secs_f64(DEADLINE_RUNS * ms / 1e3) };
            let good = RATES.map(|rate| {
                let good = bench.runtime.block_on(open_loop(&router, &ask, rate * cores * 1e3 / ms, seconds));
                good as f64 / seconds.as_secs_f64()
            });
            let best = good.into_iter().fold(0.0, f64::max);
            let columns = good.map(|good| format!("{good:>8.0}")).join("");
            let last = good[RATES.len() - 1] / best;
            println!("{name:<14} {ms:>6.1} ms a run {columns}   {last:.2}   {:>4} MiB", resident_mib());
        }
    }
}

fn open() -> Bench {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    let rows = RecordBatch::try_from_iter([("id", column), ("at", at), ("x", x)]).expect("rows");
    let repository = Repository::new(DEFINITIONS);
    repository.write_parquet("rows.parquet", &rows);
    repository.write("slow.onnx", fixture("slow.onnx"));
    Bench::open(repository, &[])
}

/// A request, again and again.
#[derive(Clone, Copy)]
struct Ask {
    model: &'static str,
    rounds: f64,
    deadline: Duration,
}

impl Ask {
    async fn send(self, router: Router) -> StatusCode {
        let request = Request::post(format!("/v1/models/{}:predict", self.model))
            .header("x-request-timeout-ms", self.deadline.as_millis().max(1).to_string())
            .body(Body::from(format!("{{\"instances\": [{{\"id\": 1, \"rounds\": {}}}]}}", self.rounds)));
        let reply = router.oneshot(request.expect("a request")).await;
        reply.unwrap_or_else(|never| match never {}).status()
    }
}

/// The rounds that make a run of the model about so long, and how long it is then, in ms.
async fn rounds(router: &Router, model: &'static str, ms: f64) -> (f64, f64) {
    let mut rounds = 50.0 * ms;
    for _ in 0..3 {
        rounds = (rounds * ms / timed(router, model, rounds).await).round().max(1.0);
    }
    (rounds, timed(router, model, rounds).await)
}

/// How long such a request takes when it is alone, in ms.
async fn timed(router: &Router, model: &'static str, rounds: f64) -> f64 {
    let ask = Ask { model, rounds, deadline: Duration::from_secs(10) };
    let mut samples = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        assert_eq!(ask.send(router.clone()).await, StatusCode::OK);
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    median(&mut samples)
}

/// How many are answered in time, of those that come so many a second, whatever became of the ones before.
async fn open_loop(router: &Router, ask: &Ask, per_second: f64, turn: Duration) -> usize {
    let mut good = 0;
    let start = tokio::time::Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..(per_second * turn.as_secs_f64()) as usize {
        let due = start + Duration::from_secs_f64(number as f64 / per_second);
        tokio::time::sleep_until(due).await;
        let (ask, router) = (*ask, router.clone());
        requests.spawn(async move {
            let status = ask.send(router).await;
            // From when it was due: a client that is late is not to flatter the server.
            status == StatusCode::OK && due.elapsed() <= ask.deadline
        });
        while let Some(answered) = requests.try_join_next() {
            good += usize::from(answered.expect("no panic"));
        }
    }
    good + requests.join_all().await.into_iter().filter(|good| *good).count()
}

/// Memory of this process.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
