//! What happened to these keys within their windows? Events of history, gathered by key, for training and for the head.
//!
//! Events are read once and handed to buckets by their key. A bucket is then sorted and answered by one thread. Where
//! all events together would take too much memory, views take turns, and the buckets of a view that is too large alone;
//! history is read once for each turn.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_engine::asof::{Address, KeyTable, Spine};
use quern_engine::key::Keys;
use quern_engine::time::visible_from;
use quern_engine::windows::{Chunk, Events, Group, Kept, Order, Rank, Windows, latest_us};
use quern_engine::{Found, Lookup, RowState, Stamps, ViewPlan};

use crate::Quern;
use crate::error::{Error, Result};
use crate::point_in_time::{Answer, Question, Reader, for_each, places, read_once};
use crate::store::history::{PUSHED, Scan};
use crate::store::online::Stored;
use crate::store::rocks::{Rows, Upserted, Wanted};

/// Buckets that events are handed to.
const BUCKETS: usize = 64;
/// How much the events of one turn may take, by estimate.
const TURN_BYTES: u64 = 1 << 30;

/// Where an event goes: its bucket, and the number of its key there.
type Route = (usize, u32);

/// How the events of a view are read.
struct Gathering<'a> {
    scan: &'a Scan,
    view: &'a ViewPlan,
    windows: &'a Windows,
    /// Inputs that are needed.
    needed: Vec<bool>,
    /// Whether created timestamps and arrival are.
    ordered: bool,
    columns: Vec<String>,
    /// The places of the columns that inputs are computed from.
    row_places: Vec<usize>,
    units: Vec<usize>,
}

impl<'a> Gathering<'a> {
    /// Gathers what the features `wanted` need of the events visible within `visible_us`.
    fn new(
        scan: &'a Scan,
        view: &'a ViewPlan,
        windows: &'a Windows,
        needed: Vec<bool>,
        visible_us: (i64, i64),
    ) -> Gathering<'a> {
        let mut columns = view.stamp_columns().to_vec();
        let row_places = places(&mut columns, view.row_columns());
        let units = (0..scan.units.len()).filter(|unit| {
            let Some((min_us, max_us)) = scan.units[*unit].times else { return true };
            visible_from(min_us, view.lag_us) <= visible_us.1
                && visible_from(max_us, view.lag_us) >= visible_us.0
        });
        let units = units.collect();
        let ordered = windows.needs_order(false);
        Gathering { scan, view, windows, needed, ordered, columns, row_places, units }
    }

    /// How much memory the events take, by estimate.
    fn bytes(&self) -> u64 {
        let rows: u64 = self.units.iter().map(|unit| self.scan.units[*unit].rows).sum();
        let columns = self.needed.iter().filter(|needed| **needed).count() as u64;
        // Each event is held twice while a bucket is sorted.
        let row_bytes = 2 * (12 + 9 * columns + if self.ordered { 32 } else { 0 });
        rows * row_bytes
    }

    /// Reads all events and hands each to the bucket that `route` names.
    fn read(
        &self,
        buckets: &[Mutex<Vec<Chunk>>],
        route: impl Fn(&Stamps, usize, i64, u32) -> Option<Route> + Sync,
        seen: &(impl Fn(&Stamps, usize) + Sync),
    ) -> Result<()> {
        read_once(self.scan, &[self.reader(buckets, route, seen)])
    }

    /// The same beside others who read the source.
    fn reader<'r>(
        &'r self,
        buckets: &'r [Mutex<Vec<Chunk>>],
        route: impl Fn(&Stamps, usize, i64, u32) -> Option<Route> + Sync + 'r,
        seen: &'r (impl Fn(&Stamps, usize) + Sync),
    ) -> Reader<'r> {
        let visit = move |rows: &RecordBatch, first: Address| -> Result<()> {
            let stamps = self.view.stamps(rows)?;
            seen(&stamps, rows.num_rows());
            let address = |row: u32| first.plus(row as usize).order();
            let route = |stamps: &Stamps, row: usize, us: i64| route(stamps, row, us, first.file());
            self.hand_out(rows, &stamps, address, &route, buckets)
        };
        Reader { columns: &self.columns, units: &self.units, visit: Box::new(visit) }
    }

    fn hand_out(
        &self,
        rows: &RecordBatch,
        stamps: &Stamps,
        address: impl Fn(u32) -> u64,
        route: &impl Fn(&Stamps, usize, i64) -> Option<Route>,
        buckets: &[Mutex<Vec<Chunk>>],
    ) -> Result<()> {
        let visible_us = |row: usize| visible_from(stamps.times_us[row], self.view.lag_us);
        let routed = stamps.kept().filter_map(|row| Some((row as u32, route(stamps, row, visible_us(row))?)));
        let (ends, routed) = by_bucket(routed.collect());
        if routed.is_empty() {
            return Ok(());
        }
        let picked = UInt32Array::from_iter_values(routed.iter().map(|(row, _)| *row));
        let rows = take_record_batch(&rows.project(&self.row_places)?, &picked)?;
        let inputs = self.windows.prepare(&rows, &self.needed)?;
        let identities = self.windows.identities(&rows)?;
        let mut start = 0;
        for (bucket, end) in ends.into_iter().enumerate() {
            let part = &routed[start..end];
            if part.is_empty() {
                continue;
            }
            let rank = |(row, _): &(u32, u32)| Rank {
                created_us: stamps.created_us[*row as usize],
                arrival: address(*row),
            };
            let order = self.ordered.then(|| Order {
                ranks: part.iter().map(rank).collect(),
                identities: identities.as_ref().map(|identities| identities[start..end].to_vec()),
            });
            let slice = |column: &ArrayRef| column.slice(start, part.len());
            buckets[bucket].lock().push(Chunk {
                keys: part.iter().map(|(_, key)| *key).collect(),
                visible_us: part.iter().map(|(row, _)| visible_us(*row as usize)).collect(),
                first: address(part[0].0),
                order,
                inputs: inputs.iter().map(|columns| columns.iter().map(slice).collect()).collect(),
            });
            start = end;
        }
        Ok(())
    }
}

