//! How does a server come by what others took?
//!
//! Of a log that servers share each has a copy, which it brings up to date before it reads. It asks how far the log is,
//! and fetches what comes after what it has; what the log has no more lies in segments. Who asks keeps nobody waiting;
//! only rows that are there are added in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Pushed;
use crate::error::{Error, Result};
use crate::log::{Logged, Position, SharedLog, State};

/// How long one waits for another who fetches the same rows.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a log that several servers write has been copied.
#[derive(Debug)]
pub(super) struct Copied {
    log: Arc<SharedLog>,
    /// Up to which commit the copy has all rows of each source. Held while rows are added to it.
    until: Mutex<Until>,
}

type Until = BTreeMap<String, Position>;

impl Copied {
    pub(super) fn of(log: Arc<SharedLog>) -> Copied {
        Copied { log, until: Mutex::default() }
    }

    /// Adds what the log has of `source`, or of each, and the copy has not.
    pub(super) fn refresh(&self, pushed: &Pushed, source: Option<&str>) -> Result<()> {
        for (source, state) in self.log.states(source)? {
            let mut until = self.lock()?;
            let known = until.get(&source).copied().unwrap_or_default();
            if known.number <= state.last.number {
                self.bring(pushed, (&source, state), &mut until)?;
                continue;
            }
            // Who had the lock before may have brought more; or the log is from before what was copied.
            let state = self.log.states(Some(&source))?.remove(&source).unwrap_or_default();
            self.bring(pushed, (&source, state), &mut until)?;
        }
        Ok(())
    }

    /// The same of sources that nobody takes further than `lasts` now.
    pub(super) fn refresh_to(&self, pushed: &Pushed, lasts: &BTreeMap<String, Position>) -> Result<()> {
        for (source, last) in lasts {
            let mut until = self.lock()?;
            // Asked for only where there is something to fetch.
            if until.get(source).copied().unwrap_or_default() != *last {
                let state = self.log.states(Some(source))?.remove(source).unwrap_or_default();
                self.bring(pushed, (source, state), &mut until)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Until>> {
        let late = || Error::busy("rows that other servers took are still on their way here");
        self.until.try_lock_for(PATIENCE).ok_or_else(late)
    }

    fn bring(&self, pushed: &Pushed, (source, state): (&str, State), until: &mut Until) -> Result<()> {
        if state.sealed > pushed.of(source).sealed() && pushed.is_shared() {
            pushed.adopt(source)?;
        }
        let known = until.get(source).copied().unwrap_or_default();
        if known == state.last {
            return Ok(());
        }
        if !self.fetch(pushed, (source, known, state), until)? {
            tracing::error!(
                source,
                "the log of pushed rows is from before what was read of it; its rows are read once more"
            );
            pushed.forget(source)?;
            until.remove(source);
            self.fetch(pushed, (source, Position::default(), state), until)?;
        }
        Ok(())
    }

    /// Adds the rows that come after commit `known`; or nothing where the log did not go through that.
    fn fetch(
        &self,
        pushed: &Pushed,
        (source, known, State { last, forgotten, .. }): (&str, Position, State),
        until: &mut Until,
    ) -> Result<bool> {
        if known.number >= last.number && known.number > 0
            || known.number == forgotten.number && known != forgotten
        {
            return Ok(false);
        }
        // What the log has forgotten lies in segments.
        let mut is_ours = known.number <= forgotten.number;
        let (from, end) = match is_ours {
            true => (forgotten.number, pushed.of(source).end()),
            false => (known.number - 1, 0),
        };
        self.log.after(source, (from, end), &mut |logged| {
            is_ours |= logged.position == known;
            if is_ours {
                pushed.append_at(source, logged.first, logged.history)?;
                until.insert(source.to_owned(), logged.position);
            }
            Ok(())
        })?;
        if is_ours {
            until.entry(source.to_owned()).or_insert(forgotten);
        }
        Ok(is_ours)
    }

    /// Adds rows that this server has just written into the log.
    pub(super) fn committed(&self, pushed: &Pushed, rows: Vec<Logged>) -> Result<()> {
        let mut until = self.lock()?;
        for Logged { source, first, history, position, .. } in rows {
            pushed.append_at(&source, first, history)?;
            until.insert(source, position);
        }
        Ok(())
    }
}
