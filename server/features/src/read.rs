//! How is a source read once for all who ask about it?

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use quern_engine::asof::Address;
use quern_engine::{Stamps, ViewPlan};
use quern_store::history::Scan;

use crate::error::{Error, Result};

/// Takes rows in, of which the first lies there.
pub(crate) type Visit<'a> = dyn Fn(&RecordBatch, Address) -> Result<()> + Sync + 'a;

/// Who reads a source: which columns of which units (ascending), and what is done with each batch of rows, given the
/// address of its first.
pub(crate) struct Visitor<'a> {
    pub(crate) columns: &'a [String],
    pub(crate) units: &'a [usize],
    pub(crate) visit: Box<Visit<'a>>,
}

/// Reads each unit once for all its visitors, by as many threads as read it best.
pub(crate) fn read_once(scan: &Scan, visitors: &[Visitor]) -> Result<()> {
    let mut units: Vec<usize> = visitors.iter().flat_map(|visitor| visitor.units).copied().collect();
    units.sort_unstable();
    units.dedup();
    for_each(scan.readers(), &units, |unit| {
        let visitors = visitors.iter().filter(|visitor| visitor.units.binary_search(&unit).is_ok());
        let mut columns = Vec::new();
        let shares: Vec<(&Visitor, Vec<usize>)> =
            visitors.map(|visitor| (visitor, places(&mut columns, visitor.columns))).collect();
        let first = Address::new(scan.units[unit].file, scan.units[unit].first_row);
        scan.read(unit, &columns, None, &mut |offset, rows| {
            shares
                .iter()
                .try_for_each(|(visitor, share)| (visitor.visit)(&rows.project(share)?, first.plus(offset)))
        })
    })
}

/// The places of `names` among `columns`, which grow by those that are missing.
pub(crate) fn places(columns: &mut Vec<String>, names: &[String]) -> Vec<usize> {
    let place = |name: &String| {
        columns.iter().position(|known| known == name).unwrap_or_else(|| {
            columns.push(name.clone());
            columns.len() - 1
        })
    };
    names.iter().map(place).collect()
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

/// The file of a row, and its place there from 1, for messages.
pub(crate) fn place_of(scan: &Scan, address: Address) -> String {
    format!("{}, row {}", file_of(scan, address), address.row() + 1)
}

fn file_of(scan: &Scan, address: Address) -> &str {
    let unit = scan.units.iter().find(|unit| unit.file == address.file());
    unit.map_or("pushed rows", |unit| scan.name(unit))
}

/// Keys, times and filter of rows of a file, of which the first lies there.
pub(crate) fn stamps(scan: &Scan, view: &ViewPlan, rows: &RecordBatch, first: Address) -> Result<Stamps> {
    let of_file = |what: &dyn Display| format!("`{}`: {what}", file_of(scan, first));
    view.stamps(rows).map_err(|error| Error::from(error).told(of_file))
}

/// How many threads compute best.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each of `items` on so many threads; the first error stops the rest.
pub(crate) fn for_each(
    threads: usize,
    items: &[usize],
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let threads = threads.min(items.len());
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
