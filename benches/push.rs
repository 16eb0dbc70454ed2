//! What does a durable push cost beside a durable write of the same bytes? Rows a second and the time to the
//! acknowledgement, of one pusher and of many, row by row and in bulk; by a server with a head of its own, and by one
//! that shares head and log with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::ipc::writer::StreamWriter;
use quern_benches::Bench;
use quern_benches::online::now_us;
use quern_kit::{Postgres, Push, RedisServer, Repository};
use rocksdb::{DB, WriteBatch, WriteOptions};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FEATURES: usize = 20;
const ENTITIES: i64 = 100_000;
const LASTS: Duration = Duration::from_secs(3);
/// Of servers that share a head, each has one.
const SOURCES: [&str; 4] = ["events", "clicks", "orders", "visits"];
/// What pushes to each of these servers.
const PUSHERS: usize = 16;

fn definitions() -> String {
    let names: Vec<String> = (0..FEATURES).map(|i| format!("f{i}")).collect();
    let columns: String = names.iter().map(|name| format!("  - {{name: {name}, type: float64}}\n")).collect();
    let features = names.join(", ");
    let source = |name: &str| {
        format!(
            "---\nkind: Source\nname: {name}\npush: true\nevent_timestamp: ts\n\
             columns:\n  - {{name: id, type: int64}}\n  - {{name: ts, type: timestamp}}\n{columns}"
        )
    };
    let rows = |view: &str, source: &str| {
        format!(
            "---\nkind: FeatureView\nname: {view}\nentities: [user]\nsource: {source}\nfeatures: [{features}]\n"
        )
    };
    let windows = "---\nkind: FeatureView\nname: recent\nentities: [user]\nsource: clicks\naggregations:\n\
                   \x20 - {name: n, function: count, windows: [1h, 1d, 7d]}\n\
                   \x20 - {name: total, function: sum, of: f0, windows: [1h, 1d, 7d]}\n";
    let entity = "kind: Entity\nname: user\njoin_keys: [{name: id, type: int64}]\n";
    let sources: String = SOURCES.iter().map(|name| source(name)).collect();
    let views = [rows("latest", "events"), rows("ordered", "orders"), rows("visited", "visits")].concat();
    [entity, &sources, &views, windows].concat()
}

/// `count` rows of entities from `first` on, a moment apart.
fn rows(first: i64, count: usize) -> RecordBatch {
    let ids = (0..count as i64).map(|i| (first + i) * 7919 % ENTITIES);
    let now_us = now_us();
    let times = TimestampMicrosecondArray::from_iter_values((0..count as i64).map(|i| now_us + i));
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("id".to_owned(), Arc::new(Int64Array::from_iter_values(ids))),
        ("ts".to_owned(), Arc::new(times.with_timezone("UTC"))),
    ];
    for feature in 0..FEATURES {
        let values = (0..count).map(|i| (first as usize + i + feature) as f64 / 3.0);
        columns.push((format!("f{feature}"), Arc::new(Float64Array::from_iter_values(values))));
    }
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// What was seen of one way of writing.
struct Seen {
    rows: usize,
    micros: Vec<f64>,
}

impl Seen {
    fn rate(&self) -> f64 {
        self.rows as f64 / LASTS.as_secs_f64()
    }

    fn percentile(&mut self, percent: usize) -> f64 {
        self.micros.sort_by(f64::total_cmp);
        self.micros[(self.micros.len() - 1) * percent / 100]
    }
}

/// `pushers` tasks push `count` rows at a time.
fn ours(bench: &Bench, source: &'static str, pushers: usize, count: usize) -> Seen {
    let next = Arc::new(AtomicI64::new(0));
    let end = Instant::now() + LASTS;
    let tasks: Vec<_> = (0..pushers)
        .map(|_| {
            let (node, next) = (bench.node.clone(), Arc::clone(&next));
            bench.runtime.spawn(async move {
                let mut micros = Vec::new();
                while Instant::now() < end {
                    let rows = rows(next.fetch_add(count as i64, Ordering::Relaxed), count);
                    let pushed = Push::new(source, rows);
                    let begun = Instant::now();
                    node.push(pushed).await.unwrap_or_else(|error| panic!("{error}"));
                    micros.push(begun.elapsed().as_secs_f64() * 1e6);
                }
                micros
            })
        })
        .collect();
    let micros: Vec<f64> =
        tasks.into_iter().flat_map(|task| bench.runtime.block_on(task).expect("pushed")).collect();
    Seen { rows: micros.len() * count, micros }
}

/// `pushers` threads write `count` rows at a time, each by what `writer` makes for it.
fn bare<W: FnMut(&Bytes) + Send + 'static>(writer: impl Fn() -> W, pushers: usize, count: usize) -> Seen {
    let next = Arc::new(AtomicI64::new(0));
    let writers: Vec<W> = (0..pushers).map(|_| writer()).collect();
    let end = Instant::now() + LASTS;
    let threads: Vec<_> = writers
        .into_iter()
        .map(|mut write| {
            let next = Arc::clone(&next);
            std::thread::spawn(move || {
                let mut micros = Vec::new();
                while Instant::now() < end {
                    let bytes = Bytes::of(next.fetch_add(count as i64, Ordering::Relaxed), count);
                    let begun = Instant::now();
                    write(&bytes);
                    micros.push(begun.elapsed().as_secs_f64() * 1e6);
                }
                micros
            })
        })
        .collect();
    let micros: Vec<f64> = threads.into_iter().flat_map(|thread| thread.join().expect("written")).collect();
    Seen { rows: micros.len() * count, micros }
}

