//! Look-ups that replicas of a Redis answer: are they right, and do they go on, whatever freezes, dies or lags?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use quern::wire::Code;
use quern_kit::{Node, Proxy, Random, RedisCluster, RedisServer, Repository, Status, blocking, until};

use super::redis::{self, KEYS, NOW_US, show};
use crate::laws::windows_oracle::{Event, Rules, window};

/// So long that whoever waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

fn replica_of(port: u16) -> RedisServer {
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port.to_string()]);
    let info = || replica.ask::<String>("INFO replication");
    while !info().contains("master_link_status:up") {
        std::thread::yield_now();
    }
    replica
}

/// A server over `online`; its definitions are applied and history is materialized.
async fn open_to(repository: &Repository, online: String, deadline: Duration, to_us: i64) -> Node {
    let settings = [("online", online), ("online_timeout", format!("{}ms", deadline.as_millis()))];
    let node = repository.open_applied_with(&settings).await;
    node.materialize_to(to_us);
    node
}

async fn open(repository: &Repository, online: String, deadline: Duration) -> Node {
    open_to(repository, online, deadline, NOW_US).await
}

/// How often the server was asked such a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let info: String = server.ask("INFO commandstats");
    let stats = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    stats.map_or(0, |stats| stats.split(',').next().unwrap().parse().unwrap())
}

/// Asks so many times, one after the other, for entities of the last day; each answer must be right.
async fn ask(node: &Node, times: i64) {
    for turn in 0..times {
        let key = KEYS - 1 - turn % 24;
        let whole = format!("{:?} PRESENT, {} PRESENT, 1 PRESENT, 1 PRESENT", key as f64 / 2.0, 3 * key);
        assert_eq!(show(&redis::ask(node, "svc", vec![Some(key)]).await.unwrap(), 0), whole);
    }
}

