//! Do the columns of a feature service come together?
//!
//! A service has one name space: join-key columns, request columns, features and derived features stand side
//! by side in a spine, in a training set and in every expression.

use std::collections::BTreeMap;

use super::declared::{Declaration, Names};
use super::names::{EVENT_TIMESTAMP, check_keys, join_keys, listed, not_reserved, not_twice};
use crate::shape::Kind;
use crate::yaml::Node;
use crate::{DefError, Entity, FeatureService, FeatureView, Loc, Projection, Type, suggest};

/// Checks the names of `service`, and lists the features of projections that take all.
pub(super) fn check(
    service: &mut Declaration<FeatureService>,
    views: &Names<FeatureView>,
    entities: &Names<Entity>,
    errors: &mut Vec<DefError>,
) {
    let Declaration { def, node, whole } = service;
    let mut columns = Columns { known: BTreeMap::new(), complete: *whole };
    let request = || def.request.iter().map(|column| (column.name.as_str(), &column.loc));
    not_twice("request column", request(), errors);
    not_reserved(request(), errors);
    for column in &def.request {
        columns.known.insert(column.name.clone(), Origin::Request);
    }
    let nodes = node.get("features").map(Node::items).unwrap_or_default();
    let mut key_columns = BTreeMap::new();
    for (projection, node) in def.projections.iter_mut().zip(nodes) {
        let Some(view) = views.resolve(Kind::FeatureView, &projection.view, &projection.loc, errors) else {
            columns.complete = false;
            continue;
        };
        match join_keys(&view.def, entities) {
            Some(join_keys) => {
                check_keys(node.get("keys"), &view.def, &join_keys, errors);
                for key in join_keys {
                    join_column(projection, node, (&key.name, key.dtype), &mut key_columns, errors);
                }
            }
            None => columns.complete = false,
        }
        take_features(projection, node, view, &mut columns.complete, errors);
    }
    for column in def.request.iter().filter(|column| key_columns.contains_key(&column.name)) {
        errors.push(
            DefError::new(&column.loc, format!("request column `{}` is a join-key column too", column.name))
                .with_help("leave it out: every request brings the join keys"),
        );
    }
    columns.known.extend(key_columns.into_keys().map(|name| (name, Origin::JoinKey)));
    for (projection, node) in def.projections.iter().zip(nodes) {
        columns.add_features(projection, node, errors);
    }
    columns.add_derived(def, errors);
    columns.check_outputs(node, errors);
}

/// A column of the spine that features are looked up by.
struct KeyColumn {
    dtype: Type,
    view: String,
}

/// Notes the column of the spine that `key` of the projection's view is looked up by.
fn join_column(
    projection: &Projection,
    node: &Node,
    (key, dtype): (&str, Type),
    key_columns: &mut BTreeMap<String, KeyColumn>,
    errors: &mut Vec<DefError>,
) {
    let mapped = node.get("keys").and_then(|keys| keys.get(key));
    let loc = mapped.map_or(&projection.loc, |column| &column.loc);
    let name = projection.keys.get(key).map_or(key, String::as_str);
    if name == EVENT_TIMESTAMP {
        // A join key of that name is a mistake of its entity, and reported there.
        not_reserved(mapped.map(|_| (name, loc)).into_iter(), errors);
        return;
    }
    let view = projection.view.clone();
    let first = key_columns.entry(name.to_owned()).or_insert(KeyColumn { dtype, view });
    if first.dtype != dtype {
        let cause = format!(
            "column `{name}` has type `{}` for feature view `{}` and type `{dtype}` for `{}`",
            first.dtype, first.view, projection.view
        );
        let help = "map one of the two join keys to another column with `keys`, or give both one type";
        errors.push(DefError::new(loc, cause).with_help(help));
    }
}

/// Checks the features that `projection` takes by name; one that names none takes all.
fn take_features(
    projection: &mut Projection,
    node: &Node,
    view: &Declaration<FeatureView>,
    complete: &mut bool,
    errors: &mut Vec<DefError>,
) {
    let names = view.def.feature_names();
    let known = || names.iter().map(String::as_str);
    if node.get("features").is_none() {
        projection.features = names;
        *complete &= view.whole;
        return;
    }
    not_twice("feature", listed(node, "features"), errors);
    let is_unknown = |name: &str| known().all(|known| known != name);
    for (name, loc) in listed(node, "features").filter(|(name, _)| view.whole && is_unknown(name)) {
        let cause = format!("`{name}` is no feature of feature view `{}`", view.def.name);
        errors.push(DefError::new(loc, cause).with_help(suggest(name, known())));
    }
}

/// Where a column of a service comes from.
#[derive(Debug, Clone, PartialEq)]
enum Origin {
    JoinKey,
    Request,
    Feature { view: String },
    Derived,
}

impl Origin {
    fn describe(&self) -> String {
        match self {
            Origin::JoinKey => "a join-key column".to_owned(),
            Origin::Request => "a request column".to_owned(),
            Origin::Feature { view } => format!("a feature of `{view}`"),
            Origin::Derived => "a derived feature".to_owned(),
        }
    }
}

/// The name space of a service.
struct Columns {
    known: BTreeMap<String, Origin>,
    /// Whether these are all; otherwise a name not found is not a mistake.
    complete: bool,
}

impl Columns {
    /// One mistake for a projection, however many of its columns collide.
    fn add_features(&mut self, projection: &Projection, node: &Node, errors: &mut Vec<DefError>) {
        let mut taken: Vec<String> = Vec::new();
        let mut names = Vec::new();
        for feature in &projection.features {
            let name = projection.output_name(feature);
            match self.known.get(&name) {
                Some(origin) => taken.push(format!("`{name}` is {} already", origin.describe())),
                None => names.push(name),
            }
        }
        taken.dedup();
        if !taken.is_empty() {
            let help = match &projection.alias {
                None => format!(
                    "set its columns apart by `as:`, as in `{{view: {}, as: other}}`, which gives `other__{}`",
                    projection.view, projection.features[0]
                ),
                Some(_) => "choose another name after `as:`".to_owned(),
            };
            let loc = node.get("as").map_or(&projection.loc, |alias| &alias.loc);
            errors.push(
                DefError::new(loc, format!("columns of `{}` collide: {}", projection.view, taken.join(", ")))
                    .with_help(help),
            );
        }
        let origin = Origin::Feature { view: projection.view.clone() };
        self.known.extend(names.into_iter().map(|name| (name, origin.clone())));
    }

    fn add_derived(&mut self, service: &FeatureService, errors: &mut Vec<DefError>) {
        let names = || service.derived.iter().map(|feature| (feature.name.as_str(), &feature.loc));
        not_twice("derived feature", names(), errors);
        not_reserved(names(), errors);
        for (name, loc) in names() {
            if let Some(origin) = self.known.get(name) {
                let cause = format!("derived feature `{name}` is {} already", origin.describe());
                errors.push(DefError::new(loc, cause).with_help("give it another name"));
            }
        }
        self.known.extend(names().map(|(name, _)| (name.to_owned(), Origin::Derived)));
    }

    fn check_outputs(&self, service: &Node, errors: &mut Vec<DefError>) {
        not_twice("output", listed(service, "outputs"), errors);
        let unknown = |(name, _): &(&str, &Loc)| self.complete && !self.known.contains_key(*name);
        for (name, loc) in listed(service, "outputs").filter(unknown) {
            let known = self.known.keys().map(String::as_str);
            let cause = format!("output `{name}` is no column of this feature service");
            errors.push(DefError::new(loc, cause).with_help(suggest(name, known)));
        }
    }
}
