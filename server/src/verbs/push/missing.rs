//! What is in the log and not in the head, because a server ended in between?
//!
//! The head notes the last commit that is in it whole. Rows are brought in again, which changes nothing where they are
//! in already. Tiles cannot take an event twice: those of its key are rebuilt from history, which has each event once,
//! and then take in what is for the head alone. So all of this may be repeated, and be cut short, as often as it likes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_base::Failure;
use quern_base::clock::now_us;
use quern_base::tasks::{Task, blocking};
use quern_engine::ViewId;
use quern_features::Compiled;
use quern_features::write::{keys_of, newest};
use quern_store::history::canonical;
use quern_store::log::{Local, Log, Logged, PAGE, Shared};
use quern_store::rocks::{Commit, Rows};

use super::Push;
use super::order::{InOrder, in_order};
use super::tiles::Rebuild;
use crate::error::{Error, Result};

/// How often it is looked whether the head is behind, and how often what was seen is forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_HERE_EVERY: Duration = Duration::from_secs(10);
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Brings in what the head lacks of everything up to the last commit. Gives the sources for which that cannot be done
/// now: it keeps nobody else from going on.
pub(super) fn complete(push: &Push, InOrder { live, last, .. }: &InOrder<'_>) -> Result<BTreeSet<String>> {
    match &push.log {
        Log::Local(local) => Ok(complete_here(push, &live.compiled, local)),
        Log::Shared(shared) => {
            complete_for_all(push, &live.compiled, (shared, *last)).map(|()| BTreeSet::new())
        }
        Log::Nowhere => Ok(BTreeSet::new()),
    }
}

fn complete_here(push: &Push, live: &Compiled, local: &Local) -> BTreeSet<String> {
    let mut behind = BTreeSet::new();
    for (source, last) in local.log.lasts() {
        if local.head.applied(&source) == last {
            continue;
        }
        if let Err(error) = complete_source(push, live, local, (&source, last)) {
            tracing::error!(
                source,
                cause = error.logged(),
                "the online store lacks pushed rows, and cannot be given them"
            );
            behind.insert(source);
        }
    }
    behind
}

fn complete_source(
    push: &Push,
    live: &Compiled,
    Local { log, head }: &Local,
    (source, last): (&str, i64),
) -> Result<()> {
    let applied = head.applied(source);
    tracing::info!(
        source,
        commits = last - applied,
        "pushed rows that the online store lacks are brought in"
    );
    let (mut next, mut missing, mut has_online) = (applied + 1, Missing::in_head(push, live), false);
    log.after(source, applied, &mut |logged| {
        has_online |= logged.online.is_some();
        if logged.number == next {
            missing.add(&logged, next == 1 && logged.first == 0).map_err(Failure::from)?;
            next += 1;
        }
        Ok(())
    })?;
    missing.bring_in()?;
    if has_online {
        // Last: tiles that are rebuilt know nothing of what is not in history.
        log.after(source, applied, &mut |logged| {
            Ok(bring_in_online(push, live, &logged).map_err(Failure::from)?)
        })?;
    }
    if next <= last {
        missing_in_log(push, live, source)?;
    }
    // Not sooner: what was begun may be done again from the start.
    Ok(head.commit(&Commit { applied: vec![(source.to_owned(), last)], ..Commit::default() })?)
}

/// What the log has forgotten lies in files, and only a head that was brought back from before lacks it.
fn missing_in_log(push: &Push, live: &Compiled, source: &str) -> Result<()> {
    tracing::error!(
        source,
        "the online store is from before what the log of pushed rows has; run `quern materialize`"
    );
    live.views_of(source).try_for_each(|view| Ok(push.head.forget_watermark(view.id)?))
}

