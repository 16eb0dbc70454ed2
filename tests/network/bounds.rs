//! What may strangers take, of memory and of threads?

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{StreamExt, stream};
use quern_kit::{Server, metric, until};
use serde_json::json;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::oip::call;
use crate::planes::{self, JANUARY_10_US, instance};

const MIB: usize = 1 << 20;

/// The planes, served with this much memory for requests.
async fn serve(mib: usize) -> Server {
    let repository = planes::repository();
    drop(planes::open(&repository).await);
    let memory = ("requests_bytes_max", (mib * MIB).to_string());
    let node = repository.open_with(&[memory]).await.unwrap();
    Server::of(repository, node).await
}

async fn held(server: &Server) -> f64 {
    let (_, metrics) = server.ask("GET", "/metrics", "").await;
    metric(&metrics, "quern_requests_bytes").unwrap()
}

/// Waits until nothing is held but what the asking itself holds.
async fn until_given_back(server: &Server) {
    until("giving memory back", async || (held(server).await == 0.0).then_some(())).await;
}

pub(super) fn spine(rows: usize) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["N1"; rows]));
    let distances: ArrayRef = Arc::new(Float64Array::from(vec![1_000.0; rows]));
    let times = TimestampMicrosecondArray::from(vec![JANUARY_10_US; rows]).with_timezone("UTC");
    let columns = [("tailnum", keys), ("distance", distances), ("event_timestamp", Arc::new(times))];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn compressed(rows: usize, compression: CompressionType) -> Vec<FlightData> {
    messages(spine(rows), "{\"feature_service\": \"delay_v1\"}", Some(compression)).await
}

/// A request with all its rows in one message.
pub(super) async fn messages(
    spine: RecordBatch,
    command: &str,
    compression: Option<CompressionType>,
) -> Vec<FlightData> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(spine.schema())
        .with_options(options)
        .with_max_flight_data_size(usize::MAX)
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_owned())));
    encoder.build(stream::iter([Ok(spine)])).map(Result::unwrap).collect().await
}

