//! Which views were materialized, when, by whom, and what came of it?
//!
//! A run says where it is ([`Runs::begin`]) and goes on: one task writes that down in the registry, says time and again
//! that this process is still at it, and reads what others wrote. While the registry is away it tries again; no run
//! waits for it but at its end, for a moment, since a command ends then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quern_base::metrics::Gauge;
use quern_base::tasks::Task;
use quern_store::registry::{KnownRuns, Registry, Run, RunEnd, RunNote};
use quern_wire::RunState;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::data_folder::INSTANCE;
use crate::error::{Error, Result};

/// How often a process says that it is still at its runs.
const BEAT: Duration = Duration::from_secs(10);
/// Who has said nothing for so long has died, µs of the database's clock.
const DEAD_AFTER_US: i64 = 60_000_000;
/// How often it is read what others wrote.
const READ_EVERY: Duration = Duration::from_secs(15);
/// How long the registry may take for any of it.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the end of a run waits until it is written down.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Bytes of an error that are kept.
const ERROR_BYTES_MAX: usize = 1_000;

/// The runs on one head.
pub struct Runs {
    inner: Arc<Inner>,
    _writing: Task,
}

struct Inner {
    registry: Registry,
    /// Names the head.
    head: String,
    /// Whether other processes may run on it at the same time.
    is_shared: bool,
    state: Mutex<State>,
    /// Wakes the task.
    news: Notify,
    /// Told whenever something was written down.
    written: Condvar,
}

#[derive(Default)]
struct State {
    /// The latest run of each view in this process.
    ours: BTreeMap<String, Noted>,
    /// The views of those that are yet to be written down.
    pending: BTreeSet<String>,
    /// What runs here.
    running: BTreeSet<String>,
    /// Everything else is to be forgotten, where it is set.
    keep: Option<BTreeSet<String>>,
    /// As the registry had it when it was read last.
    known: KnownRuns,
    /// Whether writing failed when it was tried last.
    is_away: bool,
}

#[derive(Debug, Clone)]
struct Noted {
    began: Instant,
    ended: Option<(Instant, RunEnd)>,
}

/// What a view's run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) rows_written: u64,
    /// The query time up to which it has materialized, µs.
    pub(crate) until_us: i64,
    /// The newest event that it saw, µs.
    pub(crate) newest_us: Option<i64>,
    /// Rows that were left out because of a `strict` feature.
    pub(crate) refused: u64,
}

/// A view's run that is under way. Dropped before its end, it has failed.
pub(crate) struct Begun<'r> {
    runs: &'r Runs,
    view: String,
    began: Instant,
    end: RunEnd,
}

impl Begun<'_> {
    /// Notes how it ended.
    pub(crate) fn end(mut self, ended: std::result::Result<Outcome, &Error>) {
        self.end.error = None;
        match ended {
            Ok(outcome) => {
                self.end.rows_written = outcome.rows_written;
                self.end.until_us = Some(outcome.until_us);
                self.end.newest_us = outcome.newest_us;
                if outcome.refused > 0 {
                    self.end.error = Some(format!(
                        "values of `strict` features could not be computed, so {} rows or events were left out",
                        outcome.refused
                    ));
                }
            }
            Err(error) => self.end.error = Some(cut(error.logged())),
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let end = self.end.clone();
        let noted = Noted { began: self.began, ended: Some((Instant::now(), end)) };
        self.runs.note(&self.view, noted);
    }
}

impl Runs {
    /// The runs on `head`, which several processes may write where it `is_shared`.
    pub(crate) fn open(registry: Registry, head: String, is_shared: bool) -> Runs {
        let state = Mutex::default();
        let (news, written) = (Notify::new(), Condvar::new());
        let inner = Arc::new(Inner { registry, head, is_shared, state, news, written });
        let writing = Arc::clone(&inner);
        Runs { inner, _writing: Task::spawn(async move { writing.go_on().await }) }
    }

