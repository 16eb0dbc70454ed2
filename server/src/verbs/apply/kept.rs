//! What becomes of what was set in flight, weights and ramps, where definitions are applied?
//!
//! Weights hold until the model's route is declared in another way, and so does a ramp, as long as there is its
//! version.

use feature_defs::Definitions;
use quern_base::clock::now_us;

use crate::live::ramp::{End, Ramp, Ramps};
use crate::live::{Deployment, Weights};

/// What was set in flight and holds beside new definitions.
pub(super) struct Kept {
    pub(super) weights: Weights,
    pub(super) ramps: Ramps,
}

/// What of what is live holds beside `definitions`.
pub(super) fn kept(live: &Deployment, definitions: &Definitions) -> Kept {
    let same = |model: &str| is_routed_alike(&live.compiled.catalog.definitions, definitions, model);
    let set = live.weights.iter().filter(|(model, _)| same(model));
    let mut weights: Weights = set.map(|(name, set)| (name.clone(), set.clone())).collect();
    let mut ramps = Ramps::new();
    for (name, ramp) in &live.ramps {
        let Some(model) = definitions.models.get(name) else { continue };
        let has_version = model.versions.iter().any(|version| version.version == ramp.version);
        let number = live.number + 1;
        let end = match (same(name), has_version) {
            (true, true) => {
                ramps.insert(name.clone(), ramp.clone());
                continue;
            }
            _ if !ramp.is_running() => continue,
            (true, false) => {
                match &ramp.set_before {
                    Some(before) => weights.insert(name.clone(), before.clone()),
                    None => weights.remove(name),
                };
                format!("apply {number} has no version `{}` of it", ramp.version)
            }
            (false, _) => format!("apply {number} declares the route in another way"),
        };
        ramps.insert(name.clone(), ramp.ended(End::Ended(end), number, now_us()));
    }
    Kept { weights, ramps }
}

/// Whether both declare alike who is answered by which version of a model: by weights, sticky columns, salt.
fn is_routed_alike(old: &Definitions, new: &Definitions, model: &str) -> bool {
    let route = |definitions: &Definitions| definitions.models.get(model)?.route.clone();
    let (Some(old), Some(new)) = (route(old), route(new)) else { return false };
    let sticky = old.sticky.iter().map(|column| &column.sql).eq(new.sticky.iter().map(|column| &column.sql));
    sticky && old.weights == new.weights && old.salt == new.salt
}

/// What an apply does to the ramps of `project` that go on, a note for each.
pub(super) fn notes_of_ramps(live: &Deployment, candidate: &Deployment, project: &str) -> Vec<String> {
    let declared = &live.compiled.catalog.definitions.models;
    let is_here = |model: &str| declared.get(model).is_some_and(|model| model.loc.project() == project);
    let running = live.ramps.iter().filter(|(model, ramp)| ramp.is_running() && is_here(model));
    let note = |(model, ramp): (&String, &Ramp)| match candidate.ramps.get(model).map(|ramp| &ramp.end) {
        Some(None) => format!("model `{model}`: {ramp} goes on"),
        Some(Some(End::Ended(why))) => format!("model `{model}`: {ramp} ends: {why}"),
        _ => format!("model `{model}`: {ramp} ends with the model"),
    };
    running.map(note).collect()
}
