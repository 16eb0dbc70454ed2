//! Who may ask what? Every route and every call, asked by everybody: by who brings nothing, by whose key is wrong or
//! revoked, and by one for each thing that a role may allow.

mod asking;
mod audited;
mod hidden;
mod judged;
mod labelled;
mod probing;
pub(super) mod streams;

use std::collections::BTreeSet;

use quern_kit::{root, until};
use serde_json::json;

pub(super) use self::asking::{Asked, HTTP};
use self::asking::{Heard, asked_over_flight, asked_over_grpc};
use crate::planes;

/// A role for each thing that one may allow; the member of each is an API key of its name.
pub(super) const ROLES: &str = r#"
---
kind: Role
name: predicts
members: [{key: predicts}]
allow: [{predict: [delay]}]
---
kind: Role
name: labels
members: [{key: labels}]
allow: [{label: [delay]}]
---
kind: Role
name: reads-log
members: [{key: reads-log}]
allow: [{read_log: [delay]}]
---
kind: Role
name: routes
members: [{key: routes}]
allow: [{route: [delay]}]
---
kind: Role
name: trains
members: [{key: trains}]
allow: [{train: [delay_v1]}]
---
kind: Role
name: reads
members: [{key: reads}]
allow: [{read: [{service: delay_v1}]}]
---
kind: Role
name: reads-view
members: [{key: reads-view}]
allow: [{read: [{view: plane_history, except: [carrier]}]}]
---
kind: Role
name: exports
members: [{key: exports}]
allow: [{read: [{view: plane_history, except: [carrier]}]}, {train: [delay_v1]}]
---
kind: Role
name: pushes
members: [{key: pushes}]
allow: [{push: [landings]}]
---
kind: Role
name: applies
members: [{key: applies}]
allow: [{apply: [{owner: applies}]}]
---
kind: Role
name: operates
members: [{key: materialize}, {key: seal}]
allow: [{operate: [materialize, seal]}]
---
kind: Role
name: watches
members: [{key: watches}]
allow: [{operate: [metrics, status]}]
---
kind: Role
name: keeps
members: [{key: keeps}]
allow: [{operate: [backup, scrub]}]
"#;

/// All who are known. Nobody says anything of `stranger`, and `admin` is named in quern.yaml.
pub(super) const KEYS: [&str; 16] = [
    "admin",
    "stranger",
    "predicts",
    "labels",
    "reads-log",
    "routes",
    "trains",
    "reads",
    "reads-view",
    "exports",
    "pushes",
    "applies",
    "materialize",
    "seal",
    "watches",
    "keeps",
];