/// Rows and keys by bucket, in order within each; and where each bucket ends.
fn by_bucket(routed: Vec<(u32, Route)>) -> ([usize; BUCKETS], Vec<(u32, u32)>) {
    // Where the next row of each bucket goes; once all have gone there, where the bucket ends.
    let mut next = [0; BUCKETS];
    routed.iter().for_each(|(_, (bucket, _))| next[*bucket] += 1);
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    let mut sorted = vec![(0, 0); routed.len()];
    for (row, (bucket, key)) in routed {
        sorted[next[bucket]] = (row, key);
        next[bucket] += 1;
    }
    (next, sorted)
}

fn buckets() -> Vec<Mutex<Vec<Chunk>>> {
    (0..BUCKETS).map(|_| Mutex::default()).collect()
}

/// Those whose events fit into memory together, in groups; there is always one. Who does not fit is alone. Turns of
/// whole views cost less than turns of all their buckets: each reader looks at every row in each turn that it takes.
pub(crate) fn in_groups<'r, 'a>(all: impl Iterator<Item = &'r Asked<'a>>) -> Vec<Vec<&'r Asked<'a>>> {
    let (mut groups, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for asked in all {
        bytes += asked.bytes();
        if bytes > TURN_BYTES && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
            bytes = asked.bytes();
        }
        group.push(asked);
    }
    groups.push(group);
    groups
}

/// In how many turns buckets are filled with events that take so much memory.
pub(crate) fn turns(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(TURN_BYTES)).unwrap_or(BUCKETS).clamp(1, BUCKETS)
}

/// The buckets whose turn it is.
fn turn(turn: usize, turns: usize) -> Vec<usize> {
    (0..BUCKETS).filter(|bucket| bucket % turns == turn).collect()
}

