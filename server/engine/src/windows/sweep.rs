//! What did each window hold at each query time? The events of a key in order, its query times in order, one sweep.
//!
//! Both ends of a window only move on from one query time of a key to the next. So each event enters a window once and
//! leaves it once. Where an aggregate can take an event back, that is all there is to it. Where it cannot, the window
//! is cut in two ("two stacks"): of the older part, results are kept from each coming left end up to the cut; the
//! newer part is one result that grows. Each query time merges two results; when the older part is used up, the
//! newer one becomes it.
//!
//! Events that became known after they became visible, or that are left out at some query times, enter and leave out of
//! their order. Yet each stays for a few stretches of query times, and results do not depend on the order of events: so
//! the query times are halved again and again, and each event is taken in where it stays throughout.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::ArrayRef;
use feature_defs::At;

use super::aggregate::{Input, Params, Retractable, State, dispatch};
use super::events::Events;
use super::plan::{Excluded, Windows};
use super::value::Cell;
use super::window::Window;
use crate::time::last_us;
use crate::{EngineError, Failed};

/// One key: its events and its query times, as indices among all.
#[derive(Debug, Clone)]
pub struct Group {
    /// Indices among the events.
    pub events: Range<usize>,
    /// Indices among the query times.
    pub times: Range<usize>,
}

/// What is asked of some keys.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The keys, one after another.
    pub groups: &'a [Group],
    /// The query times, µs, which ascend within each group.
    pub times_us: &'a [i64],
    /// Where events are left out: for each query time the one that does not count.
    pub excluded: Option<&'a [Option<Excluded>]>,
}

/// For each query time the events that one window holds.
type Bounds = Vec<(u32, u32)>;

impl Windows {
    /// The features `wanted` at each query time.
    pub fn sweep(
        &self,
        events: &Events,
        asked: Asked,
        wanted: &[usize],
        failed: &mut Failed,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let Asked { groups, times_us, excluded } = asked;
        let sweep = Sweep { events, groups, times_us, excluded, at: self.at };
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

    /// At how many query times an event of the key counts that becomes visible at that very time. None where events are
    /// left out.
    pub fn coinciding(&self, events: &Events, asked: Asked) -> u64 {
        let Asked { groups, times_us, excluded } = asked;
        let coincides = |group: &Group, q_us: i64| {
            let visible_us = &events.visible_us[group.events.clone()];
            let first = visible_us.partition_point(|us| *us < q_us);
            // The first of an instant was known first.
            let is_known = || events.known_us(group.events.start + first).start <= q_us;
            visible_us.get(first) == Some(&q_us) && is_known()
        };
        let of_group = |group: &Group| {
            times_us[group.times.clone()].iter().filter(|q_us| coincides(group, **q_us)).count() as u64
        };
        match self.at {
            At::Including if excluded.is_none() => groups.iter().map(of_group).sum(),
            _ => 0,
        }
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
    excluded: Option<&'a [Option<Excluded>]>,
    at: At,
}

impl Sweep<'_> {
    /// For each query time the end of the events that are visible.
    fn ends(&self) -> Vec<u32> {
        let mut ends = Vec::with_capacity(self.times_us.len());
        for group in self.groups {
            let mut hi = group.events.start;
            for q_us in &self.times_us[group.times.clone()] {
                let last_us = last_us(*q_us, self.at);
                while hi < group.events.end && self.events.visible_us[hi] <= last_us {
                    hi += 1;
                }
                ends.push(hi as u32);
            }
        }
        ends
    }

    /// At which query times of a key each event is left out, ascending.
    fn left_out(&self, group: &Group) -> HashMap<u128, Vec<usize>> {
        let mut left_out: HashMap<u128, Vec<usize>> = HashMap::new();
        for time in group.times.clone() {
            if let Some(Excluded(identity)) = self.excluded.and_then(|excluded| excluded[time]) {
                left_out.entry(identity).or_default().push(time);
            }
        }
        left_out
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
    /// Emits the state at each query time: `along` slides over a group whose events were known once they were visible.
    fn each_group<S: State>(
        &self,
        along: impl Fn(&Self, &Group, Emit<S>) -> Result<(), EngineError>,
        emit: Emit<S>,
    ) -> Result<(), EngineError> {
        let Sweep { events, groups, excluded, .. } = self.sweep;
        groups.iter().try_for_each(|group| {
            let leaves_out =
                || excluded.is_some_and(|excluded| excluded[group.times.clone()].iter().any(Option::is_some));
            match events.is_known_late(group.events.clone()) || leaves_out() {
                true => self.stay_by_stay(group, emit),
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

    /// Stay by stay, for keys with events that became known after they became visible, or that are left out.
    fn stay_by_stay<S: State>(&self, group: &Group, emit: Emit<S>) -> Result<(), EngineError> {
        let left_out = self.sweep.left_out(group);
        let identities = self.sweep.events.identities.as_deref();
        let mut stays = Vec::new();
        for event in group.events.clone().filter(|event| self.input.counts(*event)) {
            let Range { mut start, end } = self.stay(group, event);
            // Cut where the event is left out.
            let cuts = identities.and_then(|identities| left_out.get(&identities[event]));
            for cut in cuts.into_iter().flatten() {
                if (start..end).contains(cut) {
                    stays.push(Stay { event, times: start..*cut });
                    start = cut + 1;
                }
            }
            stays.push(Stay { event, times: start..end });
        }
        stays.retain(|stay| !stay.times.is_empty());
        self.halve(group.times.clone(), &stays, &S::default(), emit)
    }

    /// The query times at which the event counts.
    fn stay(&self, group: &Group, event: usize) -> Range<usize> {
        let Sweep { events, times_us, at, .. } = self.sweep;
        let (times_us, bounds) = (&times_us[group.times.clone()], &self.bounds[group.times.clone()]);
        let known_us = events.known_us(event);
        let is_before = |us: i64| times_us.partition_point(|q_us| last_us(*q_us, *at) < us);
        let (entered, left) = (
            bounds.partition_point(|(_, hi)| *hi as usize <= event),
            bounds.partition_point(|(lo, _)| *lo as usize <= event),
        );
        let (known, replaced) = (is_before(known_us.start), is_before(known_us.end));
        group.times.start + entered.max(known)..group.times.start + left.min(replaced)
    }

    /// Emits the state at each of `times`, given the state of what stays throughout, and what stays for some of them.
    fn halve<S: State>(
        &self,
        times: Range<usize>,
        stays: &[Stay],
        state: &S,
        emit: Emit<S>,
    ) -> Result<(), EngineError> {
        let (mut more, mut for_some) = (None, Vec::new());
        for stay in stays {
            if stay.times.start <= times.start && times.end <= stay.times.end {
                self.update(more.get_or_insert_with(|| state.clone()), stay.event);
            } else if stay.times.start < times.end && times.start < stay.times.end {
                for_some.push(stay.clone());
            }
        }
        let state = more.as_ref().unwrap_or(state);
        if for_some.is_empty() {
            return times.into_iter().try_for_each(|_| emit(state));
        }
        let middle = times.start + times.len() / 2;
        self.halve(times.start..middle, &for_some, state, emit)?;
        self.halve(middle..times.end, &for_some, state, emit)
    }
}

/// An event, and the query times at which it counts.
#[derive(Debug, Clone)]
struct Stay {
    event: usize,
    times: Range<usize>,
}
