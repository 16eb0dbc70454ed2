//! What share has a version whose share grows by itself, and what is next?
//!
//! A ramp is part of a deployment: its step is kept by the apply that brought that step's weights, so both are there or
//! neither is. What is next depends on nothing but the ramp, what its version answered since the step began, and the
//! time by the registry's clock ([`Ramp::next`]); whoever asks gets the same answer.

pub mod condition;
pub mod tally;

use std::collections::BTreeMap;
use std::fmt;

use feature_defs::format_duration;
use quern_base::clock::shown;
use quern_store::registry::RampCounts;
use quern_wire::{Percent, RampState, RampStatus, StopIf};
use serde::{Deserialize, Serialize};

use self::condition::Condition;

/// Ramps by model.
pub type Ramps = BTreeMap<String, Ramp>;

/// So many requests its version must have in a step before anything is decided: of fewer, one that fails says little.
pub(crate) const REQUESTS_MIN: u64 = 100;

/// A ramp that goes on, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// The version whose share it is.
    pub version: String,
    /// Its shares, ascending.
    pub steps: Vec<Percent>,
    /// How long each lasts at least, µs.
    pub every_us: i64,
    /// What stops it.
    pub stop_if: Vec<Condition>,
    /// The weights from which it counts: those of all versions before it.
    pub before: BTreeMap<String, u64>,
    /// What of these was set in flight; none where they were declared.
    pub set_before: Option<Vec<(String, u32)>>,
    /// Where it is among its steps, or ended.
    pub step: usize,
    /// Number of the apply that this step, or the end, began with.
    pub since: u64,
    /// When that was, µs by the registry's clock.
    pub since_us: i64,
    /// How it ended.
    pub end: Option<End>,
}

/// How a ramp ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It went through all steps.
    Done,
    /// By itself, for this reason.
    Stopped(String),
    /// Something else says what the weights are.
    Ended(String),
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The step goes on.
    Stay,
    /// The next step.
    Step,
    /// There is none.
    Done,
    /// The condition at this place is met.
    Stop(usize),
}

impl Ramp {
    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// What is next, after its version answered so in this step, at this time by the registry's clock.
    pub fn next(&self, counts: &RampCounts, now_us: i64) -> Next {
        if !self.is_running() || counts.requests < REQUESTS_MIN {
            return Next::Stay;
        }
        let mut hits = self.stop_if.iter().zip(&counts.hits);
        match hits.position(|(condition, hits)| condition.is_met(*hits, counts.requests)) {
            Some(place) => Next::Stop(place),
            None if !self.is_due(now_us) => Next::Stay,
            None if self.step + 1 < self.steps.len() => Next::Step,
            None => Next::Done,
        }
    }

    /// Whether the step lasted for as long as it should.
    fn is_due(&self, now_us: i64) -> bool {
        now_us.saturating_sub(self.since_us) >= self.every_us
    }

    /// The share that it has.
    pub fn share(&self) -> Percent {
        self.steps[self.step.min(self.steps.len() - 1)]
    }

    /// The same at its end.
    pub(crate) fn ended(&self, end: End, since: u64, since_us: i64) -> Ramp {
        Ramp { end: Some(end), since, since_us, ..self.clone() }
    }

    /// Why it stops for the condition at `place`.
    pub(crate) fn reason(&self, place: usize, counts: &RampCounts) -> String {
        let (condition, hits) = (&self.stop_if[place], counts.hits[place]);
        let share = hits as f64 * 100.0 / counts.requests.max(1) as f64;
        format!(
            "`{condition}`: of {} requests in step {} of {} ({}), {hits} {} ({share:.2} %)",
            counts.requests,
            self.step + 1,
            self.steps.len(),
            self.share(),
            condition.said()
        )
    }

    /// How it is, for people, where its version answered so in this step.
    pub fn status(&self, model: &str, counts: Option<&RampCounts>, now_us: i64) -> RampStatus {
        let requests = counts.map(|counts| counts.requests);
        let state = match &self.end {
            None if self.is_due(now_us) && requests.is_some_and(|requests| requests < REQUESTS_MIN) => {
                RampState::Waiting
            }
            None => RampState::Running,
            Some(End::Done) => RampState::Done,
            Some(End::Stopped(_)) => RampState::Stopped,
            Some(End::Ended(_)) => RampState::Ended,
        };
        let share = |place: usize| {
            let counts = counts.filter(|counts| counts.requests > 0)?;
            Some(*counts.hits.get(place)? as f64 / counts.requests as f64)
        };
        let stop_if = self.stop_if.iter().enumerate();
        let reason = match &self.end {
            Some(End::Stopped(why) | End::Ended(why)) => Some(why.clone()),
            Some(End::Done) | None => None,
        };
        RampStatus {
            model: model.to_owned(),
            version: self.version.clone(),
            state,
            step: self.step + 1,
            steps: self.steps.clone(),
            every: format_duration(self.every_us),
            since: shown(self.since_us),
            requests,
            requests_min: REQUESTS_MIN,
            stop_if: stop_if
                .map(|(place, condition)| StopIf { condition: condition.to_string(), share: share(place) })
                .collect(),
            reason,
        }
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, step, all) = (&self.version, self.step + 1, self.steps.len());
        write!(f, "the ramp of version `{version}` (step {step} of {all}, {})", self.share())
    }
}

#[cfg(test)]
mod tests;
