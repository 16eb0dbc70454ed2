//! How does the Rust client say who asks, and whom does it believe? Over HTTP and over Arrow Flight.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::{StreamExt, stream};
use quern::wire::{Code, LabelsRequest, PredictionsCommand, PushCommand};
use quern::{Client, Credentials, Error, Result};
use quern_kit::{Process, run};
use serde_json::json;

use super::super::bounds::spine;
use super::Secured;

/// A role that may do nothing but predict has the key of its name; a certificate may do more.
const ROLES: &str = r#"
kind: Role
name: predicts
members: [{key: predicts}]
allow: [{predict: [delay]}]
---
kind: Role
name: trains
members: [{key: trains}, {spiffe: "spiffe://corp/trains"}]
allow: [{predict: [delay], train: [delay_v1], read: [{service: delay_v1}]}]
"#;

/// The planes over TLS, at a server that asks who one is.
struct Asking {
    secured: Secured,
    server: Process,
}

impl Asking {
    async fn new() -> Asking {
        let secured = Secured::new().await;
        secured.repository.write("roles.yaml", ROLES);
        let folder = secured.repository.path();
        run(folder, &["apply"]).answer();
        let server = Process::start_in(folder, &[("QUERN_AUTH", "required".to_owned())]);
        Asking { secured, server }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        self.secured.repository.write(name, text);
        self.secured.path(name)
    }

    fn key(&self, name: &str) -> String {
        run(self.secured.repository.path(), &["key", "new", name]).answer().trim().to_owned()
    }

    /// Believes the server's authority, and shows this.
    async fn connect(&self, shows: Credentials) -> Client {
        let ca = Some(self.file("servers.pem", &self.secured.own.certificate));
        Client::connect_with(&self.server.url, Credentials { ca, ..shows }).await.unwrap()
    }
}

fn token(token: &str) -> Credentials {
    Credentials { token: Some(token.to_owned()), ..Credentials::default() }
}

async fn look_up(client: &Client) -> Result<()> {
    let entities = BTreeMap::from([
        ("tailnum".to_owned(), vec![json!("N1")]),
        ("distance".to_owned(), vec![json!(1.0)]),
    ]);
    client.get_online_features("delay_v1", entities).await.map(drop)
}

async fn predict(client: &Client) -> Result<()> {
    client.predict("delay", [json!({"tailnum": "N1", "distance": 1.0})]).await.map(drop)
}

async fn train(client: &Client) -> Result<usize> {
    let rows = spine(100);
    let mut came = client.training_set("delay_v1", rows.schema(), stream::iter([rows]), false).await?;
    let mut count = 0;
    while let Some(batch) = came.next().await {
        count += batch?.num_rows();
    }
    Ok(count)
}

async fn push(client: &Client) -> Result<()> {
    let command = PushCommand { push_source_name: "landings".to_owned(), ..PushCommand::default() };
    let rows = spine(1);
    client.push(&command, rows.schema(), stream::iter([rows])).await?.finish().await.map(drop)
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().and_then(|error| error.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_shows_a_key_or_a_certificate() {
    let asking = Asking::new().await;
    let signed = asking.secured.clients.sign(&["spiffe://corp/trains"]);
    let certificate = Credentials {
        certificate: Some(asking.file("client.crt", &signed.certificate)),
        key: Some(asking.file("client.key", &signed.key)),
        ..Credentials::default()
    };
    for shows in [token(&asking.key("trains")), certificate] {
        let client = asking.connect(shows).await;
        predict(&client).await.unwrap();
        look_up(&client).await.unwrap();
        assert_eq!(train(&client).await.unwrap(), 100);
        client.definitions().await.unwrap();
    }

    let key = asking.key("predicts");
    let client = asking.connect(token(&key)).await;
    predict(&client).await.unwrap();
    assert!(!format!("{client:?}").contains(&key), "{client:?}");
    assert_eq!(code(train(&client).await), Some(Code::NotFound));
    let label = LabelsRequest { model: "delay".to_owned(), ..LabelsRequest::default() };
    assert_eq!(code(client.label(&label).await), Some(Code::Forbidden));
    let log = PredictionsCommand { predictions: "delay".to_owned(), ..PredictionsCommand::default() };
    assert_eq!(code(client.predictions(&log).await), Some(Code::Forbidden));

    // Health is told to anybody, so these connect.
    let other = format!("{key}0");
    for shows in [Credentials::default(), token(&other), token("a.b.c")] {
        let client = asking.connect(shows).await;
        for result in [predict(&client).await, train(&client).await.map(drop), push(&client).await] {
            let error = result.unwrap_err();
            assert_eq!(error.code(), Some(Code::Unauthenticated), "{error}");
            assert!(error.request_id().is_some(), "{error:?}");
        }
    }
    assert!(asking.server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_believes_whom_it_is_told_to() {
    let asking = Asking::new().await;
    let url = &asking.server.url;
    let why = async |credentials| Client::connect_with(url, credentials).await.unwrap_err();
    // The system does not know the authority, nor does that of the clients vouch for the server.
    let other = asking.file("clients.pem", &asking.secured.clients.certificate);
    for ca in [None, Some(other)] {
        let error = why(Credentials { ca, ..Credentials::default() }).await;
        assert!(
            matches!(&error, Error::Unreachable { cause, .. } if cause.contains("certificate")),
            "{error}"
        );
    }
    let [one, two] = ["one", "two"].map(|_| asking.secured.clients.sign(&["spiffe://corp/trains"]));
    let certificate = Some(asking.file("one.crt", &one.certificate));
    let [one, two] = [("one.key", &one.key), ("two.key", &two.key)].map(|(name, key)| asking.file(name, key));
    let ca = Some(asking.file("servers.pem", &asking.secured.own.certificate));
    let missing = asking.secured.path("missing.pem");
    for (credentials, part) in [
        (Credentials { ca: Some(missing), ..Credentials::default() }, "missing.pem"),
        (Credentials { ca: Some(one), ..Credentials::default() }, "one.key: expected certificates as PEM"),
        (Credentials { ca, certificate, key: Some(two), ..Credentials::default() }, "one.crt: "),
    ] {
        let error = why(credentials).await;
        assert!(matches!(&error, Error::Invalid(why) if why.contains(part)), "{error}");
    }
    // An address for documents, which no machine has: nothing is sent.
    let error = Client::connect_with("http://192.0.2.1:7400", token("secret")).await.unwrap_err();
    let Error::Invalid(why) = &error else { panic!("{error}") };
    assert!(why.contains("in the clear") && !why.contains("secret"), "{why}");
    let error = Client::connect("https://ann:secret@localhost:7400").await.unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(asking.server.terminate().success());
}
