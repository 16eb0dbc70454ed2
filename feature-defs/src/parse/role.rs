//! What does a role's document declare, and do its names refer to something?

use super::declared::{Declaration, Declared, Names};
use super::names::one_of;
use super::read::{identity, items, text, texts};
use crate::definitions::{ADMIN, Grant, Limits, Member, Operation, Pick, Rate, Right, Role};
use crate::shape::Kind;
use crate::yaml::Node;
use crate::{DefError, Definition, suggest};

pub(super) fn read(node: &Node) -> Role {
    let (name, loc) = identity(node, "name");
    Role {
        description: text(node, "description"),
        members: items(node, "members").filter_map(member).collect(),
        allow: items(node, "allow").flat_map(grants).collect(),
        limits: node.get("limits").map(limits).unwrap_or_default(),
        name,
        loc,
    }
}

fn member(node: &Node) -> Option<Member> {
    let said = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    if let Some(jwt) = node.get("jwt") {
        let issuer = jwt.get("issuer").and_then(Node::text).map(str::to_owned);
        return Some(Member::Jwt { issuer, claim: text(jwt, "claim"), has: text(jwt, "has") });
    }
    let spiffe = said("spiffe").map(Member::Spiffe);
    spiffe.or_else(|| said("dns").map(Member::Dns)).or_else(|| said("key").map(Member::Key))
}

/// What is allowed of what is picked.
type ByPick = fn(Pick) -> Right;

/// One item of `allow` may allow several things, each of several.
fn grants(node: &Node) -> Vec<Grant> {
    let mut grants = Vec::new();
    let by_pick: [(&str, ByPick); 6] = [
        ("predict", Right::Predict),
        ("label", Right::Label),
        ("read_log", Right::ReadLog),
        ("route", Right::Route),
        ("train", Right::Train),
        ("push", Right::Push),
    ];
    for (key, right) in by_pick {
        let picked = items(node, key).filter_map(|item| Some((pick(item)?, item)));
        grants.extend(picked.map(|(pick, item)| Grant { right: right(pick), loc: item.loc.clone() }));
    }
    for item in items(node, "read") {
        let service = item.get("service").and_then(pick).map(Right::ReadService);
        let view = || Some(Right::ReadView(pick(item.get("view")?)?, texts(item, "except")));
        grants.extend(service.or_else(view).map(|right| Grant { right, loc: item.loc.clone() }));
    }
    for item in items(node, "apply") {
        grants.push(Grant { right: Right::Apply(text(item, "owner")), loc: item.loc.clone() });
    }
    for item in items(node, "operate") {
        let named = |operation: &Operation| item.text() == Some(operation.name());
        let operation = Operation::ALL.into_iter().find(named);
        grants.extend(operation.map(|one| Grant { right: Right::Operate(one), loc: item.loc.clone() }));
    }
    grants
}

fn pick(node: &Node) -> Option<Pick> {
    if let Some(tag) = node.get("tag") {
        return Some(Pick::Tag(tag.text()?.to_owned()));
    }
    match identity(node, "name").0 {
        name if name.is_empty() => None,
        name if name == "*" => Some(Pick::All),
        name => Some(Pick::Name(name)),
    }
}

fn limits(node: &Node) -> Limits {
    let rate = |key: &str| Rate::parse(node.get(key)?.text()?);
    Limits { requests: rate("requests"), instances: rate("instances") }
}

/// Checks the names in `role`, and that each of its parts says one thing.
pub(super) fn check(role: &Declaration<Role>, declared: &Declared, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = role;
    if def.name == ADMIN {
        let cause =
            format!("the role `{ADMIN}` is there already: its members stand in quern.yaml as `admins`");
        errors.push(DefError::new(&def.loc, cause).with_help("give this one another name"));
    }
    for member in items(node, "members") {
        one_of(member, "a member", &["spiffe", "dns", "key", "jwt"], errors);
    }
    for item in items(node, "allow") {
        if item.entries().is_empty() {
            errors.push(
                DefError::new(&item.loc, "a grant allows nothing").with_help("as in `{predict: [fraud]}`"),
            );
        }
        for picked in ["predict", "label", "read_log", "route", "train", "push"] {
            items(item, picked).for_each(|pick| check_pick(pick, errors));
        }
        for read in items(item, "read") {
            one_of(read, "what may be read", &["service", "view"], errors);
            ["service", "view"]
                .iter()
                .filter_map(|key| read.get(key))
                .for_each(|pick| check_pick(pick, errors));
            if let (Some(except), Some(_)) = (read.get("except"), read.get("service")) {
                let cause = "`except` leaves features of a `view` out; a service gives all that it gives";
                errors.push(DefError::new(&except.loc, cause).with_help("allow its views instead"));
            }
        }
    }
    for grant in &def.allow {
        check_names(grant, declared, errors);
    }
}

/// A name or a tag, and not both.
fn check_pick(node: &Node, errors: &mut Vec<DefError>) {
    if !node.entries().is_empty() {
        one_of(node, "what is picked", &["name", "tag"], errors);
    }
}

fn check_names(grant: &Grant, declared: &Declared, errors: &mut Vec<DefError>) {
    let Declared { sources, views, services, models, roles, .. } = declared;
    fn known<T: Definition>(of: (Kind, &Names<T>), pick: &Pick, grant: &Grant, errors: &mut Vec<DefError>) {
        if let Pick::Name(name) = pick {
            of.1.resolve(of.0, name, &grant.loc, errors);
        }
    }
    match &grant.right {
        Right::Predict(pick) | Right::Label(pick) | Right::ReadLog(pick) | Right::Route(pick) => {
            known((Kind::Model, models), pick, grant, errors);
        }
        Right::Train(pick) | Right::ReadService(pick) => {
            known((Kind::FeatureService, services), pick, grant, errors);
        }
        Right::Push(pick) => known((Kind::Source, sources), pick, grant, errors),
        Right::ReadView(pick, except) => {
            known((Kind::FeatureView, views), pick, grant, errors);
            let Pick::Name(name) = pick else { return };
            let Some(view) = views.find(name).filter(|view| view.whole) else { return };
            let names = view.def.feature_names();
            for missing in except.iter().filter(|feature| !names.contains(feature)) {
                let cause = format!("`{missing}` is no feature of feature view `{name}`");
                let help = suggest(missing, names.iter().map(String::as_str));
                errors.push(DefError::new(&grant.loc, cause).with_help(help));
            }
        }
        Right::Apply(owner) => {
            roles.resolve(Kind::Role, owner, &grant.loc, errors);
        }
        Right::Operate(_) => {}
    }
}

/// Checks that the owner of a definition is a role.
pub(super) fn check_owner(node: &Node, roles: &Names<Role>, errors: &mut Vec<DefError>) {
    if let Some(owner) = node.get("owner")
        && let Some(name) = owner.text()
    {
        roles.resolve(Kind::Role, name, &owner.loc, errors);
    }
}
