//! What is in the log and not in the head, because a server ended in between?
//!
//! The head notes the last commit that is in it whole. Rows are brought in again, which changes nothing where they are
//! in already. Tiles cannot take an event twice: those of its key are rebuilt from history, which has each event once,
//! and then take in what is for the head alone. So all of this may be repeated, and be cut short, as often as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_base::Failure;
use quern_base::tasks::{Task, blocking};
use quern_engine::ViewId;
use quern_features::Compiled;
use quern_features::write::{keys_of, newest};
use quern_store::history::canonical;
use quern_store::log::{Log, Logged, Position};
use quern_store::rocks::{Applied, Commit, Rows};

use super::Push;
use super::order::{InOrder, in_order};
use super::tiles::Rebuild;
use crate::behind::late;
use crate::error::{Error, Result};

/// How often it is looked whether the head is behind, and how often what was seen is forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Why the head of a source must not go on.
pub(super) enum Behind {
    /// It lacks commits, and cannot be given them now.
    Late,
    /// It has commits that the log has no more: this many, of so many.
    Lost { applied: i64, last: i64 },
}

impl Behind {
    /// Refuses pushes to `source` where they would go on from what is lost.
    pub(super) fn check(&self, source: &str) -> Result<()> {
        let Behind::Lost { applied, last } = self else { return Ok(()) };
        Err(Error::refused(format!(
            "the log of pushed rows is from before what was acknowledged: it has {last} commits of source `{source}`, and \
             the online store {applied}, or others (was PostgreSQL restored, or did it fail over to a server that lacked \
             some?); bring the newer log back, or go on without what it had: `quern materialize --accept-loss`"
        )))
    }
}

/// Brings in what the head lacks of the sources that it is the turn of. Gives those for which that cannot be done: it
/// keeps nobody else from going on.
pub(super) fn complete(
    push: &Push,
    InOrder { live, order }: &InOrder<'_>,
) -> Result<BTreeMap<String, Behind>> {
    // Another server may have noted more as kept, and taken more.
    push.head.reread_kept()?;
    push.history.refresh_to(&order.lasts)?;
    let mut behind = BTreeMap::new();
    for (source, applied, last) in late(&push.head, &order.lasts)? {
        if !push.log.went_through(&source, applied)? {
            behind.insert(source, Behind::Lost { applied: applied.number, last: last.number });
            continue;
        }
        if let Err(error) = complete_source(push, &live.compiled, (&source, applied, last)) {
            tracing::error!(
                source,
                cause = error.logged(),
                "the online store lacks pushed rows, and cannot be given them"
            );
            behind.insert(source, Behind::Late);
        }
    }
    Ok(behind)
}

fn complete_source(
    push: &Push,
    live: &Compiled,
    (source, applied, last): (&str, Position, Position),
) -> Result<()> {
    tracing::info!(
        source,
        commits = last.number - applied.number,
        "pushed rows that the online store lacks are brought in"
    );
    let mut next = applied.number + 1;
    let (mut missing, mut has_online) = (Missing::in_head(push, live), false);
    push.log.after(source, applied.number, &mut |logged| {
        has_online |= logged.online.is_some();
        if logged.position.number == next {
            missing.add(&logged, next == 1 && logged.first == 0).map_err(Failure::from)?;
            next += 1;
        }
        Ok(())
    })?;
    missing.bring_in()?;
    if has_online {
        // Last: tiles that are rebuilt know nothing of what is not in history.
        push.log.after(source, applied.number, &mut |logged| {
            Ok(bring_in_online(push, live, &logged).map_err(Failure::from)?)
        })?;
    }
    if next <= last.number {
        missing_in_log(push, live, source)?;
    }
    // Not sooner: what was begun may be done again from the start.
    let applied = vec![Applied { source: source.to_owned(), from: applied, to: last }];
    Ok(push.head.commit(&Commit { applied, ..Commit::default() })?)
}

