//! What is said to a web page of elsewhere that asks through a browser on the same machine? Over real sockets.

use std::net::SocketAddr;

use reqwest::{Client, RequestBuilder};
use serde_json::json;

use crate::planes;

const CHANGES: [&str; 11] = [
    "/v1/apply",
    "/v1/materialize",
    "/v1/seal",
    "/v1/scrub",
    "/v1/backup",
    "/v1/keys",
    "/v1/keys/revoke",
    "/push",
    "/write-to-online-store",
    "/v1/labels",
    "/v1/models/delay:route",
];

async fn said(request: RequestBuilder) -> (u16, String) {
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_something_is_not_done_for_a_form() {
    let server = planes::serve().await;
    for path in CHANGES {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let asked = server.http.post(server.address(path)).header("content-type", kind).body("{}");
            let (status, text) = said(asked).await;
            assert_eq!(status, 400, "{path} as {kind}: {text}");
            assert!(text.contains("needs the header `content-type: application/json`"), "{text}");
        }
        let (status, text) = said(server.http.post(server.address(path))).await;
        assert!(status == 400 && text.contains("found none"), "{path}: {status} {text}");
    }
    // What changes nothing takes what `curl -d` sends.
    let asked = server.http.post(server.address("/get-online-features"));
    let body = json!({"feature_service": "delay_v1", "entities": {"tailnum": ["N1"], "distance": [1.0]}});
    let asked = asked.header("content-type", "application/x-www-form-urlencoded").body(body.to_string());
    assert_eq!(said(asked).await.0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_elsewhere_are_not_answered() {
    let server = planes::serve().await;
    let address: SocketAddr = server.address("").trim_start_matches("http://").parse().unwrap();
    let one = Client::builder().http1_only().resolve("evil.example", address).build().unwrap();
    let two = Client::builder().http2_prior_knowledge().resolve("evil.example", address).build().unwrap();
    let rebound = format!("http://evil.example:{}", address.port());
    for client in [&one, &two] {
        // DNS rebinding: the page's own name leads here, and stands in `Host` or `:authority`.
        for path in ["/v1/definitions", "/metrics", "/v2/health/live", "/nothing"] {
            let (status, text) = said(client.get(format!("{rebound}{path}"))).await;
            assert!(status == 403 && text.contains("`hosts` in quern.yaml"), "{path}: {status} {text}");
        }
        let flight = client.post(format!("{rebound}/arrow.flight.protocol.FlightService/DoGet"));
        assert_eq!(said(flight.header("content-type", "application/grpc")).await.0, 403);
        for (name, value) in
            [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            for path in CHANGES.into_iter().chain(["/v1/models/delay:predict", "/v1/verify"]) {
                let asked = client.post(server.address(path)).header(name, value);
                let (status, text) = said(asked.header("content-type", "application/json").body("{}")).await;
                assert!(status == 403 && text.contains("\"refused\""), "{path} of {value}: {status} {text}");
            }
        }
        // A page of this server's own, and `localhost`, are at home.
        let origin = server.address("");
        let asked =
            client.get(server.address("/v1/definitions")).header("origin", origin.trim_end_matches('/'));
        assert_eq!(said(asked.header("sec-fetch-site", "same-origin")).await.0, 200);
        assert_eq!(
            said(client.get(format!("http://localhost:{}/v1/definitions", address.port()))).await.0,
            200
        );
    }
    server.stop().await;
}
