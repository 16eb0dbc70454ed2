//! Is each protocol spoken as docs/serving.md says, line by line?

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use expect_test::{Expect, expect};
use prost::bytes::Bytes;
use quern_kit::{Server, fixture, root};
use serde_json::{Value, json};

use super::oip::{Answer, Ask, Input, call};
use crate::planes::{self, DEFINITIONS, JANUARY_10, JANUARY_10_US, instance};

/// Besides the planes: what takes pushes, and models that want a single column.
const MORE: &str = r#"
---
kind: Source
name: sightings
push: true
event_timestamp: seen_at
columns: [{name: tailnum, type: string}, {name: seen_at, type: timestamp}, {name: speed, type: float64}]
---
kind: FeatureView
name: speeds
entities: [plane]
source: sightings
features: [speed]
---
kind: FeatureView
name: ever
entities: [plane]
source: landings
features: [delay]
---
kind: FeatureService
name: alone_v1
features: [ever]
derived: [{name: twice, expr: "delay * 2"}, {name: late, expr: "delay > 0"}]
outputs: [delay, twice, late]
---
kind: FeatureService
name: twice_v1
request: [{name: x, type: float32}]
features: [{view: plane_history, features: [seats]}]
derived: [{name: y, expr: "x * 2"}, {name: z, expr: "x * 3"}]
outputs: [x, y, z]
---
kind: Model
name: alone
versions: [{version: "1", path: models/linear.onnx, service: alone_v1}]
---
kind: Model
name: half
versions: [{version: "1", path: models/half.onnx, service: twice_v1}]
---
kind: Model
name: counted
versions: [{version: "1", path: models/half.onnx, service: twice_v1}]
"#;

