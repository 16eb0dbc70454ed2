//! What would change, what must be materialized again, and which model in use would break?

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use quern_access::Difference;
use quern_engine::schema::type_name;
use quern_engine::windows::Kept;
use quern_engine::{ViewId, ViewPlan};
use quern_wire::{AccessChange, Break, Plan, Reason, ViewToMaterialize};

use super::changes::changes;
use super::notes::{GoesOn, notes, turns};
use super::reused::{is_same, still_named};
use crate::live::{Deployment, LiveVersion};

/// The way from `live` to `candidate`, over stores that tell what they hold.
pub(super) fn between(live: &Deployment, candidate: &Deployment, stored: &Stored) -> Plan {
    let changes = changes(live, candidate);
    let known: BTreeSet<ViewId> = live.compiled.catalog.views.values().map(|view| view.id).collect();
    let (mut materialize, mut keep, mut answer_at_once) = (Vec::new(), Vec::new(), Vec::new());
    for view in candidate.compiled.catalog.views.values() {
        let old = live.compiled.catalog.views.get(&view.name);
        let reason = match old {
            _ if known.contains(&view.id) => {
                let (missing, reached) = new_windows(view, old, stored);
                answer_at_once.extend(reached.iter().map(|feature| format!("{}.{feature}", view.name)));
                if missing.is_empty() {
                    keep.push(view.name.clone());
                    continue;
                }
                Reason::Windows(missing)
            }
            Some(_) => Reason::Changed,
            None => Reason::New,
        };
        let (files, bytes) = (stored.history)(&view.source);
        materialize.push(ViewToMaterialize { view: view.name.clone(), reason, files, bytes });
    }
    let both = live.models.iter().flat_map(|(model, live)| {
        live.versions.iter().filter_map(|old| {
            let new = candidate.version(model, Some(&old.version))?;
            Some((model.as_str(), old, new))
        })
    });
    let (mut go_on, mut breaks) = (Vec::new(), Vec::new());
    // Under the same name: what is made of other files is another model, and need not be fed as the one before.
    for (model, old, new) in both {
        if !is_same(old, new) {
            breaks.extend(still_named(live, model, new));
            continue;
        }
        match inputs_differ(&old.service.outputs, &new.service.outputs) {
            Some(cause) => breaks.push(break_of_inputs(model, new, &cause)),
            None => go_on.push(GoesOn { model, old, new }),
        }
    }
    Plan {
        base: live.number,
        number: if changes.is_empty() { live.number } else { live.number + 1 },
        applied: false,
        materialize,
        keep,
        answer_at_once,
        changes,
        access: live.access.differences(&candidate.access).into_iter().map(said).collect(),
        fits: Vec::new(),
        affected: notes(live, candidate, &go_on).into_iter().chain(turns(live, candidate)).collect(),
        breaks,
        forbidden: None,
    }
}

fn said(Difference { role, gains, loses }: Difference) -> AccessChange {
    AccessChange { role, gains, loses }
}

/// What the stores hold, as far as a plan asks.
pub(super) struct Stored<'a> {
    /// What the head keeps of a view's events.
    pub(super) kept: &'a (dyn Fn(ViewId) -> Option<Arc<Kept>> + Sync),
    /// Files and bytes of a source.
    pub(super) history: &'a (dyn Fn(&str) -> (usize, u64) + Sync),
}

/// The features whose windows the stored tiles do not reach, and the new ones whose windows they do.
fn new_windows(view: &ViewPlan, old: Option<&Arc<ViewPlan>>, stored: &Stored) -> (Vec<String>, Vec<String>) {
    let Some(windows) = &view.windows else { return Default::default() };
    let Some(kept) = (stored.kept)(view.id) else { return Default::default() };
    let names = view.features.fields().iter().map(|field| field.name().clone()).enumerate();
    let (reached, missing): (Vec<_>, Vec<_>) = names.partition(|(i, _)| windows.is_kept(*i, &kept));
    let is_new = |name: &String| old.is_some_and(|old| old.features.index_of(name).is_err());
    let names = |features: Vec<(usize, String)>| features.into_iter().map(|(_, name)| name);
    (names(missing).collect(), names(reached).filter(is_new).collect())
}

/// How a model's inputs differ in name, type or order, if they do.
fn inputs_differ(old: &Schema, new: &Schema) -> Option<String> {
    let columns = |schema: &Schema| -> Vec<String> {
        let column = schema.fields().iter();
        column.map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect()
    };
    let (old, new) = (columns(old), columns(new));
    if old == new {
        return None;
    }
    let place = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let at =
        |columns: &[String]| columns.get(place).map_or("nothing".to_owned(), |column| format!("`{column}`"));
    Some(format!(
        "input {} of {} is {} and would be {} of {}",
        place + 1,
        old.len(),
        at(&old),
        at(&new),
        new.len()
    ))
}

/// The service would hand the version other inputs.
fn break_of_inputs(model: &str, live: &LiveVersion, cause: &str) -> Break {
    Break {
        model: model.to_owned(),
        version: live.version.clone(),
        cause: format!("feature service `{}` would hand it other inputs: {cause}", live.service.name),
        help: "leave the service as it is, add a new service and a new model version beside them, and remove the \
               old ones once nobody asks for them"
            .to_owned(),
    }
}