/// A question about windows that history streams past: turn by turn its buckets are filled ([`Asked::reader`]) and
/// answered ([`Asked::sweep`]).
pub(crate) struct Asked<'a> {
    question: &'a Question<'a>,
    gathering: Gathering<'a>,
    spine: Spine,
    /// From when to when events matter to each key, µs. Looked at for every event: side by side, so that each costs
    /// one miss of the cache.
    matters: Vec<(i64, i64)>,
    buckets: Vec<Mutex<Vec<Chunk>>>,
    /// The features of each bucket's spine places, with the first of these.
    answers: Mutex<Vec<(usize, Vec<ArrayRef>)>>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(scan: &'a Scan, windows: &'a Windows, question: &'a Question<'a>) -> Asked<'a> {
        let spine = Spine::new(question.keys, question.query_times_us);
        let reach_us = windows.reach_us(question.features);
        let first_us = |q_us: i64| reach_us.map_or(i64::MIN, |reach_us| q_us.saturating_sub(reach_us));
        let range = (
            spine.times.iter().min().copied().map_or(i64::MAX, first_us),
            spine.times.iter().max().copied().unwrap_or(i64::MIN),
        );
        let needed = windows.inputs_of(question.features);
        let mut gathering = Gathering::new(scan, question.view, windows, needed, range);
        gathering.ordered = windows.needs_order(question.as_known);
        let matters = (0..spine.keys.len())
            .map(|id| &spine.times[spine.places(id as u32)])
            .map(|times| (first_us(times[0]), times[times.len() - 1]))
            .collect();
        Asked { question, gathering, spine, matters, buckets: buckets(), answers: Mutex::default() }
    }

    /// How much memory the events take, by estimate.
    pub(crate) fn bytes(&self) -> u64 {
        self.gathering.bytes()
    }

    /// The first key of a bucket.
    fn first_key(&self, bucket: usize) -> usize {
        (bucket * self.matters.len()).div_ceil(BUCKETS)
    }

    /// Fills the buckets whose turn it is.
    pub(crate) fn reader(&self, now: usize, turns: usize) -> Reader<'_> {
        let route = move |stamps: &Stamps, row: usize, visible_us: i64, _: u32| -> Option<Route> {
            let id = self.spine.keys.find(stamps.keys.get(row)?)?;
            let bucket = id as usize * BUCKETS / self.matters.len();
            let (from_us, to_us) = self.matters[id as usize];
            (bucket % turns == now && from_us <= visible_us && visible_us <= to_us)
                .then(|| (bucket, id - self.first_key(bucket) as u32))
        };
        self.gathering.reader(&self.buckets, route, &|_, _| ())
    }

    /// Answers from the buckets whose turn it was, and empties them.
    pub(crate) fn sweep(&self, now: usize, turns: usize) -> Result<()> {
        let spine = &self.spine;
        for_each(&turn(now, turns), |bucket| {
            let (from, to) = (self.first_key(bucket), self.first_key(bucket + 1));
            if from == to {
                return Ok(());
            }
            let chunks = std::mem::take(&mut *self.buckets[bucket].lock());
            let (events, ranges) = Events::sort(chunks, to - from, self.question.as_known)?;
            let base = spine.places(from as u32).start;
            let groups: Vec<Group> = ranges
                .into_iter()
                .zip(from..to)
                .map(|(events, id)| {
                    let places = spine.places(id as u32);
                    Group { events, times: places.start - base..places.end - base }
                })
                .collect();
            let times = &spine.times[base..spine.places(to as u32 - 1).end];
            let columns = self.gathering.windows.sweep(&events, &groups, times, self.question.features)?;
            self.answers.lock().push((base, columns));
            Ok(())
        })
    }

    /// All turns are over: what did each spine row find?
    pub(crate) fn answer(self) -> Answer {
        let Asked { question, spine, answers, .. } = self;
        let mut answers = answers.into_inner();
        answers.sort_unstable_by_key(|(base, _)| *base);
        let mut places = vec![(0, 0); question.keys.len()];
        let mut states = vec![RowState::NotFound; question.keys.len()];
        let mut piece = 0;
        for (place, row) in spine.rows.iter().enumerate() {
            while answers.get(piece + 1).is_some_and(|(base, _)| *base <= place) {
                piece += 1;
            }
            places[*row as usize] = (piece + 1, place - answers[piece].0);
            states[*row as usize] = RowState::Present;
        }
        let pieces = question.features.iter().enumerate().map(|(i, feature)| {
            let null = new_null_array(question.view.features.field(*feature).data_type(), 1);
            std::iter::once(null).chain(answers.iter().map(|(_, columns)| columns[i].clone())).collect()
        });
        Answer { pieces: pieces.collect(), places, states, event_timestamps_us: Vec::new() }
    }
}

