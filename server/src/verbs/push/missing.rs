//! What is in the log and not in the head, because a server ended in between?
//!
//! The head notes the last commit that is in it whole. Rows are brought in again, which changes nothing where they are
//! in already. Tiles cannot take an event twice: those of its key are rebuilt from history, which has each event once.
//! So all of this may be repeated, and be cut short, as often as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_base::Failure;
use quern_base::clock::now_us;
use quern_base::points::pass;
use quern_base::tasks::{Task, blocking};
use quern_engine::{ViewId, ViewPlan};
use quern_features::Compiled;
use quern_features::write::{keys_of, newest};
use quern_store::follow::{self, Behind, Follower, Noted, late};
use quern_store::history::canonical;
use quern_store::log::{Log, Logged, Position, Seen, Standing};
use quern_store::online::Online;
use quern_store::rocks::{Applied, Rows};

use super::Push;
use super::order::{InOrder, in_order};
use super::repeats::all_known_key;
use super::tiles::Rebuild;
use crate::degraded;
use crate::error::{Error, Result};

/// How often it is looked whether the head is behind, and how often what was seen is forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Brings in what the head lacks of the sources that it is the turn of. Gives those for which that cannot be done.
pub(super) fn complete(
    push: &Push,
    InOrder { live, order }: &InOrder<'_>,
) -> Result<BTreeMap<String, Behind>> {
    // Another server may have noted more as kept, and taken more.
    push.head.reread_kept()?;
    push.history.refresh_to(&order.lasts)?;
    let head = push.head.bound();
    let mut head = Following { push, head: &head, live: &live.compiled, rebuilds: Vec::new() };
    Ok(follow::complete(&push.log, &mut head, &order.lasts, &mut |source, error| {
        tracing::error!(
            source,
            cause = error.logged(),
            "the online store lacks pushed rows, and cannot be given them"
        );
    })?)
}

impl Push {
    /// Brings in what a process that ended before left behind here. Where that fails now, it is tried again.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let Some(local) = self.log.local() else { return Ok(()) };
        let (push, sources) = (Arc::clone(self), local.log.lasts().into_keys().collect());
        let completing = move || {
            push.note_unknown()?;
            complete(&push, &in_order(&push.turns, &push.live, &sources)?).map(drop)
        };
        blocking("bringing in pushed rows", completing).await
    }

    /// Notes of sources of which history has more than the log that any event until now may be there: what was seen
    /// with those rows is lost.
    fn note_unknown(&self) -> Result<()> {
        let live = self.live.now();
        let is_source = |name: &&String| live.compiled.catalog.definitions.sources.contains_key(*name);
        for source in self.history.beyond_log().iter().filter(is_source) {
            let turn = in_order(&self.turns, &self.live, &[source.clone()].into())?;
            let value = (-now_us()).to_be_bytes().to_vec();
            let seen = [(all_known_key(source), Seen { until_us: i64::MAX, value })];
            self.log.commit(&turn.order.lasts, &[], &seen)?;
        }
        Ok(())
    }

    /// Brings in, while the result lives, what other servers or this one left behind, and forgets what need not be
    /// known any more.
    pub fn complete(self: &Arc<Self>) -> Option<Task> {
        if matches!(self.log, Log::Nowhere) {
            return None;
        }
        let push = Arc::clone(self);
        Some(Task::spawn(async move {
            let mut known = Known::default();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let push = Arc::clone(&push);
                let looking = tokio::task::spawn_blocking(move || {
                    // Where PostgreSQL or Redis is away, others say so.
                    let _ = push.look_after_log(&mut known);
                    known
                });
                known = looking.await.unwrap_or_default();
            }
        }))
    }

    /// Where the head is as far behind as it was the last time, brings in what it lacks.
    fn look_after_log(&self, known: &mut Known) -> Result<()> {
        let before = std::mem::take(&mut known.behind);
        self.history.refresh_all()?;
        // What others pushed comes into the tail here as well.
        self.tail().seal_large();
        if Instant::now() >= known.forget_at {
            known.forget_at = Instant::now() + FORGET_EVERY;
            self.log.forget()?;
            known.sealed = self.forget_sealed(&known.sealed)?;
        }
        let behind = late(&self.head, &self.log.lasts()?)?;
        known.behind = behind.into_iter().map(|(source, standing, _)| (source, standing)).collect();
        // A commit that is under way is behind for a moment.
        let stuck = known.behind.iter().filter(|(source, standing)| before.get(*source) == Some(standing));
        let stuck: BTreeSet<String> = stuck.map(|(source, _)| source.clone()).collect();
        if !stuck.is_empty() {
            let behind = complete(self, &in_order(&self.turns, &self.live, &stuck)?)?;
            for (source, behind) in behind {
                // Somebody must say how to go on.
                if let Err(lost) = behind.check(&source) {
                    self.degraded.note::<()>(degraded::PUSH, &Err(Error::busy(lost.said())), Instant::now());
                }
            }
        }
        Ok(())
    }
}

