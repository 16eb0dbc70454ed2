//! The head in Redis, alone and as a cluster: what the laws do not say.
//!
//! The laws themselves run over it in [`crate::laws`], what every store promises in [`super::conformance`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use parking_lot::Mutex;
use quern::wire::Code;
use quern_kit::{
    Kept, Level, Node, Online, Redis, RedisCluster, RedisServer, Repository, Result, RowState, Status, Store,
    Vectors, ViewId, Wanted, free_port, fresh_prefix, open_redis, runtime, until,
};

use super::{row, rows};

const VIEW: ViewId = ViewId(0x7b7d_2a00_5c5b_0001);
const DAY_US: i64 = 86_400_000_000;

async fn open(url: &str) -> Arc<Redis> {
    open_redis(url, Duration::from_secs(30)).await.unwrap()
}

/// Runs a test on a single server and on a cluster, each with a prefix of its own.
fn on_both<F: Future>(test: impl Fn(Store, String) -> F) {
    for store in [Store::Redis, Store::Cluster] {
        runtime().block_on(test(store, store.url().unwrap()));
    }
}

fn get(redis: &Redis, view: ViewId, key: &[u8]) -> Option<Vec<u8>> {
    let mut wanted = Wanted::default();
    wanted.push(view, Some(key));
    redis.get_many(&wanted).unwrap().remove(0)
}

#[test]
fn scripts_are_brought_along() {
    let server = RedisServer::start(&[]);
    runtime().block_on(async {
        let redis = open(&server.url()).await;
        redis.begin(VIEW).unwrap();
        let () = server.ask("SCRIPT FLUSH");
        redis.set_watermark(VIEW, 3).unwrap();
        let () = server.ask("SCRIPT FLUSH");
        assert_eq!(redis.upsert(None, &rows(VIEW, &[(b"k", row(1, 1, 1))])).unwrap().written, 1);
    });
}

/// Out of memory is no outage: what is there is read on, and who writes hears when to come again.
#[test]
fn fault_08_a_redis_that_takes_no_writes_is_read_on() {
    let server = RedisServer::start(&[]);
    runtime().block_on(async {
        let redis = open(&server.url()).await;
        redis.upsert(None, &rows(VIEW, &[(b"k", row(1, 1, 1))])).unwrap();
        let () = server.ask("CONFIG SET maxmemory 1");
        for _ in 0..20 {
            let refused = redis.upsert(None, &rows(VIEW, &[(b"k", row(2, 2, 2))])).unwrap_err();
            assert_eq!(refused.kind(), Code::Unavailable, "{refused}");
            assert!(
                refused.retry_after().is_some() && refused.said().contains("takes no writes"),
                "{refused}"
            );
            assert_eq!(get(&redis, VIEW, b"k"), Some(row(1, 1, 1)));
        }
        // So is a server that comes up meanwhile.
        let other = open(&server.url()).await;
        assert_eq!(get(&other, VIEW, b"k"), Some(row(1, 1, 1)));
        let () = server.ask("CONFIG SET maxmemory 0");
        assert_eq!(redis.upsert(None, &rows(VIEW, &[(b"k", row(2, 2, 2))])).unwrap().written, 1);
    });
}

#[test]
fn rows_spread_over_the_cluster() {
    let cluster = RedisCluster::start(&[]);
    runtime().block_on(async {
        let redis = open(&cluster.url()).await;
        let keys: Vec<[u8; 4]> = (0..3_000u32).map(u32::to_be_bytes).collect();
        let values: Vec<(&[u8], Vec<u8>)> = keys.iter().map(|key| (&key[..], row(1, 1, 1))).collect();
        redis.upsert(None, &rows(VIEW, &values)).unwrap();
        // Its id begins with `{}`: a hash tag, if it were not for ours.
        let sizes: Vec<u64> = cluster.servers.iter().map(|server| server.ask("DBSIZE")).collect();
        assert!(sizes.iter().all(|size| (900..1_100).contains(size)), "{sizes:?}");
    });
}