/// How a line is asked.
enum Asked {
    Get(&'static str),
    Post(&'static str, Value),
    /// JSON with raw cells behind it.
    Raw(&'static str, Value, Vec<u8>),
    /// Over gRPC: one tensor of halves beside those that the model wants, raw or not.
    Halves(Option<Vec<u8>>),
    /// Over gRPC, by name and version.
    Statistics(&'static str, &'static str),
    /// Any other call.
    Call(&'static str),
    /// How many rows were pushed to this source, for training too.
    Pushed(&'static str),
}
use Asked::{Call, Get, Halves, Post, Pushed, Raw, Statistics};

/// The first cell of a row of the table, and what is asked for it.
type Line = (&'static str, Vec<Asked>);

async fn serve() -> Server {
    let repository = planes::repository();
    repository.write("definitions.yaml", format!("{DEFINITIONS}{MORE}"));
    repository.write("models/half.onnx", fixture("half.onnx"));
    let node = planes::open(&repository).await;
    Server::of(repository, node).await
}

impl Asked {
    async fn said(&self, server: &Server) -> String {
        match self {
            Get(path) => asked(server, "GET", path, String::new()).await,
            Post(path, body) => asked(server, "POST", path, body.to_string()).await,
            Raw(path, head, cells) => {
                let head = head.to_string();
                let request = server.http.post(server.address(path));
                let request = request.header("inference-header-content-length", head.len());
                let reply = request.body([head.as_bytes(), cells].concat()).send().await.unwrap();
                format!("{} {}", reply.status().as_u16(), reply.text().await.unwrap())
            }
            Pushed(source) => {
                let sources = server.client.status().await.unwrap().sources;
                let source = sources.into_iter().find(|of| of.name == *source).unwrap();
                format!("{} pushed", source.pushed.unwrap().rows)
            }
            Halves(raw) => halves(server, raw.as_deref()).await,
            Statistics(name, version) => {
                let asked = Named { name: (*name).to_owned(), version: (*version).to_owned() };
                let said = call::<_, Told>(server.client.url(), "ModelStatistics", asked, &[]).await;
                said.map_or_else(
                    |status| format!("{:?}: {}", status.code(), status.message()),
                    |told| told.shown(),
                )
            }
            Call(name) => {
                let status =
                    call::<_, Told>(server.client.url(), name, Named::default(), &[]).await.unwrap_err();
                format!("{:?}: {}", status.code(), status.message())
            }
        }
    }
}

async fn asked(server: &Server, method: &str, path: &str, body: String) -> String {
    let (status, text) = server.ask(method, path, body).await;
    // How long something took is not the same twice.
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(mut json) if path.ends_with("/stats") && status == 200 => {
            timeless(&mut json);
            json.to_string()
        }
        _ => text,
    };
    format!("{status} {text}")
}

fn timeless(json: &mut Value) {
    match json {
        Value::Object(entries) => entries.iter_mut().for_each(|(key, value)| match key.as_str() {
            "ns" | "last_inference" if value.as_u64() > Some(0) => *value = "some".into(),
            // Who waits hangs on which thread is free.
            "queue" => *value = Value::Null,
            _ => timeless(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

async fn halves(server: &Server, raw: Option<&[u8]>) -> String {
    let input = |name: &str, datatype: &str| Input {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1],
        contents: None,
    };
    let cells = |raw: &[u8]| vec![Bytes::from_static(b"\x02\0\0\0N1"), Bytes::copy_from_slice(raw)];
    let ask = Ask {
        model_name: "half".to_owned(),
        inputs: vec![input("tailnum", "BYTES"), input("x", "FP16")],
        raw_input_contents: raw.map(cells).unwrap_or_default(),
        ..Ask::default()
    };
    let ask = if raw.is_none() { Ask { inputs: vec![input("x", "FP16")], ..ask } } else { ask };
    match call::<_, Answer>(server.client.url(), "ModelInfer", ask, &[]).await {
        Ok(answer) => {
            let y = f32::from_le_bytes(answer.raw_output_contents[0][..].try_into().unwrap());
            format!("{} {y}", answer.outputs[0].datatype)
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// What is said, line by line, and that these are the lines of the page's section.
async fn check(section: &str, lines: Vec<Line>, expected: Expect) {
    let asked: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    assert_eq!(asked, rows(section), "the lines of {section:?} in docs/serving.md, and what is asked here");
    let server = serve().await;
    let mut text = String::new();
    for (line, asks) in lines {
        text += &format!("{line}\n");
        for ask in asks {
            text += &format!("  {}\n", ask.said(&server).await);
        }
    }
    expected.assert_eq(&text);
}

/// The first cells of the table in a section of the page.
fn rows(section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/serving.md")).unwrap();
    let (_, rest) = page.split_once(&format!("\n### {section}\n")).unwrap();
    let rest = rest.split("\n#").next().unwrap();
    let cells = rest.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.skip(1).map(str::to_owned).collect()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(message, repeated, tag = "1")]
    models: Vec<OfVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfVersion {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(uint64, tag = "4")]
    rows: u64,
    #[prost(uint64, tag = "5")]
    runs: u64,
}

impl Told {
    fn shown(&self) -> String {
        let model =
            |of: &OfVersion| format!("{} {}: {} rows in {} runs", of.name, of.version, of.rows, of.runs);
        self.models.iter().map(model).collect::<Vec<_>>().join(", ")
    }
}

fn tensor(name: &str, datatype: &str, data: Value) -> Value {
    json!({"name": name, "datatype": datatype, "shape": [1], "data": data})
}

fn half_of(datatype: &str, data: Value) -> Value {
    json!({"inputs": [tensor("tailnum", "BYTES", json!(["N1"])), tensor("x", datatype, data)]})
}

const INFER: &str = "/v2/models/half/infer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_inference_protocol() {
    let raw = |name, datatype, bytes| json!({"name": name, "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": bytes}});
    let raw = json!({"inputs": [tensor("tailnum", "BYTES", json!(["N1"])), raw("x", "FP16", 2)]});
    let classes = json!({"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 2}}]});
    let mut shared = half_of("FP16", json!([1]));
    shared["inputs"][0]["parameters"] = json!({"shared_memory_region": "r"});
    let lines: Vec<Line> = vec![
        ("`GET /v2/health/live`", vec![Get("/v2/health/live")]),
        ("`GET /v2/health/ready`", vec![Get("/v2/health/ready")]),
        (
            "`GET /v2/models/{model}/ready`",
            vec![
                Get("/v2/models/half/ready"),
                Get("/v2/models/half/versions/1/ready"),
                Get("/v2/models/half/versions/2/ready"),
            ],
        ),
        ("`GET /v2`, `GET /v2/`", vec![Get("/v2"), Get("/v2/")]),
        (
            "`GET …/stats`",
            vec![
                Get("/v2/models/counted/versions/1/stats"),
                Post("/v2/models/counted/infer", half_of("FP32", json!([2]))),
                Post("/v2/models/counted/infer", half_of("FP32", json!([2]))),
                Get("/v2/models/counted/stats"),
                Get("/v2/models/counted/versions/2/stats"),
            ],
        ),
        (
            "`ModelStatistics`",
            vec![
                Statistics("counted", ""),
                Statistics("counted", "1"),
                Statistics("counted", "2"),
                Statistics("", ""),
            ],
        ),
        (
            "FP16 in JSON",
            vec![Post(INFER, half_of("FP16", json!([0.1]))), Post(INFER, half_of("FP16", json!([65_520])))],
        ),
        (
            "FP16 in raw bytes",
            vec![Raw(INFER, raw, vec![0, 0x3e]), Halves(Some(vec![0, 0x3e])), Halves(None)],
        ),
        (
            "FP16 as an output",
            vec![
                Get("/v2/models/half"),
                Post("/v1/models/half:predict", json!({"instances": [{"tailnum": "N1", "x": 1.5}]})),
            ],
        ),
        ("BF16", vec![Post(INFER, half_of("BF16", json!([1])))]),
        ("shared memory, `classification`", vec![Post(INFER, shared), Post(INFER, classes)]),
        (
            "`POST /v2/repository/models/{model}/load`, `…/unload`",
            vec![
                Post("/v2/repository/models/half/load", json!({})),
                Post("/v2/repository/models/half/unload", json!({})),
            ],
        ),
        (
            "`POST …/generate`, trace and log settings",
            vec![
                Post("/v2/models/half/generate", json!({})),
                Get("/v2/trace/setting"),
                Get("/v2/logging"),
                Call("TraceSetting"),
                Call("LogSettings"),
            ],
        ),
    ];
    check("Open Inference Protocol, and Triton's extensions", lines, expect![[r#"
        `GET /v2/health/live`
          200 {"live":true}
        `GET /v2/health/ready`
          200 {"ready":true}
        `GET /v2/models/{model}/ready`
          200 {"name":"half","ready":true}
          200 {"name":"half","version":"1","ready":true}
          404 {"error":"model `half` has no version `2`; known: 1","code":"not_found"}
        `GET /v2`, `GET /v2/`
          200 {"name":"quern","version":"0.1.0","extensions":["binary_tensor_data","model_configuration","model_repository","statistics"]}
          200 {"name":"quern","version":"0.1.0","extensions":["binary_tensor_data","model_configuration","model_repository","statistics"]}
        `GET …/stats`
          200 {"model_stats":[{"name":"counted","version":"1","last_inference":0,"inference_count":0,"execution_count":0,"inference_stats":{"success":{"count":0,"ns":0},"fail":{"count":0,"ns":0},"queue":null,"compute_input":{"count":0,"ns":0},"compute_infer":{"count":0,"ns":0},"compute_output":{"count":0,"ns":0},"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"batch_stats":[]}]}
          200 {"model_name":"counted","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[642.5]},{"name":"most_bytes","datatype":"BYTES","shape":[1,1],"data":["c"]}]}
          200 {"model_name":"counted","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[642.5]},{"name":"most_bytes","datatype":"BYTES","shape":[1,1],"data":["c"]}]}
          200 {"model_stats":[{"name":"counted","version":"1","last_inference":"some","inference_count":2,"execution_count":2,"inference_stats":{"success":{"count":2,"ns":"some"},"fail":{"count":0,"ns":0},"queue":null,"compute_input":{"count":0,"ns":0},"compute_infer":{"count":2,"ns":"some"},"compute_output":{"count":0,"ns":0},"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"batch_stats":[]}]}
          404 {"error":"model `counted` has no version `2`; known: 1","code":"not_found"}
        `ModelStatistics`
          counted 1: 2 rows in 2 runs
          counted 1: 2 rows in 2 runs
          NotFound: model `counted` has no version `2`; known: 1
          alone 1: 0 rows in 0 runs, carrier 1: 0 rows in 0 runs, class 1: 0 rows in 0 runs, counted 1: 2 rows in 2 runs, delay 1: 0 rows in 0 runs, half 1: 0 rows in 0 runs
        FP16 in JSON
          200 {"model_name":"half","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[32.59375]},{"name":"most_bytes","datatype":"BYTES","shape":[1,1],"data":["c"]}]}
          400 {"error":"input `x`, value 0: expected float16, found number 65520","code":"invalid_argument"}
        FP16 in raw bytes
          200 {"model_name":"half","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[482.0]},{"name":"most_bytes","datatype":"BYTES","shape":[1,1],"data":["c"]}]}
          FP32 482
          InvalidArgument: input `x`: `contents` has no field for FP16; send it in `raw_input_contents`
        FP16 as an output
          200 {"name":"half","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"tailnum","datatype":"BYTES","shape":[-1]},{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,1]},{"name":"most_bytes","datatype":"BYTES","shape":[-1,1]}]}
          200 {"predictions":[{"y":482.0,"most_bytes":"c"}]}
        BF16
          400 {"error":"input `x`: unknown datatype `BF16`; known: BOOL, BYTES, FP16, FP32, FP64, INT16, INT32, INT64, INT8, UINT16, UINT32, UINT64, UINT8","code":"invalid_argument"}
        shared memory, `classification`
          400 {"error":"`tailnum`: no memory is shared with clients; send and take the values themselves","code":"invalid_argument"}
          400 {"error":"output `y`: `classification` is not built; take the output itself","code":"invalid_argument"}
        `POST /v2/repository/models/{model}/load`, `…/unload`
          409 {"error":"models are not loaded one by one: they are part of the definitions, which `quern apply` makes live","code":"refused"}
          409 {"error":"models are not loaded one by one: they are part of the definitions, which `quern apply` makes live","code":"refused"}
        `POST …/generate`, trace and log settings
          404 {"error":"nothing answers at `/v2/models/half/generate`","code":"not_found"}
          404 {"error":"nothing answers at `/v2/trace/setting`","code":"not_found"}
          404 {"error":"nothing answers at `/v2/logging`","code":"not_found"}
          Unimplemented: TraceSetting is not built
          Unimplemented: LogSettings is not built
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensorflow_serving() {
    const ALONE: &str = "/v1/models/alone:predict";
    const DELAY: &str = "/v1/models/delay:predict";
    let b64 = |text: &str| json!({"b64": BASE64_STANDARD.encode(text)});
    let columns =
        json!({"tailnum": ["N1", "N3"], "distance": [2000, 10], "event_timestamp": [JANUARY_10, JANUARY_10]});
    let named = |name: &str| json!({"signature_name": name, "instances": [instance("N1", 2000.0)]});
    let lines: Vec<Line> = vec![
        ("`GET /v1/models/{model}`", vec![Get("/v1/models/delay"), Get("/v1/models/delays")]),
        (
            "`signature_name`",
            vec![
                Post(DELAY, named("serving_default")),
                Post(DELAY, named("")),
                Post(DELAY, named("classify")),
                Post(DELAY, json!({"signature_name": 1, "instances": []})),
            ],
        ),
        ("`instances`: objects", vec![Post(DELAY, json!({"instances": [instance("N1", 2000.0)]}))]),
        (
            "`instances`: bare values",
            vec![
                Post(ALONE, json!({"instances": ["N1", "N9", b64("N3"), {"tailnum": "N3"}]})),
                Post(ALONE, json!({"instances": ["N1", 7]})),
                Post(ALONE, json!({"instances": ["N1", null]})),
                Post(DELAY, json!({"instances": ["N1"]})),
            ],
        ),
        ("`inputs`: an object of arrays", vec![Post(DELAY, json!({"inputs": columns}))]),
        (
            "`inputs`: a bare array",
            vec![Post(ALONE, json!({"inputs": ["N1", "N9"]})), Post(DELAY, json!({"inputs": ["N1"]}))],
        ),
        (
            "`{\"b64\": …}`",
            vec![
                Post(ALONE, json!({"instances": [{"tailnum": b64("N1")}], "with_features": true})),
                Post(ALONE, json!({"inputs": {"tailnum": [b64("N1")]}})),
                Post(ALONE, json!({"inputs": {"tailnum": [{"b64": "/w=="}]}})),
            ],
        ),
        (
            "an output called `…_bytes`",
            vec![Post("/v1/models/half:predict", json!({"instances": [{"tailnum": "N1", "x": 1}]}))],
        ),
        ("errors", vec![Post(DELAY, json!({"instance": []})), Post("/v1/models/delays:predict", json!({}))]),
        (
            "`:classify`, `:regress`, `…/labels/{label}`",
            vec![
                Post("/v1/models/delay:classify", json!({})),
                Post("/v1/models/delay:regress", json!({})),
                Get("/v1/models/delay/labels/stable"),
            ],
        ),
    ];
    check("TensorFlow Serving", lines, expect![[r#"
        `GET /v1/models/{model}`
          200 {"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}
          404 {"error":"unknown model `delays`; did you mean `delay`? known: alone, carrier, class, counted, delay, half","code":"not_found"}
        `signature_name`
          200 {"predictions":[2175.5]}
          200 {"predictions":[2175.5]}
          400 {"error":"`signature_name`: unknown signature `classify`; a model has one, `serving_default`","code":"invalid_argument"}
          400 {"error":"`signature_name`: expected text, found number 1","code":"invalid_argument"}
        `instances`: objects
          200 {"predictions":[2175.5]}
        `instances`: bare values
          200 {"predictions":[258.0,null,-46.75,-46.75]}
          400 {"error":"instance 1: column `tailnum`: expected string, found number 7","code":"invalid_argument"}
          400 {"error":"instance 1: expected an object with `tailnum` (string), found null","code":"invalid_argument"}
          400 {"error":"instance 0: expected an object with `tailnum` (string), `distance` (float64), found string \"N1\"","code":"invalid_argument"}
        `inputs`: an object of arrays
          200 {"outputs":[2175.5,-12.0]}
        `inputs`: a bare array
          200 {"outputs":[258.0,null]}
          400 {"error":"`inputs`: a bare array says which column only where there is one; give an object with `tailnum`, `distance`","code":"invalid_argument"}
        `{"b64": …}`
          200 {"predictions":[258.0],"model_version":"1","feature_service":"alone_v1","features":{"names":["delay","twice","late"],"values":[[7.5,15.0,true]],"statuses":[["PRESENT","PRESENT","PRESENT"]],"event_timestamps":[["2013-01-02T10:00:00Z",null,null]]}}
          200 {"outputs":[258.0]}
          400 {"error":"entity 0: column `tailnum`: expected string, found an object of 1","code":"invalid_argument"}
        an output called `…_bytes`
          200 {"predictions":[{"y":321.5,"most_bytes":"c"}]}
        errors
          400 {"error":"unknown key `instance`; did you mean `instances`? known: inputs, instances, signature_name, with_features","code":"invalid_argument"}
          404 {"error":"unknown model `delays`; did you mean `delay`? known: alone, carrier, class, counted, delay, half","code":"not_found"}
        `:classify`, `:regress`, `…/labels/{label}`
          404 {"error":"a model cannot `classify`; POST to `delay:predict` to predict","code":"not_found"}
          404 {"error":"a model cannot `regress`; POST to `delay:predict` to predict","code":"not_found"}
          404 {"error":"nothing answers at `/v1/models/delay/labels/stable`","code":"not_found"}
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feasts_feature_server() {
    const LOOK_UP: &str = "/get-online-features";
    let asked = |entities: Value| json!({"feature_service": "alone_v1", "entities": entities});
    let times = json!([JANUARY_10_US]);
    let by_feature = json!({
        "features": ["plane_history:last_delay"], "full_feature_names": true,
        "entities": {"tailnum": ["N1"], "event_timestamp": times},
    });
    let by_service = json!({
        "feature_service": "alone_v1", "full_feature_names": true,
        "entities": {"tailnum": ["N1"], "event_timestamp": times},
    });
    let rows = json!({"tailnum": ["N1"], "seen_at": ["2013-01-09T00:00:00Z"], "speed": [450.5]});
    let speed = json!({"features": ["speeds:speed"], "entities": {"tailnum": ["N1"]}});
    let lines: Vec<Line> = vec![
        ("`GET /health`", vec![Get("/health")]),
        (
            "other columns in `entities`",
            vec![
                Post(LOOK_UP, asked(json!({"tailnum": ["N1"], "colour": ["red"], "event_timestamp": times}))),
                Post(LOOK_UP, asked(json!({"tailnum": ["N1"], "colour": ["red", "blue"]}))),
                Post(LOOK_UP, asked(json!({"tailnumm": ["N1"]}))),
                Post(LOOK_UP, asked(json!({"tailnum": ["N1"], "event_time": times}))),
            ],
        ),
        (
            "an entity's name in place of its join key",
            vec![Post(LOOK_UP, asked(json!({"plane": ["N1"], "event_timestamp": times})))],
        ),
        ("`full_feature_names`", vec![Post(LOOK_UP, by_feature), Post(LOOK_UP, by_service)]),
        (
            "`POST /push` without `to`",
            vec![
                Post("/push", json!({"push_source_name": "sightings", "df": rows})),
                Post(LOOK_UP, speed),
                Pushed("sightings"),
            ],
        ),
        (
            "`/materialize`, `/retrieve-online-documents`",
            vec![Post("/materialize", json!({})), Post("/retrieve-online-documents", json!({}))],
        ),
    ];
    check("Feast's feature server", lines, expect![[r#"
        `GET /health`
          200 {"ready":true}
        other columns in `entities`
          200 {"metadata":{"feature_names":["tailnum","delay","twice","late"],"feature_types":["string","float64","float64","bool"],"feature_view_metadata":[{"name":"ever","materialized_until":"2013-01-10T00:00:00Z"}]},"results":[{"values":["N1"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[7.5],"statuses":["PRESENT"],"event_timestamps":["2013-01-02T10:00:00Z"]},{"values":[15.0],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[true],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]}]}
          400 {"error":"column `colour` has 2 values and column `tailnum` has 1; all have one for each row","code":"invalid_argument"}
          400 {"error":"`entities`: unknown column `tailnumm`; did you mean `tailnum`? known: event_timestamp, tailnum","code":"invalid_argument"}
          200 {"metadata":{"feature_names":["tailnum","delay","twice","late"],"feature_types":["string","float64","float64","bool"],"feature_view_metadata":[{"name":"ever","materialized_until":"2013-01-10T00:00:00Z"}]},"results":[{"values":["N1"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[7.5],"statuses":["PRESENT"],"event_timestamps":["2013-01-02T10:00:00Z"]},{"values":[15.0],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[true],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]}]}
        an entity's name in place of its join key
          400 {"error":"`entities`: unknown column `plane`; known: event_timestamp, tailnum","code":"invalid_argument"}
        `full_feature_names`
          200 {"metadata":{"feature_names":["tailnum","plane_history__last_delay"],"feature_types":["string","float64"],"feature_view_metadata":[{"name":"plane_history","materialized_until":"2013-01-10T00:00:00Z"}]},"results":[{"values":["N1"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[7.5],"statuses":["PRESENT"],"event_timestamps":["2013-01-02T10:00:00Z"]}]}
          200 {"metadata":{"feature_names":["tailnum","ever__delay","twice","late"],"feature_types":["string","float64","float64","bool"],"feature_view_metadata":[{"name":"ever","materialized_until":"2013-01-10T00:00:00Z"}]},"results":[{"values":["N1"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[7.5],"statuses":["PRESENT"],"event_timestamps":["2013-01-02T10:00:00Z"]},{"values":[15.0],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[true],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]}]}
        `POST /push` without `to`
          200 {"accepted":1,"repeated":0,"rejected":[]}
          200 {"metadata":{"feature_names":["tailnum","speed"],"feature_types":["string","float64"],"feature_view_metadata":[{"name":"speeds","materialized_until":"2013-01-10T00:00:00Z"}]},"results":[{"values":["N1"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[450.5],"statuses":["PRESENT"],"event_timestamps":["2013-01-09T00:00:00Z"]}]}
          1 pushed
        `/materialize`, `/retrieve-online-documents`
          404 {"error":"nothing answers at `/materialize`","code":"not_found"}
          404 {"error":"nothing answers at `/retrieve-online-documents`","code":"not_found"}
    "#]]).await;
}
