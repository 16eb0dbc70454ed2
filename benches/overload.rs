//! What is left of a server's work when it gets ten times what it can do? Goodput, latency and memory under an open
//! loop: requests come at a rate, whether or not the earlier ones are answered.
//!
//! The model takes some 10 ms of a core for a row, and rows share no run: what is measured is its queue and neither the
//! sockets nor what batching saves. First a closed loop finds the capacity; then 1, 2, 5 and 10 times that comes in,
//! each request with a deadline. Good are answers within it; everything else must be turned away early and cheaply.
//!
//! `overload [--seconds N]`: N seconds (5) for each rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use parking_lot::Mutex;
use quern_benches::{Bench, median};
use quern_kit::{Repository, fixture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
{kind: Model, name: m, versions: [{version: 1, path: slow.onnx, service: f}], batching: {max_rows: 1}}
"#;

const DEADLINE: Duration = Duration::from_millis(250);
/// Connections of the closed loop that finds the capacity.
const CONNECTIONS: usize = 8;
/// Open connections, at most: a client that holds more would measure itself.
const OPEN_MAX: usize = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments.iter().position(|argument| argument == "--seconds");
    let seconds = seconds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(5.0);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
    let rows = RecordBatch::try_from_iter([("id", column), ("at", at), ("x", x)]).expect("rows");
    let repository = Repository::new(DEFINITIONS);
    repository.write_parquet("rows.parquet", &rows);
    repository.write("slow.onnx", fixture("slow.onnx"));
    let bench = Bench::open(repository, &[]);
    let router = bench.node.router();
    let listener = bench.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("its address");
    bench.runtime.spawn(async move { axum::serve(listener, router).await });

    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    let capacity = client.block_on(closed(address, Duration::from_secs_f64(seconds)));
    println!("capacity, {CONNECTIONS} connections in a closed loop: {capacity:.0} requests/s");
    println!(
        "{:>6} {:>10} {:>10} {:>12} {:>10} {:>10} {:>9}",
        "rate", "came/s", "good/s", "good, ÷ cap.", "p50 ms", "p99 ms", "MiB"
    );
    for times in [1.0, 2.0, 5.0, 10.0] {
        let seen = client.block_on(open(address, capacity * times, Duration::from_secs_f64(seconds)));
        let mut good: Vec<f64> =
            seen.iter().filter(|(status, _)| *status == 200).map(|(_, ms)| *ms).collect();
        let count = good.len();
        let p50 = if count == 0 { f64::NAN } else { median(&mut good) };
        let p99 = good.get(count * 99 / 100).copied().unwrap_or(f64::NAN);
        println!(
            "{times:>5}x {:>10.0} {:>10.0} {:>12.2} {p50:>10.1} {p99:>10.1} {:>9}",
            seen.len() as f64 / seconds,
            count as f64 / seconds,
            count as f64 / seconds / capacity,
            resident_mib()
        );
    }
}

fn request() -> Vec<u8> {
    let body = r#"{"instances": [{"id": 1, "rounds": 500}]}"#;
    let (length, deadline) = (body.len(), DEADLINE.as_millis());
    format!("POST /v1/models/m:predict HTTP/1.1\r\nhost: bench\r\nx-request-timeout-ms: {deadline}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Requests/s that are answered when each connection waits for its reply.
async fn closed(address: SocketAddr, turn: Duration) -> f64 {
    let end = Instant::now() + turn;
    let loads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = connect(address).await;
                let mut good = 0;
                while Instant::now() < end {
                    good += usize::from(ask(&mut stream).await == Some(200));
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for load in loads {
        good += load.await.expect("no panic");
    }
    good as f64 / turn.as_secs_f64()
}

/// Status and milliseconds of each request; those that came so many a second, whatever became of the ones before.
async fn open(address: SocketAddr, per_second: f64, turn: Duration) -> Vec<(u16, f64)> {
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let seen: Arc<Mutex<Vec<(u16, f64)>>> = Arc::default();
    let start = tokio::time::Instant::now();
    let mut requests = Vec::new();
    for number in 0..(per_second * turn.as_secs_f64()) as usize {
        let due = start + Duration::from_secs_f64(number as f64 / per_second);
        tokio::time::sleep_until(due).await;
        let (idle, seen) = (Arc::clone(&idle), Arc::clone(&seen));
        if Arc::strong_count(&idle) > OPEN_MAX {
            seen.lock().push((0, 0.0));
            continue;
        }
        requests.push(tokio::spawn(async move {
            let kept = idle.lock().pop();
            let mut stream = match kept {
                Some(stream) => stream,
                None => connect(address).await,
            };
            let status = ask(&mut stream).await;
            // From when it was due: a client that is late is not to flatter the server.
            seen.lock().push((status.unwrap_or(0), due.elapsed().as_secs_f64() * 1e3));
            if status.is_some() {
                idle.lock().push(stream);
            }
        }));
    }
    for request in requests {
        request.await.expect("no panic");
    }
    let seen = std::mem::take(&mut *seen.lock());
    let late =
        |(status, ms): (u16, f64)| if ms > DEADLINE.as_secs_f64() * 1e3 { (504, ms) } else { (status, ms) };
    seen.into_iter().map(late).collect()
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("set");
    stream
}

/// Status of the reply.
async fn ask(stream: &mut TcpStream) -> Option<u16> {
    stream.write_all(&request()).await.ok()?;
    let mut reply = vec![0; 1 << 14];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut reply[filled..]).await.ok().filter(|read| *read > 0)?;
        filled += read;
        let text = std::str::from_utf8(&reply[..filled]).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (_, length) = head.split_once("content-length: ")?;
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        if body.len() >= length {
            return head.get(9..12)?.parse().ok();
        }
    }
}

/// Memory of this process, client and server.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
