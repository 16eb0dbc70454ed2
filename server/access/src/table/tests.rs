//! Does the table say what the roles say?
//!
//! The oracle asks each role of each question anew, grant by grant, as the reference has it.

use std::fmt::Write as _;

use feature_defs::{DefFile, Operation, parse};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::principal::Token;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn one_of() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&NAMES[..])
}

/// A name, a tag or all: as YAML, and whether it picks what has this name and these tags.
fn a_pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        3 => one_of().prop_map(|name| Pick::Name(name.to_owned())),
        1 => one_of().prop_map(|tag| Pick::Tag(tag.to_owned())),
        1 => Just(Pick::All),
    ]
}

fn a_right() -> impl Strategy<Value = Right> {
    let excepted = proptest::sample::subsequence(&NAMES[..], 0..=2);
    prop_oneof![
        1 => a_pick().prop_map(Right::Predict),
        1 => a_pick().prop_map(Right::Label),
        1 => a_pick().prop_map(Right::ReadLog),
        1 => a_pick().prop_map(Right::Route),
        1 => a_pick().prop_map(Right::Train),
        1 => a_pick().prop_map(Right::Push),
        1 => a_pick().prop_map(Right::ReadService),
        3 => (a_pick(), excepted).prop_map(|(pick, except)| {
            Right::ReadView(pick, except.into_iter().map(|name| format!("f_{name}")).collect())
        }),
        1 => one_of().prop_map(|owner| Right::Apply(owner.to_owned())),
        1 => proptest::sample::select(&Operation::ALL[..]).prop_map(Right::Operate),
    ]
}

fn a_member() -> impl Strategy<Value = Member> {
    prop_oneof![
        one_of().prop_map(|name| Member::Key(name.to_owned())),
        one_of().prop_map(|name| Member::Dns(name.to_owned())),
        one_of().prop_map(|name| Member::Spiffe(format!("spiffe://corp/{name}"))),
        (proptest::option::of(one_of()), one_of()).prop_map(|(issuer, group)| Member::Jwt {
            issuer: issuer.map(|name| format!("https://{name}")),
            claim: "groups".to_owned(),
            has: group.to_owned(),
        }),
    ]
}

fn who_asks() -> impl Strategy<Value = Principal> {
    let groups = proptest::sample::subsequence(&NAMES[..], 0..=3);
    prop_oneof![
        Just(Principal::new(Proof::Nobody)),
        one_of().prop_map(|name| Principal::new(Proof::Key(name.to_owned()))),
        (one_of(), one_of()).prop_map(|(spiffe, dns)| {
            let names = vec![format!("spiffe://corp/{spiffe}"), dns.to_owned()];
            Principal::new(Proof::Certificate(names))
        }),
        (one_of(), groups).prop_map(|(issuer, groups)| {
            let claims = Map::from_iter([("groups".to_owned(), json!(groups))]);
            let (issuer, subject) = (format!("https://{issuer}"), "ann".to_owned());
            Principal::new(Proof::Token(Token { issuer, subject, claims }))
        }),
    ]
}

/// Each has a tag or none; each service takes some features of some views.
#[derive(Debug, Clone)]
struct Case {
    tags: Vec<Option<&'static str>>,
    services: Vec<Vec<(&'static str, Vec<&'static str>)>>,
    roles: Vec<(Vec<Member>, Vec<Right>)>,
    who: Vec<Principal>,
}

fn a_case() -> impl Strategy<Value = Case> {
    let features = proptest::sample::subsequence(&NAMES[..], 1..=3);
    let service = proptest::sample::subsequence(&NAMES[..], 1..=3).prop_flat_map(move |views| {
        let features = proptest::collection::vec(features.clone(), views.len());
        features.prop_map(move |features| views.iter().copied().zip(features).collect::<Vec<_>>())
    });
    let role = (proptest::collection::vec(a_member(), 1..3), proptest::collection::vec(a_right(), 0..5));
    (
        proptest::collection::vec(proptest::option::of(one_of()), 12),
        proptest::collection::vec(service, 3),
        proptest::collection::vec(role, 3),
        proptest::collection::vec(who_asks(), 6),
    )
        .prop_map(|(tags, services, roles, who)| Case { tags, services, roles, who })
}

