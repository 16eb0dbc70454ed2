//! What becomes of a prediction whose client has gone?

use std::future::Future;

use arrow::array::{AsArray, RecordBatch};
use futures::TryStreamExt;
use quern::wire::PredictionsCommand;
use quern_kit::{Server, fixture, until};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::oip;
use crate::planes::{self, DEFINITIONS, instance};

/// As many rounds as take minutes: who waits for the end of such a run does so in vain.
const MINUTES: f64 = 10_000_000.0;

/// The planes, with a model `m` that takes as long as it is asked to, and one session for it; it is logged.
async fn start(batching: &str) -> Server {
    let repository = planes::repository();
    let model = format!(
        "kind: Model\nname: m\nversions: [{{version: 1, path: models/slow.onnx, service: delay_v1}}]\n\
         batching: {{concurrency: 1{batching}}}\nlog: {{sample: 1}}\n"
    );
    repository.write("definitions.yaml", format!("{DEFINITIONS}---\n{model}"));
    repository.write("models/slow.onnx", fixture("slow.onnx"));
    let node = planes::open(&repository).await;
    Server::of(repository, node).await
}

/// Sends a request of minutes over a connection of its own, which is all that the client is.
async fn ask_minutes(server: &Server) -> TcpStream {
    let address = server.client.url().trim_start_matches("http://").to_owned();
    let mut client = TcpStream::connect(&address).await.unwrap();
    let body = json!({"instances": [instance("N1", MINUTES)]}).to_string();
    let length = body.len();
    let head = format!(
        "POST /v1/models/m:predict HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    client.write_all((head + &body).as_bytes()).await.unwrap();
    client
}

/// Waits until so many sessions run and so many rows wait.
async fn until_there_are(server: &Server, busy: f64, waiting: f64) {
    let wanted = (busy, waiting);
    until(&format!("{wanted:?} busy and waiting"), async || {
        let of = |name| format!("quern_model_{name}{{model=\"m\",version=\"1\"}}");
        let metrics = server.metrics().await;
        let seen = ["sessions_busy", "waiting_rows"].map(|name| quern_kit::metric(&metrics, &of(name)));
        (seen == [Some(busy), Some(waiting)]).then_some(())
    })
    .await;
}

async fn check_that_it_answers(server: &Server) {
    let body = json!({"instances": [instance("N3", 1.0)]}).to_string();
    let (status, said) = server.ask("POST", "/v1/models/m:predict", body).await;
    assert_eq!((status, said.as_str()), (200, "{\"predictions\":[-21.0]}"));
    until_there_are(server, 0.0, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_a_client_gone_while_queued_or_running_frees_the_slot() {
    let server = start("").await;
    let running = ask_minutes(&server).await;
    until_there_are(&server, 1.0, 0.0).await;
    let mut queued = Vec::new();
    for waiting in 1..=10 {
        queued.push(ask_minutes(&server).await);
        until_there_are(&server, 1.0, f64::from(waiting)).await;
    }
    // Who waits goes without having run, and nobody else is disturbed.
    queued.truncate(2);
    until_there_are(&server, 1.0, 2.0).await;
    // The next run is that of the two who are left: it goes on while one of them waits.
    drop(running);
    until_there_are(&server, 1.0, 0.0).await;
    queued.truncate(1);
    until_there_are(&server, 1.0, 0.0).await;
    drop(queued);
    until_there_are(&server, 0.0, 0.0).await;
    check_that_it_answers(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_a_client_gone_over_grpc_frees_the_slot() {
    let server = start(", max_rows: 1").await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(call_minutes(&server))).collect();
    until_there_are(&server, 1.0, 2.0).await;
    // A call that is dropped resets its stream.
    for call in calls {
        call.abort();
    }
    until_there_are(&server, 0.0, 0.0).await;
    check_that_it_answers(&server).await;
}

fn call_minutes(server: &Server) -> impl Future<Output = ()> + Send + 'static {
    let call = oip::infer_at(server.client.url().to_owned(), "m", MINUTES);
    async {
        // It never comes: the caller goes before.
        let _ = call.await;
    }
}

/// A run that is short by what was seen so far, and is not: others get their answers and their deadlines meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_while_a_longer_run_goes_on() {
    let server = start("").await;
    let mut long = vec![ask_minutes(&server).await];
    until_there_are(&server, 1.0, 0.0).await;
    long.push(ask_minutes(&server).await);
    until_there_are(&server, 1.0, 1.0).await;
    let reply = server
        .http
        .post(server.address("/v1/models/m:predict"))
        .header("x-request-timeout-ms", "1000")
        .body(json!({"instances": [instance("N3", 1.0)]}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status().as_u16(), 504);
    until_there_are(&server, 1.0, 1.0).await;
    drop(long);
    check_that_it_answers(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_off_is_not_in_the_log_and_the_rest_is_there_whole() {
    let server = start("").await;
    // One goes while the model runs, another one in the middle of its body.
    let series = "quern_requests_total{method=\"POST\",route=\"/v1/models/{call}\",status=\"499\"}";
    let counted = async || quern_kit::metric(&server.metrics().await, series).unwrap_or(0.0);
    let before = counted().await;
    let running = ask_minutes(&server).await;
    until_there_are(&server, 1.0, 0.0).await;
    drop(running);
    let address = server.client.url().trim_start_matches("http://").to_owned();
    let mut half = TcpStream::connect(&address).await.unwrap();
    let head =
        format!("POST /v1/models/m:predict HTTP/1.1\r\nhost: {address}\r\ncontent-length: 999\r\n\r\n");
    let begun = json!({"instances": [instance("N1", 1.0)]}).to_string();
    half.write_all((head + &begun).as_bytes()).await.unwrap();
    drop(half);
    until("both are counted as gone", async || (counted().await >= before + 2.0).then_some(())).await;
    until_there_are(&server, 0.0, 0.0).await;
    let body = json!({"instances": [instance("N3", 1.0), instance("N1", 1.0)]}).to_string();
    let request = server.http.post(server.address("/v1/models/m:predict")).header("x-request-id", "whole");
    assert_eq!(request.body(body).send().await.unwrap().status().as_u16(), 200);
    let command = PredictionsCommand { predictions: "m".to_owned(), ..PredictionsCommand::default() };
    let logged: Vec<RecordBatch> =
        server.client.predictions(&command).await.unwrap().try_collect().await.unwrap();
    let ids =
        logged.iter().flat_map(|rows| rows.column_by_name("request_id").unwrap().as_string::<i32>().iter());
    assert_eq!(ids.collect::<Vec<_>>(), [Some("whole"); 2]);
}
