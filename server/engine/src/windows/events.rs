//! Which events does each key have, in which order, and which of them are one and the same?

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};

use crate::EngineError;
use crate::address::Address;

/// Events as they were read, in any order.
#[derive(Debug)]
pub struct Chunk {
    /// The number of each event's key.
    pub keys: Vec<u32>,
    /// When it becomes visible, µs.
    pub visible_us: Vec<i64>,
    /// When the first one arrived, as in [`Rank::arrival`].
    pub first: u64,
    /// What orders events of one instant, if anything asks for it.
    pub order: Option<Order>,
    /// For each input of the view its columns.
    pub inputs: Vec<Vec<ArrayRef>>,
}

/// What orders events of one instant, and tells them apart.
#[derive(Debug)]
pub struct Order {
    /// The rank of each event.
    pub ranks: Vec<Rank>,
    /// If the source has an `event_id`: what makes an event the same as another of its key and time.
    pub identities: Option<Vec<u128>>,
}

/// How an event is ordered among those of its instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// When it was created, µs.
    pub created_us: i64,
    /// A number that orders events as they arrived.
    pub arrival: u64,
}

impl Rank {
    /// The number of the row among those that were pushed, where it was.
    pub(super) fn pushed(self) -> Option<u64> {
        let address = Address::of_order(self.arrival);
        (address.file() == Address::FILES_MAX).then(|| address.row())
    }

    /// The arrival of a row that was pushed; none where there is no such row.
    pub(super) fn of_pushed(row: u64) -> Option<u64> {
        (row < Address::ROWS_MAX).then(|| Address::new(Address::FILES_MAX, row).order())
    }
}

/// Events by key, then by the total order of time.
#[derive(Debug, Default)]
pub struct Events {
    pub(super) visible_us: Vec<i64>,
    /// If anything asks for the order of events of one instant.
    pub(super) ranks: Option<Vec<Rank>>,
    /// If a training set asks for what was known: from when on each is known, and from when on another event takes its
    /// place, µs.
    known_us: Option<Vec<Range<i64>>>,
    /// If the source has an `event_id`: what makes each the same as another.
    pub(super) identities: Option<Vec<u128>>,
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

    /// Sorts what was read and drops repetitions; gives each key's events, by the key's number. With `as_known`
    /// repetitions stay, as each was known for some time.
    pub fn sort(
        mut chunks: Vec<Chunk>,
        keys: usize,
        as_known: bool,
    ) -> Result<(Events, Vec<Range<usize>>), EngineError> {
        // Most files are in order of time. Read in their order, most keys need no sorting.
        chunks.sort_unstable_by_key(|chunk| chunk.first);
        let mut rows = ByKey::new(&joined(&mut chunks, |chunk| std::mem::take(&mut chunk.keys)), keys);
        let visible_us = joined(&mut chunks, |chunk| std::mem::take(&mut chunk.visible_us));
        let order = Order::joined(&mut chunks);
        match &order {
            None => rows.sort(|row| visible_us[row]),
            Some(Order { ranks, .. }) => rows.sort(|row| (visible_us[row], ranks[row])),
        }
        assert!(order.is_some() || !as_known, "what was known is told by the order of events");
        let mut known_us = None;
        if let Some(order) = &order {
            if as_known {
                known_us = Some(order.known_us(&rows, &visible_us));
            } else if let Some(identities) = &order.identities {
                rows = rows.distinct(&visible_us, identities);
            }
        }
        let (by, ranges) = rows.finish();
        let events = Events {
            visible_us: picked(&visible_us, &by),
            ranks: order.as_ref().map(|order| picked(&order.ranks, &by)),
            known_us,
            identities: order.and_then(|order| Some(picked(&order.identities?, &by))),
            inputs: take_inputs(chunks, &by)?,
        };
        Ok((events, ranges))
    }

    /// Whether any of `events` became known only after it became visible. Never, unless what was known is asked for.
    pub(super) fn is_known_late(&self, mut events: Range<usize>) -> bool {
        self.known_us.as_ref().is_some_and(|known_us| {
            events.any(|event| {
                let known_us = &known_us[event];
                known_us.start > self.visible_us[event] || known_us.end != i64::MAX
            })
        })
    }

    /// From when on the event is known, and from when on it is known to be another, µs.
    pub(super) fn known_us(&self, event: usize) -> Range<i64> {
        self.known_us.as_ref().map_or(i64::MIN..i64::MAX, |known_us| known_us[event].clone())
    }
}

impl Order {
    /// That of all chunks; none unless all of them have one.
    fn joined(chunks: &mut [Chunk]) -> Option<Order> {
        let orders: Option<Vec<Order>> = chunks.iter_mut().map(|chunk| chunk.order.take()).collect();
        let (mut ranks, mut identities) = (Vec::new(), Some(Vec::new()));
        for mut order in orders? {
            ranks.append(&mut order.ranks);
            identities = identities.zip(order.identities).map(|(mut all, mut more)| {
                all.append(&mut more);
                all
            });
        }
        Some(Order { ranks, identities })
    }

