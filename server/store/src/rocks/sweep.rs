//! How does what history does not say go out of the head, while others look up and push?

use quern_engine::ViewId;
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{Head, Rows, in_order};
use crate::error::{Error, Result};

/// How many rows are looked at at once, and of how many bytes.
const WALK_ROWS: usize = 4_096;
const WALK_BYTES: usize = 4 << 20;

impl Head {
    /// Shows all stored rows of `view`, some at a time, in the order of their keys; what is written meanwhile is shown
    /// or is not.
    ///
    /// # Errors
    /// Those of the disk, and of `visit`, which end it.
    pub fn walk<E: From<Error>>(
        &self,
        view: ViewId,
        visit: &mut dyn FnMut(&Rows) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let prefix = view.0.to_be_bytes();
        let mut from = prefix.to_vec();
        loop {
            let rows = self.rows_from(view, &from)?;
            let Some((last, _)) = rows.iter().last() else { return Ok(()) };
            // The least key behind it.
            from = [&prefix, last, &[0]].concat();
            visit(&rows)?;
        }
    }

    fn rows_from(&self, view: ViewId, from: &[u8]) -> Result<Rows> {
        let mut rows = Rows::default();
        for entry in self.db.iterator_cf(self.rows(), IteratorMode::From(from, Direction::Forward)) {
            let (key, row) = entry?;
            let Some(key) = key.strip_prefix(&view.0.to_be_bytes()) else { break };
            rows.push(view, key, |out| out.extend_from_slice(&row));
            if rows.len() == WALK_ROWS || rows.bytes() >= WALK_BYTES {
                break;
            }
        }
        Ok(rows)
    }

    /// Removes rows of distinct keys, where they are still what is stored. Gives how many that were.
    pub fn remove_if(&self, rows: &Rows) -> Result<u64> {
        let sorted = rows.in_key_order();
        let mut writes = self.writing.lock();
        let (mut batch, mut removed) = (WriteBatch::default(), 0);
        for some in sorted.chunks(1_024) {
            let stored = self.db.batched_multi_get_cf(self.rows(), some.iter().map(|i| rows.get(*i).0), true);
            for (i, stored) in some.iter().zip(stored) {
                let (key, row) = rows.get(*i);
                if stored?.is_some_and(|stored| stored[..] == *row) {
                    batch.delete_cf(self.rows(), key);
                    removed += 1;
                }
            }
        }
        *writes += 1;
        self.db.write_opt(batch, &in_order())?;
        Ok(removed)
    }
}
