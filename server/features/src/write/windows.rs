//! How do the events of a view with windows come into the head?
//!
//! Read, alter, replace, for a whole bucket of keys at once: the tiles of whole days are rebuilt from all of their
//! events, or events that were just pushed are added on top of what is stored.

use std::cell::RefCell;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_engine::asof::{Address, KeyTable};
use quern_engine::time::visible_from;
use quern_engine::windows::{Chunk, Events, Kept, Order as EventOrder, Rank, Windows, latest_us};
use quern_engine::{Failed, Stamps, ViewPlan};
use quern_store::history::{PUSHED, Scan};
use quern_store::log::Position;
use quern_store::online::Stored;
use quern_store::rocks::{Rows, Upserted, Wanted};
use quern_store::turns::Order;

use super::{Failures, Said, ViewWriter, project};
use crate::error::{Error, Result};
use crate::read::{cores, for_each};
use crate::windows::gather::{BUCKETS, Gathering, Route, buckets, turn, turns_of};

/// Waits for the turn to change pushed history or the head.
pub type TakeOrder<'a> = dyn Fn() -> quern_store::Result<Order<'a>> + Sync + 'a;

/// What of a view's events goes into the head.
pub struct Stretch<'a> {
    /// The start of a day; `i64::MIN` for everything.
    pub from_us: i64,
    /// The last query time that sees the events of files. Pushed ones go in whatever their time.
    pub to_us: i64,
    /// The only keys that matter; none: all.
    pub keys: Option<&'a KeyTable>,
    /// What is kept of them.
    pub kept: Kept,
    /// The number of the first pushed row that is not in the scan: rows from there on are taken along.
    pub since: u64,
    /// The last commit that may be in what is brought in; whatever is there, where none is said.
    pub at: Option<Position>,
    /// How pushes are kept waiting; none where the caller does it.
    pub order: Option<&'a TakeOrder<'a>>,
    /// Hears how many values could not be computed.
    pub failed: &'a Failures,
    /// Hears of all keys that have events, where that is wanted.
    pub said: Option<&'a Said>,
}