    /// Notes that a run of `view` begins.
    pub(crate) fn begin(&self, view: &str) -> Begun<'_> {
        let began = Instant::now();
        self.note(view, Noted { began, ended: None });
        let error = Some("it broke off; the server's log says where".to_owned());
        let end = RunEnd { ago_us: 0, rows_written: 0, until_us: None, newest_us: None, error };
        Begun { runs: self, view: view.to_owned(), began, end }
    }

    fn note(&self, view: &str, noted: Noted) {
        let mut state = self.inner.state.lock();
        match noted.ended {
            None => _ = state.running.insert(view.to_owned()),
            Some(_) => _ = state.running.remove(view),
        }
        state.ours.insert(view.to_owned(), noted);
        state.pending.insert(view.to_owned());
        drop(state);
        self.inner.news.notify_one();
    }

    /// Forgets the runs of all views but these.
    pub(crate) fn keep_only(&self, views: BTreeSet<String>) {
        self.inner.state.lock().keep = Some(views);
        self.inner.news.notify_one();
    }

    /// Waits for a moment until what was noted is written down. Call it where blocking is allowed.
    pub(crate) fn wait_until_written(&self) {
        let give_up = Instant::now() + WAIT_MAX;
        let mut state = self.inner.state.lock();
        while !state.is_away && (!state.pending.is_empty() || state.keep.is_some()) {
            if self.inner.written.wait_until(&mut state, give_up).timed_out() {
                return;
            }
        }
    }

    /// Asks the registry within `patience` what it knows of all runs.
    ///
    /// # Errors
    /// Where it does not say; [`Runs::known`] is what it said last.
    pub async fn read(&self, patience: Duration) -> Result<KnownRuns> {
        self.inner.read(patience).await
    }

    /// What is known of all runs without asking: what the registry said last, and what happened here since then.
    pub fn known(&self) -> KnownRuns {
        self.inner.known()
    }

    /// What became of a run.
    pub fn state_of(&self, run: &Run, now_us: i64) -> RunState {
        self.inner.state_of(run, now_us)
    }

    pub(crate) fn gauges<'a>(&self, views: impl Iterator<Item = &'a String>) -> Vec<Gauge> {
        let KnownRuns { now_us, runs, .. } = self.known();
        let runs: BTreeMap<&str, &Run> = runs.iter().map(|run| (run.view.as_str(), run)).collect();
        let live: Vec<&Run> = views.filter_map(|view| runs.get(view.as_str()).copied()).collect();
        let failed = live.iter().map(|run| {
            let has_failed = matches!(self.state_of(run, now_us), RunState::Failed | RunState::Died);
            let help = "Whether the last run of materialize failed, or its process died, by feature view";
            Gauge::new("quern_materialize_failed", help, u64::from(has_failed))
                .of(&[("feature_view", &run.view)])
        });
        let success = live.iter().filter_map(|run| {
            let help = "When a run of materialize last succeeded, in seconds since 1970";
            let gauge = Gauge::new("quern_materialize_last_success_seconds", help, 0);
            Some(Gauge { value: run.success_us? as f64 / 1e6, ..gauge }.of(&[("feature_view", &run.view)]))
        });
        failed.chain(success).collect()
    }
}

impl Inner {
    async fn go_on(&self) {
        let mut read_at: Option<Instant> = None;
        loop {
            let written = self.write().await;
            let is_due = read_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
            if is_due || (written && self.state.lock().running.is_empty()) {
                // What fails is told to whoever asks.
                let _ = self.read(ANSWER).await;
                read_at = Some(Instant::now());
            }
            if self.state.lock().is_away {
                tokio::time::sleep(BEAT).await;
            } else if timeout(BEAT, self.news.notified()).await.is_err() {
                self.beat().await;
            }
        }
    }

    /// Writes down what is new; whether there was anything.
    async fn write(&self) -> bool {
        let (noted, keep) = {
            let state = self.state.lock();
            let pending = state.ours.iter().filter(|(view, _)| state.pending.contains(*view));
            let noted: BTreeMap<String, Noted> =
                pending.map(|(view, noted)| (view.clone(), noted.clone())).collect();
            (noted, state.keep.clone())
        };
        if noted.is_empty() && keep.is_none() {
            return false;
        }
        let notes: Vec<RunNote> = noted.iter().map(|(view, noted)| noted.now(view)).collect();
        let writing = async {
            self.registry.note_runs(&self.head, &INSTANCE, &notes).await?;
            match &keep {
                Some(views) => self.registry.forget_runs(&self.head, views).await,
                None => Ok(()),
            }
        };
        let ended = in_time(ANSWER, writing).await;
        let mut state = self.state.lock();
        match &ended {
            Ok(()) => {
                let State { ours, pending, .. } = &mut *state;
                // What was noted meanwhile is yet to be written.
                pending.retain(|view| match (noted.get(view), ours.get(view)) {
                    (Some(written), Some(now)) => !written.is_same(now),
                    _ => true,
                });
                if state.keep == keep
                    && let Some(views) = state.keep.take()
                {
                    state.ours.retain(|view, _| views.contains(view));
                }
            }
            Err(error) if !state.is_away => tracing::warn!(
                cause = error.logged(),
                "what materialize does is not noted in the registry; it goes on"
            ),
            Err(_) => {}
        }
        state.is_away = ended.is_err();
        drop(state);
        self.written.notify_all();
        ended.is_ok()
    }