/// What a push cannot do without writing: the rows as history has them, and a stored row for each.
struct Bytes {
    number: [u8; 8],
    history: Vec<u8>,
    keys: Vec<[u8; 16]>,
}

/// As long as a stored row of as many features.
const ROW: [u8; 17 + 3 + 8 * FEATURES] = [7; 17 + 3 + 8 * FEATURES];

impl Bytes {
    fn of(first: i64, count: usize) -> Bytes {
        let rows = rows(first, count);
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
        writer.write(&rows).expect("written");
        let history = writer.into_inner().expect("written");
        let id = |row: i64| u128::from((((first + row) * 7919) % ENTITIES) as u64).to_be_bytes();
        Bytes { number: first.to_be_bytes(), history, keys: (0..count as i64).map(id).collect() }
    }
}

/// Into the same kind of store, which groups the commits of its threads.
fn into_rocks(db: &Arc<DB>) -> impl FnMut(&Bytes) + Send + 'static {
    let db = Arc::clone(db);
    let mut options = WriteOptions::default();
    options.set_sync(true);
    move |bytes| {
        let mut batch = WriteBatch::default();
        bytes.keys.iter().for_each(|key| batch.put(key, ROW));
        batch.put([&b"tail"[..], &bytes.number].concat(), &bytes.history);
        db.write_opt(batch, &options).expect("durable");
    }
}

/// Into the same database, each thread over a connection of its own and in transactions of its own, and then into the
/// same Redis, pipelined.
fn into_both(
    runtime: &Arc<Runtime>,
    postgres: &Postgres,
    redis: &RedisServer,
) -> impl FnMut(&Bytes) + Send + 'static {
    let runtime = Arc::clone(runtime);
    let mut postgres = runtime.block_on(PgConnection::connect(&postgres.url())).expect("a connection");
    let mut redis = redis.connection();
    move |bytes| {
        let insert = sqlx::query("INSERT INTO bare (history) VALUES ($1)").bind(&bytes.history);
        runtime.block_on(insert.execute(&mut postgres)).expect("committed");
        let mut pipeline = redis::Pipeline::with_capacity(bytes.keys.len());
        bytes.keys.iter().for_each(|key| {
            pipeline.cmd("SET").arg(key).arg(&ROW).ignore();
        });
        pipeline.exec(&mut redis).expect("written");
    }
}

fn main() {
    println!("{:36} {:>12} {:>10} {:>10}", "", "rows/s", "p50 µs", "p99 µs");
    let bench = Bench::new(&definitions(), &[]);
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let db = Arc::new(DB::open_default(folder.path()).expect("a new store"));
    beside(&bench, || into_rocks(&db));

    println!("a shared head");
    let runtime = Arc::new(Runtime::new().expect("a tokio runtime"));
    let postgres = runtime.block_on(Postgres::start_with(&[]));
    let redis = RedisServer::start(&["--appendonly", "yes"]);
    let table = "CREATE TABLE bare (number BIGSERIAL PRIMARY KEY, history BYTEA NOT NULL)";
    runtime.block_on(postgres.execute(table));
    let settings =
        [("online", redis.url()), ("registry", postgres.url()), ("online_timeout", "10s".to_owned())];
    let bench = Bench::open(Repository::new(&definitions()), &settings);
    beside(&bench, || into_both(&runtime, &postgres, &redis));

    println!("servers of one shared head, each with a source of its own");
    let mut servers = vec![bench];
    for count in [1, 2, 4] {
        while servers.len() < count {
            servers.push(Bench::open(Repository::new(&definitions()), &settings));
        }
        let ours: f64 = std::thread::scope(|scope| {
            let pushing: Vec<_> = servers
                .iter()
                .zip(SOURCES)
                .map(|(server, source)| scope.spawn(move || ours(server, source, PUSHERS, 1).rate()))
                .collect();
            pushing.into_iter().map(|pushing| pushing.join().expect("pushed")).sum()
        });
        let bare = bare(|| into_both(&runtime, &postgres, &redis), PUSHERS * count, 1).rate();
        let what = format!("{count} servers, {PUSHERS} pushers each");
        println!(
            "{what:36} {ours:12.0}\n{:36} {bare:12.0}\n{:36} {:12.2}",
            "  bare write",
            "  ratio",
            ours / bare
        );
    }
}

/// Pushes and bare writes in turn.
fn beside<W: FnMut(&Bytes) + Send + 'static>(bench: &Bench, writer: impl Fn() -> W) {
    for (pushers, count) in [(1, 1), (32, 1), (256, 1), (1, 10_000)] {
        let mut bare = bare(&writer, pushers, count);
        for source in ["events", "clicks"] {
            let mut ours = ours(bench, source, pushers, count);
            let what = format!("{pushers} × {count} rows, {source}");
            let show = |what: &str, seen: &mut Seen| {
                let (p50, p99) = (seen.percentile(50), seen.percentile(99));
                println!("{what:36} {:12.0} {p50:10.0} {p99:10.0}", seen.rate());
                (seen.rate(), p99)
            };
            let (our_rate, our_p99) = show(&what, &mut ours);
            let (bare_rate, bare_p99) = show("  bare write", &mut bare);
            println!("{:36} {:12.2} {:10} {:10.2}", "  ratio", our_rate / bare_rate, "", our_p99 / bare_p99);
        }
    }
}