impl ViewWriter<'_> {
    /// Brings the events of a stretch into the head, key by key.
    pub fn bring_in_events(
        &self,
        scan: &Scan,
        stretch: &Stretch,
        seen: &(impl Fn(&Stamps, usize) + Sync),
    ) -> Result<Upserted> {
        let view = self.view;
        let Some(windows) = &view.windows else { return Ok(Upserted::default()) };
        let needed = windows.inputs_of(&view.every());
        let gathering = Gathering::new(scan, view, windows, needed, (stretch.from_us, i64::MAX))?;
        let turns = turns_of(gathering.bytes());
        let total = Mutex::new(Upserted::default());
        for now in 0..turns {
            let filled = buckets();
            let tables: Vec<Mutex<KeyTable>> = (0..BUCKETS).map(|_| Mutex::default()).collect();
            let route = |stamps: &Stamps, row: usize, visible_us: i64, file: u32| -> Option<Route> {
                let key = stamps.keys.get(row)?;
                let bucket = quern_engine::asof::hash_of(key) as usize % BUCKETS;
                let matters =
                    stretch.from_us <= visible_us && (visible_us <= stretch.to_us || file == PUSHED);
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
            for_each(cores(), &turn(now, turns), |bucket| {
                let chunks = std::mem::take(&mut *filled[bucket].lock());
                let keys = std::mem::take(&mut *tables[bucket].lock());
                if let Some(said) = stretch.said {
                    said.note_keys(&keys);
                }
                let upserted = self.bring_in_bucket(scan, stretch, windows, (chunks, keys))?;
                *total.lock() += upserted;
                Ok(())
            })?;
        }
        stretch.failed.add(&gathering.failed());
        if let Some((at, feature)) = gathering.refused() {
            stretch.failed.refuse(scan, view, at, &feature);
        }
        Ok(total.into_inner())
    }

    /// Brings in the events of a bucket of keys, and what was pushed to them since the scan.
    fn bring_in_bucket(
        &self,
        scan: &Scan,
        stretch: &Stretch,
        windows: &Windows,
        (mut chunks, keys): (Vec<Chunk>, KeyTable),
    ) -> Result<Upserted> {
        let view = self.view;
        // From here on no push comes between what is read and what is written.
        let _order = stretch.order.map(|take| take()).transpose()?;
        // Before what was pushed is asked for: whatever another server brings in after this is found below, where
        // the lock was lost without our knowing.
        let stored = self.head.get_many(&wanted(view, &keys))?;
        self.history.refresh(self.source)?;
        let matters =
            |_: usize, key: &[u8], visible_us: i64| keys.find(key).filter(|_| stretch.from_us <= visible_us);
        if let Some(at) = stretch.at {
            // More would be in the tiles before anybody has noted that it is about to come.
            self.history.end_at(&view.source, at)?;
        }
        let pushed = self.history.pushed.of(&view.source);
        for (first, rows) in pushed.since(stretch.since, scan)? {
            chunks.extend(chunk_of(view, windows, &rows, first, &matters)?);
        }
        let every = view.every();
        let (events, ranges) = Events::sort(chunks, keys.len(), false)?;
        let (mut rows, mut made_from, mut failed) = (Rows::default(), Vec::new(), Failed::default());
        for (id, range) in ranges.into_iter().enumerate() {
            let old = stored[id].as_deref();
            let bytes = windows.store(old, stretch.from_us, &events, range, &stretch.kept)?;
            // What is beyond its type is said now, not only when it is asked for.
            let mut lost = Failed::default();
            windows.answer(&[Some(&bytes)], &[latest_us(&bytes)?], &every, &stretch.kept, &mut lost)?;
            failed.add(&lost);
            if old != Some(&bytes[..]) {
                rows.push(view.id, keys.key(id as u32), |out| out.extend_from_slice(&bytes));
                made_from.push(old);
            }
        }
        stretch.failed.add(&failed);
        if stretch.order.is_some() {
            self.head.check_turn()?;
        }
        quern_base::points::pass("tiles: before some are put");
        self.put(&rows, &made_from)?;
        quern_base::points::pass("tiles: some are put");
        let (written, unchanged) = (rows.len() as u64, (keys.len() - rows.len()) as u64);
        Ok(Upserted { written, unchanged, ..Upserted::default() })
    }

    /// Replaces tiles by what was made of them.
    pub fn put(&self, tiles: &Rows, made_from: &[Option<&[u8]>]) -> Result<()> {
        put(self.head, tiles, made_from)
    }

    /// Adds events that were just pushed to the tiles of their keys, on top of what is stored, whatever their time:
    /// those that `takes` takes, by row, key and when they are visible. Gives what each was made from.
    pub fn add_events(
        &self,
        rows: &RecordBatch,
        first: u64,
        takes: &dyn Fn(usize, &[u8], i64) -> bool,
        tiles: &mut Rows,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let view = self.view;
        let Some(windows) = &view.windows else { return Ok(Vec::new()) };
        let keys = RefCell::new(KeyTable::with_capacity(rows.num_rows()));
        let number = |row: usize, key: &[u8], visible_us: i64| {
            takes(row, key, visible_us).then(|| keys.borrow_mut().intern(key))
        };
        let Some(chunk) = chunk_of(view, windows, rows, first, &number)? else { return Ok(Vec::new()) };
        let keys = keys.into_inner();
        let (events, ranges) = Events::sort(vec![chunk], keys.len(), false)?;
        let kept = self.kept(windows);
        let stored = self.head.get_many(&wanted(view, &keys))?;
        for (id, range) in ranges.into_iter().enumerate() {
            let bytes = windows.store(stored[id].as_deref(), i64::MAX, &events, range, &kept)?;
            tiles.push(view.id, keys.key(id as u32), |out| out.extend_from_slice(&bytes));
        }
        Ok(stored.into_iter().map(|stored| stored.and_then(Stored::sent)).collect())
    }

    /// What is kept of the view's events now, and what its windows need.
    pub fn kept(&self, windows: &Windows) -> Kept {
        self.head.kept(self.view.id).map_or_else(|| windows.kept(), |kept| kept.union(&windows.kept()))
    }
}

/// Replaces tiles by what was made of them.
///
/// # Errors
/// `Kind::Unavailable` where another server replaced one in between.
pub fn put(head: &quern_store::online::Online, tiles: &Rows, made_from: &[Option<&[u8]>]) -> Result<()> {
    let replaced = head.replace_if(tiles, made_from)?;
    if replaced.conflicts.is_empty() {
        return Ok(());
    }
    Err(Error::unavailable("another server changed the same tiles in between; try again"))
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
    let ranks = || picked.iter().map(rank).collect();
    let order = windows.needs_order(false).then(|| EventOrder { ranks: ranks(), identities });
    Ok(Some(Chunk {
        keys,
        visible_us: picked.iter().map(|row| visible_us(*row as usize)).collect(),
        first: address(*earliest),
        order,
        // Whoever pushed them was told what could not be computed.
        inputs: windows.prepare(&inputs, &windows.inputs_of(&view.every()), &mut Failed::default())?,
    }))
}
