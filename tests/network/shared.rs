//! Several servers over one Redis, or one Redis Cluster, and one PostgreSQL: is every row that one of them acknowledged
//! in all of them, once?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use parking_lot::RwLock;
use quern::wire::{Code, PushReply, PushTo};
use quern_kit::{
    Node, Postgres, Process, Push, Random, RedisCluster, RedisServer, Repository, Result, Server, blocking,
    run, until,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::push::{DEFINITIONS, both, columns, rows};
use super::streams;

/// After every event, µs.
pub(crate) const LATER_US: i64 = 1_800_000_000_000_000;

/// What servers share.
pub(crate) struct Shared {
    pub(crate) postgres: Postgres,
    /// The only one, or the members of a cluster.
    pub(crate) redis: Vec<RedisServer>,
    online: String,
    definitions: String,
}

/// A Redis that forgets nothing it has answered for.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl Shared {
    /// A Redis and a database; the definitions are applied.
    pub(crate) async fn start(definitions: &str) -> Shared {
        let shared = Shared::begin(definitions).await;
        shared.apply().await;
        shared
    }

    /// The same, with nothing applied yet.
    pub(crate) async fn begin(definitions: &str) -> Shared {
        let redis = RedisServer::start(&DURABLE);
        let online = redis.url();
        Shared::over(vec![redis], online, definitions).await
    }

    /// The same with a cluster of three.
    async fn start_cluster(definitions: &str) -> Shared {
        let cluster = RedisCluster::start(&DURABLE);
        let online = cluster.url();
        let shared = Shared::over(cluster.servers, online, definitions).await;
        shared.apply().await;
        shared
    }

    async fn over(redis: Vec<RedisServer>, online: String, definitions: &str) -> Shared {
        let definitions = definitions.to_owned();
        Shared { postgres: Postgres::start().await, redis, online, definitions }
    }

    async fn apply(&self) {
        let repository = self.repository();
        blocking(move || run(repository.path(), &["apply"]).answer()).await;
    }

    /// A server's folder.
    pub(crate) fn repository(&self) -> Repository {
        self.repository_with("")
    }

    /// The same, with more settings.
    pub(crate) fn repository_with(&self, more: &str) -> Repository {
        let repository = Repository::new(&self.definitions);
        repository.write("logins.csv", "card,at\n");
        let (registry, online) = (self.postgres.url(), &self.online);
        let settings = format!("registry: {registry}\nonline: {online}\nonline_timeout: 20s\n{more}");
        repository.write("quern.yaml", settings);
        repository
    }
}

/// Pushes to both stores.
pub(crate) async fn push(node: &Node, rows: RecordBatch) -> Result<PushReply> {
    node.push(Push::new("payments", rows)).await
}

/// Pushes under the key `k`.
async fn push_keyed(node: &Node, rows: RecordBatch) -> Result<PushReply> {
    node.push(Push { idempotency_key: Some("k".to_owned()), ..Push::new("payments", rows) }).await
}

/// Pushes to the online store alone, for a view without windows.
async fn push_online(node: &Node, rows: RecordBatch) -> Result<PushReply> {
    let view = Some("last_payment".to_owned());
    node.push(Push { to: PushTo::Online, view, ..Push::new("payments", rows) }).await
}

/// How many rows look-ups and training sets count at this server.
pub(crate) async fn counts(node: &Node) -> [i64; 2] {
    both(node).await.map(|cards| cards.values().map(|(count, _)| *count).sum())
}

/// The same, where they say the same card by card.
pub(crate) async fn total(node: &Node) -> i64 {
    let [head, history] = both(node).await;
    assert_eq!(head, history);
    head.values().map(|(count, _)| *count).sum()
}

