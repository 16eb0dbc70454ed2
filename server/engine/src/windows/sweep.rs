//! What did each window hold at each query time? The events of a key in order, its query times in order, one sweep.
//!
//! Both ends of a window only move on from one query time of a key to the next. So each event enters a window once and
//! leaves it once. Where an aggregate can take an event back, that is all there is to it. Where it cannot, the window
//! is cut in two ("two stacks"): of the older part, results are kept from each coming left end up to the cut; the
//! newer part is one result that grows. Each query time merges two results; when the older part is used up, the
//! newer one becomes it.

use std::ops::Range;

use arrow::array::ArrayRef;

use super::aggregate::{Input, Overflow, Params, State};
use super::events::Events;
use super::value::{Cell, column};
use super::{Windows, dispatch};
use crate::EngineError;

/// One key: its events and its query times, as places among all.
#[derive(Debug, Clone)]
pub struct Group {
    /// Places among the events.
    pub events: Range<usize>,
    /// Places among the query times.
    pub times: Range<usize>,
}

/// For each query time the events that one window holds.
type Bounds = Vec<(u32, u32)>;

impl Windows {
    /// The features `wanted` at `times_us`, which ascend within each group; groups follow one another.
    pub fn sweep(
        &self,
        events: &Events,
        groups: &[Group],
        times_us: &[i64],
        wanted: &[usize],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let mut found: Vec<Option<ArrayRef>> = vec![None; wanted.len()];
        let hi: Vec<u32> = ends(events, groups, times_us);
        let mut bounds: Vec<Option<Bounds>> = vec![None; self.windows.len()];
        for (accumulator, at) in self.accumulators.iter().enumerate() {
            for (window, rule) in self.windows.iter().enumerate() {
                let features: Vec<usize> = (0..wanted.len())
                    .filter(|i| {
                        let feature = &self.features[wanted[*i]];
                        feature.accumulator == accumulator && feature.window == window
                    })
                    .collect();
                if features.is_empty() {
                    continue;
                }
                let bounds = bounds[window]
                    .get_or_insert_with(|| starts(events, groups, times_us, &hi, |q_us| rule.start_us(q_us)));
                let slide = Slide {
                    input: Input::of(events, at.input, self.inputs[at.input].shape),
                    params: &at.params,
                    bounds,
                };
                let mut cells: Vec<Vec<Cell>> =
                    features.iter().map(|_| Vec::with_capacity(times_us.len())).collect();
                dispatch!(at, S => {
                    let mut emit = |state: &S| -> Result<(), EngineError> {
                        for (feature, cells) in features.iter().zip(&mut cells) {
                            let feature = wanted[*feature];
                            let cell = state.finish(self.features[feature].finish, &at.params);
                            cells.push(cell.map_err(|overflow| self.overflow(feature, &overflow))?);
                        }
                        Ok(())
                    };
                    for group in groups {
                        if events.is_known_late(group.events.clone()) {
                            slide.by_hand::<S>(events, group, times_us, &mut emit)?;
                        } else if S::TAKES_BACK {
                            slide.taking_back::<S>(group, &mut emit)?;
                        } else {
                            slide.two_stacks::<S>(group, &mut emit)?;
                        }
                    }
                });
                for (feature, cells) in features.into_iter().zip(cells) {
                    found[feature] = Some(column(cells, self.schema.field(wanted[feature]).data_type())?);
                }
            }
        }
        Ok(found
            .into_iter()
            .map(|column| column.expect("each feature has one accumulator and window"))
            .collect())
    }

    pub(super) fn overflow(&self, feature: usize, overflow: &Overflow) -> EngineError {
        EngineError::Evaluate {
            what: format!("feature view `{}`, feature `{}`", self.view, self.schema.field(feature).name()),
            cause: format!("{}; aggregate smaller numbers, or cast them to float64", overflow.0),
        }
    }
}

