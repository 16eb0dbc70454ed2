//! Which rules hold for every name?

use std::collections::BTreeMap;

use super::declared::Names;
use crate::yaml::{Entry, Node};
use crate::{Column, DefError, Entity, FeatureView, Loc, suggest};

/// The name of the query time in every spine and request.
pub(super) const EVENT_TIMESTAMP: &str = "event_timestamp";

/// The join keys of a view in key order; none where some could not be read.
pub(super) fn join_keys<'a>(view: &FeatureView, entities: &'a Names<Entity>) -> Option<Vec<&'a Column>> {
    let entities = view.entities.iter().map(|name| entities.find(name).filter(|entity| entity.whole));
    let entities: Vec<_> = entities.collect::<Option<_>>()?;
    Some(entities.into_iter().flat_map(|entity| &entity.def.join_keys).collect())
}

/// Reports each name that is given more than once.
pub(super) fn not_twice<'a>(
    what: &str,
    names: impl Iterator<Item = (&'a str, &'a Loc)>,
    errors: &mut Vec<DefError>,
) {
    let mut seen: BTreeMap<&str, &Loc> = BTreeMap::new();
    for (name, loc) in names.filter(|(name, _)| !name.is_empty()) {
        match seen.get(name) {
            Some(first) => errors.push(
                DefError::new(loc, format!("{what} `{name}` is given twice"))
                    .with_help(format!("it is first given at {first}")),
            ),
            None => {
                seen.insert(name, loc);
            }
        }
    }
}

/// Reports each use of the one name that is taken everywhere.
pub(super) fn not_reserved<'a>(names: impl Iterator<Item = (&'a str, &'a Loc)>, errors: &mut Vec<DefError>) {
    for (_, loc) in names.filter(|(name, _)| *name == EVENT_TIMESTAMP) {
        errors.push(
            DefError::new(loc, format!("`{EVENT_TIMESTAMP}` is a reserved name"))
                .with_help("it is the query time that every spine and every request carries"),
        );
    }
}

/// Reports each key of a `keys` mapping that is no join key of `view`.
pub(super) fn check_keys(
    keys: Option<&Node>,
    view: &FeatureView,
    join_keys: &[&Column],
    errors: &mut Vec<DefError>,
) {
    let entries = keys.map(Node::entries).unwrap_or_default();
    let is_unknown = |entry: &&Entry| join_keys.iter().all(|key| key.name != entry.key);
    for entry in entries.iter().filter(is_unknown) {
        let known = join_keys.iter().map(|key| key.name.as_str());
        let cause = format!("`{}` is no join key of feature view `{}`", entry.key, view.name);
        errors.push(DefError::new(&entry.key_loc, cause).with_help(suggest(&entry.key, known)));
    }
}

/// The texts of a list, each with its position.
pub(super) fn listed<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = (&'a str, &'a Loc)> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some((item.text()?, &item.loc)))
}

/// Exactly one of `keys` is given.
pub(super) fn one_of(node: &Node, what: &str, keys: &[&str], errors: &mut Vec<DefError>) {
    let given: Vec<&str> = keys.iter().copied().filter(|key| node.get(key).is_some()).collect();
    let names =
        |keys: &[&str], word: &str| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(word);
    match given.as_slice() {
        [_] => {}
        [] => errors.push(DefError::new(&node.loc, format!("{what} lacks {}", names(keys, " or ")))),
        given => errors.push(
            DefError::new(&node.loc, format!("{what} has {}", names(given, " and ")))
                .with_help("keep one of them"),
        ),
    }
}
