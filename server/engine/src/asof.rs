//! Given entities and moments: which row of history was the latest one then?
//!
//! The view's rows stream past the spine, not the other way round. The spine is sorted by key and query time; a row
//! that becomes visible at `v` is offered to the first spine row of its key that sees it, which keeps the latest it was
//! offered. When all rows have passed, each spine row takes over what its predecessor of the same key kept, if that is
//! later. So the memory is that of the spine, however long history is, and rows may come in any order and from any
//! number of threads.

use std::ops::RangeInclusive;

use feature_defs::At;
use hashbrown::HashTable;

pub use crate::address::Address;
use crate::key::Keys;
use crate::time::{RowState, last_us, state_at, visible_from};
use crate::view::Stamps;

/// A row by its place in the total order: event timestamp, created timestamp, arrival. The derived order is that
/// order, and [`Stamp::NONE`] is before every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Event timestamp, µs.
    pub ts_us: i64,
    /// Created timestamp, µs.
    pub created_us: i64,
    arrival: u64,
}

impl Stamp {
    /// No row.
    pub const NONE: Stamp = Stamp { ts_us: i64::MIN, created_us: i64::MIN, arrival: 0 };

    /// The row at `address`.
    pub fn new(ts_us: i64, created_us: i64, address: Address) -> Stamp {
        Stamp { ts_us, created_us, arrival: address.order() + 1 }
    }

    /// Where the row lies; none for [`Stamp::NONE`].
    pub fn address(self) -> Option<Address> {
        self.arrival.checked_sub(1).map(Address::of_order)
    }
}

/// Distinct keys, numbered in the order they were met.
#[derive(Default)]
pub struct KeyTable {
    table: HashTable<Entry>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    hasher: foldhash::fast::FixedState,
}

/// A key's number and its first bytes. Most keys are no longer than that and are compared in place: looking at the
/// bytes of each would miss the cache twice, and did so for a third of a large join's time.
struct Entry {
    id: u32,
    /// Length of the key, `u8::MAX` for all longer ones.
    length: u8,
    head: [u8; Entry::HEAD],
}

impl Entry {
    const HEAD: usize = 11;

    fn new(id: u32, key: &[u8]) -> Entry {
        let mut head = [0; Self::HEAD];
        let length = key.len().min(Self::HEAD);
        head[..length].copy_from_slice(&key[..length]);
        Entry { id, length: key.len().min(usize::from(u8::MAX)) as u8, head }
    }

    /// The key, where its first bytes are all of it.
    fn whole(&self) -> Option<&[u8]> {
        self.head.get(..usize::from(self.length))
    }
}

impl KeyTable {
    /// None, with room for so many.
    pub fn with_capacity(keys: usize) -> KeyTable {
        let (table, ends) = (HashTable::with_capacity(keys), Vec::with_capacity(keys));
        KeyTable { table, ends, ..KeyTable::default() }
    }

    /// How many distinct keys there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of the key with number `id`.
    pub fn key(&self, id: u32) -> &[u8] {
        bytes_of(&self.bytes, &self.ends, id)
    }

    /// The number of `key`, where it is known.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.find_hashed(hash(&self.hasher, key), key)
    }

    fn find_hashed(&self, hash_of_key: u64, key: &[u8]) -> Option<u32> {
        let wanted = Entry::new(0, key);
        let is_it = |entry: &Entry| {
            entry.length == wanted.length
                && entry.head == wanted.head
                && (wanted.whole().is_some() || self.key(entry.id) == key)
        };
        self.table.find(hash_of_key, is_it).map(|entry| entry.id)
    }

    /// Forgets all keys, and keeps the room that they took.
    pub fn clear(&mut self) {
        self.table.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    /// About how many bytes the keys take.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.len() * (size_of::<usize>() + 2 * size_of::<Entry>())
    }

    /// The number of `key`, new or known.
    pub fn intern(&mut self, key: &[u8]) -> u32 {
        let hash_of_key = hash(&self.hasher, key);
        if let Some(id) = self.find_hashed(hash_of_key, key) {
            return id;
        }
        let id = u32::try_from(self.ends.len()).expect("more than 4 billion distinct keys in one pass");
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.table.insert_unique(hash_of_key, Entry::new(id, key), |entry| match entry.whole() {
            Some(key) => hash(hasher, key),
            None => hash(hasher, bytes_of(bytes, ends, entry.id)),
        });
        id
    }
}