/// What was found when the log was looked after last.
struct Known {
    /// How far the head was, of the sources that it was behind of.
    behind: BTreeMap<String, Standing>,
    /// Up to which row each source lay in segments when the log was told to forget.
    sealed: BTreeMap<String, u64>,
    /// When it is told so again.
    forget_at: Instant,
}

impl Default for Known {
    fn default() -> Known {
        let forget_at = Instant::now() + FORGET_EVERY;
        Known { behind: BTreeMap::new(), sealed: BTreeMap::new(), forget_at }
    }
}

/// What some commits bring into the head: rows at once, and tiles at the end, once for all of them.
struct Following<'a> {
    push: &'a Push,
    head: &'a Online,
    live: &'a Compiled,
    rebuilds: Vec<(ViewId, Rebuild<'a>)>,
}

impl Following<'_> {
    fn take(&mut self, logged: &Logged, of_all: bool) -> Result<()> {
        let (push, live) = (self.push, self.live);
        let Some(schema) = live.source_schemas.get(&logged.source) else { return Ok(()) };
        pass("catch up: a commit of the log");
        let is_new = of_all && live.catalog.definitions.sources[&logged.source].batch.is_none();
        let history = logged.history.slice(0, logged.in_head);
        let online = logged.online.iter().map(|rows| (rows, false));
        for (rows, in_history) in std::iter::once((&history, true)).chain(online) {
            let rows = canonical(rows, schema)?;
            // Windows count what history has.
            let is_for = |view: &&ViewPlan| rows.num_rows() > 0 && (in_history || view.windows.is_none());
            for view in live.views_of(&logged.source).filter(is_for) {
                push.begin(view, is_new)?;
                let Some(windows) = &view.windows else {
                    let mut latest = Rows::default();
                    newest(view, &rows, logged.first, &mut latest)?;
                    self.head.upsert(&latest)?;
                    continue;
                };
                let place = self.rebuilds.iter().position(|(id, _)| *id == view.id).unwrap_or_else(|| {
                    let writer = push.writer(self.head, live.source(view), view);
                    self.rebuilds.push((view.id, Rebuild::nothing(writer, windows)));
                    self.rebuilds.len() - 1
                });
                let rebuild = &mut self.rebuilds[place].1;
                keys_of(view, &rows, &mut |key, visible_us| rebuild.add(key, visible_us))?;
            }
        }
        Ok(())
    }
}

impl Noted for Following<'_> {
    fn standings(&self, sources: &[&str]) -> quern_store::Result<Vec<Standing>> {
        self.head.standings(sources)
    }

    fn begin(&self, begun: Applied) -> quern_store::Result<()> {
        Noted::begin(self.head, begun)
    }

    fn note(&self, applied: Applied) -> quern_store::Result<()> {
        pass("catch up: before the note");
        self.head.note(applied)
    }
}

impl Follower for Following<'_> {
    fn add(&mut self, logged: &Logged, of_all: bool) -> quern_store::Result<()> {
        Ok(self.take(logged, of_all).map_err(Failure::from)?)
    }

    fn bring_in(&mut self, _: &str, last: Position) -> quern_store::Result<()> {
        for (_, rebuild) in std::mem::take(&mut self.rebuilds) {
            if !rebuild.is_empty() {
                rebuild.run(self.live, last).map_err(Failure::from)?;
            }
        }
        Ok(())
    }

    fn begin_anew(&mut self, source: &str) -> quern_store::Result<()> {
        // One of this server's own is made from history when it starts.
        if self.push.log.shared().is_some() {
            tracing::error!(
                source,
                "the online store is from before what the log of pushed rows has; run `quern materialize`"
            );
        }
        self.live.views_of(source).try_for_each(|view| self.push.head.forget_watermark(view.id))
    }
}
