//! Who asks? What a server believes of keys and tokens, over HTTP, gRPC and Arrow Flight, and how little it tells whom
//! it does not believe.

pub(super) mod issuer;
mod people;
mod provider;
mod tokens;

use arrow_flight::Criteria;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use quern_kit::{Process, Repository, Server, fresh_database, run, until};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Endpoint;

use super::oip::call;

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: string}]\n";

/// A message without fields.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// A model's name, as gRPC has it.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// A server that asks everybody, with these settings besides, and a key of it.
async fn asking(settings: &[(&str, String)]) -> (Server, String) {
    let repository = Repository::new(DEFINITIONS);
    let ours = [("auth", "required".to_owned()), ("admins", "key:ann".to_owned())];
    let settings = [&ours, settings].concat();
    let node = repository.open_with(&settings).await.unwrap();
    let key = node.key("ann").await;
    (Server::of(repository, node).await, key)
}

async fn said(request: RequestBuilder) -> (u16, String, String) {
    let reply = request.send().await.unwrap();
    let challenge = reply.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    (reply.status().as_u16(), challenge.unwrap_or_default(), reply.text().await.unwrap())
}

/// What one bearer is told over HTTP, over gRPC and over Flight: the status, or the words of the refusal.
async fn everywhere(server: &Server, bearer: &str) -> [String; 3] {
    let authorization = format!("Bearer {bearer}");
    let asked = server.http.get(server.address("/v1/definitions")).header("authorization", &authorization);
    let (status, _, text) = said(asked).await;
    let told =
        |text: &str| serde_json::from_str::<Value>(text).unwrap()["error"].as_str().unwrap().to_owned();
    let http = if status == 200 { "OK".to_owned() } else { format!("{status} {}", told(&text)) };
    let metadata = [("authorization", &*authorization)];
    let grpc = call::<_, Empty>(server.client.url(), "ServerMetadata", Empty {}, &metadata).await.map(drop);
    let flight = flights(server, &[&authorization]).await;
    let shown = |result: Result<(), tonic::Status>| match result {
        Ok(()) => "OK".to_owned(),
        Err(status) => format!("{:?} {}", status.code(), status.message()),
    };
    [http, shown(grpc), shown(flight)]
}

