//! How does the head follow the log?
//!
//! What a group of pushes changes and how far the head has come with it are written in one step, which a loss of power
//! may undo: the log has it still.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;

use super::{APPLIED, Head, Rows, in_order};
use crate::error::Result;
use crate::position::{Position, Standing};

/// What a group of pushes changes, all of it or nothing.
#[derive(Default)]
pub struct Commit {
    /// Rows of distinct keys; each replaces what is stored unless that is later.
    pub rows: Rows,
    /// Tiles of distinct keys, made from what is stored.
    pub tiles: Rows,
    /// What each was made from, where that was sent over a network.
    pub made_from: Vec<Option<Vec<u8>>>,
    /// How far the head follows the log from then on.
    pub applied: Vec<Applied>,
}

/// How far the head follows the log of a source.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The source.
    pub source: String,
    /// How far it was.
    pub from: Standing,
    /// How far it is.
    pub to: Position,
}

impl Applied {
    /// The same once it is begun.
    #[must_use]
    pub fn begun(mut self) -> Applied {
        self.from.begun = self.to;
        self
    }
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
        for i in commit.tiles.in_key_order() {
            let (key, tiles) = commit.tiles.get(i);
            batch.put_cf(self.rows(), key, tiles);
        }
        for Applied { source, to, .. } in &commit.applied {
            batch.put_cf(self.meta(), [APPLIED, source.as_bytes()].concat(), to.bytes());
        }
        self.db.write_opt(batch, &in_order())?;
        let applied = commit.applied.iter().map(|applied| (applied.source.clone(), applied.to));
        self.applied.write().extend(applied);
        Ok(())
    }

    /// How far the head follows the log of `source`.
    pub fn applied(&self, source: &str) -> Position {
        self.applied.read().get(source).copied().unwrap_or_default()
    }

    /// The same of every source.
    pub fn all_applied(&self) -> BTreeMap<String, Position> {
        self.applied.read().clone()
    }

    /// Makes everything that was written until now survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}
