//! What do the stored tiles of an entity say of its windows?

use std::ops::Range;

use arrow::array::ArrayRef;

use super::aggregate::{Params, State, dispatch};
use super::plan::Windows;
use super::tiles::{Stored, split};
use super::value::Cell;
use super::window::{Kept, Level, Window, floor};
use crate::{EngineError, Failed};

impl Windows {
    /// The features `wanted` of each key at its query time, which is not before its latest event, from a head that
    /// keeps `kept`. A key that was never stored has empty windows.
    pub fn answer(
        &self,
        stored: &[Option<&[u8]>],
        times_us: &[i64],
        wanted: &[usize],
        kept: &Kept,
        failed: &mut Failed,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let question = Question { plan: self, wanted, kept };
        let mut cells: Vec<Vec<Cell>> = wanted.iter().map(|_| Vec::with_capacity(stored.len())).collect();
        for (whole, q_us) in stored.iter().zip(times_us) {
            question.answer(*whole, *q_us, &mut cells)?;
        }
        let columns = wanted.iter().zip(cells);
        columns.map(|(feature, cells)| self.column(*feature, cells, failed)).collect()
    }
}

/// Features, and what tiles there are to tell them.
struct Question<'a> {
    plan: &'a Windows,
    wanted: &'a [usize],
    kept: &'a Kept,
}

/// The states of the tiles of each window, one accumulator after another.
struct Found<'a> {
    states: Vec<&'a [u8]>,
    /// How many states a tile has.
    width: usize,
    /// For each window its tiles.
    windows: Vec<Range<usize>>,
}

impl Question<'_> {
    /// Appends what one key's tiles say of each feature.
    fn answer(&self, whole: Option<&[u8]>, q_us: i64, cells: &mut [Vec<Cell>]) -> Result<(), EngineError> {
        let corrupt = || EngineError::Codec {
            bytes: whole.map_or(0, <[u8]>::len),
            cause: "a tile cannot be read".into(),
        };
        let stored = whole.map(Stored::read).transpose()?;
        let found = self.find(stored.as_ref(), q_us).ok_or_else(corrupt)?;
        for (index, accumulator) in self.plan.accumulators.iter().enumerate() {
            for window in 0..found.windows.len() {
                let wanted = self.wanted.iter().enumerate();
                let mut wanted =
                    wanted.filter(|(_, f)| self.plan.features[**f].is_of(index, window)).peekable();
                if wanted.peek().is_none() {
                    continue;
                }
                dispatch!(accumulator, S => {
                    let state: S = found.merged(window, index, &accumulator.params).ok_or_else(corrupt)?;
                    for (i, feature) in wanted {
                        cells[i].push(self.plan.cell(*feature, &state));
                    }
                });
            }
        }
        Ok(())
    }

    /// The tiles of the windows that are asked for; none where they cannot be read.
    fn find<'s>(&self, stored: Option<&Stored<'s>>, q_us: i64) -> Option<Found<'s>> {
        let width = self.plan.accumulators.len();
        let mut found = Found { states: Vec::new(), width, windows: Vec::new() };
        for (window, rule) in self.plan.windows.iter().enumerate() {
            let start = found.states.len() / width;
            if let Some(stored) = stored
                && self.wanted.iter().any(|feature| self.plan.features[*feature].window == window)
            {
                found.add(stored, rule, q_us, self.kept)?;
            }
            found.windows.push(start..found.states.len() / width);
        }
        Some(found)
    }
}

impl<'a> Found<'a> {
    /// Adds the tiles of a window: small ones from its left end on, then larger ones.
    fn add(&mut self, stored: &Stored<'a>, window: &Window, q_us: i64, kept: &Kept) -> Option<()> {
        let mut at_us = window.start_us(q_us);
        if window.length_us.is_none() {
            let (cut_us, before) = stored.before?;
            if !before.is_empty() {
                split(before, self.width, &mut self.states)?;
            }
            at_us = cut_us;
        }
        let usable = |level: &&Level| window.uses(level);
        let mut levels = kept.levels.iter().filter(usable).peekable();
        while let Some(level) = levels.next() {
            let end_us = levels.peek().map_or(i64::MAX, |next| ceil(at_us, next.span_us));
            if let Some(size) = stored.sizes.iter().find(|size| size.span_us == level.span_us) {
                for tile in size.between(at_us, end_us) {
                    split(size.tile(tile)?, self.width, &mut self.states)?;
                }
            }
            at_us = end_us;
        }
        Some(())
    }

    /// What the window's tiles hold for one accumulator; none where it cannot be read.
    fn merged<S: State>(&self, window: usize, accumulator: usize, params: &Params) -> Option<S> {
        let mut merged = S::default();
        for tile in self.windows[window].clone() {
            let mut bytes = self.states[tile * self.width + accumulator];
            merged.merge(&S::read(&mut bytes)?, params);
        }
        Some(merged)
    }
}

fn ceil(us: i64, span_us: i64) -> i64 {
    let start_us = floor(us, span_us);
    if start_us == us { us } else { start_us.saturating_add(span_us) }
}
