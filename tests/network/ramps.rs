//! Does a share grow by itself as far as its version does well, on one server and on several, and go back where it does
//! not?
//!
//! Time is what the tests say it is: each asks for what is next at moments that are yet to come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use quern::Client;
use quern::wire::{PredictRequest, RampState, RampStatus, RouteRequest, Routed};
use quern_kit::{Node, Postgres, Process, Repository, Server, fixture, run, until};
use serde_json::{Value, json};

use crate::planes::{self, DEFINITIONS, instance};

/// A model `m` whose second version answers everybody, or fails where distances are long.
fn model(second: &str, weights: &str, more: &str) -> String {
    format!(
        "{DEFINITIONS}---\nkind: Model\nname: m\nversions:\n  - {{version: \"1\", path: models/linear.onnx, service: \
         delay_v1}}\n  - {{version: \"2\", path: models/{second}.onnx, service: delay_v1}}\nroute: {{weights: \
         {weights}}}\n{more}"
    )
}

const FROM_NONE: &str = "{\"1\": 100, \"2\": 0}";

fn repository(definitions: &str) -> Repository {
    let repository = planes::repository();
    repository.write("models/fragile.onnx", fixture("fragile.onnx"));
    repository.write("definitions.yaml", definitions);
    repository
}

async fn served(definitions: &str) -> (Server, Node) {
    let repository = repository(definitions);
    let node = planes::open(&repository).await;
    (Server::of(repository, node.clone()).await, node)
}

async fn route(client: &Client, body: Value) -> Routed {
    let request: RouteRequest = serde_json::from_value(body).unwrap();
    client.route("m", &request).await.unwrap()
}

fn ramp(steps: &[&str], stop_if: &[&str]) -> Value {
    json!({"ramp": {"version": "2", "steps": steps, "every": "10m", "stop_if": stop_if}})
}

/// Asks once about entities enough that every version has some of them.
async fn ask(client: &Client, distance: f64) {
    let instances = (0..40).map(|n| instance(&format!("P{n}"), distance).as_object().unwrap().clone());
    let request = PredictRequest { instances: instances.collect(), with_features: false };
    client.predict_with("m", None, &request).await.unwrap();
}

async fn ask_times(client: &Client, times: usize, distance: f64) {
    for _ in 0..times {
        ask(client, distance).await;
    }
}

/// So many minutes from now.
fn in_minutes(minutes: i64) -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64 + minutes * 60_000_000
}

async fn status(client: &Client) -> Option<RampStatus> {
    client.status().await.unwrap().ramps.into_iter().next()
}

async fn weights(client: &Client) -> BTreeMap<String, u64> {
    let model = client.definitions().await.unwrap().models.into_iter().find(|model| model.name == "m");
    model.unwrap().versions.into_iter().map(|version| (version.version, version.weight)).collect()
}

