//! How does a server come by what others took?
//!
//! Of a log that servers share each has a copy, which it brings up to date before it reads. It asks how far the log is,
//! and fetches what comes after what it has. Who asks keeps nobody waiting; only rows that are there are added in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Pushed;
use crate::error::{Error, Result};
use crate::log::{Logged, Position, SharedLog};

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
        for (source, last) in self.log.lasts(source)? {
            let mut until = self.lock()?;
            let known = until.get(&source).copied().unwrap_or_default();
            if known.number <= last.number {
                self.bring(pushed, (&source, last), &mut until)?;
                continue;
            }
            // Who had the lock before may have brought more; or the log is from before what was copied.
            let last = self.log.lasts(Some(&source))?.remove(&source).unwrap_or_default();
            self.bring(pushed, (&source, last), &mut until)?;
        }
        Ok(())
    }

    /// The same of sources that nobody takes further than `lasts` now.
    pub(super) fn refresh_to(&self, pushed: &Pushed, lasts: &BTreeMap<String, Position>) -> Result<()> {
        let mut until = self.lock()?;
        lasts.iter().try_for_each(|(source, last)| self.bring(pushed, (source, *last), &mut until))
    }

    fn lock(&self) -> Result<MutexGuard<'_, Until>> {
        let late = || Error::busy("rows that other servers took are still on their way here");
        self.until.try_lock_for(PATIENCE).ok_or_else(late)
    }

    fn bring(&self, pushed: &Pushed, (source, last): (&str, Position), until: &mut Until) -> Result<()> {
        let known = until.get(source).copied().unwrap_or_default();
        if known == last {
            return Ok(());
        }
        if known.number >= last.number || !self.fetch(pushed, (source, known), until)? {
            tracing::error!(
                source,
                "the log of pushed rows is from before what was read of it; its rows are read once more"
            );
            pushed.forget(source)?;
            until.remove(source);
            self.fetch(pushed, (source, Position::default()), until)?;
        }
        Ok(())
    }

    /// Adds the rows that come after commit `known`; or nothing where the log did not go through that.
    fn fetch(&self, pushed: &Pushed, (source, known): (&str, Position), until: &mut Until) -> Result<bool> {
        let (mut is_ours, end) = (known.number == 0, pushed.of(source).end());
        self.log.after(source, ((known.number - 1).max(0), end), &mut |logged| {
            is_ours |= logged.position == known;
            if is_ours {
                pushed.append_at(source, logged.first, logged.history)?;
                until.insert(source.to_owned(), logged.position);
            }
            Ok(())
        })?;
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
