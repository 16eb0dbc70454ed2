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
use crate::error::{Error, Kind, Result};
use crate::log::{Commits, Logged, Position, State};

/// How long one waits for another who fetches the same rows.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a log that several servers write has been copied.
#[derive(Debug)]
pub(crate) struct Copied {
    log: Arc<dyn Commits>,
    /// Up to which commit the copy has all rows of each source. Held while rows are added to it.
    until: Mutex<Until>,
}

type Until = BTreeMap<String, Position>;

impl Copied {
    pub(crate) fn of(log: Arc<dyn Commits>) -> Copied {
        Copied { log, until: Mutex::default() }
    }

    /// Adds what the log has of `source`, or of each, and the copy has not.
    pub(crate) fn refresh(&self, pushed: &Pushed, source: Option<&str>) -> Result<()> {
        let mut states = self.log.states(source)?;
        // A log from before a source was pushed to says nothing of it.
        for (here, _) in pushed.ends() {
            if source.is_none_or(|source| source == here) {
                states.entry(here).or_default();
            }
        }
        for (source, state) in states {
            let mut until = self.lock()?;
            let known = until.get(&source).copied().unwrap_or_default();
            let state = match known.number > state.last.number {
                // Who had the lock before may have brought more; or the log is from before what was copied.
                true => self.state(&source)?,
                false => state,
            };
            self.bring(pushed, (&source, state), &mut until)?;
        }
        Ok(())
    }

    /// The same of sources that nobody takes further than `lasts` now.
    pub(crate) fn refresh_to(&self, pushed: &Pushed, lasts: &BTreeMap<String, Position>) -> Result<()> {
        for (source, last) in lasts {
            let mut until = self.lock()?;
            let known = until.get(source).copied().unwrap_or_default();
            // Asked for only where there is something to fetch, or to look at.
            if known != *last || known.number == 0 && !pushed.of(source).is_empty() {
                self.bring(pushed, (source, self.state(source)?), &mut until)?;
            }
        }
        Ok(())
    }

    fn state(&self, source: &str) -> Result<State> {
        Ok(self.log.states(Some(source))?.remove(source).unwrap_or_default())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Until>> {
        let late = || Error::busy("rows that other servers took are still on their way here");
        self.until.try_lock_for(PATIENCE).ok_or_else(late)
    }

    fn bring(&self, pushed: &Pushed, (source, state): (&str, State), until: &mut Until) -> Result<()> {
        let State { last, forgotten, sealed } = state;
        let known = until.get(source).copied().unwrap_or_default();
        let is_adopted =
            sealed <= pushed.of(source).sealed() || !pushed.is_shared() || pushed.adopt(source)?;
        // Rows of which nobody knows the commit may be from before the database came back older.
        if is_adopted && known == last && (known.number > 0 || pushed.of(source).is_empty()) {
            return Ok(());
        }
        let is_ahead = known.number > 0 && known.number >= last.number;
        let is_other = is_ahead || known.number == forgotten.number && known != forgotten;
        let is_behind = known.number == 0 || known.number < forgotten.number;
        if is_adopted && !is_other && !is_behind && self.fetch(pushed, (source, known, forgotten), until)? {
            return Ok(());
        }
        if is_other || !is_behind && is_adopted {
            tracing::error!(
                source,
                "the log of pushed rows is from before what was read of it; its rows are read once more"
            );
            pushed.disown(source)?;
        }
        self.read_anew(pushed, source, until)
    }

    /// Adds the rows that come after commit `known`; or nothing where the log did not go through that.
    fn fetch(
        &self,
        pushed: &Pushed,
        (source, known, forgotten): (&str, Position, Position),
        until: &mut Until,
    ) -> Result<bool> {
        let mut is_ours = known == forgotten;
        let from = if is_ours { known.number } else { known.number - 1 };
        self.log.after(source, (from, 0), &mut |logged| {
            is_ours |= logged.position == known;
            if is_ours {
                pushed.append_at(source, logged.first, logged.history)?;
                until.insert(source.to_owned(), logged.position);
            }
            Ok(())
        })?;
        Ok(is_ours)
    }

    /// Reads all of a source: what the registry names, and what the log has after that. Whoever reads meanwhile finds
    /// what was here before.
    fn read_anew(&self, pushed: &Pushed, source: &str, until: &mut Until) -> Result<()> {
        let before = self.state(source)?.forgotten;
        let (mut rows, mut last) = (pushed.in_segments(source)?, before);
        let named = rows.paths();
        self.log.after(source, (before.number, rows.end()), &mut |logged| {
            last = logged.position;
            rows.append_at(source, logged.first, &logged.history)
        })?;
        // What was read at several moments must be of one database: it may have come back older in between.
        if self.state(source)?.forgotten != before || pushed.in_segments(source)?.paths() != named {
            return Err(Error::busy(format!(
                "what was pushed to source `{source}` changed while it was read"
            )));
        }
        pushed.replace(source, rows);
        until.insert(source.to_owned(), last);
        Ok(())
    }

    /// As [`History::seal`](super::History::seal).
    pub(crate) fn seal(&self, pushed: &Pushed, source: &str, time: Option<&str>) -> Result<u64> {
        let before = {
            let until = self.lock()?;
            (pushed.of(source), until.get(source).copied())
        };
        match pushed.seal(source, time, before) {
            // Another server has done it; or the database came back older, and has other rows.
            Err(error) if error.kind() == Kind::Refused => {
                self.read_anew(pushed, source, &mut *self.lock()?)?;
                Ok(pushed.of(source).sealed())
            }
            sealed => sealed,
        }
    }

    /// The number of the row that comes after commit `last`.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the copy has more or less than that: a turn may be lost.
    pub(crate) fn end_at(&self, pushed: &Pushed, source: &str, last: Position) -> Result<u64> {
        let until = self.lock()?;
        match until.get(source).copied().unwrap_or_default() == last {
            true => Ok(pushed.of(source).end()),
            false => Err(Error::busy(format!("rows of source `{source}` were pushed in between"))),
        }
    }

    /// Adds rows that this server has just written into the log, after the commits `lasts`. Where the copy went on
    /// meanwhile, it is brought up to date by whoever reads next.
    pub(crate) fn committed(
        &self,
        pushed: &Pushed,
        lasts: &BTreeMap<String, Position>,
        rows: Vec<Logged>,
    ) -> Result<()> {
        let mut until = self.lock()?;
        for Logged { source, first, history, position, .. } in rows {
            let (known, last) = (until.get(&source).copied(), lasts.get(&source).copied());
            if known.unwrap_or_default() == last.unwrap_or_default() {
                pushed.append_at(&source, first, history)?;
                until.insert(source, position);
            }
        }
        Ok(())
    }
}
