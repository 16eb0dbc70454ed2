//! Which decisions stand in the audit, and what is done where it cannot be written?

use std::path::PathBuf;

use quern_kit::{Repository, until};
use serde_json::{Value, json};

use super::asking::{Asked, Heard};
use super::{KEYS, ROLES};
use crate::planes;

/// A server with an audit, and its folder.
async fn audited(repository: Repository, roles: &str, keys: &[&str]) -> (Asked, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl").display().to_string();
    (Asked::open_in(repository, roles, &[("audit", audit)], keys).await, folder)
}

/// The line of each action that `who` asked for last, as `decision: rule`.
fn line(text: &str, who: &str, action: &str) -> Option<String> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_it = |line: &Value| line["principal"] == format!("key:{who}") && line["action"] == action;
    let found = lines.rev().find(is_it)?;
    let rule = found["rule"].as_str().map(|rule| format!(": {rule}"));
    Some(format!("{}{}", found["decision"].as_str().unwrap(), rule.unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_has_its_line() {
    let (asked, folder) = audited(planes::repository(), ROLES, &KEYS).await;
    let can = r#"{"who": "key:x", "action": "operate", "what": "status"}"#;
    let features = r#"{"instances": [{"tailnum": "N1", "distance": 10}], "with_features": true}"#;
    let asks = [
        ("applies", "POST", "/v1/check", "", "check definitions"),
        ("applies", "POST", "/v1/plan", "", "plan apply 2"),
        ("applies", "POST", "/v1/can", can, "can key:x operate status"),
        ("watches", "GET", "/v1/status", "", "operate status"),
        ("watches", "GET", "/metrics", "", "operate metrics"),
        ("reads-log", "POST", "/v1/verify", r#"{"model": "delay"}"#, "read_log delay"),
        ("admin", "POST", "/v1/models/delay:predict", features, "read delay_v1"),
    ];
    for (who, method, path, body, _) in asks {
        let heard = asked.http(method, path, body, Some(&asked.keys[who])).await;
        assert_eq!(heard, Heard::Answered, "{path} by {who}");
        let heard = asked.http(method, path, body, Some(&asked.keys["predicts"])).await;
        assert!(matches!(heard, Heard::Forbidden | Heard::NotThere), "{path}: {heard:?}");
    }
    let read = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let last = async || line(&read(), "predicts", "read delay_v1");
    assert_eq!(until("the last line", last).await, "deny");
    let text = read();
    for (who, _, path, _, action) in asks {
        let allowed = line(&text, who, action).unwrap_or_else(|| panic!("{action} by {who} in {text}"));
        let rule =
            if who == "admin" { "they are among `admins`" } else { &format!("role `{who}` allows it") };
        assert!(allowed.starts_with(&format!("allow: {rule}")), "{action}: {allowed}");
        // Of a plan there is nothing, since its check is refused.
        let denied = line(&text, "predicts", action);
        assert_eq!(denied.as_deref(), (path != "/v1/plan").then_some("deny"), "{action} in {text}");
    }
}

/// Two owners, of whom one role each may apply what is theirs.
const OWNERS: &str = r#"
---
kind: Role
name: aa
members: [{key: both}]
allow: [{apply: [{owner: aa}]}]
---
kind: Role
name: bb
members: [{key: both}]
allow: [{apply: [{owner: bb}]}]
---
kind: Entity
name: a
owner: aa
join_keys: [{name: a, type: string}]
---
kind: Entity
name: b
owner: bb
join_keys: [{name: b, type: string}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_cites_the_rule_of_whose_definitions_change() {
    let (asked, folder) = audited(planes::repository(), OWNERS, &["both"]).await;
    let mut text = OWNERS.to_owned();
    for (number, from, to, roles) in [
        (2, "name: b\nowner", "name: b\ndescription: new\nowner", &["bb"][..]),
        (3, "name: a\nowner", "name: a\ndescription: new\nowner", &["aa"]),
        (4, "description: new", "description: newer", &["aa", "bb"]),
    ] {
        text = text.replace(from, to);
        asked.server.repository.write("roles.yaml", &text);
        let (status, said) = asked.say("POST", "/v1/apply", "", Some(&asked.keys["both"])).await;
        assert_eq!(status, 200, "{said}");
        let audit = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
        let rule = line(&audit, "both", &format!("apply {number}")).unwrap();
        for role in ["aa", "bb"] {
            assert_eq!(rule.contains(&format!("role `{role}`")), roles.contains(&role), "{rule}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_audit_only_what_takes_away_is_done() {
    let (asked, folder) = audited(planes::repository(), ROLES, &KEYS).await;
    let file: PathBuf = folder.path().join("audit.jsonl");
    std::fs::rename(&file, folder.path().join("audit.1")).unwrap();
    std::fs::create_dir(&file).unwrap();
    let to = json!({"to": folder.path().join("copy")}).to_string();
    for (who, path, body) in [
        ("materialize", "/v1/materialize", "{}"),
        ("seal", "/v1/seal", "{}"),
        ("keeps", "/v1/scrub", "{}"),
        ("keeps", "/v1/backup", to.as_str()),
        ("admin", "/v1/keys", r#"{"name": "new"}"#),
    ] {
        let heard = asked.http("POST", path, body, Some(&asked.keys[who])).await;
        assert_eq!(heard, Heard::NotNow, "{path}");
    }
    assert!(!folder.path().join("copy").exists());
    let revoke = json!({"key": "predicts"}).to_string();
    let heard = asked.http("POST", "/v1/keys/revoke", &revoke, Some(&asked.keys["admin"])).await;
    assert_eq!(heard, Heard::Answered);
    let heard = asked.http("GET", "/v1/definitions", "", Some(&asked.keys["predicts"])).await;
    assert_eq!(heard, Heard::Unknown);
    std::fs::remove_dir(&file).unwrap();
    let metrics = asked.say("GET", "/metrics", "", Some(&asked.keys["watches"])).await.1;
    assert!(quern_kit::metric(&metrics, "quern_audit_dropped_total") >= Some(1.0), "{metrics}");
}
