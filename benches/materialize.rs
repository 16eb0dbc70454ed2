//! What does it cost to bring a million entities of 60 features into the head, and how large is it there? Beside a bare
//! table file of the same bytes, and beside bare pipelined `SET`s of them.
//!
//! `materialize [rocks]`: into RocksDB only.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::time::Instant;

use quern_benches::{bare, online};
use quern_kit::{RedisServer, ViewId, Wanted};
use rocksdb::{DB, DBCompressionType, IngestExternalFileOptions, Options, SstFileWriter};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTITIES: u64 = 1_000_000;
const PIPELINE: usize = 4_096;

fn main() {
    let rocks = online::features(ENTITIES, &[]);
    let n = (ENTITIES as usize * online::VIEWS) as f64;
    let seconds = timed(|| online::fill(&rocks));
    let mut views: Vec<ViewId> =
        (0..online::VIEWS).map(|view| rocks.node.view(&format!("v{view}"))).collect();
    views.sort_unstable();

    let mut wanted = Wanted::default();
    let keys: Vec<[u8; 16]> =
        views.iter().flat_map(|view| (0..ENTITIES as i64).map(|id| bare::key(*view, id))).collect();
    let view_of = |key: &[u8; 16]| ViewId(u64::from_be_bytes(key[..8].try_into().unwrap()));
    keys.iter().for_each(|key| wanted.push(view_of(key), Some(&key[8..])));
    let stored = rocks.node.head().get_many(&wanted).unwrap();
    let bytes: usize = stored.iter().flatten().map(|row| row.len() + 16).sum();

    let folder = tempfile::TempDir::new().unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    let bare_seconds = timed(|| {
        let file = folder.path().join("rows.sst");
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file).unwrap();
        for (key, row) in keys.iter().zip(&stored) {
            writer.put(key, row.as_ref().unwrap()).unwrap();
        }
        writer.finish().unwrap();
        let db = DB::open(&options, folder.path().join("db")).unwrap();
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        db.ingest_external_file_opts(&ingest, vec![file]).unwrap();
    });
    show("RocksDB, from Parquet", n / seconds, "table file", n / bare_seconds);
    let on_disk = rocks.node.head().bytes().unwrap() as f64 / ENTITIES as f64;
    println!("bytes of an entity: {:.0} stored, {on_disk:.0} on disk", bytes as f64 / ENTITIES as f64);
    if std::env::args().any(|argument| argument == "rocks") {
        return;
    }

    let server = RedisServer::start(&[]);
    let settings = [("online", server.url()), ("online_timeout", "30s".to_owned())];
    let redis = online::features(ENTITIES, &settings);
    let empty = used(&server);
    let seconds = timed(|| online::fill(&redis));
    let held = used(&server) - empty;
    let () = server.ask("FLUSHALL");
    let client = redis::Client::open(server.url()).unwrap();
    let connection = redis.runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let bare_seconds = timed(|| {
        for (keys, rows) in keys.chunks(PIPELINE).zip(stored.chunks(PIPELINE)) {
            let mut pipeline = redis::Pipeline::with_capacity(keys.len());
            for (key, row) in keys.iter().zip(rows) {
                let row: &[u8] = row.as_ref().unwrap();
                pipeline.cmd("SET").arg([&b"quern{}1"[..], key].concat()).arg(row).ignore();
            }
            redis.runtime.block_on(pipeline.exec_async(&mut connection.clone())).unwrap();
        }
    });
    show("Redis, from Parquet", n / seconds, "SET", n / bare_seconds);
    println!("bytes of an entity: {:.0} in Redis", held / ENTITIES as f64);
}

fn timed(job: impl FnOnce()) -> f64 {
    let start = Instant::now();
    job();
    start.elapsed().as_secs_f64()
}

fn show(what: &str, ours: f64, beside: &str, bare: f64) {
    println!("{what:28} {ours:10.0} rows/s   bare {beside} {bare:10.0} rows/s   ratio {:.2}", ours / bare);
}

/// Bytes that the server holds.
fn used(server: &RedisServer) -> f64 {
    let info: String = server.ask("INFO memory");
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap()
}