#[test]
fn slots_that_move_are_followed() {
    let cluster = RedisCluster::start(&[]);
    runtime().block_on(async {
        let redis = open(&cluster.url()).await;
        let keys: Vec<[u8; 4]> = (0..6_000u32).map(u32::to_be_bytes).collect();
        let values: Vec<(&[u8], Vec<u8>)> = keys.iter().map(|key| (&key[..], row(1, 1, 1))).collect();
        redis.upsert(None, &rows(VIEW, &values)).unwrap();
        let there = || {
            let mut wanted = Wanted::default();
            keys.iter().for_each(|key| wanted.push(VIEW, Some(key)));
            redis.get_many(&wanted).unwrap().iter().flatten().count()
        };
        let ids: Vec<String> = cluster.servers.iter().map(|server| server.ask("CLUSTER MYID")).collect();
        let (from, to) = (&cluster.servers[0], &cluster.servers[1]);
        let counts =
            (0..5_461u16).filter(|slot| from.ask::<u64>(&format!("CLUSTER COUNTKEYSINSLOT {slot}")) > 0);
        for slot in counts.take(20) {
            let () = to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
            let () = from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));
            let keys: Vec<Vec<u8>> = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
            let mut migrate = redis::cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(to.url().rsplit(':').next().unwrap())
                .arg("")
                .arg(0)
                .arg(5_000)
                .arg("KEYS");
            let () = migrate.arg(&keys).query(&mut from.connection()).unwrap();
            // On the move: the old server says ASK.
            assert_eq!(there(), 6_000);
            for server in [to, from, &cluster.servers[2]] {
                let () = server.ask(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[1]));
            }
        }
        // Moved: it says MOVED.
        assert_eq!(there(), 6_000);
        assert_eq!(redis.upsert(None, &rows(VIEW, &values)).unwrap().unchanged, 6_000);
    });
}

#[test]
fn what_another_server_keeps_is_known_within_a_second() {
    on_both(async |_, url| {
        let (one, other) = (open(&url).await, open(&url).await);
        let level = |reach_us| Level { span_us: DAY_US, reach_us };
        let more = Kept { levels: vec![level(9 * DAY_US)], lifetime: true };
        one.set_kept(VIEW, more.clone()).unwrap();
        assert_eq!(one.kept(VIEW).as_deref(), Some(&more));
        let start = Instant::now();
        while other.kept(VIEW).as_deref() != Some(&more) {
            assert!(start.elapsed() < Duration::from_secs(20), "not known after {:?}", start.elapsed());
            tokio::task::yield_now().await;
        }
        // Who keeps less waits until nobody relies on more.
        let less = Kept { levels: vec![level(3 * DAY_US)], lifetime: true };
        one.set_kept(VIEW, less.clone()).unwrap();
        other.freshen_kept().await.unwrap();
        assert_eq!(other.kept(VIEW).as_deref(), Some(&less));
        one.retain(&[]).unwrap();
    });
}

