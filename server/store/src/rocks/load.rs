//! How do many rows of one view come in, while others look up and push?
//!
//! What costs is sorting the rows and writing them into a table file, and that needs no lock. What does need it is that
//! nothing else was written since it was found out what is stored: if something was, that is found out again.

use parking_lot::Mutex;
use quern_engine::ViewId;
use rocksdb::{Direction, IteratorMode};

use super::{Fresh, Head, INGEST_ROWS_MIN, Rows, Upserted};
use crate::error::Result;

/// Rows of one view on their way in, of which no two have the same key. Several threads may bring some each.
pub struct Load<'a> {
    head: &'a Head,
    /// How often others had written when nothing was stored of the view; none where something was.
    empty_at: Option<u64>,
    /// How often this has written.
    own: Mutex<u64>,
}

impl Head {
    /// Begins to bring rows of `view` in.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn load(&self, view: ViewId) -> Result<Load<'_>> {
        let writes = self.writing.lock();
        let prefix = view.0.to_be_bytes();
        let first = self.db.iterator_cf(self.rows(), IteratorMode::From(&prefix, Direction::Forward)).next();
        let is_empty = first.transpose()?.is_none_or(|(key, _)| !key.starts_with(&prefix));
        Ok(Load { head: self, empty_at: is_empty.then_some(*writes), own: Mutex::new(0) })
    }
}

impl Load<'_> {
    /// Brings rows in; each replaces what is stored unless that is later.
    ///
    /// # Errors
    /// Those of the disk, and of what is stored there.
    pub fn upsert(&self, rows: &Rows) -> Result<Upserted> {
        let head = self.head;
        let sorted = rows.in_key_order();
        let seen = self.others(&head.writing.lock());
        let fresh = self.fresh(rows, &sorted, seen)?;
        let is_bulk = fresh.rows.len() >= INGEST_ROWS_MIN;
        let file = is_bulk.then(|| head.table_file(rows, &fresh.rows)).transpose()?;
        let mut writes = head.writing.lock();
        let is_as_seen = self.others(&writes) == seen;
        let now = if is_as_seen { None } else { Some(head.fresh(rows, &sorted)?) };
        *self.own.lock() += 1;
        match (file, now) {
            (Some(file), None) => {
                *writes += 1;
                head.ingest(&file)?;
                Ok(fresh.upserted)
            }
            (file, now) => {
                file.map(std::fs::remove_file).transpose()?;
                let fresh = now.unwrap_or(fresh);
                head.write(rows, &fresh.rows, &mut writes)?;
                Ok(fresh.upserted)
            }
        }
    }

    /// How often others have written.
    fn others(&self, writes: &u64) -> u64 {
        writes - *self.own.lock()
    }

    /// Which of the rows are to be written, when others have written so often.
    fn fresh(&self, rows: &Rows, sorted: &[usize], others: u64) -> Result<Fresh> {
        if self.empty_at != Some(others) {
            return self.head.fresh(rows, sorted);
        }
        let upserted = Upserted { written: sorted.len() as u64, ..Upserted::default() };
        Ok(Fresh { rows: sorted.to_vec(), upserted })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use quern_base::random;

    use super::*;
    use crate::rocks::Wanted;

    const VIEW: ViewId = ViewId(7);

    /// One row for each key, at a time that looks random.
    fn rows(seed: u64, keys: std::ops::Range<u64>) -> (Rows, Vec<(u64, i64)>) {
        let (mut rows, mut times) = (Rows::default(), Vec::new());
        for key in keys {
            let ts_us = ((seed ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as i64;
            // Descending, so that they have to be sorted.
            rows.push(VIEW, &(!key).to_be_bytes(), |out| out.extend(row(ts_us)));
            times.push((key, ts_us));
        }
        (rows, times)
    }

    fn row(ts_us: i64) -> Vec<u8> {
        [&[1][..], &ts_us.to_le_bytes(), &ts_us.to_le_bytes()].concat()
    }

    #[test]
    fn whoever_writes_meanwhile_the_latest_row_of_each_key_is_left() {
        let many = INGEST_ROWS_MIN as u64 + 100;
        for is_empty in [true, false] {
            let seed = random::number();
            println!("seed {seed}");
            let folder = tempfile::tempdir().unwrap();
            let head = Head::open(folder.path()).unwrap();
            if !is_empty {
                head.upsert(&rows(seed, 0..1).0).unwrap();
            }
            let load = head.load(VIEW).unwrap();
            // Each key once in the load; others bring all of them, some at a time.
            let parts: Vec<_> = (0..4).map(|part| rows(seed + 1, part * many..(part + 1) * many)).collect();
            let others: Vec<_> =
                (0..40).map(|part| rows(seed + 2, part * many / 10..(part + 1) * many / 10)).collect();
            thread::scope(|scope| {
                for part in parts.chunks(2) {
                    scope.spawn(|| {
                        part.iter().try_for_each(|(rows, _)| load.upsert(rows).map(|_| ())).unwrap()
                    });
                }
                scope
                    .spawn(|| others.iter().try_for_each(|(rows, _)| head.upsert(rows).map(|_| ())).unwrap());
            });
            let mut latest: BTreeMap<u64, i64> = BTreeMap::new();
            for (key, ts_us) in parts.iter().chain(&others).flat_map(|(_, times)| times) {
                latest.entry(*key).and_modify(|known| *known = (*known).max(*ts_us)).or_insert(*ts_us);
            }
            let mut wanted = Wanted::default();
            latest.keys().for_each(|key| wanted.push(VIEW, Some(&(!key).to_be_bytes())));
            let stored = head.get_many(&wanted).unwrap();
            let first = rows(seed, 0..1).1[0].1;
            for ((key, ts_us), stored) in latest.iter().zip(stored) {
                let ts_us = if *key == 0 && !is_empty { (*ts_us).max(first) } else { *ts_us };
                assert_eq!(stored.as_deref(), Some(&row(ts_us)[..]), "key {key}, seed {seed}");
            }
        }
    }

    #[test]
    fn what_came_in_meanwhile_is_counted_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let head = Head::open(folder.path()).unwrap();
        let load = head.load(VIEW).unwrap();
        let (some, _) = rows(1, 0..10);
        assert_eq!(load.upsert(&some).unwrap().written, 10);
        let (others, _) = rows(2, 10..20);
        head.upsert(&others).unwrap();
        assert_eq!(load.upsert(&others).unwrap().unchanged, 10);
    }
}
