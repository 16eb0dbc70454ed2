//! What do requests get that no honest program sends? An error in JSON that says what is wrong, and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;

use quern_kit::{Server, blocking};
use serde_json::{Value, json};

use crate::planes;

/// Asks as the path is written: clients put `%2e%2e` in order before anybody hears of it.
async fn ask(server: &Server, method: &str, path: &str, body: String) -> (u16, String) {
    let host = server.client.url().trim_start_matches("http://").to_owned();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    let reply = blocking(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    });
    let reply = reply.await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Status and words of a refusal; whatever else is answered is no refusal.
async fn refused(server: &Server, method: &str, path: &str, body: String) -> String {
    let shown: String = format!("{method} {path} {}", body.chars().take(80).collect::<String>());
    let (status, text) = ask(server, method, path, body).await;
    let reply: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{shown}: {status} {text}"));
    let error = reply["error"].as_str().unwrap_or_else(|| panic!("{shown}: {status} {text}"));
    assert!((400..500).contains(&status), "{shown}: {status} {error}");
    assert!(error.len() < 2_000, "{shown}: {} bytes are said", error.len());
    format!("{status} {error}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_depth_nan_duplicates_and_huge_shapes_are_refused() {
    let server = planes::serve().await;
    let predict = "/v1/models/delay:predict";
    let infer = "/v2/models/delay/infer";
    let tensor = |shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"distance","datatype":"FP64","shape":{shape},"data":{data}}}]}}"#)
    };
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let cases = [
        (predict, deep(200_000)),
        (predict, format!(r#"{{"instances":[{{"tailnum":{}}}]}}"#, deep(200_000))),
        (predict, r#"{"a":"#.repeat(100_000)),
        ("/get-online-features", format!(r#"{{"feature_service":"delay_v1","entities":{}}}"#, deep(200_000))),
        (infer, tensor("[1]", &deep(200_000))),
        (predict, r#"{"instances":[{"tailnum":"N1","distance":NaN}]}"#.to_owned()),
        (predict, r#"{"instances":[{"tailnum":"N1","distance":1e999}]}"#.to_owned()),
        (predict, r#"{"instances":[],"instances":[{"tailnum":"N1","distance":1}]}"#.to_owned()),
        (predict, r#"{"instances":[{"tailnum":"N1","tailnum":"N2","distance":1}]}"#.to_owned()),
        (infer, tensor("[9223372036854775807, 9223372036854775807]", "[1]")),
        (infer, tensor("[4294967296, 4294967296]", "[1]")),
        (infer, tensor("[18446744073709551616]", "[1]")),
        (infer, tensor("[-1]", "[1]")),
        (infer, format!(r#"{{"id":"{}","inputs":[]}}"#, "r".repeat(129))),
    ];
    for (path, body) in cases {
        let said = refused(&server, "POST", path, body.clone()).await;
        assert!(said.starts_with("400 "), "{}: {said}", body.chars().take(100).collect::<String>());
    }
    for twice in [r#""priority":1,"priority":2"#, r#""binary_data_output":true,"binary_data_output":false"#] {
        let body = format!(r#"{{"inputs":[],"parameters":{{{twice}}}}}"#);
        let said = refused(&server, "POST", infer, body).await;
        assert!(said.contains("is given twice"), "{said}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_28_names_in_paths_are_errors_in_json_and_reach_nothing() {
    let server = planes::serve().await;
    let names = [
        "%ff",
        "%2e%2e",
        "%2e",
        "%00",
        "a%00b",
        "%2e%2e%2fdelay",
        "delay%2f..",
        "%c0%ae",
        "%e0%80%af",
        "%zz",
    ];
    for name in names {
        for path in [
            format!("/v1/models/{name}"),
            format!("/v1/models/delay/versions/{name}"),
            format!("/v1/models/{name}/metadata"),
            format!("/v2/models/{name}"),
            format!("/v2/models/{name}/ready"),
            format!("/v2/models/delay/versions/{name}/config"),
        ] {
            refused(&server, "GET", &path, String::new()).await;
        }
        for path in [
            format!("/v1/models/{name}:predict"),
            format!("/v1/models/{name}:route"),
            format!("/v1/models/delay/versions/{name}:predict"),
            format!("/v2/models/{name}/infer"),
            format!("/v2/repository/models/{name}/load"),
        ] {
            refused(&server, "POST", &path, "{}".to_owned()).await;
        }
    }
    // A name as long as a body may be is looked for, neither compared with all others letter by letter nor said again.
    let long = "a".repeat(900_000);
    let bodies = [
        ("/v1/models/delay:predict", json!({ long.as_str(): 1 })),
        ("/v1/models/delay:predict", json!({"instances": [{ long.as_str(): 1 }]})),
        ("/get-online-features", json!({"feature_service": long, "entities": {}})),
        ("/get-online-features", json!({"features": [format!("{long}:a")], "entities": {}})),
        ("/push", json!({"push_source_name": long, "df": {}})),
        ("/v1/labels", json!({"model": long, "labels": [{"request_id": "a", "label": 1}]})),
        (
            "/v2/models/delay/infer",
            json!({"inputs": [{"name": long, "datatype": "FP32", "shape": [1], "data": [1]}]}),
        ),
    ];
    for (path, body) in bodies {
        refused(&server, "POST", path, body.to_string()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_flood_of_labels_ends_at_limits() {
    let server = planes::serve().await;
    let body = |labels: Vec<Value>| json!({"model": "delay", "labels": labels}).to_string();
    let columns = |from: usize, count: usize| {
        let mut label = json!({"request_id": "a", "row": 0});
        (from..from + count).for_each(|i| label[format!("c{i}")] = json!(i));
        body(vec![label])
    };
    assert_eq!(server.ask("POST", "/v1/labels", columns(0, 60)).await.0, 200);
    assert_eq!(server.ask("POST", "/v1/labels", columns(30, 34)).await.0, 200, "64 in all");
    let one = |label: Value| body(vec![json!({"request_id": "a", "c0": 1}), label]);
    let long = "r".repeat(900_000);
    for (body, expected) in [
        (columns(60, 10), "413 labels of a model have at most 64 columns; it has 64, and with `c64`"),
        (columns(0, 500), "413 labels of a model have at most 64 columns; it has 64, and with `c64`"),
        (columns(0, 15_000), "413 the labels have more than 1000 columns"),
        (one(json!({"request_id": long})), "413 label 1: `request_id` has 900000 bytes; it may have 128"),
        (
            one(json!({"request_id": "r".repeat(129)})),
            "413 label 1: `request_id` has 129 bytes; it may have 128",
        ),
        (one(json!({"request_id": "b", "t": long})), "413 label 1: `t` has 900000 bytes; it may have 1024"),
        (one(json!({"request_id": "b", long.as_str(): 1})), "413 the labels' column `rrr"),
        (body(vec![json!({"request_id": "a", "c0": 1}); 10_001]), "413 `labels` has 10001 entries"),
    ] {
        let said = refused(&server, "POST", "/v1/labels", body).await;
        assert!(said.starts_with(expected), "{expected}: {said}");
    }
    // Nothing of what was refused is kept, and what was known before is taken on.
    assert_eq!(server.ask("POST", "/v1/labels", columns(0, 64)).await.0, 200);
    assert_eq!(server.ask("POST", "/v1/labels", one(json!({"request_id": "r".repeat(128)}))).await.0, 200);
    server.stop().await;
}

/// What a client leaves half said, or says in another way, is no fault of the server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_break_off_or_are_none_are_their_clients() {
    let server = planes::serve().await;
    let message = |promised: u8, bytes: &[u8]| [&[0, 0, 0, 0, promised], bytes].concat();
    for (call, message, code) in [
        ("inference.GRPCInferenceService/ModelInfer", message(9, b"\x0a"), "10"),
        ("inference.GRPCInferenceService/ModelInfer", message(2, b"\xff\xff"), "3"),
        ("arrow.flight.protocol.FlightService/DoExchange", message(9, b"\x0a"), "10"),
    ] {
        let request = server.http.post(server.address(&format!("/{call}")));
        let reply = request.header("content-type", "application/grpc").body(message).send().await.unwrap();
        let said = reply.headers().get("grpc-message").cloned();
        assert_eq!(reply.headers().get("grpc-status").unwrap(), code, "{call}: {said:?}");
    }
}

/// Of `/v1/check`, `/v1/plan` and `/v1/apply`, which may take long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_checked_within_the_time_that_a_request_has() {
    let server = planes::serve().await;
    for path in ["/v1/check", "/v1/plan", "/v1/apply"] {
        let request = server.http.post(server.address(path)).header("x-request-timeout-ms", "0");
        let late = request.header("content-type", "application/json").body("{}").send().await.unwrap();
        assert_eq!(late.status(), 504, "{path}");
    }
}
