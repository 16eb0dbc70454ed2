//! How do the rows of a view come into the head?
//!
//! In two passes: which row of each key is the latest; and the features of just those, which are computed, encoded and
//! brought in, all at the same time. Views over one source that tell the same rows apart share the first.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::{iter, mem, thread};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_base::points::pass;
use quern_engine::asof::{Address, KeyTable, Latest};
use quern_engine::row::RowTimes;
use quern_engine::time::visible_from;
use quern_engine::{Failed, ViewPlan};
use quern_store::history::{PUSHED, Scan};
use quern_store::rocks::{Rows, Upserted};
use quern_store::spill::Scratch;

use super::winners::{Finding, Winners};
use super::{Failures, Passed, Said, ViewWriter, project};
use crate::error::{Error, Result};
use crate::read::{Selection, for_each, places, read_selected, stamps};
use crate::units::Units;

/// How many encoded rows are brought in at once: so many bytes, and a batch.
const ROWS_BYTES: usize = 32 << 20;
/// How many threads take what the others have encoded.
const WRITERS: usize = 2;

/// Takes rows that are encoded, some at a time, from several threads.
pub(super) type Take<'a> = dyn Fn(&Rows) -> Result<Upserted> + Sync + 'a;
/// Hears of rows that were passed: so many more, of so many in all as far as is known.
pub type Progress<'a> = dyn Fn(usize, u64) + Sync + 'a;

/// The latest row of each key, out of those that became visible at these query times, µs.
pub struct LatestRows {
    /// At which query times they became visible.
    pub visible_us: RangeInclusive<i64>,
    /// What was passed to find them.
    pub passed: Passed,
    pub(crate) winners: Winners,
    /// Where keys lie meanwhile that memory does not hold.
    scratch: Scratch,
}

impl LatestRows {
    /// The first pass: which row of each key is the latest?
    pub fn find(
        scan: &Scan,
        view: &ViewPlan,
        visible_us: RangeInclusive<i64>,
        (scratch, progress): (&Scratch, &Progress<'_>),
    ) -> Result<LatestRows> {
        let (units, wanted) = (&scan.units, Units::visible(scan, view, visible_us.clone())?);
        let rows = wanted.rows(scan);
        let finding = Finding::new(Latest::new(visible_us.clone(), view.lag_us), scratch);
        let passed = Mutex::new(Passed { filtered: wanted.filtered, ..Passed::default() });
        for_each(scan.readers(), &wanted.matter, |unit| {
            let first = Address::new(units[unit].file, units[unit].first_row);
            scan.read(unit, view.stamp_columns(), None, &mut |offset, batch| -> Result<()> {
                let stamps = stamps(scan, view, &batch, first.plus(offset))?;
                finding.offer(&stamps, first.plus(offset))?;
                passed.lock().note(&stamps, batch.num_rows());
                // The second pass is as long at most.
                progress(batch.num_rows(), 2 * rows);
                Ok(())
            })
        })?;
        Ok(LatestRows {
            visible_us,
            passed: passed.into_inner(),
            winners: finding.finish(scan)?,
            scratch: scratch.clone(),
        })
    }

    /// The latest rows of some keys that no `strict` feature refuses.
    pub(crate) fn sound(&self, scan: &Scan, view: &ViewPlan, keys: &KeyTable) -> Result<LatestRows> {
        let mut columns = view.stamp_columns().to_vec();
        let row_places = places(&mut columns, view.row_columns());
        let stamp_places: Vec<usize> = (0..view.stamp_columns().len()).collect();
        let strict: Vec<usize> = view.every().into_iter().filter(|feature| view.strict[*feature]).collect();
        let finding = Finding::new(Latest::new(self.visible_us.clone(), view.lag_us), &self.scratch);
        let wanted = Units::visible(scan, view, self.visible_us.clone())?;
        for_each(scan.readers(), &wanted.matter, |unit| {
            let start = Address::new(scan.units[unit].file, scan.units[unit].first_row);
            scan.read(unit, &columns, None, &mut |offset, batch| -> Result<()> {
                let first = start.plus(offset);
                let mut stamps = stamps(scan, view, &batch.project(&stamp_places)?, first)?;
                let is_asked =
                    |row: &usize| stamps.keys.get(*row).is_some_and(|key| keys.find(key).is_some());
                let rows: Vec<u32> = stamps.kept().filter(is_asked).map(|row| row as u32).collect();
                let inputs = batch.project(&row_places)?;
                let inputs = take_record_batch(&inputs, &UInt32Array::from(rows.clone()))?;
                let mut failed = Failed::default();
                view.features(&inputs, &strict, &mut failed)?;
                let sound = (0..rows.len()).filter(|row| !failed.refuses(*row));
                let sound: HashSet<usize> = sound.map(|row| rows[row] as usize).collect();
                stamps.retain(|row| sound.contains(&row));
                finding.offer(&stamps, first)
            })
        })?;
        let (visible_us, winners) = (self.visible_us.clone(), finding.finish(scan)?);
        Ok(LatestRows { visible_us, passed: Passed::default(), winners, scratch: self.scratch.clone() })
    }
}

impl ViewWriter<'_> {
    /// The second pass: the features of those rows are computed and encoded, while what is encoded is brought in. Where
    /// the latest row of a key is refused, the latest that is not comes in instead, which costs a pass of its own. All
    /// that comes in is noted as `said`, where that is wanted.
    pub fn bring_in_rows(
        &self,
        scan: &Scan,
        found: &LatestRows,
        (failed, said): (&Failures, Option<&Said>),
        progress: &Progress<'_>,
    ) -> Result<Upserted> {
        let load = self.head.load(self.view.id)?;
        self.encode_all(scan, found, (failed, progress), &|rows| {
            if let Some(said) = said {
                said.note_rows(rows);
            }
            let upserted = load.upsert(rows)?;
            pass("materialize: some rows are in");
            Ok(upserted)
        })
    }

