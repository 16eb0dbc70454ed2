//! What is known of what was pushed before? Asked for once for many keys.

use std::collections::{BTreeMap, HashMap};

use quern_store::log::{Log, Position, Seen, SeenAt, SeenKey};

use crate::error::{Error, Result};

/// What was seen, asked for once for many keys.
#[derive(Default)]
pub(super) struct Memory(HashMap<SeenKey, Option<Seen>>);

impl Memory {
    /// Asks for what is known of `keys`, where asking is expensive.
    ///
    /// # Errors
    /// `Kind::Unavailable` where others have seen more than what the turn is about, whose last commits are `lasts`: it
    /// was lost, and what they saw may be lost as well.
    pub(super) fn fetch(
        &mut self,
        log: &Log,
        keys: Vec<SeenKey>,
        (now_us, lasts): (i64, &BTreeMap<String, Position>),
    ) -> Result<()> {
        let Some(shared) = log.shared().filter(|_| !keys.is_empty()) else { return Ok(()) };
        let sources: Vec<&str> = lasts.keys().map(String::as_str).collect();
        let SeenAt { seen, lasts: there } = shared.log.seen_at(&keys, now_us, &sources)?;
        let is_there =
            |(source, last): (&String, &Position)| there.get(source).copied().unwrap_or_default() == *last;
        if !lasts.iter().all(is_there) {
            return Err(Error::busy("another server pushed in between"));
        }
        self.0.extend(keys.into_iter().zip(seen));
        Ok(())
    }

    /// What is known of each of `keys` at `now_us`.
    pub(super) fn seen(&self, log: &Log, keys: &[SeenKey], now_us: i64) -> Result<Vec<Option<Seen>>> {
        match keys.iter().map(|key| self.0.get(key).cloned()).collect() {
            Some(known) => Ok(known),
            None => Ok(log.seen(keys, now_us)?),
        }
    }
}
