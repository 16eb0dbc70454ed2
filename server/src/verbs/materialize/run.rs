//! What does one run do for one view?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use quern_base::points::pass;
use quern_engine::time::visible_from;
use quern_engine::windows::{LIFETIME_TAIL_US, Windows};
use quern_engine::{Stamps, ViewPlan};
use quern_features::Units;
use quern_features::write::{Failures, LatestRows, Passed, Said, Stretch, Sweep, ViewWriter};
use quern_store::history::{PUSHED, Scan};
use quern_store::rocks::{Rows, Upserted};
use quern_wire::{MaterializeRequest, Progress, ViewSummary};

use super::covered::is_plain;
use super::files::{Files, OfHeadAlone};
use super::{LOOK_BACK_DEFAULT_US, Materialize};
use crate::error::Result;
use crate::live::Deployment;
use crate::runs::Outcome;

/// What is asked of one view.
pub(super) struct Asked<'a> {
    pub(super) request: &'a MaterializeRequest,
    pub(super) now_us: i64,
    /// Up to when it is materialized.
    pub(super) watermark: Option<i64>,
    /// Whether all of history is read, and what it does not say goes out of the head.
    pub(super) mends: bool,
}

impl Asked<'_> {
    fn to_us(&self) -> i64 {
        let to_us = self.request.to_us.unwrap_or(self.now_us);
        // What is beyond is in the head, and stays.
        if self.mends { to_us.max(self.watermark.unwrap_or(i64::MIN)) } else { to_us }
    }

    fn look_back_us(&self) -> i64 {
        self.request.look_back_us.unwrap_or(LOOK_BACK_DEFAULT_US)
    }
}

pub(super) struct Run<'a> {
    verb: &'a Materialize,
    live: &'a Deployment,
    view: &'a ViewPlan,
    scan: Scan,
    /// The number of the first pushed row that is not in the scan.
    pushed_end: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
    done: AtomicU64,
    /// What the first pass over the rows of the scan has found.
    found: Option<LatestRows>,
    /// Whether there was nothing new for the view, so that the scan was not read.
    is_unread: bool,
    /// Values of the view that could not be computed.
    pub(super) failed: Failures,
    /// The newest event of the view that was passed.
    newest_us: Option<i64>,
    /// What the head of the view was made of, beside the files of the scan.
    files: Files,
    /// How many rows went out of the head.
    removed: u64,
}