#[test]
fn servers_take_turns_to_materialize() {
    on_both(async |_, url| {
        let (one, other) = (open(&url).await, open(&url).await);
        let turn = one.turn().unwrap();
        let (told, taken) = std::sync::mpsc::channel();
        let waiting = tokio::task::spawn_blocking(move || {
            let turn = other.turn().unwrap();
            told.send(()).unwrap();
            drop(turn);
        });
        assert!(taken.recv_timeout(Duration::from_millis(300)).is_err(), "two have the turn");
        drop(turn);
        waiting.await.unwrap();
        taken.recv().unwrap();
        one.retain(&[]).unwrap();
    });
}

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\n\
    kind: Source\nname: s\nbatch: {format: parquet, path: rows.parquet}\nevent_timestamp: ts\n---\n\
    kind: FeatureView\nname: v\nentities: [e]\nsource: s\nttl: 1d\nfeatures: [x, {name: n, expr: n, default: -1}]\n---\n\
    kind: FeatureView\nname: w\nentities: [e]\nsource: s\naggregations:\n\
    \x20 - {name: many, function: count, windows: [1d, lifetime], default: 0}\n---\n\
    kind: FeatureService\nname: svc\nfeatures: [v, w]\n---\n\
    kind: FeatureService\nname: latest\nfeatures: [v]\n---\n\
    kind: FeatureService\nname: defaulted\nfeatures: [{view: v, features: [n]}, w]\n\
    derived: [{name: twice, expr: \"n * 2\"}]\n";
pub(crate) const KEYS: i64 = 500;

/// Entity `k` has one row, of the hour `k`, with `x = k / 2` and `n = 3 k`.
pub(crate) fn repository() -> Repository {
    let repository = Repository::new(DEFINITIONS);
    let times =
        TimestampMicrosecondArray::from_iter_values((0..KEYS).map(|k| k * DAY_US / 24)).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 4] = [
        ("ts", Arc::new(times)),
        ("k", Arc::new(Int64Array::from_iter_values(0..KEYS))),
        ("x", Arc::new(Float64Array::from_iter_values((0..KEYS).map(|k| k as f64 / 2.0)))),
        ("n", Arc::new(Int64Array::from_iter_values((0..KEYS).map(|k| 3 * k)))),
    ];
    repository.write_parquet_in_groups("rows.parquet", &RecordBatch::try_from_iter(columns).unwrap(), 50);
    repository
}

pub(crate) const NOW_US: i64 = KEYS * DAY_US / 24;

pub(crate) async fn ask(node: &Node, service: &str, keys: Vec<Option<i64>>) -> Result<Vectors> {
    let times = vec![NOW_US; keys.len()];
    let keys: ArrayRef = Arc::new(Int64Array::from(keys));
    let inputs = RecordBatch::try_from_iter_with_nullable([("k", keys, true)]).unwrap();
    node.service(service).look_up(inputs, times).await
}

/// The values of a row and their statuses, as text.
pub(crate) fn show(vectors: &Vectors, row: usize) -> String {
    let columns = vectors.vectors.columns().iter().enumerate().map(|(output, column)| {
        let value = arrow::util::display::array_value_to_string(column, row).unwrap();
        format!("{value} {}", vectors.status(output, row).as_str())
    });
    columns.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_bytes_are_those_of_rocksdb_and_do_not_expire() {
    on_both(async |store, url| {
        let repository = repository();
        let open = async |name: &str, settings: &[(&'static str, String)]| {
            let data = repository.path().join(name).to_string_lossy().into_owned();
            let node = repository.open_applied_with(&[settings, &[("data", data)]].concat()).await;
            node.materialize_to(NOW_US);
            node
        };
        let shared = [("online", url.clone()), ("online_timeout", "30s".to_owned())];
        let (rocks, redis) = (open("rocks", &[]).await, open("redis", &shared).await);
        assert!(matches!((rocks.head(), redis.head()), (Online::Rocks(_), Online::Redis(..))));
        let mut wanted = Wanted::default();
        for view in ["v", "w"].map(|view| redis.view(view)) {
            (0..KEYS).for_each(|k| wanted.push(view, Some(&((k as u64) ^ (1 << 63)).to_be_bytes())));
        }
        let (ours, theirs) =
            (redis.head().get_many(&wanted).unwrap(), rocks.head().get_many(&wanted).unwrap());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.as_deref().unwrap(), theirs.as_deref().unwrap());
        }
        // A row that is too old to count says so, and not that there is none.
        let vectors = ask(&redis, "svc", vec![Some(0), Some(KEYS - 1), Some(KEYS), None]).await.unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|row| show(&vectors, row)),
            [
                " OUTSIDE_MAX_AGE,  OUTSIDE_MAX_AGE, 0 PRESENT, 1 PRESENT",
                "249.5 PRESENT, 1497 PRESENT, 1 PRESENT, 1 PRESENT",
                " NOT_FOUND,  NOT_FOUND, 0 PRESENT, 0 PRESENT",
                " NOT_FOUND,  NOT_FOUND,  NOT_FOUND,  NOT_FOUND",
            ]
        );
        assert!(kept_for_good(store, &url) >= 2 * KEYS as usize);
        redis.head().retain(&[]).unwrap();
    });
}

/// Counts the keys of this part of the store, none of which expires.
fn kept_for_good(store: Store, url: &str) -> usize {
    let servers = match store {
        Store::Cluster => RedisCluster::shared().servers.iter().collect(),
        _ => vec![RedisServer::shared()],
    };
    let (prefix, mut count) = (url.rsplit_once("prefix=").unwrap().1, 0);
    for server in servers {
        let mut connection = server.connection();
        let patterns = [format!("{prefix}{{}}*"), format!("{{{prefix}}}*")];
        let keys = patterns.iter().flat_map(|pattern| server.ask::<Vec<Vec<u8>>>(&format!("KEYS {pattern}")));
        for key in keys {
            let seconds: i64 = redis::cmd("TTL").arg(&key).query(&mut connection).unwrap();
            assert_eq!(seconds, -1, "{}", String::from_utf8_lossy(&key));
            count += 1;
        }
    }
    count
}

