//! What do roles declare, and which mistakes do they have?

use expect_test::expect;

use crate::{check, parse_all};

/// A repository of one model, to be spoken of.
const MODEL: &str = "kind: Entity
name: card
join_keys: [{name: card, type: string}]
---
kind: Source
name: payments
push: true
event_timestamp: at
columns: [{name: card, type: string}, {name: at, type: timestamp}, {name: pan_hash, type: string}]
---
kind: FeatureView
name: card
entities: [card]
source: payments
features: [pan_hash]
---
kind: FeatureService
name: fraud_v3
features: [card]
---
kind: Model
name: fraud
owner: fraud-team
tags: [money]
reveals: [\"card:pan_hash\"]
versions: [{version: 1, path: m.onnx, service: fraud_v3}]
---
";

#[test]
fn a_role_says_who_and_what() {
    let role = "kind: Role
name: fraud-team
members: [{jwt: {claim: groups, has: fraud-ml}}, {key: ci}]
allow:
  - {read: [{service: fraud_v3}, {view: card, except: [pan_hash]}, {view: {tag: pii}}], predict: [fraud, {tag: money}]}
  - {push: [\"*\"], apply: [{owner: fraud-team}], operate: [status]}
limits: {requests: 500/s, instances: 10/h}
";
    let definitions = parse_all(&[("a.yaml", &format!("{MODEL}{role}"))]).unwrap();
    let role = &definitions.roles["fraud-team"];
    let said: Vec<String> = role.allow.iter().map(|grant| format!("{:?}", grant.right)).collect();
    expect![[r#"
        Predict(Name("fraud"))
        Predict(Tag("money"))
        ReadService(Name("fraud_v3"))
        ReadView(Name("card"), ["pan_hash"])
        ReadView(Tag("pii"), [])
        Push(All)
        Apply("fraud-team")
        Operate(Status)"#]]
    .assert_eq(&said.join("\n"));
    expect![[r#"[Jwt { issuer: None, claim: "groups", has: "fraud-ml" }, Key("ci")]"#]]
        .assert_eq(&format!("{:?}", role.members));
    let limits = (role.limits.requests.unwrap(), role.limits.instances.unwrap());
    assert_eq!((limits.0.to_string(), limits.1.to_string()), ("500/s".to_owned(), "10/h".to_owned()));
    let model = &definitions.models["fraud"];
    assert_eq!(
        (model.governance.owner.as_deref(), model.reveals.as_slice()),
        (Some("fraud-team"), &["card:pan_hash".to_owned()][..])
    );
}

#[test]
fn what_a_role_names_is_there() {
    check(
        &format!(
            "{MODEL}kind: Role
name: fraud-team
members: [{{key: ci, dns: host}}, {{}}]
allow:
  - {{predict: [fruad], train: [fraud_v2], push: [paymnts], read: [{{view: card, except: [pan]}}, {{service: fraud_v3, except: [pan_hash]}}]}}
  - {{apply: [{{owner: fraud}}], operate: [reboot], predict: [{{name: fraud, tag: money}}]}}
  - {{}}
limits: {{requests: 500}}
---
kind: Role
name: admin
members: [{{key: ci}}]
---
kind: Entity
name: shop
owner: nobody
join_keys: [{{name: shop, type: string}}]
---
kind: Model
name: other
reveals: [pan_hash, \"card:pan\"]
versions: [{{version: 1, path: m.onnx, service: fraud_v3}}]
"
        ),
        expect![[r#"
            a.yaml:30:11: a member has `dns` and `key`
              help: keep one of them
            a.yaml:30:33: a member lacks `spiffe` or `dns` or `key` or `jwt`
            a.yaml:32:16: unknown model `fruad`
              help: did you mean `fraud`? known: fraud, other
            a.yaml:32:32: unknown feature service `fraud_v2`
              help: did you mean `fraud_v3`? known: fraud_v3
            a.yaml:32:50: unknown source `paymnts`
              help: did you mean `payments`? known: payments
            a.yaml:32:67: `pan` is no feature of feature view `card`
              help: did you mean `pan_hash`? known: pan_hash
            a.yaml:32:124: `except` leaves features of a `view` out; a service gives all that it gives
              help: allow its views instead
            a.yaml:33:14: unknown role `fraud`
              help: did you mean `fraud-team`? known: admin, fraud-team
            a.yaml:33:41: each of `operate` must be `backup` or `materialize` or `metrics` or `scrub` or `seal` or `status`, found `reboot`
            a.yaml:33:60: what is picked has `name` and `tag`
              help: keep one of them
            a.yaml:34:5: a grant allows nothing
              help: as in `{predict: [fraud]}`
            a.yaml:35:20: `requests` must be a rate such as `500/s`, `30/m` or `10/h`, found the number `500`
            a.yaml:38:7: the role `admin` is there already: its members stand in quern.yaml as `admins`
              help: give this one another name
            a.yaml:43:8: unknown role `nobody`
              help: known: admin, fraud-team
            a.yaml:48:11: each of `reveals` must be a feature as `view:feature`, found `pan_hash`
            a.yaml:48:21: `pan` is no feature of feature view `card`
              help: did you mean `pan_hash`? known: pan_hash"#]],
    );
}
