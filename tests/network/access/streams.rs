//! Who asks over a stream that stays open? Each message is asked about as a request would be, and counts as one.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use quern_kit::until;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::asking::{Asked, labels, table, with};
use crate::network::oip::{Answer, Ask, Contents, Input};
use crate::network::who::issuer::Signer;
use crate::planes;

/// One who may do all that is done over a stream; and the same within limits.
const ROLES: &str = r#"
---
kind: Source
name: visits
push: true
event_timestamp: at
columns: [{name: tailnum, type: string}, {name: at, type: timestamp}, {name: n, type: int64}]
---
kind: Role
name: streams
members: [{key: streams}, {jwt: {claim: groups, has: risk}}, {key: few}, {key: few-rows}, {key: few-labels}, {key: few-table}, {key: few-spine}]
allow: [{predict: [delay], label: [delay], push: [visits], train: [delay_v1]}]
---
kind: Role
name: few
members: [{key: few}, {key: few-rows}, {key: few-labels}, {key: few-table}, {key: few-spine}]
limits: {requests: 2/h}
"#;

/// An answer of `ModelStreamInfer`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::network) struct Said {
    #[prost(string, tag = "1")]
    pub(in crate::network) error: String,
    #[prost(message, optional, tag = "2")]
    answer: Option<Answer>,
}

/// A stream whose messages go up one by one; each is answered before the next one is sent.
pub(in crate::network) struct Open<Q, R> {
    up: mpsc::Sender<Q>,
    down: Streaming<R>,
}

impl<Q, R> Open<Q, R> {
    pub(in crate::network) async fn next(&mut self, message: Q) -> Result<R, Code> {
        self.told(message).await.map_err(|status| status.code())
    }

    async fn told(&mut self, message: Q) -> Result<R, Status> {
        // The server may have ended the stream already: then the status says why.
        let _ = self.up.send(message).await;
        Ok(self.down.message().await?.expect("an answer"))
    }
}

pub(in crate::network) fn ask() -> Ask {
    let input = |name: &str, datatype: &str, contents| Input {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1],
        contents: Some(contents),
    };
    let plane = Contents { bytes: vec![Bytes::from_static(b"N1")], ..Contents::default() };
    let distance = Contents { fp64: vec![10.0], ..Contents::default() };
    let inputs = vec![input("tailnum", "BYTES", plane), input("distance", "FP64", distance)];
    Ask { model_name: "delay".to_owned(), inputs, ..Ask::default() }
}

async fn inferring(asked: &Asked, who: &str) -> Open<Ask, Said> {
    let channel = Endpoint::new(asked.server.client.url().to_owned()).unwrap().connect().await.unwrap();
    inferring_over(channel, Some(&asked.keys[who])).await
}

pub(in crate::network) async fn inferring_over(channel: Channel, bearer: Option<&str>) -> Open<Ask, Said> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let (up, messages) = mpsc::channel(4);
    let request = with(ReceiverStream::new(messages), bearer);
    let path = "/inference.GRPCInferenceService/ModelStreamInfer".parse().unwrap();
    let down = grpc.streaming(request, path, ProstCodec::<Ask, Said>::default()).await.unwrap();
    Open { up, down: down.into_inner() }
}

fn visits() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![planes::JANUARY_10_US]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("tailnum", Arc::new(StringArray::from(vec!["N1"]))),
        ("at", Arc::new(times)),
        ("n", Arc::new(Int64Array::from(vec![1]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The messages of a table of four such batches: its schema with the command, and the batches.
async fn uploaded(command: &Value, rows: RecordBatch) -> Vec<FlightData> {
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(rows.schema())
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_string())))
        .build(stream::iter((0..4).map(move |_| Ok::<_, FlightError>(rows.clone()))));
    encoded.try_collect().await.unwrap()
}

/// Begins an upload with its first two messages, and reads what comes of the first batch.
async fn putting(
    asked: &Asked,
    who: &str,
    upload: &[FlightData],
) -> Open<FlightData, arrow_flight::PutResult> {
    let (up, messages) = mpsc::channel(4);
    up.send(upload[0].clone()).await.unwrap();
    let request = with(ReceiverStream::new(messages), Some(&asked.keys[who]));
    let down = asked.flight().await.do_put(request).await.unwrap().into_inner();
    let mut open = Open { up, down };
    open.next(upload[1].clone()).await.unwrap();
    open
}

