//! How does history become the head?
//!
//! View by view: the latest row of every key that is visible at `to`, out of the rows that became visible since the
//! watermark (less a look-back for late ones), is computed and brought in. Rows go in before the watermark moves, and
//! a row never replaces a later one: so an interrupted run leaves a head that is behind, never wrong, and the next
//! run completes it.

mod rows;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use feature_defs::suggest;
use parking_lot::Mutex;
use quern_engine::time::visible_from;
use quern_engine::windows::{LIFETIME_TAIL_US, Windows};
use quern_engine::{Stamps, ViewPlan};
use serde::{Deserialize, Serialize};

use self::rows::Found;
pub(crate) use self::rows::newest;
use crate::error::{Error, Result};
use crate::point_in_time::open;
use crate::push::Order;
use crate::store::history::{PUSHED, Scan};
use crate::store::rocks::Upserted;
use crate::windows::{self, Stretch};
use crate::{Deployment, Quern};

/// How far behind the watermark late rows are looked for where the request does not say, µs.
pub const LOOK_BACK_DEFAULT_US: i64 = 86_400_000_000;

const OTHER_DEFINITIONS: &str =
    "other definitions were applied and are not live here yet; materialize again in a moment";

/// Which views, and which stretch of time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaterializeRequest {
    /// Feature views; none means all.
    pub views: Vec<String>,
    /// Only rows that became visible at or after this query time, µs: a backfill. Absent: since the watermark.
    pub from_us: Option<i64>,
    /// Only rows visible at this query time, µs. Absent: now.
    pub to_us: Option<i64>,
    /// How far behind the watermark late rows are looked for, µs.
    pub look_back_us: Option<i64>,
}

/// How far one view is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// The view.
    pub view: String,
    /// Rows of history passed, both passes counted.
    pub done_rows: u64,
    /// Rows to pass, as far as is known.
    pub total_rows: u64,
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// View by view.
    pub views: Vec<ViewSummary>,
    /// Seconds for all.
    pub wall_seconds: f64,
}

/// What was done for one view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ViewSummary {
    /// The view.
    pub view: String,
    /// The query time up to which it is materialized, µs.
    pub to_us: i64,
    /// Rows of history read.
    pub rows_read: u64,
    /// Keys whose head is new.
    pub rows_written: u64,
    /// Keys whose head was this row already.
    pub rows_unchanged: u64,
    /// Keys whose head was a later row.
    pub rows_older: u64,
    /// Rows that the view's `where` leaves out.
    pub rows_filtered: u64,
    /// Rows that cannot be stored, by cause.
    pub rejected: BTreeMap<String, u64>,
    /// Seconds.
    pub seconds: f64,
}

/// Brings the head up to date. Reads history: call it where blocking is allowed.
pub fn materialize(
    quern: &Quern,
    live: &Deployment,
    request: &MaterializeRequest,
    now_us: i64,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary> {
    let started = Instant::now();
    let views = &live.catalog.views;
    for name in &request.views {
        if !views.contains_key(name) {
            let help = suggest(name, views.keys().map(String::as_str));
            return Err(Error::not_found(format!("unknown feature view `{name}`; {help}")));
        }
    }
    if let (Some(from_us), Some(to_us)) = (request.from_us, request.to_us)
        && from_us > to_us
    {
        return Err(Error::invalid("`from` is after `to`"));
    }
    // One at a time: two runs over the same rows would only do the same work twice.
    let _turn = quern.materializing.lock();
    let _turn_among_servers = quern.head.turn()?;
    quern.head.reread_kept()?;
    let wanted = views.values().map(AsRef::as_ref).filter(|view: &&ViewPlan| {
        let source = &live.catalog.definitions.sources[&view.source];
        let is_asked_for = request.views.is_empty() || request.views.contains(&view.name);
        is_asked_for && (source.batch.is_some() || source.push)
    });
    let mut wanted: Vec<&ViewPlan> = wanted.collect();
    // One after the other, those may share what they read.
    wanted.sort_by(|a, b| a.source.cmp(&b.source));
    let mut summaries = Vec::new();
    let mut before: Option<Run> = None;
    for view in wanted {
        let mut run = match before.take().filter(|before| before.reads_as(view)) {
            Some(before) => before.go_on(view)?,
            None => Run::begin(quern, live, view, progress)?,
        };
        summaries.push(match &view.windows {
            Some(windows) => run.run_windows(windows, request, now_us)?,
            None => run.run_rows(request, now_us)?,
        });
        before = Some(run);
    }
    summaries.sort_by(|a, b| a.view.cmp(&b.view));
    // Last, so that whoever still answers from the definitions before has had the time to end.
    if request.views.is_empty() {
        quern.head.retain(&views.values().map(|view| view.id).collect::<Vec<_>>())?;
    }
    Ok(Summary { views: summaries, wall_seconds: started.elapsed().as_secs_f64() })
}

struct Run<'a> {
    quern: &'a Quern,
    live: &'a Deployment,
    view: &'a ViewPlan,
    scan: Scan,
    /// The number of the first pushed row that is not in the scan.
    pushed_end: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
    done: AtomicU64,
    /// What the first pass over the rows of the scan has found.
    found: Option<Found>,
}

