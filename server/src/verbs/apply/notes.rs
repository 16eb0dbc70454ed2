//! Which models in use go on, on inputs that are computed in another way, and which services of other projects do?
//!
//! Only what a model's inputs come of counts: a window that none of them reads may come and go unsaid, and a `ttl` that
//! one of them depends on may not.

use std::collections::{BTreeMap, BTreeSet};

use feature_defs::{Aggregation, Definitions, Entity, FeatureService, FeatureView, Projection};
use quern_engine::ServicePlan;
use quern_engine::schema::type_name;

use crate::live::describe::{aggregation, view as described};
use crate::live::{Deployment, LiveVersion};

/// A longer text is not shown beside the one that it becomes.
const CHARS_SHOWN: usize = 40;

/// A version that is in use and goes on, as it is and as it would be.
pub(super) struct GoesOn<'a> {
    pub(super) model: &'a str,
    pub(super) old: &'a LiveVersion,
    pub(super) new: &'a LiveVersion,
}

/// One note for all versions whose inputs differ for the same causes.
pub(super) fn notes(live: &Deployment, candidate: &Deployment, versions: &[GoesOn<'_>]) -> Vec<String> {
    let mut by_causes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for GoesOn { model, old, new } in versions {
        let causes = causes((live, &old.service), (candidate, &new.service));
        if !causes.is_empty() {
            let version = format!("model `{model}`, version `{}`", new.version);
            by_causes.entry(causes.join("; ")).or_default().push(version);
        }
    }
    let note = |(causes, versions): (String, Vec<String>)| {
        let (whose, who) = if versions.len() == 1 { ("its", "it was") } else { ("their", "they were") };
        format!(
            "{}: {whose} inputs keep their names and types and are computed in another way than those {who} trained on \
             ({causes})",
            versions.join("; ")
        )
    };
    by_causes.into_iter().map(note).collect()
}

/// A note for each model without a route of which another version answers who names none.
pub(super) fn turns(live: &Deployment, candidate: &Deployment) -> Vec<String> {
    let last = |deployment: &Deployment, model: &str| {
        let declared = deployment.compiled.catalog.definitions.models.get(model)?;
        let version = declared.versions.last().filter(|_| declared.route.is_none())?;
        Some(version.version.clone())
    };
    let note = |model: &String| {
        let (old, new) = (last(live, model)?, last(candidate, model)?);
        (old != new).then(|| {
            format!(
                "model `{model}`: version `{new}` answers whoever names none, instead of `{old}`: the last one does, where \
                 there is no `route`; `route: {{weights: {{\"{old}\": 100, \"{new}\": 0}}}}` keeps it so"
            )
        })
    };
    candidate.models.keys().filter_map(note).collect()
}

/// A note for each service of another project than `project`, whose apply computes its features in another way: those
/// who train on it read no plan of theirs.
pub(super) fn of_services(live: &Deployment, candidate: &Deployment, project: &str) -> Vec<String> {
    let catalog = &candidate.compiled.catalog;
    let others = catalog.definitions.services.values().filter(|service| service.loc.project() != project);
    let note = |service: &FeatureService| {
        let name = &service.name;
        let (old, new) = (live.compiled.catalog.services.get(name)?, catalog.services.get(name)?);
        let causes = causes((live, old), (candidate, new));
        (!causes.is_empty()).then(|| {
            format!(
                "feature service `{name}`: its features are computed in another way ({})",
                causes.join("; ")
            )
        })
    };
    others.filter_map(note).collect()
}

/// What differs in how two services are computed, each in its deployment.
fn causes(
    (live, old): (&Deployment, &ServicePlan),
    (candidate, new): (&Deployment, &ServicePlan),
) -> Vec<String> {
    let (was, will) = (ways(live, old), ways(candidate, new));
    let what: BTreeSet<&String> = was.keys().chain(will.keys()).collect();
    let differ = what.into_iter().filter(|what| was.get(*what) != will.get(*what));
    differ.map(|what| cause(what, was.get(what), will.get(what))).collect()
}

fn cause(what: &str, old: Option<&String>, new: Option<&String>) -> String {
    let (old, new) = (old.map_or("none", String::as_str), new.map_or("none", String::as_str));
    let is_short = |text: &str| text.chars().count() <= CHARS_SHOWN;
    if is_short(old) && is_short(new) { format!("{what}: {old} → {new}") } else { what.to_owned() }
}

/// Everything that says how the outputs of a service are computed, by what people call it.
type Ways = BTreeMap<String, String>;

fn ways(deployment: &Deployment, service: &ServicePlan) -> Ways {
    let definitions = &deployment.compiled.catalog.definitions;
    let Some(declared) = definitions.services.get(&service.name) else { return Ways::new() };
    let mut ways = Ways::new();
    for (field, default) in service.outputs.fields().iter().zip(&service.defaults) {
        ways.extend(
            default.as_ref().map(|default| (format!("default of `{}`", field.name()), default.to_string())),
        );
    }
    let needed = needed(declared, service);
    for feature in declared.derived.iter().filter(|feature| needed.contains(feature.name.as_str())) {
        let dtype = feature.dtype.map_or(String::new(), |dtype| format!(" as {dtype}"));
        ways.insert(format!("derived feature `{}`", feature.name), format!("{}{dtype}", feature.expr.sql));
    }
    for column in declared.request.iter().filter(|column| needed.contains(column.name.as_str())) {
        ways.insert(format!("request column `{}`", column.name), column.dtype.to_string());
    }
    for projection in &declared.projections {
        let taken: Vec<&String> = projection
            .features
            .iter()
            .filter(|feature| needed.contains(projection.output_name(feature).as_str()))
            .collect();
        if let (Some(view), false) = (definitions.views.get(&projection.view), taken.is_empty()) {
            of_projection(&mut ways, projection, &taken);
            of_view(&mut ways, view, &taken, &definitions.entities);
            of_source(&mut ways, view, &taken, deployment);
        }
    }
    ways
}

/// The columns of a service that its outputs come of, themselves among them. An expression that has a column's name in
/// a text counts as one that reads it: a note too many.
fn needed(declared: &FeatureService, service: &ServicePlan) -> BTreeSet<String> {
    let features =
        declared.projections.iter().flat_map(|it| it.features.iter().map(|name| it.output_name(name)));
    let request = declared.request.iter().map(|column| column.name.clone());
    let derived = declared.derived.iter().map(|feature| feature.name.clone());
    let all: Vec<String> = features.chain(request).chain(derived).collect();
    let mut needed: BTreeSet<String> =
        service.outputs.fields().iter().map(|field| field.name().clone()).collect();
    loop {
        let before = needed.len();
        for feature in &declared.derived {
            if needed.contains(&feature.name) {
                needed.extend(all.iter().filter(|name| mentions(&feature.expr.sql, name)).cloned());
            }
        }
        if needed.len() == before {
            return needed;
        }
    }
}

/// Where its features leave, and what they are looked up by.
fn of_projection(ways: &mut Ways, projection: &Projection, taken: &[&String]) {
    let name = projection.alias.as_ref().unwrap_or(&projection.view);
    let keys: Vec<String> =
        projection.keys.iter().map(|(key, column)| format!("{key} from {column}")).collect();
    if !keys.is_empty() {
        ways.insert(format!("keys of `{name}`"), keys.join(", "));
    }
    if !projection.exclude_event.is_empty() {
        let columns: Vec<&str> = projection.exclude_event.iter().map(|column| column.sql.as_str()).collect();
        ways.insert(format!("`exclude_event` of `{name}`"), columns.join(", "));
    }
    for feature in taken {
        ways.insert(
            format!("`{}`", projection.output_name(feature)),
            format!("{}.{feature}", projection.view),
        );
    }
}

fn of_view(ways: &mut Ways, view: &FeatureView, taken: &[&String], entities: &BTreeMap<String, Entity>) {
    let keys = described(view);
    for rule in ["entities", "keys", "source", "where", "ttl", "lag", "at"] {
        ways.extend(
            keys.get(rule)
                .map(|said| (format!("`{rule}` of feature view `{}`", view.name), said.to_string())),
        );
    }
    for entity in view.entities.iter().filter_map(|name| entities.get(name)) {
        let keys: Vec<String> =
            entity.join_keys.iter().map(|key| format!("{} {}", key.name, key.dtype)).collect();
        ways.insert(format!("join keys of entity `{}`", entity.name), keys.join(", "));
    }
    for name in taken {
        ways.insert(format!("`{name}` of feature view `{}`", view.name), sql_of(view, name).join(", "));
    }
}

/// What a feature says, and what it reads.
fn sql_of(view: &FeatureView, name: &str) -> Vec<String> {
    if let Some(feature) = view.features.iter().find(|feature| feature.name == name) {
        let dtype = feature.dtype.map_or(String::new(), |dtype| format!(" as {dtype}"));
        return vec![format!("{}{dtype}", feature.expr.sql)];
    }
    let all = view.aggregations.iter().flat_map(|it| it.windows.iter().map(move |window| (it, window)));
    let of_window = all.filter(|(it, window)| it.feature_name(window) == name).map(|(it, window)| {
        // As if it was over this window alone; a default is the service's, and `strict` changes no value.
        let (windows, description) = (vec![window.clone()], String::new());
        aggregation(&Aggregation { windows, description, default: None, strict: false, ..it.clone() })
            .to_string()
    });
    of_window.collect()
}

/// Which rows there are, and of which types the columns are that count.
fn of_source(ways: &mut Ways, view: &FeatureView, taken: &[&String], deployment: &Deployment) {
    let Definitions { sources, .. } = &deployment.compiled.catalog.definitions;
    let Some(source) = sources.get(&view.source) else { return };
    let mut note = |what: &str, text: String| {
        ways.insert(format!("{what} of source `{}`", source.name), text);
    };
    if let Some(batch) = &source.batch {
        let dialect = batch.dialect.to_string();
        note(
            "`batch`",
            if dialect.is_empty() { batch.path.clone() } else { format!("{}, {dialect}", batch.path) },
        );
    }
    if let Some(pull) = &source.pull {
        note("`batch`", pull.rows.text().to_owned());
    }
    note("`event_timestamp`", source.event_timestamp.clone());
    if let Some(created) = &source.created_timestamp {
        note("`created_timestamp`", created.clone());
    }
    if !view.aggregations.is_empty() && !source.event_id.is_empty() {
        note("`event_id`", source.event_id.join(", "));
    }
    let sql = taken.iter().flat_map(|name| sql_of(view, name));
    let sql: Vec<String> = sql.chain(view.filter.iter().map(|filter| filter.sql.clone())).collect();
    let schema = deployment.compiled.source_schemas.get(&source.name);
    for field in schema.iter().flat_map(|schema| schema.fields().iter()) {
        if sql.iter().any(|sql| mentions(sql, field.name())) {
            note(&format!("column `{}`", field.name()), type_name(field.data_type()));
        }
    }
}

/// Whether `sql` has `name` in it, as a word of its own.
fn mentions(sql: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    sql.match_indices(name)
        .any(|(start, _)| !sql[..start].ends_with(is_word) && !sql[start + name.len()..].starts_with(is_word))
}
