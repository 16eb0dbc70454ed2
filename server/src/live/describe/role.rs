//! What does a role say, key by key?

use feature_defs::{Grant, Limits, Pick, Right, Role};

use super::super::said::Said;
use super::{Keys, put};

pub(super) fn role(role: &Role) -> Keys {
    let Role { name: _, description, members, allow, limits, loc: _ } = role;
    let mut keys = Keys::new();
    put(&mut keys, "description", description);
    put(&mut keys, "members", members.iter().map(ToString::to_string).collect::<Said>());
    put(&mut keys, "allow", allow.iter().map(grant).collect::<Said>());
    let Limits { requests, instances } = limits;
    put(&mut keys, "requests", requests.map(|rate| rate.to_string()).unwrap_or_default());
    put(&mut keys, "instances", instances.map(|rate| rate.to_string()).unwrap_or_default());
    keys
}

/// What a grant allows.
fn grant(Grant { right, loc: _ }: &Grant) -> String {
    let one = |verb: &str, what: &Pick| format!("{verb} {}", pick(what));
    match right {
        Right::Predict(what) => one("predict", what),
        Right::Label(what) => one("label", what),
        Right::ReadLog(what) => one("read_log", what),
        Right::Route(what) => one("route", what),
        Right::Train(what) => one("train", what),
        Right::Push(what) => one("push", what),
        Right::ReadService(what) => one("read service", what),
        Right::ReadView(what, except) if except.is_empty() => one("read view", what),
        Right::ReadView(what, except) => {
            format!("{} except {}", one("read view", what), except.join(" and "))
        }
        Right::Apply(owner) => format!("apply of {owner}"),
        Right::Operate(operation) => format!("operate {}", operation.name()),
    }
}

fn pick(pick: &Pick) -> String {
    match pick {
        Pick::Name(name) => name.clone(),
        Pick::Tag(tag) => format!("tag {tag}"),
        Pick::All => "*".to_owned(),
    }
}
