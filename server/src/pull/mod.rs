//! How do the rows of a database become those of a source?
//!
//! A database has no places of rows that could be read again, and forgets: so what a query gives is taken into history,
//! as if it was pushed ([`Push`](crate::verbs::push::Push)), in the order of its cursor, a column that grows. How far a
//! source is pulled ([`Place`]) is written in one step with the rows, and a push that does not begin there is refused.
//! So each row counts once, whenever a server ends and however many pull. Since rows are committed late, those of an
//! overlap are asked for once more; the ones that history has already are known by their digests ([`Known`]), which are
//! made of history itself: nothing else is to be kept, and nothing is forgotten.

mod known;
mod noted;
mod place;
mod source;

use std::collections::BTreeSet;

use feature_defs::{Operation, Source};
use quern_wire::{MaterializeRequest, Progress, PullSummary, Summary};

use self::known::Known;
pub use self::noted::Pulls;
use self::place::{Form, Place};
use self::source::Pulling;
use crate::error::{Error, Result};
use crate::live::Permitted;
use crate::{Deployment, Node};

/// What became of the sources that were to be pulled.
#[derive(Debug, Default)]
struct AllPulled {
    done: Vec<PullSummary>,
    warnings: Vec<String>,
    /// Why the first failed that did.
    failed: Option<Error>,
}

impl Node {
    /// Pulls the sources of the views that are asked for, and brings the head up to date with them. Reads and waits:
    /// call it where blocking is allowed, within a runtime.
    ///
    /// # Errors
    /// Of a source that cannot be pulled, once the others are and what history has is materialized; of materialize.
    pub fn bring_up_to_date(
        &self,
        (live, permitted): (&Deployment, &Permitted),
        request: &MaterializeRequest,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Summary> {
        permitted.to(Operation::Materialize)?;
        let pulled = match request.accept_loss {
            true => AllPulled::default(),
            false => self.pull_all(live, &request.views, now_us, progress),
        };
        let mut summary = self.materialize.run((live, permitted), request, now_us, progress)?;
        if let Some(error) = pulled.failed {
            return Err(error.told(|what| format!("{what}; what history has is materialized")));
        }
        summary.pulled = pulled.done;
        summary.warnings.extend(pulled.warnings);
        Ok(summary)
    }

    /// Pulls what these views read, or all do.
    fn pull_all(
        &self,
        live: &Deployment,
        views: &[String],
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> AllPulled {
        let catalog = &live.compiled.catalog;
        let asked = catalog.views.values().filter(|view| views.is_empty() || views.contains(&view.name));
        let read: BTreeSet<&str> = asked.map(|view| view.source.as_str()).collect();
        let sources = catalog.definitions.sources.values();
        let mut all = AllPulled::default();
        for source in sources.filter(|source| source.pull.is_some() && read.contains(source.name.as_str())) {
            match self.pull_one(live, source, now_us, progress) {
                Ok((done, warnings)) => {
                    all.done.push(done);
                    all.warnings.extend(warnings);
                }
                Err(error) => _ = all.failed.get_or_insert(error),
            }
        }
        all
    }

    fn pull_one(
        &self,
        live: &Deployment,
        source: &Source,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(PullSummary, Vec<String>)> {
        let _turn = self.pulls.begin(&source.name)?;
        let pulled = Pulling::new(self, live, source, now_us).and_then(|pulling| pulling.run(progress));
        self.pulls.note(&source.name, pulled.as_ref().map(|(done, _)| done.rows), now_us);
        pulled
    }
}
