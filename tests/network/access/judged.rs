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
    assert!(role["loses"].to_string().contains("read plane_history:seats"), "{text}");
}
