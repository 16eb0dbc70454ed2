//! How is everything asked, in the name of one who may or may not?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Criteria, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use quern_kit::{Repository, Server};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{KEYS, ROLES};
use crate::network::oip::call;
use crate::network::who::issuer::Issuer;
use crate::planes;

const PREDICT: &str = r#"{"instances": [{"tailnum": "N1", "distance": 10}]}"#;
const INFER: &str = r#"{"inputs": [{"name": "tailnum", "datatype": "BYTES", "shape": [1], "data": ["N1"]},
    {"name": "distance", "datatype": "FP64", "shape": [1], "data": [10]}]}"#;
const LOOK_UP: &str = r#"{"feature_service": "delay_v1", "entities": {"tailnum": ["N1"], "distance": [1]}}"#;
const WITH_FEATURES: &str = r#"{"instances": [{"tailnum": "N1", "distance": 10}], "with_features": true}"#;

/// Who may ask it: `everybody`, all who are `known`, or those of these keys. `admin` may ask everything.
type May = &'static [&'static str];

/// Each route, as it is asked by who may.
pub(in crate::network) const HTTP: &[(&str, &str, &str, May)] = &[
    ("GET", "/v2/health/live", "", &["everybody"]),
    ("GET", "/v2/health/ready", "", &["everybody"]),
    ("GET", "/health", "", &["everybody"]),
    ("GET", "/login?to=/models", "", &["everybody"]),
    ("GET", "/login/callback?state=a&code=b", "", &["everybody"]),
    ("POST", "/logout", "", &["everybody"]),
    ("GET", "/v1/me", "", &["known"]),
    ("GET", "/", "", &["known"]),
    ("GET", "/openapi.json", "", &["known"]),
    ("GET", "/v2", "", &["known"]),
    ("GET", "/v2/", "", &["known"]),
    ("GET", "/v1/definitions", "", &["known"]),
    ("POST", "/v2/repository/index", "{}", &["known"]),
    ("POST", "/v2/repository/models/delay/load", "{}", &["known"]),
    ("POST", "/v2/repository/models/delay/unload", "{}", &["known"]),
    ("POST", "/v1/models/delay:predict", PREDICT, &["predicts"]),
    ("POST", "/v1/models/delay:predict", WITH_FEATURES, &[]),
    ("POST", "/v1/models/delay/versions/1:predict", PREDICT, &["predicts"]),
    ("GET", "/v1/models/delay", "", &["predicts"]),
    ("GET", "/v1/models/delay/versions/1", "", &["predicts"]),
    ("GET", "/v1/models/delay/metadata", "", &["predicts"]),
    ("GET", "/v1/models/delay/versions/1/metadata", "", &["predicts"]),
    ("GET", "/v2/models/delay", "", &["predicts"]),
    ("GET", "/v2/models/delay/versions/1", "", &["predicts"]),
    ("GET", "/v2/models/delay/ready", "", &["predicts"]),
    ("GET", "/v2/models/delay/versions/1/ready", "", &["predicts"]),
    ("GET", "/v2/models/delay/config", "", &["predicts"]),
    ("GET", "/v2/models/delay/versions/1/config", "", &["predicts"]),
    ("GET", "/v2/models/stats", "", &["known"]),
    ("GET", "/v2/models/delay/stats", "", &["predicts"]),
    ("GET", "/v2/models/delay/versions/1/stats", "", &["predicts"]),
    ("POST", "/v2/models/delay/infer", INFER, &["predicts"]),
    ("POST", "/v2/models/delay/versions/1/infer", INFER, &["predicts"]),
    ("POST", "/get-online-features", LOOK_UP, &["reads", "reads-view", "exports"]),
    (
        "POST",
        "/get-online-features",
        r#"{"features": ["plane_history:last_delay"], "entities": {"tailnum": ["N1"]}}"#,
        &["reads-view", "exports"],
    ),
    (
        "POST",
        "/get-online-features",
        r#"{"features": ["plane_history:carrier"], "entities": {"tailnum": ["N1"]}}"#,
        &[],
    ),
    ("POST", "/push", r#"{"push_source_name": "landings", "df": {"tailnum": ["N1"]}}"#, &["pushes"]),
    ("POST", "/write-to-online-store", r#"{"feature_view_name": "plane_history", "df": {}}"#, &["pushes"]),
    ("POST", "/v1/labels", r#"{"model": "delay", "labels": [{"request_id": "r", "y": 1.5}]}"#, &["labels"]),
    ("POST", "/v1/verify", r#"{"model": "delay"}"#, &["reads-log"]),
    ("POST", "/v1/models/delay:route", "{}", &["routes"]),
    ("POST", "/v1/check", "", &["applies"]),
    ("POST", "/v1/plan", "", &["applies"]),
    ("POST", "/v1/apply", "", &["applies"]),
    ("POST", "/v1/can", r#"{"who": "key:x", "action": "operate", "what": "status"}"#, &["applies"]),
    ("POST", "/v1/materialize", r#"{"views": ["nothing"]}"#, &["materialize", "seal"]),
    ("POST", "/v1/seal", "{}", &["materialize", "seal"]),
    ("POST", "/v1/scrub", "{}", &["keeps"]),
    ("POST", "/v1/backup", r#"{"to": "/proc/nowhere"}"#, &["keeps"]),
    ("GET", "/v1/status", "", &["watches"]),
    ("GET", "/metrics", "", &["watches"]),
    ("GET", "/v1/keys", "", &[]),
    ("POST", "/v1/keys", r#"{"name": "!"}"#, &[]),
    ("POST", "/v1/keys/revoke", r#"{"key": "revoked"}"#, &[]),
];

/// What one hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The answer, or what is wrong with the request of who may make it.
    Answered,
    Unknown,
    Forbidden,
    NotThere,
    TooMuch,
    NotNow,
}

impl Heard {
    fn of_http(status: u16) -> Heard {
        match status {
            401 => Heard::Unknown,
            403 => Heard::Forbidden,
            404 => Heard::NotThere,
            429 => Heard::TooMuch,
            503 => Heard::NotNow,
            _ => Heard::Answered,
        }
    }

    fn of_grpc<T>(result: &Result<T, Status>) -> Heard {
        match result.as_ref().map_err(Status::code) {
            Err(Code::Unauthenticated) => Heard::Unknown,
            Err(Code::PermissionDenied) => Heard::Forbidden,
            Err(Code::NotFound) => Heard::NotThere,
            _ => Heard::Answered,
        }
    }
}

/// A server of the planes that asks everybody who they are, and a key of everybody.
pub(in crate::network) struct Asked {
    pub(in crate::network) server: Server,
    pub(in crate::network) keys: BTreeMap<String, String>,
    /// One that was revoked.
    pub(super) revoked: String,
    /// Whose tokens it believes.
    pub(super) issuer: Issuer,
    http: reqwest::Client,
}

impl Asked {
    pub(in crate::network) async fn open() -> Asked {
        Asked::open_with("", &[]).await
    }

    /// With more roles, and keys of these names besides.
    pub(super) async fn open_with(roles: &str, more: &[&str]) -> Asked {
        let names: Vec<&str> = KEYS.iter().chain(more).copied().collect();
        Asked::open_in(planes::repository(), &format!("{ROLES}{roles}"), &[], &names).await
    }

    pub(super) async fn open_in(
        repository: Repository,
        roles: &str,
        settings: &[(&str, String)],
        names: &[&str],
    ) -> Asked {
        repository.write("roles.yaml", roles);
        let issuer = Issuer::start(&[]).await;
        let ours = [
            ("auth", "required".to_owned()),
            ("admins", "key:admin".to_owned()),
            ("jwt_issuers", issuer.url.clone()),
            ("oidc_client_id", "quern-web".to_owned()),
            ("public_url", "https://quern.test".to_owned()),
        ];
        let node = repository.open_applied_with(&[&ours, settings].concat()).await;
        node.materialize_to(planes::JANUARY_10_US);
        let mut keys = BTreeMap::new();
        for name in names {
            keys.insert((*name).to_owned(), node.key(name).await);
        }
        let revoked = node.key("revoked").await;
        node.revoke("revoked").await;
        let server = Server::of(repository, node).await;
        // Who signs in is sent elsewhere.
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Asked { server, keys, revoked, issuer, http }
    }

    /// A key as they look, which nobody has.
    pub(super) fn wrong(&self) -> String {
        let mut key: Vec<char> = self.keys.values().next().unwrap().chars().collect();
        let middle = key.len() / 2;
        key[middle] = if key[middle] == 'a' { 'b' } else { 'a' };
        key.into_iter().collect()
    }

    /// What is said to a request, and how it ends.
    pub(in crate::network) async fn say(
        &self,
        method: &str,
        path: &str,
        body: &str,
        bearer: Option<&str>,
    ) -> (u16, String) {
        let request = self.http.request(method.parse().unwrap(), self.server.address(path));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let request = match bearer {
            Some(bearer) => request.bearer_auth(bearer),
            None => request,
        };
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    pub(super) async fn http(&self, method: &str, path: &str, body: &str, bearer: Option<&str>) -> Heard {
        let (status, text) = self.say(method, path, body, bearer).await;
        // What is not there at all is an answer to who may ask about everything.
        let told = ["unknown feature view `nothing`", "no key"];
        match status {
            404 if told.iter().any(|told| text.contains(told)) => Heard::Answered,
            status => Heard::of_http(status),
        }
    }

    pub(super) async fn flight(&self) -> FlightServiceClient<Channel> {
        let endpoint = Endpoint::new(self.server.client.url().to_owned()).unwrap();
        FlightServiceClient::new(endpoint.connect().await.unwrap())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Ready {
    #[prost(bool, tag = "1")]
    ready: bool,
}

/// Calls over gRPC, each with who may make it and what came of it.
pub(super) async fn asked_over_grpc(asked: &Asked, bearer: Option<&str>) -> Vec<(String, May, Heard)> {
    let url = asked.server.client.url();
    let authorization = bearer.map(|bearer| format!("Bearer {bearer}"));
    let metadata: Vec<(&'static str, &str)> =
        authorization.iter().map(|text| ("authorization", text.as_str())).collect();
    let mut heard = Vec::new();
    for (name, may) in [
        ("ServerLive", &["everybody"][..]),
        ("ServerReady", &["everybody"]),
        ("ServerMetadata", &["known"]),
        ("RepositoryIndex", &["known"]),
        ("RepositoryModelLoad", &["known"]),
        ("ModelStatistics", &["known"]),
    ] {
        let said = call::<_, Empty>(url, name, Empty {}, &metadata).await;
        heard.push((name.to_owned(), may, Heard::of_grpc(&said)));
    }
    for name in ["ModelMetadata", "ModelConfig", "ModelStatistics"] {
        let said = call::<_, Empty>(url, name, Named { name: "delay".to_owned() }, &metadata).await;
        heard.push((name.to_owned(), &["predicts"], Heard::of_grpc(&said)));
    }
    let said = call::<_, Ready>(url, "ModelReady", Named { name: "delay".to_owned() }, &metadata).await;
    let is_ready = match &said {
        Ok(Ready { ready: false }) => Heard::NotThere,
        said => Heard::of_grpc(said),
    };
    heard.push(("ModelReady".to_owned(), &["predicts"], is_ready));
    // Without inputs it is wrong, which is said to who may ask.
    let said = call::<_, Empty>(url, "ModelInfer", Named { name: "delay".to_owned() }, &metadata).await;
    heard.push(("ModelInfer".to_owned(), &["predicts"], Heard::of_grpc(&said)));
    heard
}

pub(super) fn table() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![planes::JANUARY_10_US]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("tailnum", Arc::new(StringArray::from(vec!["N1"]))),
        ("distance", Arc::new(Float64Array::from(vec![10.0]))),
        ("event_timestamp", Arc::new(times)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub(super) fn labels() -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("request_id", Arc::new(StringArray::from(vec!["r"]))),
        ("y", Arc::new(Float64Array::from(vec![1.5]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub(super) fn with<T>(message: T, bearer: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    }
    request
}

/// Calls over Flight, the same.
pub(super) async fn asked_over_flight(asked: &Asked, bearer: Option<&str>) -> Vec<(String, May, Heard)> {
    let mut heard: Vec<(String, May, Heard)> = Vec::new();
    let mut flight = asked.flight().await;
    for (what, command, may) in [
        ("a training set", json!({"feature_service": "delay_v1"}), &["trains", "exports"][..]),
        ("a batch", json!({"model": "delay"}), &["predicts"]),
        ("a batch of the past", json!({"model": "delay", "as_of": true}), &[]),
    ] {
        let called = exchanged(&mut flight, command, table(), bearer).await;
        heard.push((format!("DoExchange: {what}"), may, Heard::of_grpc(&called)));
    }
    for (what, command, rows, may) in [
        ("rows", json!({"push_source_name": "landings"}), table(), &["pushes"][..]),
        ("labels", json!({"labels": "delay"}), labels(), &["labels"]),
    ] {
        let called = put(&mut flight, command, rows, bearer).await;
        heard.push((format!("DoPut: {what}"), may, Heard::of_grpc(&called)));
    }
    for (what, ticket, may) in [
        ("predictions", json!({"predictions": "delay"}), &["reads-log"][..]),
        ("a view", json!({"view": "plane_history", "features": ["last_delay"]}), &["exports"]),
        ("the latest of a view", json!({"view": "plane_history", "latest": true}), &[]),
        ("a source", json!({"source": "landings"}), &[]),
    ] {
        let called = flight.do_get(with(Ticket::new(ticket.to_string()), bearer)).await;
        heard.push((format!("DoGet: {what}"), may, Heard::of_grpc(&called)));
    }
    let about = || FlightDescriptor::new_cmd(json!({"feature_service": "delay_v1"}).to_string());
    let called = flight.get_flight_info(with(about(), bearer)).await;
    heard.push(("GetFlightInfo".to_owned(), &["trains", "exports"], Heard::of_grpc(&called)));
    let called = flight.get_schema(with(about(), bearer)).await;
    heard.push(("GetSchema".to_owned(), &["trains", "exports"], Heard::of_grpc(&called)));
    let called = flight.list_flights(with(Criteria::default(), bearer)).await;
    let listed = match called {
        Ok(flights) => {
            let flights: Vec<_> = flights.into_inner().try_collect().await.unwrap();
            let seen = if flights.is_empty() { Heard::NotThere } else { Heard::Answered };
            heard.push(("ListFlights: the services".to_owned(), &["trains", "exports"], seen));
            Heard::Answered
        }
        Err(status) => Heard::of_grpc(&Err::<(), _>(status)),
    };
    heard.push(("ListFlights".to_owned(), &["known"], listed));
    heard
}

/// All that comes down, in words.
pub(super) async fn exchanged(
    flight: &mut FlightServiceClient<Channel>,
    command: Value,
    rows: RecordBatch,
    bearer: Option<&str>,
) -> Result<String, Status> {
    let called = flight.do_exchange(with(messages(command, rows).await, bearer)).await?;
    let down: Vec<_> = called.into_inner().try_collect().await?;
    Ok(format!("{down:?}"))
}

pub(super) async fn put(
    flight: &mut FlightServiceClient<Channel>,
    command: Value,
    rows: RecordBatch,
    bearer: Option<&str>,
) -> Result<String, Status> {
    let called = flight.do_put(with(messages(command, rows).await, bearer)).await?;
    let down: Vec<_> = called.into_inner().try_collect().await?;
    Ok(format!("{down:?}"))
}

async fn messages(
    command: Value,
    rows: RecordBatch,
) -> impl futures::Stream<Item = arrow_flight::FlightData> + Send + 'static {
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(rows.schema())
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_string())))
        .build(stream::iter([Ok::<_, FlightError>(rows)]));
    let messages: Vec<_> = encoded.try_collect().await.unwrap();
    stream::iter(messages).boxed()
}
