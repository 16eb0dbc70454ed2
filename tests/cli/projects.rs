//! What does a user read who has one of several projects of a server?

use std::fs;

use expect_test::expect;
use quern_kit::run;
use tempfile::TempDir;

use super::commands::{check, words};

const PLATFORM: &str = "\
kind: Entity
name: card
join_keys: [{name: card_id, type: int64}]
---
kind: Source
name: payments
batch: {format: csv, path: payments.csv}
event_timestamp: at
columns: [{name: card_id, type: int64}, {name: at, type: timestamp}, {name: amount, type: float64}]
---
kind: FeatureView
name: card
share: [risk]
entities: [card]
source: payments
features: [amount]
";

const RISK: &str = "\
kind: FeatureService
name: fraud_v1
features: [default.card]
derived: [{name: dear, expr: amount > 100}]
";

/// A folder with both, as operations.md shows them.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    for repository in ["platform", "risk"] {
        fs::create_dir(folder.path().join(repository)).unwrap();
    }
    write("platform/quern.yaml", "projects: [../risk]\n");
    write("platform/definitions.yaml", PLATFORM);
    write("platform/payments.csv", "card_id,at,amount\n7,2026-01-01T00:00:00Z,250\n");
    write("risk/quern.yaml", "project: risk\nserved_by: ../platform\n");
    write("risk/definitions.yaml", RISK);
    folder
}

#[test]
fn each_is_applied_from_its_own_folder() {
    let folder = folder();
    let at = folder.path();
    check(
        at,
        "check risk",
        expect![[r#"
        exit 1
        definitions.yaml:3:12: unknown feature view `card`
          help: none is declared
        1 mistake
    "#]],
    );
    check(
        at,
        "apply platform",
        expect![[r#"
        + entity card
        + source payments
        + feature view card

        to materialize:
            card: new; reads 1 file, 45 B

        3 to add, 0 to change, 0 to remove

        apply 1 is live
        next: quern materialize platform
    "#]],
    );
    check(
        at,
        "apply risk",
        expect![[r#"
        + feature service risk.fraud_v1

        1 to add, 0 to change, 0 to remove

        apply 2 is live
    "#]],
    );
    check(
        at,
        "check risk",
        expect![[r#"
        the definitions hold: entities 0, sources 0, feature views 0, feature services 1, models 0
    "#]],
    );
    check(
        at,
        "plan risk",
        expect![[r#"
        no changes; apply 2 is live
    "#]],
    );
    assert_eq!(run(at, &words("materialize platform")).code, Some(0));
    check(
        at,
        "get platform risk.fraud_v1 card_id=7",
        expect![[r#"
            feature  value  status   event timestamp
            card_id      7  PRESENT
            amount   250.0  PRESENT  2026-01-01T00:00:00Z
            dear      true  PRESENT
        "#]],
    );
    fs::write(at.join("platform/definitions.yaml"), PLATFORM.replace("share: [risk]\n", "")).unwrap();
    check(
        at,
        "plan platform",
        expect![[r#"
            exit 1
            risk: definitions.yaml:3:12: unknown feature view `card`
              help: project `risk` is live and needs what it uses to stay as it is: its owners move away first; none is declared
            1 mistake
        "#]],
    );
    fs::write(at.join("platform/quern.yaml"), "").unwrap();
    check(
        at,
        "apply risk",
        expect![[r#"
        exit 1
        error: `served_by`: DIR/platform/quern.yaml does not list DIR/risk among its `projects`; whoever runs that server adds it
    "#]],
    );
    // What is live stays live, though nobody knows the folder any more.
    check(
        at,
        "get platform risk.fraud_v1 card_id=7",
        expect![[r#"
            feature  value  status   event timestamp
            card_id      7  PRESENT
            amount   250.0  PRESENT  2026-01-01T00:00:00Z
            dear      true  PRESENT
        "#]],
    );
}
