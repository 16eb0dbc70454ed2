//! Do events say the same, however a registry's schemas have them written?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use quern_kit::{Repository, Server, until};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Kafka;

const AVRO: &str = r#"{"type": "record", "name": "Payment", "namespace": "com.shop", "fields": [
    {"name": "card", "type": "long"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "amount", "type": ["null", "double"]}, {"name": "note", "type": ["null", "string"]},
    {"name": "raw", "type": ["null", "bytes"]}, {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "place", "type": ["null", "com.shop.Place"]}]}"#;
const PLACE: &str = r#"{"type": "record", "name": "Place", "namespace": "com.shop", "fields": [{"name": "city", "type": "string"}]}"#;
const PROTOBUF: &str = r#"syntax = "proto3"; package com.shop; import "google/protobuf/timestamp.proto";
    message Payment { int64 card = 1; google.protobuf.Timestamp at = 2; optional double amount = 3;
    optional string note = 4; optional bytes raw = 5; repeated string tags = 6; }"#;

/// A payment, as each writer takes it.
#[derive(Clone, PartialEq, Message)]
struct Payment {
    #[prost(int64, tag = "1")]
    card: i64,
    #[prost(message, tag = "2")]
    at: Option<Instant>,
    #[prost(double, optional, tag = "3")]
    amount: Option<f64>,
    #[prost(string, optional, tag = "4")]
    note: Option<String>,
    #[prost(bytes = "vec", optional, tag = "5")]
    raw: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "6")]
    tags: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Instant {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Payments of ten cards, with every kind of number and text.
fn payments() -> impl Strategy<Value = Vec<Payment>> {
    let at = (1_700_000_000i64..1_760_000_000, 0..1_000_000)
        .prop_map(|(seconds, micros)| Instant { seconds, nanos: micros * 1_000 });
    let note = proptest::option::of(any::<String>());
    let raw = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
    let tags = proptest::collection::vec("[a-z\u{e9}]{0,5}", 0..4);
    let amount = proptest::option::of(proptest::num::f64::ANY);
    let payment = (0..10i64, at, amount, note, raw, tags).prop_map(|(card, at, amount, note, raw, tags)| {
        Payment { card, at: Some(at), amount, note, raw, tags }
    });
    proptest::collection::vec(payment, 60)
}

impl Payment {
    fn micros(&self) -> i64 {
        self.at.map_or(0, |at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000)
    }

    fn json(&self) -> Vec<u8> {
        let amount = self.amount.map(|amount| match amount {
            amount if amount.is_nan() => json!("NaN"),
            amount if amount.is_infinite() => json!(if amount > 0.0 { "Infinity" } else { "-Infinity" }),
            amount => json!(amount),
        });
        let raw = self.raw.as_ref().map(|raw| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, raw));
        let (card, note, tags) = (self.card, &self.note, &self.tags);
        json!({"card": card, "at": self.micros(), "amount": amount, "note": note, "raw": raw, "tags": tags})
            .to_string()
            .into_bytes()
    }

    fn avro(&self) -> Vec<u8> {
        let mut out = Vec::new();
        long(&mut out, self.card);
        long(&mut out, self.micros());
        some(&mut out, self.amount.map(|amount| amount.to_le_bytes().to_vec()));
        some(&mut out, self.note.as_ref().map(|note| counted(note.as_bytes())));
        some(&mut out, self.raw.as_ref().map(|raw| counted(raw)));
        for tag in &self.tags {
            // A block each, with its size.
            long(&mut out, -1);
            long(&mut out, counted(tag.as_bytes()).len() as i64);
            out.extend(counted(tag.as_bytes()));
        }
        long(&mut out, 0);
        some(&mut out, self.note.as_ref().map(|_| counted(b"Nuku'alofa")));
        out
    }
}

fn long(out: &mut Vec<u8>, number: i64) {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    long(&mut out, bytes.len() as i64);
    [out, bytes.to_vec()].concat()
}

