//! What did each window hold at each query time? The events of a key in order, its query times in order, one sweep.
//!
//! Both ends of a window only move on from one query time of a key to the next. So each event enters a window once and
//! leaves it once. Where an aggregate can take an event back, that is all there is to it. Where it cannot, the window
//! is cut in two ("two stacks"): of the older part, results are kept from each coming left end up to the cut; the
//! newer part is one result that grows. Each query time merges two results; when the older part is used up, the
//! newer one becomes it.

use std::ops::Range;

use arrow::array::ArrayRef;

use super::aggregate::{Input, Params, Retractable, State, dispatch};
use super::events::Events;
use super::plan::Windows;
use super::value::Cell;
use super::window::Window;
use crate::{EngineError, Failed};

/// One key: its events and its query times, as indices among all.
#[derive(Debug, Clone)]
pub struct Group {
    /// Indices among the events.
    pub events: Range<usize>,
    /// Indices among the query times.
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
        failed: &mut Failed,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let sweep = Sweep { events, groups, times_us };
        let hi: Vec<u32> = sweep.ends();
        let mut bounds: Vec<Option<Bounds>> = vec![None; self.windows.len()];
        let mut found: Vec<Option<ArrayRef>> = vec![None; wanted.len()];
        for accumulator in 0..self.accumulators.len() {
            for (window, rule) in self.windows.iter().enumerate() {
                let is_of = |i: &usize| self.features[wanted[*i]].is_of(accumulator, window);
                let indices: Vec<usize> = (0..wanted.len()).filter(is_of).collect();
                if indices.is_empty() {
                    continue;
                }
                let bounds = bounds[window].get_or_insert_with(|| sweep.bounds(&hi, rule));
                let features: Vec<usize> = indices.iter().map(|i| wanted[*i]).collect();
                let columns = self.slide(&sweep, bounds, accumulator, &features)?;
                for (i, cells) in indices.into_iter().zip(columns) {
                    found[i] = Some(self.column(wanted[i], cells, failed)?);
                }
            }
        }
        let found = found.into_iter();
        Ok(found.map(|column| column.expect("each feature has one accumulator and window")).collect())
    }

    /// The `features` of one accumulator, over the window with these bounds.
    fn slide(
        &self,
        sweep: &Sweep,
        bounds: &Bounds,
        accumulator: usize,
        features: &[usize],
    ) -> Result<Vec<Vec<Cell>>, EngineError> {
        let accumulator = &self.accumulators[accumulator];
        let input = Input::of(sweep.events, accumulator.input, self.inputs[accumulator.input].shape);
        let slide = Slide { sweep, input, params: &accumulator.params, bounds };
        let mut cells: Vec<Vec<Cell>> =
            features.iter().map(|_| Vec::with_capacity(sweep.times_us.len())).collect();
        dispatch!(accumulator, retractable S => {
            slide.each_group(Slide::taking_back::<S>, &mut |state| self.finish(state, features, &mut cells))?;
        }, S => {
            slide.each_group(Slide::two_stacks::<S>, &mut |state| self.finish(state, features, &mut cells))?;
        });
        Ok(cells)
    }

    /// Appends what `state` says of each of the features.
    fn finish<S: State>(
        &self,
        state: &S,
        features: &[usize],
        cells: &mut [Vec<Cell>],
    ) -> Result<(), EngineError> {
        for (feature, cells) in features.iter().zip(cells) {
            cells.push(self.cell(*feature, state));
        }
        Ok(())
    }
}

/// The events and query times of some keys.
struct Sweep<'a> {
    events: &'a Events,
    groups: &'a [Group],
    times_us: &'a [i64],
}

impl Sweep<'_> {
    /// For each query time the end of the events that are visible.
    fn ends(&self) -> Vec<u32> {
        let mut ends = Vec::with_capacity(self.times_us.len());
        for group in self.groups {
            let mut hi = group.events.start;
            for q_us in &self.times_us[group.times.clone()] {
                while hi < group.events.end && self.events.visible_us[hi] <= *q_us {
                    hi += 1;
                }
                ends.push(hi as u32);
            }
        }
        ends
    }

    /// For each query time the events that `window` holds, given where they end.
    fn bounds(&self, ends: &[u32], window: &Window) -> Bounds {
        let mut bounds = Vec::with_capacity(self.times_us.len());
        for group in self.groups {
            let mut lo = group.events.start;
            for time in group.times.clone() {
                let start_us = window.start_us(self.times_us[time]);
                while lo < ends[time] as usize && self.events.visible_us[lo] < start_us {
                    lo += 1;
                }
                bounds.push((lo as u32, ends[time]));
            }
        }
        bounds
    }
}

/// One accumulator over one window.
struct Slide<'a> {
    sweep: &'a Sweep<'a>,
    input: Input<'a>,
    params: &'a Params,
    bounds: &'a Bounds,
}

type Emit<'e, S> = &'e mut dyn FnMut(&S) -> Result<(), EngineError>;

impl Slide<'_> {
    /// Emits the state at each query time: `along` slides over a group whose events were known in their order.
    fn each_group<S: State>(
        &self,
        along: impl Fn(&Self, &Group, Emit<S>) -> Result<(), EngineError>,
        emit: Emit<S>,
    ) -> Result<(), EngineError> {
        self.sweep.groups.iter().try_for_each(|group| {
            match self.sweep.events.is_known_late(group.events.clone()) {
                true => self.by_hand(group, emit),
                false => along(self, group, emit),
            }
        })
    }

    fn update<S: State>(&self, state: &mut S, event: usize) {
        if self.input.counts(event) {
            state.update(&self.input, event, self.params);
        }
    }

    fn taking_back<S: Retractable>(&self, group: &Group, emit: Emit<S>) -> Result<(), EngineError> {
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
    fn by_hand<S: State>(&self, group: &Group, emit: Emit<S>) -> Result<(), EngineError> {
        let Sweep { events, times_us, .. } = self.sweep;
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