/// What was met in history.
#[derive(Default)]
struct Seen {
    read: u64,
    filtered: u64,
    null_keys: u64,
    null_times: u64,
}

impl Seen {
    fn note(&mut self, stamps: &Stamps, rows: usize) {
        self.read += rows as u64;
        self.filtered += stamps.filtered;
        self.null_keys += stamps.null_keys;
        self.null_times += stamps.null_times;
    }
}

impl<'a> Run<'a> {
    fn begin(
        quern: &'a Quern,
        live: &'a Deployment,
        view: &'a ViewPlan,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Result<Run<'a>> {
        // No push is half in history and half in the head.
        let _order = in_order(quern, live, view)?;
        quern.refresh(&view.source)?;
        let (scan, pushed_end) = (open(quern, live, view)?, quern.history.pushed.of(&view.source).end());
        Ok(Run { quern, live, view, scan, pushed_end, progress, done: AtomicU64::new(0), found: None })
    }

    /// Whether `view` finds the same rows in the scan.
    fn reads_as(&self, view: &ViewPlan) -> bool {
        self.found.is_some() && view.windows.is_none() && view.stamps_as(self.view)
    }

    /// The same for another view.
    fn go_on(self, view: &'a ViewPlan) -> Result<Run<'a>> {
        in_order(self.quern, self.live, view)?;
        Ok(Run { view, done: AtomicU64::new(0), ..self })
    }

    /// The tiles of a view with windows: those of whole days are made anew from all of their events, so late ones
    /// and repetitions fall into place.
    fn run_windows(
        &self,
        windows: &Windows,
        request: &MaterializeRequest,
        now_us: i64,
    ) -> Result<ViewSummary> {
        let started = Instant::now();
        let (head, id) = (&self.quern.head, self.view.id);
        let watermark = head.watermark(id)?.filter(|watermark_us| *watermark_us != i64::MIN);
        let kept = head.kept(id);
        let is_kept = kept.as_ref().is_some_and(|kept| kept.holds(&windows.kept()));
        if let Some(kept) = kept {
            // Before the first key is stored anew: from then on no more is kept than both keep.
            let common = kept.common(&windows.kept());
            if *kept != common {
                head.set_kept(id, common)?;
            }
        }
        let to_us = request.to_us.unwrap_or(now_us).max(watermark.unwrap_or(i64::MIN));
        let look_back_us = request.look_back_us.unwrap_or(LOOK_BACK_DEFAULT_US);
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
        let seen = Mutex::new(Seen::default());
        let note = |stamps: &Stamps, rows: usize| {
            seen.lock().note(stamps, rows);
            self.advance(rows, total_rows);
        };
        let last_us = self.scan.units.iter().filter(|unit| unit.file != PUSHED).map(|unit| {
            unit.times.map_or(to_us, |(_, max_us)| visible_from(max_us, self.view.lag_us).min(to_us))
        });
        if let Some(last_us) = last_us.max() {
            head.set_files_until(id, last_us)?;
        }
        let (keys, kept, since) = (None, windows.kept(), self.pushed_end);
        let stretch = Stretch { from_us, to_us, keys, kept, since, is_held: false };
        let upserted = windows::bring_in(self.quern, &self.scan, self.view, &stretch, &note)?;
        if from_us == i64::MIN {
            // Who serves other definitions may have pushed into tiles what these keep no more.
            let _order = in_order(self.quern, self.live, self.view)?;
            head.set_kept(id, windows.kept())?;
        }
        head.set_watermark(id, to_us)?;
        Ok(self.summary(to_us, upserted, &seen.into_inner(), started))
    }

    fn summary(&self, to_us: i64, upserted: Upserted, seen: &Seen, started: Instant) -> ViewSummary {
        let mut rejected = BTreeMap::new();
        for (why, rows) in
            [("join key is null", seen.null_keys), ("event timestamp is null", seen.null_times)]
        {
            if rows > 0 {
                rejected.insert(why.to_owned(), rows);
            }
        }
        ViewSummary {
            view: self.view.name.clone(),
            to_us,
            rows_read: seen.read,
            rows_written: upserted.written,
            rows_unchanged: upserted.unchanged,
            rows_older: upserted.older,
            rows_filtered: seen.filtered,
            rejected,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    fn advance(&self, rows: usize, total_rows: u64) {
        let done_rows = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        let view = self.view.name.clone();
        (self.progress)(Progress { view, done_rows, total_rows: total_rows.max(done_rows) });
    }
}

/// Keeps pushes to the view's source out, as long as `live` are the definitions that were applied last.
fn in_order<'a>(quern: &'a Quern, live: &Deployment, view: &ViewPlan) -> Result<Order<'a>> {
    let order = quern.order_of(&view.source)?;
    match order.is_latest(live) {
        true => Ok(order),
        false => Err(Error::unavailable(OTHER_DEFINITIONS)),
    }
}
