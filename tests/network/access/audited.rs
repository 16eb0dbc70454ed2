//! Which decisions stand in the audit, and what is done where it cannot be written?

use std::path::PathBuf;

use arrow_flight::Ticket;
use quern_kit::{Repository, run, run_in, until};
use ring::hmac;
use serde_json::{Value, json};

use super::asking::{Asked, Heard, with};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_rows_out_stands_there() {
    let (asked, folder) = audited(planes::repository(), ROLES, &KEYS).await;
    let mut flight = asked.flight().await;
    let mut export = async |who: &str, ticket: Value| {
        let called = flight.do_get(with(Ticket::new(ticket.to_string()), Some(&asked.keys[who]))).await;
        called.map(drop).map_err(|status| status.message().to_owned())
    };
    let view = json!({"view": "plane_history", "features": ["last_delay"]});
    export("exports", view.clone()).await.unwrap();
    assert_eq!(
        export("reads-view", view).await.unwrap_err(),
        "key:reads-view may not export feature view `plane_history`; a role with `{train: […]}` allows it that names a \
         feature service which takes the view"
    );
    // Of a feature that they may not read they do not learn that it is there.
    let hidden = export("exports", json!({"view": "plane_history"})).await.unwrap_err();
    assert!(hidden.starts_with("unknown feature `plane_history:carrier`"), "{hidden}");
    let source = json!({"source": "landings"});
    export("admin", source.clone()).await.unwrap();
    let refused = export("exports", source).await.unwrap_err();
    assert!(
        refused.starts_with("key:exports may not export source landings: administrators may"),
        "{refused}"
    );
    let read = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let last = async || line(&read(), "exports", "export source landings");
    assert_eq!(until("the last line", last).await, "deny");
    let text = read();
    let allowed = line(&text, "exports", "export plane_history").unwrap();
    assert!(allowed.starts_with("allow: role `exports` allows it"), "{allowed}");
    assert_eq!(line(&text, "reads-view", "export plane_history").as_deref(), Some("deny"));
    let allowed = line(&text, "admin", "export source landings").unwrap();
    assert!(allowed.starts_with("allow: they are among `admins`"), "{allowed}");
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

/// The entities of each line of `action`, and its rows.
fn named(text: &str, action: &str) -> Vec<(Vec<String>, u64)> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let its = lines.filter(|line| line["action"] == action && line["entities"].is_array());
    let entities = |line: &Value| serde_json::from_value(line["entities"].clone()).unwrap();
    its.map(|line| (entities(&line), line["rows"].as_u64().unwrap())).collect()
}

