//! How do the events of a source come to their keys?
//!
//! Events are read once and handed to buckets by their key. A bucket is then sorted and answered by one thread. Where
//! all events together would take too much memory, views take turns, and the buckets of a view that is too large alone;
//! history is read once for each turn.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_engine::asof::Address;
use quern_engine::time::visible_from;
use quern_engine::windows::{Chunk, Order, Rank, Windows};
use quern_engine::{Failed, Stamps, ViewPlan};
use quern_store::history::Scan;

use crate::error::{Error, Result, strict_text};
use crate::read::{Visitor, place_of, places, read_once, stamps};
use crate::units::Units;

/// Buckets that events are handed to.
pub(crate) const BUCKETS: usize = 64;
/// How much the events of one turn may take, by estimate.
pub(crate) const TURN_BYTES: u64 = 1 << 30;

/// Where an event goes: its bucket, and the number of its key there.
pub(crate) type Route = (usize, u32);

/// Whether nobody who asks about this key, numbered as in its route, counts the event with this identity.
pub(crate) type LeftOut<'a> = dyn Fn(Route, u128) -> bool + Sync + 'a;

/// How the events of a view are read.
pub(crate) struct Gathering<'a> {
    scan: &'a Scan,
    view: &'a ViewPlan,
    pub(crate) windows: &'a Windows,
    /// Inputs that are needed.
    needed: Vec<bool>,
    /// Whether created timestamps and arrival are.
    pub(crate) ordered: bool,
    columns: Vec<String>,
    /// The places of the columns that inputs are computed from.
    row_places: Vec<usize>,
    units: Units,
    /// Where events are left out, what failed of those that nobody counts is nobody's.
    pub(crate) left_out: Option<Box<LeftOut<'a>>>,
    /// Events of which something could not be computed.
    failed: Mutex<Failed>,
    /// The earliest one that a `strict` feature refuses: when it became visible and where it is, and the feature.
    refused: Mutex<Option<((i64, Address), String)>>,
}

