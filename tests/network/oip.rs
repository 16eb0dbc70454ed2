//! What does a client of the Open Inference Protocol read, over REST and over gRPC, and one of TensorFlow Serving?

use std::io::Write;

use expect_test::{Expect, expect};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::bytes::Bytes;
use quern_kit::Server;
use serde_json::{Value, json};
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::planes::{self, JANUARY_10, JANUARY_10_US, instance};

/// Three planes, a tensor for each column; the distances have this datatype.
fn inputs(distances: &str) -> Value {
    json!([
        {"name": "tailnum", "datatype": "BYTES", "shape": [3], "data": ["N1", "N2", "N3"]},
        {"name": "distance", "datatype": distances, "shape": [3, 1], "data": [[2000], [10.0], [10]]},
        {"name": "event_timestamp", "datatype": "INT64", "shape": [3], "data": [JANUARY_10_US, JANUARY_10_US, JANUARY_10_US]},
    ])
}

async fn get(server: &Server, path: &str) -> String {
    let (status, text) = server.ask("GET", path, "").await;
    format!("{status} {text}\n")
}

async fn infer(server: &Server, model: &str, request: &Value) -> String {
    let (status, text) = server.ask("POST", &format!("/v2/models/{model}/infer"), request.to_string()).await;
    format!("{status} {text}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_what_it_serves() {
    let server = planes::serve().await;
    let mut text = String::new();
    for path in [
        "/v2",
        "/v2/models/delay",
        "/v2/models/carrier/versions/1",
        "/v2/models/class",
        "/v2/models/delay/ready",
        "/v2/models/delay/versions/2/ready",
        "/v2/models/carrier/config",
        "/v1/models/delay",
        "/v1/models/delay/versions/1",
        "/v1/models/delay/versions/2",
        "/v1/models/delay/metadata",
    ] {
        text += &format!("{path}\n  {}", get(&server, path).await);
    }
    let (status, index) = server.ask("POST", "/v2/repository/index", "{}").await;
    text += &format!("{status} {index}\n");
    text += &server.refusal("POST", "/v2/repository/models/delay/load", "{}").await;
    expect![[r#"
        /v2
          200 {"name":"quern","version":"0.1.0","extensions":["binary_tensor_data","model_configuration","model_repository","statistics"]}
        /v2/models/delay
          200 {"name":"delay","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"tailnum","datatype":"BYTES","shape":[-1]},{"name":"distance","datatype":"FP64","shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,1]}]}
        /v2/models/carrier/versions/1
          200 {"name":"carrier","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"tailnum","datatype":"BYTES","shape":[-1]},{"name":"distance","datatype":"FP32","shape":[-1]}],"outputs":[{"name":"code","datatype":"INT64","shape":[-1,1]},{"name":"both","datatype":"FP32","shape":[-1,2]},{"name":"name","datatype":"BYTES","shape":[-1,1]},{"name":"is_ua","datatype":"BOOL","shape":[-1,1]}]}
        /v2/models/class
          200 {"name":"class","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"tailnum","datatype":"BYTES","shape":[-1]},{"name":"distance","datatype":"FP64","shape":[-1]}],"outputs":[{"name":"output_label","datatype":"BYTES","shape":[-1]},{"name":"output_probability","datatype":"BYTES","shape":[-1]}]}
        /v2/models/delay/ready
          200 {"name":"delay","ready":true}
        /v2/models/delay/versions/2/ready
          404 {"error":"model `delay` has no version `2`; known: 1","code":"not_found"}
        /v2/models/carrier/config
          200 {"name":"carrier","platform":"onnxruntime_onnx","backend":"onnxruntime","max_batch_size":0,"input":[{"name":"tailnum","data_type":"TYPE_STRING","dims":[-1]},{"name":"distance","data_type":"TYPE_FP32","dims":[-1]},{"name":"event_timestamp","data_type":"TYPE_INT64","dims":[-1],"optional":true}],"output":[{"name":"code","data_type":"TYPE_INT64","dims":[-1,1]},{"name":"both","data_type":"TYPE_FP32","dims":[-1,2]},{"name":"name","data_type":"TYPE_STRING","dims":[-1,1]},{"name":"is_ua","data_type":"TYPE_BOOL","dims":[-1,1]}]}
        /v1/models/delay
          200 {"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}
        /v1/models/delay/versions/1
          200 {"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}
        /v1/models/delay/versions/2
          404 {"error":"model `delay` has no version `2`; known: 1","code":"not_found"}
        /v1/models/delay/metadata
          200 {"model_spec":{"name":"delay","signature_name":"","version":"1"},"metadata":{"signature_def":{"signature_def":{"serving_default":{"inputs":{"tailnum":{"dtype":"DT_STRING","tensor_shape":{"dim":[{"size":"-1","name":""}],"unknown_rank":false},"name":"tailnum"},"distance":{"dtype":"DT_DOUBLE","tensor_shape":{"dim":[{"size":"-1","name":""}],"unknown_rank":false},"name":"distance"}},"outputs":{"y":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1","name":""}],"unknown_rank":false},"name":"y"}},"method_name":"tensorflow/serving/predict"}}}}}
        200 [{"name":"carrier","version":"1","state":"READY","reason":""},{"name":"class","version":"1","state":"READY","reason":""},{"name":"delay","version":"1","state":"READY","reason":""}]
        409 refused: models are not loaded one by one: they are part of the definitions, which `quern apply` makes live"#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_over_rest() {
    let server = planes::serve().await;
    let mut text = String::new();
    // A narrower number than the column has is no other number; a wider one may be.
    for (model, distances) in [
        ("delay", "FP64"),
        ("delay", "FP32"),
        ("delay", "INT32"),
        ("carrier", "FP32"),
        ("carrier", "FP64"),
        ("class/versions/1", "FP64"),
    ] {
        text += &infer(&server, model, &json!({"id": "a", "inputs": inputs(distances)})).await;
    }
    let some = json!({"inputs": inputs("FP32"), "outputs": [{"name": "name"}, {"name": "both"}]});
    text += &infer(&server, "carrier", &some).await;
    expect![[r#"
        200 {"model_name":"delay","model_version":"1","id":"a","outputs":[{"name":"y","datatype":"FP32","shape":[3,1],"data":[2175.5,null,-12.0]}]}
        200 {"model_name":"delay","model_version":"1","id":"a","outputs":[{"name":"y","datatype":"FP32","shape":[3,1],"data":[2175.5,null,-12.0]}]}
        200 {"model_name":"delay","model_version":"1","id":"a","outputs":[{"name":"y","datatype":"FP32","shape":[3,1],"data":[2175.5,null,-12.0]}]}
        200 {"model_name":"carrier","model_version":"1","id":"a","outputs":[{"name":"code","datatype":"INT64","shape":[3,1],"data":[2,-1,-1]},{"name":"both","datatype":"FP32","shape":[3,2],"data":[2000.0,4000.0,10.0,20.0,10.0,20.0]},{"name":"name","datatype":"BYTES","shape":[3,1],"data":["DL","none","none"]},{"name":"is_ua","datatype":"BOOL","shape":[3,1],"data":[false,false,false]}]}
        400 {"error":"input `distance`: float32 is FP32 here, found FP64","code":"invalid_argument"}
        200 {"model_name":"class","model_version":"1","id":"a","outputs":[{"name":"output_label","datatype":"BYTES","shape":[3],"data":["late","early","early"]},{"name":"output_probability","datatype":"BYTES","shape":[3],"data":["{\"early\":0.13579833507537842,\"late\":0.7757564783096313,\"never\":0.08844517171382904}","{\"early\":null,\"late\":null,\"never\":null}","{\"early\":0.8865002393722534,\"late\":0.11319074779748917,\"never\":0.0003090111131314188}"]}]}
        200 {"model_name":"carrier","model_version":"1","outputs":[{"name":"name","datatype":"BYTES","shape":[3,1],"data":["DL","none","none"]},{"name":"both","datatype":"FP32","shape":[3,2],"data":[2000.0,4000.0,10.0,20.0,10.0,20.0]}]}
    "#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_feature_vectors_over_rest() {
    let server = planes::serve().await;
    let ask = async |model: &str, inputs: Value| infer(&server, model, &json!({"inputs": inputs})).await;
    let column = |name: &str, datatype: &str, data: Value| json!({"name": name, "datatype": datatype, "shape": [2], "data": data});
    let mut text = String::new();
    // By column; null is what is missing.
    text += &ask(
        "delay",
        json!([
            column("distance", "FP64", json!([2000, 10])),
            column("last_delay", "FP32", json!([7.5, null])),
            column("far", "BOOL", json!([true, false])),
        ]),
    )
    .await;
    // As the model itself takes it: `far` is a number there.
    let tensor =
        json!({"name": "input", "datatype": "FP32", "shape": [2, 3], "data": [2000, 7.5, 1, 10, null, 0]});
    text += &ask("delay", json!([tensor])).await;
    // A model with an input for each column.
    text += &ask(
        "carrier",
        json!([
            column("carrier", "BYTES", json!(["DL", null])),
            column("distance", "FP32", json!([2000, 10]))
        ]),
    )
    .await;
    expect![[r#"
        200 {"model_name":"delay","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2,1],"data":[2175.5,null]}]}
        200 {"model_name":"delay","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[2,1],"data":[2175.5,null]}]}
        200 {"model_name":"carrier","model_version":"1","outputs":[{"name":"code","datatype":"INT64","shape":[2,1],"data":[2,-1]},{"name":"both","datatype":"FP32","shape":[2,2],"data":[2000.0,4000.0,10.0,20.0]},{"name":"name","datatype":"BYTES","shape":[2,1],"data":["DL","none"]},{"name":"is_ua","datatype":"BOOL","shape":[2,1],"data":[false,false]}]}
    "#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_raw_tensors_go_both_ways_and_a_binary_header_that_lies_is_refused() {
    let server = planes::serve().await;
    let raw: Vec<Vec<u8>> = vec![
        texts(&["N1", "N3"]),
        [2000.0_f32, 10.0].iter().flat_map(|x| x.to_le_bytes()).collect(),
        texts(&[JANUARY_10, JANUARY_10]),
    ];
    let input = |(name, datatype, raw): (&str, &str, &Vec<u8>)| json!({"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": raw.len()}});
    let columns =
        [("tailnum", "BYTES", &raw[0]), ("distance", "FP32", &raw[1]), ("event_timestamp", "BYTES", &raw[2])];
    let inputs: Vec<Value> = columns.map(input).to_vec();
    let outputs = json!([
        {"name": "name", "parameters": {"binary_data": true}},
        {"name": "code", "parameters": {"binary_data": false}},
        {"name": "both"}, {"name": "is_ua"},
    ]);
    let request = json!({"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": true}});
    let head = request.to_string();
    let ask = async |length: String, body: Vec<u8>| {
        let url = server.address("/v2/models/carrier/infer");
        let asked = server.http.post(url).header("Inference-Header-Content-Length", length).body(body);
        asked.send().await.unwrap()
    };
    let whole = [head.as_bytes(), &raw.concat()].concat();
    let reply = ask(head.len().to_string(), whole.clone()).await;
    let length: usize = reply.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let body = reply.bytes().await.unwrap();
    expect![[r#"{"model_name":"carrier","model_version":"1","outputs":[{"name":"name","datatype":"BYTES","shape":[2,1],"parameters":{"binary_data_size":14}},{"name":"code","datatype":"INT64","shape":[2,1],"data":[2,-1]},{"name":"both","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}},{"name":"is_ua","datatype":"BOOL","shape":[2,1],"parameters":{"binary_data_size":2}}]}"#]].assert_eq(std::str::from_utf8(&body[..length]).unwrap());
    let mut wanted = texts(&["DL", "none"]);
    wanted.extend([2000.0_f32, 4000.0, 10.0, 20.0].iter().flat_map(|x| x.to_le_bytes()));
    wanted.extend([0, 0]);
    assert_eq!(&body[length..], wanted);

    let mut text = String::new();
    for (length, body) in [
        (head.len().to_string(), whole[..whole.len() - 1].to_vec()),
        (head.len().to_string(), [&whole[..], b"!"].concat()),
        ((whole.len() + 1).to_string(), whole.clone()),
        ("all".to_owned(), whole),
    ] {
        let reply = ask(length, body).await;
        text += &format!("{} {}\n", reply.status().as_u16(), reply.text().await.unwrap());
    }
    expect![[r#"
        400 {"error":"input `event_timestamp`: `binary_data_size` is 48, and 47 bytes are left","code":"invalid_argument"}
        400 {"error":"1 bytes are left of the body; no input's `binary_data_size` has them","code":"invalid_argument"}
        400 {"error":"header `Inference-Header-Content-Length`: expected the length of the JSON, at most the body's 535 bytes","code":"invalid_argument"}
        400 {"error":"header `Inference-Header-Content-Length`: expected the length of the JSON, at most the body's 535 bytes","code":"invalid_argument"}
    "#]].assert_eq(&text);
}

/// Texts in the protocol's raw form.
fn texts(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()).collect()
}

/// What is wrong with a request, and how it becomes so.
type Wrong<'a> = (&'a str, fn(&mut Value));

/// What is said of a wrong request: each case is the inputs of the three planes, changed.
async fn check_refusals(model: &str, cases: &[Wrong<'_>], expected: Expect) {
    let server = planes::serve().await;
    let mut text = String::new();
    for (case, change) in cases {
        let mut request = json!({"inputs": inputs("FP64")});
        change(&mut request);
        let path = format!("/v2/models/{model}/infer");
        text += &format!("{case}\n  {}\n", server.refusal("POST", &path, request.to_string()).await);
    }
    expected.assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_request_is_told_what_is_wrong() {
    check_refusals(
        "delay",
        &[
            ("none", |request| request["inputs"] = json!([])),
            ("missing", |request| drop(request["inputs"].as_array_mut().unwrap().remove(1))),
            ("a feature missing", |request| {
                request["inputs"][0]["name"] = "last_delay".into();
                drop(request["inputs"].as_array_mut().unwrap().pop());
            }),
            ("unknown", |request| request["inputs"][1]["name"] = "distanse".into()),
            ("mixed", |request| request["inputs"][1]["name"] = "last_delay".into()),
            ("twice", |request| request["inputs"][1]["name"] = "tailnum".into()),
            ("datatype", |request| request["inputs"][1]["datatype"] = "BF16".into()),
            ("another datatype", |request| {
                request["inputs"][1]["datatype"] = "BYTES".into();
                request["inputs"][1]["data"] = json!(["far", "far", "far"]);
            }),
            ("a text in numbers", |request| request["inputs"][1]["data"][1] = "far".into()),
            ("shape", |request| request["inputs"][1]["shape"] = json!([3, 2])),
            ("matrix", |request| {
                request["inputs"][1]["shape"] = json!([3, 2]);
                request["inputs"][1]["data"] = json!([1, 2, 3, 4, 5, 6]);
            }),
            ("negative", |request| request["inputs"][1]["shape"] = json!([-3])),
            ("rows", |request| {
                request["inputs"][1]["shape"] = json!([2]);
                request["inputs"][1]["data"] = json!([1, 2]);
            }),
            ("time", |request| {
                request["inputs"][2]["datatype"] = "BYTES".into();
                request["inputs"][2]["data"] = json!(["soon", "soon", "soon"]);
            }),
            ("no data", |request| drop(request["inputs"][0].as_object_mut().unwrap().remove("data"))),
            ("output", |request| request["outputs"] = json!([{"name": "z"}])),
            ("key", |request| request["input"] = json!([])),
            ("timeout", |request| request["parameters"] = json!({"timeout": -1})),
            ("priority", |request| request["parameters"] = json!({"priority": "high"})),
            ("shared memory", |request| {
                request["inputs"][0]["parameters"] = json!({"shared_memory_region": "r"});
            }),
            ("too many", |request| {
                request["inputs"] = json!([{"name": "tailnum", "datatype": "BYTES", "shape": [10_001], "data": vec!["N1"; 10_001]}]);
            }),
        ],
        expect![[r#"
            none
              400 invalid_argument: `inputs` is empty: give a tensor for each column
            missing
              400 invalid_argument: input `distance` is missing. Give what an instance brings: `tailnum` BYTES [-1], `distance` FP64 [-1], and `event_timestamp` where it is not now; or its whole feature vector: `distance` FP64 [-1], `last_delay` FP64 [-1], `far` BOOL [-1]; or what the model itself takes: `input` FP32 [-1, 3]
            a feature missing
              400 invalid_argument: input `far` is missing. Give what an instance brings: `tailnum` BYTES [-1], `distance` FP64 [-1], and `event_timestamp` where it is not now; or its whole feature vector: `distance` FP64 [-1], `last_delay` FP64 [-1], `far` BOOL [-1]; or what the model itself takes: `input` FP32 [-1, 3]
            unknown
              400 invalid_argument: unknown input `distanse`; did you mean `distance`? Give what an instance brings: `tailnum` BYTES [-1], `distance` FP64 [-1], and `event_timestamp` where it is not now; or its whole feature vector: `distance` FP64 [-1], `last_delay` FP64 [-1], `far` BOOL [-1]; or what the model itself takes: `input` FP32 [-1, 3]
            mixed
              400 invalid_argument: the inputs are of several kinds. Give what an instance brings: `tailnum` BYTES [-1], `distance` FP64 [-1], and `event_timestamp` where it is not now; or its whole feature vector: `distance` FP64 [-1], `last_delay` FP64 [-1], `far` BOOL [-1]; or what the model itself takes: `input` FP32 [-1, 3]
            twice
              400 invalid_argument: input `tailnum` is given twice
            datatype
              400 invalid_argument: input `distance`: unknown datatype `BF16`; known: BOOL, BYTES, FP16, FP32, FP64, INT16, INT32, INT64, INT8, UINT16, UINT32, UINT64, UINT8
            another datatype
              400 invalid_argument: input `distance`: float64 is FP64 here, found BYTES
            a text in numbers
              400 invalid_argument: input `distance`, value 1: expected float64, found string "far"
            shape
              400 invalid_argument: input `distance`: the shape [3, 2] does not hold 3 values
            matrix
              400 invalid_argument: input `distance`: float64 is FP64 [-1] here, found the shape [3, 2]
            negative
              400 invalid_argument: input `distance`: the shape [-3] is none; its first number counts the instances
            rows
              400 invalid_argument: input `distance` has 2 rows and input `tailnum` has 3; all have one for each instance
            time
              400 invalid_argument: input `event_timestamp`, value 0: expected timestamp (RFC 3339, or whole microseconds), found string "soon"
            no data
              400 invalid_argument: input `tailnum`: `data` is missing
            output
              400 invalid_argument: unknown output `z`; known: y
            key
              400 invalid_argument: unknown key `input`; did you mean `inputs`? known: id, inputs, outputs, parameters
            timeout
              400 invalid_argument: parameter `timeout`: -1 is no number of microseconds
            priority
              400 invalid_argument: parameter `priority`: expected `batch` or `interactive`, found `high`
            shared memory
              400 invalid_argument: `tailnum`: no memory is shared with clients; send and take the values themselves
            too many
              413 too_large: the request brings 10001 instances, at most 10000 are answered at a time: split it, or pull a training set over Arrow Flight
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_is_read_up_to_the_same_limit() {
    let server = planes::serve().await;
    let zip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let sound = zip(&json!({"inputs": inputs("FP64")}).to_string());
    // Less than a hundredth of the limit, and twice as much as it once it is read.
    let bomb = zip(&" ".repeat(2_000_000));
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let mut text = String::new();
    for body in [sound.clone(), sound[..sound.len() - 9].to_vec(), b"no gzip".to_vec(), bomb.clone()] {
        let asked =
            server.http.post(server.address("/v2/models/delay/infer")).header("content-encoding", "gzip");
        let reply = asked.body(body).send().await.unwrap();
        text += &format!("{} {}\n", reply.status().as_u16(), reply.text().await.unwrap());
    }
    expect![[r#"
        200 {"model_name":"delay","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[3,1],"data":[2175.5,null,-12.0]}]}
        400 {"error":"the body broke off: unexpected end of file","code":"invalid_argument"}
        400 {"error":"the body broke off: Invalid gzip header","code":"invalid_argument"}
        413 {"error":"the body is larger than 1000000 bytes (`body_bytes_max`)","code":"too_large"}
    "#]].assert_eq(&text);

    // Whatever else takes a body reads it in the same way.
    let rows = json!({"instances": [instance("N1", 2000.0)]}).to_string();
    let entities = json!({"features": ["plane_history:seats"], "entities": {"tailnum": ["N1"]}}).to_string();
    let deflated = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(rows.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut text = String::new();
    for (path, encoding, body) in [
        ("/v1/models/delay:predict", "gzip", zip(&rows)),
        ("/v1/models/delay:predict", "X-GZIP", zip(&rows)),
        ("/v1/models/delay:predict", "deflate", deflated),
        ("/v1/models/delay:predict", "identity", rows.clone().into_bytes()),
        ("/v1/models/delay:predict", "gzip", bomb.clone()),
        ("/get-online-features", "gzip", zip(&entities)),
        ("/get-online-features", "gzip", bomb.clone()),
        ("/push", "gzip", zip("{\"push_source_name\": \"landings\", \"df\": {}}")),
        ("/push", "gzip", bomb.clone()),
        ("/v1/models/delay:route", "gzip", zip("{\"weights\": {}}")),
        ("/v1/labels", "gzip", zip("{\"model\": \"dely\", \"labels\": []}")),
        ("/v1/verify", "gzip", zip("{\"model\": \"dely\"}")),
        ("/v1/materialize", "gzip", bomb),
    ] {
        let asked = server.http.post(server.address(path)).header("content-encoding", encoding);
        let reply = asked.header("content-type", "application/json").body(body).send().await.unwrap();
        let (status, said) = (reply.status().as_u16(), reply.text().await.unwrap());
        text += &format!("{path} {encoding}: {status} {}\n", said.split("\"metadata\"").next().unwrap());
    }
    expect![[r#"
        /v1/models/delay:predict gzip: 200 {"predictions":[2175.5]}
        /v1/models/delay:predict X-GZIP: 200 {"predictions":[2175.5]}
        /v1/models/delay:predict deflate: 200 {"predictions":[2175.5]}
        /v1/models/delay:predict identity: 200 {"predictions":[2175.5]}
        /v1/models/delay:predict gzip: 413 {"error":"the body is larger than 1000000 bytes (`body_bytes_max`)","code":"too_large"}
        /get-online-features gzip: 200 {
        /get-online-features gzip: 413 {"error":"the body is larger than 1000000 bytes (`body_bytes_max`)","code":"too_large"}
        /push gzip: 409 {"error":"source `landings` takes no pushed rows; give it `push: true` (definitions.yaml:7) and apply","code":"refused"}
        /push gzip: 413 {"error":"the body is larger than 1000000 bytes (`body_bytes_max`)","code":"too_large"}
        /v1/models/delay:route gzip: 409 {"error":"model `delay` has no route; declare one (definitions.yaml:43) and apply: `route: {weights: {\"1\": 100}}` leaves all as it is","code":"refused"}
        /v1/labels gzip: 404 {"error":"unknown model `dely`; did you mean `delay`? known: carrier, class, delay","code":"not_found"}
        /v1/verify gzip: 404 {"error":"unknown model `dely`; did you mean `delay`? known: carrier, class, delay","code":"not_found"}
        /v1/materialize gzip: 413 {"error":"the body is larger than 1000000 bytes (`body_bytes_max`)","code":"too_large"}
    "#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_compression_and_wrong_terms_are_refused() {
    let server = planes::serve().await;
    let mut text = String::new();
    for (path, header, value) in [
        ("/v2/models/delay/infer", "content-encoding", "br"),
        ("/v1/models/delay:predict", "content-encoding", "zstd"),
        ("/get-online-features", "content-encoding", "gzip, deflate"),
        ("/v1/apply", "content-encoding", "compress"),
        ("/v2/models/delay/infer", "x-priority", "high"),
        ("/v1/models/delay:predict", "x-request-timeout-ms", "1.5"),
    ] {
        let asked = server.http.post(server.address(path)).header(header, value).body("{}");
        let reply = asked.send().await.unwrap();
        text += &format!("{} {}\n", reply.status().as_u16(), reply.text().await.unwrap());
    }
    expect![[r#"
        415 {"error":"the body is compressed (\"br\"); `gzip` and `deflate` are read here, one of them at a time, or the body as it is","code":"invalid_argument"}
        415 {"error":"the body is compressed (\"zstd\"); `gzip` and `deflate` are read here, one of them at a time, or the body as it is","code":"invalid_argument"}
        415 {"error":"the body is compressed (\"gzip, deflate\"); `gzip` and `deflate` are read here, one of them at a time, or the body as it is","code":"invalid_argument"}
        415 {"error":"the body is compressed (\"compress\"); `gzip` and `deflate` are read here, one of them at a time, or the body as it is","code":"invalid_argument"}
        400 {"error":"header `x-priority`: expected `batch` or `interactive`, found `high`","code":"invalid_argument"}
        400 {"error":"header `x-request-timeout-ms`: `1.5` is no number of milliseconds","code":"invalid_argument"}
    "#]].assert_eq(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_as_tensorflow_serving_has_them() {
    let server = planes::serve().await;
    let times = [JANUARY_10; 2];
    let columns = json!({"tailnum": ["N1", "N2"], "distance": [2000, 10], "event_timestamp": times});
    let mut text = String::new();
    for (model, body) in [
        ("delay", json!({"inputs": columns, "signature_name": "serving_default"})),
        ("carrier/versions/1", json!({"inputs": columns})),
        ("delay", json!({"inputs": ["N1"]})),
        ("delay", json!({"inputs": {"tailnum": ["N1"], "distance": [1, 2]}})),
        ("delay", json!({"inputs": {"tailnum": ["N1"], "distanse": [1]}})),
        ("delay", json!({"inputs": columns, "instances": []})),
        ("delay", json!({})),
    ] {
        let (status, reply) =
            server.ask("POST", &format!("/v1/models/{model}:predict"), body.to_string()).await;
        text += &format!("{status} {reply}\n");
    }
    expect![[r#"
        200 {"outputs":[2175.5,null]}
        200 {"outputs":{"code":[2,-1],"both":[[2000.0,4000.0],[10.0,20.0]],"name":["DL","none"],"is_ua":[false,false]}}
        400 {"error":"`inputs`: a bare array says which column only where there is one; give an object with `tailnum`, `distance`","code":"invalid_argument"}
        400 {"error":"column `distance` has 2 values and column `tailnum` has 1; all have one for each row","code":"invalid_argument"}
        400 {"error":"`inputs`: unknown column `distanse`; did you mean `distance`? known: distance, event_timestamp, tailnum","code":"invalid_argument"}
        400 {"error":"give either `instances` or `inputs`, not both","code":"invalid_argument"}
        400 {"error":"`instances` is missing: an array of objects; or `inputs`, an object of arrays","code":"invalid_argument"}
    "#]].assert_eq(&text);
}

/// The messages that the tests send and read, once more and apart from the server's own.
mod messages {
    use std::collections::HashMap;

    use prost::Message;
    use prost::bytes::Bytes;

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Ask {
        #[prost(string, tag = "1")]
        pub(in crate::network) model_name: String,
        #[prost(string, tag = "3")]
        pub(in crate::network) id: String,
        #[prost(message, repeated, tag = "5")]
        pub(in crate::network) inputs: Vec<Input>,
        #[prost(bytes = "bytes", repeated, tag = "7")]
        pub(in crate::network) raw_input_contents: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Input {
        #[prost(string, tag = "1")]
        pub(in crate::network) name: String,
        #[prost(string, tag = "2")]
        pub(in crate::network) datatype: String,
        #[prost(int64, repeated, tag = "3")]
        pub(in crate::network) shape: Vec<i64>,
        #[prost(message, optional, tag = "5")]
        pub(in crate::network) contents: Option<Contents>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Contents {
        #[prost(int64, repeated, tag = "3")]
        pub(in crate::network) int64: Vec<i64>,
        #[prost(double, repeated, tag = "7")]
        pub(in crate::network) fp64: Vec<f64>,
        #[prost(bytes = "bytes", repeated, tag = "8")]
        pub(in crate::network) bytes: Vec<Bytes>,
    }

    /// One that is a whole number.
    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Parameter {
        #[prost(int64, optional, tag = "2")]
        pub(in crate::network) int64: Option<i64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Answer {
        #[prost(string, tag = "1")]
        pub(in crate::network) model_name: String,
        #[prost(string, tag = "2")]
        pub(in crate::network) model_version: String,
        #[prost(string, tag = "3")]
        pub(in crate::network) id: String,
        #[prost(map = "string, message", tag = "4")]
        pub(in crate::network) parameters: HashMap<String, Parameter>,
        #[prost(message, repeated, tag = "5")]
        pub(in crate::network) outputs: Vec<Input>,
        #[prost(bytes = "bytes", repeated, tag = "6")]
        pub(in crate::network) raw_output_contents: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Named {
        #[prost(string, tag = "1")]
        pub(in crate::network) name: String,
        #[prost(string, tag = "2")]
        pub(in crate::network) version: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(in crate::network) struct Flag {
        #[prost(bool, tag = "1")]
        pub(in crate::network) is: bool,
    }
}
pub(super) use messages::{Answer, Ask, Contents, Input};
use messages::{Flag, Named};

/// One call over gRPC to the server at `url`, with metadata.
pub(super) async fn call<Q, R>(
    url: &str,
    call: &str,
    request: Q,
    metadata: &[(&'static str, &str)],
) -> tonic::Result<R>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let channel = tonic::transport::Endpoint::new(url.to_owned()).unwrap().connect().await.unwrap();
    call_over(channel, call, request, metadata).await
}

pub(super) async fn call_over<Q, R>(
    channel: tonic::transport::Channel,
    call: &str,
    request: Q,
    metadata: &[(&'static str, &str)],
) -> tonic::Result<R>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/inference.GRPCInferenceService/{call}").parse().unwrap();
    let mut request = tonic::Request::new(request);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    Ok(grpc.unary(request, path, ProstCodec::<Q, R>::default()).await?.into_inner())
}

/// Asks the model called `name` about one plane, and goes away where it is dropped.
pub(super) async fn infer_at(url: String, name: &str, distance: f64) -> tonic::Result<()> {
    let mut ask = asked();
    ask.model_name = name.to_owned();
    ask.inputs[1].contents = Some(Contents { fp64: vec![distance, 0.0], ..Contents::default() });
    call::<_, Answer>(&url, "ModelInfer", ask, &[]).await.map(drop)
}

fn asked() -> Ask {
    let input = |name: &str, datatype: &str, contents| Input {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![2],
        contents: Some(contents),
    };
    let planes = ["N1", "N3"].map(|name| Bytes::from_static(name.as_bytes())).to_vec();
    Ask {
        model_name: "delay".to_owned(),
        id: "7".to_owned(),
        inputs: vec![
            input("tailnum", "BYTES", Contents { bytes: planes, ..Contents::default() }),
            input("distance", "FP64", Contents { fp64: vec![2000.0, 10.0], ..Contents::default() }),
            input(
                "event_timestamp",
                "INT64",
                Contents { int64: vec![JANUARY_10_US; 2], ..Contents::default() },
            ),
        ],
        raw_input_contents: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_over_grpc() {
    let server = planes::serve().await;
    let scores: Bytes = [2175.5_f32, -12.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let output =
        Input { name: "y".to_owned(), datatype: "FP32".to_owned(), shape: vec![2, 1], contents: None };
    let wanted = Answer {
        model_name: "delay".to_owned(),
        model_version: "1".to_owned(),
        id: "7".to_owned(),
        parameters: Default::default(),
        outputs: vec![output],
        raw_output_contents: vec![scores],
    };
    let terms = [("grpc-timeout", "30S"), ("x-priority", "batch")];
    assert_eq!(call::<_, Answer>(server.client.url(), "ModelInfer", asked(), &terms).await.unwrap(), wanted);

    let mut raw = asked();
    raw.inputs.iter_mut().for_each(|input| input.contents = None);
    raw.raw_input_contents = vec![
        texts(&["N1", "N3"]).into(),
        [2000.0_f64, 10.0].iter().flat_map(|x| x.to_le_bytes()).collect(),
        [JANUARY_10_US; 2].iter().flat_map(|us| us.to_le_bytes()).collect(),
    ];
    assert_eq!(call::<_, Answer>(server.client.url(), "ModelInfer", raw, &[]).await.unwrap(), wanted);

    for (called, version, is) in [
        ("ServerLive", "", true),
        ("ServerReady", "", true),
        ("ModelReady", "1", true),
        ("ModelReady", "2", false),
    ] {
        let named = Named { name: "delay".to_owned(), version: version.to_owned() };
        assert_eq!(
            call::<_, Flag>(server.client.url(), called, named, &[]).await.unwrap(),
            Flag { is },
            "{called}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_call_over_grpc_is_told_what_is_wrong() {
    let server = planes::serve().await;
    let change = |change: fn(&mut Ask)| {
        let mut ask = asked();
        change(&mut ask);
        ask
    };
    let mut text = String::new();
    for (called, ask, metadata) in [
        ("ModelInfer", change(|ask| ask.model_name = "delays".to_owned()), vec![]),
        ("ModelInfer", change(|ask| drop(ask.inputs.remove(1))), vec![]),
        ("ModelInfer", change(|ask| ask.inputs[1].contents = None), vec![]),
        ("ModelInfer", change(|ask| ask.raw_input_contents = vec![Bytes::new()]), vec![]),
        ("ModelInfer", change(|ask| ask.raw_input_contents = vec![Bytes::new(); 3]), vec![]),
        (
            "ModelInfer",
            change(|ask| ask.inputs[0].contents.as_mut().unwrap().bytes[0] = Bytes::from_static(b"\xff")),
            vec![],
        ),
        ("ModelInfer", asked(), vec![("x-priority", "high")]),
        ("ModelInfer", change(|ask| ask.id = "7".repeat(1_000_001)), vec![]),
        ("RepositoryModelLoad", asked(), vec![]),
        ("TraceSetting", asked(), vec![]),
    ] {
        let refused = call::<_, Answer>(server.client.url(), called, ask, &metadata).await.unwrap_err();
        text += &format!("{:?}: {}\n", refused.code(), refused.message());
    }
    expect![[r#"
        NotFound: unknown model `delays`; did you mean `delay`? known: carrier, class, delay
        InvalidArgument: input `distance` is missing. Give what an instance brings: `tailnum` BYTES [-1], `distance` FP64 [-1], and `event_timestamp` where it is not now; or its whole feature vector: `distance` FP64 [-1], `last_delay` FP64 [-1], `far` BOOL [-1]; or what the model itself takes: `input` FP32 [-1, 3]
        InvalidArgument: input `distance`: the shape [2] does not hold 0 values
        InvalidArgument: `raw_input_contents` has 1 and `inputs` 3 entries; it has one for each, or none
        InvalidArgument: input `tailnum`: give either `contents` or `raw_input_contents`, not both
        InvalidArgument: input `tailnum`: invalid utf-8 sequence of 1 bytes from index 0
        InvalidArgument: header `x-priority`: expected `batch` or `interactive`, found `high`
        OutOfRange: Error, decoded message length too large: found 1000133 bytes, the limit is: 1000000 bytes
        FailedPrecondition: models are not loaded one by one: they are part of the definitions, which `quern apply` makes live
        Unimplemented: TraceSetting is not built
    "#]].assert_eq(&text);
}