/// What the log has forgotten lies in files, and only a head that was brought back from before lacks it.
fn missing_in_log(push: &Push, live: &Compiled, source: &str) -> Result<()> {
    tracing::error!(
        source,
        "the online store is from before what the log of pushed rows has; run `quern materialize`"
    );
    live.views_of(source).try_for_each(|view| Ok(push.head.forget_watermark(view.id)?))
}

impl Push {
    /// Brings in what a process that ended before left behind here. Where that fails now, it is tried again.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let Some(local) = self.log.local() else { return Ok(()) };
        let (push, sources) = (Arc::clone(self), local.log.lasts().into_keys().collect());
        let completing = move || complete(&push, &in_order(&push.turns, &push.live, &sources)?).map(drop);
        blocking("bringing in pushed rows", completing).await
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
        known.behind = behind.into_iter().map(|(source, applied, _)| (source, applied)).collect();
        // A commit that is under way is behind for a moment.
        let stuck = known.behind.iter().filter(|(source, applied)| before.get(*source) == Some(applied));
        let stuck: BTreeSet<String> = stuck.map(|(source, _)| source.clone()).collect();
        if !stuck.is_empty() {
            complete(self, &in_order(&self.turns, &self.live, &stuck)?)?;
        }
        Ok(())
    }
}

/// What was found when the log was looked after last.
struct Known {
    /// How far the head was, of the sources that it was behind of.
    behind: BTreeMap<String, Position>,
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
struct Missing<'a> {
    push: &'a Push,
    live: &'a Compiled,
    rebuilds: Vec<(ViewId, Rebuild<'a>)>,
}

impl<'a> Missing<'a> {
    fn in_head(push: &'a Push, live: &'a Compiled) -> Missing<'a> {
        Missing { push, live, rebuilds: Vec::new() }
    }

    /// Adds rows, which are the first `of_all` that were ever pushed to their source or are not.
    fn add(&mut self, logged: &Logged, of_all: bool) -> Result<()> {
        let (push, live) = (self.push, self.live);
        let Some(schema) = live.source_schemas.get(&logged.source) else { return Ok(()) };
        let is_new = of_all && live.catalog.definitions.sources[&logged.source].batch.is_none();
        let history = logged.history.slice(0, logged.in_head);
        for rows in std::iter::once(&history).chain(&logged.online).filter(|rows| rows.num_rows() > 0) {
            let rows = canonical(rows, schema)?;
            for view in live.views_of(&logged.source) {
                push.begin(view, is_new)?;
                let Some(windows) = &view.windows else {
                    let mut latest = Rows::default();
                    newest(view, &rows, logged.first, &mut latest)?;
                    push.head.upsert(&latest)?;
                    continue;
                };
                let place = self.rebuilds.iter().position(|(id, _)| *id == view.id).unwrap_or_else(|| {
                    let writer = push.writer(live.source(view), view);
                    self.rebuilds.push((view.id, Rebuild::nothing(writer, windows)));
                    self.rebuilds.len() - 1
                });
                let rebuild = &mut self.rebuilds[place].1;
                keys_of(view, &rows, &mut |key, visible_us| rebuild.add(key, visible_us))?;
            }
        }
        Ok(())
    }

    fn bring_in(self) -> Result<()> {
        let rebuilds = self.rebuilds.iter().filter(|(_, rebuild)| !rebuild.is_empty());
        rebuilds.map(|(_, rebuild)| rebuild).try_for_each(|rebuild| rebuild.run(self.live))
    }
}

/// Adds what is for the head alone to tiles that lack it.
fn bring_in_online(push: &Push, live: &Compiled, logged: &Logged) -> Result<()> {
    let (Some(schema), Some(online)) = (live.source_schemas.get(&logged.source), &logged.online) else {
        return Ok(());
    };
    let online = canonical(online, schema)?;
    for view in live.views_of(&logged.source).filter(|view| view.windows.is_some()) {
        let (mut commit, takes_all) = (Commit::default(), |_: usize, _: &[u8], _: i64| true);
        let writer = push.writer(live.source(view), view);
        commit.made_from = writer.add_events(&online, logged.first, &takes_all, &mut commit.tiles)?;
        push.head.commit(&commit)?;
    }
    Ok(())
}
