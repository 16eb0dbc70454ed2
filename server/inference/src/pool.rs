//! Which sessions of a file are free, who waits for one, and who for what runs?
//!
//! A caller that goes away, at its deadline or since its client has gone, takes its job along: one that waits is never
//! run, and a run for which nobody waits any more is ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use feature_defs::Batching;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quern_base::clock::now_us;
use quern_base::stage;
use quern_engine::fit::Tensor;
use tokio::sync::oneshot;
use tracing::Span;

use crate::costs::Costs;
use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::policy::{self, Limits, Refusal, Rules, Ticket, Waiting};
use crate::run::Cost;
use crate::runner::Runner;
use crate::stop::Stop;

/// Waiting for company pays where each further row costs less than this share of a row alone.
const WAIT_PAYS_BELOW: f64 = 0.7;

/// How much there is to do, and for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How many callers are served at the same time.
    pub sessions: usize,
    /// As many are.
    pub busy: usize,
    /// Rows that wait.
    pub waiting_rows: usize,
    /// The requests that they are of.
    pub waiting: usize,
}

/// What is known of a file before it runs for anybody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// What it cost when it was tried.
    pub(crate) cost: Cost,
    /// Whether a row gets the same bits whatever company it is in.
    pub(crate) alike: bool,
    /// Whether each row may cost something else.
    pub(crate) uneven: bool,
}

/// The sessions of one file, and the jobs that wait for one.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// A session is free.
    returned: Condvar,
    /// A job has come.
    arrived: Condvar,
    rules: Rules,
    /// Whether no run is known to be short: rows decide, or a worker is waited for.
    uneven: bool,
    /// How long a run waits for company.
    delay: Duration,
    pub(crate) counts: Counts,
}

#[derive(Debug)]
struct State {
    idle: Vec<Runner>,
    waiting: Waiting<Asked>,
    /// The run that each job is in, by its number.
    running: HashMap<u64, Arc<Callers>>,
    costs: Costs,
}

/// A job that waits.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) answer: oneshot::Sender<Result<RecordBatch>>,
    pub(crate) spans: Spans,
    pub(crate) since: Instant,
}

pub(crate) type Job = policy::Job<Asked>;

