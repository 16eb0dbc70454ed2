//! What does one long text cost that every row of a request asks for? No more memory than requests may hold.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use quern_kit::{Process, Repository, required};
use serde_json::{Value, json};
use tonic::transport::Endpoint;

const MINUTE_US: i64 = 60_000_000;
const MIB: usize = 1 << 20;
const DOC: usize = 70_000;
/// As many as one request may bring over HTTP: 700 MB of text.
const INSTANCES: usize = 10_000;
/// 2.3 GB of text: more than a column can hold.
const ROWS: usize = 32_768;

const DEFINITIONS: &str = "
kind: Entity
name: e
join_keys: [{name: k, type: int64}]
---
kind: Source
name: s
batch: {format: parquet, path: docs.parquet}
event_timestamp: at
---
kind: FeatureView
name: v
entities: [e]
source: s
features: [doc]
---
kind: FeatureService
name: docs
request: [{name: word, type: string, default: none}]
features: [v]
derived: [{name: both, expr: doc || word}]
outputs: [doc, both]
---
kind: FeatureService
name: lengths
request: [{name: word, type: string, default: none}]
features: [v]
derived: [{name: n, expr: length(doc || word)}]
outputs: [n]
---
kind: Model
name: m
versions: [{version: \"1\", service: docs, steps: [{name: y, expr: length(both) - length(doc)}]}]
";

/// A server of its own, whose requests may hold this much, and which has one document.
struct Docs {
    _repository: Repository,
    process: Process,
    http: reqwest::Client,
}

async fn serve(mib: usize) -> Docs {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(Int64Array::from(vec![0]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"))),
        ("doc", Arc::new(StringArray::from(vec!["d".repeat(DOC)]))),
    ];
    repository.write_parquet("docs.parquet", &RecordBatch::try_from_iter(columns).unwrap());
    let node = repository.open_applied().await;
    node.materialize(MINUTE_US);
    drop(node);
    let environment = [("QUERN_REQUESTS_BYTES_MAX", (mib * MIB).to_string())];
    let process = Process::start_in(repository.path(), &environment);
    Docs { _repository: repository, process, http: reqwest::Client::new() }
}

impl Docs {
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.process.url);
        let reply = self.http.post(url).json(&body).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }
}

fn too_large((status, reply): (u16, &Value)) {
    assert_eq!((status, &reply["code"]), (413, &json!("too_large")), "{}", reply["error"]);
    let error = reply["error"].as_str().unwrap();
    assert!(error.contains("in parts") || error.contains("fewer"), "{error}");
}

/// `rows` times the key of the document, and a word beside each, once in a dictionary.
fn table(rows: usize, word: &str) -> RecordBatch {
    let words: ArrayRef = Arc::new(StringArray::from(vec![word]));
    let words = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; rows]), words);
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(Int64Array::from(vec![0; rows]))),
        ("word", Arc::new(words)),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![MINUTE_US; rows]).with_timezone("UTC")),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_long_text_for_every_instance_is_answered_in_bounded_memory_or_refused() {
    let docs = serve(192).await;
    let before = docs.process.peak_bytes();
    let instances = vec![json!({"k": 0, "word": "ab"}); INSTANCES];
    let (status, reply) = docs.post("/v1/models/m:predict", json!({"instances": instances})).await;
    assert_eq!((status, &reply["predictions"]), (200, &json!(vec![2; INSTANCES])), "{}", reply["error"]);
    let tensor = |name: &str, datatype: &str, data: Value| json!({"name": name, "datatype": datatype, "shape": [INSTANCES], "data": data});
    let inputs = [
        tensor("k", "INT64", json!(vec![0; INSTANCES])),
        tensor("word", "BYTES", json!(vec!["abc"; INSTANCES])),
    ];
    let (status, reply) = docs.post("/v2/models/m/infer", json!({"inputs": inputs})).await;
    assert_eq!(
        (status, &reply["outputs"][0]["data"]),
        (200, &json!(vec![3; INSTANCES])),
        "{}",
        reply["error"]
    );
    // What is to be shown is to be held.
    let (status, reply) =
        docs.post("/v1/models/m:predict", json!({"instances": instances, "with_features": true})).await;
    too_large((status, &reply));
    let look_up = |rows: usize| {
        let entities = json!({"k": vec![0; rows], "word": vec!["ab"; rows]});
        docs.post("/get-online-features", json!({"feature_service": "docs", "entities": entities}))
    };
    let (status, reply) = look_up(INSTANCES).await;
    too_large((status, &reply));
    let (status, reply) = look_up(300).await;
    assert_eq!(status, 200, "{}", reply["error"]);
    let both = &reply["results"][2]["values"];
    assert_eq!(both[299].as_str().map(str::len), Some(DOC + 2));
    let grown = docs.process.peak_bytes() - before;
    assert!(grown < 550 * MIB, "{} MiB", grown / MIB);
}

/// What comes down for a table that goes up as it is, its dictionaries in one piece.
async fn exchange(docs: &Docs, command: Value, rows: RecordBatch) -> FlightRecordBatchStream {
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(rows.schema())
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_string())))
        .build(stream::iter([Ok(rows)]));
    let messages: Vec<FlightData> = messages.map(Result::unwrap).collect().await;
    let channel = Endpoint::from_shared(docs.process.url.clone()).unwrap().connect_lazy();
    let mut flight = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let reply = flight.do_exchange(stream::iter(messages)).await.unwrap();
    FlightRecordBatchStream::new_from_flight_data(reply.into_inner().map_err(FlightError::from))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_with_more_text_than_a_column_holds_are_answered_batch_by_batch() {
    let docs = serve(256).await;
    let before = docs.process.peak_bytes();
    let long = "w".repeat(DOC);
    // As of a time all inputs are held, so that these are of ordinary length.
    for (as_of, rows, word) in [(false, 4_096, long.as_str()), (false, ROWS, "abc"), (true, ROWS, "abcd")] {
        let mut answers = exchange(&docs, json!({"model": "m", "as_of": as_of}), table(rows, word)).await;
        let mut count = 0;
        while let Some(batch) = answers.try_next().await.unwrap() {
            let said = batch.column_by_name("y").unwrap().as_primitive::<Int64Type>();
            assert!(said.values().iter().all(|y| *y == word.len() as i64));
            count += batch.num_rows();
        }
        assert_eq!(count, rows, "as of a time: {as_of}");
    }
    let mut set = exchange(&docs, json!({"feature_service": "lengths"}), table(ROWS, "abcd")).await;
    let mut count = 0;
    while let Some(batch) = set.try_next().await.unwrap() {
        let said = batch.column_by_name("n").unwrap().as_primitive::<Int32Type>();
        assert!(said.values().iter().all(|n| *n == DOC as i32 + 4));
        count += batch.num_rows();
    }
    assert_eq!(count, ROWS);
    // What would have to be held all together is refused, not tried.
    let mut refused = exchange(&docs, json!({"model": "m", "as_of": true}), table(ROWS, &long)).await;
    let status = refused.try_next().await.unwrap_err();
    assert!(status.to_string().contains("in parts"), "{status}");
    let grown = docs.process.peak_bytes() - before;
    assert!(grown < 750 * MIB, "{} MiB", grown / MIB);
}