    async fn beat(&self) {
        if !self.state.lock().running.is_empty() {
            // Where it fails, the next one may not.
            let _ = in_time(ANSWER, self.registry.beat_runs(&self.head, &INSTANCE)).await;
        }
    }

    async fn read(&self, patience: Duration) -> Result<KnownRuns> {
        let known = in_time(patience, self.registry.runs(&self.head)).await?;
        self.state.lock().known = known;
        Ok(self.known())
    }

    fn known(&self) -> KnownRuns {
        let state = self.state.lock();
        let mut known = state.known.clone();
        let mut runs: BTreeMap<String, Run> =
            known.runs.into_iter().map(|run| (run.view.clone(), run)).collect();
        for (view, noted) in &state.ours {
            let before = runs.get(view);
            // The registry may have been read just before the end was written.
            let is_late = before.is_some_and(|run| run.instance == *INSTANCE && run.ended_us.is_none());
            if state.pending.contains(view) || (is_late && noted.ended.is_some()) {
                let run = noted.run(view, before, quern_base::clock::now_us());
                runs.insert(view.clone(), run);
            }
        }
        known.runs = runs.into_values().collect();
        known
    }

    fn state_of(&self, run: &Run, now_us: i64) -> RunState {
        let is_ours = run.instance == *INSTANCE;
        match (run.ended_us, &run.error) {
            (Some(_), None) => RunState::Done,
            (Some(_), Some(_)) => RunState::Failed,
            (None, _) if is_ours && self.state.lock().running.contains(&run.view) => RunState::Running,
            // Whoever ran on a head that is ours alone had it open before us.
            (None, _) if is_ours || !self.is_shared => RunState::Died,
            (None, _) if now_us - run.seen_us > DEAD_AFTER_US => RunState::Died,
            (None, _) => RunState::Running,
        }
    }
}

impl Noted {
    fn is_same(&self, other: &Noted) -> bool {
        self.began == other.began && self.ended.is_some() == other.ended.is_some()
    }

    fn now(&self, view: &str) -> RunNote {
        let ended = self.ended.as_ref().map(|(at, end)| RunEnd { ago_us: ago_us(*at), ..end.clone() });
        RunNote { view: view.to_owned(), begun_ago_us: ago_us(self.began), ended }
    }

    /// As the registry would have it, by this machine's clock.
    fn run(&self, view: &str, before: Option<&Run>, now_us: i64) -> Run {
        let note = self.now(view);
        let (end, begun_us) = (note.ended, now_us - note.begun_ago_us);
        let ended_us = end.as_ref().map(|end| now_us - end.ago_us);
        let success_us = ended_us.filter(|_| end.as_ref().is_some_and(|end| end.error.is_none()));
        let newest_us = end.as_ref().and_then(|end| end.newest_us);
        Run {
            view: view.to_owned(),
            instance: INSTANCE.clone(),
            begun_us,
            seen_us: now_us,
            ended_us,
            rows_written: end.as_ref().map(|end| end.rows_written as i64),
            until_us: end.as_ref().and_then(|end| end.until_us),
            newest_us: newest_us.max(before.and_then(|run| run.newest_us)),
            error: end.and_then(|end| end.error),
            success_us: success_us.or(before.and_then(|run| run.success_us)),
        }
    }
}

fn ago_us(at: Instant) -> i64 {
    i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX)
}

/// The beginning of an error, where it is long.
fn cut(mut error: String) -> String {
    if error.len() > ERROR_BYTES_MAX {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        error.push('…');
    }
    error
}

/// The answer of the registry, or an error where it takes longer.
async fn in_time<T>(patience: Duration, asked: impl Future<Output = quern_store::Result<T>>) -> Result<T> {
    match timeout(patience, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::unavailable(format!(
            "the registry does not answer: nothing came within {} s",
            patience.as_secs()
        ))),
    }
}