/// Waits until the server knows that the windows are kept: the first push of all says so, and is heard within seconds.
pub(crate) async fn knows_windows(node: &Node) {
    let view = node.view("spending");
    until("a view that is kept", async || node.head().kept(view).map(drop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_pushed_at_three_servers_are_in_all_of_them_at_once_and_once() {
    rows_are_everywhere_once(Shared::start(DEFINITIONS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_pushed_over_a_cluster_are_in_all_servers_at_once_and_once() {
    rows_are_everywhere_once(Shared::start_cluster(DEFINITIONS).await).await;
}

async fn rows_are_everywhere_once(shared: Shared) {
    let repositories = [shared.repository(), shared.repository(), shared.repository()];
    let mut servers = Vec::new();
    for repository in &repositories {
        servers.push(repository.open().await);
    }
    assert_eq!(push(&servers[0], rows(0, 10)).await.unwrap().accepted, 10);
    for server in &servers {
        knows_windows(server).await;
        assert_eq!(total(server).await, 10);
    }
    let (begun, acknowledged) = (Arc::new(AtomicI64::new(10)), Arc::new(AtomicI64::new(10)));
    let pushers = (0..6).map(|pusher| {
        let (servers, begun, acknowledged) = (servers.clone(), Arc::clone(&begun), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for chunk in 0..30 {
                let rows = rows((pusher as i64 + 1) * 1_000 + chunk * 10, 10);
                begun.fetch_add(10, Ordering::SeqCst);
                let reply = push(&servers[pusher % 3], rows).await.unwrap();
                assert_eq!(reply.accepted, 10);
                acknowledged.fetch_add(10, Ordering::SeqCst);
                if chunk % 5 == 4 {
                    // At another server than it was pushed to.
                    let least = acknowledged.load(Ordering::SeqCst);
                    let counts = counts(&servers[(pusher + 1) % 3]).await;
                    let most = begun.load(Ordering::SeqCst);
                    let fits = |count: &i64| (least..=most).contains(count);
                    assert!(counts.iter().all(fits), "{counts:?} of {least} to {most}");
                }
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    for server in &servers {
        assert_eq!(total(server).await, 1_810);
        assert_eq!(server.pushed_rows("payments"), 1_810);
    }

    // What one server has seen, the others have seen.
    let reply = push(&servers[2], rows(0, 10)).await.unwrap();
    assert_eq!((reply.accepted, reply.repeated), (0, 10));
    let keyed = push_keyed(&servers[0], rows(10_000, 10)).await.unwrap();
    assert_eq!(keyed.accepted, 10);
    let keyed = push_keyed(&servers[1], rows(10_000, 10)).await.unwrap();
    assert_eq!((keyed.accepted, keyed.repeated), (0, 10));
    let refused = push_keyed(&servers[2], rows(10_010, 10)).await.unwrap_err();
    assert_eq!(refused.code, Code::Refused, "{refused}");
    // An event with another content takes the place of the one before: its tiles are made anew.
    let mut corrected = rows(7, 1).columns().to_vec();
    corrected[3] = Arc::new(Float64Array::from(vec![1_000_000.0])) as ArrayRef;
    let corrected = RecordBatch::try_new(rows(7, 1).schema(), corrected).unwrap();
    assert_eq!(push(&servers[1], corrected).await.unwrap().accepted, 1);
    // For look-ups alone, at all servers.
    assert_eq!(push_online(&servers[0], rows(20_000, 10)).await.unwrap().accepted, 10);
    for server in &servers {
        assert_eq!(counts(server).await, [1_820, 1_820]);
    }
    servers[2].materialize_to(LATER_US);
    // A new server has all of it, and one that comes back reads on from its files.
    servers[1].seal("payments");
    drop(servers.remove(1));
    for repository in [&repositories[1], &shared.repository()] {
        let server = repository.open().await;
        assert_eq!(counts(&server).await, [1_820, 1_820]);
        assert_eq!(push(&server, rows(1_000, 10)).await.unwrap().repeated, 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_at_one_server_beside_pushes_at_others_end_in_one_truth() {
    let shared = Shared::start(&without_ids()).await;
    let repositories = [shared.repository(), shared.repository(), shared.repository()];
    let mut servers = Vec::new();
    for repository in &repositories {
        servers.push(repository.open().await);
    }
    // As many runs, and as many pushes, as it takes to meet often.
    let (runs, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let running = {
        let (node, runs, done) = (servers[0].clone(), Arc::clone(&runs), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::Relaxed) {
                node.materialize_to(LATER_US);
                node.seal("payments");
                runs.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let pushers = (0..4).map(|pusher| {
        let (node, runs) = (servers[1 + pusher as usize % 2].clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let mut chunk = 0;
            while chunk < 30 || runs.load(Ordering::Relaxed) < 5 {
                let pushed = push(&node, rows(pusher * 1_000_000 + chunk * 10, 10)).await;
                assert_eq!(pushed.unwrap().accepted, 10);
                chunk += 1;
            }
            chunk * 10
        })
    });
    let mut pushed = 0;
    for pusher in pushers.collect::<Vec<_>>() {
        pushed += pusher.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    running.await.unwrap();
    println!("{pushed} rows pushed, {} runs over history meanwhile", runs.load(Ordering::Relaxed));
    for server in &servers {
        knows_windows(server).await;
        assert_eq!(total(server).await, pushed);
    }
}

/// Every key of the Redis, with its value as Redis writes it down.
pub(crate) fn dumped(redis: &RedisServer) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut connection = redis.connection();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let value = |key: Vec<u8>| {
        let value = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
        (key, value)
    };
    keys.into_iter().map(value).collect()
}

/// Makes the Redis what it was.
pub(crate) fn go_back(redis: &RedisServer, dumped: &[(Vec<u8>, Vec<u8>)]) {
    // At once, since servers look now and then what is kept: an empty one is another one.
    let mut all = redis::pipe();
    all.atomic().cmd("FLUSHALL").ignore();
    for (key, value) in dumped {
        all.cmd("RESTORE").arg(key).arg(0).arg(value).ignore();
    }
    let () = all.query(&mut redis.connection()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_behind_is_completed_by_the_next_push_or_without_one() {
    let shared = Shared::start(&without_ids()).await;
    let repository = shared.repository();
    let node = repository.open().await;
    push(&node, rows(0, 10)).await.unwrap();
    let before = dumped(&shared.redis[0]);
    push(&node, rows(10, 10)).await.unwrap();
    push_online(&node, rows(20, 10)).await.unwrap();
    assert_eq!(counts(&node).await, [20, 20]);
    go_back(&shared.redis[0], &before);
    assert_eq!(counts(&node).await, [10, 20]);
    push(&node, rows(30, 10)).await.unwrap();
    assert_eq!(counts(&node).await, [30, 30]);
    go_back(&shared.redis[0], &before);
    let _completing = node.complete();
    until("a head that has all", async || (counts(&node).await == [30, 30]).then_some(())).await;
}

/// It would drop what the others need, and make nothing of what it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_behind_on_definitions_does_not_materialize() {
    let shared = Shared::start(DEFINITIONS).await;
    let (newer, repository) = (shared.repository(), shared.repository());
    let behind = repository.open().await;
    let more = "\n---\nkind: FeatureView\nname: also\nentities: [card]\nsource: payments\nfeatures: [{name: amount}]\n";
    newer.write("definitions.yaml", format!("{DEFINITIONS}{more}"));
    let node = newer.open_applied().await;
    push(&node, rows(0, 10)).await.unwrap();
    node.materialize_to(LATER_US);
    let before = dumped(&shared.redis[0]);
    let refused = behind.try_materialize_to(LATER_US).unwrap_err();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
    assert!(
        refused.text.contains("apply 2 was made and is not live at this server, which serves apply 1"),
        "{refused}"
    );
    assert_eq!(dumped(&shared.redis[0]).len(), before.len());
    node.materialize_to(LATER_US);
}

/// The definitions without `event_id`: nothing but what tells repetitions keeps a row from counting twice.
fn without_ids() -> String {
    DEFINITIONS.replace("event_id: [id]\n", "")
}

/// Pushes ten rows at a time to one server after the other until `done`, each under a key; as a client does, the same
/// again where it got no answer. Gives how many rows were acknowledged, and how often it asked again.
async fn push_on(client: usize, urls: Arc<RwLock<Vec<String>>>, done: Arc<AtomicBool>) -> (i64, i64) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    let (mut next, mut turn, mut again) = (0, client, 0);
    while !done.load(Ordering::Relaxed) {
        let first = client as i64 * 1_000_000 + next;
        let df = columns(&rows(first, 10));
        let key = first.to_string();
        let body = json!({"push_source_name": "payments", "df": df, "idempotency_key": key}).to_string();
        loop {
            let servers = urls.read().clone();
            turn += 1;
            let url = format!("{}/push", servers[turn % servers.len()]);
            let Ok(reply) =
                http.post(url).header("content-type", "application/json").body(body.clone()).send().await
            else {
                again += 1;
                continue;
            };
            let status = reply.status().as_u16();
            let Ok(text) = reply.text().await else {
                again += 1;
                continue;
            };
            if status == 200 {
                let reply: PushReply = serde_json::from_str(&text).unwrap();
                assert_eq!(reply.accepted + reply.repeated, 10);
                break;
            }
            let reply: quern::wire::ErrorReply = serde_json::from_str(&text).unwrap();
            assert_eq!((status, reply.code), (503, Code::Unavailable), "{text}");
            again += 1;
        }
        next += 10;
    }
    (next, again)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_killed_while_others_go_on_lose_no_acknowledged_row_and_double_none() {
    kills_lose_and_double_no_row(Shared::start(&without_ids()).await, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_killed_over_a_cluster_lose_no_acknowledged_row_and_double_none() {
    kills_lose_and_double_no_row(Shared::start_cluster(&without_ids()).await, 15).await;
}

async fn kills_lose_and_double_no_row(shared: Shared, kills: usize) {
    let mut random = Random::new("shared");
    let repositories = [shared.repository(), shared.repository(), shared.repository()];
    let mut servers: Vec<_> = repositories.iter().map(|one| Some(Process::start(one.path()))).collect();
    let urls = servers.iter().flatten().map(|server| server.url.clone()).collect::<Vec<_>>();
    let (urls, done) = (Arc::new(RwLock::new(urls)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> =
        (0..3).map(|client| tokio::spawn(push_on(client, Arc::clone(&urls), Arc::clone(&done)))).collect();
    for _ in 0..kills {
        tokio::time::sleep_until(tokio::time::Instant::now() + random.part_of(Duration::from_millis(150)))
            .await;
        let victim = random.below(3) as usize;
        servers[victim].take().unwrap().kill();
        let folder = repositories[victim].path().to_owned();
        let server = blocking(move || Process::start(&folder)).await;
        urls.write()[victim] = server.url.clone();
        servers[victim] = Some(server);
    }
    done.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut again) = (0, 0);
    for client in clients {
        let (rows, asked_again) = client.await.unwrap();
        acknowledged += rows;
        again += asked_again;
    }
    println!("{acknowledged} rows acknowledged, {kills} kills, {again} pushes sent again");
    assert!(acknowledged > 200 && again > kills as i64 / 3);
    // At the servers that are left, and at a new one.
    let node = shared.repository().open().await;
    assert_eq!(total(&node).await, acknowledged);
    assert_eq!(node.pushed_rows("payments") as i64, acknowledged);
    let urls = urls.read().clone();
    for url in urls {
        let client = quern::Client::connect(url).await.unwrap();
        let cards: Vec<String> = (0..10).map(|card| format!("card {card}")).collect();
        let asked = json!({"feature_service": "fraud", "entities": {"card": cards}});
        let reply: Value = client.call("/get-online-features", &asked).await.unwrap();
        let names = reply["metadata"]["feature_names"].as_array().unwrap();
        let place = names.iter().position(|name| name == "payments_lifetime").unwrap();
        let counts = reply["results"][place]["values"].as_array().unwrap();
        assert_eq!(counts.iter().filter_map(Value::as_i64).sum::<i64>(), acknowledged);
    }
}

/// Pushes ten rows; status and words.
async fn pushed(server: &Server, first: i64) -> (u16, String) {
    let body = json!({"push_source_name": "payments", "df": columns(&rows(first, 10))}).to_string();
    server.ask("POST", "/push", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_or_a_redis_that_is_away_takes_no_row_with_it() {
    let mut shared = Shared::start(DEFINITIONS).await;
    let (here, there) = (shared.repository(), shared.repository());
    let (one, other) = (here.open().await, there.open().await);
    let servers = [Server::of(here, one.clone()).await, Server::of(there, other.clone()).await];
    assert_eq!(pushed(&servers[0], 0).await.0, 200);
    for node in [&one, &other] {
        knows_windows(node).await;
    }
    let look_up = json!({"feature_service": "fraud", "entities": {"card": ["card 1"]}}).to_string();
    let mut next = 10;
    for _ in 0..2 {
        shared.postgres.stop();
        for server in &servers {
            let (status, text) = pushed(server, next).await;
            assert!(
                status == 503 && text.contains("the log of pushed rows: the registry does not answer"),
                "{status} {text}"
            );
            assert_eq!(server.ask("POST", "/get-online-features", look_up.clone()).await.0, 200);
        }
        shared.postgres.run().await;
        for server in &servers {
            let back = async || (pushed(server, next).await.0 == 200).then_some(());
            until("a push that is taken", back).await;
            next += 10;
        }
    }
    for node in [&one, &other] {
        assert_eq!(total(node).await, next);
    }

    // Redis ends in the middle of pushes, which are sent again until they are taken.
    let taken = Arc::new(Taken::default());
    let pushers = keep_pushing([&one, &other], &taken);
    let mut random = Random::new("redis away");
    for round in 0..5 {
        taken.until_more(&taken.rows, 50).await;
        tokio::time::sleep(random.part_of(Duration::from_millis(20))).await;
        shared.redis[0].kill();
        let (status, text) = pushed(&servers[1], 5_000_000 + round).await;
        assert!(status == 503 && text.contains("the online store"), "{status} {text}");
        shared.redis[0].restart();
    }
    taken.done.store(true, Ordering::Relaxed);
    for pusher in pushers {
        pusher.await.unwrap();
    }
    for node in [&one, &other] {
        all_is_in(node, next + taken.rows.load(Ordering::SeqCst) as i64).await;
    }
}

/// What became of pushes that go on until `done`.
#[derive(Default)]
struct Taken {
    rows: AtomicUsize,
    refused: AtomicUsize,
    done: AtomicBool,
}

impl Taken {
    /// Waits until a count has grown by so many.
    async fn until_more(&self, count: &AtomicUsize, more: usize) {
        let goal = count.load(Ordering::SeqCst) + more;
        until("more pushes", async || (count.load(Ordering::SeqCst) >= goal).then_some(())).await;
    }
}

/// A pusher at each server: ten rows at a time, the same again where they could not be taken.
fn keep_pushing(servers: [&Node; 2], taken: &Arc<Taken>) -> Vec<JoinHandle<()>> {
    let pushers = servers.into_iter().zip(1..);
    pushers.map(|(node, n)| tokio::spawn(pusher(node.clone(), n, Arc::clone(taken)))).collect()
}

async fn pusher(node: Node, pusher: i64, taken: Arc<Taken>) {
    let mut next = pusher * 1_000_000;
    while !taken.done.load(Ordering::Relaxed) {
        match push(&node, rows(next, 10)).await {
            Ok(reply) => {
                assert_eq!(reply.accepted + reply.repeated, 10);
                taken.rows.fetch_add(10, Ordering::SeqCst);
                next += 10;
            }
            Err(error) if error.code == Code::Unavailable => {
                taken.refused.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What no answer came to may be in the log; without another push it is in the head before long.
async fn all_is_in(node: &Node, acknowledged: i64) {
    until("a Redis that answers", async || node.head().bytes().ok()).await;
    let head = until("a head that has all", async || {
        let [head, past] = both(node).await;
        (head == past).then_some(head)
    })
    .await;
    // Neither of two pushers has one under way any more; of those to the dead Redis none was logged.
    let counted = head.values().map(|(count, _)| *count).sum::<i64>();
    assert!((acknowledged..=acknowledged + 20).contains(&counted), "{counted} of {acknowledged}");
    assert_eq!(node.pushed_rows("payments") as i64, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_cluster_that_die_take_no_row_with_them() {
    let mut shared = Shared::start_cluster(DEFINITIONS).await;
    let repositories = [shared.repository(), shared.repository()];
    let servers = [repositories[0].open().await, repositories[1].open().await];
    let _completing = servers.each_ref().map(Node::complete);
    assert_eq!(push(&servers[0], rows(0, 10)).await.unwrap().accepted, 10);
    for node in &servers {
        knows_windows(node).await;
    }
    let taken = Arc::new(Taken::default());
    let pushers = keep_pushing(servers.each_ref(), &taken);
    for member in &mut shared.redis {
        taken.until_more(&taken.rows, 50).await;
        member.kill();
        taken.until_more(&taken.refused, 1).await;
        member.restart();
    }
    taken.until_more(&taken.rows, 50).await;
    taken.done.store(true, Ordering::Relaxed);
    for pusher in pushers {
        pusher.await.unwrap();
    }
    for node in &servers {
        all_is_in(node, 10 + taken.rows.load(Ordering::SeqCst) as i64).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_read_one_stream_count_each_event_once() {
    let events = RedisServer::start(&[]);
    let shared = Shared::start(&streams::definitions("redis", &events.url())).await;
    let mut connection = events.connection();
    let mut number = 0;
    let mut send = |count: u64| {
        streams::add(&mut connection, &(number..number + count).map(streams::event).collect::<Vec<_>>());
        number += count;
    };
    send(300);
    let (here, there) = (shared.repository(), shared.repository());
    let (one, other) = (here.open().await, there.open().await);
    let mut servers = vec![Server::of(here, one).await, Server::of(there, other).await];
    for server in &servers {
        streams::until_counted(server.client.url(), 300).await;
    }
    for round in 1..=3 {
        send(200);
        // Whichever of them reads, it ends at some time, and the other one goes on.
        let repository = servers.remove(0).stop_and_keep().await;
        send(100);
        servers.push(Server::open(repository).await);
        streams::until_counted(servers[0].client.url(), 300 + round * 300).await;
        streams::until_counted(servers[1].client.url(), 300 + round * 300).await;
    }
    let node = shared.repository().open().await;
    assert_eq!(total_events(&node), 1_200);
}

/// Rows of history; a run over it brings this server's copy of the log up to date.
fn total_events(node: &Node) -> u64 {
    node.materialize_to(LATER_US);
    node.pushed_rows("payments")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_head_without_a_shared_registry_takes_no_pushes_and_reads_no_streams() {
    let redis = RedisServer::start(&[]);
    let repository = Repository::new(DEFINITIONS);
    repository.write("logins.csv", "card,at\n");
    repository.write("quern.yaml", format!("online: {}\n", redis.url()));
    let path = repository.path().to_owned();
    blocking(move || run(&path, &["apply"]).answer()).await;
    let server = Server::open(repository).await;
    let body = json!({"push_source_name": "payments", "df": columns(&rows(0, 1))}).to_string();
    assert_eq!(
        server.refusal("POST", "/push", body).await,
        "409 refused: this server's online store is shared, and what is pushed or labelled here no other server would \
         know: the servers need a registry that they share too; set `registry: postgres://…` on each of them"
    );
}
