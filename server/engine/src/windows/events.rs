//! Which events does each key have, in which order, and which of them are one and the same?

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};

use super::sweep::Group;
use crate::EngineError;

/// Events as they were read, in any order.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The number of each event's key.
    pub keys: Vec<u32>,
    /// When it becomes visible, µs.
    pub visible_us: Vec<i64>,
    /// When it was created, µs; empty where nothing asks for it.
    pub created_us: Vec<i64>,
    /// Place of the first one in the order of arrival.
    pub first: u64,
    /// Its place in the order of arrival; empty like `created_us`.
    pub arrival: Vec<u64>,
    /// What makes it the same event as another of its key and time; empty where events have no identity.
    pub identity: Vec<u128>,
    /// For each input of the view its columns.
    pub inputs: Vec<Vec<ArrayRef>>,
}

/// Events by key, then by the total order of time.
#[derive(Debug, Default)]
pub struct Events {
    pub(super) visible_us: Vec<i64>,
    pub(super) created_us: Vec<i64>,
    pub(super) arrival: Vec<u64>,
    /// Where a training set asks for what was known: from when on another event takes the place of each, µs.
    known_until_us: Vec<i64>,
    pub(super) inputs: Vec<Vec<ArrayRef>>,
}

impl Events {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.visible_us.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.visible_us.is_empty()
    }

    /// Sorts what was read and drops repetitions; gives each key's events, by the key's number.
    pub fn sort(
        mut chunks: Vec<Chunk>,
        keys: usize,
        as_known: bool,
    ) -> Result<(Events, Vec<std::ops::Range<usize>>), EngineError> {
        // Most files are in order of time. Read in their order, most keys need no sorting.
        chunks.sort_unstable_by_key(|chunk| chunk.first);
        let Some(inputs) = chunks.first().map(|chunk| chunk.inputs.iter().map(Vec::len).collect::<Vec<_>>())
        else {
            return Ok((Events::default(), vec![0..0; keys]));
        };
        let key = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.keys));
        let visible_us = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.visible_us));
        let created_us = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.created_us));
        let arrival = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.arrival));
        let identity = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.identity));

        let mut starts = vec![0usize; keys + 1];
        key.iter().for_each(|key| starts[*key as usize + 1] += 1);
        for id in 0..keys {
            starts[id + 1] += starts[id];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; key.len()];
        for (row, key) in key.iter().enumerate() {
            order[next[*key as usize]] = row as u32;
            next[*key as usize] += 1;
        }
        let place = |row: u32| {
            let row = row as usize;
            (
                visible_us[row],
                created_us.get(row).copied().unwrap_or(0),
                arrival.get(row).copied().unwrap_or(0),
            )
        };
        let mut known_until_us = Vec::new();
        let mut kept: Vec<u32> = Vec::with_capacity(if identity.is_empty() { 0 } else { order.len() });
        let mut ranges = Vec::with_capacity(keys);
        for id in 0..keys {
            let rows = &mut order[starts[id]..starts[id + 1]];
            if !rows.is_sorted_by_key(|row| place(*row)) {
                rows.sort_unstable_by_key(|row| place(*row));
            }
            if identity.is_empty() {
                ranges.push(starts[id]..starts[id + 1]);
                continue;
            }
            let start = kept.len();
            for same in rows.chunk_by(|a, b| visible_us[*a as usize] == visible_us[*b as usize]) {
                for (i, row) in same.iter().enumerate() {
                    let is_it = |other: &&u32| identity[**other as usize] == identity[*row as usize];
                    let next = same[i + 1..].iter().find(is_it);
                    match next {
                        Some(_) if !as_known => {}
                        next => {
                            kept.push(*row);
                            known_until_us.push(next.map_or(i64::MAX, |next| created_us[*next as usize]));
                        }
                    }
                }
            }
            ranges.push(start..kept.len());
        }
        let order = if identity.is_empty() { order } else { kept };
        let by = UInt32Array::from(order);
        let picked = |values: Vec<i64>| {
            by.values().iter().filter_map(|row| values.get(*row as usize).copied()).collect()
        };
        let mut columns = Vec::new();
        for (i, count) in inputs.iter().enumerate() {
            let mut arrays = Vec::new();
            for j in 0..*count {
                let pieces: Vec<ArrayRef> = chunks.iter().map(|chunk| chunk.inputs[i][j].clone()).collect();
                chunks.iter_mut().for_each(|chunk| {
                    chunk.inputs[i][j] = super::value::nothing(&arrow::datatypes::DataType::Null, 0)
                });
                let whole = concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
                drop(pieces);
                arrays.push(take(&whole, &by, None)?);
            }
            columns.push(arrays);
        }
        let arrival = by.values().iter().filter_map(|row| arrival.get(*row as usize).copied()).collect();
        let events = Events {
            visible_us: picked(visible_us),
            created_us: picked(created_us),
            arrival,
            known_until_us: if as_known { known_until_us } else { Vec::new() },
            inputs: columns,
        };
        let mut events = events;
        if as_known && events.known_until_us.is_empty() {
            events.known_until_us = vec![i64::MAX; events.len()];
        }
        Ok((events, ranges))
    }

    /// Whether the group has events that became known only after they became visible. Never, unless what was known
    /// is asked for.
    pub(super) fn is_known_late(&self, group: &Group) -> bool {
        !self.known_until_us.is_empty()
            && group.events.clone().any(|event| {
                self.created_us[event] > self.visible_us[event] || self.known_until_us[event] != i64::MAX
            })
    }

    pub(super) fn is_known(&self, event: usize, q_us: i64) -> bool {
        self.created_us[event] <= q_us && q_us < self.known_until_us[event]
    }
}

fn joined<T>(chunks: &mut [Chunk], mut part: impl FnMut(&mut Chunk) -> Vec<T>) -> Vec<T> {
    let mut all = Vec::new();
    for chunk in chunks {
        all.append(&mut part(chunk));
    }
    all
}
