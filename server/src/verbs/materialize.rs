//! How does history become the head?
//!
//! View by view: the latest row of every key that is visible at `to`, out of the rows that became visible since the
//! watermark (less a look-back for late ones), is computed and brought in. Rows go in before the watermark moves, and
//! a row never replaces a later one: so an interrupted run leaves a head that is behind, never wrong, and the next
//! run completes it.

mod clock;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use quern_base::points::pass;
use quern_engine::time::visible_from;
use quern_engine::windows::{LIFETIME_TAIL_US, Windows};
use quern_engine::{Stamps, ViewPlan};
use quern_features::write::{Failures, LatestRows, Passed, Stretch, ViewWriter};
use quern_store::follow;
use quern_store::history::{History, PUSHED, Scan};
use quern_store::log::Log;
use quern_store::online::Online;
use quern_store::rocks::Upserted;
use quern_store::turns::{Order, Turns};
use quern_wire::{MaterializeRequest, Progress, Summary, ViewSummary};

use self::clock::{ahead, check_times, is_ahead};
use crate::degraded::{self, Degraded};
use crate::error::{Error, Result};
use crate::live::{Deployment, Live};
use crate::runs::{Outcome, Runs};
use crate::seal::Tail;

/// How far behind the watermark late rows are looked for where the request does not say, µs.
pub const LOOK_BACK_DEFAULT_US: i64 = 86_400_000_000;

const OTHER_DEFINITIONS: &str =
    "other definitions were applied and are not live here yet; materialize again in a moment";

/// Makes the head from history.
pub struct Materialize {
    pub(crate) live: Live,
    pub(crate) history: Arc<History>,
    pub(crate) head: Online,
    pub(crate) log: Log,
    pub(crate) turns: Arc<Turns>,
    pub(crate) degraded: Arc<Degraded>,
    pub(crate) runs: Arc<Runs>,
}