#[test]
fn what_is_wrong_with_a_redis_is_said_before_anything_is_served() {
    let locked = RedisServer::start(&["--requirepass", "secret"]);
    let gone = {
        let mut server = RedisServer::start(&[]);
        server.kill();
        server.url()
    };
    runtime().block_on(async {
        let refuse = async |url: &str| match open_redis(url, Duration::from_millis(100)).await {
            Ok(_) => panic!("{url} was taken"),
            Err(error) => error,
        };
        let error = refuse(&gone).await;
        assert!(error.code == Code::Unavailable && error.text.contains(&gone), "{error}");
        let error = refuse(&locked.url()).await.to_string();
        assert!(error.contains("NOAUTH") || error.contains("uthenticat"), "{error}");
        let error = refuse(&locked.url().replace("://", "://:wrong@")).await.to_string();
        assert!(error.contains("WRONGPASS") || error.contains("uthenticat"), "{error}");
        assert!(!error.contains("wrong@"), "{error}");
        open(&locked.url().replace("://", "://:secret@")).await;
        // Whether or not our first key is one of its own.
        for member in &RedisCluster::shared().servers {
            let error = refuse(&format!("{}?prefix={}", member.url(), fresh_prefix())).await.to_string();
            assert!(error.contains("is a member of a cluster; add `?cluster=true`"), "{error}");
        }
        let prefix = fresh_prefix();
        let () = RedisServer::shared().ask(&format!("SET {{{prefix}}}format 7"));
        let error = refuse(&format!("{}?prefix={prefix}", RedisServer::shared().url())).await.to_string();
        assert!(error.contains("has format 7") && error.contains("choose another `prefix`"), "{error}");
    });
}