/// What stands for a plane, as the docs say it.
fn pseudonym(secret: &[u8], tailnum: &str) -> String {
    let length = u8::try_from(tailnum.len()).unwrap();
    let message = [b"plane\0", &[length][..], tailnum.as_bytes()].concat();
    let whole = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &message);
    whole.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_stand_in_it_by_what_only_a_secret_finds() {
    let repository = planes::repository();
    let pushed = planes::DEFINITIONS.replacen("name: landings\n", "name: landings\npush: true\n", 1);
    repository.write("definitions.yaml", pushed);
    let (asked, folder) = audited(repository, ROLES, &KEYS).await;
    let instance = |number: usize| json!({"tailnum": format!("SECRET{number}"), "distance": 10});
    let instances = |numbers: &[usize]| numbers.iter().map(|number| instance(*number)).collect::<Vec<_>>();
    let one = json!({"instances": instances(&[0])}).to_string();
    let many: Vec<usize> = (0..3).chain(0..30).collect();
    let many = json!({"instances": instances(&many)}).to_string();
    let infer = json!({"inputs": [
        {"name": "tailnum", "datatype": "BYTES", "shape": [1], "data": ["SECRET7"]},
        {"name": "distance", "datatype": "FP64", "shape": [1], "data": [10]},
    ]});
    let entities = json!({"tailnum": ["SECRET1", null], "distance": [1, 1]});
    let look_up = json!({"feature_service": "delay_v1", "entities": entities}).to_string();
    let listed =
        json!({"features": ["plane_history:seats"], "entities": {"tailnum": ["SECRET2"]}}).to_string();
    let at = ["2013-01-09T00:00:00Z"];
    let df = json!({"tailnum": ["SECRET3"], "landed_at": at, "loaded_at": at, "delay": [1], "seats": [7], "carrier": ["A"]});
    let push = json!({"push_source_name": "landings", "df": df}).to_string();
    for (who, path, body) in [
        ("predicts", "/v1/models/delay:predict", one.as_str()),
        ("predicts", "/v1/models/delay:predict", &many),
        ("predicts", "/v2/models/delay/infer", &infer.to_string()),
        ("reads", "/get-online-features", &look_up),
        ("reads-view", "/get-online-features", &listed),
        ("pushes", "/push", &push),
    ] {
        let (status, text) = asked.say("POST", path, body, Some(&asked.keys[who])).await;
        assert_eq!(status, 200, "{path} by {who}: {text}");
    }
    // Whoever may not ask is told of, and not what they asked about.
    let heard = asked.http("POST", "/v1/models/delay:predict", &one, Some(&asked.keys["pushes"])).await;
    assert_eq!(heard, Heard::NotThere);
    let secret = asked.server.repository.path().join(".quern/audit.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&secret.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(secret).unwrap();
    let of = |number: usize| pseudonym(secret.trim().as_bytes(), &format!("SECRET{number}"));
    let read = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let all = async || (!named(&read(), "push landings").is_empty()).then(&read);
    let text = until("the last line", all).await;
    let first = (0..16).map(of).collect();
    assert_eq!(named(&text, "predict delay"), [(vec![of(0)], 1), (first, 33), (vec![of(7)], 1)], "{text}");
    assert_eq!(named(&text, "read delay_v1"), [(vec![of(1)], 2)]);
    assert_eq!(named(&text, "read features"), [(vec![of(2)], 1)]);
    assert_eq!(named(&text, "push landings"), [(vec![of(3)], 1)]);
    assert!(!text.contains("SECRET") && !text.contains(secret.trim()), "{text}");
    assert_eq!(text.matches(r#""action":"push landings","decision":"allow""#).count(), 1, "{text}");

    let repository = asked.server.stop_and_keep().await;
    let told = run(repository.path(), &["audit", "plane", "tailnum=SECRET7"]).answer();
    assert_eq!(told.trim(), of(7));
    for (words, part) in [
        (&["audit", "plan", "tailnum=N1"][..], "did you mean `plane`"),
        (&["audit", "plane"], "give `tailnum=…` once"),
        (&["audit", "plane", "tail=N1"], "`tail` is no join key of `plane`"),
    ] {
        let refused = run(repository.path(), words);
        assert!(refused.code == Some(2) && refused.stderr.contains(part), "{}", refused.stderr);
    }
    // All servers of a fleet have one secret by a setting, which is a file with enough in it.
    let file = folder.path().join("audit-key");
    let told = |secret: &str| {
        std::fs::write(&file, secret).unwrap();
        let environment = [("QUERN_AUDIT_KEY", file.display().to_string())];
        run_in(repository.path(), &["audit", "plane", "tailnum=SECRET7"], &environment)
    };
    let ours = "0123456789abcdef";
    assert_eq!(told(&format!("{ours}\n")).answer().trim(), pseudonym(ours.as_bytes(), "SECRET7"));
    let refused = told("short\n");
    assert!(refused.code == Some(1) && refused.stderr.contains("`audit_key`"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_audit_there_is_no_secret() {
    let repository = planes::repository();
    drop(planes::open(&repository).await);
    assert!(!repository.path().join(".quern/audit.key").exists());
    let refused = run(repository.path(), &["audit", "plane", "tailnum=N1"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("audit.key"), "{}", refused.stderr);
}