impl Materialize {
    /// Brings the head up to date. Reads history: call it where blocking is allowed.
    pub fn run(
        &self,
        live: &Deployment,
        request: &MaterializeRequest,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Summary> {
        let ended = self.bring_up_to_date(live, request, now_us, progress);
        self.runs.wait_until_written();
        self.degraded.note(degraded::MATERIALIZE, &ended, Instant::now());
        ended
    }

    fn bring_up_to_date(
        &self,
        live: &Deployment,
        request: &MaterializeRequest,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Summary> {
        let started = Instant::now();
        if live.number == 0 {
            return Err(Error::refused(
                "nothing is live, so there is nothing to materialize; `quern apply` first",
            ));
        }
        let views = &live.compiled.catalog.views;
        for name in &request.views {
            if !views.contains_key(name) {
                let help = live.instead_of(name, views.keys().map(String::as_str));
                return Err(Error::not_found(format!("unknown feature view `{name}`; {help}")));
            }
        }
        check_times(request, now_us)?;
        let live_now = self.live.now();
        Tail { history: &self.history, log: &self.log, turns: &self.turns, live: live_now }.seal_large();
        let _turn = self.turns.materializing()?;
        self.check_latest(live)?;
        self.head.reread_kept()?;
        if request.accept_loss {
            self.accept_loss(live)?;
        }
        let wanted = views.values().map(AsRef::as_ref).filter(|view: &&ViewPlan| {
            let source = live.compiled.source(view);
            let is_asked_for = request.views.is_empty() || request.views.contains(&view.name);
            is_asked_for && (source.batch.is_some() || source.push)
        });
        let mut wanted: Vec<&ViewPlan> = wanted.collect();
        // One after the other, those may share what they read.
        wanted.sort_by(|a, b| a.source.cmp(&b.source));
        let (mut summaries, mut warnings) = (Vec::new(), Vec::new());
        let mut before: Option<Run> = None;
        for view in wanted {
            let noted = self.runs.begin(&view.name);
            let mut ran = || -> Result<_> {
                let mut run = match before.take().filter(|before| before.reads_as(view)) {
                    Some(before) => before.go_on(view)?,
                    None => Run::begin(self, live, view, progress)?,
                };
                let watermark = self.watermark(view, now_us, &mut warnings)?;
                let asked = Asked { request, now_us, watermark };
                let summary = match &view.windows {
                    Some(windows) => run.run_windows(windows, &asked)?,
                    None => run.run_rows(&asked)?,
                };
                Ok((run, summary))
            };
            let ran = ran();
            noted.end(ran.as_ref().map(|(run, summary)| run.outcome(summary)));
            let (run, summary) = ran?;
            summaries.push(summary);
            warnings.extend(run.failed.refused());
            before = Some(run);
        }
        summaries.sort_by(|a, b| a.view.cmp(&b.view));
        // Last, so that whoever still answers from the definitions before has had the time to end.
        if let Err(error) = self.check_latest(live) {
            warnings.push(error.said());
        } else if request.views.is_empty() {
            self.head.retain(&views.values().map(|view| view.id).collect::<Vec<_>>())?;
            self.runs.keep_only(views.keys().cloned().collect());
        }
        Ok(Summary { views: summaries, wall_seconds: started.elapsed().as_secs_f64(), warnings })
    }

    /// Goes on without pushed rows that the log has lost: what the head has of them is dropped, to be made anew.
    fn accept_loss(&self, live: &Deployment) -> Result<()> {
        let sources = live.compiled.catalog.definitions.sources.values().filter(|source| source.push);
        let order = self.turns.order(&sources.map(|source| source.name.clone()).collect())?;
        self.history.refresh_to(&order.lasts)?;
        follow::accept_loss(&self.log, &self.head.bound(), &order.lasts, &mut |source| {
            self.head.drop_views(&live.compiled.views_of(source).map(|view| view.id).collect::<Vec<_>>())
        })?;
        Ok(())
    }

    /// Refuses where the servers that share the head serve something else than this one: what their views have in it
    /// would be dropped.
    fn check_latest(&self, live: &Deployment) -> Result<()> {
        let Some(shared) = self.log.shared() else { return Ok(()) };
        let latest = shared.log.applies()?;
        match latest == live.number {
            true => Ok(()),
            false => Err(Error::busy(format!(
                "apply {latest} was made and is not live at this server, which serves apply {}: it would drop from the \
                 shared head what the others need; materialize where apply {latest} is live",
                live.number
            ))),
        }
    }

    /// Which view is said to be materialized up to a time that is yet to come, as far as is known without asking.
    pub fn trouble(&self, live: &Deployment, now_us: i64) -> Option<String> {
        live.compiled.catalog.views.values().find_map(|view| {
            let until_us = self.head.materialized_until(view.id).filter(|us| is_ahead(*us, now_us))?;
            Some(format!("{}; materialize again", ahead(view, until_us, now_us)))
        })
    }

    /// Up to when the view is materialized. A watermark that lies ahead of the clock was set under another one, which
    /// says nothing of what lay in history by then: the view begins anew.
    fn watermark(&self, view: &ViewPlan, now_us: i64, warnings: &mut Vec<String>) -> Result<Option<i64>> {
        let found = self.head.watermark(view.id)?;
        let Some(ahead_us) = found.filter(|until_us| is_ahead(*until_us, now_us)) else {
            return Ok(found.map(|until_us| until_us.min(now_us)));
        };
        warnings.push(format!("{}; all of its history was read again", ahead(view, ahead_us, now_us)));
        self.head.forget_watermark(view.id)?;
        Ok(None)
    }
}

/// What is asked of one view.
struct Asked<'a> {
    request: &'a MaterializeRequest,
    now_us: i64,
    /// Up to when it is materialized.
    watermark: Option<i64>,
}

impl Asked<'_> {
    fn to_us(&self) -> i64 {
        self.request.to_us.unwrap_or(self.now_us)
    }

    fn look_back_us(&self) -> i64 {
        self.request.look_back_us.unwrap_or(LOOK_BACK_DEFAULT_US)
    }
}

struct Run<'a> {
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
    /// Values of the view that could not be computed.
    failed: Failures,
    /// The newest event of the view that was passed.
    newest_us: Option<i64>,
}

impl<'a> Run<'a> {
    fn begin(
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
        Ok(Run { verb, live, view, scan, pushed_end, progress, done, found: None, failed, newest_us: None })
    }