/// The tiles of some keys, as the head has them.
pub(crate) struct Tiles<'a, S> {
    /// What is kept of events, for certain, in all of them.
    pub(crate) kept: Option<Arc<Kept>>,
    pub(crate) stored: &'a [Option<S>],
    pub(crate) keys: &'a Keys,
}

/// What is kept in tiles that were read in between: materialize changes both, tiles and what is said of them.
pub(crate) fn kept_in_both(before: Option<Arc<Kept>>, after: Option<Arc<Kept>>) -> Option<Arc<Kept>> {
    let (before, after) = (before?, after?);
    if Arc::ptr_eq(&before, &after) || before == after {
        return Some(after);
    }
    Some(Arc::new(before.common(&after)))
}

/// What the head says about windows, and the rows that it cannot answer because it holds later events.
pub(crate) fn from_head<S: Deref<Target = [u8]>>(
    lookup: &Lookup,
    windows: &Windows,
    Tiles { kept, stored, keys }: Tiles<'_, S>,
    query_times_us: &[i64],
) -> Result<(Found, Vec<u32>)> {
    let n = stored.len();
    let null = |feature: &usize| new_null_array(lookup.view.features.field(*feature).data_type(), n);
    let Some(kept) = kept else {
        let columns = lookup.features.iter().map(null).collect();
        let found = Found {
            columns,
            states: vec![RowState::NotFound; n],
            event_timestamps: Vec::new(),
            absent: Vec::new(),
        };
        return Ok((found, Vec::new()));
    };
    let mut rows: Vec<Option<&[u8]>> = stored.iter().map(Option::as_deref).collect();
    let (mut states, mut past) = (vec![RowState::Present; n], Vec::new());
    for (row, q_us) in query_times_us.iter().enumerate() {
        if keys.get(row).is_none() {
            states[row] = RowState::NotFound;
        } else if let Some(bytes) = rows[row]
            && latest_us(bytes)? > *q_us
        {
            past.push(row as u32);
            rows[row] = None;
        }
    }
    let absent: Vec<bool> = lookup.features.iter().map(|feature| !windows.is_kept(*feature, &kept)).collect();
    let there: Vec<usize> = lookup.features.iter().copied().filter(|f| windows.is_kept(*f, &kept)).collect();
    let mut answers = windows.answer(&rows, query_times_us, &there, &kept)?.into_iter();
    let asked = lookup.features.iter().zip(&absent);
    let mut columns: Vec<ArrayRef> = asked
        .map(|(feature, absent)| {
            let answer = if *absent { None } else { answers.next() };
            answer.unwrap_or_else(|| null(feature))
        })
        .collect();
    // A row without a key is nobody's: not even its counts are zero.
    if states.contains(&RowState::NotFound) {
        let nobody: arrow::array::BooleanArray =
            states.iter().map(|s| Some(*s == RowState::NotFound)).collect();
        columns =
            columns.iter().map(|column| crate::windows::hidden(column, &nobody)).collect::<Result<_>>()?;
    }
    Ok((Found { columns, states, event_timestamps: Vec::new(), absent }, past))
}

/// The column with nulls where `mask` is true.
fn hidden(column: &ArrayRef, mask: &arrow::array::BooleanArray) -> Result<ArrayRef> {
    let null = new_null_array(column.data_type(), 1);
    let places: Vec<(usize, usize)> =
        (0..column.len()).map(|row| if mask.value(row) { (1, 0) } else { (0, row) }).collect();
    Ok(arrow::compute::interleave(&[column.as_ref(), null.as_ref()], &places)?)
}

/// What of a view's events goes into the head.
pub(crate) struct Stretch<'a> {
    /// The start of a day; `i64::MIN` for everything.
    pub(crate) from_us: i64,
    /// The last query time that sees the events of files. Pushed ones go in whatever their time.
    pub(crate) to_us: i64,
    /// The only keys that matter; none: all.
    pub(crate) keys: Option<&'a KeyTable>,
    /// What is kept of them.
    pub(crate) kept: Kept,
    /// The number of the first pushed row that is not in the scan: rows from there on are taken along.
    pub(crate) since: u64,
    /// Whether the caller keeps pushes waiting.
    pub(crate) is_held: bool,
}