pub(super) async fn exchange(channel: &Channel, messages: Vec<FlightData>) -> Result<usize, Code> {
    let mut flight = FlightServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let reply = flight.do_exchange(stream::iter(messages)).await.map_err(|status| status.code())?;
    let mut reply = reply.into_inner();
    let mut count = 0;
    while reply.message().await.map_err(|status| status.code())?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_bombs_are_refused_before_they_are_unpacked() {
    let server = serve(64).await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    for compression in [CompressionType::ZSTD, CompressionType::LZ4_FRAME] {
        assert!(exchange(&channel, compressed(1_000, compression).await).await.is_ok());
        // 200 MB of rows in what is sent as little.
        let bomb = compressed(8_000_000, compression).await;
        assert!(bomb.iter().map(|message| message.data_body.len()).sum::<usize>() < 64 * MIB);
        assert_eq!(exchange(&channel, bomb).await, Err(Code::ResourceExhausted));
        // Every buffer that says how long it will be, made to lie.
        let good = compressed(1_000, compression).await;
        let rows = good.last().unwrap();
        let mut lies = 0;
        for place in (0..rows.data_body.len() - 8).step_by(8) {
            let length = i64::from_le_bytes(rows.data_body[place..place + 8].try_into().unwrap());
            if [4_004, 2_000, 8_000].contains(&length) {
                for lie in [1_i64 << 28, 1 << 40, i64::MAX] {
                    let mut body = rows.data_body.to_vec();
                    body[place..place + 8].copy_from_slice(&lie.to_le_bytes());
                    let lying = FlightData { data_body: body.into(), ..rows.clone() };
                    let refused = exchange(&channel, vec![good[0].clone(), lying]).await;
                    // What only looks like a length is a value, or one that nothing reads.
                    lies += usize::from(refused == Err(Code::ResourceExhausted));
                }
            }
        }
        assert!(lies >= 3, "{lies}");
    }
    until_given_back(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_a_body_is_taken_for_what_it_becomes() {
    let server = serve(64).await;
    // 2 MB of JSON are a million values.
    let zeros = format!("{{\"instances\": [{}0]}}", "0,".repeat(1_000_000));
    let refusal = server.refusal("POST", "/v1/models/delay:predict", zeros).await;
    assert!(refusal.starts_with("413 too_large: this request would take"), "{refusal}");
    let predicted = server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap();
    assert_eq!(predicted.predictions, [json!(76.5)]);
    until_given_back(&server).await;
}

/// A request to infer that has nothing but fields without anything in them.
#[derive(Clone, PartialEq, prost::Message)]
struct Hollow {
    #[prost(bytes = "bytes", repeated, tag = "5")]
    inputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    outputs: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    raw_input_contents: Vec<Bytes>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_messages_of_many_empty_fields_are_refused_before_they_are_read() {
    let server = serve(64).await;
    let many = || vec![Bytes::new(); 1_000_000];
    let hollow = [
        Hollow { inputs: many(), ..Hollow::default() },
        Hollow { outputs: many(), ..Hollow::default() },
        Hollow { raw_input_contents: many(), ..Hollow::default() },
    ];
    let asked = hollow.into_iter().map(async |message| {
        let told = call::<_, Hollow>(server.client.url(), "ModelInfer", message, &[]).await.unwrap_err();
        (told.code(), told.message().to_owned())
    });
    for (code, told) in futures::future::join_all(asked).await {
        assert!(code == Code::ResourceExhausted && told.contains("requests_bytes_max"), "{code:?}: {told}");
    }
    until_given_back(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_what_comes_beside_rows_is_short() {
    let server = serve(64).await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    let good = messages(spine(1), "{\"feature_service\": \"delay_v1\"}", None).await;
    let described = |path: Vec<String>, cmd: String| {
        let mut messages = good.clone();
        let descriptor = FlightDescriptor { path, ..FlightDescriptor::new_cmd(cmd) };
        messages[0].flight_descriptor = Some(descriptor);
        messages
    };
    let long = format!("{{\"feature_service\": \"delay_v1\", \"x\": [{}0]}}", "0,".repeat(1 << 20));
    for messages in [
        described(vec![], long),
        described(vec![String::new(); 17], String::new()),
        // Refused before it is read, as the one with 17 is not.
        described(vec![String::new(); 2_000_000], String::new()),
    ] {
        assert_eq!(exchange(&channel, messages).await, Err(Code::ResourceExhausted));
    }
    assert!(exchange(&channel, good).await.is_ok());
    until_given_back(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_one_message_are_counted_once() {
    let server = serve(256).await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    // 30 columns of 24 MB together, which all lie in the memory of their message.
    let narrow = spine(100_000);
    let notes = (0..27).map(|note| (format!("note_{note}"), Arc::clone(narrow.column(1))));
    let fields = narrow.schema();
    let keys = fields.fields().iter().map(|field| field.name().clone()).zip(narrow.columns().iter().cloned());
    let wide = RecordBatch::try_from_iter(keys.chain(notes)).unwrap();
    for command in [
        "{\"feature_service\": \"delay_v1\"}",
        "{\"model\": \"delay\"}",
        "{\"model\": \"delay\", \"as_of\": true}",
    ] {
        let rows = messages(wide.clone(), command, None).await;
        let came = exchange(&channel, rows).await;
        assert!(came.is_ok_and(|messages| messages > 1), "{command}: {came:?}");
    }
    until_given_back(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_readers_that_do_not_read_hold_neither_threads_nor_all_memory() {
    let server = serve(512).await;
    let endpoint = Endpoint::from_shared(server.client.url().to_owned()).unwrap();
    let mut readers = Vec::new();
    // More than there are threads for blocking work, over connections of their own.
    for _ in 0..6 {
        let channel = endpoint.clone().initial_stream_window_size(1_024).connect().await.unwrap();
        for _ in 0..100 {
            let mut flight = FlightServiceClient::new(channel.clone());
            let messages = compressed(2_000, CompressionType::ZSTD).await;
            // Some find no room, and are told so; none of them reads on.
            if let Ok(reply) = flight.do_exchange(stream::iter(messages)).await {
                readers.push(reply.into_inner());
            }
        }
    }
    assert!(readers.len() > 512, "{}", readers.len());
    let most = 512 * MIB;
    assert!(held(&server).await <= most as f64);
    for _ in 0..20 {
        let predicted = server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap();
        assert_eq!(predicted.predictions, [json!(76.5)]);
    }
    drop(readers);
    until_given_back(&server).await;
}
