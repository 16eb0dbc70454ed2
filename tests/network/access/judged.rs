//! What may those apply who may apply for one owner? The difference counts, not the repository.

use quern_kit::Repository;

use super::asking::{Asked, Heard};
use crate::planes;

/// A team that owns one view and one service over it; the rest is nobody's.
const TEAM: &str = r#"
---
kind: Role
name: team
members: [{key: team}]
allow:
  - {read: [{view: plane_history}], apply: [{owner: team}]}
---
kind: Role
name: other
members: [{key: other}]
allow: [{apply: [{owner: other}]}]
---
kind: Source
name: visits
owner: team
push: true
event_timestamp: at
columns: [{name: tailnum, type: string}, {name: at, type: timestamp}, {name: n, type: int64}]
---
kind: FeatureView
name: visits
owner: team
entities: [plane]
source: visits
features: [n]
---
kind: FeatureService
name: visits_v1
owner: team
features: [visits]
"#;

/// Applies the repository with `TEAM` changed so, in the name of `who`.
async fn applied(asked: &Asked, repository: &Repository, from: &str, to: &str, who: &str) -> (u16, String) {
    assert!(TEAM.contains(from), "{from}");
    repository.write("roles.yaml", TEAM.replace(from, to));
    asked.say("POST", "/v1/apply", "", Some(&asked.keys[who])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_team_changes_what_is_theirs() {
    let asked = Asked::open_in(planes::repository(), TEAM, &[], &["team", "other", "admin"]).await;
    let repository = &asked.server.repository;
    for (from, to, cause) in [
        ("owner: team\npush", "owner: other\npush", "apply: [{owner: other}]"),
        ("owner: team\npush", "push", "nobody owns it"),
        ("owner: team\nentities", "owner: other\nentities", "apply: [{owner: other}]"),
        (
            "source: visits\nfeatures: [n]",
            "source: landings\nfeatures: [seats]",
            "source `landings`, which is not theirs",
        ),
        (
            "apply: [{owner: team}]}",
            "apply: [{owner: team}, {owner: other}]}",
            "administrators alone change roles",
        ),
        (
            "allow: [{apply: [{owner: other}]}]",
            "allow: [{apply: [{owner: team}]}]",
            "administrators alone change roles",
        ),
    ] {
        let (status, text) = applied(&asked, repository, from, to, "team").await;
        assert_eq!(status, 403, "{from} → {to}: {text}");
        assert!(text.contains(cause), "{from} → {to}: {text}");
        let plan = asked.say("POST", "/v1/plan", "", Some(&asked.keys["team"])).await;
        let plan: serde_json::Value = serde_json::from_str(&plan.1).unwrap();
        assert!(plan["forbidden"].as_str().is_some_and(|said| said.contains(cause)), "{from} → {to}: {plan}");
    }
    let mine = ("features: [n]", "features: [{name: n}, {name: twice, expr: n * 2}]");
    let (status, text) = applied(&asked, repository, mine.0, mine.1, "other").await;
    assert!(status == 403 && text.contains("owner: team"), "{text}");
    let (status, text) = applied(&asked, repository, mine.0, mine.1, "team").await;
    assert_eq!(status, 200, "{text}");
    // What they may read they may take into what is theirs, and nothing else.
    let take = |feature: &str| format!("features: [visits, {{view: plane_history, features: [{feature}]}}]");
    let (status, text) = applied(&asked, repository, "features: [visits]", &take("seats"), "team").await;
    assert_eq!(status, 200, "{text}");
    let (status, text) = applied(&asked, repository, "read: [{view: plane_history}], ", "", "admin").await;
    assert_eq!(status, 200, "{text}");
    repository.write(
        "roles.yaml",
        TEAM.replace("read: [{view: plane_history}], ", "").replace("features: [visits]", &take("carrier")),
    );
    let (status, text) = asked.say("POST", "/v1/apply", "", Some(&asked.keys["team"])).await;
    assert!(status == 403 && text.contains("`plane_history:carrier`, which they may not read"), "{text}");
    // Whoever may apply nothing is not even told whether it would hold.
    for path in ["/v1/check", "/v1/plan"] {
        let heard = asked.http("POST", path, "", Some(&asked.keys["other"])).await;
        assert_eq!(heard, Heard::Answered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_who_gains_what() {
    let asked = Asked::open_in(planes::repository(), TEAM, &[], &["admin"]).await;
    let tagged = TEAM.replace("{view: plane_history}", "{view: {tag: open}}");
    asked.server.repository.write("roles.yaml", tagged);
    let (status, text) = asked.say("POST", "/v1/plan", "", Some(&asked.keys["admin"])).await;
    assert_eq!(status, 200, "{text}");
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    let role = &plan["access"][0];
    assert_eq!(role["role"], "team", "{text}");
    assert_eq!(plan.get("forbidden"), None);
    assert!(role["loses"].to_string().contains("read plane_history:seats"), "{text}");
}

/// A team of another project, over a view that is shared with it.
const RISK: &str = r#"
kind: Role
name: team
members: [{key: team}]
allow: [{predict: ["*"], read: [{view: "*"}, {view: default.plane_history}], apply: [{owner: team}]}]
---
kind: FeatureService
name: delay_v1
owner: team
request: [{name: distance, type: float64}]
features: [{view: default.plane_history, features: [last_delay]}]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, last_delay, far]
---
kind: Model
name: delay
owner: team
versions: [{version: "1", path: linear.onnx, service: delay_v1}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_has_its_own_project_and_no_other() {
    let (platform, risk) = (planes::repository(), Repository::new(RISK));
    risk.write("quern.yaml", format!("project: risk\nserved_by: {}\n", platform.path().display()));
    risk.write("linear.onnx", quern_kit::fixture("linear.onnx"));
    platform.write(
        "definitions.yaml",
        planes::DEFINITIONS.replace("name: plane_history\n", "name: plane_history\nshare: [risk]\n"),
    );
    let projects = [("projects", risk.path().display().to_string())];
    let asked = Asked::open_in(platform, "", &projects, &["team", "admin"]).await;
    let apply = async |who: &str, project: &str| {
        let body = format!(r#"{{"project": "{project}"}}"#);
        asked.say("POST", "/v1/apply", &body, Some(&asked.keys[who])).await
    };
    let (status, text) = apply("admin", "risk").await;
    assert_eq!(status, 200, "{text}");
    // "*" is all of the own project.
    const PREDICT: &str = r#"{"instances": [{"tailnum": "N1", "distance": 10}]}"#;
    for (model, status) in [("risk.delay", 200), ("delay", 404), ("carrier", 404)] {
        let path = format!("/v1/models/{model}:predict");
        assert_eq!(asked.say("POST", &path, PREDICT, Some(&asked.keys["team"])).await.0, status, "{model}");
    }
    risk.write(
        "definitions.yaml",
        RISK.replace(
            "outputs: [distance, last_delay, far]\n",
            "outputs: [distance, last_delay, far]\nshare: [default]\n",
        ),
    );
    let (status, text) = apply("team", "risk").await;
    assert!(status == 403 && text.contains("administrators alone change `share`"), "{text}");
    let more = "---\nkind: FeatureService\nname: more\nowner: team\nfeatures: [default.plane_history]\n";
    risk.write("definitions.yaml", format!("{RISK}{more}share: [\"*\"]\n"));
    let (status, text) = apply("team", "risk").await;
    assert!(status == 403 && text.contains("administrators alone `share` what is new"), "{text}");
    risk.write("definitions.yaml", format!("{RISK}{more}"));
    assert_eq!(apply("team", "risk").await.0, 200);
    // What the platform's view gets, their service gets: that is theirs to say, and an administrator's.
    let wider = "  - {name: carrier, default: none}\n  - {name: twice, expr: seats * 2}\n";
    let platform = &asked.server.repository;
    let text = std::fs::read_to_string(platform.path().join("definitions.yaml")).unwrap();
    platform.write("definitions.yaml", text.replace("  - {name: carrier, default: none}\n", wider));
    // What another project is to be, and whether there is one, they are not told.
    for (path, project) in
        ["check", "plan", "apply"].into_iter().flat_map(|path| [(path, "default"), (path, "nowhere")])
    {
        let body = format!(r#"{{"project": "{project}"}}"#);
        let (status, text) =
            asked.say("POST", &format!("/v1/{path}"), &body, Some(&asked.keys["team"])).await;
        let refused = format!("change definitions of the project `{project}`");
        assert!(status == 403 && text.contains(&refused), "{path} {text}");
    }
    let (status, text) =
        asked.say("POST", "/v1/plan", r#"{"project": "risk"}"#, Some(&asked.keys["team"])).await;
    assert!(status == 200 && !text.contains("plane_history"), "{text}");
    assert_eq!(apply("admin", "default").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_alone_say_where_definitions_lead() {
    let asked = Asked::open_in(planes::repository(), TEAM, &[], &["team", "other", "admin"]).await;
    let repository = &asked.server.repository;
    let apply = async |who: &str, text: &str| {
        repository.write("more.yaml", text);
        asked.say("POST", "/v1/apply", "", Some(&asked.keys[who])).await
    };
    let broker = "kind: Connection\nname: broker\nowner: team\nurl: kafka://kafka-1:9092\n---\n";
    let clicks = "kind: Source\nname: clicks\nowner: team\nevent_timestamp: at\n\
                  stream: {broker: kafka, servers: \"kafka-1:9092\", topic: clicks}\n\
                  columns: [{name: at, type: timestamp}]\n";
    let (status, text) = apply("team", clicks).await;
    assert!(status == 422 && text.contains("no connection of its project leads to"), "{text}");
    let (status, text) = apply("team", &format!("{broker}{clicks}")).await;
    assert!(status == 403 && text.contains("administrators alone change connections"), "{text}");
    let (status, text) = apply("admin", broker).await;
    assert!(status == 200 && text.contains(r#""kind":"Connection","name":"broker""#), "{text}");
    // From then on it is theirs to use, and not to change or take away.
    for changed in [&broker.replace("kafka-1", "kafka-2"), ""] {
        let (status, text) = apply("team", changed).await;
        assert!(status == 403 && text.contains("administrators alone change connections"), "{text}");
    }
    assert_eq!(apply("team", &format!("{broker}{clicks}")).await.0, 200);
    let (status, text) = apply("admin", clicks).await;
    assert!(status == 422 && text.contains("no connection of its project leads to"), "{text}");

    // Whoever may apply what its owner owns knows it.
    for (who, knows) in [("admin", true), ("team", true), ("other", false)] {
        let (_, text) = asked.say("GET", "/v1/definitions", "", Some(&asked.keys[who])).await;
        assert_eq!(text.contains("kafka://kafka-1:9092"), knows, "{who}: {text}");
        let can = r#"{"who": "key:team", "action": "apply", "what": "connection:broker"}"#;
        let (_, text) = asked.say("POST", "/v1/can", can, Some(&asked.keys[who])).await;
        let said =
            if knows { "administrators alone change connections" } else { "unknown connection `broker`" };
        assert!(text.contains(said), "{who}: {text}");
    }
    // A password is no part of it, and nobody is told the one that was.
    let secret = broker.replace("kafka-1", "me:S3CRET@kafka-1");
    let (status, text) = apply("admin", &format!("{secret}{clicks}")).await;
    assert!(status == 422 && text.contains("say") && !text.contains("S3CRET"), "{text}");
}
