//! What do the names of several projects stand for?

use expect_test::{Expect, expect};
use feature_defs::{DefError, DefFile, Definitions, parse};

const PLATFORM: &str = "
kind: Entity
name: card
join_keys: [{name: card_id, type: int64}]
---
kind: Source
name: payments
push: true
event_timestamp: at
columns: [{name: card_id, type: int64}, {name: at, type: timestamp}, {name: amount, type: float64}]
---
kind: FeatureView
name: spend
share: [risk]
entities: [card]
source: payments
features: [amount]
---
kind: FeatureView
name: secret
entities: [card]
source: payments
features: [amount]
---
kind: FeatureService
name: spend_v1
share: [\"*\"]
features: [spend]
";

/// What these files of the project `risk`, beside those of the platform, declare and refer to; or what is wrong.
fn risk(text: &str) -> Result<Definitions, Vec<DefError>> {
    let theirs = DefFile { project: "risk".to_owned(), ..DefFile::new("a.yaml", text) };
    parse(&[DefFile::new("a.yaml", PLATFORM), theirs])
}

fn check(text: &str, expected: Expect) {
    let shown = match risk(text) {
        Ok(definitions) => {
            let Definitions { views, services, models, roles, .. } = definitions;
            let views =
                views.values().map(|it| format!("view {} of {:?}, {}", it.name, it.entities, it.source));
            let services = services.values().map(|it| {
                let taken: Vec<String> = it
                    .projections
                    .iter()
                    .map(|taken| format!("{}: {:?}", taken.view, taken.features))
                    .collect();
                format!("service {} of {}", it.name, taken.join(", "))
            });
            let models = models.values().map(|it| {
                let fed: Vec<&str> = it.versions.iter().map(|version| version.service.as_str()).collect();
                format!(
                    "model {} of {}, reveals {:?}, owner {:?}",
                    it.name,
                    fed.join(", "),
                    it.reveals,
                    it.governance.owner
                )
            });
            let roles = roles.values().map(|it| {
                let rights: Vec<String> = it.allow.iter().map(|grant| format!("{:?}", grant.right)).collect();
                format!("role {}: {}", it.name, rights.join(", "))
            });
            views.chain(services).chain(models).chain(roles).collect::<Vec<_>>().join("\n")
        }
        Err(errors) => errors.iter().map(DefError::to_string).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn names_are_of_their_project_and_others_are_named_with_theirs() {
    check(
        "
kind: Entity
name: card
join_keys: [{name: card_id, type: int64}]
---
kind: Source
name: payments
push: true
event_timestamp: at
columns: [{name: card_id, type: int64}, {name: at, type: timestamp}, {name: score, type: float64}]
---
kind: FeatureView
name: spend
entities: [card]
source: payments
features: [score]
---
kind: FeatureService
name: both
features: [spend, {view: default.spend, features: [amount]}, {view: risk.spend, as: again}]
---
kind: Model
name: fraud.v2
owner: team
reveals: [\"spend:score\", \"default.spend:amount\"]
versions: [{version: 1, path: m.onnx, service: both}, {version: 2, path: m.onnx, service: default.spend_v1}]
---
kind: Role
name: team
members: [{key: team}]
allow:
  - {predict: [\"*\", risk.fraud.v2, fraud.v2, {tag: all}], read: [{view: default.spend}, {service: both}]}
  - {push: [payments], apply: [{owner: team}], train: [default.spend_v1]}
",
        expect![[r#"
            view risk.spend of ["risk.card"], risk.payments
            view secret of ["card"], payments
            view spend of ["card"], payments
            service risk.both of risk.spend: ["score"], spend: ["amount"], risk.spend: ["score"]
            service spend_v1 of spend: ["amount"]
            model risk.fraud.v2 of risk.both, spend_v1, reveals ["risk.spend:score", "spend:amount"], owner Some("risk.team")
            role risk.team: Predict(All), Predict(Name("risk.fraud.v2")), Predict(Name("risk.fraud.v2")), Predict(Tag("all")), ReadView(Name("spend"), []), ReadService(Name("risk.both")), Train(Name("spend_v1")), Push(Name("risk.payments")), Apply("risk.team")"#]],
    );
}

#[test]
fn what_is_not_shared_is_unknown() {
    check(
        "
kind: FeatureService
name: a
features: [default.secret]
---
kind: FeatureService
name: b
features: [default.spent]
---
kind: FeatureView
name: c
entities: [default.card]
source: default.payments
features: [amount]
",
        expect![[r#"
            risk: a.yaml:4:12: unknown feature view `secret`
              help: known: risk.c, spend
            risk: a.yaml:8:12: unknown feature view `spent`
              help: did you mean `spend`? known: risk.c, spend
            risk: a.yaml:12:12: unknown entity `card`
              help: none is declared
            risk: a.yaml:13:9: unknown source `payments`
              help: none is declared"#]],
    );
}

#[test]
fn a_name_that_reads_as_another_project_s_is_refused() {
    let model = |name: &str| {
        format!(
            "kind: Model\nname: {name}\nversions: [{{version: 1, path: m.onnx, service: default.spend_v1}}]\n"
        )
    };
    let own = DefFile::new("m.yaml", model("risk.fraud"));
    let theirs = DefFile { project: "risk".to_owned(), ..DefFile::new("m.yaml", model("fraud")) };
    let errors = parse(&[DefFile::new("a.yaml", PLATFORM), own, theirs]).unwrap_err();
    let shown: Vec<String> = errors.iter().map(DefError::to_string).collect();
    expect![[r#"
        m.yaml:2:7: model `risk.fraud` is what everybody calls `fraud` of project `risk`
          help: give one of the two another name
        risk: m.yaml:2:7: model `risk.fraud` is given twice
          help: it is first given at m.yaml:2:7"#]]
    .assert_eq(&shown.join("\n"));
}