/// Brings the events of a stretch into the head, key by key.
pub(crate) fn bring_in(
    quern: &Quern,
    scan: &Scan,
    view: &ViewPlan,
    stretch: &Stretch,
    seen: &(impl Fn(&Stamps, usize) + Sync),
) -> Result<Upserted> {
    let Some(windows) = &view.windows else { return Ok(Upserted::default()) };
    let every = view.every();
    let needed = windows.inputs_of(&every);
    let gathering = Gathering::new(scan, view, windows, needed, (stretch.from_us, i64::MAX));
    let turns = turns(gathering.bytes());
    let total = Mutex::new(Upserted::default());
    for now in 0..turns {
        let (order, filled) = (turn(now, turns), buckets());
        let tables: Vec<Mutex<KeyTable>> = (0..BUCKETS).map(|_| Mutex::default()).collect();
        let route = |stamps: &Stamps, row: usize, visible_us: i64, file: u32| -> Option<Route> {
            let key = stamps.keys.get(row)?;
            let bucket = quern_engine::asof::hash_of(key) as usize % BUCKETS;
            let matters = stretch.from_us <= visible_us && (visible_us <= stretch.to_us || file == PUSHED);
            let is_asked = stretch.keys.is_none_or(|keys| keys.find(key).is_some());
            (bucket % turns == now && matters && is_asked)
                .then(|| (bucket, tables[bucket].lock().intern(key)))
        };
        let seen = |stamps: &Stamps, rows: usize| {
            if now == 0 {
                seen(stamps, rows);
            }
        };
        gathering.read(&filled, route, &seen)?;
        for_each(&order, |bucket| {
            let mut chunks = std::mem::take(&mut *filled[bucket].lock());
            let keys = std::mem::take(&mut *tables[bucket].lock());
            // From here on no push comes between what is read and what is written.
            let _order = if stretch.is_held { None } else { Some(quern.order_of(&view.source)?) };
            // Before what was pushed is asked for: whatever another server brings in after this is found below, where
            // the lock was lost without our knowing.
            let stored = quern.head.get_many(&wanted(view, &keys))?;
            quern.refresh(&view.source)?;
            let matters = |_: usize, key: &[u8], visible_us: i64| {
                keys.find(key).filter(|_| stretch.from_us <= visible_us)
            };
            let pushed = quern.history.pushed.of(&view.source);
            for (first, rows) in pushed.since(stretch.since, scan.schema())? {
                chunks.extend(chunk_of(view, windows, &rows, first, &matters)?);
            }
            let (events, ranges) = Events::sort(chunks, keys.len(), false)?;
            let (mut rows, mut made_from) = (Rows::default(), Vec::new());
            for (id, range) in ranges.into_iter().enumerate() {
                let old = stored[id].as_deref();
                let bytes = windows.store(old, stretch.from_us, &events, range, &stretch.kept)?;
                // What overflows is an error now, not when it is asked for.
                windows.answer(&[Some(&bytes)], &[latest_us(&bytes)?], &every, &stretch.kept)?;
                if old != Some(&bytes[..]) {
                    rows.push(view.id, keys.key(id as u32), |out| out.extend_from_slice(&bytes));
                    made_from.push(old);
                }
            }
            if !stretch.is_held {
                quern.head.check_turn()?;
            }
            put(quern, &rows, &made_from)?;
            let mut total = total.lock();
            total.written += rows.len() as u64;
            total.unchanged += (keys.len() - rows.len()) as u64;
            Ok(())
        })?;
    }
    Ok(total.into_inner())
}

/// Replaces tiles by what was made of them.
pub(crate) fn put(quern: &Quern, tiles: &Rows, made_from: &[Option<&[u8]>]) -> Result<()> {
    let replaced = quern.head.replace_if(tiles, made_from)?;
    if replaced.conflicts.is_empty() {
        return Ok(());
    }
    Err(Error::Unavailable("another server changed the same tiles in between; try again".into()))
}

