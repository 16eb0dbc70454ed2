//! Which bytes hold an entity's windows in the head, and what do they answer?
//!
//! Events are aggregated into tiles: stretches of 5 minutes, an hour, a day, eight days (and single instants, for
//! windows with `hop: exact`). A window is read as a few tiles: small ones from its left end to the next hour, larger
//! ones to the next day, and so on to the latest event. Of each size only what a window can still reach is kept,
//! counted from the key's latest event. A tile of eight days is made of days; all others of events.
//!
//! Version 1, numbers little-endian, `n` a LEB128 number, `piece` bytes behind their length:
//!
//! ```text
//! u8 version = 1 | i64 latest visible event µs | u8 has before [i64 cut µs | piece states]
//! | u8 sizes | for each: i64 span µs | u32 tiles | i64 start of each | u32 end of each | states of each
//! ```
//!
//! The states of a tile are a piece for each accumulator. `before` is there for lifetime windows: everything before
//! the cut, a day's start.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::ArrayRef;

use super::aggregate::Input;
use super::bytes::{fixed, piece, write_piece};
use super::events::Events;
use super::value::{Cell, column};
use super::{DAY_US, Kept, LIFETIME_TAIL_US, Level, ROLLUP_US, Windows, dispatch, floor};
use crate::EngineError;

const VERSION: u8 = 1;

type Tiles = BTreeMap<i64, Vec<u8>>;

/// What is stored of one key, taken apart.
struct Stored<'a> {
    latest_us: i64,
    before: Option<(i64, &'a [u8])>,
    sizes: Vec<Size<'a>>,
}

struct Size<'a> {
    span_us: i64,
    starts: &'a [[u8; 8]],
    ends: &'a [[u8; 4]],
    states: &'a [u8],
}

impl<'a> Size<'a> {
    fn start_us(&self, tile: usize) -> i64 {
        i64::from_le_bytes(self.starts[tile])
    }

    fn tile(&self, tile: usize) -> Option<&'a [u8]> {
        let end = |tile: usize| u32::from_le_bytes(self.ends[tile]) as usize;
        self.states.get(if tile == 0 { 0 } else { end(tile - 1) }..end(tile))
    }

    /// The tiles that start within `from..to`: when, and their states.
    fn tiles(&self, from_us: i64, to_us: i64) -> impl Iterator<Item = (i64, &'a [u8])> {
        self.between(from_us, to_us).map(|tile| (self.start_us(tile), self.tile(tile).unwrap_or_default()))
    }

    /// The tiles that start within `from..to`.
    fn between(&self, from_us: i64, to_us: i64) -> Range<usize> {
        let at = |us: i64| self.starts.partition_point(|start| i64::from_le_bytes(*start) < us);
        at(from_us)..at(to_us)
    }
}

