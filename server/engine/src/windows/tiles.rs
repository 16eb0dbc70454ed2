//! Which bytes hold an entity's windows in the head?
//!
//! Events are aggregated into tiles: stretches of 5 minutes, an hour, a day, eight days (and single instants, for
//! windows with `hop: exact`). A window is read as a few tiles: small ones from its left end to the next hour, larger
//! ones to the next day, and so on to the latest event. Of each size only what a window can still reach is kept,
//! counted from the key's latest event. A tile of eight days is made of days; all others of events.
//!
//! Version 2, numbers little-endian, `n` a LEB128 number, `piece` bytes behind their length:
//!
//! ```text
//! u8 version = 2 | i64 latest visible event µs | u8 has before [i64 cut µs | piece states]
//! | u8 sizes | for each: i64 span µs | u32 tiles | i64 start of each | u32 end of each | states of each
//! ```
//!
//! The states of a tile are a piece for each accumulator. `before` is there for lifetime windows: everything before
//! the cut, a day's start.

use std::collections::BTreeMap;
use std::ops::Range;

use super::aggregate::{Input, dispatch};
use super::bytes::{fixed, piece, write_piece};
use super::events::Events;
use super::plan::Windows;
use super::window::{DAY_US, Kept, LIFETIME_TAIL_US, Level, ROLLUP_US, floor};
use crate::EngineError;

const VERSION: u8 = 2;

type Tiles = BTreeMap<i64, Vec<u8>>;

/// What is stored of one key, taken apart.
pub(super) struct Stored<'a> {
    latest_us: i64,
    pub(super) before: Option<(i64, &'a [u8])>,
    pub(super) sizes: Vec<Size<'a>>,
}

pub(super) struct Size<'a> {
    pub(super) span_us: i64,
    starts: &'a [[u8; 8]],
    ends: &'a [[u8; 4]],
    states: &'a [u8],
}

impl<'a> Size<'a> {
    fn start_us(&self, tile: usize) -> i64 {
        i64::from_le_bytes(self.starts[tile])
    }

    pub(super) fn tile(&self, tile: usize) -> Option<&'a [u8]> {
        let end = |tile: usize| u32::from_le_bytes(self.ends[tile]) as usize;
        self.states.get(if tile == 0 { 0 } else { end(tile - 1) }..end(tile))
    }

    /// The tiles that start within `from..to`: when, and their states.
    fn tiles(&self, from_us: i64, to_us: i64) -> impl Iterator<Item = (i64, &'a [u8])> {
        self.between(from_us, to_us).map(|tile| (self.start_us(tile), self.tile(tile).unwrap_or_default()))
    }

    /// The tiles that start within `from..to`.
    pub(super) fn between(&self, from_us: i64, to_us: i64) -> Range<usize> {
        let at = |us: i64| self.starts.partition_point(|start| i64::from_le_bytes(*start) < us);
        at(from_us)..at(to_us)
    }
}

