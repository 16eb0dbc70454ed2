//! When are pushed rows and labels written into segments?

use std::collections::BTreeMap;
use std::sync::Arc;

use quern_base::points::pass;
use quern_store::history::History;
use quern_store::log::{Commits, Log, labelled_model};
use quern_store::turns::Turns;

use crate::error::Result;
use crate::live::Deployment;
use crate::metrics::metrics;

/// From so many rows on, or so many bytes, the tail is written into a segment.
const SEAL_ROWS: usize = 1 << 17;
const SEAL_BYTES: usize = 64 << 20;

/// The column of labels that says when one came.
pub(crate) const LABELLED_AT: &str = "labelled_at";

/// Where pushed rows lie, and whose turn it is.
pub(crate) struct Tail<'a> {
    pub(crate) history: &'a History,
    pub(crate) log: &'a Log,
    pub(crate) turns: &'a Turns,
    pub(crate) live: Arc<Deployment>,
}

impl Tail<'_> {
    /// Whether what was pushed to `source` is to be written into a segment.
    pub(crate) fn is_large(&self, source: &str) -> bool {
        let (rows, bytes) = self.history.pushed.of(source).tail_size();
        metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
        rows >= SEAL_ROWS || bytes >= SEAL_BYTES
    }

    /// Writes the tails that are so large into segments.
    pub(crate) fn seal_large(&self) {
        for (source, _) in self.history.pushed.ends() {
            if self.is_large(&source)
                && let Err(error) = self.seal(&source)
            {
                tracing::warn!(
                    source,
                    cause = error.logged(),
                    "pushed rows could not be written into a segment; they stay in the tail"
                );
            }
        }
    }

    /// Writes what was pushed to `source`, or the labels that the log has under this name, into segments; whether it
    /// could be done now.
    ///
    /// # Errors
    /// Where store or registry take nothing.
    pub(crate) fn seal(&self, source: &str) -> Result<bool> {
        let pushed = &self.history.pushed;
        let end = if labelled_model(source).is_some() {
            let Some(_alone) = self.turns.sealing_labels() else { return Ok(false) };
            self.history.seal(source, Some(LABELLED_AT))?
        } else {
            // Whoever makes the head from history takes from the tail what came meanwhile: it stays until then.
            let Some(_alone) = self.turns.sealing() else { return Ok(false) };
            let definition = self.live.compiled.catalog.definitions.sources.get(source);
            self.history.seal(source, definition.map(|source| &source.event_timestamp[..]))?
        };
        // Of a log that servers share nothing may go that only this one can read.
        if self.log.shared().is_none() || pushed.is_shared() {
            self.log.sealed(source, end)?;
        }
        let (rows, _) = pushed.of(source).tail_size();
        metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
        Ok(true)
    }

    /// Forgets in a shared log what lies in segments up to the rows of `sealed`, which have lain there for some time.
    /// Gives what lies there now.
    pub(crate) fn forget(&self, sealed: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let pushed = &self.history.pushed;
        let now = pushed.ends().into_iter().map(|(source, _)| (pushed.of(&source).sealed(), source));
        let now = now.map(|(end, source)| (source, end)).collect();
        if let (Some(shared), Some(store)) = (self.log.shared(), pushed.shared_store()?) {
            // No head needs labels.
            let is_labels = |(name, _): &(&String, &u64)| labelled_model(name).is_some();
            let (labels, sealed): (Vec<_>, Vec<_>) = sealed.iter().partition(is_labels);
            for (name, end) in labels {
                shared.log.forget_rows(name, i64::MAX, *end, &store)?;
            }
            let sources: Vec<&str> = sealed.iter().map(|(source, _)| source.as_str()).collect();
            pass("seal: before the shared log forgets");
            for (standing, (source, end)) in shared.head.standings(&sources)?.into_iter().zip(sealed) {
                shared.log.forget_rows(source, standing.applied.number, *end, &store)?;
            }
        }
        Ok(now)
    }
}
