//! What do two deployments declare differently, definition by definition and key by key?

use std::collections::BTreeSet;

use quern_wire::{Action, Change, DefinitionKind, KeyChange};

use crate::live::Deployment;
use crate::live::describe::{Keys, describe};
use crate::live::said::Said;

/// Lists whose items have keys of their own, and what these begin with.
const TOLD_APART: [(&str, &str); 4] = [
    ("features", "feature"),
    ("derived", "derived"),
    ("versions", "version"),
    ("declared columns", "column"),
];

/// What is added, changed and removed on the way from `live` to `candidate`.
pub(super) fn changes(live: &Deployment, candidate: &Deployment) -> Vec<Change> {
    let (old, new) = (describe(live), describe(candidate));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |name: &(DefinitionKind, String)| {
        let (action, keys) = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old == new => return None,
            (Some(old), Some(new)) => (Action::Change, key_changes(old, new)),
            (Some(_), None) => (Action::Remove, Vec::new()),
            (None, _) => (Action::Add, Vec::new()),
        };
        Some(Change { action, kind: name.0, name: name.1.clone(), keys })
    };
    names.into_iter().filter_map(change).collect()
}

fn key_changes(old: &Keys, new: &Keys) -> Vec<KeyChange> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let empty = Said::default();
    let mut changes = Vec::new();
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        let (has, will) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
        // A list that is new or gone is one of which every item is.
        let is_list = |said: &Said| said.text.is_empty() && said.end.is_empty() && !said.items.is_empty();
        if has == will {
            continue;
        } else if is_list(has) || is_list(will) || has.is_of(will) && !has.items.is_empty() {
            let label = key.strip_prefix("aggregation ").map(|name| format!("windows of {name}"));
            let is_told = |item: &Said| {
                let noun = TOLD_APART.iter().find(|(list, _)| list == key);
                // Of a column its type is told as well.
                let name = item.text.split(' ').next().unwrap_or_default();
                let own = noun.map(|(_, noun)| format!("{noun} {name}"));
                own.is_some_and(|own| old.get(&own) != new.get(&own))
            };
            changes.extend(item_changes(label.as_deref().unwrap_or(key), &has.items, &will.items, &is_told));
        } else {
            let text = |said: Option<&Said>| said.map(|said| without_password(&said.to_string()));
            changes.push(KeyChange { key: key.clone(), old: text(before), new: text(after) });
        }
    }
    changes
}

/// What is said, but for the password of a URL in it, which is a change like any other.
fn without_password(text: &str) -> String {
    let word = |word: &str| {
        let (head, authority) = word.split_once("://")?;
        let (who, rest) = authority.rsplit_once('@')?;
        let (user, _) = who.split_once(':')?;
        Some(format!("{head}://{user}:…@{rest}"))
    };
    text.split(' ').map(|said| word(said).unwrap_or_else(|| said.to_owned())).collect::<Vec<_>>().join(" ")
}

/// The items that came, those that went, and those that say something else; then whether the others changed places.
fn item_changes(key: &str, old: &[Said], new: &[Said], is_told: &dyn Fn(&Said) -> bool) -> Vec<KeyChange> {
    let missing = |items: &[Said], others: &[Said]| -> Vec<String> {
        let is_there = |item: &Said| others.iter().any(|other| other.is_of(item));
        items.iter().filter(|item| !is_there(item) && !is_told(item)).map(Said::to_string).collect()
    };
    let (lost, gained) = (missing(old, new), missing(new, old));
    let change = |old: Option<String>, new: Option<String>| KeyChange { key: key.to_owned(), old, new };
    let mut changes = match (lost.as_slice(), gained.as_slice()) {
        ([], []) => Vec::new(),
        ([lost], [gained]) => vec![change(Some(lost.clone()), Some(gained.clone()))],
        (lost, []) => vec![change(Some(lost.join(", ")), None)],
        ([], gained) => vec![change(None, Some(gained.join(", ")))],
        (lost, gained) => {
            vec![change(Some(lost.join(", ")), None), change(None, Some(gained.join(", ")))]
        }
    };
    for item in old {
        if let Some(other) = new.iter().find(|other| other.is_of(item)).filter(|other| *other != item) {
            let name = item.text.trim_end_matches(" (");
            changes.extend(item_changes(&format!("{key} of {name}"), &item.items, &other.items, &|_| false));
        }
    }
    let kept = |items: &[Said], others: &[Said]| -> Vec<String> {
        let kept = items.iter().filter(|item| others.iter().any(|other| other.is_of(item)));
        kept.map(|item| if item.items.is_empty() { item.text.clone() } else { item.text.replace(" (", "") })
            .collect()
    };
    let (before, after) = (kept(old, new), kept(new, old));
    if before != after {
        let (before, after) = moved(&before, &after);
        changes.push(KeyChange { key: format!("order of {key}"), old: Some(before), new: Some(after) });
    }
    changes
}

/// Two orders of the same items, without those at both ends that stay where they are.
fn moved(before: &[String], after: &[String]) -> (String, String) {
    let same = |(a, b): &(&String, &String)| a == b;
    let first = before.iter().zip(after).take_while(same).count();
    let last = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
    let middle = |items: &[String]| items[first..items.len() - last].join(", ");
    (middle(before), middle(after))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_password_is_not_told() {
        for (text, told) in [
            ("redis redis://ann:se:cr@t@host:6379/0 topic", "redis redis://ann:…@host:6379/0 topic"),
            ("redis redis://:secret@host topic", "redis redis://:…@host topic"),
            ("redis rediss://host:6379 a@b:c", "redis rediss://host:6379 a@b:c"),
            ("kafka a:9092,b:9092 topic", "kafka a:9092,b:9092 topic"),
        ] {
            assert_eq!(without_password(text), told);
        }
    }
}