impl<'a> Stored<'a> {
    pub(super) fn read(whole: &'a [u8]) -> Result<Stored<'a>, EngineError> {
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
    /// The bytes of a key: what `stored` holds of the time before `from_us`, and `events` in `range`. They are all
    /// that there are from `from_us` on, the start of a day; with `i64::MIN`, all there are. With `i64::MAX` they come
    /// on top of what is stored, whatever their time.
    pub fn store(
        &self,
        stored: Option<&[u8]>,
        from_us: i64,
        events: &Events,
        range: Range<usize>,
        kept: &Kept,
    ) -> Result<Vec<u8>, EngineError> {
        let stored = stored.filter(|_| from_us != i64::MIN).map(Stored::read).transpose()?;
        let last_us = range.clone().next_back().map(|event| events.visible_us[event]);
        let latest_us = last_us.into_iter().chain(stored.as_ref().map(|stored| stored.latest_us)).max();
        let renewed = Renewed { plan: self, stored, from_us, latest_us: latest_us.unwrap_or(i64::MIN), kept };
        let (mut sizes, mut fresh_days) = (Vec::new(), Tiles::new());
        for level in kept.levels.iter().filter(|level| renewed.has(level)) {
            let fresh = match level.span_us {
                ROLLUP_US => renewed.rollups(&fresh_days)?,
                _ => self.tile(level, events, range.clone(), renewed.limit_us(level)),
            };
            sizes.push((level.span_us, renewed.tiles(level, &fresh)?));
            if level.span_us == DAY_US {
                fresh_days = fresh;
            }
        }
        let before = renewed.before(&fresh_days, &mut sizes)?;
        Ok(bytes(renewed.latest_us, before, &sizes))
    }

    /// Merges the states of a tile into those of the tile that starts at `start_us`.
    fn add(&self, tiles: &mut Tiles, start_us: i64, states: &[u8]) -> Result<(), EngineError> {
        let tile = tiles.entry(start_us).or_default();
        *tile = self.merged(tile, states)?;
        Ok(())
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
}

/// A key that gets new events: what was stored of it stays up to `from_us`.
struct Renewed<'a> {
    plan: &'a Windows,
    stored: Option<Stored<'a>>,
    from_us: i64,
    latest_us: i64,
    kept: &'a Kept,
}

impl<'a> Renewed<'a> {
    /// Whether the key has tiles of this size: the events that are stored may not be in any.
    fn has(&self, level: &Level) -> bool {
        self.stored.is_none() || self.size(level.span_us).is_some()
    }

    fn size(&self, span_us: i64) -> Option<&Size<'a>> {
        self.stored.as_ref()?.sizes.iter().find(|size| size.span_us == span_us)
    }

    /// Which tiles are kept: those from here on.
    fn limit_us(&self, level: &Level) -> i64 {
        match level.span_us == DAY_US && self.kept.lifetime {
            // All days, until they are merged into what lies before.
            true => i64::MIN,
            false => self.latest_us.saturating_sub(level.reach_us),
        }
    }

    /// Tiles made of days: of those of the tile that is cut, and of those that are new.
    fn rollups(&self, fresh_days: &Tiles) -> Result<Tiles, EngineError> {
        let cut_us = floor(self.from_us, ROLLUP_US);
        let straddling = self.size(DAY_US).into_iter().flat_map(|days| days.tiles(cut_us, self.from_us));
        let fresh = fresh_days.iter().map(|(start_us, day)| (*start_us, &day[..]));
        let mut rollups = Tiles::new();
        for (start_us, day) in straddling.chain(fresh) {
            self.plan.add(&mut rollups, floor(start_us, ROLLUP_US), day)?;
        }
        Ok(rollups)
    }

    /// The stored tiles of this size that stay, and `fresh` ones.
    fn tiles(&self, level: &Level, fresh: &Tiles) -> Result<Tiles, EngineError> {
        let cut_us = if level.span_us == ROLLUP_US { floor(self.from_us, ROLLUP_US) } else { self.from_us };
        let stored = self.size(level.span_us).into_iter().flat_map(|size| size.tiles(i64::MIN, cut_us));
        let mut tiles: Tiles = stored.map(|(start_us, states)| (start_us, states.to_vec())).collect();
        for (start_us, states) in fresh {
            self.plan.add(&mut tiles, *start_us, states)?;
        }
        // Tiles that no window reaches from the latest event on.
        let limit_us = self.limit_us(level);
        tiles.retain(|start_us, _| *start_us >= limit_us);
        Ok(tiles)
    }

    /// For lifetime windows: merges the days before the tail into one state, and takes those that no other window
    /// reaches out of `sizes`. None where what was stored has no such state.
    fn before(
        &self,
        fresh_days: &Tiles,
        sizes: &mut [(i64, Tiles)],
    ) -> Result<Option<(i64, Vec<u8>)>, EngineError> {
        let stored = self.stored.as_ref();
        if !self.kept.lifetime || stored.is_some_and(|stored| stored.before.is_none()) {
            return Ok(None);
        }
        let (old_us, states) = stored.and_then(|stored| stored.before).unwrap_or((i64::MIN, &[]));
        let cut_us = floor(self.latest_us.saturating_sub(LIFETIME_TAIL_US), DAY_US).max(old_us);
        let mut states = states.to_vec();
        for day in fresh_days.range(..old_us).map(|(_, day)| day) {
            states = self.plan.merged(&states, day)?;
        }
        for (_, days) in sizes.iter_mut().filter(|(span_us, _)| *span_us == DAY_US) {
            for (_, day) in days.range(old_us..cut_us) {
                states = self.plan.merged(&states, day)?;
            }
            let level = self.kept.levels.iter().find(|level| level.span_us == DAY_US);
            let reach_us = level.map_or(0, |level| level.reach_us);
            days.retain(|start_us, _| *start_us >= self.latest_us.saturating_sub(reach_us));
        }
        Ok(Some((cut_us, states)))
    }
}

fn bytes(latest_us: i64, before: Option<(i64, Vec<u8>)>, sizes: &[(i64, Tiles)]) -> Vec<u8> {
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

/// The states of a tile, one after another; none where it holds fewer.
pub(super) fn split<'a>(mut tile: &'a [u8], width: usize, states: &mut Vec<&'a [u8]>) -> Option<()> {
    for _ in 0..width {
        states.push(piece(&mut tile)?);
    }
    Some(())
}
