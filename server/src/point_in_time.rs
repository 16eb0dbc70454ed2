//! What did history say about these keys at these times? The point-in-time join over the files of a source.
//!
//! Two passes. The first reads keys, times and the filter's columns of every row that could matter, and lets them
//! stream past the spine. The second reads the features' columns of just the rows that were found.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{interleave, take_record_batch};
use parking_lot::Mutex;
use quern_engine::asof::{Address, AsOf, Matches, TimeRule};
use quern_engine::key::Keys;
use quern_engine::{Found, RowState, ViewPlan};

use crate::error::{Error, Result};
use crate::store::history::Scan;
use crate::{Deployment, Quern};

/// Keys and query times of one view, row by row.
pub struct Question<'a> {
    /// The view.
    pub view: &'a ViewPlan,
    /// The keys.
    pub keys: &'a Keys,
    /// The query times, µs.
    pub query_times_us: &'a [i64],
    /// The places of the features wanted among the view's.
    pub features: &'a [usize],
    /// Rows created after the query time are invisible.
    pub as_known: bool,
    /// Whether an expired row must be told from none. Without it, rows that are too old to count are not even read.
    pub expired: bool,
}

/// The answer to a [`Question`], row by row, kept as the rows of history that it needs.
pub struct Answer {
    /// For each feature the pieces that were read; the first piece is one null.
    pub(crate) pieces: Vec<Vec<ArrayRef>>,
    /// Piece and row of each answer; (0, 0) is null.
    pub(crate) places: Vec<(usize, usize)>,
    pub(crate) states: Vec<RowState>,
    /// Of rows; empty where the answers are aggregates of many.
    pub(crate) event_timestamps_us: Vec<i64>,
}

impl Answer {
    /// The answers to the questions in `rows`.
    pub fn found(&self, rows: Range<usize>) -> Result<Found> {
        let places = &self.places[rows.clone()];
        let columns = self.pieces.iter().map(|pieces| {
            let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
            interleave(&pieces, places)
        });
        Ok(Found {
            columns: columns.collect::<std::result::Result<_, _>>()?,
            states: self.states[rows.clone()].to_vec(),
            event_timestamps: self.event_timestamps_us.get(rows).unwrap_or_default().to_vec(),
            absent: Vec::new(),
        })
    }
}

/// Asks history. Reads files: call it where blocking is allowed.
pub fn ask(quern: &Quern, live: &Deployment, question: &Question) -> Result<Answer> {
    let scan = open(quern, live, question.view)?;
    if let Some(windows) = &question.view.windows {
        return crate::windows::ask(&scan, windows, question);
    }
    let matches = find(&scan, question)?;
    fetch(&scan, question, matches)
}

/// The files of the view's source.
pub(crate) fn open(quern: &Quern, live: &Deployment, view: &ViewPlan) -> Result<Scan> {
    let source = &live.catalog.definitions.sources[&view.source];
    quern.history.open(source, &live.source_schemas[&view.source])
}

fn find(scan: &Scan, question: &Question) -> Result<Matches> {
    let view = question.view;
    if u32::try_from(question.keys.len()).is_err() {
        return Err(Error::TooLarge("a spine holds at most 4,294,967,295 rows; send it in parts".into()));
    }
    let rule = TimeRule { lag_us: view.lag_us, ttl_us: view.ttl_us, as_known: question.as_known };
    let spine = AsOf::new(question.keys, question.query_times_us, rule);
    let first_us = if question.expired { None } else { spine.first_counting_us() };
    let Some(last_us) = spine.last_visible_us() else { return Ok(spine.finish()) };
    let units: Vec<usize> = (0..scan.units.len())
        .filter(|unit| {
            let Some((min_us, max_us)) = scan.units[*unit].times else { return true };
            min_us <= last_us && first_us.is_none_or(|first_us| max_us >= first_us)
        })
        .collect();
    let spine = parking_lot::RwLock::new(spine);
    for_each(&units, |unit| {
        let Unit { file, first_row } = Unit::of(scan, unit);
        scan.read(unit, view.stamp_columns(), None, &mut |offset, rows| {
            let stamps = view.stamps(&rows)?;
            let start = first_row + offset as u64;
            let candidates = spine.read().candidates(&stamps, |row| Address::new(file, start + row as u64));
            spine.write().offer(&candidates);
            Ok(())
        })
    })?;
    Ok(spine.into_inner().finish())
}

struct Unit {
    file: u32,
    first_row: u64,
}

impl Unit {
    fn of(scan: &Scan, unit: usize) -> Unit {
        Unit { file: scan.units[unit].file, first_row: scan.units[unit].first_row }
    }
}

