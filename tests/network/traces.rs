//! What does a tracer see of a request? A server that sends its spans to a collector of ours, over OTLP.
//!
//! The server is told to stop before anything is compared: what it has not sent by then, it has lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::expect;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Cell;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use quern_kit::{Process, Repository, blocking, run, until};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic_prost::ProstCodec;

use crate::planes::{self, DEFINITIONS, JANUARY_10, instance};

/// Two versions, of which the second is asked as well, and nobody waits for it.
const SHADOWED: &str = r#"---
kind: Model
name: m
versions:
  - {version: "1", path: models/linear.onnx, service: delay_v1}
  - version: "2"
    service: delay_v1
    steps: [{name: once, path: models/linear.onnx}, {name: y, expr: "CAST(once * 2 AS FLOAT)"}]
route: {weights: {"1": 1}, shadow: ["2"]}
"#;

/// The ids that the tests call with.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> tonic::Result<tonic::Response<ExportTraceServiceResponse>> {
        self.0.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let serving = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    /// All spans so far.
    fn spans(&self) -> Vec<Span> {
        let sent = self.0.lock();
        let scopes = sent.iter().flat_map(|sent| &sent.resource_spans).flat_map(|of| &of.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn service(&self) -> String {
        let sent = self.0.lock();
        let attributes = &sent[0].resource_spans[0].resource.as_ref().unwrap().attributes;
        let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
        cell(name.value.clone().unwrap().value.unwrap())
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cell(cell: Cell) -> String {
    match cell {
        Cell::StringValue(text) => text,
        Cell::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// The spans under `parent`, and what is under them, in the order of their names.
fn tree(spans: &[Span], parent: &str, depth: usize) -> String {
    let mut below: Vec<&Span> = spans.iter().filter(|span| hex(&span.parent_span_id) == parent).collect();
    below.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for span in below {
        let attributes = span.attributes.iter().filter_map(|attribute| {
            let value = cell(attribute.value.clone()?.value?);
            Some(format!(" {}={value}", attribute.key))
        });
        let mut attributes: Vec<String> = attributes.collect();
        attributes.sort();
        let links = if span.links.is_empty() { "" } else { " (linked)" };
        text += &format!("{}{}{links}{}\n", "  ".repeat(depth), span.name, attributes.concat());
        text += &tree(spans, &hex(&span.span_id), depth + 1);
    }
    text
}

/// The planes and `SHADOWED`, materialized, on a server that sends its spans to `collector`.
async fn start(collector: SocketAddr) -> (Repository, Process) {
    blocking(move || {
        let repository = planes::repository();
        repository.write("definitions.yaml", format!("{DEFINITIONS}{SHADOWED}"));
        repository.write("quern.yaml", format!("otlp: http://{collector}\n"));
        run(repository.path(), &["apply"]).answer();
        run(repository.path(), &["materialize", "--to", JANUARY_10]).answer();
        let server = Process::start(repository.path());
        (repository, server)
    })
    .await
}

/// Asks model `m` with some headers; the status.
async fn predict(server: &Process, headers: &[(&str, &str)]) -> u16 {
    let body = json!({"instances": [instance("N1", 2000.0)]}).to_string();
    let mut request = reqwest::Client::new().post(format!("{}/v1/models/m:predict", server.url)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_from_the_caller_through_each_stage() {
    let (collector, address) = Collector::start().await;
    let (_repository, server) = start(address).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    // Who gives a time to wait gets its turn from the queue.
    let headers = [("traceparent", &*parent), ("x-request-id", "r-1"), ("x-request-timeout-ms", "60000")];
    assert_eq!(predict(&server, &headers).await, 200);
    let unsampled = format!("00-{}-{CALLER}-00", TRACE.replace('4', "5"));
    assert_eq!(predict(&server, &[("traceparent", &unsampled)]).await, 200);
    until("both shadows", async || {
        let text = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
        text.contains(r#"quern_shadow_predictions_total{model="m",outcome="answered",version="2"} 2"#)
            .then_some(())
    })
    .await;
    assert!(blocking(move || server.terminate()).await.success());

    assert_eq!(collector.service(), "quern");
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE.replace('4', "5")), "{spans:?}");
    let ours: Vec<Span> = spans.into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let shown = tree(&ours, CALLER, 0);
    // A shadow waits or does not, as the machine has it.
    let (answer, shadow) = shown.split_once("  shadow").unwrap();
    expect![[r#"
        POST /v1/models/{call} http.request.method=POST http.response.status_code=200 http.route=/v1/models/{call} quern.request_id=r-1
          inference quern.model=m quern.rows=1 quern.version=1
            queue
            run rows=1
          look_up quern.feature_service=delay_v1 quern.rows=1
    "#]].assert_eq(answer);
    assert!(shadow.starts_with(" (linked) quern.model=m\n"), "{shown}");
    assert!(shadow.contains("inference quern.model=m quern.rows=1 quern.version=2\n"), "{shown}");
    assert!(shadow.ends_with("\n  transform quern.feature_service=delay_v1 quern.rows=1\n"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_grpc_is_in_the_trace_of_its_caller() {
    let (collector, address) = Collector::start().await;
    let (_repository, server) = start(address).await;
    let channel = tonic::transport::Endpoint::new(server.url.clone()).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    for path in ["ServerReady", "Unheard"] {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(());
        let parent = format!("00-{TRACE}-{CALLER}-01");
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        request.metadata_mut().insert("x-request-id", path.parse().unwrap());
        let path = format!("/inference.GRPCInferenceService/{path}").parse().unwrap();
        let _ = grpc.unary(request, path, ProstCodec::<(), ()>::default()).await;
    }
    drop(grpc);
    assert!(blocking(move || server.terminate()).await.success());
    let ours: Vec<Span> = collector.spans().into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    expect![[r#"
        POST /inference.GRPCInferenceService/ServerReady http.request.method=POST http.response.status_code=200 http.route=/inference.GRPCInferenceService/ServerReady quern.request_id=ServerReady rpc.response.status_code=OK
        POST /inference.GRPCInferenceService/{call} http.request.method=POST http.response.status_code=200 http.route=/inference.GRPCInferenceService/{call} quern.request_id=Unheard rpc.response.status_code=UNIMPLEMENTED
    "#]].assert_eq(&tree(&ours, CALLER, 0));
    let failed = ours.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2));
    assert_eq!(failed.count(), 1, "{ours:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_without_a_collector() {
    // The first is gone; the second takes connections and says nothing.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for collector in [gone, silent.local_addr().unwrap()] {
        let (_repository, server) = start(collector).await;
        for _ in 0..100 {
            assert_eq!(predict(&server, &[]).await, 200);
        }
        let stopping = Instant::now();
        assert!(blocking(move || server.terminate()).await.success());
        assert!(stopping.elapsed() < Duration::from_secs(30), "{:?}", stopping.elapsed());
    }
}