/// Those who wait for a run, and what ends it.
pub(crate) struct Callers {
    left: AtomicUsize,
    pub(crate) stop: Stop,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Callers {
    /// Whether nobody waits any more.
    pub(crate) fn are_gone(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// What a tracer sees of a job.
#[derive(Debug)]
pub(crate) struct Spans {
    /// The inference that asks; none where nobody traces it.
    pub(crate) asked: Span,
    /// Its wait.
    pub(crate) wait: Span,
}

impl Spans {
    const NONE: Spans = Spans { asked: Span::none(), wait: Span::none() };

    /// Those of a job that begins to wait.
    pub(crate) fn waiting() -> Spans {
        let wait = stage!("queue");
        if wait.is_disabled() { Spans::NONE } else { Spans { asked: Span::current(), wait } }
    }
}

impl Pool {
    pub(crate) fn new(sessions: Vec<Runner>, traits: Traits, batching: Batching) -> Pool {
        let Traits { cost, alike, uneven } = traits;
        let max_rows = if alike { batching.max_rows as usize } else { 1 };
        let pays = max_rows > 1 && cost.micros_per_row < WAIT_PAYS_BELOW * cost.micros;
        let delay = if pays { batching.max_delay_us } else { 0 };
        Pool {
            uneven: uneven || !sessions.iter().all(Runner::is_here),
            rules: Rules { max_rows, queue_rows: batching.queue_rows as usize, sessions: sessions.len() },
            state: Mutex::new(State {
                idle: sessions,
                waiting: Waiting::new(),
                running: HashMap::new(),
                costs: Costs::new(cost),
            }),
            returned: Condvar::new(),
            arrived: Condvar::new(),
            delay: Duration::from_micros(delay.unsigned_abs()),
            counts: Counts::default(),
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.rules.sessions
    }

    pub(crate) fn pressure(&self) -> Pressure {
        let state = self.state.lock();
        Pressure {
            sessions: self.rules.sessions,
            busy: self.rules.sessions.saturating_sub(state.idle.len()),
            waiting_rows: state.waiting.rows(),
            waiting: state.waiting.jobs(),
        }
    }

    /// A session, as soon as one is free.
    pub(crate) fn wait(&self) -> Runner {
        let mut state = self.state.lock();
        loop {
            match state.idle.pop() {
                Some(session) => return session,
                None => self.returned.wait(&mut state),
            }
        }
    }

    /// Whether rows that could run at once wait for others first.
    pub(crate) fn takes_company(&self, rows: usize) -> bool {
        !self.delay.is_zero() && rows < self.rules.max_rows
    }

    /// A free session for a run that is short for sure, so that it may happen on a thread that others need.
    pub(crate) fn free_for_short(&self, rows: usize) -> Option<Runner> {
        if self.uneven {
            return None;
        }
        let mut state = self.state.lock();
        if state.costs.is_short(rows) { state.idle.pop() } else { None }
    }

    /// Lets a job wait, and hands out a session if one is free: for that job, or for those that wait already.
    ///
    /// # Errors
    /// `Kind::Overloaded` where there is no room, or not enough time.
    pub(crate) fn enter(
        &self,
        asked: Asked,
        rows: usize,
        limits: Limits,
    ) -> Result<(Ticket, Option<Runner>)> {
        let now = asked.since;
        let mut state = self.state.lock();
        let State { idle, waiting, costs, .. } = &mut *state;
        let free = if self.takes_company(rows) { None } else { idle.pop() };
        if free.is_none() {
            let wanted = (rows, limits.deadline);
            waiting.admits(wanted, (costs, self.rules), now).map_err(|why| self.error(why))?;
        }
        let ticket = waiting.push(asked, rows, limits, now);
        let shed = waiting.shed(costs, self.rules, now);
        // One that waits for company takes what comes until it goes.
        let session = free.or_else(|| idle.pop());
        drop(state);
        self.arrived.notify_one();
        self.refuse(shed);
        Ok((ticket, session))
    }

    /// The jobs of the next run, and who waits for it. None where nothing waits.
    pub(crate) fn next(&self) -> Option<Result<(Vec<Job>, Arc<Callers>)>> {
        loop {
            let mut state = self.state.lock();
            self.wait_for_company(&mut state);
            if state.waiting.rows() == 0 {
                return None;
            }
            let now = Instant::now();
            let State { waiting, costs, .. } = &mut *state;
            let picked = waiting.pick(costs, self.rules, now);
            let registered = state.register(picked.run);
            drop(state);
            self.refuse(picked.refused);
            let registered = registered.transpose();
            if let Some(Ok((jobs, _))) = &registered {
                for wait in jobs.iter().map(|job| now.duration_since(job.what.since)) {
                    metrics().queue.observe(wait.as_secs_f64());
                    self.counts.waited(wait);
                }
            }
            if registered.is_some() {
                return registered;
            }
        }
    }

    fn wait_for_company(&self, state: &mut MutexGuard<'_, State>) {
        let Some(oldest) = state.waiting.since().filter(|_| !self.delay.is_zero()) else { return };
        // Not until it is too late for one of them.
        let alone = state.costs.of(1) * 2;
        let latest = state.waiting.deadline().and_then(|due| due.checked_sub(alone));
        let until = latest.into_iter().chain([oldest + self.delay]).min().unwrap_or(oldest);
        while (1..self.rules.max_rows).contains(&state.waiting.rows())
            && !self.arrived.wait_until(state, until).timed_out()
        {}
    }

    /// Those of `jobs` for whom somebody waits, as one run.
    pub(crate) fn register(&self, jobs: Vec<Job>) -> Result<Option<(Vec<Job>, Arc<Callers>)>> {
        self.state.lock().register(jobs)
    }

    /// Notes that a run is over, before its answers are given. An inline run has no callers of its own.
    pub(crate) fn ended(&self, jobs: &[Job], rows: usize, elapsed: Duration, callers: Option<&Callers>) {
        self.counts.ran(rows, elapsed, now_us());
        let mut state = self.state.lock();
        for job in jobs {
            state.running.remove(&job.ticket.number);
        }
        if callers.is_some_and(Callers::are_gone) {
            state.costs.note_ended(rows, elapsed);
        } else {
            state.costs.note(rows, elapsed);
        }
    }

    /// Takes a session back; or not, where jobs wait for it.
    pub(crate) fn give_back(&self, session: Runner) -> Option<Runner> {
        let mut state = self.state.lock();
        if state.waiting.rows() > 0 {
            return Some(session);
        }
        // The last is taken first: one that is started again is the last to be asked.
        let place = if session.is_up() { state.idle.len() } else { 0 };
        state.idle.insert(place, session);
        self.returned.notify_one();
        None
    }

    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        let waited = state.waiting.remove(ticket);
        let run = state.running.remove(&ticket.number);
        drop(state);
        drop(waited);
        if let Some(run) = run
            && run.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            run.stop.end();
        }
    }

    pub(crate) fn refuse(&self, refused: Vec<(Job, Refusal)>) {
        for (job, why) in refused {
            // Who has gone does not miss it.
            let _ = job.what.answer.send(Err(self.error(why)));
        }
    }

    pub(crate) fn error(&self, why: Refusal) -> Error {
        match why {
            Refusal::Late => Error::late("the model did not answer in time"),
            Refusal::NoTime => {
                Error::overloaded("so many rows wait for the model that this request's time would be up")
            }
            Refusal::Full { waiting } => Error::overloaded(format!(
                "{waiting} rows wait for the model, and {} may (`queue_rows` of its `batching`)",
                self.rules.queue_rows
            )),
        }
    }
}

impl State {
    fn register(&mut self, mut jobs: Vec<Job>) -> Result<Option<(Vec<Job>, Arc<Callers>)>> {
        jobs.retain(|job| !job.what.answer.is_closed());
        if jobs.is_empty() {
            return Ok(None);
        }
        let callers = Arc::new(Callers { left: AtomicUsize::new(jobs.len()), stop: Stop::new()? });
        for job in &jobs {
            self.running.insert(job.ticket.number, Arc::clone(&callers));
        }
        Ok(Some((jobs, callers)))
    }
}