    /// Whether `view` finds the same rows in the scan.
    fn reads_as(&self, view: &ViewPlan) -> bool {
        self.found.is_some() && view.windows.is_none() && view.stamps_as(self.view)
    }

    /// The same for another view.
    fn go_on(self, view: &'a ViewPlan) -> Result<Run<'a>> {
        self.verb.in_order(self.live, view)?;
        Ok(Run { view, done: AtomicU64::new(0), failed: Failures::default(), ..self })
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
        let from_us = watermark.filter(|_| is_kept).map_or(i64::MIN, |watermark_us| {
            let from_us = watermark_us.saturating_sub(look_back_us).min(request.from_us.unwrap_or(i64::MAX));
            // Of what lies further back, windows over all time keep no days.
            let days_us = watermark_us.saturating_sub(LIFETIME_TAIL_US - LOOK_BACK_DEFAULT_US);
            if windows.has_lifetime() && from_us < days_us { i64::MIN } else { Windows::cut_us(from_us) }
        });
        head.begin(id)?;
        let units = self.scan.units.iter().filter(|unit| {
            unit.times.is_none_or(|(_, max_us)| visible_from(max_us, self.view.lag_us) >= from_us)
        });
        let total_rows = units.map(|unit| unit.rows).sum::<u64>();
        let seen = Mutex::new(Passed::default());
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
        let failed = &self.failed;
        let stretch = Stretch { from_us, to_us, keys, kept, since, at, order: Some(&order), failed };
        let upserted = self.writer().bring_in_events(&self.scan, &stretch, &note)?;
        if from_us == i64::MIN {
            // Who serves other definitions may have pushed into tiles what these keep no more.
            let _order = self.verb.in_order(self.live, self.view)?;
            pass("materialize: before what is kept");
            head.set_kept(id, windows.kept())?;
        }
        pass("materialize: tiles in, no watermark");
        head.set_watermark(id, self.failed.until(to_us))?;
        let seen = seen.into_inner();
        self.newest_us = seen.newest_us;
        Ok(self.summary(to_us, upserted, &seen, started))
    }

    /// Brings the latest rows of a view without windows in.
    fn run_rows(&mut self, asked: &Asked<'_>) -> Result<ViewSummary> {
        let started = Instant::now();
        let (head, id, request) = (&self.verb.head, self.view.id, asked.request);
        let (watermark, to_us) = (asked.watermark, asked.to_us());
        let since_us = watermark.map(|watermark_us| watermark_us.saturating_sub(asked.look_back_us()));
        let visible_us = request.from_us.or(since_us).unwrap_or(i64::MIN)..=to_us;
        head.begin(id)?;
        let found = self.found.take().filter(|found| found.visible_us == visible_us);
        let progress = |rows: usize, total_rows: u64| self.advance(rows, total_rows);
        let found = match found {
            Some(found) => found,
            None => LatestRows::find(&self.scan, self.view, visible_us, &progress)?,
        };
        let upserted = self.writer().bring_in_rows(&self.scan, &found, &self.failed, &progress)?;
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
            rows_filtered: seen.filtered,
            refused: failed.iter().filter(|(feature, _)| is_strict(feature)).map(|(_, rows)| rows).sum(),
            failed: failed.into(),
            failed_first: self.failed.first(&self.scan),
            rejected,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// What is noted of it.
    fn outcome(&self, summary: &ViewSummary) -> Outcome {
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

impl Materialize {
    /// Keeps pushes to the view's source out, as long as `live` are the definitions that were applied last.
    fn in_order(&self, live: &Deployment, view: &ViewPlan) -> Result<Order<'_>> {
        let order = self.order_of(view)?;
        match order.is_latest(live.number) {
            true => Ok(order),
            false => Err(Error::unavailable(OTHER_DEFINITIONS)),
        }
    }

    /// Keeps pushes to the view's source out.
    fn order_of(&self, view: &ViewPlan) -> quern_store::Result<Order<'_>> {
        // As is live now, not when the run began: pushes ask no other.
        let live = self.live.now();
        let source = live.compiled.catalog.definitions.sources.get(&view.source);
        match source.filter(|source| source.push) {
            Some(source) => self.turns.order(&[source.name.clone()].into()),
            None => Ok(self.turns.order_here()),
        }
    }
}
