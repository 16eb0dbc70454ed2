//! How does a log go on whose disk has failed?

use super::super::logged::Logged;
use super::LocalLog;
use super::unreadable;
use crate::error::{Kind, Result};

impl LocalLog {
    /// Opens it again where a write has failed, since RocksDB takes no more until then.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the disk fails still.
    pub fn heal(&self) -> Result<()> {
        if !self.db.has_failed() {
            return Ok(());
        }
        let mut state = self.state.lock();
        self.db.reopen()?;
        let folder = self.db.folder();
        let found = self.read_state().map_err(|error| match error.kind() {
            Kind::Unavailable => error,
            _ => unreadable(folder, error),
        })?;
        let mut unread = self.unread.lock();
        for (source, known) in &state.sources {
            let last = found.sources.get(source).map_or(0, |of| of.last.number);
            if last < known.last.number {
                return Err(unreadable(folder, format!("source `{source}` ends at commit {last}")));
            }
        }
        for (source, of) in &found.sources {
            let known = state.sources.get(source).map_or(0, |known| known.last.number);
            if of.last.number > known {
                unread.entry(source.clone()).or_insert(known);
            }
        }
        *state = found;
        self.db.mended();
        tracing::warn!(folder = %folder.display(), "the log of pushed rows is open again after its disk failed");
        Ok(())
    }

    /// Shows the groups whose commit failed, and which were there when the log was opened again; each may be shown
    /// twice.
    pub fn unread(&self, see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()> {
        let mut unread = self.unread.lock();
        while let Some(first) = unread.first_entry() {
            self.after(first.key(), *first.get(), see)?;
            first.remove();
        }
        Ok(())
    }
}
