//! Does each event of Kafka and of a Redis Stream count once, also when the server ends in between? Against
//! librdkafka's own cluster, which speaks the brokers' protocol over sockets, and against a redis-server.

mod held;
mod registered;
mod secured;
mod shared;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use quern_kit::{RedisServer, Repository, Server, until};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use serde_json::{Value, json};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn definitions(broker: &str, servers: &str) -> String {
    let url = if servers.contains("://") { servers.to_owned() } else { format!("kafka://{servers}") };
    format!(
        "kind: Connection\nname: broker\nurl: \"{url}\"\n---\n\
         kind: Entity\nname: card\njoin_keys: [{{name: card, type: int64}}]\n---\n\
         kind: Source\nname: payments\nstream: {{broker: {broker}, servers: \"{servers}\", topic: payments}}\n\
         event_timestamp: at\ncolumns:\n  - {{name: card, type: int64}}\n  - {{name: at, type: timestamp}}\n  \
         - {{name: amount, type: float64}}\n---\n\
         kind: FeatureView\nname: spending\nentities: [card]\nsource: payments\naggregations:\n  \
         - {{name: payments, function: count, windows: [lifetime]}}\n  - {{name: spent, function: sum, of: amount, windows: [lifetime]}}\n---\n\
         kind: FeatureService\nname: fraud\nfeatures: [spending]\n"
    )
}

/// An event of one of ten cards; its amount is 1.
pub(crate) fn event(number: u64) -> String {
    let at = 1_767_225_600_000_000 + number * 1_000_000;
    json!({"card": number % 10, "at": at, "amount": 1.0, "besides": "x"}).to_string()
}

/// Payments and their sum over all cards, as look-ups at the server at `url` have them.
async fn total(url: &str) -> (i64, f64) {
    let cards: Vec<i64> = (0..10).collect();
    let body = json!({"feature_service": "fraud", "entities": {"card": cards}}).to_string();
    let asked = reqwest::Client::new().post(format!("{url}/get-online-features")).body(body);
    let reply = asked.send().await.unwrap().text().await.unwrap();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let column = |i: usize| reply["results"][i]["values"].as_array().unwrap().clone();
    let payments = column(1).iter().filter_map(Value::as_i64).sum();
    (payments, column(2).iter().filter_map(Value::as_f64).sum())
}

/// Asks until so many payments are there; then no more may come.
pub(crate) async fn until_counted(url: &str, payments: i64) {
    let begun = Instant::now();
    loop {
        let (count, spent) = total(url).await;
        assert!(count <= payments, "{count} of {payments}");
        if count == payments {
            assert_eq!(spent, payments as f64);
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{count} of {payments} after {PATIENCE:?}");
    }
}

/// Sends events while the server is up, while it is down, and while it is stopped in the middle; all count once.
async fn each_event_counts_once(broker: &str, servers: &str, mut send: impl FnMut(Vec<String>)) {
    let repository = Repository::new(&definitions(broker, servers));
    let mut number = 0;
    let mut events = |count: u64| {
        number += count;
        (number - count..number).map(event).collect::<Vec<_>>()
    };
    send(events(300));
    send(vec!["no JSON".to_owned(), "[1]".to_owned(), json!({"card": 1, "at": "then"}).to_string()]);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    until_counted(server.client.url(), 300).await;
    let repository = server.stop_and_keep().await;
    send(events(200));
    let mut server = Server::open(repository).await;
    until_counted(server.client.url(), 500).await;
    for _ in 0..5 {
        send(events(100));
        server = Server::open(server.stop_and_keep().await).await;
    }
    until_counted(server.client.url(), 1_000).await;
    let stream = async || {
        let stream = server.client.status().await.unwrap().sources.remove(0).stream.unwrap();
        (stream.waiting_events == Some(0)).then_some(stream)
    };
    let stream = until("a stream of which nothing waits", stream).await;
    assert_eq!((stream.broker.as_str(), stream.topic.as_str(), stream.reads), (broker, "payments", true));
    assert_eq!(stream.cause, None);
    assert_eq!(server.metric("quern_stream_waiting_events{source=\"payments\"}").await, 0.0);
    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    assert_eq!(node.pushed_rows("payments"), 1_000);
}

/// A broker of Kafka.
struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    /// Of each topic.
    partitions: i32,
}

impl Kafka {
    /// Topics have three partitions.
    fn start() -> Kafka {
        Kafka::with_partitions(3)
    }