/// What becomes of a request of one who may not, or does not say who they are.
fn expect_refused(what: &str, who: &str, heard: Heard) {
    let expected: &[Heard] = match who {
        "nobody" | "wrong" | "revoked" => &[Heard::Unknown],
        _ => &[Heard::Forbidden, Heard::NotThere],
    };
    assert!(expected.contains(&heard), "{what}, asked by {who}: {heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_what_their_roles_allow_and_nothing_else() {
    let asked = Asked::open().await;
    let mut bearers: Vec<(&str, Option<String>)> =
        vec![("nobody", None), ("wrong", Some(asked.wrong())), ("revoked", Some(asked.revoked.clone()))];
    bearers.extend(KEYS.iter().map(|name| (*name, Some(asked.keys[*name].clone()))));
    for (who, bearer) in &bearers {
        let bearer = bearer.as_deref();
        for (method, path, body, may) in HTTP {
            let heard = asked.http(method, path, body, bearer).await;
            let what = format!("{method} {path}");
            let is_known = KEYS.contains(who);
            match may {
                ["everybody"] => assert_eq!(heard, Heard::Answered, "{what}, asked by {who}"),
                ["known"] if is_known => assert_eq!(heard, Heard::Answered, "{what}, asked by {who}"),
                may if *who == "admin" || may.contains(who) => {
                    assert_eq!(heard, Heard::Answered, "{what}, asked by {who}");
                }
                _ => expect_refused(&what, who, heard),
            }
        }
        for (what, may, heard) in
            asked_over_grpc(&asked, bearer).await.into_iter().chain(asked_over_flight(&asked, bearer).await)
        {
            match may {
                ["everybody"] => assert_eq!(heard, Heard::Answered, "{what}, asked by {who}"),
                ["known"] if KEYS.contains(who) => {
                    assert_eq!(heard, Heard::Answered, "{what}, asked by {who}")
                }
                may if *who == "admin" || may.contains(who) => {
                    assert_eq!(heard, Heard::Answered, "{what}, asked by {who}");
                }
                _ => expect_refused(&what, who, heard),
            }
        }
    }
}

#[test]
fn every_route_is_asked() {
    let asked: BTreeSet<(&str, String)> =
        HTTP.iter().map(|(method, path, ..)| (*method, without_query(path).to_owned())).collect();
    for (file, route) in routes() {
        if route.contains("GRPCInferenceService") || route.contains("FlightService") {
            continue;
        }
        let matches = |path: &str| {
            let (wanted, given): (Vec<&str>, Vec<&str>) =
                (route.split('/').collect(), path.split('/').collect());
            wanted.len() == given.len()
                && wanted.iter().zip(&given).all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
        };
        assert!(
            asked.iter().any(|(_, path)| matches(path)),
            "{file}: nobody asks {route} in this test, nor does docs/access.md say what it asks for"
        );
    }
}

/// The path of a request.
pub(super) fn without_query(asked: &str) -> &str {
    asked.split('?').next().unwrap_or_default()
}

/// The routes that the server's sources name, each with its file.
pub(super) fn routes() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let pattern = root().join("server/api/src/**/*.rs");
    for file in glob::glob(pattern.to_str().unwrap()).unwrap().flatten() {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for (_, rest) in text.match_indices(".route(\"").map(|(at, word)| text[at..].split_at(word.len())) {
            let route = rest.split('"').next().unwrap().to_owned();
            found.push((file.display().to_string(), route));
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_may_ask_for_as_much_as_their_roles_say() {
    let limited = "\n---\nkind: Role\nname: slow\nmembers: [{key: slow}]\nlimits: {requests: 3/h}\n\
                   ---\nkind: Role\nname: small\nmembers: [{key: small}]\nallow: [{predict: [delay]}]\nlimits: {instances: 4/h}\n";
    let asked = Asked::open_with(limited, &["slow", "small"]).await;
    let slow = asked.keys["slow"].clone();
    for _ in 0..3 {
        assert_eq!(asked.http("GET", "/v1/definitions", "", Some(&slow)).await, Heard::Answered);
    }
    assert_eq!(asked.http("GET", "/v1/definitions", "", Some(&slow)).await, Heard::TooMuch);
    let small = asked.keys["small"].clone();
    let instances = json!({"instances": vec![json!({"tailnum": "N1", "distance": 1.0}); 5]}).to_string();
    let predict = "/v1/models/delay:predict";
    assert_eq!(asked.http("POST", predict, &instances, Some(&small)).await, Heard::Answered);
    assert_eq!(asked.http("POST", predict, &instances, Some(&small)).await, Heard::TooMuch);
    assert_eq!(asked.http("GET", "/v1/definitions", "", Some(&small)).await, Heard::Answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_written_down_and_acts_are_not_done_without() {
    let repository = planes::repository();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let asked =
        Asked::open_in(repository, ROLES, &[("audit", file.display().to_string())], &["predicts", "routes"])
            .await;
    let instance = r#"{"instances": [{"tailnum": "SECRET7", "distance": 1}]}"#;
    let predicts = asked.keys["predicts"].clone();
    assert_eq!(
        asked.http("POST", "/v1/models/delay:predict", instance, Some(&predicts)).await,
        Heard::Answered
    );
    assert_eq!(
        asked.http("POST", "/v1/models/class:predict", instance, Some(&predicts)).await,
        Heard::NotThere
    );
    let read = async || std::fs::read_to_string(&file).unwrap();
    let both = async || {
        let text = read().await;
        (text.contains("\"predict delay\",\"decision\":\"allow\"")
            && text.contains("\"predict class\",\"decision\":\"deny\""))
        .then_some(text)
    };
    let text = until("both decisions in the audit", both).await;
    assert!(
        text.contains("\"principal\":\"key:predicts\"") && text.contains("role `predicts` allows it"),
        "{text}"
    );
    assert!(!text.contains("SECRET7") && !text.contains(&predicts), "{text}");
    let routes = asked.keys["routes"].clone();
    assert_eq!(asked.http("POST", "/v1/models/delay:route", "{}", Some(&routes)).await, Heard::Answered);
    assert!(read().await.contains("\"route delay\",\"decision\":\"allow\""), "written before it is done");
    // A folder in its place cannot be written; whoever rotates a file away gets a new one.
    std::fs::rename(&file, folder.path().join("audit.1")).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(asked.http("POST", "/v1/models/delay:route", "{}", Some(&routes)).await, Heard::NotNow);
    assert_eq!(
        asked.http("POST", "/v1/models/delay:predict", instance, Some(&predicts)).await,
        Heard::Answered
    );
    std::fs::remove_dir(&file).unwrap();
    assert_eq!(asked.http("POST", "/v1/models/delay:route", "{}", Some(&routes)).await, Heard::Answered);
    assert!(read().await.contains("\"route delay\""));
}