/// Rows of one unit that are wanted, ascending, relative to the unit.
pub(crate) struct Selection {
    pub(crate) unit: usize,
    pub(crate) rows: Vec<u32>,
    /// How many rows were selected from the units before.
    pub(crate) before: usize,
}

/// Which units hold `addresses` (ascending, distinct), and at which rows.
pub(crate) fn select(scan: &Scan, addresses: impl Iterator<Item = Address>) -> Vec<Selection> {
    let mut selections: Vec<Selection> = Vec::new();
    let mut unit = 0;
    for (before, address) in addresses.enumerate() {
        let covers = |unit: usize| {
            let u = &scan.units[unit];
            u.file == address.file() && address.row() < u.first_row + u.rows
        };
        while !covers(unit) {
            unit += 1;
        }
        let row = (address.row() - scan.units[unit].first_row) as u32;
        match selections.last_mut() {
            Some(selection) if selection.unit == unit => selection.rows.push(row),
            _ => selections.push(Selection { unit, rows: vec![row], before }),
        }
    }
    selections
}

/// Reads the selected rows; `visit` gets the number of selected rows before each batch. Where most of a unit is
/// wanted, skipping costs more than reading, and the rest is dropped after.
pub(crate) fn read_selected(
    scan: &Scan,
    selection: &Selection,
    columns: &[String],
    visit: &mut dyn FnMut(usize, RecordBatch) -> Result<()>,
) -> Result<()> {
    let Selection { unit, rows, before } = selection;
    if rows.len() as u64 * 16 < scan.units[*unit].rows {
        return scan.read(*unit, columns, Some(rows), &mut |offset, batch| visit(before + offset, batch));
    }
    let mut done = 0;
    scan.read(*unit, columns, None, &mut |offset, batch| {
        let end = (offset + batch.num_rows()) as u32;
        let count = rows[done..].partition_point(|row| *row < end);
        if count == 0 {
            return Ok(());
        }
        let start = done;
        done += count;
        if count == batch.num_rows() {
            return visit(before + start, batch);
        }
        let picked = UInt32Array::from_iter_values(rows[start..done].iter().map(|row| row - offset as u32));
        visit(before + start, take_record_batch(&batch, &picked)?)
    })
}

fn fetch(scan: &Scan, question: &Question, matches: Matches) -> Result<Answer> {
    let view = question.view;
    let event_timestamps_us = matches.stamps.iter().map(|stamp| stamp.ts_us).collect();
    let mut wanted: Vec<(Address, u32)> = matches
        .stamps
        .iter()
        .zip(&matches.states)
        .enumerate()
        .filter(|(_, (_, state))| **state == RowState::Present)
        .filter_map(|(row, (stamp, _))| Some((stamp.address()?, row as u32)))
        .collect();
    drop(matches.stamps);
    wanted.sort_unstable();
    let mut addresses: Vec<Address> = wanted.iter().map(|(address, _)| *address).collect();
    addresses.dedup();

    let pieces = Mutex::new(Vec::<(usize, Vec<ArrayRef>)>::new());
    let selections = select(scan, addresses.iter().copied());
    let order: Vec<usize> = (0..selections.len()).collect();
    for_each(&order, |i| {
        read_selected(scan, &selections[i], view.row_columns(), &mut |before, rows| {
            let columns = view.features(&rows, question.features)?;
            pieces.lock().push((before, columns));
            Ok(())
        })
    })?;
    let mut pieces = pieces.into_inner();
    pieces.sort_unstable_by_key(|(before, _)| *before);

    let mut places = vec![(0, 0); question.keys.len()];
    let (mut piece, mut index) = (0, 0);
    for (i, (address, row)) in wanted.iter().enumerate() {
        if i > 0 && *address != wanted[i - 1].0 {
            index += 1;
        }
        while pieces.get(piece + 1).is_some_and(|(before, _)| *before <= index) {
            piece += 1;
        }
        places[*row as usize] = (piece + 1, index - pieces[piece].0);
    }
    let columns = question.features.iter().enumerate().map(|(i, feature)| {
        let null = new_null_array(view.features.field(*feature).data_type(), 1);
        std::iter::once(null).chain(pieces.iter().map(|(_, columns)| columns[i].clone())).collect()
    });
    Ok(Answer { pieces: columns.collect(), places, states: matches.states, event_timestamps_us })
}

/// Does `work` for each of `items` on as many threads as there are cores; the first error stops the rest.
pub(crate) fn for_each(items: &[usize], work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().try_for_each(|item| work(*item));
    }
    let (next, failed, error) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Err(e) = work(*item) {
                        failed.store(true, Ordering::Relaxed);
                        error.lock().get_or_insert(e);
                    }
                }
            });
        }
    });
    error.into_inner().map_or(Ok(()), Err)
}