    fn with_partitions(partitions: i32) -> Kafka {
        let cluster = MockCluster::new(1).unwrap();
        let mut config = ClientConfig::new();
        let producer = config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        let kafka = Kafka { cluster, producer, partitions };
        kafka.topic("payments");
        kafka
    }

    fn servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes another topic.
    fn topic(&self, name: &str) {
        self.cluster.create_topic(name, self.partitions, 1).unwrap();
    }

    /// Sends events, to one partition after the other.
    fn send(&self, events: &[String]) {
        self.send_all("payments", events);
    }

    fn send_all(&self, topic: &str, events: &[impl AsRef<[u8]>]) {
        for (event, partition) in events.iter().zip((0..self.partitions).cycle()) {
            let record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(topic).payload(event.as_ref()).partition(partition);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_kafka_count_once() {
    let kafka = Kafka::start();
    each_event_counts_once("kafka", &kafka.servers(), |events| kafka.send(&events)).await;
}

/// Adds events to the stream in a Redis.
pub(crate) fn add(redis: &mut redis::Connection, events: &[String]) {
    for event in events {
        let () = redis::cmd("XADD").arg("payments").arg("*").arg("json").arg(event).query(redis).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_redis_stream_count_once() {
    let redis = RedisServer::start(&[]);
    let mut connection = redis.connection();
    each_event_counts_once("redis", &redis.url(), |events| add(&mut connection, &events)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_read_is_told_until_it_can() {
    let mut redis = RedisServer::start(&[]);
    let repository = Repository::new(&definitions("redis", &redis.url()));
    redis.kill();
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    let told = until("a stream that cannot be read", told).await;
    let cause = &told.troubles[0].cause;
    assert_eq!(told.troubles[0].name.as_deref(), Some("payments"));
    assert!(cause.starts_with("its stream cannot be read, and is tried again: Redis: "), "{cause}");
    redis.restart();
    let well = async || server.client.status().await.unwrap().healthy.then_some(());
    until("a stream that can be read again", well).await;
}

/// Entries that begin anew below those that were read are not waited for in silence; deleted ones are no such thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_stream_that_was_made_anew_is_told() {
    let redis = RedisServer::start(&[]);
    let mut connection = redis.connection();
    let definitions = definitions("redis", &redis.url()).replace("payments", "remade");
    let repository = Repository::new(&definitions.replace("topic: remade", "topic: payments"));
    add(&mut connection, &[event(0)]);
    let () = redis::cmd("XADD")
        .arg(&["payments", "99999999999999-0", "json", &event(1)])
        .query(&mut connection)
        .unwrap();
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let stream = async || server.client.status().await.unwrap().sources[0].stream.clone();
    until("all entries", async || (stream().await?.waiting_events == Some(0)).then_some(())).await;
    let () = redis::cmd("XDEL").arg(&["payments", "99999999999999-0"]).query(&mut connection).unwrap();
    let is_asked = async || (stream().await?.waiting_events.is_none()).then_some(());
    until("that the last entry is another one", is_asked).await;
    assert!(server.client.status().await.unwrap().healthy);
    let () = redis::cmd("DEL").arg("payments").query(&mut connection).unwrap();
    let () = redis::cmd("XADD").arg(&["payments", "5-1", "json", &event(2)]).query(&mut connection).unwrap();
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    let cause = until("a stream that was made anew", told).await.troubles.remove(0).cause;
    assert!(
        cause.contains("it was made anew: its entries end at 5-1, and were read up to 99999999999999-0"),
        "{cause}"
    );
}

/// A broker by a name that leads to this machine, though the connection names no address of it.
async fn is_never_connected_to(broker: &str, servers: impl Fn(u16) -> String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    // To a reader of URLs a name, and to the system, which resolves it, 127.0.0.1.
    let servers = servers(listener.local_addr().unwrap().port());
    let repository = Repository::new(&definitions(broker, &servers));
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    let told = until("a stream that cannot be read", told).await;
    let cause = &told.troubles[0].cause;
    assert!(cause.contains("`127.1` leads to 127.0.0.1, which is this machine itself"), "{cause}");
    let errors = "quern_stream_errors_total{source=\"payments\"}";
    until("another try", async || (server.metric(errors).await > 1.0).then_some(())).await;
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    is_never_connected_to("redis", |port| format!("redis://127.1:{port}")).await;
    is_never_connected_to("kafka", |port| format!("127.1:{port}")).await;
}
