//! Several servers, one registry: what one applies is live on all, and what goes wrong leaves each as it was.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{Float64Array, StringArray};
use expect_test::expect;
use quern::Client;
use quern::wire::Code;
use quern_kit::registry::{Apply, Location, Registry};
use quern_kit::{Node, Postgres, Process, Repository, Server, Service, fixture, run, until};
use serde_json::{Value, json};

use super::api::swap;
use crate::planes::{self, DEFINITIONS, JANUARY_10_US, LANDINGS, instance};

/// Opens what lies in `repository`, on the registry of `postgres`.
async fn open(repository: &Repository, postgres: &Postgres) -> Node {
    repository.open_with(&[("registry", postgres.url())]).await.unwrap()
}

/// A server's repository that holds what the planes did, and neither definitions nor models.
fn bare() -> Repository {
    let repository = Repository::new("");
    repository.write("landings.csv", LANDINGS);
    repository
}

async fn served(repository: Repository, node: Node) -> Server {
    node.materialize_to(JANUARY_10_US);
    Server::of(repository, node).await
}

/// The planes on one server, applied, and another one of the same registry that has no files but what happened.
async fn two(postgres: &Postgres) -> (Server, Server) {
    let (full, bare) = (planes::repository(), bare());
    let first = open(&full, postgres).await;
    first.apply().await.unwrap();
    let second = open(&bare, postgres).await;
    (served(full, first).await, served(bare, second).await)
}

async fn predict(server: &Server, model: &str) -> Vec<Value> {
    server.client.predict(model, [instance("N1", 2000.0)]).await.unwrap().predictions
}

async fn until_metric(server: &Server, name: &str, wanted: f64) {
    until(name, async || (server.metric(name).await == wanted).then_some(())).await;
}

/// What a server says that does all that it should.
const READY: &str = r#"{"ready":true}"#;

async fn ready(server: &Server) -> String {
    let (status, text) = server.ask("GET", "/v2/health/ready", "").await;
    assert_eq!(status, 200, "{text}");
    text
}