async fn flights(server: &Server, authorizations: &[&str]) -> Result<(), tonic::Status> {
    let channel = Endpoint::new(server.client.url().to_owned()).unwrap().connect().await.unwrap();
    let mut request = tonic::Request::new(Criteria::default());
    for authorization in authorizations {
        request.metadata_mut().append("authorization", authorization.parse().unwrap());
    }
    FlightServiceClient::new(channel).list_flights(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_anything() {
    let (server, key) = asking(&[]).await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1/definitions"),
        ("GET", "/v1/status"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("POST", "/v1/keys/revoke"),
        ("POST", "/v1/apply"),
        ("POST", "/get-online-features"),
        ("POST", "/v2/models/delay/infer"),
        ("POST", "/v2/health/live"),
        ("DELETE", "/v1/definitions"),
        ("GET", "/nothing/here"),
        ("OPTIONS", "/"),
    ] {
        let asked = server.http.request(method.parse().unwrap(), server.address(path)).body("{");
        let (status, challenge, text) = said(asked).await;
        assert_eq!((status, &*challenge), (401, "Bearer"), "{method} {path}: {text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["code"], "unauthenticated", "{text}");
        assert!(told["error"].as_str().unwrap().starts_with("say who asks"), "{text}");
    }
    for path in ["/v2/health/live", "/v2/health/ready", "/health"] {
        let (status, _, text) = said(server.http.get(server.address(path))).await;
        // Nothing was applied.
        assert_eq!(status, if path.ends_with("live") { 200 } else { 503 }, "{text}");
    }
    let url = server.client.url();
    for name in ["ServerLive", "ServerReady"] {
        call::<_, Empty>(url, name, Empty {}, &[]).await.unwrap();
    }
    for name in ["ServerMetadata", "RepositoryIndex", "ModelStatistics", "Nothing"] {
        let status = call::<_, Empty>(url, name, Empty {}, &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
    }
    let ask = Named { name: "delay".to_owned() };
    let status = call::<_, Empty>(url, "ModelMetadata", ask.clone(), &[]).await.unwrap_err();
    assert!(
        status.code() == Code::Unauthenticated && status.message().starts_with("say who asks"),
        "{status}"
    );
    assert_eq!(flights(&server, &[]).await.unwrap_err().code(), Code::Unauthenticated);

    // With a key, paths are what they are.
    assert_eq!(everywhere(&server, &key).await, ["OK", "OK", "OK"]);
    let asked = |path: &str| server.http.get(server.address(path)).header("x-api-key", &key);
    assert_eq!(said(asked("/nothing/here")).await.0, 404);
    assert_eq!(said(asked("/v1/definitions")).await.0, 200);
    let metadata = [("x-api-key", &*key)];
    let status = call::<_, Empty>(url, "ModelMetadata", ask, &metadata).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let metrics = said(asked("/metrics")).await.2;
    let missing = quern_kit::metric(&metrics, "quern_refused_credentials_total{why=\"missing\"}");
    assert!(missing >= Some(20.0), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_two_headers_and_other_schemes() {
    let (server, key) = asking(&[]).await;
    let bearer = format!("Bearer {key}");
    let asked = || server.http.get(server.address("/v1/definitions"));
    let twice = asked().header("authorization", &bearer).header("authorization", &bearer);
    let (status, _, text) = said(twice).await;
    assert!(status == 400 && text.contains("a request has one `authorization`"), "{status} {text}");
    let twice = asked().header("x-api-key", &key).header("x-api-key", "other");
    assert_eq!(said(twice).await.0, 400);
    // The bearer counts where two credentials contradict each other.
    assert_eq!(said(asked().header("authorization", &bearer).header("x-api-key", "other")).await.0, 200);
    let (status, challenge, _) =
        said(asked().header("authorization", "Bearer other").header("x-api-key", &key)).await;
    assert_eq!((status, &*challenge), (401, "Bearer error=\"invalid_token\""));
    for other in [format!("Basic {key}"), key.clone(), "Bearer".to_owned(), "Negotiate YII=".to_owned()] {
        let (status, challenge, text) = said(asked().header("authorization", other)).await;
        assert_eq!((status, &*challenge), (401, "Bearer"), "{text}");
    }
    let url = server.client.url();
    let status =
        call::<_, Empty>(url, "ServerMetadata", Empty {}, &[("authorization", "Basic x")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // Over gRPC too, since they are the same headers.
    let status = flights(&server, &[&bearer, &bearer]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_is_asked_what_is_said_is_looked_at() {
    let repository = Repository::new(DEFINITIONS);
    let node = repository.open().await;
    let key = node.key("ann").await;
    let server = Server::of(repository, node).await;
    let asked = |bearer: &str| {
        server.http.get(server.address("/v1/definitions")).header("authorization", bearer.to_owned())
    };
    assert_eq!(said(server.http.get(server.address("/v1/definitions"))).await.0, 200);
    assert_eq!(said(asked(&format!("Bearer {key}"))).await.0, 200);
    // What a proxy in front is told.
    assert_eq!(said(asked("Basic dTpw")).await.0, 200);
    let other = format!("Bearer {}x", &key[..key.len() - 1]);
    assert_eq!(said(asked(&other)).await.0, 401);
    assert_eq!(said(asked("Bearer a.b.c")).await.0, 401);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_and_go() {
    let (server, first) = asking(&[]).await;
    let ask = async |method: &str, path: &str, body: Value, key: &str| {
        let asked = server.http.request(method.parse().unwrap(), server.address(path)).bearer_auth(key);
        let (status, _, text) = said(asked.json(&body)).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let make = async |body: Value| ask("POST", "/v1/keys", body, &first).await;
    let (status, made) = make(json!({"name": "checkout", "expires": "90d"})).await;
    assert_eq!(status, 200, "{made}");
    let key = made["key"].as_str().unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(key.starts_with(&format!("quern_{id}_")) && key.ends_with(made["last_four"].as_str().unwrap()));
    assert_eq!((&made["name"], &made["state"]), (&json!("checkout"), &json!("valid")));
    assert_eq!(everywhere(&server, key).await, ["OK", "OK", "OK"]);

    // Two of a name, so that one takes the place of the other; no third.
    let (status, next) = make(json!({"name": "checkout"})).await;
    assert_eq!(status, 200, "{next}");
    let (status, refused) = make(json!({"name": "checkout"})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("refused")), "{refused}");
    let (status, revoked) = ask("POST", "/v1/keys/revoke", json!({"key": id}), &first).await;
    assert_eq!((status, &revoked["keys"][0]["state"]), (200, &json!("revoked")), "{revoked}");
    assert_eq!(revoked["keys"].as_array().unwrap().len(), 1);
    let told = "the key is not valid here";
    let [http, grpc, flight] = everywhere(&server, key).await;
    assert_eq!((http, &grpc), (format!("401 {told}"), &format!("Unauthenticated {told}")));
    assert_eq!(flight, grpc);
    let next = next["key"].as_str().unwrap();
    assert_eq!(everywhere(&server, next).await, ["OK", "OK", "OK"]);
    assert_eq!(make(json!({"name": "checkout"})).await.0, 200);
    // By name, all of them; those too that were revoked before are told.
    let (status, revoked) = ask("POST", "/v1/keys/revoke", json!({"key": "checkout"}), &first).await;
    assert_eq!((status, revoked["keys"].as_array().unwrap().len()), (200, 3), "{revoked}");
    assert_eq!(everywhere(&server, next).await[0], format!("401 {told}"));

    // One that expires at once.
    let (_, brief) = make(json!({"name": "brief", "expires": "1us"})).await;
    let brief = brief["key"].as_str().unwrap();
    assert_eq!(everywhere(&server, brief).await[0], "401 the key is not valid here: expired");

    for (body, part) in [
        (json!({"name": "a b"}), "is no name of a key"),
        (json!({"name": ""}), "is no name of a key"),
        (json!({"name": "x".repeat(101)}), "is no name of a key"),
        (json!({"name": "a", "expires": "soon"}), "`expires`"),
        (json!({"name": "a", "expires": "0s"}), "out of range"),
        (json!({"name": "a", "lifetime": 1}), "unknown field"),
    ] {
        let (status, refused) = make(body).await;
        assert!(status == 400 && refused["error"].as_str().unwrap().contains(part), "{refused}");
    }
    assert_eq!(ask("POST", "/v1/keys/revoke", json!({"key": "nobody"}), &first).await.0, 404);
    let (_, list) = ask("GET", "/v1/keys", json!({}), &first).await;
    let states: Vec<_> = list["keys"].as_array().unwrap().iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["valid", "expired", "revoked", "revoked", "revoked"], "{list}");
    let text = list.to_string();
    assert!(!text.contains("quern_") && !text.contains("sha256"), "{text}");
    server.stop().await;
}

/// As an operator does it, without a server and beside one; what is kept and logged has nothing of a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_and_never_logged() {
    let repository = Repository::new(DEFINITIONS);
    let folder = repository.path();
    run(folder, &["apply"]).answer();
    let made = run(folder, &["key", "new", "ann"]);
    assert!(made.stderr.contains("never expires; it is not shown again"), "{}", made.stderr);
    let first = made.answer().trim().to_owned();
    let log = folder.join("server.log");
    let environment = [("QUERN_AUTH", "required"), ("QUERN_ADMINS", "key:ann"), ("QUERN_LOG", "trace")];
    let environment = environment.map(|(name, value)| (name, value.to_owned()));
    let server = Process::start_logged(folder, &environment, std::fs::File::create(&log).unwrap());
    let http = reqwest::Client::new();
    let asked = http.post(format!("{}/v1/keys", server.url)).bearer_auth(&first);
    let (status, _, text) = said(asked.json(&json!({"name": "bob"}))).await;
    assert_eq!(status, 200, "{text}");
    let made: Value = serde_json::from_str(&text).unwrap();
    let second = made["key"].as_str().unwrap().to_owned();
    for (key, status) in [(&first, 200), (&second, 200), (&format!("{first}0"), 401)] {
        let asked = http.get(format!("{}/v1/definitions", server.url)).bearer_auth(key);
        assert_eq!(said(asked).await.0, status);
    }
    server.terminate();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("an API key was made") && log.contains("nobody knows who asks"), "{log}");
    let database = std::fs::read(folder.join(".quern/registry.sqlite")).unwrap();
    let database = String::from_utf8_lossy(&database);
    for key in [&first, &second] {
        let secret = &key[17..60];
        assert!(!log.contains(secret) && !database.contains(secret), "{secret}");
    }
    let list = run(folder, &["key", "list", "--json"]).json();
    assert_eq!(list["keys"].as_array().unwrap().len(), 2);
    assert!(run(folder, &["key", "list"]).answer().lines().nth(1).unwrap().starts_with("ann"));
    let revoked = run(folder, &["key", "revoke", ".", "bob", "--json"]).json();
    assert_eq!(revoked["keys"][0]["state"], "revoked");
    assert_eq!(run(folder, &["key", "revoke", "nobody"]).code, Some(1));
    assert_eq!(run(folder, &["key", "new"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_and_revoked_at_the_other_server() {
    let registry = fresh_database().await;
    let (here, first) = asking(&[("registry", registry.clone())]).await;
    let (there, _) = asking(&[("registry", registry)]).await;
    let states = async |key: &str| [everywhere(&here, key).await, everywhere(&there, key).await];
    let known = async |key: &str| states(key).await.iter().flatten().all(|said| said == "OK").then_some(());
    until("a key that the other server knows", async || known(&first).await).await;
    for name in ["by name", "by ID"] {
        let asked = here.http.post(here.address("/v1/keys")).bearer_auth(&first);
        let (status, _, text) = said(asked.json(&json!({"name": "bob"}))).await;
        assert_eq!(status, 200, "{text}");
        let made: Value = serde_json::from_str(&text).unwrap();
        let key = made["key"].as_str().unwrap();
        let begun = std::time::Instant::now();
        until("a key that the other server knows", async || known(key).await).await;
        println!("a new key is known at the other server after {:?}", begun.elapsed());
        let which = if name == "by ID" { made["id"].clone() } else { json!("bob") };
        let asked = there.http.post(there.address("/v1/keys/revoke")).bearer_auth(&first);
        assert_eq!(said(asked.json(&json!({"key": which}))).await.0, 200);
        let begun = std::time::Instant::now();
        let gone = async || {
            states(key).await.iter().flatten().all(|said| said.contains("not valid here")).then_some(())
        };
        until("a key that is revoked at the other server", gone).await;
        println!("a revoked key is refused at the other server after {:?}", begun.elapsed());
    }
    here.stop().await;
    there.stop().await;
}

/// What is known holds while the registry is away, and so does what was revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_hold_without_the_registry() {
    let mut postgres = quern_kit::Postgres::start().await;
    let (server, key) = asking(&[("registry", postgres.url())]).await;
    let asked = server.http.post(server.address("/v1/keys")).bearer_auth(&key);
    let made: Value = serde_json::from_str(&said(asked.json(&json!({"name": "bob"}))).await.2).unwrap();
    let revoked = made["key"].as_str().unwrap();
    let asked = server.http.post(server.address("/v1/keys/revoke")).bearer_auth(&key);
    assert_eq!(said(asked.json(&json!({"key": "bob"}))).await.0, 200);
    postgres.stop();
    // A poll or two in which nobody answers.
    until("a registry that is known to be away", async || {
        let metrics = said(server.http.get(server.address("/metrics")).bearer_auth(&key)).await.2;
        (quern_kit::metric(&metrics, "quern_registry_up") == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(everywhere(&server, &key).await, ["OK", "OK", "OK"]);
    assert!(everywhere(&server, revoked).await[0].starts_with("401"));
    let asked = server.http.post(server.address("/v1/keys")).bearer_auth(&key);
    let (status, _, text) = said(asked.json(&json!({"name": "eve"}))).await;
    assert_eq!(status, 503, "{text}");
    postgres.run().await;
    assert_eq!(everywhere(&server, &key).await, ["OK", "OK", "OK"]);
    assert!(everywhere(&server, revoked).await[0].starts_with("401"));
    server.stop().await;
}