fn some(out: &mut Vec<u8>, value: Option<Vec<u8>>) {
    long(out, i64::from(value.is_some()));
    out.extend(value.unwrap_or_default());
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), body].concat()
}

/// A registry that tells who it knows, below a path.
struct Registry {
    url: String,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What is at each path.
    said: Mutex<BTreeMap<String, Value>>,
    /// How many requests it answers with 503 first.
    fails: AtomicU64,
    asked: Mutex<Vec<String>>,
}

impl Registry {
    async fn start() -> Registry {
        let inner = Arc::new(Inner::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Registry { url, inner }
    }

    fn has(&self, path: &str, said: Value) {
        self.inner.said.lock().insert(format!("/apis/ccompat/v7/{path}"), said);
    }

    /// A topic's source, and a view of its latest rows.
    fn source(&self, name: &str, kafka: &Kafka, stream: &str) -> String {
        let servers = kafka.servers();
        format!(
            "---\nkind: Source\nname: {name}\nstream: {{broker: kafka, servers: \"{servers}\", topic: {name}{stream}}}\n\
             event_timestamp: at\ncolumns:\n  - {{name: card, type: int64}}\n  - {{name: at, type: timestamp}}\n  \
             - {{name: amount, type: float64}}\n  - {{name: note, type: string}}\n  - {{name: raw, type: bytes}}\n  \
             - {{name: tags, type: list<string>}}\n---\n\
             kind: FeatureView\nname: {name}\nentities: [card]\nsource: {name}\n\
             features: [{{name: amount}}, {{name: note}}, {{name: raw}}, {{name: tags}}]\n---\n\
             kind: FeatureService\nname: {name}\nfeatures: [{name}]\n"
        )
    }

    fn connections(&self, kafka: &Kafka, secret: &str) -> String {
        format!(
            "kind: Connection\nname: broker\nurl: \"kafka://{}\"\n---\n\
             kind: Connection\nname: schemas\nurl: \"{}\"\nschema_registry: {{path: /apis/ccompat/v7}}\n\
             credentials: {{username: {{file: {secret:?}}}, password: {{file: {secret:?}}}}}\n---\n\
             kind: Entity\nname: card\njoin_keys: [{{name: card, type: int64}}]\n",
            kafka.servers(),
            self.url
        )
    }
}

async fn answer(State(registry): State<Arc<Inner>>, request: Request) -> (StatusCode, String) {
    let path = request.uri().path().to_owned();
    registry.asked.lock().push(path.clone());
    let refused = |status: StatusCode, code: u64, message: &str| {
        (status, json!({"error_code": code, "message": message}).to_string())
    };
    if request.headers().get("authorization").is_none_or(|who| who != "Basic YW5uOmFubg==") {
        return refused(StatusCode::UNAUTHORIZED, 40_101, "nobody knows you");
    }
    if registry.fails.load(Ordering::Relaxed) > 0 {
        registry.fails.fetch_sub(1, Ordering::Relaxed);
        return refused(StatusCode::SERVICE_UNAVAILABLE, 50_003, "no leader");
    }
    match registry.said.lock().get(&path) {
        Some(said) => (StatusCode::OK, said.to_string()),
        None => refused(StatusCode::NOT_FOUND, 40_403, "Schema not found"),
    }
}

/// What a service says of all cards.
async fn all(url: &str, service: &str) -> Value {
    let body = json!({"feature_service": service, "entities": {"card": (0..10).collect::<Vec<i64>>()}});
    let asked = reqwest::Client::new().post(format!("{url}/get-online-features")).body(body.to_string());
    let mut said: Value = serde_json::from_str(&asked.send().await.unwrap().text().await.unwrap()).unwrap();
    said["results"].take()
}

async fn until_waiting(server: &Server, sources: usize) {
    let done = async || {
        let status = server.client.status().await.unwrap();
        let read = status.sources.iter().filter_map(|source| source.stream.as_ref());
        (read.filter(|stream| stream.waiting_events == Some(0)).count() == sources).then_some(())
    };
    until("streams of which nothing waits", done).await;
}

/// JSON, JSON by a registry, Avro and Protobuf: the same rows, the same bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_have_the_same_bits_however_they_are_written() {
    let mut runner = TestRunner::default();
    let payments = payments().new_tree(&mut runner).unwrap().current();
    let (kafka, registry) = (Kafka::start(), Registry::start().await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "ann\n").unwrap();
    let reference = json!([{"name": "com.shop.Place", "subject": "place:v/1", "version": 3}]);
    registry.has("schemas/ids/7", json!({"schema": AVRO, "references": reference}));
    registry.has("subjects/place%3Av%2F1/versions/3", json!({"schema": PLACE, "id": 6, "version": 3}));
    registry.has("schemas/ids/8", json!({"schema": PROTOBUF, "schemaType": "PROTOBUF"}));
    registry.has("schemas/ids/9", json!({"schema": "{}", "schemaType": "JSON"}));
    registry.inner.fails.store(2, Ordering::Relaxed);
    type Write = fn(&Payment) -> Vec<u8>;
    let topics: [(&str, Write); 4] = [
        ("plain", Payment::json),
        ("avro", |payment| framed(7, &payment.avro())),
        ("protobuf", |payment| framed(8, &[&[0][..], &payment.encode_to_vec()].concat())),
        ("schema", |payment| framed(9, &payment.json())),
    ];
    let mut definitions = registry.connections(&kafka, secret.path().to_str().unwrap());
    for (topic, write) in topics {
        kafka.topic(topic);
        kafka.send_all(topic, &payments.iter().map(write).collect::<Vec<_>>());
        let by = if topic == "plain" { "" } else { ", schema_registry: schemas" };
        definitions += &registry.source(topic, &kafka, by);
    }
    let repository = Repository::new(&definitions);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    until_waiting(&server, topics.len()).await;
    let rows = |said: Value| {
        said.as_array().unwrap().iter().map(|column| column["values"].to_string()).collect::<Vec<_>>()
    };
    let wanted = rows(all(server.client.url(), "plain").await);
    // A column may have no value among the rows that count; most have.
    let is_said = |column: &&String| column.contains(|c: char| c.is_ascii_digit() || c == '"');
    assert!(wanted.iter().skip(1).filter(is_said).count() * 2 > wanted.len(), "{wanted:?}");
    for (topic, _) in topics {
        assert_eq!(rows(all(server.client.url(), topic).await), wanted, "{topic}: {runner:?}: {payments:?}");
    }
    // Each is asked for once, but where there was no answer.
    let asked = registry.inner.asked.lock().clone();
    assert_eq!(asked.len(), 4 + 2, "{asked:?}");
}