/// The definitions of a case, read as they are written but for the roles, which are put in as they are.
fn definitions(case: &Case) -> Definitions {
    let mut text = String::from("kind: Entity\nname: it\njoin_keys: [{name: id, type: int64}]\n");
    let tag = |of: usize| case.tags[of].map_or(String::new(), |tag| format!("tags: [{tag}]\n"));
    for (place, name) in NAMES.iter().enumerate() {
        let columns = "columns: [{name: id, type: int64}, {name: at, type: timestamp}, {name: f_a, type: int64}, \
                       {name: f_b, type: int64}, {name: f_c, type: int64}]";
        write!(
            text,
            "---\nkind: Source\nname: {name}\n{}push: true\nevent_timestamp: at\n{columns}\n\
             ---\nkind: FeatureView\nname: {name}\n{}entities: [it]\nsource: {name}\nfeatures: [f_a, f_b, f_c]\n\
             ---\nkind: FeatureService\nname: {name}\n{}features:\n",
            tag(place),
            tag(place + 3),
            tag(place + 6)
        )
        .expect("a text grows");
        for (view, features) in &case.services[place] {
            let features: Vec<String> = features.iter().map(|feature| format!("f_{feature}")).collect();
            writeln!(text, "- {{view: {view}, as: {view}, features: [{}]}}", features.join(", "))
                .expect("a text grows");
        }
        let versions = format!("versions: [{{version: 1, path: m.onnx, service: {name}}}]");
        writeln!(text, "---\nkind: Model\nname: {name}\n{}{versions}", tag(place + 9)).expect("a text grows");
    }
    let mut definitions = parse(&[DefFile::new("case.yaml", text)]).expect("sound definitions");
    let loc = definitions.models["a"].loc.clone();
    for (name, (members, rights)) in NAMES.iter().zip(&case.roles) {
        let allow = rights.iter().map(|right| Grant { right: right.clone(), loc: loc.clone() }).collect();
        let (name, members) = ((*name).to_owned(), members.clone());
        let (description, limits, loc) = (String::new(), Limits::default(), loc.clone());
        let role = Role { name: name.clone(), description, members, allow, limits, loc };
        definitions.roles.insert(name, role);
    }
    definitions
}

