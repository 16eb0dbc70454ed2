//! What is known of what was pushed before? Asked for once for many keys.

use std::collections::HashMap;

use quern_store::Result;
use quern_store::log::{Log, Seen, SeenKey};

/// What was seen, asked for once for many keys.
#[derive(Default)]
pub(super) struct Memory(HashMap<SeenKey, Option<Seen>>);

impl Memory {
    /// Asks for what is known of `keys`, where asking is expensive.
    pub(super) fn fetch(&mut self, log: &Log, keys: Vec<SeenKey>, now_us: i64) -> Result<()> {
        if let Some(shared) = log.shared() {
            let found = shared.log.seen(&keys, now_us)?;
            self.0.extend(keys.into_iter().zip(found));
        }
        Ok(())
    }

    /// What is known of each of `keys` at `now_us`.
    pub(super) fn seen(&self, log: &Log, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match keys.iter().map(|key| self.0.get(key).cloned()).collect() {
            Some(known) => Ok(known),
            None => log.seen(keys, now_us),
        }
    }
}