/// A schema that the registry does not have yet is waited for, and what is no event of one is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_registry_lacks_a_schema() {
    let payments = payments().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let (kafka, registry) = (Kafka::start(), Registry::start().await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "ann\n").unwrap();
    registry.has("subjects/place%3Av%2F1/versions/3", json!({"schema": PLACE}));
    kafka.topic("lacking");
    let good: Vec<Vec<u8>> = payments.iter().map(|payment| framed(7, &payment.avro())).collect();
    kafka.send_all("lacking", &[good[..30].to_vec(), vec![b"{}".to_vec(), good[0][..9].to_vec()]].concat());
    let definitions = registry.connections(&kafka, secret.path().to_str().unwrap())
        + &registry.source("lacking", &kafka, ", schema_registry: schemas");
    let repository = Repository::new(&definitions);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let told = async || Some(server.client.status().await.unwrap()).filter(|told| !told.healthy);
    let cause = until("a stream that waits", told).await.troubles.remove(0).cause;
    let asked = format!("{}/apis/ccompat/v7/schemas/ids/7", registry.url);
    let wanted = format!("it has no schema `ids/7`: `{asked}`: it answers 404: Schema not found");
    assert!(cause.contains(&wanted), "{cause}");
    let reference = json!([{"name": "com.shop.Place", "subject": "place:v/1", "version": 3}]);
    registry.has("schemas/ids/7", json!({"schema": AVRO, "references": reference}));
    until_waiting(&server, 1).await;
    kafka.send_all("lacking", &good[30..]);
    let counted = async || {
        let pushed = server.metric("quern_push_rows_total{outcome=\"accepted\",source=\"lacking\"}").await;
        (pushed >= 60.0).then_some(())
    };
    until("all rows", counted).await;
    let repository = server.stop_and_keep().await;
    assert_eq!(repository.open().await.pushed_rows("lacking"), 60);
}