    /// From when on each of `rows` is known, and from when on the next one that is the same event.
    fn known_us(&self, rows: &ByKey, visible_us: &[i64]) -> Vec<Range<i64>> {
        let mut known_us = Vec::with_capacity(rows.rows.len());
        let created_us = |row: u32| self.ranks[row as usize].created_us;
        let mut repetitions = Repetitions::default();
        for instant in rows.ranges().flat_map(|range| instants(&rows.rows[range], visible_us)) {
            match &self.identities {
                None => known_us.extend(instant.iter().map(|row| created_us(*row)..i64::MAX)),
                Some(identities) => {
                    let again = repetitions.find(instant, identities).iter();
                    let until_us = again.map(|again| again.map_or(i64::MAX, created_us));
                    known_us.extend(instant.iter().zip(until_us).map(|(row, us)| created_us(*row)..us));
                }
            }
        }
        known_us
    }
}

/// The sorted rows of a key in groups of one time.
fn instants<'a>(rows: &'a [u32], visible_us: &'a [i64]) -> impl Iterator<Item = &'a [u32]> {
    rows.chunk_by(|a, b| visible_us[*a as usize] == visible_us[*b as usize])
}

/// Finds rows that are one event. Kept from one instant to the next: most are of one row or two.
#[derive(Default)]
struct Repetitions {
    by_identity: Vec<(u128, u32)>,
    again: Vec<Option<u32>>,
}

impl Repetitions {
    /// For each of `rows`, which are of one key and instant, the next one that is the same event.
    fn find(&mut self, rows: &[u32], identities: &[u128]) -> &[Option<u32>] {
        self.again.clear();
        self.again.resize(rows.len(), None);
        if rows.len() > 1 {
            self.by_identity.clear();
            self.by_identity.extend(rows.iter().zip(0..).map(|(row, i)| (identities[*row as usize], i)));
            // Any instant may hold very many.
            self.by_identity.sort_unstable();
            for two in self.by_identity.windows(2) {
                if two[0].0 == two[1].0 {
                    self.again[two[0].1 as usize] = Some(rows[two[1].1 as usize]);
                }
            }
        }
        &self.again
    }
}

/// Rows by key.
struct ByKey {
    rows: Vec<u32>,
    /// Where the rows of each key end.
    ends: Vec<usize>,
}

impl ByKey {
    /// Groups rows by the number of their key, in their order.
    fn new(keys_of_rows: &[u32], keys: usize) -> ByKey {
        // Where the next row of each key goes; once all have gone there, where the key ends.
        let mut next = vec![0; keys];
        keys_of_rows.iter().for_each(|key| next[*key as usize] += 1);
        let mut before = 0;
        for next in &mut next {
            before += std::mem::replace(next, before);
        }
        let mut rows = vec![0; keys_of_rows.len()];
        for (row, key) in keys_of_rows.iter().enumerate() {
            rows[next[*key as usize]] = row as u32;
            next[*key as usize] += 1;
        }
        ByKey { rows, ends: next }
    }

    /// Sorts the rows of each key.
    fn sort<T: Ord>(&mut self, place: impl Fn(usize) -> T) {
        let mut start = 0;
        for end in &self.ends {
            let rows = &mut self.rows[start..*end];
            if !rows.is_sorted_by_key(|row| place(*row as usize)) {
                rows.sort_unstable_by_key(|row| place(*row as usize));
            }
            start = *end;
        }
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| start..*end)
    }

    /// Of rows that are the same event, the last.
    fn distinct(&self, visible_us: &[i64], identities: &[u128]) -> ByKey {
        let mut distinct = ByKey { rows: Vec::with_capacity(self.rows.len()), ends: Vec::new() };
        let mut repetitions = Repetitions::default();
        for range in self.ranges() {
            for instant in instants(&self.rows[range], visible_us) {
                let again = repetitions.find(instant, identities);
                let last = instant.iter().zip(again).filter(|(_, again)| again.is_none());
                distinct.rows.extend(last.map(|(row, _)| *row));
            }
            distinct.ends.push(distinct.rows.len());
        }
        distinct
    }

    /// All rows, and those of each key among them.
    fn finish(self) -> (UInt32Array, Vec<Range<usize>>) {
        let ranges = self.ranges().collect();
        (UInt32Array::from(self.rows), ranges)
    }
}

fn joined<T>(chunks: &mut [Chunk], mut part: impl FnMut(&mut Chunk) -> Vec<T>) -> Vec<T> {
    let mut all = Vec::new();
    for chunk in chunks {
        all.append(&mut part(chunk));
    }
    all
}

fn picked<T: Copy>(values: &[T], by: &UInt32Array) -> Vec<T> {
    by.values().iter().map(|row| values[*row as usize]).collect()
}

/// The columns of each input, row by row as in `by`. Each column of the chunks is dropped before the next is taken.
fn take_inputs(chunks: Vec<Chunk>, by: &UInt32Array) -> Result<Vec<Vec<ArrayRef>>, EngineError> {
    let Some(first) = chunks.first() else { return Ok(Vec::new()) };
    let widths: Vec<usize> = first.inputs.iter().map(Vec::len).collect();
    let mut rest: Vec<_> = chunks.into_iter().map(|chunk| chunk.inputs.into_iter().flatten()).collect();
    let mut taken = || -> Result<ArrayRef, EngineError> {
        let pieces: Vec<ArrayRef> = rest.iter_mut().filter_map(Iterator::next).collect();
        let whole = concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        drop(pieces);
        Ok(take(&whole, by, None)?)
    };
    widths.into_iter().map(|width| (0..width).map(|_| taken()).collect()).collect()
}
