//! What is told of names that one may not know, in suggestions and beside what one may?

use serde_json::{Value, json};

use super::ROLES;
use super::asking::Asked;
use crate::planes;

/// A source and a view of `applies`, and two who push to it.
const VISITS: &str = r#"
---
kind: Role
name: pushers
members: [{key: one}, {key: two}]
allow: [{push: [visits, landings], read: [{view: visits}]}]
---
kind: Source
name: visits
owner: applies
push: true
event_timestamp: at
columns: [{name: tailnum, type: string}, {name: at, type: timestamp}, {name: n, type: int64}]
---
kind: FeatureView
name: visits
owner: applies
entities: [plane]
source: visits
features: [n]
"#;

async fn asked() -> Asked {
    let names = ["admin", "applies", "reads-view", "one", "two"];
    Asked::open_in(planes::repository(), &format!("{ROLES}{VISITS}"), &[], &names).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_applies_is_told_of_what_they_may_know() {
    let asked = asked().await;
    let can = async |action: &str, what: &str, who: &str| {
        let request = json!({"who": "key:x", "action": action, "what": what}).to_string();
        asked.say("POST", "/v1/can", &request, Some(&asked.keys[who])).await
    };
    for (action, hidden) in [
        ("predict", "delay"),
        ("train", "delay_v1"),
        ("read", "delay_v1"),
        ("read", "plane_history:seats"),
        ("read", "view:plane_history"),
        ("push", "landings"),
        ("apply", "reads-view"),
    ] {
        let (status, told) = can(action, hidden, "admin").await;
        assert_eq!(status, 200, "{told}");
        let near = &hidden[..hidden.len() - 1];
        for asks in [hidden, near] {
            let (status, told) = can(action, asks, "applies").await;
            assert_eq!(status, 404, "{told}");
            let name = hidden.trim_start_matches("view:").split(':').next().unwrap();
            assert!(told.matches(name).count() <= asks.matches(name).count(), "{action} {asks}: {told}");
        }
    }
    for (action, theirs) in
        [("push", "visits"), ("read", "visits:n"), ("apply", "applies"), ("operate", "status")]
    {
        let (status, told) = can(action, theirs, "applies").await;
        assert_eq!(status, 200, "{action} {theirs}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn can_takes_whole_views_and_people_as_the_audit_names_them() {
    let member = "members: [{key: reads-view}";
    let token = format!("{member}, {{jwt: {{issuer: \"https://sso.corp\", claim: sub, has: ann}}}}");
    let roles = ROLES.replacen(member, &token, 1);
    let asked = Asked::open_in(planes::repository(), &roles, &[], &["admin"]).await;
    for (who, what, said) in [
        ("jwt:https://sso.corp#ann", "plane_history:seats", "role `reads-view` allows it"),
        ("jwt:https://sso.corp#bob", "plane_history:seats", "allows `{read: [{view: plane_history}]}`\""),
        ("jwt:https://sso.corp#ann", "view:plane_history", "of its features they may not read `carrier`\""),
        ("key:x", "view:plane_history", "allows `{read: [{view: plane_history}]}`\""),
        ("key:admin", "view:plane_history", "they are among `admins`"),
    ] {
        let request = json!({"who": who, "action": "read", "what": what}).to_string();
        let (status, told) = asked.say("POST", "/v1/can", &request, Some(&asked.keys["admin"])).await;
        assert!(status == 200 && told.contains(said), "{who} {what}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pushes_or_reads_is_not_told_of_the_other() {
    let asked = asked().await;
    let push = json!({"feature_view_name": "plane_histor", "df": {}}).to_string();
    let (status, told) = asked.say("POST", "/write-to-online-store", &push, Some(&asked.keys["one"])).await;
    assert!(status == 404 && told.contains("visits") && !told.contains("plane_history"), "{told}");
    let sources = async |who: &str| {
        let (_, told) = asked.say("GET", "/v1/definitions", "", Some(&asked.keys[who])).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        let views = told["feature_views"].as_array().unwrap().iter();
        views.map(|view| format!("{} of {}", view["name"], view["source"])).collect::<Vec<_>>().join(", ")
    };
    let (history, visits) = ("\"plane_history\" of \"landings\"", "\"visits\" of \"visits\"");
    assert_eq!(sources("admin").await, format!("{history}, {visits}"));
    assert_eq!(sources("reads-view").await, "\"plane_history\" of \"\"");
    assert_eq!(sources("one").await, visits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_who_pushes_has_idempotency_keys_of_their_own() {
    let asked = asked().await;
    let push = async |who: &str, n: i64| {
        let df = json!({"tailnum": ["N1"], "at": [planes::JANUARY_10], "n": [n]});
        let body = json!({"push_source_name": "visits", "df": df, "idempotency_key": "k"}).to_string();
        let (status, told) = asked.say("POST", "/push", &body, Some(&asked.keys[who])).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        format!("{status} {} {}", told["accepted"], told["repeated"])
    };
    assert_eq!(push("one", 1).await, "200 1 0");
    assert_eq!(push("two", 2).await, "200 1 0");
    assert_eq!(push("two", 2).await, "200 0 1");
    assert_eq!(push("one", 1).await, "200 0 1");
    assert!(push("one", 2).await.starts_with("409"));
}