/// Where a schema is lacking, others are asked for as well; and where the source names no registry, no event is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_where_a_source_forgets_the_registry() {
    let payments = payments().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let (kafka, registry) = (Kafka::start(), Registry::start().await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "ann\n").unwrap();
    registry.has("subjects/place%3Av%2F1/versions/3", json!({"schema": PLACE}));
    let reference = json!([{"name": "com.shop.Place", "subject": "place:v/1", "version": 3}]);
    let schema = json!({"schema": AVRO, "references": reference});
    registry.has("schemas/ids/7", schema.clone());
    kafka.topic("forgotten");
    let id = |number: usize| if number < 3 { 5 } else { 7 };
    let events = payments.iter().enumerate().map(|(number, payment)| framed(id(number), &payment.avro()));
    kafka.send_all("forgotten", &events.collect::<Vec<_>>());
    let connections = registry.connections(&kafka, secret.path().to_str().unwrap());
    let repository = Repository::new(&(connections.clone() + &registry.source("forgotten", &kafka, "")));
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let told = async |what: &str| {
        let told = async || {
            let troubles = server.client.status().await.unwrap().troubles;
            troubles.into_iter().map(|trouble| trouble.cause).find(|cause| cause.contains(what))
        };
        until(what, told).await
    };
    let cause = told("none is passed over yet: partition ").await;
    assert!(cause.contains("the event is not valid JSON: "), "{cause}");
    let definitions = connections + &registry.source("forgotten", &kafka, ", schema_registry: schemas");
    server.repository.write("definitions.yaml", definitions);
    server.apply().await.unwrap();
    told("it has no schema `ids/5`").await;
    let known = async || {
        let asked = registry.inner.asked.lock().clone();
        asked.iter().any(|path| path.ends_with("/schemas/ids/7")).then_some(())
    };
    until("another schema that is asked for", known).await;
    registry.has("schemas/ids/5", schema);
    until_waiting(&server, 1).await;
    let repository = server.stop_and_keep().await;
    assert_eq!(repository.open().await.pushed_rows("forgotten"), 60);
}

/// Where reading begins that was never begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_starts_where_it_is_told() {
    let payments = payments().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let (kafka, registry) = (Kafka::start(), Registry::start().await);
    let events: Vec<Vec<u8>> = payments.iter().map(Payment::json).collect();
    let mut definitions = registry.connections(&kafka, "/nowhere");
    let starts = [("all", ""), ("late", ", start: latest")];
    for (topic, start) in starts {
        kafka.topic(topic);
        kafka.send_all(topic, &events[..20]);
        definitions += &registry.source(topic, &kafka, start);
    }
    let repository = Repository::new(&definitions);
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    until_waiting(&server, starts.len()).await;
    // What comes while nobody reads counts, also where the end was the start.
    let repository = server.stop_and_keep().await;
    starts.iter().for_each(|(topic, _)| kafka.send_all(topic, &events[20..]));
    let server = Server::open(repository).await;
    until_waiting(&server, starts.len()).await;
    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    let rows = starts.map(|(topic, _)| node.pushed_rows(topic));
    assert_eq!(rows, [60, 40]);
}