/// Adds events that were just pushed to the tiles of their keys, on top of what is stored, whatever their time: those
/// that `takes` takes, by row, key and when they are visible. Gives what each was made from.
pub(crate) fn on_top(
    quern: &Quern,
    view: &ViewPlan,
    rows: &RecordBatch,
    first: u64,
    takes: &dyn Fn(usize, &[u8], i64) -> bool,
    tiles: &mut Rows,
) -> Result<Vec<Option<Vec<u8>>>> {
    let Some(windows) = &view.windows else { return Ok(Vec::new()) };
    let keys = RefCell::new(KeyTable::default());
    let number = |row: usize, key: &[u8], visible_us: i64| {
        takes(row, key, visible_us).then(|| keys.borrow_mut().intern(key))
    };
    let Some(chunk) = chunk_of(view, windows, rows, first, &number)? else { return Ok(Vec::new()) };
    let keys = keys.into_inner();
    let (events, ranges) = Events::sort(vec![chunk], keys.len(), false)?;
    let kept = kept(quern, view, windows);
    let stored = quern.head.get_many(&wanted(view, &keys))?;
    for (id, range) in ranges.into_iter().enumerate() {
        let bytes = windows.store(stored[id].as_deref(), i64::MAX, &events, range, &kept)?;
        tiles.push(view.id, keys.key(id as u32), |out| out.extend_from_slice(&bytes));
    }
    Ok(stored.into_iter().map(|stored| stored.and_then(Stored::sent)).collect())
}

/// The key of each of the rows, whose columns are the source's, and when it is visible.
pub(crate) fn keys_of(view: &ViewPlan, rows: &RecordBatch, found: &mut dyn FnMut(&[u8], i64)) -> Result<()> {
    let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
    for row in stamps.kept() {
        if let Some(key) = stamps.keys.get(row) {
            found(key, visible_from(stamps.times_us[row], view.lag_us));
        }
    }
    Ok(())
}

/// What is kept of the view's events now, and what its windows need.
pub(crate) fn kept(quern: &Quern, view: &ViewPlan, windows: &Windows) -> Kept {
    quern.head.kept(view.id).map_or_else(|| windows.kept(), |kept| kept.union(&windows.kept()))
}

fn wanted(view: &ViewPlan, keys: &KeyTable) -> Wanted {
    let mut wanted = Wanted::default();
    (0..keys.len()).for_each(|id| wanted.push(view.id, Some(keys.key(id as u32))));
    wanted
}

/// The events among pushed rows, whose columns are the source's. `number` gives the number of a key where the event of
/// that row and time matters.
fn chunk_of(
    view: &ViewPlan,
    windows: &Windows,
    rows: &RecordBatch,
    first: u64,
    number: &impl Fn(usize, &[u8], i64) -> Option<u32>,
) -> Result<Option<Chunk>> {
    let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
    let visible_us = |row: usize| visible_from(stamps.times_us[row], view.lag_us);
    let numbered = stamps
        .kept()
        .filter_map(|row| Some((row as u32, number(row, stamps.keys.get(row)?, visible_us(row))?)));
    let (picked, keys): (Vec<u32>, Vec<u32>) = numbered.unzip();
    let Some(earliest) = picked.first() else { return Ok(None) };
    let inputs = take_record_batch(&project(rows, view.row_columns())?, &UInt32Array::from(picked.clone()))?;
    let address = |row: u32| Address::new(PUSHED, first + u64::from(row)).order();
    let rank = |row: &u32| Rank { created_us: stamps.created_us[*row as usize], arrival: address(*row) };
    let identities = windows.identities(&inputs)?;
    let order =
        windows.needs_order(false).then(|| Order { ranks: picked.iter().map(rank).collect(), identities });
    Ok(Some(Chunk {
        keys,
        visible_us: picked.iter().map(|row| visible_us(*row as usize)).collect(),
        first: address(*earliest),
        order,
        inputs: windows.prepare(&inputs, &windows.inputs_of(&view.every()))?,
    }))
}

/// The columns called `names`.
pub(crate) fn project(rows: &RecordBatch, names: &[String]) -> Result<RecordBatch> {
    let places = names.iter().map(|name| rows.schema_ref().index_of(name));
    Ok(rows.project(&places.collect::<std::result::Result<Vec<_>, _>>()?)?)
}
