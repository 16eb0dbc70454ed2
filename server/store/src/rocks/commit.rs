//! How does the head follow the log?
//!
//! What a group of pushes changes and how far the head has come with it are written in one step, which a loss of power
//! may undo: the log has it still.

use rocksdb::WriteBatch;

use super::{APPLIED, Head, Rows};
use crate::error::Result;

/// What a group of pushes changes, all of it or nothing.
#[derive(Default)]
pub struct Commit {
    /// Rows of distinct keys; each replaces what is stored unless that is later.
    pub rows: Rows,
    /// Tiles of distinct keys, made from what is stored.
    pub tiles: Rows,
    /// What each was made from, where that was sent over a network.
    pub made_from: Vec<Option<Vec<u8>>>,
    /// Up to which commit of the log each source is in the head from then on.
    pub applied: Vec<(String, i64)>,
}

impl Head {
    /// Brings a group of pushes in.
    pub fn commit(&self, commit: &Commit) -> Result<()> {
        let mut writes = self.writing.lock();
        *writes += 1;
        let mut batch = WriteBatch::default();
        for i in self.fresh(&commit.rows, &commit.rows.in_key_order())?.rows {
            let (key, row) = commit.rows.get(i);
            batch.put_cf(self.rows(), key, row);
        }
        for i in 0..commit.tiles.len() {
            let (key, tiles) = commit.tiles.get(i);
            batch.put_cf(self.rows(), key, tiles);
        }
        for (source, number) in &commit.applied {
            batch.put_cf(self.meta(), [APPLIED, source.as_bytes()].concat(), number.to_be_bytes());
        }
        self.db.write(batch)?;
        self.applied.write().extend(commit.applied.iter().cloned());
        Ok(())
    }

    /// Up to which commit of the log `source` is in the head; 0 where nothing is.
    pub fn applied(&self, source: &str) -> i64 {
        self.applied.read().get(source).copied().unwrap_or(0)
    }

    /// The same of every source that has any.
    pub fn all_applied(&self) -> Vec<(String, i64)> {
        self.applied.read().iter().map(|(source, number)| (source.clone(), *number)).collect()
    }

    /// Makes everything that was written until now survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}
