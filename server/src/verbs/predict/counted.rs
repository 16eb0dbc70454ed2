//! What is a version on a ramp judged by? By the requests that the route gives it, and how they end.
//!
//! Not by those that name it, by shadows, nor by rows of a table, for none of which alone anybody waits. What a caller
//! did wrong says nothing of a version.

use std::time::Instant;

use super::answer::{Patience, Store, Turn};
use super::target::{Cause, Part, Target};
use crate::error::Result;
use crate::live::ramp::condition::Outcome;

impl Target {
    /// [`Target::answer_all`], counted where the version is on a ramp.
    pub(super) async fn answer_counted(
        &self,
        store: Store<'_>,
        turn: Turn,
        patience: Patience,
    ) -> Result<Vec<Part>> {
        let version = &self.model.versions[turn.place].version;
        let tally = self.live.tallies.get(&self.model.name);
        let tally = tally.filter(|tally| tally.version == *version && patience.rows.is_none());
        let begun = Instant::now();
        let said = self.answer_all(store, turn, patience).await;
        if let Some(tally) = tally
            && let Some((failed, fell_back)) = ended(&said)
        {
            tally.count(Outcome { failed, fell_back, took: begun.elapsed() });
        }
        said
    }
}

/// Whether the version failed, and whether something else answered; none where the caller is to blame.
fn ended(said: &Result<Vec<Part>>) -> Option<(bool, bool)> {
    match said {
        Err(error) => Cause::of(error).map(|_| (true, false)),
        Ok(parts) => {
            let causes = || parts.iter().filter_map(|part| part.reason.as_ref()).map(|reason| reason.cause);
            let is_failure = |cause| !matches!(cause, Cause::Stale | Cause::Missing);
            Some((causes().any(is_failure), causes().next().is_some()))
        }
    }
}