/// The planes with another TTL: one more thing to apply.
fn ttl(days: u32) -> String {
    DEFINITIONS.replace("ttl: 30d", &format!("ttl: {days}d"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_is_live_on_the_other_server() {
    let postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    // distance + 10 * last_delay + 100 * far + 0.5, by a model that the second server's disk never saw.
    for server in [&first, &second] {
        assert_eq!(predict(server, "delay").await, [json!(2175.5)]);
        assert_eq!(ready(server).await, READY);
        assert_eq!(server.metric("quern_registry_up").await, 1.0);
        assert_eq!(server.metric("quern_apply_lag_seconds").await, 0.0);
    }

    // One more model, which goes live while the server runs.
    let more = "\n---\nkind: Model\nname: more\nversions: [{version: \"1\", path: models/classifier.onnx, service: delay_v1}]\n";
    first.repository.write("models/classifier.onnx", fixture("classifier.onnx"));
    first.repository.write("definitions.yaml", DEFINITIONS.to_owned() + more);
    assert_eq!(first.apply().await.unwrap()["number"], 2);
    second.shows(2).await;
    assert_eq!(predict(&first, "more").await, predict(&second, "more").await);
    until_metric(&second, "quern_registry_apply_number", 2.0).await;

    // How long it takes, from just before it is written to the first answer that shows it: printed, not judged.
    let registry =
        Registry::open(&Location::Postgres(postgres.url()), second.repository.path()).await.unwrap();
    let mut took = Vec::new();
    for number in 3..23 {
        first.repository.write("definitions.yaml", ttl(number) + more);
        assert_eq!(first.apply().await.unwrap()["number"], number);
        second.shows(number.into()).await;
        let now_us = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
        took.push(now_us - registry.apply(number.into()).await.unwrap().applied_at_us);
    }
    took.sort_unstable();
    let ms = |us: i64| us as f64 / 1e3;
    println!(
        "from apply to live on the other server, {} applies: fastest {:.1} ms, median {:.1} ms, slowest {:.1} ms",
        took.len(),
        ms(took[0]),
        ms(took[took.len() / 2]),
        ms(took[took.len() - 1])
    );
    assert_eq!(predict(&second, "delay").await, [json!(2175.5)]);
}

/// Law 6 across servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_of_the_other_server_is_wholly_of_one_apply() {
    let postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    swap(&first, &second).await;
}

async fn outputs_of(service: &Service) -> Vec<String> {
    let columns: [arrow::array::ArrayRef; 2] =
        [Arc::new(StringArray::from(vec!["N1"])), Arc::new(Float64Array::from(vec![1.0]))];
    let inputs = service.inputs(columns.into());
    let vectors = service.look_up(inputs, vec![JANUARY_10_US]).await.unwrap().vectors;
    vectors.schema().fields().iter().map(|field| field.name().clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_ends_with_what_it_began_with() {
    let postgres = Postgres::start().await;
    let without_models = DEFINITIONS.split("---\nkind: Model").next().unwrap();
    let (full, bare) = (planes::repository(), bare());
    full.write("definitions.yaml", without_models);
    let first = open(&full, &postgres).await;
    let first = Server::of(full, first).await;
    let second = open(&bare, &postgres).await;
    let following = second.follow();
    assert!(following.is_some());
    let number = async |number| {
        until("an apply that goes live", async || (second.live().number == number).then_some(())).await;
        second.service("delay_v1")
    };
    first.apply().await.unwrap();
    let begun = number(1).await;
    first.repository.write("definitions.yaml", without_models.replace("last_delay, far]", "far]"));
    first.apply().await.unwrap();
    let now = number(2).await;
    assert_eq!(outputs_of(&begun).await, ["distance", "last_delay", "far"]);
    assert_eq!(outputs_of(&now).await, ["distance", "far"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_applies_at_once_one_goes_live() {
    let postgres = Postgres::start().await;
    let (here, there) = (planes::repository(), planes::repository());
    let (first, second) = (open(&here, &postgres).await, open(&there, &postgres).await);
    let _following = (first.follow(), second.follow());
    for number in 1..=5 {
        here.write("definitions.yaml", ttl(40 + number));
        there.write("definitions.yaml", ttl(50 + number));
        // Both are checked before either is applied, so both stand on the same one.
        let checked = (first.check().await.unwrap(), second.check().await.unwrap());
        let (one, other) = tokio::join!(checked.0.apply(), checked.1.apply());
        let refused = match (one, other) {
            (Ok(plan), Err(refused)) | (Err(refused), Ok(plan)) => {
                assert!(plan.applied);
                assert_eq!(plan.number, u64::from(number));
                refused
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(refused.code, Code::Refused, "{refused}");
        let agreed = async || {
            let (first, second) = (first.live(), second.live());
            let both = first.number == u64::from(number) && second.number == u64::from(number);
            both.then_some((first.files, second.files))
        };
        let (first, second) = until("two servers that agree", agreed).await;
        assert_eq!(first, second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_counts_from_what_is_live_on_all_servers() {
    let postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    let routed = "kind: Model\nname: m\nversions:\n  - {version: a, path: models/linear.onnx, service: delay_v1}\n  \
         - {version: b, path: models/linear.onnx, service: delay_v1}\nroute: {weights: {a: 90, b: 10}}\n";
    first.repository.write("definitions.yaml", format!("{DEFINITIONS}---\n{routed}"));
    first.apply().await.unwrap();
    second.shows(2).await;
    let shares = async |server: &Server, body: &str| {
        let (status, text) = server.ask("POST", "/v1/models/m:route", body.to_owned()).await;
        assert_eq!(status, 200, "{text}");
        let routed: Value = serde_json::from_str(&text).unwrap();
        format!("{} {} {}", routed["number"], routed["weights"], routed["percent_before"])
    };
    let said = shares(&first, r#"{"weights": {"b": 30}}"#).await;
    assert_eq!(said, r#"3 {"a":90,"b":30} {"a":90.0,"b":10.0}"#);
    second.shows(3).await;
    let said = shares(&second, r#"{"weights": {"b": "60%"}}"#).await;
    assert_eq!(said, r#"4 {"a":40,"b":60} {"a":75.0,"b":25.0}"#);
    first.shows(4).await;
    let model = first.client.definitions().await.unwrap().models.into_iter().find(|model| model.name == "m");
    let weights: Vec<u64> = model.unwrap().versions.iter().map(|version| version.weight).collect();
    assert_eq!(weights, [40, 60]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_versions_name_goes_to_another_model_on_all_servers() {
    let postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    let routed = |factor: u8| {
        format!(
            "{DEFINITIONS}---\nkind: Model\nname: m\nversions:\n  - {{version: a, path: models/linear.onnx, service: delay_v1}}\n  \
             - version: b\n    service: delay_v1\n    \
             steps: [{{name: once, path: models/linear.onnx}}, {{name: y, expr: \"CAST(once * {factor} AS FLOAT)\"}}]\n\
             route: {{weights: {{a: 90, b: 10}}}}\n"
        )
    };
    first.repository.write("definitions.yaml", routed(2));
    first.apply().await.unwrap();
    second.shows(2).await;
    first.repository.write("definitions.yaml", routed(3));
    let refused = first.apply().await.unwrap_err();
    assert!(refused.contains("by the route, with the weight 10"), "{refused}");
    // What one server routes away is free on the other one, once that knows of it.
    assert_eq!(second.ask("POST", "/v1/models/m:route", r#"{"weights": {"b": 0}}"#).await.0, 200);
    first.shows(3).await;
    first.apply().await.unwrap();
    second.shows(4).await;
    for server in [&first, &second] {
        let request = json!({"instances": [planes::instance("N1", 2000.0)]}).to_string();
        let (status, said) = server.ask("POST", "/v1/models/m/versions/b:predict", request).await;
        assert_eq!((status, said.as_str()), (200, r#"{"predictions":[6526.5]}"#));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_that_cannot_be_read_changes_nothing() {
    let postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    // Nobody gives word of it: the servers find it because they ask.
    postgres
        .execute(
            "INSERT INTO applies VALUES (2, 0, 'rubbish'); \
             INSERT INTO project_files VALUES (2, 'default', 'a.yaml', 'kind: Nonsense')",
        )
        .await;
    for server in [&first, &second] {
        until_metric(server, "quern_registry_apply_number", 2.0).await;
        let words =
            until("an apply that fails", async || Some(ready(server).await).filter(|text| text != READY))
                .await;
        assert!(
            words.contains("apply 1 is live: apply 2 is in the registry and cannot go live here:"),
            "{words}"
        );
        assert!(words.contains("a.yaml:1:7") && words.contains("run the version of Quern"), "{words}");
        assert_eq!(server.metric("quern_apply_number").await, 1.0);
        assert_eq!(server.metric("quern_registry_up").await, 1.0);
        assert!(server.metric("quern_apply_lag_seconds").await > 0.0);
        assert_eq!(predict(server, "delay").await, [json!(2175.5)]);
    }
    first.repository.write("definitions.yaml", ttl(40));
    let refused = first.apply().await.unwrap_err();
    assert!(refused.starts_with("409 apply 2 is in the registry and cannot go live here"), "{refused}");

    // A model that is nowhere is as bad as definitions that nobody reads.
    let registry =
        Registry::open(&Location::Postgres(postgres.url()), second.repository.path()).await.unwrap();
    let good = registry.apply(1).await.unwrap();
    let mut lost = Apply { number: 3, ..good.clone() };
    lost.models.iter_mut().for_each(|model| model.digest = "lost".to_owned());
    registry.record(&lost).await.unwrap();
    until("a lost model", async || {
        ready(&second).await.contains("lost is gone from the registry").then_some(())
    })
    .await;
    assert_eq!(predict(&second, "delay").await, [json!(2175.5)]);

    // A later one that is good goes live, past both.
    let mut good = Apply { number: 4, ..good };
    good.files[0].text = ttl(40);
    registry.record(&good).await.unwrap();
    for server in [&first, &second] {
        server.shows(4).await;
        until_metric(server, "quern_apply_lag_seconds", 0.0).await;
        assert_eq!(ready(server).await, READY);
        assert_eq!(predict(server, "delay").await, [json!(2175.5)]);
    }
    first.repository.write("definitions.yaml", ttl(41));
    assert_eq!(first.apply().await.unwrap()["number"], 5);
    second.shows(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_takes_no_server_with_it() {
    let mut postgres = Postgres::start().await;
    let (first, second) = two(&postgres).await;
    for (number, held) in (2..).zip([false, true, false]) {
        match held {
            true => postgres.hold(),
            false => postgres.stop(),
        }
        first.repository.write("definitions.yaml", ttl(40 + number));
        let refused = first.apply().await.unwrap_err();
        assert!(refused.starts_with("503 the registry does not answer"), "{refused}");
        for server in [&first, &second] {
            assert_eq!(predict(server, "delay").await, [json!(2175.5)]);
            until_metric(server, "quern_registry_up", 0.0).await;
            let words = ready(server).await;
            assert!(words.contains("is live: the registry does not answer: "), "{words}");
            assert_eq!(predict(server, "delay").await, [json!(2175.5)]);
        }
        match held {
            true => postgres.release(),
            false => postgres.run().await,
        }
        for server in [&first, &second] {
            until_metric(server, "quern_registry_up", 1.0).await;
            assert_eq!(ready(server).await, READY);
        }
        assert_eq!(first.apply().await.unwrap()["number"], number);
        second.shows(number.into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_apply_to_all_servers() {
    let postgres = Postgres::start().await;
    let (here, there) = (planes::repository(), bare());
    for repository in [&here, &there] {
        repository.write("quern.yaml", format!("registry: {}\n", postgres.url()));
    }
    let (here, there) = (here.path(), there.path());
    assert!(run(here, &["apply"]).answer().ends_with("apply 1 is live\nnext: quern materialize\n"));
    assert!(run(here, &["apply"]).answer().contains("no changes; apply 1 is live"));
    assert!(!here.join(".quern/registry.sqlite").exists());

    // There is a server at the other repository: a command here applies for both.
    let server = Process::start(there);
    let said = std::fs::read(there.join(".quern/server.json")).unwrap();
    let url = serde_json::from_slice::<Value>(&said).unwrap()["url"].as_str().unwrap().to_owned();
    let client = Client::connect(url).await.unwrap();
    std::fs::write(here.join("definitions.yaml"), ttl(40)).unwrap();
    assert!(run(here, &["apply"]).answer().contains("apply 2 is live"));
    until("an apply that goes live", async || {
        (client.definitions().await.unwrap().number == 2).then_some(())
    })
    .await;
    assert!(server.terminate().success());

    let nowhere = run(here, &["plan", "--registry", "postgres://quern@127.0.0.1:1/none"]);
    assert_eq!(nowhere.code, Some(1));
    expect![[r#"
        error: the registry at 127.0.0.1:1, database `none` does not answer: pool timed out while waiting for an open connection; is the database running, and can it be reached from here?
    "#]].assert_eq(&nowhere.stderr);
}

/// One process owns the folder, so there is nothing to follow.
#[tokio::test]
async fn a_server_of_its_own_registry_follows_nobody() {
    let repository = bare();
    let node = repository.open().await;
    assert!(node.follow().is_none() && !node.has_standing());
    let server = Server::of(repository, node).await;
    let metrics = server.metrics().await;
    assert!(!metrics.contains("quern_registry"), "{metrics}");
}