impl<'a> Stored<'a> {
    fn read(whole: &'a [u8]) -> Result<Stored<'a>, EngineError> {
        let corrupt = |cause: &str| EngineError::Codec { bytes: whole.len(), cause: cause.to_owned() };
        let mut rest = whole;
        let version = *rest.split_off_first().ok_or_else(|| corrupt("no tiles"))?;
        if version != VERSION {
            return Err(corrupt(&format!(
                "tiles of version {version}, and this build reads version {VERSION}"
            )));
        }
        Self::body(rest).ok_or_else(|| corrupt("tiles are cut short"))
    }

    fn body(mut rest: &'a [u8]) -> Option<Stored<'a>> {
        let latest_us = fixed(&mut rest)?;
        let before = match *rest.split_off_first()? {
            0 => None,
            _ => Some((fixed(&mut rest)?, piece(&mut rest)?)),
        };
        let count = *rest.split_off_first()?;
        let mut sizes = Vec::with_capacity(count.into());
        for _ in 0..count {
            let span_us = fixed(&mut rest)?;
            let (tiles, after) = rest.split_first_chunk::<4>()?;
            let tiles = u32::from_le_bytes(*tiles) as usize;
            let (starts, after) = after.split_at_checked(8 * tiles)?;
            let (ends, after) = after.split_at_checked(4 * tiles)?;
            let ends = ends.as_chunks::<4>().0;
            let length = ends.last().map_or(0, |end| u32::from_le_bytes(*end) as usize);
            let (states, after) = after.split_at_checked(length)?;
            sizes.push(Size { span_us, starts: starts.as_chunks::<8>().0, ends, states });
            rest = after;
        }
        Some(Stored { latest_us, before, sizes })
    }
}

/// When the latest event of a stored key became visible, µs.
pub fn latest_us(stored: &[u8]) -> Result<i64, EngineError> {
    let mut rest = stored.get(1..).unwrap_or_default();
    fixed(&mut rest)
        .ok_or_else(|| EngineError::Codec { bytes: stored.len(), cause: "tiles are cut short".into() })
}

impl Windows {
    /// The bytes of a key: what `stored` holds of the time before `from_us`, and `events` in `range`. They are all that
    /// there are from `from_us` on, the start of a day; with `i64::MIN`, all there are. With `i64::MAX` they come on top
    /// of what is stored, whatever their time.
    pub fn store(
        &self,
        stored: Option<&[u8]>,
        from_us: i64,
        events: &Events,
        range: Range<usize>,
        kept: &Kept,
    ) -> Result<Vec<u8>, EngineError> {
        let stored = stored.filter(|_| from_us != i64::MIN).map(Stored::read).transpose()?;
        let last = range.clone().next_back().map(|event| events.visible_us[event]);
        let latest_us =
            last.into_iter().chain(stored.as_ref().map(|s| s.latest_us)).max().unwrap_or(i64::MIN);
        let (mut sizes, mut fresh_days) = (Vec::new(), Tiles::new());
        for level in &kept.levels {
            let old =
                |span_us| stored.iter().flat_map(|s| &s.sizes).find(move |size| size.span_us == span_us);
            let size = old(level.span_us);
            if stored.is_some() && size.is_none() {
                // The events that are stored are not in tiles of this size.
                continue;
            }
            let whole_life = level.span_us == DAY_US && kept.lifetime;
            let limit_us = if whole_life { i64::MIN } else { latest_us.saturating_sub(level.reach_us) };
            let cut_us = if level.span_us == ROLLUP_US { floor(from_us, ROLLUP_US) } else { from_us };
            let mut tiles: Tiles = size
                .iter()
                .flat_map(|size| size.tiles(i64::MIN, cut_us))
                .map(|(us, t)| (us, t.to_vec()))
                .collect();
            let fresh = if level.span_us == ROLLUP_US {
                // The days of the tile that is cut, then those that are new.
                let straddling = old(DAY_US).into_iter().flat_map(|days| days.tiles(cut_us, from_us));
                let new = fresh_days.iter().map(|(start_us, day)| (*start_us, &day[..]));
                let mut rollups = Tiles::new();
                straddling
                    .chain(new)
                    .try_for_each(|(us, day)| self.add(&mut rollups, floor(us, ROLLUP_US), day))?;
                rollups
            } else {
                self.tile(level, events, range.clone(), limit_us)
            };
            fresh.iter().try_for_each(|(start_us, states)| self.add(&mut tiles, *start_us, states))?;
            // Tiles that no window reaches from the latest event on.
            tiles.retain(|start_us, _| *start_us >= limit_us);
            sizes.push((level.span_us, tiles));
            if level.span_us == DAY_US {
                fresh_days = fresh;
            }
        }
        let cut_us = floor(latest_us.saturating_sub(LIFETIME_TAIL_US), DAY_US);
        let mut before = None;
        if kept.lifetime && stored.as_ref().is_none_or(|stored| stored.before.is_some()) {
            let (old_us, states) = stored.and_then(|stored| stored.before).unwrap_or((i64::MIN, &[]));
            let mut states = states.to_vec();
            for day in fresh_days.range(..old_us).map(|(_, day)| day) {
                states = self.merged(&states, day)?;
            }
            for (_, days) in sizes.iter_mut().filter(|(span_us, _)| *span_us == DAY_US) {
                for (_, day) in days.range(old_us..cut_us.max(old_us)) {
                    states = self.merged(&states, day)?;
                }
                let reach_us = kept.levels.iter().find(|l| l.span_us == DAY_US).map_or(0, |l| l.reach_us);
                days.retain(|start_us, _| *start_us >= latest_us.saturating_sub(reach_us));
            }
            before = Some((cut_us.max(old_us), states));
        }
        Ok(self.bytes(latest_us, before, &sizes))
    }

    /// Merges the states of a tile into those of the tile that starts at `start_us`.
    fn add(&self, tiles: &mut Tiles, start_us: i64, states: &[u8]) -> Result<(), EngineError> {
        let tile = tiles.entry(start_us).or_default();
        *tile = self.merged(tile, states)?;
        Ok(())
    }

    fn bytes(&self, latest_us: i64, before: Option<(i64, Vec<u8>)>, sizes: &[(i64, Tiles)]) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(latest_us.to_le_bytes());
        out.push(u8::from(before.is_some()));
        if let Some((cut_us, states)) = before {
            out.extend(cut_us.to_le_bytes());
            write_piece(&states, &mut out);
        }
        out.push(sizes.len() as u8);
        for (span_us, tiles) in sizes {
            out.extend(span_us.to_le_bytes());
            out.extend((tiles.len() as u32).to_le_bytes());
            tiles.keys().for_each(|start_us| out.extend(start_us.to_le_bytes()));
            let mut end = 0u32;
            for states in tiles.values() {
                end += states.len() as u32;
                out.extend(end.to_le_bytes());
            }
            tiles.values().for_each(|states| out.extend_from_slice(states));
        }
        out
    }

    /// Aggregates the events of `range` into tiles of one size, from the tile that holds `limit_us` on.
    fn tile(&self, level: &Level, events: &Events, range: Range<usize>, limit_us: i64) -> Tiles {
        let mut tiles = Tiles::new();
        let first = events.visible_us[range.clone()].partition_point(|us| *us < limit_us) + range.start;
        let mut at = first;
        while at < range.end {
            let start_us = floor(events.visible_us[at], level.span_us);
            let end_us = start_us.saturating_add(level.span_us);
            let end = at + events.visible_us[at..range.end].partition_point(|us| *us < end_us).max(1);
            let mut states = Vec::new();
            for accumulator in &self.accumulators {
                let input = Input::of(events, accumulator.input, self.inputs[accumulator.input].shape);
                let mut bytes = Vec::new();
                dispatch!(accumulator, S => {
                    let mut state = S::default();
                    for event in (at..end).filter(|event| input.counts(*event)) {
                        state.update(&input, event, &accumulator.params);
                    }
                    state.write(&mut bytes);
                });
                write_piece(&bytes, &mut states);
            }
            tiles.insert(start_us, states);
            at = end;
        }
        tiles
    }

    /// The states of two tiles as those of one; an empty one is no tile.
    fn merged(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>, EngineError> {
        if a.is_empty() {
            return Ok(b.to_vec());
        }
        let corrupt =
            || EngineError::Codec { bytes: a.len() + b.len(), cause: "a tile cannot be read".into() };
        let (mut a, mut b, mut out) = (a, b, Vec::new());
        for accumulator in &self.accumulators {
            let (mut mine, mut theirs) =
                (piece(&mut a).ok_or_else(corrupt)?, piece(&mut b).ok_or_else(corrupt)?);
            let mut bytes = Vec::new();
            dispatch!(accumulator, S => {
                let mut state = S::read(&mut mine).ok_or_else(corrupt)?;
                state.merge(&S::read(&mut theirs).ok_or_else(corrupt)?, &accumulator.params);
                state.write(&mut bytes);
            });
            write_piece(&bytes, &mut out);
        }
        Ok(out)
    }

    /// The features `wanted` of each key at its query time, which is not before its latest event, from a head that keeps
    /// `kept`. A key that was never stored has empty windows.
    pub fn answer(
        &self,
        stored: &[Option<&[u8]>],
        times_us: &[i64],
        wanted: &[usize],
        kept: &Kept,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let mut cells: Vec<Vec<Cell>> = wanted.iter().map(|_| Vec::with_capacity(stored.len())).collect();
        for (whole, q_us) in stored.iter().zip(times_us) {
            self.answer_one(*whole, *q_us, wanted, kept, &mut cells)?;
        }
        let columns = wanted.iter().zip(cells);
        columns.map(|(feature, cells)| column(cells, self.schema.field(*feature).data_type())).collect()
    }

    fn answer_one(
        &self,
        whole: Option<&[u8]>,
        q_us: i64,
        wanted: &[usize],
        kept: &Kept,
        cells: &mut [Vec<Cell>],
    ) -> Result<(), EngineError> {
        let corrupt = || EngineError::Codec {
            bytes: whole.map_or(0, <[u8]>::len),
            cause: "a tile cannot be read".into(),
        };
        let stored = whole.map(Stored::read).transpose()?;
        // The states of the tiles of each window that is asked for, one accumulator after another.
        let width = self.accumulators.len();
        let mut states: Vec<&[u8]> = Vec::new();
        let mut windows: Vec<Range<usize>> = vec![0..0; self.windows.len()];
        for (window, rule) in self.windows.iter().enumerate() {
            if !wanted.iter().any(|feature| self.features[*feature].window == window) {
                continue;
            }
            let start = states.len() / width;
            if let Some(stored) = &stored {
                let mut at_us = rule.start_us(q_us);
                if rule.length_us.is_none() {
                    let (cut_us, before) = stored.before.ok_or_else(corrupt)?;
                    if !before.is_empty() {
                        split(before, width, &mut states).ok_or_else(corrupt)?;
                    }
                    at_us = cut_us;
                }
                let usable = |level: &&Level| rule.uses(level);
                let mut levels = kept.levels.iter().filter(usable).peekable();
                while let Some(level) = levels.next() {
                    let end_us = levels.peek().map_or(i64::MAX, |next| ceil(at_us, next.span_us));
                    let size = stored.sizes.iter().find(|size| size.span_us == level.span_us);
                    for tile in size.map_or(0..0, |size| size.between(at_us, end_us)) {
                        let tile = size.and_then(|size| size.tile(tile));
                        tile.and_then(|tile| split(tile, width, &mut states)).ok_or_else(corrupt)?;
                    }
                    at_us = end_us;
                }
            }
            windows[window] = start..states.len() / width;
        }
        for (index, accumulator) in self.accumulators.iter().enumerate() {
            let asks = |feature: &usize| self.features[*feature].accumulator == index;
            if !wanted.iter().any(asks) {
                continue;
            }
            dispatch!(accumulator, S => {
                for (window, tiles) in windows.iter().enumerate() {
                    let mut merged: Option<S> = None;
                    for (place, feature) in wanted.iter().enumerate() {
                        let rule = &self.features[*feature];
                        if rule.accumulator != index || rule.window != window {
                            continue;
                        }
                        if merged.is_none() {
                            let mut state = S::default();
                            for tile in tiles.clone() {
                                let mut bytes = states[tile * width + index];
                                state.merge(&S::read(&mut bytes).ok_or_else(corrupt)?, &accumulator.params);
                            }
                            merged = Some(state);
                        }
                        let state = merged.as_ref().expect("it was merged just now");
                        let cell = state.finish(rule.finish, &accumulator.params);
                        cells[place].push(cell.map_err(|overflow| self.overflow(*feature, &overflow))?);
                    }
                }
            });
        }
        Ok(())
    }
}

/// The states of a tile, one after another; none where it holds fewer.
fn split<'a>(mut tile: &'a [u8], width: usize, states: &mut Vec<&'a [u8]>) -> Option<()> {
    for _ in 0..width {
        states.push(piece(&mut tile)?);
    }
    Some(())
}

fn ceil(us: i64, span_us: i64) -> i64 {
    let start_us = floor(us, span_us);
    if start_us == us { us } else { start_us.saturating_add(span_us) }
}
