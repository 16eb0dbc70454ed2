//! What is in the log and not in the head, because a server ended in between?
//!
//! The head notes the last commit that is in it whole. Rows are brought in again, which changes nothing where they are in
//! already. Tiles cannot take an event twice: those of its key are made anew from history, which has each event once, and
//! then take in what is for the head alone. So all of this may be repeated, and be cut short, as often as it likes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use chrono::Utc;
use quern_engine::ViewPlan;
use quern_engine::asof::KeyTable;
use quern_engine::windows::Windows;

use super::log::{Order, Shared};
use crate::error::Result;
use crate::follow::Task;
use crate::materialize::newest;
use crate::store::log::{Logged, PAGE};
use crate::store::rocks::{Commit, Rows};
use crate::windows::{self, Stretch};
use crate::{Deployment, Quern};

/// How often it is looked whether the head is behind, and how often what was seen is forgotten.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_secs(600);

impl Order<'_> {
    /// Brings in what the head lacks of everything up to commit `last`, which is the last one.
    pub(super) fn complete(&self, quern: &Quern, live: &Deployment, last: i64) -> Result<()> {
        let Some(shared) = quern.log.shared() else { return Ok(()) };
        // Another server may have noted more as kept.
        shared.head.reread_kept()?;
        shared.refresh_to(quern, last)?;
        let Some(applied) = shared.head.applied()? else {
            // A head that is new, or was lost: what came before is materialize's to bring in.
            return shared.note_applied(None, last);
        };
        if applied > last {
            tracing::error!(
                applied,
                last,
                "the head is ahead of the log of pushed rows: was PostgreSQL restored from a backup?"
            );
            return shared.note_applied(Some(applied), last);
        }
        if applied < last {
            tracing::info!(commits = last - applied, "pushed rows that a server left behind are brought in");
        }
        let mut from = applied;
        while from < last {
            let to = last.min(from.saturating_add(PAGE));
            let missing = shared.log.after(from)?;
            missing.iter().try_for_each(|logged| bring_in(quern, live, shared, logged))?;
            // Last: tiles that are made anew know nothing of what is not in history.
            missing.iter().try_for_each(|logged| bring_in_online(quern, live, shared, logged))?;
            shared.note_applied(Some(from), to)?;
            from = to;
        }
        Ok(())
    }
}

impl Quern {
    /// Brings in, while the result lives, what other servers or this one left behind, and forgets what need not be known
    /// any more; none where a group of pushes is one write.
    pub fn complete(self: &Arc<Self>) -> Option<Task> {
        let quern = Arc::clone(self);
        self.log.shared().is_some().then(|| {
            Task::spawn(async move {
                let (mut behind, mut next) = (None, Instant::now() + FORGET_EVERY);
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let (forgets, quern) = (Instant::now() >= next, Arc::clone(&quern));
                    if forgets {
                        next = Instant::now() + FORGET_EVERY;
                    }
                    let looking = tokio::task::spawn_blocking(move || quern.look_after_log(behind, forgets));
                    // Where PostgreSQL or Redis is away, others say so.
                    behind = looking.await.ok().and_then(Result::ok).flatten();
                }
            })
        })
    }

    /// Where the head is behind, as it was the last time, brings in what it lacks. Gives how far it is, if it is behind.
    fn look_after_log(&self, behind: Option<i64>, forgets: bool) -> Result<Option<i64>> {
        let Some(shared) = self.log.shared() else { return Ok(None) };
        if forgets {
            shared.log.forget(Utc::now().timestamp_micros())?;
        }
        shared.refresh(self)?;
        let last = shared.log.state()?.commits;
        let applied = shared.head.applied()?.filter(|applied| *applied < last);
        // A commit that is under way is behind for a moment.
        if applied.is_none() || applied != behind {
            return Ok(applied);
        }
        let (order, live, last) = super::group::in_order(self)?;
        order.complete(self, &live, last)?;
        Ok(None)
    }
}

fn bring_in(quern: &Quern, live: &Deployment, shared: &Shared, logged: &Logged) -> Result<()> {
    let Some(schema) = live.source_schemas.get(&logged.source) else { return Ok(()) };
    let canonical = |rows: &RecordBatch| crate::store::history::canonical(rows, schema);
    let mut parts = vec![canonical(&logged.history.slice(0, logged.in_head))?];
    parts.extend(logged.online.as_ref().map(canonical).transpose()?);
    let rows = concat_batches(schema, &parts)?;
    if rows.num_rows() == 0 {
        return Ok(());
    }
    for view in live.catalog.views.values().filter(|view| view.source == logged.source) {
        let Some(windows) = &view.windows else {
            let mut latest = Rows::default();
            newest(view, &rows, logged.first, &mut latest)?;
            shared.head.upsert(&latest)?;
            continue;
        };
        let mut anew = Anew { view, windows, keys: KeyTable::default(), from_us: i64::MAX };
        windows::keys_of(view, &rows, &mut |key, visible_us| {
            anew.keys.intern(key);
            anew.from_us = anew.from_us.min(Windows::cut_us(visible_us));
        })?;
        if !anew.keys.is_empty() {
            anew.make(quern, live)?;
        }
    }
    Ok(())
}

/// Adds what is for the head alone to tiles that lack it.
fn bring_in_online(quern: &Quern, live: &Deployment, shared: &Shared, logged: &Logged) -> Result<()> {
    let (Some(schema), Some(online)) = (live.source_schemas.get(&logged.source), &logged.online) else {
        return Ok(());
    };
    let online = crate::store::history::canonical(online, schema)?;
    for view in live.catalog.views.values().filter(|view| view.source == logged.source) {
        let (mut commit, takes_all) = (Commit::default(), |_: usize, _: &[u8], _: i64| true);
        let tiles = &mut commit.tiles;
        commit.made_from = windows::on_top(quern, view, &online, logged.first, &takes_all, tiles)?;
        shared.apply(quern, &commit)?;
    }
    Ok(())
}

/// Keys whose tiles must be made anew from history.
pub(super) struct Anew<'a> {
    pub(super) view: &'a ViewPlan,
    pub(super) windows: &'a Windows,
    pub(super) keys: KeyTable,
    pub(super) from_us: i64,
}

impl Anew<'_> {
    /// The caller keeps pushes waiting.
    pub(super) fn make(&self, quern: &Quern, live: &Deployment) -> Result<()> {
        let since = quern.history.pushed.of(&self.view.source).end();
        let scan = crate::point_in_time::open(quern, live, self.view)?;
        let stretch = Stretch {
            // What lies before the days of a window over all time is one state, from which nothing can be taken.
            from_us: if self.windows.has_lifetime() { i64::MIN } else { self.from_us },
            to_us: i64::MAX,
            keys: Some(&self.keys),
            kept: windows::kept(quern, self.view, self.windows),
            since,
            is_held: true,
        };
        windows::bring_in(quern, &scan, self.view, &stretch, &|_, _| ())?;
        Ok(())
    }
}
