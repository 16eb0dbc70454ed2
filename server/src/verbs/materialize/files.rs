//! Which files that a head was made of are gone or have changed?
//!
//! What it is made of is noted with the head: before rows come in, with what was noted before, and as what is left once
//! a run has ended. Where a noted file is gone or has changed, the run mends: it reads all history, and takes out of
//! the head what that does not say.

use parking_lot::Mutex;
use quern_base::Failure;
use quern_base::points::pass;
use quern_engine::time::visible_from;
use quern_engine::{ViewId, ViewPlan};
use quern_features::Compiled;
use quern_features::write::newest;
use quern_store::history::{Compared, Scan, canonical};
use quern_store::log::Log;
use quern_store::made_of::MadeOf;
use quern_store::online::Online;
use quern_store::rocks::Rows;
use quern_wire::MaterializeRequest;

use crate::error::Result;

/// What the head of a view was made of, beside what there is.
#[derive(Default)]
pub(super) struct Files {
    noted: MadeOf,
    now: MadeOf,
    /// How many of the noted files are gone or have changed.
    gone: u64,
    /// From which event time (µs) on there are rows that may not be in.
    since_us: Option<i64>,
}

impl Files {
    /// Finds out what was noted of `view`, and what is left of it in `scan`; once for views of which that is the same.
    pub(super) fn compare(&mut self, head: &Online, view: ViewId, scan: &Scan) -> Result<()> {
        let noted = head.made_of(view)?;
        if self.now == MadeOf::default() || self.noted != noted {
            let Compared { now, gone, since_us } = scan.made_of(&noted)?;
            *self = Files { noted, now, gone, since_us };
        }
        Ok(())
    }

    /// Whether the head may have rows that history has no more. A backfill leaves them to the next run that is none.
    pub(super) fn mend(&self, request: &MaterializeRequest) -> bool {
        self.gone > 0 && request.from_us.is_none()
    }

    /// From which query time (µs) on rows of files that are new may have become visible to `view`, however late they
    /// came.
    pub(super) fn visible_since_us(&self, view: &ViewPlan) -> i64 {
        self.since_us.map_or(i64::MAX, |since_us| match since_us {
            i64::MIN => i64::MIN,
            since_us => visible_from(since_us, view.lag_us),
        })
    }

    /// Notes what may be in the head from now on, and that not all of it need be.
    pub(super) fn begin(&self, head: &Online, view: ViewId) -> Result<()> {
        let mut both = self.noted.union(&self.now);
        if both != self.noted {
            both.lacks_some = true;
            head.begin(view)?;
            head.set_made_of(view, &both)?;
            pass("materialize: made of more");
        }
        Ok(())
    }

    /// Notes that nothing else is in the head, unless the run was a backfill.
    pub(super) fn end(&self, head: &Online, view: ViewId, request: &MaterializeRequest) -> Result<()> {
        if request.from_us.is_none() && self.noted != self.now {
            pass("materialize: before it is made of less");
            head.set_made_of(view, &self.now)?;
        }
        Ok(())
    }

    /// Says what was done about files that are gone.
    pub(super) fn said(&self, view: &ViewPlan, request: &MaterializeRequest, removed: u64) -> Option<String> {
        let gone = self.mend(request).then_some(self.gone)?;
        let count = |count: u64, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        Some(format!(
            "feature view `{}`: of what it was made of, {} went or changed; all of its history was read again, and {} \
             went out of the head",
            view.name,
            count(gone, "file"),
            count(removed, "row")
        ))
    }
}

/// Rows that were pushed to the head alone, as far as the log has them.
#[derive(Default)]
pub(super) struct OfHeadAlone {
    /// The number of the last commit that was looked at.
    heard: Mutex<i64>,
}

impl OfHeadAlone {
    /// Adds those to `view` that were pushed since it was asked last, encoded.
    pub(super) fn add(
        &self,
        log: &Log,
        (live, view): (&Compiled, &ViewPlan),
        out: &mut Rows,
    ) -> quern_features::Result<()> {
        let mut heard = self.heard.lock();
        let (from, schema) = (*heard, &live.source_schemas[&view.source]);
        log.after(&view.source, from, &mut |logged| {
            *heard = logged.position.number;
            let Some(rows) = &logged.online else { return Ok(()) };
            let rows = canonical(rows, schema)?;
            Ok(newest(view, &rows, logged.first, out).map_err(Failure::from)?)
        })?;
        Ok(())
    }
}
