//! What was pushed and lies in the log alone: written into segments now, without waiting until there is much of it.

use std::sync::Arc;

use feature_defs::Operation;
use quern_access::Caller;
use quern_store::history::History;
use quern_store::log::Log;
use quern_store::turns::Turns;
use quern_wire::{SealRequest, Sealed, SealedSource};

use crate::error::{Error, Result};
use crate::live::{Deployment, Live};
use crate::seal::Tail;

/// Writes pushed rows into segments.
pub struct Seal {
    pub(crate) live: Live,
    pub(crate) history: Arc<History>,
    pub(crate) log: Log,
    pub(crate) turns: Arc<Turns>,
}

impl Seal {
    /// Writes the tails of the sources that are asked for into segments. Waits for store and registry: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// An unknown source, before anything is written; where store or registry take nothing.
    pub fn run(&self, who: &Caller, request: &SealRequest) -> Result<Sealed> {
        let live = self.live.now();
        live.seen_by(who).operate(Operation::Seal)?;
        let known = self.known(&live);
        if let Some(other) = request.sources.iter().find(|source| !known.contains(source)) {
            let known = live.instead_of(other, known.iter().map(String::as_str));
            return Err(Error::not_found(format!("no rows were pushed to a source `{other}`; {known}")));
        }
        let wanted = if request.sources.is_empty() { &known } else { &request.sources };
        let sources = wanted.iter().map(|source| self.seal(&live, source)).collect::<Result<_>>()?;
        Ok(Sealed { sources })
    }

    /// The sources that take pushes, and those that did.
    fn known(&self, live: &Deployment) -> Vec<String> {
        let sources = live.compiled.catalog.definitions.sources.values();
        let mut known: Vec<String> =
            sources.filter(|source| source.push).map(|source| source.name.clone()).collect();
        known.extend(self.history.pushed.ends().into_iter().map(|(source, _)| source));
        known.sort_unstable();
        known.dedup();
        known
    }

    fn seal(&self, live: &Arc<Deployment>, source: &str) -> Result<SealedSource> {
        if let Some(source) = live.compiled.catalog.definitions.sources.get(source) {
            // Of a log that servers share this one may not have read the last.
            self.history.refresh(source)?;
        }
        let pushed = &self.history.pushed;
        let before = pushed.of(source);
        let tail =
            Tail { history: &self.history, log: &self.log, turns: &self.turns, live: Arc::clone(live) };
        tail.seal(source)?;
        let after = pushed.of(source);
        let rows = after.sealed().saturating_sub(before.sealed());
        let segments = if rows > 0 { after.segments_from(before.sealed()) as u64 } else { 0 };
        let left = before.end().saturating_sub(after.sealed());
        Ok(SealedSource { source: source.to_owned(), rows, segments, left })
    }
}