async fn share(client: &Client) -> f64 {
    quern::wire::percentages(&weights(client).await)["2"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_goes_through_all_its_steps_under_load() {
    let (server, node) = served(&model("linear", FROM_NONE, "")).await;
    let begun = route(&server.client, ramp(&["10%", "50%", "90%"], &["error_rate > 0 or p50 > 1h"])).await;
    assert_eq!((begun.percent["2"], begun.ended_ramp), (10.0, None));
    let begun = begun.ramp.unwrap();
    assert_eq!((begun.state, begun.step, begun.every.as_str()), (RampState::Running, 1, "10m"));
    let conditions: Vec<&str> = begun.stop_if.iter().map(|stop| stop.condition.as_str()).collect();
    assert_eq!(conditions, ["error_rate > 0", "p50 > 1h"]);
    node.run_ramps(in_minutes(20)).await.unwrap();
    let waiting = status(&server.client).await.unwrap();
    assert_eq!((waiting.step, waiting.requests), (1, Some(0)), "nobody asked yet");

    let done = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (client, done) = (server.client.clone(), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                ask(&client, 100.0).await;
            }
        }
    });
    let mut shares = vec![share(&server.client).await];
    for step in 1..=3 {
        until("a step that is over", async || {
            node.run_ramps(in_minutes(11 * step)).await.unwrap();
            let now = status(&server.client).await.unwrap();
            (now.step as i64 > step || now.state == RampState::Done).then_some(())
        })
        .await;
        shares.push(share(&server.client).await);
        if step < 3 {
            // What the step before had counts for that one alone.
            let now = status(&server.client).await.unwrap();
            assert_eq!((now.step as i64, now.state), (step + 1, RampState::Running));
        }
    }
    done.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(shares, [10.0, 50.0, 90.0, 90.0]);
    let over = status(&server.client).await.unwrap();
    assert_eq!((over.state, over.step, over.reason), (RampState::Done, 3, None));
    assert_eq!(server.metric("quern_ramp_state{model=\"m\",version=\"2\",state=\"done\"}").await, 1.0);
    assert_eq!(server.metric("quern_apply_number").await, 5.0, "a step is an apply");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_stops_where_its_version_fails_and_gives_the_weights_back() {
    let log = tempfile::TempDir::new().unwrap();
    let (audit, falls) = (log.path().join("audit.jsonl"), "fallback: {to: [{version: \"1\"}]}\n");
    let repository = repository(&model("fragile", "{\"1\": 90, \"2\": 10}", falls));
    let node = repository.open_with(&[("audit", audit.display().to_string())]).await.unwrap();
    node.apply().await.unwrap();
    let server = Server::of(repository, node.clone()).await;
    route(&server.client, json!({"weights": {"2": 30}})).await;
    let before = weights(&server.client).await;
    for (stop_if, said) in
        [("error_rate > 0.1", "failed"), ("fallback_rate > 0.1", "were answered by something else")]
    {
        let begun = route(&server.client, ramp(&["50%", "100%"], &[stop_if])).await;
        assert_eq!(begun.percent["2"], 50.0);
        ask_times(&server.client, 80, 100.0).await;
        ask_times(&server.client, 19, 5_000.0).await;
        node.run_ramps(in_minutes(11)).await.unwrap();
        let waiting = status(&server.client).await.unwrap();
        assert_eq!(
            (waiting.step, waiting.requests, waiting.stop_if[0].share),
            (1, Some(99), Some(19.0 / 99.0))
        );
        ask(&server.client, 5_000.0).await;
        // At once: the step has hardly begun.
        node.run_ramps(in_minutes(0)).await.unwrap();
        let stopped = status(&server.client).await.unwrap();
        assert_eq!((stopped.state, stopped.step), (RampState::Stopped, 1));
        let reason = format!("`{stop_if}`: of 100 requests in step 1 of 2 (50%), 20 {said} (20.00 %)");
        assert_eq!(stopped.reason.as_ref(), Some(&reason));
        assert_eq!(weights(&server.client).await, before);
        let line = std::fs::read_to_string(&audit).unwrap();
        let actions = line.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].clone());
        let stops =
            actions.filter(|action| action.as_str().unwrap().starts_with("route m: the ramp of version `2`"));
        let stop = stops.collect::<Vec<_>>().pop().unwrap();
        assert!(stop.as_str().unwrap().ends_with(&reason), "{stop}");
    }
    assert_eq!(server.metric("quern_ramp_state{model=\"m\",version=\"2\",state=\"stopped\"}").await, 1.0);
    // It stays to be seen until somebody resets the route; weights are theirs to set.
    route(&server.client, json!({"weights": {"2": "20%"}})).await;
    assert_eq!(status(&server.client).await.unwrap().state, RampState::Stopped);
    let reset = route(&server.client, json!({})).await;
    assert_eq!((reset.percent["2"], status(&server.client).await), (10.0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_goes_on_after_a_restart_where_it_was() {
    let (server, node) = served(&model("linear", FROM_NONE, "")).await;
    route(&server.client, ramp(&["50%", "100%"], &[])).await;
    let before = status(&server.client).await.unwrap();
    assert_eq!(before.stop_if[0].condition, "error_rate > 0.01");
    ask_times(&server.client, 60, 100.0).await;
    drop(node);
    let repository = server.stop_and_keep().await;
    let node = repository.open().await;
    let server = Server::of(repository, node.clone()).await;
    let after = status(&server.client).await.unwrap();
    assert_eq!((after.since, after.step, after.requests), (before.since, 1, Some(60)));
    ask_times(&server.client, 39, 100.0).await;
    node.run_ramps(in_minutes(11)).await.unwrap();
    assert_eq!(status(&server.client).await.unwrap().step, 1);
    ask(&server.client, 100.0).await;
    node.run_ramps(in_minutes(9)).await.unwrap();
    assert_eq!(
        status(&server.client).await.unwrap().step,
        1,
        "the step began before the restart, less than 10m ago"
    );
    node.run_ramps(in_minutes(11)).await.unwrap();
    assert_eq!(status(&server.client).await.unwrap().step, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_leaves_a_ramp_alone_or_ends_it_and_says_so() {
    let (server, node) = served(&model("linear", FROM_NONE, "")).await;
    let notes = async || {
        let (code, text) = server.ask("POST", "/v1/plan", "").await;
        assert_eq!(code, 200, "{text}");
        let plan: Value = serde_json::from_str(&text).unwrap();
        plan["affected"].as_array().unwrap().last().map(|note| note.as_str().unwrap().to_owned()).unwrap()
    };
    route(&server.client, ramp(&["50%", "100%"], &[])).await;
    ask_times(&server.client, 60, 100.0).await;
    server.repository.write("definitions.yaml", model("linear", FROM_NONE, "batching: {max_rows: 64}\n"));
    assert_eq!(notes().await, "model `m`: the ramp of version `2` (step 1 of 2, 50%) goes on");
    server.apply().await.unwrap();
    ask_times(&server.client, 60, 100.0).await;
    node.run_ramps(in_minutes(11)).await.unwrap();
    let second = status(&server.client).await.unwrap();
    assert_eq!(
        (second.state, second.step),
        (RampState::Running, 2),
        "an apply takes nothing from what was counted"
    );

    server.repository.write("definitions.yaml", model("linear", "{\"1\": 3, \"2\": 1}", ""));
    let why = "apply 5 declares the route in another way";
    assert_eq!(notes().await, format!("model `m`: the ramp of version `2` (step 2 of 2, 100%) ends: {why}"));
    server.apply().await.unwrap();
    let ended = status(&server.client).await.unwrap();
    assert_eq!((ended.state, ended.reason.as_deref()), (RampState::Ended, Some(why)));
    assert_eq!(share(&server.client).await, 25.0);

    // Weights that somebody sets end it, and so does another ramp.
    route(&server.client, ramp(&["50%", "100%"], &[])).await;
    let ended = route(&server.client, ramp(&["60%"], &[])).await.ended_ramp.unwrap();
    assert_eq!(ended, "the ramp of version `2` (step 1 of 2, 50%)");
    let ended = route(&server.client, json!({"weights": {"2": 7}})).await;
    assert!(ended.ended_ramp.is_some() && ended.ramp.is_none());
    assert_eq!(status(&server.client).await.unwrap().reason.as_deref(), Some("apply 8 set weights"));

    for (asked, why) in [
        (
            json!({"version": "3", "steps": ["100%"], "every": "10m"}),
            "404 not_found: model `m` has no version `3`",
        ),
        (json!({"version": "2", "steps": [], "every": "10m"}), "`steps` is empty"),
        (json!({"version": "2", "steps": ["80%", "80%"], "every": "10m"}), "`80%` does not come after `80%`"),
        (
            json!({"version": "2", "steps": ["1%"], "every": "10m"}),
            "version `2` has 14.9 % now, and `1%` is less",
        ),
        (json!({"version": "2", "steps": ["50"], "every": "10m"}), "`50` is no percentage"),
        (json!({"version": "2", "steps": ["100%"], "every": "9s"}), "give `10s` or more"),
        (json!({"version": "2", "steps": ["100%"], "every": "10"}), "`every`: `10` is not a duration"),
        (
            json!({"version": "2", "steps": ["100%"], "every": "10m", "stop_if": ["p99 > 5ms", "p99 > 5"]}),
            "`stop_if`, item 2: `p99 > 5` is no condition: `5` is not a duration",
        ),
    ] {
        let refused = server.refusal("POST", "/v1/models/m:route", json!({"ramp": asked}).to_string()).await;
        assert!(refused.contains(why), "{asked}: {refused}");
    }
}

/// The one that decides is killed, and the other one goes on with what both have counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_outlives_the_server_that_decides() {
    let postgres = Postgres::start().await;
    let (here, there) = (repository(&model("linear", FROM_NONE, "")), planes::repository());
    here.write("quern.yaml", format!("registry: {}\n", postgres.url()));
    run(here.path(), &["apply"]).answer();
    let first = Process::start(here.path());
    let client = Client::connect(&first.url).await.unwrap();
    route(&client, ramp(&["50%", "100%"], &[])).await;
    let leases = async || postgres.number("SELECT COUNT(*) FROM leases WHERE name = 'ramps'").await;
    until("a server that decides", async || (leases().await == 1).then_some(())).await;

    let node = there.open_with(&[("registry", postgres.url())]).await.unwrap();
    let second = Server::of(there, node.clone()).await;
    for client in [&client, &second.client] {
        ask_times(client, 60, 100.0).await;
    }
    // Says what it has counted.
    node.run_ramps(in_minutes(0)).await.unwrap();
    until("counts of both", async || (status(&second.client).await?.requests? >= 120).then_some(())).await;
    node.run_ramps(in_minutes(11)).await.unwrap();
    let both = status(&second.client).await.unwrap();
    assert_eq!((both.step, both.requests), (1, Some(120)), "it is the first that decides");
    first.kill();
    // As if its time were over.
    postgres.execute("DELETE FROM leases WHERE name = 'ramps'").await;
    let (one, other) = tokio::join!(node.run_ramps(in_minutes(11)), node.run_ramps(in_minutes(11)));
    one.and(other).unwrap();
    let after = status(&second.client).await.unwrap();
    assert_eq!((after.step, after.state, share(&second.client).await), (2, RampState::Running, 100.0));
    assert_eq!(second.metric("quern_apply_number").await, 3.0, "a step is taken once");
}

/// Versions may go while a ramp goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_ramp_goes_back_to_nobody_the_declared_weights_count() {
    let two = model("fragile", "{\"1\": 100}", "");
    let third =
        "  - {version: \"3\", path: models/linear.onnx, service: delay_v1}\nroute: {weights: {\"1\": 100}}";
    let three = two.replace("route: {weights: {\"1\": 100}}", third);
    let (server, node) = served(&three).await;
    route(&server.client, json!({"weights": {"1": 0, "3": 100}})).await;
    route(&server.client, ramp(&["100%"], &["error_rate > 0.01"])).await;
    server.repository.write("definitions.yaml", &two);
    node.apply().await.unwrap();
    for _ in 0..110 {
        let instances = [instance("P1", 5_000.0).as_object().unwrap().clone()].into();
        let request = PredictRequest { instances, with_features: false };
        assert!(server.client.predict_with("m", None, &request).await.is_err());
    }
    node.run_ramps(in_minutes(1)).await.unwrap();
    assert_eq!(status(&server.client).await.unwrap().state, RampState::Stopped);
    assert_eq!(weights(&server.client).await, BTreeMap::from([("1".to_owned(), 100), ("2".to_owned(), 0)]));
    ask(&server.client, 5_000.0).await;

    // Whom a ramp would go back to keeps its name meanwhile.
    route(&server.client, ramp(&["100%"], &["error_rate > 0.01"])).await;
    server.repository.write("definitions.yaml", two.replace("models/linear.onnx", "models/fragile.onnx"));
    let refused = node.apply().await.unwrap_err().to_string();
    assert!(refused.contains("which gives its share back where it stops"), "{refused}");
}
