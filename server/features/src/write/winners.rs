//! Which row of each key is the latest, however many keys there are?
//!
//! Keys are held until they take as much as may be held, and then go to disk ([`quern_store::spill`]) with the latest
//! row that each has had so far; at the end all rows of a key are read together. What is left is a bit for each row of
//! history, and the second pass reads keys and times once more.

use std::cell::RefCell;

use parking_lot::Mutex;
use quern_engine::Stamps;
use quern_engine::asof::{Address, Latest};
use quern_store::history::{Scan, Unit};
use quern_store::spill::{Scratch, Spill};

use crate::error::Result;
use crate::read::Selection;

/// The latest row of each key among rows that are offered in any order, by any number of threads.
pub(super) struct Finding<'a> {
    scratch: &'a Scratch,
    held: Mutex<Held>,
}

struct Held {
    latest: Latest,
    spilled: Option<Spill>,
}

/// A bit for each row of a scan: whether it is the latest of its key. Units without such rows have none.
pub(crate) struct Winners {
    units: Vec<Vec<u64>>,
}

impl<'a> Finding<'a> {
    /// Nothing yet; `latest` says which rows count.
    pub(super) fn new(latest: Latest, scratch: &'a Scratch) -> Finding<'a> {
        Finding { scratch, held: Mutex::new(Held { latest, spilled: None }) }
    }

    /// Offers the rows from `first` on.
    pub(super) fn offer(&self, stamps: &Stamps, first: Address) -> Result<()> {
        let held = &mut *self.held.lock();
        held.latest.offer(stamps, |row| first.plus(row));
        if held.latest.size() > self.scratch.held_bytes {
            held.spill(self.scratch)?;
        }
        Ok(())
    }

    /// All rows have passed: which are the latest?
    pub(super) fn finish(self, scan: &Scan) -> Result<Winners> {
        let mut held = self.held.into_inner();
        let mut winners = Winners { units: vec![Vec::new(); scan.units.len()] };
        if held.spilled.is_some() {
            held.spill(self.scratch)?;
        }
        let Held { latest, spilled } = held;
        let Some(spilled) = spilled else {
            winners.mark(scan, &latest);
            return Ok(winners);
        };
        let latest = RefCell::new(latest);
        spilled.read(
            |key, stamp| latest.borrow_mut().offer_one(key, stamp),
            || {
                winners.mark(scan, &latest.borrow());
                latest.borrow_mut().clear();
            },
        )?;
        Ok(winners)
    }
}

impl Held {
    fn spill(&mut self, scratch: &Scratch) -> Result<()> {
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            None => self.spilled.insert(Spill::new(scratch)?),
        };
        self.latest.iter().try_for_each(|(key, stamp)| spilled.add(key, stamp))?;
        self.latest.clear();
        Ok(())
    }
}

impl Winners {
    fn mark(&mut self, scan: &Scan, latest: &Latest) {
        for address in latest.stamps().iter().filter_map(|stamp| stamp.address()) {
            // Units are in the order of their addresses.
            let is_before =
                |unit: &Unit| (unit.file, unit.first_row + unit.rows) <= (address.file(), address.row());
            let place = scan.units.partition_point(is_before);
            let Some(unit) = scan.units.get(place) else { continue };
            let row = (address.row() - unit.first_row) as usize;
            let bits = &mut self.units[place];
            bits.resize(unit.rows.div_ceil(64) as usize, 0);
            bits[row / 64] |= 1 << (row % 64);
        }
    }

    /// The units that have any.
    pub(crate) fn units(&self) -> Vec<usize> {
        (0..self.units.len()).filter(|unit| !self.units[*unit].is_empty()).collect()
    }

    /// Those of one unit.
    pub(crate) fn of(&self, unit: usize) -> Selection {
        let words = (0u32..).zip(&self.units[unit]);
        let rows = words.flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        });
        Selection { unit, rows: rows.collect(), before: 0 }
    }
}