impl<'a> Run<'a> {
    pub(super) fn begin(
        verb: &'a Materialize,
        live: &'a Deployment,
        view: &'a ViewPlan,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Result<Run<'a>> {
        // No push is half in history and half in the head.
        let _order = verb.in_order(live, view)?;
        let scan = live.compiled.open(&verb.history, view)?;
        let pushed_end = verb.history.pushed.of(&view.source).end();
        let (done, failed) = (AtomicU64::new(0), Failures::default());
        Ok(Run {
            verb,
            live,
            view,
            scan,
            pushed_end,
            progress,
            done,
            found: None,
            is_unread: false,
            failed,
            newest_us: None,
            files: Files::default(),
            removed: 0,
        })
    }

    /// Whether `view` finds the same rows in the scan.
    pub(super) fn reads_as(&self, view: &ViewPlan) -> bool {
        if self.is_unread {
            return view.source == self.view.source;
        }
        self.found.is_some() && view.windows.is_none() && view.stamps_as(self.view)
    }

    /// The same for another view.
    pub(super) fn go_on(self, view: &'a ViewPlan) -> Result<Run<'a>> {
        self.verb.in_order(self.live, view)?;
        let (done, failed) = (AtomicU64::new(0), Failures::default());
        Ok(Run { view, done, failed, is_unread: false, newest_us: None, removed: 0, ..self })
    }

    pub(super) fn run(&mut self, asked: &Asked<'_>) -> Result<ViewSummary> {
        let (head, id) = (&self.verb.head, self.view.id);
        self.files.compare(head, id, &self.scan)?;
        let asked = &Asked { mends: self.files.mend(asked.request), ..*asked };
        if !asked.mends && self.has_nothing_new(asked) {
            return self.go_ahead(asked);
        }
        self.files.begin(head, id)?;
        let summary = match &self.view.windows {
            Some(windows) => self.run_windows(windows, asked)?,
            None => self.run_rows(asked)?,
        };
        self.files.end(head, id, asked.request)?;
        self.note_covered(asked, &summary);
        Ok(summary)
    }

    /// Whether the head has all that the run would bring in.
    fn has_nothing_new(&self, asked: &Asked<'_>) -> bool {
        let head = &self.verb.head;
        let is_kept =
            |windows: &Arc<Windows>| head.kept(self.view.id).is_some_and(|kept| *kept == windows.kept());
        is_plain(asked.request)
            && self.view.windows.as_ref().is_none_or(is_kept)
            && self.verb.covered.has(self.view, &self.scan, asked.watermark, asked.to_us())
    }

    /// Says that the head has all up to now.
    fn go_ahead(&mut self, asked: &Asked<'_>) -> Result<ViewSummary> {
        let started = Instant::now();
        self.verb.head.set_watermark(self.view.id, asked.to_us())?;
        self.verb.covered.note(self.view.id, &self.scan, asked.to_us());
        self.is_unread = true;
        Ok(self.summary(asked.to_us(), Upserted::default(), &Passed::default(), started))
    }

    /// Notes that it has read all that there is, where it has.
    fn note_covered(&self, asked: &Asked<'_>, summary: &ViewSummary) {
        // Who runs it again is to hear again what is wrong with which rows.
        if is_plain(asked.request) && summary.failed.is_empty() && summary.rejected.is_empty() {
            self.verb.covered.note(self.view.id, &self.scan, summary.to_us);
        }
    }

    /// The tiles of a view with windows: those of whole days are rebuilt from all of their events, so late ones
    /// and repetitions fall into place.
    fn run_windows(&mut self, windows: &Windows, asked: &Asked<'_>) -> Result<ViewSummary> {
        let started = Instant::now();
        let (head, id, request) = (&self.verb.head, self.view.id, asked.request);
        let watermark = asked.watermark.filter(|watermark_us| *watermark_us != i64::MIN);
        let kept = head.kept(id);
        let is_kept = kept.as_ref().is_some_and(|kept| kept.holds(&windows.kept()));
        if let Some(kept) = kept {
            // Before the first key is stored again: from then on no more is kept than both keep.
            let common = kept.common(&windows.kept());
            if *kept != common {
                head.set_kept(id, common)?;
                pass("materialize: less is kept");
            }
        }
        let to_us = asked.to_us().max(watermark.unwrap_or(i64::MIN));
        let look_back_us = asked.look_back_us();
        let from_us = watermark.filter(|_| is_kept && !asked.mends).map_or(i64::MIN, |watermark_us| {
            let from_us = watermark_us.saturating_sub(look_back_us).min(request.from_us.unwrap_or(i64::MAX));
            let from_us = from_us.min(self.files.visible_since_us(self.view));
            // Of what lies further back, windows over all time keep no days.
            let days_us = watermark_us.saturating_sub(LIFETIME_TAIL_US - LOOK_BACK_DEFAULT_US);
            if windows.has_lifetime() && from_us < days_us { i64::MIN } else { Windows::cut_us(from_us) }
        });
        head.begin(id)?;
        let units = Units::visible(&self.scan, self.view, from_us..=i64::MAX)?;
        let total_rows = units.rows(&self.scan);
        let seen = Mutex::new(Passed { filtered: units.filtered, ..Passed::default() });
        let note = |stamps: &Stamps, rows: usize| {
            seen.lock().note(stamps, rows);
            self.advance(rows, total_rows);
        };
        let last_us = self.scan.units.iter().filter(|unit| unit.file != PUSHED).map(|unit| {
            unit.times.map_or(to_us, |(_, max_us)| visible_from(max_us, self.view.lag_us).min(to_us))
        });
        if let Some(last_us) = last_us.max() {
            head.set_files_until(id, last_us)?;
            pass("materialize: files noted");
        }
        let (keys, kept, since, at) = (None, windows.kept(), self.pushed_end, None);
        let order = || self.verb.order_of(self.view);
        let (failed, said) = (&self.failed, asked.mends.then(Said::default));
        let stretch = Stretch {
            from_us,
            to_us,
            keys,
            kept,
            since,
            at,
            order: Some(&order),
            failed,
            said: said.as_ref(),
        };
        let upserted = self.writer().bring_in_events(&self.scan, &stretch, &note)?;
        let removed = said.map_or(Ok(0), |said| self.sweep((said, to_us), None))?;
        if from_us == i64::MIN {
            // Who serves other definitions may have pushed into tiles what these keep no more.
            let _order = self.verb.in_order(self.live, self.view)?;
            pass("materialize: before what is kept");
            head.set_kept(id, windows.kept())?;
        }
        pass("materialize: tiles in, no watermark");
        head.set_watermark(id, self.failed.until(to_us))?;
        let seen = seen.into_inner();
        (self.newest_us, self.removed) = (seen.newest_us, removed);
        Ok(self.summary(to_us, upserted, &seen, started))
    }

    /// Brings the latest rows of a view without windows in.
    fn run_rows(&mut self, asked: &Asked<'_>) -> Result<ViewSummary> {
        let started = Instant::now();
        let (head, id, request) = (&self.verb.head, self.view.id, asked.request);
        let (watermark, to_us) = (asked.watermark, asked.to_us());
        let since_us = watermark
            .filter(|_| !asked.mends)
            .map(|watermark_us| watermark_us.saturating_sub(asked.look_back_us()))
            .map(|since_us| since_us.min(self.files.visible_since_us(self.view)));
        let visible_us = request.from_us.or(since_us).unwrap_or(i64::MIN)..=to_us;
        head.begin(id)?;
        let found = self.found.take().filter(|found| found.visible_us == visible_us);
        let progress = |rows: usize, total_rows: u64| self.advance(rows, total_rows);
        let found = match found {
            Some(found) => found,
            None => LatestRows::find(&self.scan, self.view, visible_us, (&self.verb.scratch, &progress))?,
        };
        let said = asked.mends.then(Said::default);
        let noted = (&self.failed, said.as_ref());
        let upserted = self.writer().bring_in_rows(&self.scan, &found, noted, &progress)?;
        self.removed = said.map_or(Ok(0), |said| self.sweep((said, to_us), Some(&found)))?;
        {
            // Rows that were pushed meanwhile may have been replaced by older ones of their times.
            let _order = self.verb.order_of(self.view)?;
            pass("materialize: rows in, less what was pushed");
            self.writer().bring_in_pushed(&self.scan, self.pushed_end)?;
        }
        pass("materialize: rows in, no watermark");
        // A backfill that starts behind a gap does not close the gap.
        if request.from_us.is_none_or(|from_us| watermark.is_some_and(|watermark_us| from_us <= watermark_us))
        {
            head.set_watermark(id, self.failed.until(to_us))?;
        }
        let summary = self.summary(to_us, upserted, &found.passed, started);
        self.newest_us = found.passed.newest_us;
        self.found = Some(found);
        Ok(summary)
    }

    /// Takes what the scan does not say up to `to_us` out of the head; `found` is what it says of a view of rows. Gives
    /// how many rows that were.
    fn sweep(&self, (said, to_us): (Said, i64), found: Option<&LatestRows>) -> Result<u64> {
        let (verb, live, view) = (self.verb, &self.live.compiled, self.view);
        let alone = OfHeadAlone::default();
        let of_head_alone = |out: &mut Rows| alone.add(&verb.log, (live, view), out);
        let (order, scanned) = (|| verb.order_of(view), (said, to_us, self.pushed_end));
        Ok(Sweep::new(self.writer(), &self.scan, scanned, (&order, &of_head_alone)).run(found)?)
    }

    /// What it did about files that are gone.
    pub(super) fn mended(&self, request: &MaterializeRequest) -> Option<String> {
        self.files.said(self.view, request, self.removed)
    }

    fn writer(&self) -> ViewWriter<'_> {
        let Materialize { history, head, .. } = self.verb;
        ViewWriter { history, head, source: self.live.compiled.source(self.view), view: self.view }
    }

    fn summary(&self, to_us: i64, upserted: Upserted, seen: &Passed, started: Instant) -> ViewSummary {
        let mut rejected = BTreeMap::new();
        for (why, rows) in
            [("join key is null", seen.null_keys), ("event timestamp is null", seen.null_times)]
        {
            if rows > 0 {
                rejected.insert(why.to_owned(), rows);
            }
        }
        let mut failed = self.failed.failed();
        failed.note("where", seen.failed as usize);
        quern_features::metrics().note_failed(&self.view.name, &failed);
        let is_strict = |name: &str| self.view.feature(name).is_some_and(|feature| self.view.strict[feature]);
        ViewSummary {
            view: self.view.name.clone(),
            to_us: self.failed.until(to_us),
            rows_read: seen.read,
            rows_written: upserted.written,
            rows_unchanged: upserted.unchanged,
            rows_older: upserted.older,
            rows_removed: self.removed,
            rows_filtered: seen.filtered,
            refused: failed.iter().filter(|(feature, _)| is_strict(feature)).map(|(_, rows)| rows).sum(),
            failed: failed.into(),
            failed_first: self.failed.first(&self.scan),
            rejected,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// What is noted of it.
    pub(super) fn outcome(&self, summary: &ViewSummary) -> Outcome {
        Outcome {
            rows_written: summary.rows_written,
            until_us: summary.to_us,
            newest_us: self.newest_us,
            refused: summary.refused,
        }
    }

    fn advance(&self, rows: usize, total_rows: u64) {
        let done_rows = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        let view = self.view.name.clone();
        (self.progress)(Progress { view, done_rows, total_rows: total_rows.max(done_rows) });
    }
}
