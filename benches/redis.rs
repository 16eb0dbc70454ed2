//! What does a Redis cost that several servers share? Look-ups beside the bare `MGET` of the same bytes and beside
//! RocksDB; writing beside bare pipelined `SET`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::Int64Array;
use quern_benches::{Bench, bare, beside, median, online};
use quern_kit::{Random, RedisServer, Rows, Service, ViewId, Wanted};
use redis::aio::MultiplexedConnection;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the rows of a Quern without a prefix of its own lie.
const PREFIX: &[u8] = b"quern{}1";
/// Commands of one bare pipeline, as many keys as a batch of ours has.
const PIPELINE: usize = 4_096;
const ROUNDS: usize = 5;

fn main() {
    let server = RedisServer::start(&[]);
    let settings = [("online", server.url()), ("online_timeout", "10s".to_owned())];
    let (redis, rocks) =
        (online::features(online::ENTITIES, &settings), online::features(online::ENTITIES, &[]));
    online::fill(&rocks);
    let start = Instant::now();
    online::fill(&redis);
    let rows = online::ENTITIES as usize * online::VIEWS;
    println!(
        "materialize into Redis, from Parquet: {:.0} rows/s",
        rows as f64 / start.elapsed().as_secs_f64()
    );

    let client = redis::Client::open(server.url()).unwrap();
    let connection = redis.runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let views: Vec<ViewId> = (0..online::VIEWS).map(|view| redis.node.view(&format!("v{view}"))).collect();
    let services = [&redis, &rocks].map(|bench| bench.node.service("all"));
    for rows in [1, 100] {
        let mget = |random: &mut Random| {
            let mut command = redis::cmd("MGET");
            for id in online::ids(random, rows) {
                views.iter().for_each(|view| {
                    command.arg([PREFIX, &bare::key(*view, id)].concat());
                });
            }
            let mut connection = connection.clone();
            let found = redis.runtime.block_on(command.query_async::<Vec<Vec<u8>>>(&mut connection)).unwrap();
            assert_eq!(black_box(found).len(), rows * views.len());
        };
        let (mut ours, mut theirs) = (Random::seeded(7), Random::seeded(7));
        let what = format!("look-up of {rows} x 60, beside MGET");
        beside(&what, || ask(&redis, &services[0], &mut ours, rows), || mget(&mut theirs));
        let what = format!("look-up of {rows} x 60, beside RocksDB's");
        beside(
            &what,
            || ask(&redis, &services[0], &mut ours, rows),
            || ask(&rocks, &services[1], &mut theirs, rows),
        );
    }
    write(&redis, &server, &connection, &views);
}

fn ask(bench: &Bench, service: &Service, random: &mut Random, rows: usize) {
    let ids = Int64Array::from(online::ids(random, rows));
    let vectors = service.look_up(service.inputs(vec![Arc::new(ids)]), vec![online::now_us(); rows]);
    black_box(bench.runtime.block_on(vectors).unwrap());
}

/// Writes the rows of all entities and views into an empty Redis, in turn by us and by bare commands.
fn write(bench: &Bench, server: &RedisServer, connection: &MultiplexedConnection, views: &[ViewId]) {
    let mut wanted = Wanted::default();
    let keys: Vec<(ViewId, [u8; 16])> = views
        .iter()
        .flat_map(|view| (0..online::ENTITIES as i64).map(|id| (*view, bare::key(*view, id))))
        .collect();
    keys.iter().for_each(|(view, key)| wanted.push(*view, Some(&key[8..])));
    let stored = bench.node.head().get_many(&wanted).unwrap();
    let mut rows = Rows::default();
    for ((view, key), row) in keys.iter().zip(&stored) {
        rows.push(*view, &key[8..], |out| out.extend_from_slice(row.as_ref().unwrap()));
    }
    let mut seconds: [Vec<f64>; 3] = Default::default();
    let mut timed = |side: usize, job: &mut dyn FnMut()| {
        let start = Instant::now();
        job();
        seconds[side].push(start.elapsed().as_secs_f64());
    };
    for _ in 0..ROUNDS {
        let () = server.ask("FLUSHALL");
        timed(0, &mut || assert_eq!(bench.node.head().upsert(&rows).unwrap().written, rows.len() as u64));
        timed(1, &mut || assert_eq!(bench.node.head().upsert(&rows).unwrap().unchanged, rows.len() as u64));
        let () = server.ask("FLUSHALL");
        timed(2, &mut || {
            for (keys, rows) in keys.chunks(PIPELINE).zip(stored.chunks(PIPELINE)) {
                let mut pipeline = redis::Pipeline::with_capacity(keys.len());
                for ((_, key), row) in keys.iter().zip(rows) {
                    let row: &[u8] = row.as_ref().unwrap();
                    pipeline.cmd("SET").arg([PREFIX, key].concat()).arg(row).ignore();
                }
                bench.runtime.block_on(pipeline.exec_async(&mut connection.clone())).unwrap();
            }
        });
    }
    let n = rows.len() as f64;
    let [fresh, repeated, bare] = seconds.map(|mut seconds| n / median(&mut seconds));
    for (what, ours) in [("write, all new", fresh), ("write, all there already", repeated)] {
        println!("{what:44} {ours:9.0} rows/s   bare SET {bare:9.0} rows/s   ratio {:.2}", ours / bare);
    }
}
