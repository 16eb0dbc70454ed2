//! What does a request cost over a socket? Quern's own router beside a minimal handler that parses the same JSON, does
//! the same RocksDB multi-get, runs the same ONNX Runtime and replies the same JSON.
//!
//! Both servers run in this process, each on threads of its own, and answer on 127.0.0.1. A closed loop on one more
//! thread sends each request when its connection's last reply is there, to one server and then to the other, over and
//! over. Requests/s and latencies are what a client sees on a machine that it shares with the server; CPU is what the
//! server's threads used, read from the kernel, and so hardly depends on who else is on the machine.
//!
//! `http [FILTER] [--seconds N]`: only what has FILTER in its name, N seconds (2) for each turn of each server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use quern_benches::bare::{Bare, Cell};
use quern_benches::load::{Turn, load};
use quern_benches::{median, online};
use quern_kit::Random;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TURNS: usize = 4;
const BODIES: usize = 512;

/// Path, rows of a request, connections.
const LOADS: [(&str, usize, usize); 8] = [
    (SCORING, 1, 1),
    (SCORING, 1, 8),
    (SCORING, 1, 32),
    (SCORING, 100, 8),
    (DERIVED, 1, 32),
    (LOOKUP, 1, 8),
    (LOOKUP, 1, 32),
    (LOOKUP, 100, 8),
];
const SCORING: &str = "/v1/models/scoring:predict";
/// The bare server has no derived features; it answers with the model `scoring`.
const DERIVED: &str = "/v1/models/derived:predict";
const LOOKUP: &str = "/get-online-features";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let seconds = arguments.iter().position(|argument| argument == "--seconds");
    let turn = seconds.and_then(|at| arguments.get(at + 1)?.parse().ok()).map_or(2.0, |seconds: f64| seconds);
    let filter = arguments.first().filter(|argument| !argument.starts_with("--"));

    let bench = online::bench();
    let bare = Arc::new(Bare::new(&bench));
    let servers = [Server::start("quern", bench.node.router()), Server::start("bare", bare_router(bare))];
    println!("{:39} {:>9} {:>9} {:>9} {:>9}", "", "requests/s", "p50 µs", "p99 µs", "CPU µs");
    for (path, rows, connections) in LOADS {
        let name = format!("{path} {rows} row(s) {connections} conn");
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let requests = Arc::new(requests(path, rows));
        let mut seen: [Vec<Turn>; 2] = Default::default();
        for _ in 0..TURNS {
            for (server, seen) in servers.iter().zip(&mut seen) {
                let address = server.address;
                let connect = move || async move {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                };
                let turn = Duration::from_secs_f64(turn);
                seen.push(load(server.name, connect, (&requests, connections), turn));
            }
        }
        let [ours, theirs] = seen.map(|turns| {
            let middle = |of: fn(&Turn) -> f64| median(&mut turns.iter().map(of).collect::<Vec<_>>());
            [middle(|t| t.per_second), middle(|t| t.p50_us), middle(|t| t.p99_us), middle(|t| t.cpu_us)]
        });
        println!("{name}");
        for (server, figures) in servers.iter().zip([ours, theirs]) {
            println!(
                "  {:37} {:9.0} {:9.0} {:9.0} {:9.1}",
                server.name, figures[0], figures[1], figures[2], figures[3]
            );
        }
        println!(
            "  {:37} {:9.2} {:9.2} {:9.2} {:9.2}",
            "time, quern ÷ bare",
            theirs[0] / ours[0],
            ours[1] / theirs[1],
            ours[2] / theirs[2],
            ours[3] / theirs[3]
        );
    }
}

/// Whole requests, as they go over the wire.
fn requests(path: &str, rows: usize) -> Vec<Vec<u8>> {
    let mut random = Random::seeded(11);
    let body = |_| {
        let ids = online::ids(&mut random, rows);
        let body = if path == LOOKUP {
            json!({"feature_service": "all", "entities": {"id": ids}})
        } else {
            let instance = |id| json!({"id": id, "amount": random.unit() * 200.0, "hour": random.below(24)});
            json!({"instances": ids.into_iter().map(instance).collect::<Vec<Value>>()})
        };
        let body = body.to_string();
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    (0..BODIES).map(body).collect()
}

/// A server on threads of its own, which have its name.
struct Server {
    name: &'static str,
    address: SocketAddr,
    _threads: tokio::runtime::Runtime,
}

impl Server {
    fn start(name: &'static str, router: Router) -> Server {
        let threads = tokio::runtime::Builder::new_multi_thread().thread_name(name).enable_all().build();
        let threads = threads.expect("a tokio runtime");
        let listener = threads.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("its address");
        threads.spawn(async move {
            use axum::serve::ListenerExt;
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            axum::serve(listener, router).await
        });
        Server { name, address, _threads: threads }
    }
}

fn bare_router(bare: Arc<Bare>) -> Router {
    Router::new().route("/v1/models/{call}", post(predict)).route(LOOKUP, post(look_up)).with_state(bare)
}

#[derive(Deserialize)]
struct PredictRequest {
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    id: i64,
    amount: f64,
    hour: i64,
}

async fn predict(State(bare): State<Arc<Bare>>, Json(request): Json<PredictRequest>) -> impl IntoResponse {
    #[derive(serde::Serialize)]
    struct Reply {
        predictions: Vec<f32>,
    }
    let instances = &request.instances;
    let ids: Vec<i64> = instances.iter().map(|instance| instance.id).collect();
    let asked = instances.iter().map(|instance| (instance.amount, instance.hour));
    Json(Reply { predictions: bare.predict(&ids, asked) })
}

#[derive(Deserialize)]
struct LookupRequest {
    entities: Entities,
}

#[derive(Deserialize)]
struct Entities {
    id: Vec<i64>,
}

/// The same reply as Quern's, byte for byte but for the digits of the time, which is always the same one here.
async fn look_up(State(bare): State<Arc<Bare>>, Json(request): Json<LookupRequest>) -> impl IntoResponse {
    #[derive(serde::Serialize)]
    struct Reply {
        metadata: Metadata,
        results: Vec<Column>,
    }
    #[derive(serde::Serialize)]
    struct Metadata {
        feature_names: Vec<String>,
    }
    #[derive(serde::Serialize)]
    struct Column {
        values: Vec<Cell>,
        statuses: Vec<&'static str>,
        event_timestamps: Vec<&'static str>,
    }
    let ids = request.entities.id;
    let rows = bare.rows(&ids);
    let column = |values: Vec<Cell>| Column {
        statuses: vec!["PRESENT"; values.len()],
        event_timestamps: vec!["2024-01-01T00:00:00.000001Z"; values.len()],
        values,
    };
    let mut feature_names = vec!["id".to_owned()];
    let mut results = vec![column(ids.iter().copied().map(Cell::Int).collect())];
    for (view, rows) in rows.chunks(ids.len()).enumerate() {
        for feature in 0..online::FEATURES {
            feature_names.push(format!("v{view}_{feature}"));
            results.push(column(rows.iter().map(|row| Bare::cell(row, feature)).collect()));
        }
    }
    Json(Reply { metadata: Metadata { feature_names }, results })
}
