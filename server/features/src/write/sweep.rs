//! What does the head have that history does not say any more?
//!
//! Files go and change, and rows of tables do. What was made of them stays in the head, since a row only gives way to a
//! later one. So all of history is brought in again, as if for the first time, and what it says is noted by hashes
//! ([`Said`]). Then all that is stored is looked at: a key that history does not have goes out, and a row that
//! history does not have gives way to the one that it has, in one step. Tiles were rebuilt from all of their events
//! before, so of them only keys are looked at.
//!
//! Rows are pushed meanwhile. Whatever is about to go is looked at once more while pushes wait, beside all that came
//! since, and goes only if it is still what was seen.

use std::collections::HashSet;
use std::mem;

use parking_lot::Mutex;
use quern_base::points::pass;
use quern_engine::asof::{KeyTable, hash_of};
use quern_engine::time::visible_from;
use quern_store::history::{PUSHED, Scan};
use quern_store::rocks::{Rows, Upserted, Wanted};

use super::rows::newest_of;
use super::{Failures, LatestRows, TakeOrder, ViewWriter, keys_of, newest};
use crate::error::Result;
use crate::read::places;

/// How many bytes of what may have to go are held before pushes wait.
const HELD_BYTES: usize = 16 << 20;

/// What history says of a view, by the hashes of each key and of its row; of a view with windows, of keys alone.
#[derive(Default)]
pub struct Said(Mutex<Vec<(u64, u64)>>);

impl Said {
    pub(super) fn note_rows(&self, rows: &Rows) {
        self.0.lock().extend(rows.iter().map(|(key, row)| (hash_of(key), hash_of(row))));
    }

    pub(super) fn note_keys(&self, keys: &KeyTable) {
        self.0.lock().extend((0..keys.len()).map(|id| (hash_of(keys.key(id as u32)), 0)));
    }
}

/// Adds the rows that were pushed to the head alone since it was asked last, encoded. The caller keeps pushes waiting.
pub type OfHeadAlone<'a> = dyn Fn(&mut Rows) -> Result<()> + Sync + 'a;

/// Takes what history does not say out of the head of a view.
pub struct Sweep<'a> {
    writer: ViewWriter<'a>,
    scan: &'a Scan,
    order: &'a TakeOrder<'a>,
    of_head_alone: &'a OfHeadAlone<'a>,
    /// What the scan says, ascending.
    said: Vec<(u64, u64)>,
    /// Up to when rows of files count, µs.
    to_us: i64,
    besides: Mutex<Besides>,
}

/// What may be stored besides: of the head alone, of times that are yet to come, and pushed since the scan.
#[derive(Default)]
struct Besides {
    hashes: HashSet<(u64, u64)>,
    /// Rows of the head alone.
    alone: Vec<Rows>,
    /// The number of the first pushed row that is not among them.
    end: u64,
}

impl Besides {
    fn note(&mut self, rows: &Rows) {
        self.hashes.extend(rows.iter().map(|(key, row)| (hash_of(key), hash_of(row))));
    }
}

/// What is taken out.
#[derive(Default)]
struct Taken {
    rows: u64,
    /// The hashes of its keys.
    keys: HashSet<u64>,
    /// The keys of which the row is to give way.
    stale: KeyTable,
}

/// What becomes of what is stored.
#[derive(PartialEq)]
enum Fate {
    Stays,
    /// History has another row.
    GivesWay,
    Goes,
}