/// Whether one of the roles of `who` allows it, read off the definitions.
fn is_allowed(definitions: &Definitions, who: &Principal, question: Question<'_>) -> bool {
    let is_member = |role: &Role| {
        role.members.iter().any(|member| match member {
            Member::Key(key) => *who.proof() == Proof::Key(key.clone()),
            Member::Dns(name) | Member::Spiffe(name) => {
                matches!(who.proof(), Proof::Certificate(names) if names.contains(name))
            }
            Member::Jwt { issuer, has, .. } => match who.proof() {
                Proof::Token(token) => {
                    let groups = token.claims["groups"].as_array().expect("a list");
                    groups.contains(&json!(has)) && issuer.as_ref().unwrap_or(&token.issuer) == &token.issuer
                }
                _ => false,
            },
        })
    };
    let rights: Vec<&Right> = definitions
        .roles
        .values()
        .filter(|role| is_member(role))
        .flat_map(|role| role.allow.iter().map(|grant| &grant.right))
        .collect();
    let fits = |pick: &Pick, name: &str, tags: &[String]| match pick {
        Pick::Name(wanted) => wanted == name,
        Pick::Tag(tag) => tags.contains(tag),
        Pick::All => true,
    };
    let reads = |view: &str, feature: &str| {
        rights.iter().any(|right| match right {
            Right::ReadView(pick, except) => {
                fits(pick, view, &definitions.views[view].governance.tags)
                    && except.iter().all(|left| left != feature)
            }
            _ => false,
        })
    };
    match question {
        Question::Feature(view, feature) => reads(view, feature),
        Question::Operate(operation) => rights.contains(&&Right::Operate(operation)),
        Question::Apply(owner) => {
            owner.is_some_and(|owner| rights.contains(&&Right::Apply(owner.to_owned())))
        }
        Question::Do(action, name) => {
            let named = rights.iter().any(|right| match (action, right) {
                (Action::Predict, Right::Predict(pick))
                | (Action::Label, Right::Label(pick))
                | (Action::ReadLog, Right::ReadLog(pick))
                | (Action::Route, Right::Route(pick)) => {
                    fits(pick, name, &definitions.models[name].governance.tags)
                }
                (Action::Train, Right::Train(pick)) | (Action::Read, Right::ReadService(pick)) => {
                    fits(pick, name, &definitions.services[name].governance.tags)
                }
                (Action::Push, Right::Push(pick)) => {
                    fits(pick, name, &definitions.sources[name].governance.tags)
                }
                _ => false,
            });
            let mut features = definitions.services[name].projections.iter();
            let mut by_features =
                || features.all(|of| of.features.iter().all(|feature| reads(&of.view, feature)));
            named || action == Action::Read && by_features()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_roles_say(case in a_case()) {
        let definitions = definitions(&case);
        let access = Access::new(&definitions, Vec::new());
        let features = ["f_a", "f_b", "f_c"];
        let mut questions: Vec<Question<'_>> = Vec::new();
        for name in NAMES {
            questions.extend(Action::ALL.map(|action| Question::Do(action, name)));
            questions.extend(features.map(|feature| Question::Feature(name, feature)));
            questions.push(Question::Apply(Some(name)));
        }
        questions.extend(Operation::ALL.map(Question::Operate));
        questions.push(Question::Apply(None));
        for who in case.who.iter().chain(&case.who) {
            for question in &questions {
                let allowed = is_allowed(&definitions, who, *question);
                prop_assert_eq!(access.rights(who).allow(*question), allowed, "{:?} {:?}", who, question);
                prop_assert_eq!(access.why(who, *question).is_some(), allowed, "why {:?} {:?}", who, question);
            }
        }
    }
}

#[test]
fn who_runs_the_server_and_who_it_names_may_do_everything() {
    let admins = vec![Member::Key("ops".to_owned())];
    let access = Access::new(&Definitions::default(), admins);
    for (proof, all) in [
        (Proof::Open, true),
        (Proof::Owner, true),
        (Proof::Key("ops".to_owned()), true),
        (Proof::Key("other".to_owned()), false),
        (Proof::Nobody, false),
    ] {
        let who = Principal::new(proof);
        assert_eq!(access.rights(&who).is_all(), all, "{who}");
        assert_eq!(access.why(&who, Question::Apply(None)).is_some(), all, "{who}");
    }
}

#[test]
fn who_comes_with_another_token_has_other_rights() {
    let text =
        "kind: Role\nname: ops\nmembers: [{jwt: {claim: groups, has: ops}}]\nallow: [{operate: [status]}]\n";
    let file = DefFile::new("roles.yaml", text.to_owned());
    let access = Access::new(&parse(&[file]).expect("sound"), Vec::new());
    let with = |groups: &[&str]| {
        let claims = Map::from_iter([("groups".to_owned(), json!(groups))]);
        let (issuer, subject) = ("https://sso".to_owned(), "ann".to_owned());
        Principal::new(Proof::Token(Token { issuer, subject, claims }))
    };
    let may = |groups: &[&str]| access.rights(&with(groups)).allow(Question::Operate(Operation::Status));
    assert_eq!([may(&["ops"]), may(&[]), may(&["ops"]), may(&["dev"])], [true, false, true, false]);
}
