//! Does anything that fails tell a stored value? Neither a reply nor a log at its usual level may: whoever may ask for
//! a prediction has not been shown what it is made of.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::{TryStreamExt, stream};
use prost::bytes::Bytes;
use quern::Client;
use quern::wire::BatchCommand;
use quern_kit::{Process, Repository, fixture, metric, required, run};
use serde_json::{Value, json};

use super::oip::{Answer, Ask, Contents, Input, call};

/// What lies in the rows of key `a`; the model that chokes on the number sees it in single precision.
const SECRETS: [&str; 3] = ["98765", "S3CRET", "1099511627776"];

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n---\n\
    kind: Entity\nname: narrow\njoin_keys: [{name: key, type: int32}]\n---\n\
    kind: Source\nname: s\nbatch: {format: csv, path: rows}\nevent_timestamp: at\n\
    columns: [{name: k, type: string}, {name: at, type: timestamp}, {name: n, type: int64}, {name: note, type: string}]\n\
    ---\nkind: Source\nname: wide\nbatch: {format: parquet, path: wide}\nevent_timestamp: at\n---\n\
    kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [n, note, {name: day, expr: \"CAST(note AS DATE)\"}]\n\
    ---\nkind: FeatureView\nname: w\nentities: [narrow]\nsource: wide\nfeatures: [x]\n---\n\
    kind: FeatureService\nname: three\nfeatures: [{view: v, features: [n]}]\n\
    derived: [{name: zero, expr: n * 0, default: 0}, {name: none, expr: n * 0, default: 0}]\noutputs: [n, zero, none]\n\
    ---\nkind: FeatureService\nname: strict\nfeatures: [v]\n\
    derived: [{name: number, expr: CAST(note AS BIGINT), strict: true, default: 0}]\noutputs: [n, number]\n\
    ---\nkind: FeatureService\nname: cast\nfeatures: [v]\n\
    derived: [{name: number, expr: CAST(note AS BIGINT) + n * n, type: int32, default: 0, strict: true}]\n\
    outputs: [number]\n---\n\
    kind: Model\nname: gather\nversions: [{version: 1, path: fragile.onnx, service: three, examples: [{n: 1}]}]\n---\n\
    kind: Model\nname: falls\nversions: [{version: 1, path: fragile.onnx, service: three, examples: [{n: 1}]}]\n\
    fallback: {to: [{constant: 7}]}\nroute: {weights: {1: 1}}\n";

/// A server in a process of its own, with its log in a file.
struct Kept {
    repository: Repository,
    client: Client,
    http: reqwest::Client,
    /// All that was heard.
    heard: Vec<String>,
}

impl Kept {
    fn hear(&mut self, what: &str, said: impl Debug) {
        self.heard.push(format!("{what}: {said:?}"));
    }

    /// Asks over HTTP; the reply is heard, headers and all.
    async fn ask(&mut self, path: &str, body: Value) -> u16 {
        let asked = self.http.post(format!("{}{path}", self.client.url())).json(&body);
        let reply = asked.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let text = reply.text().await.unwrap();
        self.hear(path, (status, headers, text));
        status
    }

    async fn grpc(&mut self, model: &str) {
        let keys = Contents { bytes: vec![Bytes::from_static(b"a")], ..Contents::default() };
        let (name, datatype) = ("k".to_owned(), "BYTES".to_owned());
        let inputs = vec![Input { name, datatype, shape: vec![1], contents: Some(keys) }];
        let ask = Ask { model_name: model.to_owned(), inputs, ..Ask::default() };
        let answer = call::<_, Answer>(self.client.url(), "ModelInfer", ask, &[]).await;
        self.hear("gRPC", answer);
    }

    /// Asks over Flight for a batch of predictions, now and as of then, and for a training set.
    async fn flight(&mut self, model: &str, service: &str) {
        for as_of in [false, true] {
            let command = BatchCommand { model: model.to_owned(), version: None, as_of };
            let table = spine();
            let rows = self.client.predict_batch(&command, table.schema(), stream::iter([table])).await;
            let rows = match rows {
                Ok(rows) => rows.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            self.hear("batch", rows);
        }
        let table = spine();
        let rows = self.client.training_set(service, table.schema(), stream::iter([table]), false).await;
        // What a training set holds is its purpose; only how it fails is looked at.
        let failed = match rows {
            Ok(rows) => rows.try_collect::<Vec<_>>().await.err(),
            Err(error) => Some(error),
        };
        self.hear("training set", failed);
    }
}

fn spine() -> RecordBatch {
    let time = TimestampMicrosecondArray::from(vec![1_769_904_000_000_000]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] =
        [("k", Arc::new(StringArray::from(vec!["a"]))), ("event_timestamp", Arc::new(time))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn wide(key: i64) -> RecordBatch {
    let time = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("key", Arc::new(Int64Array::from(vec![key]))),
        ("at", Arc::new(time)),
        ("x", Arc::new(Int64Array::from(vec![1]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_tells_no_stored_value() {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    repository.write("fragile.onnx", fixture("fragile.onnx"));
    repository.write("rows/a.csv", "k,at,n,note\na,2026-01-01T00:00:00Z,987654321,S3CRET\n");
    fs::create_dir(repository.path().join("wide")).unwrap();
    repository.write_parquet("wide/a.parquet", &wide(1));
    run(repository.path(), &["apply"]).answer();
    run(repository.path(), &["materialize"]).answer();
    let log = repository.path().join("server.log");
    let environment = [("QUERN_LOG", "info".to_owned())];
    let server = Process::start_logged(repository.path(), &environment, File::create(&log).unwrap());
    let client = Client::connect(server.url.clone()).await.unwrap();
    let mut kept = Kept { repository, client, http: reqwest::Client::new(), heard: Vec::new() };

    let instances = json!({"instances": [{"k": "a"}]});
    assert_eq!(kept.ask("/v1/models/gather:predict", instances.clone()).await, 500);
    assert_eq!(kept.ask("/v1/models/gather/versions/1:predict", instances.clone()).await, 500);
    assert_eq!(kept.ask("/v1/models/falls:predict", instances).await, 200);
    let tensors = json!({"inputs": [{"name": "k", "datatype": "BYTES", "shape": [1], "data": ["a"]}]});
    assert_eq!(kept.ask("/v2/models/gather/infer", tensors).await, 500);
    kept.grpc("gather").await;
    for service in ["strict", "cast"] {
        let entities = BTreeMap::from([("k", ["a"])]);
        let asked = json!({"feature_service": service, "entities": entities});
        assert_eq!(kept.ask("/get-online-features", asked).await, 400);
        kept.flight("gather", service).await;
    }
    kept.flight("falls", "three").await;

    // Files that come later, and hold what their columns cannot.
    kept.repository.write("rows/b.csv", "k,at,n,note\nb,2026-01-02T00:00:00Z,S3CRET,x\n");
    kept.repository.write_parquet("wide/b.parquet", &wide(1_099_511_627_776));
    for path in ["/v1/check", "/v1/apply"] {
        assert_eq!(kept.ask(path, json!({})).await, 422);
    }
    for view in ["v", "w"] {
        kept.ask("/v1/materialize", json!({"views": [view], "from_us": 0})).await;
    }
    kept.flight("falls", "three").await;
    // Why they failed is told for good.
    let status = kept.client.status().await.unwrap();
    assert_eq!(status.troubles.len(), 2, "{:?}", status.troubles);
    kept.hear("status", status);

    let metrics = kept.http.get(format!("{}/metrics", kept.client.url())).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let flight = |code: &str| {
        let route = "/arrow.flight.protocol.FlightService/DoExchange";
        format!("quern_requests_total{{method=\"POST\",route=\"{route}\",status=\"{code}\"}}")
    };
    let oip = "/inference.GRPCInferenceService/ModelInfer";
    for (series, count) in [
        (format!("quern_requests_total{{method=\"POST\",route=\"{oip}\",status=\"INTERNAL\"}}"), 1.0),
        // Two batches beside each of two training sets.
        (flight("INTERNAL"), 4.0),
        (flight("INVALID_ARGUMENT"), 2.0),
        ("quern_requests_in_flight".to_owned(), 1.0),
    ] {
        assert_eq!(metric(&metrics, &series), Some(count), "{series} in\n{metrics}\n{:#?}", kept.heard);
    }
    let log = fs::read_to_string(log).unwrap();
    // Each of them once, by the name of its request.
    let failed = log.lines().filter(|line| line.contains("request failed") && line.contains("id=\""));
    assert_eq!(failed.count(), 3 + 1 + 4, "{log}");
    assert!(log.contains("running a model") || log.contains("Gather"), "{log}");
    kept.hear("log", log);
    for secret in SECRETS {
        let telling: Vec<&String> = kept.heard.iter().filter(|heard| heard.contains(secret)).collect();
        assert!(telling.is_empty(), "{secret}: {telling:#?}");
    }
    let failed = kept.heard.iter().filter(|heard| heard.contains("its log has the cause")).count();
    assert!(failed >= 6, "{failed} of {:#?}", kept.heard);
    let refused = |heard: &&String| heard.starts_with("/v1/materialize") && heard.contains("\\\"error\\\"");
    assert_eq!(kept.heard.iter().filter(refused).count(), 2, "{:#?}", kept.heard);
}
