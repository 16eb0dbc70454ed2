//! How do the rows of a view come in?
//!
//! In two passes: which row of each key is the latest; and the features of just those, which are computed, encoded and
//! brought in, all at the same time. Views over one source that tell the same rows apart share the first.

use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;
use std::{iter, mem, thread};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_engine::ViewPlan;
use quern_engine::asof::{Address, Latest};
use quern_engine::row::RowTimes;
use quern_engine::time::visible_from;

use super::{LOOK_BACK_DEFAULT_US, MaterializeRequest, Run, Seen, ViewSummary};
use crate::error::{Error, Result};
use crate::point_in_time::{Selection, for_each, read_selected, select};
use crate::store::history::PUSHED;
use crate::store::rocks::{Rows, Upserted};
use crate::windows::project;

/// How many encoded rows are brought in at once: so many bytes, and a batch.
const ROWS_BYTES: usize = 32 << 20;
/// How many threads write what the others have encoded.
const WRITERS: usize = 2;

/// The latest row of each key, out of those that became visible at these query times, µs.
pub(super) struct Found {
    visible_us: RangeInclusive<i64>,
    latest: Latest,
    seen: Seen,
    /// Rows of history that were passed.
    rows: u64,
}

impl Run<'_> {
    /// Brings the latest rows in.
    pub(super) fn run_rows(&mut self, request: &MaterializeRequest, now_us: i64) -> Result<ViewSummary> {
        let started = Instant::now();
        let watermark = self.quern.head.watermark(self.view.id)?;
        let to_us = request.to_us.unwrap_or(now_us);
        let look_back_us = request.look_back_us.unwrap_or(LOOK_BACK_DEFAULT_US);
        let since_us = watermark.map(|watermark_us| watermark_us.saturating_sub(look_back_us));
        let visible_us = request.from_us.or(since_us).unwrap_or(i64::MIN)..=to_us;
        self.quern.head.begin(self.view.id)?;
        let found = match self.found.take().filter(|found| found.visible_us == visible_us) {
            Some(found) => found,
            None => self.latest(visible_us)?,
        };
        let upserted = self.bring_in(&found)?;
        self.bring_in_since()?;
        // A backfill that starts behind a gap does not close the gap.
        if request.from_us.is_none_or(|from_us| watermark.is_some_and(|watermark_us| from_us <= watermark_us))
        {
            self.quern.head.set_watermark(self.view.id, to_us)?;
        }
        let summary = self.summary(to_us, upserted, &found.seen, started);
        self.found = Some(found);
        Ok(summary)
    }

    /// The first pass: which row of each key is the latest?
    fn latest(&self, visible_us: RangeInclusive<i64>) -> Result<Found> {
        let lag_us = self.view.lag_us;
        let is_wanted = |times: (i64, i64)| {
            visible_from(times.0, lag_us) <= *visible_us.end()
                && visible_from(times.1, lag_us) >= *visible_us.start()
        };
        let units = &self.scan.units;
        let wanted: Vec<usize> =
            (0..units.len()).filter(|unit| units[*unit].times.is_none_or(is_wanted)).collect();
        let rows = wanted.iter().map(|unit| units[*unit].rows).sum::<u64>();
        let result = Mutex::new((Latest::new(visible_us.clone(), lag_us), Seen::default()));
        for_each(&wanted, |unit| {
            let (file, first_row) = (units[unit].file, units[unit].first_row);
            self.scan.read(unit, self.view.stamp_columns(), None, &mut |offset, batch| {
                let stamps = self.view.stamps(&batch)?;
                let start = first_row + offset as u64;
                let (latest, seen) = &mut *result.lock();
                latest.offer(&stamps, |row| Address::new(file, start + row as u64));
                seen.note(&stamps, batch.num_rows());
                self.advance(batch.num_rows(), 2 * rows);
                Ok(())
            })
        })?;
        let (latest, seen) = result.into_inner();
        Ok(Found { visible_us, latest, seen, rows })
    }

    /// The second pass: the features of those rows are computed and encoded, while what is encoded is brought in.
    fn bring_in(&self, found: &Found) -> Result<Upserted> {
        let stamps = found.latest.stamps().iter().enumerate();
        let mut chosen: Vec<(Address, u32)> =
            stamps.filter_map(|(id, stamp)| Some((stamp.address()?, id as u32))).collect();
        chosen.sort_unstable();
        let selections = select(&self.scan, chosen.iter().map(|(address, _)| *address));
        let order: Vec<usize> = (0..selections.len()).collect();
        let total_rows = self.done.load(Ordering::Relaxed) + found.rows;
        let load = self.quern.head.load(self.view.id)?;
        let (send, encoded) = sync_channel::<Rows>(0);
        // The writers' alone: where all have failed, nobody waits for them.
        let encoded = Arc::new(Mutex::new(encoded));
        let writers = iter::repeat_n(encoded, WRITERS).map(|encoded| {
            let load = &load;
            move || -> Result<Upserted> {
                let mut total = Upserted::default();
                loop {
                    let Ok(rows) = encoded.lock().recv() else { return Ok(total) };
                    total += load.upsert(&rows)?;
                }
            }
        });
        thread::scope(|scope| {
            let writers: Vec<_> = writers.map(|writer| scope.spawn(writer)).collect();
            let read = for_each(&order, |i| {
                self.encode(&found.latest, &chosen, &selections[i], &send)?;
                self.advance(self.scan.units[selections[i].unit].rows as usize, total_rows);
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

    /// Sends the rows of `selection` on, encoded, some at a time.
    fn encode(
        &self,
        latest: &Latest,
        chosen: &[(Address, u32)],
        selection: &Selection,
        to: &SyncSender<Rows>,
    ) -> Result<()> {
        let send = |rows| to.send(rows).map_err(|error| Error::internal("materialize", error));
        let wanted = self.view.every();
        let mut rows = Rows::default();
        read_selected(&self.scan, selection, self.view.row_columns(), &mut |before, batch| {
            let encoder = self.view.codec.encoder(&self.view.features(&batch, &wanted)?);
            for (row, (_, id)) in chosen[before..before + batch.num_rows()].iter().enumerate() {
                let stamp = latest.stamps()[*id as usize];
                let times = RowTimes { ts_us: stamp.ts_us, created_us: stamp.created_us };
                rows.push(self.view.id, latest.key(*id), |out| encoder.encode(times, row, out));
            }
            if rows.bytes() > ROWS_BYTES {
                send(mem::take(&mut rows))?;
            }
            Ok(())
        })?;
        if rows.is_empty() { Ok(()) } else { send(rows) }
    }

    /// Rows that were pushed meanwhile came later than all others of their times, and may have been replaced by them.
    fn bring_in_since(&self) -> Result<()> {
        let _order = self.quern.order_of(&self.view.source)?;
        self.quern.refresh(&self.view.source)?;
        let pushed = self.quern.history.pushed.of(&self.view.source);
        for (first, since) in pushed.since(self.pushed_end, self.scan.schema())? {
            let mut rows = Rows::default();
            newest(self.view, &since, first, &mut rows)?;
            self.quern.head.upsert(&rows)?;
        }
        Ok(())
    }
}

/// The stored rows that pushed ones make: the latest of each key. Their columns are the source's.
pub(crate) fn newest(view: &ViewPlan, rows: &RecordBatch, first: u64, out: &mut Rows) -> Result<()> {
    let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
    let mut latest = Latest::new(i64::MIN..=i64::MAX, view.lag_us);
    latest.offer(&stamps, |row| Address::new(PUSHED, first + row as u64));
    let chosen = latest.stamps().iter().filter_map(|stamp| Some((stamp.address()?.row() - first) as u32));
    let chosen = UInt32Array::from_iter_values(chosen);
    let chosen = take_record_batch(&project(rows, view.row_columns())?, &chosen)?;
    let encoder = view.codec.encoder(&view.features(&chosen, &view.every())?);
    for (id, stamp) in latest.stamps().iter().enumerate() {
        let times = RowTimes { ts_us: stamp.ts_us, created_us: stamp.created_us };
        out.push(view.id, latest.key(id as u32), |out| encoder.encode(times, id, out));
    }
    Ok(())
}