#[test]
fn tls_is_spoken_to_whoever_is_vouched_for() {
    let folder = tempfile::tempdir().unwrap();
    let [key, certificate] =
        ["key.pem", "certificate.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port().to_string();
    let tls = ["--tls-port", &port, "--tls-auth-clients", "no", "--tls-key-file", &key];
    let _server = RedisServer::start(&[&tls[..], &["--tls-cert-file", &certificate]].concat());
    runtime().block_on(async {
        let url = format!("rediss://127.0.0.1:{port}");
        let redis = open(&format!("{url}?ca={certificate}")).await;
        redis.upsert(None, &rows(VIEW, &[(b"k", row(1, 1, 1))])).unwrap();
        assert_eq!(get(&redis, VIEW, b"k"), Some(row(1, 1, 1)));
        let error = open_redis(&url, DEADLINE).await.err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
    });
}

#[test]
fn defaults_stand_in_where_all_features_have_one() {
    let mut server = RedisServer::start(&[]);
    let repository = repository();
    repository.write(
        "lists.yaml",
        "kind: FeatureView\nname: lists\nentities: [e]\nsource: s\nfeatures:\n\
         \x20 - {name: words, expr: \"make_array('n', CAST(n AS VARCHAR))\", default: [none, '0']}\n\
         \x20 - {name: pair, expr: \"make_array(n > 0, null)\", type: \"list<bool, 2>\", default: [false, true]}\n---\n\
         kind: FeatureService\nname: lists\nfeatures: [lists]\n\
         derived: [{name: second, expr: \"words[2]\"}]\n",
    );
    runtime().block_on(async {
        let settings = [("online", server.url()), ("online_timeout", "200ms".to_owned())];
        let node = repository.open_applied_with(&settings).await;
        node.materialize_to(NOW_US);
        let keys = || vec![Some(KEYS - 1), None];
        let lists = ask(&node, "lists", keys()).await.unwrap();
        assert_eq!(show(&lists, 0), "[n, 1497] PRESENT, [true, ] PRESENT, 1497 PRESENT");
        let whole = ask(&node, "defaulted", keys()).await.unwrap();
        assert_eq!(show(&whole, 0), "1497 PRESENT, 1 PRESENT, 1 PRESENT, 2994 PRESENT");
        server.kill();
        let error = ask(&node, "svc", keys()).await.err().unwrap();
        assert!(error.code == Code::Unavailable && error.text.contains(&server.url()), "{error}");
        let fallen = ask(&node, "defaulted", keys()).await.unwrap();
        assert_eq!(show(&fallen, 0), "-1 UNAVAILABLE, 0 UNAVAILABLE, 0 UNAVAILABLE, -2 PRESENT");
        let lists = ask(&node, "lists", keys()).await.unwrap();
        assert_eq!(show(&lists, 0), "[none, 0] UNAVAILABLE, [false, true] UNAVAILABLE, 0 PRESENT");
        assert_eq!(show(&fallen, 1), " NOT_FOUND,  NOT_FOUND,  NOT_FOUND,  NULL_VALUE");
        assert_eq!(fallen.found[0].states, [RowState::Unavailable, RowState::NotFound]);
        assert_eq!((fallen.status(0, 0), fallen.event_timestamp(0, 0)), (Status::Unavailable, None));
    });
}

/// What the load of look-ups has seen.
#[derive(Default)]
struct Seen {
    good: AtomicU64,
    defaulted: AtomicU64,
    refused: AtomicU64,
    times: Mutex<Vec<Duration>>,
}

impl Seen {
    fn note(&self, service: &str, key: i64, asked: Instant, reply: Result<Vectors>) {
        self.times.lock().push(asked.elapsed());
        let counter = match reply {
            Err(error) if error.code == Code::Unavailable => {
                assert_eq!(service, "svc", "all features of the other have a default");
                &self.refused
            }
            Err(error) => panic!("{error}"),
            Ok(vectors) => match (service, show(&vectors, 0)) {
                ("svc", shown) => {
                    let whole =
                        format!("{:?} PRESENT, {} PRESENT, 1 PRESENT, 1 PRESENT", key as f64 / 2.0, 3 * key);
                    assert_eq!(shown, whole);
                    &self.good
                }
                (_, shown)
                    if shown == format!("{} PRESENT, 1 PRESENT, 1 PRESENT, {} PRESENT", 3 * key, 6 * key) =>
                {
                    &self.good
                }
                (_, shown) => {
                    assert_eq!(shown, "-1 UNAVAILABLE, 0 UNAVAILABLE, 0 UNAVAILABLE, -2 PRESENT");
                    &self.defaulted
                }
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Prints what came of the requests since the last time.
    fn tell(&self, phase: &str) {
        let [good, defaulted, refused] =
            [&self.good, &self.defaulted, &self.refused].map(|counter| counter.swap(0, Ordering::Relaxed));
        let mut times = std::mem::take(&mut *self.times.lock());
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied();
        println!(
            "{phase}: {good} answered, {defaulted} by defaults, {refused} refused; p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            at(0.5).unwrap_or_default(),
            at(0.99).unwrap_or_default(),
            at(1.0).unwrap_or_default(),
        );
        // Beyond the deadline only what this machine's other work took from it.
        assert!(
            at(1.0).unwrap_or_default() < DEADLINE + Duration::from_secs(3),
            "{phase}: somebody waited too long"
        );
    }

    /// Waits until so many more requests ended well, or otherwise; returns how long that took.
    async fn until(&self, good: bool, more: u64) -> Duration {
        let count = || match good {
            true => self.good.load(Ordering::Relaxed),
            false => self.refused.load(Ordering::Relaxed),
        };
        let (start, before) = (Instant::now(), count());
        while count() < before + more {
            assert!(start.elapsed() < Duration::from_secs(60), "not {more} more that ended as they should");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        start.elapsed()
    }
}

const DEADLINE: Duration = Duration::from_millis(100);

#[test]
fn a_redis_that_freezes_or_dies_under_load_gives_no_wrong_value_and_nobody_waits_long() {
    let mut server = RedisServer::start(&["--appendonly", "yes"]);
    let repository = repository();
    runtime().block_on(async {
        let settings = [("online", server.url()), ("online_timeout", format!("{}ms", DEADLINE.as_millis()))];
        let node = repository.open_applied_with(&settings).await;
        node.materialize_to(NOW_US);

        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let load = (0..16i64).map(|worker| {
            let (node, seen, stop) = (node.clone(), Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(async move {
                let service = if worker % 4 == 0 { "defaulted" } else { "svc" };
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Those of the last day: none is too old.
                    let key = KEYS - 1 - (worker + 7 * turn) % 24;
                    let asked = Instant::now();
                    let reply = ask(&node, service, vec![Some(key)]).await;
                    seen.note(service, key, asked, reply);
                    // Whoever is refused at once comes again a little later.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        let load: Vec<_> = load.collect();
        seen.until(true, 1_000).await;
        seen.tell("whole");

        server.signal("STOP");
        let noticed = seen.until(false, 1_000).await;
        seen.tell("frozen");
        server.signal("CONT");
        let first = seen.until(true, 1).await;
        let recovered = first + seen.until(true, 500).await;
        println!("1,000 refusals in {noticed:.1?}; answers again after {first:.1?}, 500 of them after {recovered:.1?}");
        seen.tell("thawed");
        seen.until(true, 500).await;
        seen.tell("whole");

        server.kill();
        seen.until(false, 1_000).await;
        seen.tell("killed");
        server.restart();
        let first = seen.until(true, 1).await;
        seen.until(true, 500).await;
        println!("answers again {first:.1?} after the restart");
        seen.tell("restarted");
        assert!(first < Duration::from_secs(20), "{first:?}");
        // Writing goes on as if nothing had been.
        node.materialize_to(NOW_US);
        stop.store(true, Ordering::Relaxed);
        for worker in load {
            worker.await.unwrap();
        }
        let metrics = node.metrics();
        for name in ["quern_online_store_breaker_opened_total", "quern_online_store_errors_total{kind=\"timeout\"}"] {
            assert!(metrics.contains(name), "{name} is not in\n{metrics}");
        }
    });
}

#[test]
fn a_cluster_of_which_a_server_freezes_or_dies_is_whole_again_when_that_is_back() {
    let mut cluster = RedisCluster::start(&[]);
    let repository = repository();
    runtime().block_on(async {
        let settings = [("online", cluster.url()), ("online_timeout", format!("{}ms", DEADLINE.as_millis()))];
        let node = repository.open_applied_with(&settings).await;
        node.materialize_to(NOW_US);
        let seen = Seen::default();
        let ask_on = async |requests: i64| {
            for turn in 0..requests {
                let (key, asked) = (KEYS - 1 - turn % 24, Instant::now());
                seen.note("svc", key, asked, ask(&node, "svc", vec![Some(key)]).await);
            }
        };
        // Until so many in a row are answered.
        let recover = async || {
            let start = Instant::now();
            loop {
                let refused = seen.refused.load(Ordering::Relaxed);
                ask_on(100).await;
                if seen.refused.load(Ordering::Relaxed) == refused {
                    break;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(60),
                    "still refused after {:?}",
                    start.elapsed()
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            println!("whole again after {:.1?}", start.elapsed());
        };
        ask_on(200).await;
        seen.tell("whole");
        cluster.servers[1].signal("STOP");
        ask_on(60).await;
        assert!(seen.refused.load(Ordering::Relaxed) > 0);
        seen.tell("one of three frozen");
        cluster.servers[1].signal("CONT");
        recover().await;
        seen.tell("thawed");

        cluster.servers[1].kill();
        ask_on(60).await;
        assert!(seen.refused.load(Ordering::Relaxed) > 0);
        seen.tell("one of three killed");
        // It kept nothing: its rows come back when history is read again.
        cluster.servers[1].restart();
        let start = Instant::now();
        while let Err(error) = node.try_materialize_to(NOW_US) {
            assert!(error.code == Code::Unavailable && start.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        recover().await;
        seen.tell("restarted and filled");
    });
}

/// A master that is gone, and the Sentinel that puts another server in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_says_which_server_is_the_master_now() {
    let mut first = RedisServer::start(&[]);
    let port = first.port().to_string();
    let second = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = RedisServer::sentinel_of(&first);
    let url = sentinel.url().replace("redis://", "redis+sentinel://") + "/m?prefix=watched";
    let redis = open(&url).await;
    let view = ViewId(7);
    redis.upsert(None, &rows(view, &[(b"a", row(1, 1, 1))])).unwrap();
    assert_eq!(get(&redis, view, b"a"), Some(row(1, 1, 1)));
    // A Sentinel elects only a server that it knows, and that has what the master has.
    let knows = |text: &str| sentinel.ask::<String>("INFO sentinel").contains(text);
    until("a replica that is known and has all", async || {
        (knows("slaves=1") && second.ask::<i64>("DBSIZE") == first.ask::<i64>("DBSIZE")).then_some(())
    })
    .await;
    first.kill();
    until("a second server that is the master, and is found", async || {
        redis.upsert(None, &rows(view, &[(b"b", row(2, 2, 2))])).ok()
    })
    .await;
    assert_eq!(get(&redis, view, b"a"), Some(row(1, 1, 1)));
    assert_eq!(get(&redis, view, b"b"), Some(row(2, 2, 2)));
    // The old master comes back, as a replica: nobody asks it.
    first.restart();
    redis.upsert(None, &rows(view, &[(b"c", row(3, 3, 3))])).unwrap();
    assert_eq!(get(&redis, view, b"c"), Some(row(3, 3, 3)));
    drop((second, sentinel));
}