impl<'a> Sweep<'a> {
    /// Of a scan that says `said` up to `to_us`, and has the pushed rows before number `end`.
    pub fn new(
        writer: ViewWriter<'a>,
        scan: &'a Scan,
        (said, to_us, end): (Said, i64, u64),
        (order, of_head_alone): (&'a TakeOrder<'a>, &'a OfHeadAlone<'a>),
    ) -> Sweep<'a> {
        let mut said = said.0.into_inner();
        said.sort_unstable();
        let besides = Mutex::new(Besides { end, ..Besides::default() });
        Sweep { writer, scan, order, of_head_alone, said, to_us, besides }
    }

    /// Takes it out. `found` is what was brought in of a view of rows. Gives how many rows are gone.
    ///
    /// # Errors
    /// Those of history and head: what is done may be done again.
    pub fn run(&self, found: Option<&LatestRows>) -> Result<u64> {
        let (head, view) = (self.writer.head, self.writer.view);
        self.each_coming(&mut |rows| {
            self.besides.lock().note(rows);
            Ok(())
        })?;
        // Most of what there is, while pushes need not wait.
        self.hear()?;
        let (mut held, mut taken) = (Rows::default(), Taken::default());
        head.walk(view.id, &mut |rows| -> Result<()> {
            let besides = self.besides.lock();
            for (key, row) in rows.iter().filter(|(key, row)| self.fate(key, row, &besides) != Fate::Stays) {
                held.push(view.id, key, |out| out.extend_from_slice(row));
            }
            drop(besides);
            if held.bytes() >= HELD_BYTES {
                self.take_out(&mem::take(&mut held), &mut taken)?;
            }
            Ok(())
        })?;
        self.take_out(&held, &mut taken)?;
        if let Some(found) = found.filter(|_| !taken.stale.is_empty()) {
            let take = |rows: &Rows| self.replace(rows, &taken.stale);
            let (failed, progress) = (Failures::default(), |_, _| ());
            taken.rows += self.writer.encode_all(self.scan, found, (&failed, &progress), &take)?.written;
        }
        self.bring_in_besides(&taken.keys)?;
        Ok(taken.rows)
    }

    /// Takes out what must go, and notes the keys of which the row must give way.
    fn take_out(&self, held: &Rows, taken: &mut Taken) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let (head, view) = (self.writer.head, self.writer.view);
        let _order = (self.order)()?;
        self.hear()?;
        let besides = self.besides.lock();
        let mut going = Rows::default();
        for (key, row) in held.iter() {
            let fate = self.fate(key, row, &besides);
            // A key may be shown twice.
            if fate == Fate::Stays || !taken.keys.insert(hash_of(key)) {
                continue;
            }
            match fate {
                Fate::GivesWay => drop(taken.stale.intern(key)),
                _ => going.push(view.id, key, |out| out.extend_from_slice(row)),
            }
        }
        head.check_turn()?;
        pass("sweep: before some go");
        taken.rows += head.remove_if(&going)?;
        pass("sweep: some are gone");
        Ok(())
    }

    /// Puts those of the rows in the place of what is stored whose keys are stale.
    fn replace(&self, rows: &Rows, stale: &KeyTable) -> Result<Upserted> {
        let (head, view) = (self.writer.head, self.writer.view);
        let (mut fresh, mut wanted) = (Rows::default(), Wanted::default());
        for (key, row) in rows.iter().filter(|(key, _)| stale.find(key).is_some()) {
            fresh.push(view.id, key, |out| out.extend_from_slice(row));
            wanted.push(view.id, Some(key));
        }
        if fresh.is_empty() {
            return Ok(Upserted::default());
        }
        let _order = (self.order)()?;
        self.hear()?;
        let stored = head.get_many(&wanted)?;
        let (mut replacing, mut expected) = (Rows::default(), Vec::new());
        let besides = self.besides.lock();
        for ((key, row), stored) in fresh.iter().zip(&stored) {
            let stored = stored.as_deref();
            if stored.is_none_or(|stored| self.fate(key, stored, &besides) != Fate::Stays) {
                replacing.push(view.id, key, |out| out.extend_from_slice(row));
                expected.push(stored);
            }
        }
        head.check_turn()?;
        head.replace_if(&replacing, &expected)?.done()?;
        pass("sweep: some gave way");
        Ok(Upserted { written: replacing.len() as u64, ..Upserted::default() })
    }

    fn fate(&self, key: &[u8], row: &[u8], besides: &Besides) -> Fate {
        let is_of_rows = self.writer.view.windows.is_none();
        let hashes = (hash_of(key), if is_of_rows { hash_of(row) } else { 0 });
        let place = self.said.partition_point(|said| said.0 < hashes.0);
        let said = self.said[place..].iter().take_while(|said| said.0 == hashes.0);
        let mut is_known = false;
        for said in said {
            if *said == hashes {
                return Fate::Stays;
            }
            is_known = true;
        }
        match besides.hashes.contains(&hashes) {
            true => Fate::Stays,
            false if is_known => Fate::GivesWay,
            false => Fate::Goes,
        }
    }

    /// Notes what was pushed since it was asked last.
    fn hear(&self) -> Result<()> {
        let ViewWriter { history, source, view, .. } = self.writer;
        let besides = &mut *self.besides.lock();
        history.refresh(source)?;
        let pushed = history.pushed.of(&view.source);
        for (first, since) in pushed.since(besides.end, self.scan)? {
            if view.windows.is_some() {
                keys_of(view, &since, &mut |key, _| {
                    besides.hashes.insert((hash_of(key), 0));
                })?;
                continue;
            }
            let mut rows = Rows::default();
            newest(view, &since, first, &mut rows)?;
            besides.note(&rows);
        }
        besides.end = pushed.end();
        // Windows count what history has.
        if view.windows.is_none() {
            let mut rows = Rows::default();
            (self.of_head_alone)(&mut rows)?;
            besides.note(&rows);
            besides.alone.push(rows);
        }
        Ok(())
    }

    /// Shows the pushed rows of the scan that are yet to become visible: they are in the head since they came.
    fn each_coming(&self, visit: &mut dyn FnMut(&Rows) -> Result<()>) -> Result<()> {
        let view = self.writer.view;
        if view.windows.is_some() {
            return Ok(());
        }
        let mut columns = view.stamp_columns().to_vec();
        places(&mut columns, view.row_columns());
        let from_us = self.to_us.saturating_add(1);
        for (number, unit) in self.scan.units.iter().enumerate().filter(|(_, unit)| unit.file == PUSHED) {
            if unit.times.is_some_and(|(_, last_us)| visible_from(last_us, view.lag_us) < from_us) {
                continue;
            }
            self.scan.read(number, &columns, None, &mut |offset, batch| -> Result<()> {
                let mut rows = Rows::default();
                let first = unit.first_row + offset as u64;
                newest_of(view, (&batch, first), from_us..=i64::MAX, &mut rows)?;
                visit(&rows)
            })?;
        }
        Ok(())
    }

    /// Brings in once more what stood back behind the rows of these keys.
    fn bring_in_besides(&self, keys: &HashSet<u64>) -> Result<()> {
        let (head, view) = (self.writer.head, self.writer.view);
        if keys.is_empty() || view.windows.is_some() {
            return Ok(());
        }
        let bring_in = |rows: &Rows| -> Result<()> {
            let mut left = Rows::default();
            for (key, row) in rows.iter().filter(|(key, _)| keys.contains(&hash_of(key))) {
                left.push(view.id, key, |out| out.extend_from_slice(row));
            }
            head.upsert(&left)?;
            Ok(())
        };
        let _order = (self.order)()?;
        self.hear()?;
        self.each_coming(&mut |rows| bring_in(rows))?;
        self.besides.lock().alone.iter().try_for_each(bring_in)
    }
}
