//! Does every name refer to something, and is each declared once?
//!
//! Feature services have the most to check and a file of their own: [`super::service`].

use std::collections::BTreeMap;

use super::{Declaration, Declared, Names, aggregation, model, service};
use crate::shape::Kind;
use crate::yaml::{Entry, Node};
use crate::{Column, DefError, Entity, FeatureView, Format, Loc, ScalarType, Source, Type, suggest};

/// The name of the query time in every spine and request.
pub(super) const EVENT_TIMESTAMP: &str = "event_timestamp";

/// Checks all names, and completes the definitions by what they leave unsaid.
pub(super) fn check(declared: &mut Declared, errors: &mut Vec<DefError>) {
    once_each(Kind::Entity, &declared.entities, |def| (&def.name, &def.loc), errors);
    once_each(Kind::Source, &declared.sources, |def| (&def.name, &def.loc), errors);
    once_each(Kind::FeatureView, &declared.views, |def| (&def.name, &def.loc), errors);
    once_each(Kind::FeatureService, &declared.services, |def| (&def.name, &def.loc), errors);
    once_each(Kind::Model, &declared.models, |def| (&def.name, &def.loc), errors);
    for entity in &declared.entities.all {
        let names = || entity.def.join_keys.iter().map(|key| (key.name.as_str(), &key.loc));
        not_twice("join key", names(), errors);
        not_reserved(names(), errors);
    }
    for source in &declared.sources.all {
        check_source(source, errors);
    }
    for view in &declared.views.all {
        check_view(view, declared, errors);
    }
    let Declared { entities, views, services, .. } = declared;
    for service in &mut services.all {
        service::check(service, views, entities, errors);
    }
    for model in &declared.models.all {
        model::check(model, declared, errors);
    }
}

/// The join keys of a view in key order; none where some could not be read.
pub(super) fn join_keys<'a>(view: &FeatureView, entities: &'a Names<Entity>) -> Option<Vec<&'a Column>> {
    let entities = view.entities.iter().map(|name| entities.find(name).filter(|entity| entity.whole));
    let entities: Vec<_> = entities.collect::<Option<_>>()?;
    Some(entities.into_iter().flat_map(|entity| &entity.def.join_keys).collect())
}

/// Reports each name that comes again.
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

/// The texts of a list, each with its place.
pub(super) fn listed<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = (&'a str, &'a Loc)> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some((item.text()?, &item.loc)))
}

fn once_each<T>(
    kind: Kind,
    names: &Names<T>,
    identity: impl Fn(&T) -> (&String, &Loc),
    errors: &mut Vec<DefError>,
) {
    let identities = names.all.iter().map(|declaration| identity(&declaration.def));
    not_twice(kind.noun(), identities.map(|(name, loc)| (name.as_str(), loc)), errors);
}

fn check_source(source: &Declaration<Source>, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = source;
    if node.get("batch").is_none() && !def.push {
        errors.push(
            DefError::new(&def.loc, format!("source `{}` has neither files nor pushes", def.name))
                .with_help("give it `batch`, `push: true`, `stream`, or several of them"),
        );
    }
    not_twice("column", def.columns.iter().map(|column| (column.name.as_str(), &column.loc)), errors);
    not_twice("`event_id` column", listed(node, "event_id"), errors);
    let times = ["event_timestamp", "created_timestamp"].into_iter().filter_map(|key| {
        let column = node.get(key)?;
        Some((column.text()?, &column.loc))
    });
    let is_time = |column: &Column| column.dtype == Type::Scalar(ScalarType::Timestamp);
    for (name, _) in times.clone() {
        if let Some(column) = def.columns.iter().find(|column| column.name == name && !is_time(column)) {
            let cause = format!("`{name}` is the source's time, but declared as `{}`", column.dtype);
            errors.push(DefError::new(&column.loc, cause).with_help("declare it as `timestamp`"));
        }
    }
    let Some(why) = must_declare(def).filter(|_| source.whole) else {
        return;
    };
    if def.columns.is_empty() {
        errors.push(
            DefError::new(&def.loc, format!("source `{}` must declare its `columns`", def.name))
                .with_help(why),
        );
        return;
    }
    for (name, loc) in times.chain(listed(node, "event_id")) {
        check_column(def, name, loc, errors);
    }
}

/// Why the columns of `source` are known only from its declaration, where they are.
fn must_declare(source: &Source) -> Option<&'static str> {
    let is_csv = source.batch.as_ref().is_some_and(|batch| batch.format == Format::Csv);
    match (is_csv, source.push) {
        (true, _) => Some("CSV files do not say the types of their columns"),
        (false, true) => Some("pushed rows are checked against the declared columns"),
        (false, false) => None,
    }
}

fn check_column(source: &Source, name: &str, loc: &Loc, errors: &mut Vec<DefError>) {
    if name.is_empty() || source.columns.iter().any(|column| column.name == name) {
        return;
    }
    let known = source.columns.iter().map(|column| column.name.as_str());
    let cause = format!("`{name}` is not among the declared columns of source `{}`", source.name);
    errors.push(DefError::new(loc, cause).with_help(suggest(name, known)));
}

fn check_view(view: &Declaration<FeatureView>, declared: &Declared, errors: &mut Vec<DefError>) {
    let Declaration { def, node, .. } = view;
    not_twice("entity", listed(node, "entities"), errors);
    for (name, loc) in listed(node, "entities") {
        declared.entities.resolve(Kind::Entity, name, loc, errors);
    }
    aggregation::check(view, errors);
    let features = || def.features.iter().map(|feature| (feature.name.as_str(), &feature.loc));
    not_twice("feature", features(), errors);
    not_reserved(features(), errors);
    let source = node.get("source").and_then(|name| {
        declared.sources.resolve(Kind::Source, name.text().unwrap_or_default(), &name.loc, errors)
    });
    if let Some(join_keys) = join_keys(def, &declared.entities) {
        not_shared(view, &declared.entities, errors);
        check_keys(node.get("keys"), def, &join_keys, errors);
    }
    let declares_all = |source: &&Declaration<Source>| {
        source.whole && must_declare(&source.def).is_some() && !source.def.columns.is_empty()
    };
    if let Some(source) = source.filter(declares_all) {
        check_view_columns(view, &source.def, &declared.entities, errors);
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
