//! When are pushed rows written into a file?

use quern_store::history::History;
use quern_store::log::Log;
use quern_store::turns::Turns;

use crate::metrics::metrics;

/// From so many rows on, or so many bytes, the tail is written into a file.
const SEAL_ROWS: usize = 1 << 17;
const SEAL_BYTES: usize = 64 << 20;

/// Where pushed rows lie, and whose turn it is.
pub(crate) struct Tail<'a> {
    pub(crate) history: &'a History,
    pub(crate) log: &'a Log,
    pub(crate) turns: &'a Turns,
}

impl Tail<'_> {
    /// Whether what was pushed to `source` is to be written into a file.
    pub(crate) fn is_large(&self, source: &str) -> bool {
        let (rows, bytes) = self.history.pushed.of(source).tail_size();
        metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
        rows >= SEAL_ROWS || bytes >= SEAL_BYTES
    }

    /// Writes the tails that are so large into files.
    pub(crate) fn seal_large(&self) {
        for (source, _) in self.history.pushed.ends() {
            if self.is_large(&source) {
                self.seal(&source);
            }
        }
    }

    /// Writes what was pushed to `source` into files.
    pub(crate) fn seal(&self, source: &str) {
        // Whoever makes the head from history takes from the tail what came meanwhile: it stays until then.
        let Some(_alone) = self.turns.sealing() else { return };
        let sealed = self.history.pushed.seal(source).and_then(|end| self.log.sealed(source, end));
        if let Err(error) = sealed {
            tracing::warn!(
                source,
                cause = error.logged(),
                "pushed rows could not be written into a file; they stay in the tail"
            );
        }
        let (rows, _) = self.history.pushed.of(source).tail_size();
        metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
    }
}