impl<'a> Gathering<'a> {
    /// Gathers what the features `wanted` need of the events visible within `visible_us`.
    pub(crate) fn new(
        scan: &'a Scan,
        view: &'a ViewPlan,
        windows: &'a Windows,
        needed: Vec<bool>,
        visible_us: (i64, i64),
    ) -> Result<Gathering<'a>> {
        let mut columns = view.stamp_columns().to_vec();
        let row_places = places(&mut columns, view.row_columns());
        let units = Units::visible(scan, view, visible_us.0..=visible_us.1)?;
        let ordered = windows.needs_order(false);
        let (left_out, failed, refused) = (None, Mutex::default(), Mutex::default());
        Ok(Gathering {
            scan,
            view,
            windows,
            needed,
            ordered,
            columns,
            row_places,
            units,
            left_out,
            failed,
            refused,
        })
    }

    /// Reads what became visible within `visible_us`, of which no more matters than before.
    pub(crate) fn widen(&mut self, visible_us: (i64, i64)) -> Result<()> {
        self.units = Units::visible(self.scan, self.view, visible_us.0..=visible_us.1)?;
        Ok(())
    }

    /// Nothing where no `strict` feature refuses an event.
    pub(crate) fn check_strict(&self) -> Result<()> {
        let Some(((_, at), feature)) = self.refused() else { return Ok(()) };
        let said = strict_text(&feature, &format!("feature view `{}`", self.view.name));
        Err(Error::invalid(format!("{}: {said}", place_of(self.scan, at))))
    }

    /// The earliest event that a `strict` feature refuses: when it became visible and where it is, and the feature.
    pub(crate) fn refused(&self) -> Option<((i64, Address), String)> {
        self.refused.lock().clone()
    }

    /// How many events could not be computed, by the features that read them.
    pub(crate) fn failed(&self) -> Failed {
        self.failed.lock().clone()
    }

    /// How much memory the events take, by estimate.
    pub(crate) fn bytes(&self) -> u64 {
        let columns = self.needed.iter().filter(|needed| **needed).count() as u64;
        // Each event is held twice while a bucket is sorted.
        let row_bytes = 2 * (12 + 9 * columns + if self.ordered { 32 } else { 0 });
        self.units.rows(self.scan) * row_bytes
    }

    /// Reads all events and hands each to the bucket that `route` names.
    pub(crate) fn read(
        &self,
        buckets: &[Mutex<Vec<Chunk>>],
        route: impl Fn(&Stamps, usize, i64, u32) -> Option<Route> + Sync,
        seen: &(impl Fn(&Stamps, usize) + Sync),
    ) -> Result<()> {
        read_once(self.scan, &[self.visitor(buckets, route, seen)])
    }

    /// The same beside others who read the source.
    pub(crate) fn visitor<'r>(
        &'r self,
        buckets: &'r [Mutex<Vec<Chunk>>],
        route: impl Fn(&Stamps, usize, i64, u32) -> Option<Route> + Sync + 'r,
        seen: &'r (impl Fn(&Stamps, usize) + Sync),
    ) -> Visitor<'r> {
        let visit = move |rows: &RecordBatch, first: Address| -> Result<()> {
            let stamps = stamps(self.scan, self.view, rows, first)?;
            seen(&stamps, rows.num_rows());
            let route = |stamps: &Stamps, row: usize, us: i64| route(stamps, row, us, first.file());
            self.hand_out(rows, &stamps, first, &route, buckets)
        };
        Visitor { columns: &self.columns, units: &self.units.matter, visit: Box::new(visit) }
    }

    fn hand_out(
        &self,
        rows: &RecordBatch,
        stamps: &Stamps,
        first: Address,
        route: &impl Fn(&Stamps, usize, i64) -> Option<Route>,
        buckets: &[Mutex<Vec<Chunk>>],
    ) -> Result<()> {
        let visible_us = |row: usize| visible_from(stamps.times_us[row], self.view.lag_us);
        let address = |row: u32| first.plus(row as usize).order();
        let routed = stamps.kept().filter_map(|row| Some((row as u32, route(stamps, row, visible_us(row))?)));
        let (ends, routed) = by_bucket(routed.collect());
        if routed.is_empty() {
            return Ok(());
        }
        let picked = UInt32Array::from_iter_values(routed.iter().map(|(row, _)| *row));
        let rows = take_record_batch(&rows.project(&self.row_places)?, &picked)?;
        let mut failed = Failed::default();
        let inputs = self.windows.prepare(&rows, &self.needed, &mut failed)?;
        let identities = self.windows.identities(&rows)?;
        let is_anybodys = |place: usize| match (&self.left_out, &identities) {
            (Some(left_out), Some(identities)) => {
                let bucket = ends.partition_point(|end| *end <= place);
                !left_out((bucket, routed[place].1), identities[place])
            }
            _ => true,
        };
        for (place, feature) in failed.all_refused().filter(|(place, _)| is_anybodys(*place)) {
            let row = routed[place].0 as usize;
            let at = (visible_us(row), first.plus(row));
            let mut refused = self.refused.lock();
            if refused.as_ref().is_none_or(|(other, _)| at < *other) {
                *refused = Some((at, feature.to_owned()));
            }
        }
        self.failed.lock().add(&failed.placed(|place| is_anybodys(place as usize).then_some(place)));
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

pub(crate) fn buckets() -> Vec<Mutex<Vec<Chunk>>> {
    (0..BUCKETS).map(|_| Mutex::default()).collect()
}

/// In how many turns buckets are filled with events that take so much memory.
pub(crate) fn turns_of(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(TURN_BYTES)).unwrap_or(BUCKETS).clamp(1, BUCKETS)
}

/// The buckets whose turn it is.
pub(crate) fn turn(turn: usize, turns: usize) -> Vec<usize> {
    (0..BUCKETS).filter(|bucket| bucket % turns == turn).collect()
}
