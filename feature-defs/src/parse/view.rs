//! Do the names in a feature view refer to something?
//!
//! Those within expressions only the engine can see.

use std::collections::BTreeMap;

use super::aggregation;
use super::declared::{Declaration, Names};
use super::names::{check_keys, join_keys, listed, not_reserved, not_twice};
use super::source::check_column;
use crate::shape::Kind;
use crate::yaml::Node;
use crate::{DefError, Entity, FeatureView, Source};

/// Checks the names in `view`: its entities, its source, its features, and the columns it is known to read.
pub(super) fn check(
    view: &Declaration<FeatureView>,
    sources: &Names<Source>,
    entities: &Names<Entity>,
    errors: &mut Vec<DefError>,
) {
    let Declaration { def, node, .. } = view;
    not_twice("entity", listed(node, "entities"), errors);
    for (name, loc) in listed(node, "entities") {
        entities.resolve(Kind::Entity, name, loc, errors);
    }
    aggregation::check(view, errors);
    let features = || def.features.iter().map(|feature| (feature.name.as_str(), &feature.loc));
    not_twice("feature", features(), errors);
    not_reserved(features(), errors);
    let source = node
        .get("source")
        .and_then(|name| sources.resolve(Kind::Source, name.text().unwrap_or_default(), &name.loc, errors));
    if let Some(join_keys) = join_keys(def, entities) {
        not_shared(view, entities, errors);
        check_keys(node.get("keys"), def, &join_keys, errors);
    }
    let declares_all = |source: &&Declaration<Source>| {
        source.whole && source.def.must_declare().is_some() && !source.def.columns.is_empty()
    };
    if let Some(source) = source.filter(declares_all) {
        check_view_columns(view, &source.def, entities, errors);
    }
}

/// Two entities of one view cannot both bring a join key of the same name: a row has one such column.
fn not_shared(view: &Declaration<FeatureView>, entities: &Names<Entity>, errors: &mut Vec<DefError>) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (entity, loc) in listed(&view.node, "entities") {
        let join_keys =
            entities.find(entity).map(|entity| entity.def.join_keys.as_slice()).unwrap_or_default();
        for key in join_keys {
            match owners.get(key.name.as_str()) {
                // The same entity twice, or a key twice in one entity, is reported as such.
                Some(owner) if *owner == entity => {}
                Some(owner) => errors.push(
                    DefError::new(
                        loc,
                        format!("entities `{owner}` and `{entity}` share the join key `{}`", key.name),
                    )
                    .with_help("rename it in one of the two entities, and map it to its column with `keys`"),
                ),
                None => {
                    owners.insert(&key.name, entity);
                }
            }
        }
    }
}

/// Where the declaration knows all columns, a view must not read others. Those within expressions only the
/// engine can see.
fn check_view_columns(
    view: &Declaration<FeatureView>,
    source: &Source,
    entities: &Names<Entity>,
    errors: &mut Vec<DefError>,
) {
    let mapped = view.node.get("keys").map(Node::entries).unwrap_or_default();
    for entry in mapped {
        check_column(source, entry.value.text().unwrap_or_default(), &entry.value.loc, errors);
    }
    let entities_loc = view.node.get("entities").map_or(&view.def.loc, |node| &node.loc);
    let join_keys = join_keys(&view.def, entities).unwrap_or_default();
    for key in join_keys.iter().filter(|key| !view.def.keys.contains_key(&key.name)) {
        check_column(source, &key.name, entities_loc, errors);
    }
    let features = view.node.get("features").map(Node::items).unwrap_or_default();
    for feature in features.iter().filter(|feature| feature.get("expr").is_none()) {
        let name = feature.get("name").unwrap_or(feature);
        check_column(source, name.text().unwrap_or_default(), &name.loc, errors);
    }
}