fn bytes_of<'a>(bytes: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let start = if id == 0 { 0 } else { ends[id as usize - 1] };
    &bytes[start..ends[id as usize]]
}

fn hash(state: &foldhash::fast::FixedState, key: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = state.build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// Spreads keys evenly, the same in every run.
pub fn hash_of(key: &[u8]) -> u64 {
    hash(&foldhash::fast::FixedState::with_seed(1), key)
}

/// How one view's rows are matched.
#[derive(Debug, Clone, Copy)]
pub struct TimeRule {
    /// A row is visible this long after its event timestamp, µs.
    pub lag_us: i64,
    /// A row counts this long after it became visible, µs.
    pub ttl_us: Option<i64>,
    /// Whether a row counts at the very time at which it becomes visible.
    pub at: At,
    /// Rows created after the query time are invisible.
    pub as_known: bool,
}

/// Keys and query times, sorted by key, then time.
pub struct Spine {
    /// The distinct keys.
    pub keys: KeyTable,
    /// `times[starts[id]..starts[id + 1]]` are the query times of key `id`, ascending.
    pub starts: Vec<u32>,
    /// The query times, µs.
    pub times: Vec<i64>,
    /// The spine row of each place in `times`.
    pub rows: Vec<u32>,
}

impl Spine {
    /// A spine of `keys` and query times (µs), row by row. At most `u32::MAX` rows.
    pub fn new(keys: &Keys, query_times_us: &[i64]) -> Spine {
        assert_eq!(keys.len(), query_times_us.len(), "one query time for each key");
        let mut table = KeyTable::default();
        let mut places: Vec<(u32, i64, u32)> = Vec::with_capacity(keys.len());
        for (row, q_us) in query_times_us.iter().enumerate() {
            if let Some(key) = keys.get(row) {
                places.push((table.intern(key), *q_us, row as u32));
            }
        }
        places.sort_unstable();
        let mut starts = vec![0u32; table.len() + 1];
        for (id, _, _) in &places {
            starts[*id as usize + 1] += 1;
        }
        for id in 0..table.len() {
            starts[id + 1] += starts[id];
        }
        Spine {
            keys: table,
            starts,
            times: places.iter().map(|p| p.1).collect(),
            rows: places.iter().map(|p| p.2).collect(),
        }
    }

    /// The places of key `id`.
    pub fn places(&self, id: u32) -> std::ops::Range<usize> {
        self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize
    }
}

/// A spine that rows stream past.
pub struct AsOf {
    rule: TimeRule,
    spine: Spine,
    best: Vec<Stamp>,
    spine_len: usize,
}

/// What the spine rows found, in the spine's order.
pub struct Matches {
    /// The latest visible row.
    pub stamps: Vec<Stamp>,
    /// Whether it counts.
    pub states: Vec<RowState>,
}

impl AsOf {
    /// A spine of `keys` and query times (µs), row by row. At most `u32::MAX` rows.
    pub fn new(keys: &Keys, query_times_us: &[i64], rule: TimeRule) -> AsOf {
        let spine = Spine::new(keys, query_times_us);
        AsOf { rule, best: vec![Stamp::NONE; spine.times.len()], spine, spine_len: keys.len() }
    }

    /// The latest event timestamp that any spine row can see, µs; none for an empty spine.
    pub fn last_visible_us(&self) -> Option<i64> {
        let q_us = self.spine.times.iter().max()?;
        Some(last_us(*q_us, self.rule.at).saturating_sub(self.rule.lag_us))
    }

    /// The earliest event timestamp that can count for any spine row, µs; none where every row counts. An older row
    /// could only be found expired: its values are null either way.
    pub fn first_counting_us(&self) -> Option<i64> {
        let ttl_us = self.rule.ttl_us?;
        self.spine.times.iter().min().map(|q_us| q_us.saturating_sub(ttl_us).saturating_sub(self.rule.lag_us))
    }

    /// Which spine places these rows are offered to. Reads only, so that threads can share it.
    pub fn candidates(&self, stamps: &Stamps, address: impl Fn(usize) -> Address) -> Vec<(u32, Stamp)> {
        let mut found = Vec::new();
        for row in stamps.kept() {
            let Some(id) = stamps.keys.get(row).and_then(|key| self.spine.keys.find(key)) else { continue };
            let (ts_us, created_us) = (stamps.times_us[row], stamps.created_us[row]);
            let mut visible_us = visible_from(ts_us, self.rule.lag_us);
            if self.rule.as_known {
                visible_us = visible_us.max(created_us);
            }
            let (start, end) = (self.spine.starts[id as usize], self.spine.starts[id as usize + 1]);
            let times = &self.spine.times[start as usize..end as usize];
            let place =
                start + times.partition_point(|q_us| last_us(*q_us, self.rule.at) < visible_us) as u32;
            if place < end {
                found.push((place, Stamp::new(ts_us, created_us, address(row))));
            }
        }
        found
    }

    /// Offers rows to the places that [`AsOf::candidates`] named.
    pub fn offer(&mut self, candidates: &[(u32, Stamp)]) {
        for (place, stamp) in candidates {
            let best = &mut self.best[*place as usize];
            *best = (*best).max(*stamp);
        }
    }

    /// All rows have passed: what did each spine row find?
    pub fn finish(mut self) -> Matches {
        let mut stamps = vec![Stamp::NONE; self.spine_len];
        let mut states = vec![RowState::NotFound; self.spine_len];
        for id in 0..self.spine.keys.len() {
            let mut latest = Stamp::NONE;
            for place in self.spine.places(id as u32) {
                latest = latest.max(self.best[place]);
                self.best[place] = latest;
                let spine_row = self.spine.rows[place] as usize;
                stamps[spine_row] = latest;
                if latest != Stamp::NONE {
                    states[spine_row] =
                        state_at(self.spine.times[place], latest.ts_us, self.rule.lag_us, self.rule.ttl_us);
                }
            }
        }
        Matches { stamps, states }
    }
}

/// The latest row of every key among those that became visible in a stretch of time: what the head is made of.
pub struct Latest {
    keys: KeyTable,
    best: Vec<Stamp>,
    visible_us: RangeInclusive<i64>,
    lag_us: i64,
}

impl Latest {
    /// Nothing yet; rows count that become visible within `visible_us`.
    pub fn new(visible_us: RangeInclusive<i64>, lag_us: i64) -> Latest {
        Latest { keys: KeyTable::default(), best: Vec::new(), visible_us, lag_us }
    }

    /// The same, with room for so many keys.
    #[must_use]
    pub fn with_capacity(self, keys: usize) -> Latest {
        Latest { keys: KeyTable::with_capacity(keys), best: Vec::with_capacity(keys), ..self }
    }

    /// Offers rows; later ones replace earlier ones of the same key.
    pub fn offer(&mut self, stamps: &Stamps, address: impl Fn(usize) -> Address) {
        for row in stamps.kept() {
            let Some(key) = stamps.keys.get(row) else { continue };
            let ts_us = stamps.times_us[row];
            if !self.visible_us.contains(&visible_from(ts_us, self.lag_us)) {
                continue;
            }
            self.offer_one(key, Stamp::new(ts_us, stamps.created_us[row], address(row)));
        }
    }

    /// Offers a row that is known to count.
    pub fn offer_one(&mut self, key: &[u8], stamp: Stamp) {
        let id = self.keys.intern(key) as usize;
        if id == self.best.len() {
            self.best.push(Stamp::NONE);
        }
        self.best[id] = self.best[id].max(stamp);
    }

    /// Forgets all rows, and keeps the room that they took.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.best.clear();
    }

    /// About how many bytes the keys and their rows take.
    pub fn size(&self) -> usize {
        self.keys.size() + self.best.len() * size_of::<Stamp>()
    }

    /// Each key, with its latest row.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Stamp)> {
        self.best.iter().enumerate().map(|(id, stamp)| (self.key(id as u32), *stamp))
    }

    /// The latest row of each key, by the key's number.
    pub fn stamps(&self) -> &[Stamp] {
        &self.best
    }

    /// The bytes of the key with number `id`.
    pub fn key(&self, id: u32) -> &[u8] {
        self.keys.key(id)
    }
}