/// For each query time the end of the events that are visible.
fn ends(events: &Events, groups: &[Group], times_us: &[i64]) -> Vec<u32> {
    let mut ends = Vec::with_capacity(times_us.len());
    for group in groups {
        let mut hi = group.events.start;
        for q_us in &times_us[group.times.clone()] {
            while hi < group.events.end && events.visible_us[hi] <= *q_us {
                hi += 1;
            }
            ends.push(hi as u32);
        }
    }
    ends
}

fn starts(
    events: &Events,
    groups: &[Group],
    times_us: &[i64],
    ends: &[u32],
    start_us: impl Fn(i64) -> i64,
) -> Bounds {
    let mut bounds = Vec::with_capacity(times_us.len());
    for group in groups {
        let mut lo = group.events.start;
        for time in group.times.clone() {
            let start_us = start_us(times_us[time]);
            while lo < ends[time] as usize && events.visible_us[lo] < start_us {
                lo += 1;
            }
            bounds.push((lo as u32, ends[time]));
        }
    }
    bounds
}

struct Slide<'a> {
    input: Input<'a>,
    params: &'a Params,
    bounds: &'a Bounds,
}

type Emit<'e, S> = &'e mut dyn FnMut(&S) -> Result<(), EngineError>;

impl Slide<'_> {
    fn update<S: State>(&self, state: &mut S, event: usize) {
        if self.input.counts(event) {
            state.update(&self.input, event, self.params);
        }
    }

    fn taking_back<S: State>(&self, group: &Group, emit: Emit<S>) -> Result<(), EngineError> {
        let mut state = S::default();
        let (mut from, mut to) = (group.events.start, group.events.start);
        for (lo, hi) in &self.bounds[group.times.clone()] {
            let (lo, hi) = (*lo as usize, *hi as usize);
            if lo >= to {
                state = S::default();
                (from, to) = (lo, lo);
            }
            while to < hi {
                self.update(&mut state, to);
                to += 1;
            }
            while from < lo {
                if self.input.counts(from) {
                    state.take_back(&self.input, from, self.params);
                }
                from += 1;
            }
            emit(&state)?;
        }
        Ok(())
    }

    fn two_stacks<S: State>(&self, group: &Group, emit: Emit<S>) -> Result<(), EngineError> {
        let bounds = &self.bounds[group.times.clone()];
        let (mut cut, mut to) = (group.events.start, group.events.start);
        // From each coming left end up to the cut, the next one last.
        let mut older: Vec<S> = Vec::new();
        let mut newer = S::default();
        for (i, (lo, hi)) in bounds.iter().enumerate() {
            let (lo, hi) = (*lo as usize, *hi as usize);
            if lo >= cut {
                (cut, to) = (hi, hi);
                newer = S::default();
                older.clear();
                let coming = bounds[i..].iter().take_while(|(lo, _)| (*lo as usize) < cut).count().max(1);
                let (mut state, mut at) = (S::default(), cut);
                for (lo, _) in bounds[i..i + coming].iter().rev() {
                    while at > *lo as usize {
                        at -= 1;
                        self.update(&mut state, at);
                    }
                    older.push(state.clone());
                }
            }
            while to < hi {
                self.update(&mut newer, to);
                to += 1;
            }
            let mut state = older.pop().unwrap_or_default();
            state.merge(&newer, self.params);
            emit(&state)?;
        }
        Ok(())
    }

    /// Event by event, for keys with events that became known after they became visible: rows then enter and leave
    /// out of their order.
    fn by_hand<S: State>(
        &self,
        events: &Events,
        group: &Group,
        times_us: &[i64],
        emit: Emit<S>,
    ) -> Result<(), EngineError> {
        for time in group.times.clone() {
            let (lo, hi) = self.bounds[time];
            let mut state = S::default();
            for event in lo as usize..hi as usize {
                if events.is_known(event, times_us[time]) {
                    self.update(&mut state, event);
                }
            }
            emit(&state)?;
        }
        Ok(())
    }
}