fn complete_for_all(push: &Push, live: &Compiled, (shared, last): (&Shared, i64)) -> Result<()> {
    // Another server may have noted more as kept.
    shared.head.reread_kept()?;
    push.history.refresh_to(last)?;
    let Some(applied) = shared.head.applied()? else {
        // A head that is new, or was lost: what came before is materialize's to bring in.
        return note_applied(shared, None, last);
    };
    if applied > last {
        tracing::error!(
            applied,
            last,
            "the head is ahead of the log of pushed rows: was PostgreSQL restored from a backup?"
        );
        return note_applied(shared, Some(applied), last);
    }
    if applied < last {
        tracing::info!(commits = last - applied, "pushed rows that a server left behind are brought in");
    }
    let mut from = applied;
    while from < last {
        let to = last.min(from.saturating_add(PAGE));
        let missing = shared.log.after(from)?;
        let mut in_head = Missing::in_head(push, live);
        missing.iter().try_for_each(|logged| in_head.add(logged, false))?;
        in_head.bring_in()?;
        missing.iter().try_for_each(|logged| bring_in_online(push, live, logged))?;
        note_applied(shared, Some(from), to)?;
        from = to;
    }
    Ok(())
}

/// Changes a shared head as `commit` says.
pub(super) fn apply(push: &Push, commit: &Commit) -> Result<()> {
    if !commit.rows.is_empty() {
        push.head.upsert(&commit.rows)?;
    }
    if commit.tiles.is_empty() {
        return Ok(());
    }
    let made_from: Vec<Option<&[u8]>> = commit.made_from.iter().map(Option::as_deref).collect();
    Ok(quern_features::write::windows::put(&push.head, &commit.tiles, &made_from)?)
}

/// Notes that everything up to commit `to` is in the head, where everything up to `from` was.
pub(super) fn note_applied(shared: &Shared, from: Option<i64>, to: i64) -> Result<()> {
    if from == Some(to) || shared.head.set_applied(from, to)? {
        return Ok(());
    }
    Err(Error::unavailable("the head changed in between; push again"))
}

impl Push {
    /// Brings in what a process that ended before left behind here. Where that fails now, it is tried again.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        if self.log.local().is_none() {
            return Ok(());
        }
        let push = Arc::clone(self);
        let completing = move || complete(&push, &in_order(&push.turns, &push.live)?).map(drop);
        blocking("bringing in pushed rows", completing).await
    }

    /// Brings in, while the result lives, what other servers or this one left behind, and forgets what need not be
    /// known any more.
    pub fn complete(self: &Arc<Self>) -> Option<Task> {
        let (push, every) = match &self.log {
            Log::Local(_) => (Arc::clone(self), LOOK_HERE_EVERY),
            Log::Shared(_) => (Arc::clone(self), LOOK_EVERY),
            Log::Nowhere => return None,
        };
        Some(Task::spawn(async move {
            let (mut behind, mut next) = (None, Instant::now() + FORGET_EVERY);
            loop {
                tokio::time::sleep(every).await;
                let (forgets, push) = (Instant::now() >= next, Arc::clone(&push));
                if forgets {
                    next = Instant::now() + FORGET_EVERY;
                }
                let looking = tokio::task::spawn_blocking(move || push.look_after_log(behind, forgets));
                // Where PostgreSQL or Redis is away, others say so.
                behind = looking.await.ok().and_then(Result::ok).flatten();
            }
        }))
    }

    /// Where the head is behind, as it was the last time, brings in what it lacks. Gives how far it is, if it is
    /// behind.
    fn look_after_log(&self, behind: Option<i64>, forgets: bool) -> Result<Option<i64>> {
        if let Some(Local { log, head }) = self.log.local() {
            if log.lasts().iter().any(|(source, last)| head.applied(source) < *last) {
                complete(self, &in_order(&self.turns, &self.live)?)?;
            }
            return Ok(None);
        }
        let Some(shared) = self.log.shared() else { return Ok(None) };
        if forgets {
            shared.log.forget(now_us())?;
        }
        self.history.refresh_all()?;
        // What others pushed comes into the tail here as well.
        self.tail().seal_large();
        let last = shared.log.state()?.commits;
        let applied = shared.head.applied()?.filter(|applied| *applied < last);
        // A commit that is under way is behind for a moment.
        if applied.is_none() || applied != behind {
            return Ok(applied);
        }
        complete(self, &in_order(&self.turns, &self.live)?)?;
        Ok(None)
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
        match &push.log {
            Log::Local(local) => local.head.commit(&commit)?,
            Log::Shared(_) | Log::Nowhere => apply(push, &commit)?,
        }
    }
    Ok(())
}