    /// Has those rows taken, or what comes in instead of them.
    pub(super) fn encode_all(
        &self,
        scan: &Scan,
        found: &LatestRows,
        (failed, progress): (&Failures, &Progress<'_>),
        take: &Take<'_>,
    ) -> Result<Upserted> {
        let refused = Mutex::default();
        let mut total = self.encode(scan, found, (failed, &refused, progress), take)?;
        let refused = refused.into_inner();
        if !refused.is_empty() {
            let sound = found.sound(scan, self.view, &refused)?;
            total += self.encode(scan, &sound, (failed, &Mutex::default(), &|_, _| ()), take)?;
        }
        Ok(total)
    }

    fn encode(
        &self,
        scan: &Scan,
        found: &LatestRows,
        (failed, refused, progress): (&Failures, &Mutex<KeyTable>, &Progress<'_>),
        take: &Take<'_>,
    ) -> Result<Upserted> {
        let units = found.winners.units();
        let (send, encoded) = sync_channel::<Rows>(0);
        // The writers' alone: where all have failed, nobody waits for them.
        let encoded = Arc::new(Mutex::new(encoded));
        let writers = iter::repeat_n(encoded, WRITERS).map(|encoded| {
            move || -> Result<Upserted> {
                let mut total = Upserted::default();
                loop {
                    let Ok(rows) = encoded.lock().recv() else { return Ok(total) };
                    total += take(&rows)?;
                }
            }
        });
        let chosen = Chosen::new(self.view, failed, refused);
        thread::scope(|scope| {
            let writers: Vec<_> = writers.map(|writer| scope.spawn(writer)).collect();
            let read = for_each(scan.readers(), &units, |unit| {
                chosen.encode(scan, &found.winners.of(unit), &send)?;
                progress(scan.units[unit].rows as usize, 2 * found.passed.read);
                Ok(())
            });
            drop(send);
            let mut total = Upserted::default();
            for writer in writers {
                total += writer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            }
            // After the writers: where they have failed, this only says that nobody takes the rows.
            read.map(|()| total)
        })
    }

    /// Brings in what was pushed from number `since` on: it came later than all other rows of its times. The caller
    /// keeps pushes waiting.
    pub fn bring_in_pushed(&self, scan: &Scan, since: u64) -> Result<()> {
        self.history.refresh(self.source)?;
        let pushed = self.history.pushed.of(&self.view.source);
        for (first, since) in pushed.since(since, scan)? {
            let mut rows = Rows::default();
            // Whoever pushed them was told what could not be computed.
            newest(self.view, &since, first, &mut rows)?;
            self.head.upsert(&rows)?;
        }
        Ok(())
    }
}

/// How rows of history that go into the head are read and encoded.
struct Chosen<'a> {
    view: &'a ViewPlan,
    /// What is read: keys and times, which are the first, and what features are made of.
    columns: Vec<String>,
    row_places: Vec<usize>,
    failed: &'a Failures,
    /// Hears of the keys whose row is refused.
    refused: &'a Mutex<KeyTable>,
}

impl<'a> Chosen<'a> {
    fn new(view: &'a ViewPlan, failed: &'a Failures, refused: &'a Mutex<KeyTable>) -> Chosen<'a> {
        let mut columns = view.stamp_columns().to_vec();
        let row_places = places(&mut columns, view.row_columns());
        Chosen { view, columns, row_places, failed, refused }
    }

    /// Sends the rows of `selection` on, encoded, some at a time.
    fn encode(&self, scan: &Scan, selection: &Selection, to: &SyncSender<Rows>) -> Result<()> {
        let send = |rows| to.send(rows).map_err(|error| Error::internal("materialize", error));
        let (view, unit) = (self.view, &scan.units[selection.unit]);
        let first = Address::new(unit.file, unit.first_row);
        let stamp_places: Vec<usize> = (0..view.stamp_columns().len()).collect();
        let wanted = view.every();
        let mut rows = Rows::default();
        read_selected(scan, selection, &self.columns, &mut |before, batch| {
            let address = |row: usize| first.plus(selection.rows[before + row] as usize);
            let stamps = stamps(scan, view, &batch.project(&stamp_places)?, first)?;
            let mut failed = Failed::default();
            let inputs = batch.project(&self.row_places)?;
            let encoder = view.codec.encoder(&view.features(&inputs, &wanted, &mut failed)?);
            self.failed.add_at(&failed, address);
            for row in 0..batch.num_rows() {
                let Some(key) = stamps.keys.get(row) else { continue };
                let times = RowTimes { ts_us: stamps.times_us[row], created_us: stamps.created_us[row] };
                if let Some(feature) = failed.refused(row) {
                    let visible_us = visible_from(times.ts_us, view.lag_us);
                    self.failed.refuse(scan, view, (visible_us, address(row)), feature);
                    self.refused.lock().intern(key);
                    continue;
                }
                rows.push(view.id, key, |out| encoder.encode(times, row, out));
            }
            if rows.bytes() > ROWS_BYTES {
                send(mem::take(&mut rows))?;
            }
            Ok(())
        })?;
        if rows.is_empty() { Ok(()) } else { send(rows) }
    }
}

/// The stored rows that pushed ones make: the latest of each key. Their columns are the source's.
pub fn newest(view: &ViewPlan, rows: &RecordBatch, first: u64, out: &mut Rows) -> Result<()> {
    newest_of(view, (rows, first), i64::MIN..=i64::MAX, out)
}

/// The same of those that become visible at these query times, µs.
pub(super) fn newest_of(
    view: &ViewPlan,
    (rows, first): (&RecordBatch, u64),
    visible_us: RangeInclusive<i64>,
    out: &mut Rows,
) -> Result<()> {
    let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
    let mut latest = Latest::new(visible_us, view.lag_us).with_capacity(rows.num_rows());
    latest.offer(&stamps, |row| Address::new(PUSHED, first + row as u64));
    let chosen = latest.stamps().iter().filter_map(|stamp| Some((stamp.address()?.row() - first) as u32));
    let chosen = UInt32Array::from_iter_values(chosen);
    let chosen = take_record_batch(&project(rows, view.row_columns())?, &chosen)?;
    let mut failed = Failed::default();
    let encoder = view.codec.encoder(&view.features(&chosen, &view.every(), &mut failed)?);
    // Pushed before the feature became strict.
    let taken = latest.stamps().iter().enumerate().filter(|(id, _)| !failed.refuses(*id));
    for (id, stamp) in taken {
        let times = RowTimes { ts_us: stamp.ts_us, created_us: stamp.created_us };
        out.push(view.id, latest.key(id as u32), |out| encoder.encode(times, id, out));
    }
    Ok(())
}