/// Asks until look-ups are answered by this server.
async fn until_asked(node: &Node, server: &RedisServer) {
    until("a replica that is asked", async || {
        let before = calls(server, "mget");
        ask(node, 10).await;
        (calls(server, "mget") >= before + 10).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_go_to_a_replica_and_go_on_without_it_or_without_the_primary() {
    let mut primary = RedisServer::start(&[]);
    let mut replica = replica_of(primary.port());
    let repository = redis::repository();
    // The replica is named, or the primary says that it has one.
    for hosts in [primary.url(), format!("{},127.0.0.1:{}", primary.url(), replica.port())] {
        let deadline = Duration::from_secs(2);
        let node = open(&repository, format!("{hosts}?replicas=prefer"), deadline).await;
        until_asked(&node, &replica).await;
        let before = [calls(&primary, "mget"), calls(&replica, "mget")];
        ask(&node, 100).await;
        let asked = [calls(&primary, "mget") - before[0], calls(&replica, "mget") - before[1]];
        assert_eq!(asked, [0, 100], "primary and replica");

        replica.signal("STOP");
        ask(&node, 200).await;
        replica.signal("CONT");
        until_asked(&node, &replica).await;

        // For longer than what is known of the primary counts; the tiles as well as the rows.
        primary.signal("STOP");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            ask(&node, 20).await;
        }
        primary.signal("CONT");
        // Writing goes on once the primary was connected to anew.
        until("a primary that takes writes", async || node.head().bytes().ok()).await;
        until_asked(&node, &replica).await;
        drop(node);
    }
    let node = open(&repository, format!("{}?replicas=prefer", primary.url()), DEADLINE).await;
    until_asked(&node, &replica).await;
    replica.kill();
    ask(&node, 200).await;
    replica.restart();
    until_asked(&node, &replica).await;
    primary.kill();
    ask(&node, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_keeps_look_ups_without_an_answer_for_a_moment_only() {
    let mut primary = RedisServer::start(&[]);
    let replica = replica_of(primary.port());
    let sentinel = RedisServer::sentinel_of(&primary);
    let url = sentinel.url().replace("redis://", "redis+sentinel://") + "/m?replicas=prefer";
    let repository = redis::repository();
    let node = open(&repository, url, Duration::from_secs(2)).await;
    until_asked(&node, &replica).await;
    until("a Sentinel that knows the replica", async || {
        sentinel.ask::<String>("INFO sentinel").contains("slaves=1").then_some(())
    })
    .await;
    primary.kill();
    let (killed, mut answered, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    until("another primary", async || {
        match redis::ask(&node, "svc", vec![Some(KEYS - 1)]).await {
            Ok(found) => assert_eq!(show(&found, 0), "249.5 PRESENT, 1497 PRESENT, 1 PRESENT, 1 PRESENT"),
            Err(error) if error.code == Code::Unavailable => return None,
            Err(error) => panic!("{error}"),
        }
        longest = longest.max(answered.elapsed());
        answered = Instant::now();
        node.head().bytes().ok()
    })
    .await;
    println!("another primary after {:.1?}; {longest:.1?} without an answer", killed.elapsed());
    // Who is made the primary closes its connections.
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    ask(&node, 100).await;
}

/// The first connection stands still, as where packets are lost; there is no replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_that_is_slow_is_asked_again_over_another_connection() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::to(server.port()).await;
    let repository = redis::repository();
    let node = open(&repository, format!("redis://127.0.0.1:{}?hedge=5ms", proxy.port), DEADLINE).await;
    // Each ten earn one that is asked twice.
    ask(&node, 100).await;
    proxy.hold();
    let begun = Instant::now();
    ask(&node, 5).await;
    assert!(begun.elapsed() < DEADLINE / 4, "{:?}", begun.elapsed());
    proxy.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_that_a_replica_does_not_answer_is_asked_of_the_primary() {
    let primary = RedisServer::start(&[]);
    let replica = replica_of(primary.port());
    let repository = redis::repository();
    let node = open(&repository, format!("{}?replicas=prefer&hedge=5ms", primary.url()), DEADLINE).await;
    until_asked(&node, &replica).await;
    ask(&node, 100).await;
    replica.signal("STOP");
    let begun = Instant::now();
    ask(&node, 5).await;
    assert!(begun.elapsed() < DEADLINE / 4, "{:?}", begun.elapsed());
    replica.signal("CONT");
    let metrics = node.metrics();
    for name in ["hedges_total{result=\"won\"}", "replica_reads_total{result=\"answered\"}"] {
        assert!(metrics.contains(&format!("quern_online_store_{name}")), "{name} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_cluster_come_from_replicas() {
    let cluster = RedisCluster::start(&[]);
    let mut replicas = cluster.add_replicas();
    let repository = redis::repository();
    let node = open(&repository, format!("{}&replicas=prefer", cluster.url()), DEADLINE / 2).await;
    let asked = |servers: &[RedisServer]| servers.iter().map(|server| calls(server, "get")).sum::<u64>();
    until("replicas that have all", async || {
        let sizes = |servers: &[RedisServer]| servers.iter().map(|one| one.ask::<u64>("DBSIZE")).sum::<u64>();
        (sizes(&replicas) == sizes(&cluster.servers)).then_some(())
    })
    .await;
    let before = asked(&replicas);
    ask(&node, 100).await;
    assert_eq!(asked(&replicas) - before, 100, "each asks for a row, and for tiles that a primary has");
    replicas[1].kill();
    ask(&node, 100).await;
    cluster.servers[2].signal("STOP");
    for key in KEYS - 24..KEYS {
        let shown = show(&redis::ask(&node, "latest", vec![Some(key)]).await.unwrap(), 0);
        assert_eq!(shown, format!("{:?} PRESENT, {} PRESENT", key as f64 / 2.0, 3 * key));
    }
    cluster.servers[2].signal("CONT");
}

const DAY_US: i64 = 86_400_000_000;
/// A moment after all events.
const END_US: i64 = 60 * DAY_US;
const ENTITIES: i64 = 12;
/// Name in definitions, length and hop, µs.
const WINDOWS: [(&str, Option<i64>, i64); 4] = [
    ("1d", Some(DAY_US), DAY_US / 24),
    ("7d", Some(7 * DAY_US), DAY_US / 24),
    ("30d", Some(30 * DAY_US), DAY_US),
    ("lifetime", None, 1),
];

fn definitions(windows: &[usize]) -> String {
    let windows: Vec<&str> = windows.iter().map(|place| WINDOWS[*place].0).collect();
    format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: parquet, path: \"rows-*.parquet\"}}\nevent_timestamp: ts\n---\n\
         kind: FeatureView\nname: w\nentities: [e]\nsource: s\naggregations:\n\
         \x20 - {{name: many, function: count, windows: [{}]}}\n---\n\
         kind: FeatureService\nname: svc\nfeatures: [w]\n",
        windows.join(", ")
    )
}

fn events(random: &mut Random) -> Vec<Event> {
    let event = |_| Event {
        key: Some(random.below(ENTITIES as u64) as i64),
        ts_us: Some(random.below(END_US as u64) as i64),
        ..Event { key: None, ts_us: None, created_us: None, id: None, x: None, i: None, t: None, b: None }
    };
    (0..300).map(event).collect()
}

fn write(repository: &Repository, file: usize, events: &[Event]) {
    let times = TimestampMicrosecondArray::from_iter(events.iter().map(|event| event.ts_us));
    let columns: [(&str, ArrayRef); 2] = [
        ("k", Arc::new(Int64Array::from_iter(events.iter().map(|event| event.key)))),
        ("ts", Arc::new(times.with_timezone("UTC"))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
    repository.write_parquet_in_groups(&format!("rows-{file}.parquet"), &rows.unwrap(), 50);
}

/// A replica that is behind says what was true a moment ago, or nothing: never the tiles of one moment by what is kept
/// at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_makes_no_window_wrong() {
    let mut random = Random::new("a replica that lags");
    let primary = RedisServer::start(&[]);
    let proxy = Proxy::to(primary.port()).await;
    let replica = replica_of(proxy.port);
    let repository = Repository::new(&definitions(&[0]));
    let mut all = events(&mut random);
    write(&repository, 0, &all);
    let url = format!("{}?replicas=prefer", primary.url());
    let node = open_to(&repository, url, DEADLINE, END_US).await;
    let (mut held, mut late) = (0, 0);
    for (round, windows) in [&[0, 1][..], &[2], &[0, 1, 2, 3], &[3], &[0, 3], &[1, 2, 3]].iter().enumerate() {
        until("a replica that has all", async || {
            let [one, other] = [&primary, &replica].map(|server| {
                let info: String = server.ask("INFO replication");
                let offset = info.lines().find(|line| line.starts_with("master_repl_offset")).unwrap();
                offset.to_owned()
            });
            (one == other).then_some(())
        })
        .await;
        // The replica answers, and hears of nothing.
        let before = all.clone();
        all.extend(events(&mut random));
        write(&repository, round + 1, &all[before.len()..]);
        repository.write("definitions.yaml", definitions(windows));
        proxy.hold();
        let asked = calls(&replica, "mget");
        let changing = node.clone();
        node.apply().await.unwrap();
        let changing = tokio::spawn(blocking(move || changing.materialize_to(END_US)));
        let begun = Instant::now();
        let mut ended = false;
        // Beyond what a replica may be behind: then the primary answers.
        while !ended || begun.elapsed() < Duration::from_secs(5) {
            ended = changing.is_finished();
            let is_late = look(&node, windows, &before, &all).await;
            (held, late) = (held + 1, late + i64::from(is_late));
        }
        changing.await.unwrap();
        assert!(calls(&replica, "mget") > asked, "nobody asked the replica while it was late");
        let is_late = look(&node, windows, &before, &all).await;
        assert!(!is_late, "a replica that is seconds late was asked");
        proxy.release();
    }
    println!("{held} look-ups while the replica heard nothing, {late} of them answered as before");
    assert!(late > 0);
}

/// Asks all windows of all entities; whether what it says is what was true before.
async fn look(node: &Node, windows: &[usize], before: &[Event], now: &[Event]) -> bool {
    let service = node.service("svc");
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ENTITIES));
    let times = vec![END_US; ENTITIES as usize];
    let vectors = service.look_up(service.inputs(vec![keys]), times).await.unwrap();
    let rules = Rules { lag_us: 0, has_id: false, as_known: false, before: false, excluded: None };
    let mut is_late = false;
    for (output, place) in windows.iter().enumerate() {
        let (name, length, hop) = WINDOWS[*place];
        for key in 0..ENTITIES {
            let found = match vectors.status(output, key as usize) {
                Status::NotFound => None,
                _ => Some(vectors.vectors.column(output).as_primitive::<Int64Type>().value(key as usize)),
            };
            let count = |events| window(events, rules, key, END_US, (length, hop)).len() as i64;
            let (was, is) = (count(before), count(now));
            let known: BTreeSet<i64> = [was, is].into();
            assert!(
                found.is_none_or(|found| known.contains(&found)),
                "{name} of {key}: {found:?}, not {known:?}"
            );
            is_late |= found != Some(is);
        }
    }
    is_late
}
