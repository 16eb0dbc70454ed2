//! Does each event of Kafka and of a Redis Stream count once, also when the server ends in between? Against
//! librdkafka's own cluster, which speaks the brokers' protocol over sockets, and against a redis-server.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::planes::Server;
use crate::redis_server::RedisServer;
use crate::support::Repository;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn definitions(broker: &str, servers: &str) -> String {
    format!(
        "kind: Entity\nname: card\njoin_keys: [{{name: card, type: int64}}]\n---\n\
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

/// Payments and their sum over all cards, as look-ups have them.
async fn total(server: &Server) -> (i64, f64) {
    let cards: Vec<i64> = (0..10).collect();
    let body = json!({"feature_service": "fraud", "entities": {"card": cards}}).to_string();
    let (status, text) = server.ask("POST", "/get-online-features", body).await;
    assert_eq!(status, 200, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    let column = |i: usize| reply["results"][i]["values"].as_array().unwrap().clone();
    let payments = column(1).iter().filter_map(Value::as_i64).sum();
    (payments, column(2).iter().filter_map(Value::as_f64).sum())
}

/// Asks until so many payments are there; then no more may come.
pub(crate) async fn until_counted(server: &Server, payments: i64) {
    let begun = Instant::now();
    loop {
        let (count, spent) = total(server).await;
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
    let quern = repository.open_applied().await;
    let server = Server::of(repository, quern).await;
    until_counted(&server, 300).await;
    let repository = server.stop_and_keep().await;
    send(events(200));
    let mut server = again(repository).await;
    until_counted(&server, 500).await;
    for _ in 0..5 {
        send(events(100));
        server = again(server.stop_and_keep().await).await;
    }
    until_counted(&server, 1_000).await;
    let repository = server.stop_and_keep().await;
    let quern = repository.open().await;
    assert_eq!(quern.history.pushed.of("payments").end(), 1_000);
}

async fn again(repository: Repository) -> Server {
    let quern = repository.open().await;
    Server::of(repository, quern).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_kafka_count_once() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("payments", 3, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    each_event_counts_once("kafka", &servers, |events| {
        for (i, event) in events.iter().enumerate() {
            let record: BaseRecord<'_, [u8], str> =
                BaseRecord::to("payments").payload(event.as_str()).partition(i as i32 % 3);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_redis_stream_count_once() {
    let redis = RedisServer::start(&[]);
    let mut connection = redis.connection();
    each_event_counts_once("redis", &redis.url(), |events| {
        for event in events {
            let added: redis::RedisResult<String> =
                redis::cmd("XADD").arg("payments").arg("*").arg("json").arg(event).query(&mut connection);
            added.unwrap();
        }
    })
    .await;
}
