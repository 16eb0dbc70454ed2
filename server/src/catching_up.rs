//! Does the head have all that was pushed, and if not, how far is it?
//!
//! A head of this server's own that ended behind is given what the log has. Rows that the log has no more are history's
//! alone: a head that lacks some of those, since it is empty or was brought back from before, is made from history once
//! more. Which sources that are is noted in the head before anything else comes into it, so that a server which ends in
//! between knows it still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use feature_defs::Operation;
use parking_lot::Mutex;
use quern_access::Caller;
use quern_base::clock::now_us;
use quern_base::tasks::{Task, blocking};
use quern_store::log::labelled_model;
use quern_wire::{MaterializeRequest, Progress};

use crate::Node;
use crate::error::{Error, Result};

/// How long nobody hears of a server whose head is soon done.
const PATIENCE: Duration = Duration::from_secs(2);
/// When it is tried again.
const PAUSE: Duration = Duration::from_secs(3);

/// How far it is; nothing where the head has all.
#[derive(Debug, Default)]
pub struct CatchingUp(Mutex<Option<Stage>>);

#[derive(Debug, Clone)]
enum Stage {
    /// So many commits that the log still has are brought in.
    Commits(u64),
    /// History is read: how many rows of each view, of how many, both passes counted.
    Rows(BTreeMap<String, (u64, u64)>),
    /// It failed, and is tried again.
    Failed(String),
}

impl CatchingUp {
    /// Why look-ups would miss pushed rows; none where they would not.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let stage = self.0.lock().clone()?;
        let how_far = match stage {
            Stage::Commits(commits) => format!("{commits} commits of the log are brought in"),
            Stage::Rows(views) => {
                let sum = |of: &dyn Fn(&(u64, u64)) -> u64| views.values().map(of).sum::<u64>();
                let (done, total) = (sum(&|rows| rows.0), sum(&|rows| rows.1));
                format!("it is made from history, {done} of {total} rows are read")
            }
            Stage::Failed(cause) => {
                return Some(Error::busy(format!("{LACKS}, which is tried again: {cause}")));
            }
        };
        Some(Error::busy(format!("{LACKS}: {how_far}")))
    }

    fn at(&self, stage: Option<Stage>) {
        *self.0.lock() = stage;
    }

    fn failed(&self, error: &Error) {
        tracing::error!(cause = error.logged(), "the online store is not brought up to what was pushed");
        self.at(Some(Stage::Failed(error.said())));
    }

    fn note(&self, Progress { view, done_rows, total_rows }: Progress) {
        if let Some(Stage::Rows(views)) = &mut *self.0.lock() {
            views.insert(view, (done_rows, total_rows));
        }
    }
}

const LACKS: &str = "the online store lacks rows that were pushed";

impl Node {
    /// Brings the head up to what was pushed, once.
    ///
    /// # Errors
    /// Where log or head do not answer, or history cannot be read.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let Some(local) = self.push.log.local() else { return Ok(()) };
        let lasts = local.log.lasts().into_iter();
        let behind = lasts.map(|(source, last)| last.number - local.head.applied(&source).number);
        let commits = behind.filter_map(|commits| u64::try_from(commits).ok()).sum();
        self.catching_up.at(Some(Stage::Commits(commits)));
        let node = Arc::clone(self);
        let lacking = blocking("looking at the online store", move || node.note_lacking()).await?;
        self.push.catch_up().await?;
        if !lacking.is_empty() && self.live().number > 0 {
            tracing::warn!(?lacking, "the online store lacks rows that were pushed; it is made from history");
            self.catching_up.at(Some(Stage::Rows(BTreeMap::new())));
            let node = Arc::clone(self);
            blocking("making the head from history", move || node.make_anew(&lacking)).await?;
        }
        self.catching_up.at(None);
        Ok(())
    }

    /// The same, where what cannot be read of history is no reason not to go on with the rest.
    pub(crate) async fn catch_up_or_tell(self: &Arc<Self>) -> Result<()> {
        match self.catch_up().await {
            Err(error) if !matches!(*self.catching_up.0.lock(), Some(Stage::Rows(_))) => Err(error),
            Err(error) => {
                self.catching_up.failed(&error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Brings it up to that, however often it takes, while the result lives. Where that is soon done, it is before this
    /// returns.
    pub async fn go_on_catching_up(self: &Arc<Self>) -> Task {
        let (node, (done, is_done)) = (Arc::clone(self), tokio::sync::oneshot::channel());
        let task = Task::spawn(async move {
            while let Err(error) = node.catch_up().await {
                node.catching_up.failed(&error);
                tokio::time::sleep(PAUSE).await;
            }
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(PATIENCE, is_done).await;
        task
    }

    /// The sources of which the head lacks rows that the log has no more, noted in it.
    fn note_lacking(&self) -> Result<BTreeSet<String>> {
        let Some(local) = self.push.log.local() else { return Ok(BTreeSet::new()) };
        let known = local.head.lacking()?;
        let mut lacking = known.clone();
        let pushed = self.reader.history.pushed.ends().into_iter();
        for (source, _) in pushed.filter(|(source, end)| *end > 0 && labelled_model(source).is_none()) {
            let applied = local.head.applied(&source).number;
            let is_nothing = applied == 0 && self.reader.history.pushed.of(&source).sealed() > 0;
            if is_nothing || applied < local.log.forgotten(&source).number {
                lacking.insert(source);
            }
        }
        let sources = &self.live().compiled.catalog.definitions.sources;
        if self.live().number > 0 {
            lacking.retain(|source| sources.contains_key(source));
        }
        if lacking != known {
            local.head.set_lacking(&lacking)?;
        }
        Ok(lacking)
    }

    fn make_anew(&self, lacking: &BTreeSet<String>) -> Result<()> {
        let live = self.live();
        let views = live.compiled.catalog.views.values().filter(|view| lacking.contains(&view.source));
        let views: Vec<String> = views.map(|view| view.name.clone()).collect();
        if !views.is_empty() {
            let request = MaterializeRequest { views, ..MaterializeRequest::default() };
            let permitted = live.seen_by(&Caller::owner()).operate(Operation::Materialize)?;
            let note = |progress| self.catching_up.note(progress);
            self.materialize.run((&live, &permitted), &request, now_us(), &note)?;
        }
        Ok(self.local.set_lacking(&BTreeSet::new())?)
    }
}
