//! What did the version of a ramp answer here since its step began?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quern_store::registry::RampCounts;

use super::condition::{Condition, Outcome};
use super::{Ramp, Ramps};

/// What is counted in one step of a ramp, by model: a request counts in the step whose weights it was answered by.
pub(crate) type Tallies = BTreeMap<String, Arc<Tally>>;

/// Counts the requests of one version in one step of its ramp.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) version: String,
    /// The apply that the step began with.
    pub(crate) since: u64,
    requests: AtomicU64,
    conditions: Vec<(Condition, AtomicU64)>,
}

impl Tally {
    fn new(ramp: &Ramp) -> Tally {
        let conditions = ramp.stop_if.iter().map(|condition| (*condition, AtomicU64::default())).collect();
        Tally { version: ramp.version.clone(), since: ramp.since, requests: AtomicU64::default(), conditions }
    }

    /// Counts a request.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests.fetch_add(1, Relaxed);
        for (condition, hits) in &self.conditions {
            hits.fetch_add(u64::from(condition.is_hit(outcome)), Relaxed);
        }
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> RampCounts {
        let hits = self.conditions.iter().map(|(_, hits)| hits.load(Relaxed)).collect();
        RampCounts { requests: self.requests.load(Relaxed), hits }
    }
}

/// The tallies of the steps that `ramps` are in; of those that went on before, what was counted so far.
pub(crate) fn tallies(before: &Tallies, ramps: &Ramps) -> Tallies {
    let running = ramps.iter().filter(|(_, ramp)| ramp.is_running());
    let tally = |(model, ramp): (&String, &Ramp)| {
        let known = before.get(model).filter(|tally| tally.since == ramp.since);
        (model.clone(), known.map_or_else(|| Arc::new(Tally::new(ramp)), Arc::clone))
    };
    running.map(tally).collect()
}
