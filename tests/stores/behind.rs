//! Does a head that lacks pushed rows get them, and does the server say so until it has? And does a push to one source
//! wait for what another does?

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use quern_kit::{Process, Push, Repository, run, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::log::{at, close, replace, repository};
use crate::network::push::{DEFINITIONS, both, rows};

/// A push that waits for another source's would never end here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_waits_for_its_own_source_and_for_no_other() {
    let others = "\n---\nkind: Source\nname: tips\npush: true\nevent_timestamp: at\ncolumns: [{name: card, type: string}, \
                  {name: at, type: timestamp}, {name: id, type: int64}, {name: amount, type: float64}, {name: parts, \
                  type: int64}]\n---\nkind: FeatureView\nname: tipping\nentities: [card]\nsource: tips\naggregations: \
                  [{name: tips, function: count, windows: [lifetime]}]\n";
    let repository = Repository::new(&(DEFINITIONS.to_owned() + others));
    repository.write("logins.csv", "card,at\n");
    let node = repository.open_applied().await;
    let (pushing, mut held) = (node.clone(), None);
    node.hold_pushes_to("payments", || {
        let waiting = pushing.clone();
        held = Some(tokio::spawn(async move { waiting.push(Push::new("payments", rows(0, 10))).await }));
        for first in [0, 10, 20] {
            let push = pushing.push(Push::new("tips", rows(first, 10)));
            let pushed = tokio::task::block_in_place(|| {
                Handle::current().block_on(timeout(Duration::from_secs(60), push))
            });
            assert_eq!(pushed.expect("it waits for another source").unwrap().accepted, 10);
        }
        assert_eq!(pushing.pushed_rows("payments"), 0);
        assert!(!held.as_ref().unwrap().is_finished());
    });
    assert_eq!(held.unwrap().await.unwrap().unwrap().accepted, 10);
    let [head, history] = both(&node).await;
    assert_eq!(head, history);
}

/// Rows that the log has no more, and some that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_gone_is_made_anew_of_rows_that_no_log_has() {
    let (repository, folder) = (repository(), TempDir::new().unwrap());
    let data = folder.path().join("data");
    let node = repository.open_applied_with(&at(&data)).await;
    node.push(Push::new("payments", rows(0, 10))).await.unwrap();
    node.seal("payments");
    node.push(Push::new("payments", rows(20, 10))).await.unwrap();
    let expected = both(&node).await;
    close(node, &data).await;
    for _ in 0..2 {
        replace(&data.join("head"), None);
        let node = repository.open_with(&at(&data)).await.unwrap();
        assert_eq!(both(&node).await, expected);
        close(node, &data).await;
    }
    // One of before the rows that lie in segments.
    let old = folder.path().join("old");
    fs::rename(data.join("head"), &old).unwrap();
    let node = repository.open_with(&at(&data)).await.unwrap();
    node.push(Push::new("payments", rows(40, 10))).await.unwrap();
    node.seal("payments");
    let expected = both(&node).await;
    close(node, &data).await;
    replace(&data.join("head"), Some(&old));
    let node = repository.open_with(&at(&data)).await.unwrap();
    assert_eq!(both(&node).await, expected);
}

/// The only file below a folder that ends so.
fn find(folder: &std::path::Path, end: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut found = entries.filter_map(|path| match path.is_dir() {
        true => find(&path, end),
        false => Some(path).filter(|path| path.to_string_lossy().ends_with(end)),
    });
    found.next()
}

async fn ask(server: &Process, path: &str, body: Option<Value>) -> (u16, Value) {
    let (client, url) = (reqwest::Client::new(), format!("{}{path}", server.url));
    let request = match body {
        Some(body) => client.post(url).header("content-type", "application/json").body(body.to_string()),
        None => client.get(url),
    };
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    (status, serde_json::from_str(&reply.text().await.unwrap()).unwrap_or_default())
}

async fn count(server: &Process) -> Value {
    let asked = json!({"features": ["tipping:tips_lifetime"], "entities": {"card": ["a"]}});
    let (status, reply) = ask(server, "/get-online-features", Some(asked)).await;
    assert_eq!(status, 200, "{reply}");
    reply["results"].as_array().unwrap().last().unwrap()["values"][0].clone()
}

/// A segment that is away keeps the head from being made, for as long as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_not_ready_until_its_head_has_what_was_pushed() {
    let repository = Repository::new(
        "kind: Entity\nname: card\njoin_keys: [{name: card, type: string}]\n---\nkind: Source\nname: tips\npush: true\n\
         event_timestamp: at\ncolumns: [{name: card, type: string}, {name: at, type: timestamp}]\n---\nkind: \
         FeatureView\nname: tipping\nentities: [card]\nsource: tips\naggregations: [{name: tips, function: count, \
         windows: [lifetime]}]\n",
    );
    run(repository.path(), &["apply"]).answer();
    let server = Process::start(repository.path());
    let push = json!({"push_source_name": "tips", "df": {"card": ["a", "a"], "at":
        ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]}});
    assert_eq!(ask(&server, "/push", Some(push.clone())).await.0, 200);
    assert_eq!(ask(&server, "/v1/seal", Some(json!({}))).await.0, 200);
    assert_eq!(count(&server).await, json!(2));
    server.kill();
    let data = repository.path().join(".quern");
    fs::remove_dir_all(data.join("head")).unwrap();
    let segment = find(&data.join("store"), ".parquet").unwrap();
    let away = repository.path().join("away");
    fs::rename(&segment, &away).unwrap();

    let server = Process::start(repository.path());
    let told = ask(&server, "/v1/status", None).await.1;
    assert_eq!(told["server"]["ready"], json!(false), "{told}");
    let cause = told["server"]["not_ready"].as_str().unwrap();
    assert!(cause.starts_with("the online store lacks rows that were pushed"), "{cause}");
    assert_eq!(ask(&server, "/v2/health/ready", None).await.0, 503);
    let said = run(repository.path(), &["status"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.contains("the online store lacks rows that were pushed"), "{}", said.stdout);
    // What is pushed meanwhile is in the head, and does not make it whole: not after another end, either.
    assert_eq!(ask(&server, "/push", Some(push)).await.0, 200);
    server.kill();
    let server = Process::start(repository.path());
    assert_eq!(ask(&server, "/v2/health/ready", None).await.0, 503);
    fs::rename(&away, &segment).unwrap();
    let ready = async || (ask(&server, "/v2/health/ready", None).await.0 == 200).then_some(());
    until("a head that is made anew", ready).await;
    assert_eq!(count(&server).await, json!(4));
}