/// The same of a table that comes down again: past its schema and the answer to its first batch.
async fn exchanging(asked: &Asked, who: &str, upload: &[FlightData]) -> Open<FlightData, FlightData> {
    let (up, messages) = mpsc::channel(4);
    up.send(upload[0].clone()).await.unwrap();
    let request = with(ReceiverStream::new(messages), Some(&asked.keys[who]));
    let mut down = asked.flight().await.do_exchange(request).await.unwrap().into_inner();
    down.message().await.unwrap().expect("a schema");
    let mut open = Open { up, down };
    open.next(upload[1].clone()).await.unwrap();
    open
}

const STREAMS: &str = "streams";
/// By how much the clocks of issuers and servers may differ.
const LEEWAY_SECONDS: i64 = 60;

/// What each stream of `who` is told of its second message, after `meanwhile`; and the spine of a training set, of
/// which nothing comes down before it is whole.
async fn told_after(asked: &Asked, who: &str, meanwhile: impl AsyncFnOnce()) -> Vec<Result<String, Code>> {
    let (predict, train) = (json!({"model": "delay"}), json!({"feature_service": "delay_v1"}));
    let (label, push) = (json!({"labels": "delay"}), json!({"push_source_name": "visits"}));
    let (table, spine) = (uploaded(&predict, table()).await, uploaded(&train, table()).await);
    let (labels, visits) = (uploaded(&label, labels()).await, uploaded(&push, visits()).await);
    let mut inferring = inferring(asked, who).await;
    assert_eq!(inferring.next(ask()).await.unwrap().error, "");
    let mut exchanging = exchanging(asked, who, &table).await;
    let (mut labelling, mut pushing) =
        (putting(asked, who, &labels).await, putting(asked, who, &visits).await);
    let (up, messages) = mpsc::channel(4);
    for message in &spine[..2] {
        up.send(message.clone()).await.unwrap();
    }
    let request = with(ReceiverStream::new(messages), Some(&asked.keys[who]));
    let mut down = asked.flight().await.do_exchange(request).await.unwrap().into_inner();
    down.message().await.unwrap().expect("a schema");
    meanwhile().await;
    let mut training = Open { up, down };
    vec![
        inferring.next(ask()).await.map(|said| said.error),
        exchanging.next(table[2].clone()).await.map(|_| String::new()),
        labelling.next(labels[2].clone()).await.map(|_| String::new()),
        pushing.next(visits[2].clone()).await.map(|_| String::new()),
        {
            let _ = training.up.send(spine[2].clone()).await;
            training.up = mpsc::channel(1).0;
            training.down.message().await.map(|_| String::new()).map_err(|status| status.code())
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_key_is_revoked_is_nobody_at_the_next_message() {
    let asked = Asked::open_with(ROLES, &[STREAMS, "few"]).await;
    let admin = Some(asked.keys["admin"].as_str());
    let told = told_after(&asked, STREAMS, async || ()).await;
    assert_eq!(told, vec![Ok(String::new()); 5], "nothing has happened");
    let revoke = async || {
        let (status, text) =
            asked.say("POST", "/v1/keys/revoke", &json!({"key": STREAMS}).to_string(), admin).await;
        assert_eq!(status, 200, "{text}");
    };
    assert_eq!(told_after(&asked, STREAMS, revoke).await, vec![Err(Code::Unauthenticated); 5]);
}

/// The token holds until it is a minute past its `exp`, for as long as the streams take to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_token_has_expired_is_nobody_at_the_next_message() {
    let mut asked = Asked::open_with(ROLES, &[STREAMS]).await;
    let key = Signer::p256();
    asked.issuer.show(&[("k", &key)]);
    let now_us = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
    let mut claims = asked.issuer.claims(now_us);
    claims["exp"] = json!(now_us / 1_000_000 - LEEWAY_SECONDS + 8);
    let token = key.token(&json!({"alg": "ES256", "kid": "k"}), &claims);
    asked.keys.insert("token".to_owned(), token.clone());
    let expired = async || {
        until("a token that has expired", async || {
            let (status, _) = asked.say("GET", "/v1/definitions", "", Some(&token)).await;
            (status == 401).then_some(())
        })
        .await;
    };
    assert_eq!(told_after(&asked, "token", expired).await, vec![Err(Code::Unauthenticated); 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_loses_is_gone_at_the_next_message() {
    let asked = Asked::open_with(ROLES, &[STREAMS, "few"]).await;
    let apply = async || {
        let lost = ROLES.replace("{key: streams}, ", "");
        asked.server.repository.write("roles.yaml", format!("{}{lost}", super::ROLES));
        let (status, text) = asked.say("POST", "/v1/apply", "", Some(&asked.keys["admin"])).await;
        assert_eq!(status, 200, "{text}");
    };
    let told = told_after(&asked, STREAMS, apply).await;
    // As of every message, an error of this one is its answer.
    assert!(told[0].as_ref().unwrap().contains("unknown model `delay`"), "{told:?}");
    assert_eq!(told[1..], vec![Err(Code::NotFound); 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_counts_as_a_request() {
    let asked = Asked::open_with(ROLES, &[STREAMS, "few"]).await;
    let mut inferring = inferring(&asked, "few").await;
    for _ in 0..2 {
        assert_eq!(inferring.next(ask()).await.unwrap().error, "");
    }
    let told = inferring.next(ask()).await.unwrap().error;
    assert!(told.contains("more than 2/h requests"), "{told}");
    let (status, _) = asked.say("GET", "/v1/definitions", "", Some(&asked.keys["few"])).await;
    assert_eq!(status, 429);
}

/// After so many seconds, as the status of a stream says, there is more; as many as fit two in an hour.
fn is_told_when(status: &Status) -> bool {
    let millis = status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap());
    let seconds = millis.and_then(|millis| millis.parse::<u64>().ok()).map(|millis| millis / 1_000);
    status.code() == Code::ResourceExhausted
        && seconds.is_some_and(|seconds| (1_700..=1_800).contains(&seconds))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_says_when_to_come_again() {
    let few = ["few", "few-rows", "few-labels", "few-table", "few-spine"];
    let asked = Asked::open_with(ROLES, &[&[STREAMS], &few[..]].concat()).await;
    let (predict, train) = (json!({"model": "delay"}), json!({"feature_service": "delay_v1"}));
    let (label, push) = (json!({"labels": "delay"}), json!({"push_source_name": "visits"}));
    let (table, spine) = (uploaded(&predict, table()).await, uploaded(&train, table()).await);
    let (labels, visits) = (uploaded(&label, labels()).await, uploaded(&push, visits()).await);

    let mut pushing = putting(&asked, "few-rows", &visits).await;
    pushing.next(visits[2].clone()).await.unwrap();
    let cut = pushing.told(visits[3].clone()).await.unwrap_err();
    assert!(is_told_when(&cut), "rows: {cut:?}");
    let mut labelling = putting(&asked, "few-labels", &labels).await;
    labelling.next(labels[2].clone()).await.unwrap();
    let cut = labelling.told(labels[3].clone()).await.unwrap_err();
    assert!(is_told_when(&cut), "labels: {cut:?}");
    let mut exchanging = exchanging(&asked, "few-table", &table).await;
    exchanging.next(table[2].clone()).await.unwrap();
    let cut = exchanging.told(table[3].clone()).await.unwrap_err();
    assert!(is_told_when(&cut), "a table: {cut:?}");
    let messages = stream::iter(spine);
    let request = with(messages, Some(&asked.keys["few-spine"]));
    let mut down = asked.flight().await.do_exchange(request).await.unwrap().into_inner();
    down.message().await.unwrap().expect("a schema");
    let cut = down.message().await.unwrap_err();
    assert!(is_told_when(&cut), "a spine: {cut:?}");

    // A message of this one is answered by another, which has room for it.
    let mut inferring = inferring(&asked, "few").await;
    for _ in 0..2 {
        inferring.next(ask()).await.unwrap();
    }
    let said = inferring.next(ask()).await.unwrap();
    let millis = &said.answer.unwrap().parameters["retry_after_ms"];
    assert!((1_700_000..=1_800_000).contains(&millis.int64.unwrap()), "{millis:?}");
}
