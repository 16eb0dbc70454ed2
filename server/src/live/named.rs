//! Which entities does a request name, for the audit? Nothing is looked at where there is none.

use std::fmt::Display;

use arrow::array::RecordBatch;
use feature_defs::{Definitions, Entity, FeatureView};
use quern_access::Caller;
use quern_engine::ServicePlan;

use super::Deployment;
use crate::audit::{Pseudonyms, keys};

/// So many different ones are named, of the first rows.
const ENTITIES_MAX: usize = 16;
const ROWS_MAX: usize = 1_024;

/// An entity, and the columns of a request that hold its join keys.
type Held<'a> = (&'a Entity, Vec<&'a str>);

impl Deployment {
    /// Notes the entities whose features `who` asks for, in rows with the inputs of these services.
    pub fn note_asked<'s>(
        &self,
        who: &Caller,
        what: impl Display,
        services: impl Iterator<Item = &'s ServicePlan>,
        rows: &RecordBatch,
    ) {
        let Some(pseudonyms) = self.audit.pseudonyms() else { return };
        let definitions = &self.compiled.catalog.definitions;
        let lookups = services.flat_map(|service| service.lookups.iter().map(move |of| (service, of)));
        let held = lookups.flat_map(|(service, lookup)| {
            let columns = lookup.keys.iter().map(|key| service.inputs.field(*key).name().as_str());
            let view = definitions.views.get(&lookup.view.name);
            view.map_or_else(Vec::new, |view| held(definitions, view, columns.collect()))
        });
        self.note_named(who, what, named(pseudonyms, held, rows), rows.num_rows());
    }

    /// Notes the entities that rows are about which `who` pushes to a source.
    pub(crate) fn note_pushed(&self, who: &Caller, source: &str, rows: &RecordBatch) {
        let Some(pseudonyms) = self.audit.pseudonyms() else { return };
        let definitions = &self.compiled.catalog.definitions;
        let views = definitions.views.values().filter(|view| view.source == source);
        let held = views.flat_map(|view| {
            let keys = view.entities.iter().flat_map(|entity| &definitions.entities[entity].join_keys);
            let columns = keys.map(|key| view.keys.get(&key.name).unwrap_or(&key.name).as_str());
            held(definitions, view, columns.collect())
        });
        let what = format_args!("push {source}");
        self.note_named(who, what, named(pseudonyms, held, rows), rows.num_rows());
    }

    fn note_named(&self, who: &Caller, what: impl Display, entities: Vec<String>, rows: usize) {
        if !entities.is_empty() {
            self.audit.note_entities(who, what, (entities, rows));
        }
    }
}

/// The entities of a view, whose keys lie in `columns`, one after the other.
fn held<'a>(definitions: &'a Definitions, view: &FeatureView, columns: Vec<&'a str>) -> Vec<Held<'a>> {
    let mut columns = columns.into_iter();
    let entities = view.entities.iter().map(|entity| &definitions.entities[entity]);
    entities.map(|entity| (entity, columns.by_ref().take(entity.join_keys.len()).collect())).collect()
}

/// What stands for the different entities of the first rows.
fn named<'a>(
    pseudonyms: &Pseudonyms,
    held: impl Iterator<Item = Held<'a>>,
    rows: &RecordBatch,
) -> Vec<String> {
    let rows = rows.slice(0, rows.num_rows().min(ROWS_MAX));
    let mut seen: Vec<Held<'_>> = Vec::new();
    let mut found = Vec::new();
    for (entity, columns) in held {
        if seen.iter().any(|(known, of)| known.name == entity.name && *of == columns) {
            continue;
        }
        let given: Option<Vec<_>> =
            columns.iter().map(|column| rows.column_by_name(column).cloned()).collect();
        // What lacks a column, or has another type, is refused by whoever reads it.
        if let Some(given) = given
            && let Ok(keys) = keys(&entity.join_keys, &given)
        {
            let keys = (0..keys.len()).filter_map(|row| keys.get(row).map(<[u8]>::to_vec));
            for key in keys {
                if found.len() == ENTITIES_MAX {
                    break;
                }
                let one = (entity.name.as_str(), key);
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
        seen.push((entity, columns));
    }
    found.iter().map(|(entity, key)| pseudonyms.of(entity, key)).collect()
}
