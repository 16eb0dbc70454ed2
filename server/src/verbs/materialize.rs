//! How does history become the head?
//!
//! View by view: the latest row of every key that is visible at `to`, out of the rows that became visible since the
//! watermark (less a look-back for late ones), is computed and brought in. Rows go in before the watermark moves, and
//! a row never replaces a later one: so an interrupted run leaves a head that is behind, never wrong, and the next
//! run completes it. Where files that the head was made of are gone or have changed, all of history is read, and what
//! it does not say any more goes out of the head.

mod clock;
mod covered;
mod files;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use feature_defs::Operation;
use quern_engine::ViewPlan;
use quern_store::follow;
use quern_store::history::History;
use quern_store::log::Log;
use quern_store::online::Online;
use quern_store::spill::Scratch;
use quern_store::turns::{Order, Turns};
use quern_wire::{MaterializeRequest, Progress, Summary, ViewSummary};

use self::clock::{ahead, check_times, is_ahead};
pub(crate) use self::covered::Covered;
use self::run::{Asked, Run};
use crate::degraded::{self, Degraded};
use crate::error::{Error, Kind, Result};
use crate::live::{Deployment, Live, Permitted};
use crate::runs::Runs;
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
    pub(crate) scratch: Scratch,
    pub(crate) covered: Covered,
}

impl Materialize {
    /// Brings the head up to date, as who asks may. Reads history: call it where blocking is allowed.
    pub fn run(
        &self,
        (live, permitted): (&Deployment, &Permitted),
        request: &MaterializeRequest,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Summary> {
        permitted.to(Operation::Materialize)?;
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
        let (mut summaries, mut warnings) = self.each_view(live, request, now_us, progress)?;
        summaries.sort_by(|a, b| a.view.cmp(&b.view));
        // Last, so that whoever still answers from the definitions before has had the time to end.
        if let Err(error) = self.check_latest(live) {
            warnings.push(error.said());
        } else if request.views.is_empty() {
            let ids: Vec<_> = views.values().map(|view| view.id).collect();
            self.head.retain(&ids)?;
            self.covered.keep_only(&ids);
            self.runs.keep_only(views.keys().cloned().collect());
        }
        Ok(Summary {
            views: summaries,
            pulled: Vec::new(),
            wall_seconds: started.elapsed().as_secs_f64(),
            warnings,
        })
    }

    /// Brings every view up to date that is asked for; what is wrong with a source is wrong with no other's. Gives what
    /// was done, and warnings.
    fn each_view(
        &self,
        live: &Deployment,
        request: &MaterializeRequest,
        now_us: i64,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(Vec<ViewSummary>, Vec<String>)> {
        // Of a log that is shared: one of this server's own is looked at when it is opened.
        let lost = match self.log.shared() {
            Some(_) => follow::lost(&self.log, &self.head, &self.log.lasts()?)?,
            None => BTreeMap::new(),
        };
        let wanted = live.compiled.catalog.views.values().map(AsRef::as_ref).filter(|view: &&ViewPlan| {
            let source = live.compiled.source(view);
            let is_asked_for = request.views.is_empty() || request.views.contains(&view.name);
            is_asked_for && (source.batch.is_some() || source.push)
        });
        let mut wanted: Vec<&ViewPlan> = wanted.collect();
        // One after the other, those may share what they read.
        wanted.sort_by(|a, b| a.source.cmp(&b.source));
        let (mut summaries, mut warnings, mut failed) = (Vec::new(), Vec::new(), None);
        let mut before: Option<Run> = None;
        for view in wanted {
            let noted = self.runs.begin(&view.name);
            let mut ran = || -> Result<_> {
                lost.get(&view.source).map_or(Ok(()), |lost| lost.check(&view.source))?;
                let mut run = match before.take().filter(|before| before.reads_as(view)) {
                    Some(before) => before.go_on(view)?,
                    None => Run::begin(self, live, view, progress)?,
                };
                let watermark = self.watermark(view, now_us, &mut warnings)?;
                let asked = Asked { request, now_us, watermark, mends: false };
                let summary = run.run(&asked)?;
                Ok((run, summary))
            };
            let ran = ran();
            noted.end(ran.as_ref().map(|(run, summary)| run.outcome(summary)));
            let (run, summary) = match ran {
                Ok(ran) => ran,
                // A store that does not answer answers no other view.
                Err(error) if !matches!(error.kind(), Kind::Unavailable | Kind::Overloaded) => {
                    failed.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            warnings.extend(run.mended(request));
            warnings.extend(run.failed.refused());
            summaries.push(summary);
            before = Some(run);
        }
        let others = summaries.len();
        match failed {
            None => Ok((summaries, warnings)),
            Some(error) if others == 0 => Err(error),
            Some(error) => {
                let others = match others {
                    1 => "one other feature view is".to_owned(),
                    _ => format!("{others} other feature views are"),
                };
                Err(error.told(|what| format!("{what}; {others} materialized")))
            }
        }
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
            None => Ok(self.turns.order_here(&view.source)),
        }
    }
}
