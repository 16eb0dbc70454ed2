//! Who runs when, and together with whom?
//!
//! A run on a free session happens at once, on the caller's own thread where it is short. While all sessions are taken,
//! rows wait, and whoever is done takes all that wait along, up to a limit: so batches form by themselves under load,
//! and one request alone never waits for company, unless it is told to (`max_delay`) and company would make it cheaper.
//! What cannot be answered in time, or finds the queue full, is turned away at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use feature_defs::Batching;
use parking_lot::{Condvar, Mutex};
use quern_base::stage;
use quern_engine::fit::Tensor;
use tokio::sync::oneshot;
use tracing::Span;

use crate::counts::Counts;
use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::run::Cost;
use crate::runner::Runner;
use crate::stop::Stop;

/// A run that is expected to take no longer is not worth a change of threads, which costs some 20 µs.
const INLINE_MAX: Duration = Duration::from_micros(200);
/// Company pays where each further row costs less than this share of a row alone.
const COMPANY_PAYS_BELOW: f64 = 0.7;

/// What a run may take of what it is expected to, which half of the runs exceed.
const MARGIN: f64 = 1.25;

/// Who goes first where not all can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody waits for a single answer.
    Batch,
    /// Somebody waits.
    #[default]
    Interactive,
}

/// How long a caller waits, and who goes first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// When nobody waits for the answer any more.
    pub deadline: Option<Instant>,
    /// Who goes first.
    pub priority: Priority,
}

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

/// The sessions of one file, and the rows that wait for one.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// A session is free.
    returned: Condvar,
    /// A row has come.
    arrived: Condvar,
    size: usize,
    /// Whether runs are in this process: a worker is waited for on a thread that may block.
    is_here: bool,
    cost: Cost,
    /// What runs have cost lately, in thousandths of what they should: zeros, on which a model was tried, may be
    /// cheaper than what it is asked.
    permille: AtomicU64,
    batching: Batching,
    /// How long a run waits for company.
    delay: Duration,
    pub(crate) counts: Counts,
}

#[derive(Debug)]
struct State {
    idle: Vec<Runner>,
    interactive: VecDeque<Job>,
    batch: VecDeque<Job>,
    rows: usize,
}

#[derive(Debug)]
struct Job {
    inputs: Vec<Tensor>,
    rows: usize,
    since: Instant,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<RecordBatch>>,
    spans: Spans,
}

impl Job {
    fn refuse(self, error: Error) {
        // Who has gone does not miss it.
        let _ = self.answer.send(Err(error));
    }
}

/// What a tracer sees of a job.
#[derive(Debug)]
struct Spans {
    /// The inference that asks; none where nobody traces it.
    asked: Span,
    /// Its wait.
    wait: Span,
}

impl Spans {
    const NONE: Spans = Spans { asked: Span::none(), wait: Span::none() };

    /// Those of a job that begins to wait.
    fn waiting() -> Spans {
        let wait = stage!("queue");
        if wait.is_disabled() { Spans::NONE } else { Spans { asked: Span::current(), wait } }
    }
}

impl Queue {
    /// `alike` says whether a row gets the same bits whatever company it is in.
    pub(crate) fn new(sessions: Vec<Runner>, cost: Cost, batching: Batching, alike: bool) -> Queue {
        let max_rows = if alike { batching.max_rows } else { 1 };
        let pays = max_rows > 1 && cost.micros_per_row < COMPANY_PAYS_BELOW * cost.micros;
        let delay = if pays { batching.max_delay_us } else { 0 };
        Queue {
            size: sessions.len(),
            is_here: sessions.iter().all(Runner::is_here),
            state: Mutex::new(State {
                idle: sessions,
                interactive: VecDeque::new(),
                batch: VecDeque::new(),
                rows: 0,
            }),
            returned: Condvar::new(),
            arrived: Condvar::new(),
            cost,
            permille: AtomicU64::new(1_000),
            batching: Batching { max_rows, ..batching },
            delay: Duration::from_micros(delay.unsigned_abs()),
            counts: Counts::default(),
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.size
    }

    pub(crate) fn pressure(&self) -> Pressure {
        let state = self.state.lock();
        Pressure {
            sessions: self.size,
            busy: self.size.saturating_sub(state.idle.len()),
            waiting_rows: state.rows,
            waiting: state.interactive.len() + state.batch.len(),
        }
    }

    /// Runs on this thread, as soon as a session is free.
    pub(crate) fn run_here(self: &Arc<Self>, inputs: Vec<Tensor>, rows: usize) -> Result<RecordBatch> {
        let session = {
            let mut state = self.state.lock();
            loop {
                match state.idle.pop() {
                    Some(session) => break session,
                    None => self.returned.wait(&mut state),
                }
            }
        };
        Lease::of(self, session).run(inputs, rows, None)
    }

    /// Runs at once where a session is free, else waits for its turn.
    ///
    /// # Errors
    /// `Kind::Overloaded` where too many wait, `Kind::Late` where the deadline passes.
    pub(crate) async fn run(
        self: Arc<Self>,
        inputs: Vec<Tensor>,
        rows: usize,
        limits: Limits,
    ) -> Result<RecordBatch> {
        // A run on this thread cannot be given up when a deadline passes.
        let is_short = self.is_here && limits.deadline.is_none() && self.expected(rows) <= INLINE_MAX;
        let takes_company = !self.delay.is_zero() && rows < self.batching.max_rows as usize;
        if is_short && !takes_company {
            let free = self.state.lock().idle.pop();
            if let Some(session) = free {
                return stage!("run", rows).in_scope(|| Lease::of(&self, session).run(inputs, rows, None));
            }
        }
        // On the heap: what waits is rare, and every request would carry the room for it.
        Box::pin(self.queued(inputs, rows, limits, takes_company)).await
    }

    async fn queued(
        self: Arc<Self>,
        inputs: Vec<Tensor>,
        rows: usize,
        limits: Limits,
        takes_company: bool,
    ) -> Result<RecordBatch> {
        let (answer, answered) = oneshot::channel();
        let spans = Spans::waiting();
        let job = Job { inputs, rows, since: Instant::now(), deadline: limits.deadline, answer, spans };
        let session = {
            let mut state = self.state.lock();
            let free = if takes_company { None } else { state.idle.pop() };
            match free {
                Some(session) => {
                    state.queue(limits.priority).push_front(job);
                    state.rows += rows;
                    Some(session)
                }
                None => {
                    self.admit(&state, rows, limits.deadline)?;
                    state.queue(limits.priority).push_back(job);
                    state.rows += rows;
                    self.arrived.notify_one();
                    // One that waits for company takes what comes until it goes.
                    state.idle.pop()
                }
            }
        };
        if let Some(session) = session {
            Lease::of(&self, session).work_off();
        }
        let answered = async { answered.await.map_err(|error| Error::internal("inference", error))? };
        match limits.deadline {
            None => answered.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), answered).await.unwrap_or_else(|_| Err(late()))
            }
        }
    }

    fn admit(&self, state: &State, rows: usize, deadline: Option<Instant>) -> Result<()> {
        let (waiting, most) = (state.rows, self.batching.queue_rows as usize);
        if waiting > 0 && waiting + rows > most {
            return Err(Error::overloaded(format!(
                "{waiting} rows wait for the model, and {most} may (`queue_rows` of its `batching`)"
            )));
        }
        let per_row = self.cost.micros_per_row.max(self.cost.micros / f64::from(self.batching.max_rows));
        let ahead =
            Duration::from_secs_f64(per_row * self.lately() * waiting as f64 / self.size as f64 / 1e6);
        let done = Instant::now() + ahead + self.expected(rows);
        // With nobody ahead it is tried, whatever is expected.
        if waiting > 0 && deadline.is_some_and(|deadline| done > deadline) {
            return Err(no_time_left());
        }
        Ok(())
    }

    fn lately(&self) -> f64 {
        self.permille.load(Ordering::Relaxed) as f64 / 1e3
    }

    fn expected(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.cost.of(rows) * self.lately() / 1e6)
    }

    /// Notes what a run cost. A step up or down for each run ends at their median: a run that the machine interrupted
    /// says nothing of the model, and a mean would send the next ones to other threads, where more of them are
    /// interrupted.
    fn note(&self, elapsed: Duration, rows: usize) {
        let now = (elapsed.as_secs_f64() * 1e9 / self.cost.of(rows).max(1.0)) as u64;
        let before = self.permille.load(Ordering::Relaxed);
        let step = before / 16 + 1;
        // Two that come together count as one; it is the median all the same.
        self.permille
            .store(if now > before { before + step } else { before - step.min(before) }, Ordering::Relaxed);
    }

    /// The jobs of the next run: those that waited longest, interactive ones first. None where nothing waits.
    fn next(&self) -> Vec<Job> {
        let mut state = self.state.lock();
        let most = self.batching.max_rows as usize;
        if let Some(oldest) = state.oldest().filter(|_| !self.delay.is_zero()) {
            let until = oldest + self.delay;
            while state.rows < most && !self.arrived.wait_until(&mut state, until).timed_out() {}
        }
        let (mut jobs, mut rows, mut until): (Vec<Job>, usize, Option<Instant>) = (Vec::new(), 0, None);
        let mut hurried = None;
        let now = Instant::now();
        let in_time = |rows, until: Option<Instant>| {
            until.is_none_or(|until| now + self.expected(rows).mul_f64(MARGIN) <= until)
        };
        while let Some(job) =
            state.pop(|job| rows == 0 || (rows + job.rows <= most && in_time(rows + job.rows, until)))
        {
            let waited = now.duration_since(job.since);
            metrics().queue.observe(waited.as_secs_f64());
            self.counts.waited(waited);
            if job.answer.is_closed() || job.deadline.is_some_and(|deadline| deadline <= now) {
                job.refuse(late());
            } else if in_time(rows + job.rows, job.deadline) {
                rows += job.rows;
                until = until.into_iter().chain(job.deadline).min();
                jobs.push(job);
            } else if let Some(before) = hurried.replace(job) {
                before.refuse(no_time_left());
            }
        }
        // Where none can be done in time, one is tried: only runs teach what runs cost.
        match hurried {
            Some(job) if jobs.is_empty() => jobs.push(job),
            Some(job) => job.refuse(no_time_left()),
            None => {}
        }
        jobs
    }
}

impl State {
    fn queue(&mut self, priority: Priority) -> &mut VecDeque<Job> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    fn oldest(&self) -> Option<Instant> {
        [&self.interactive, &self.batch]
            .into_iter()
            .filter_map(|queue| queue.front())
            .map(|job| job.since)
            .min()
    }

    fn pop(&mut self, fits: impl Fn(&Job) -> bool) -> Option<Job> {
        let queue = if self.interactive.is_empty() { &mut self.batch } else { &mut self.interactive };
        let job = queue.pop_front_if(|job| fits(job))?;
        self.rows -= job.rows;
        Some(job)
    }
}

fn late() -> Error {
    Error::late("the model did not answer in time")
}

fn no_time_left() -> Error {
    Error::overloaded("so many rows wait for the model that this request's time would be up")
}

/// Ends a run when it is dropped: at the deadline, or where the runtime ends and nobody would watch any more.
struct Ends(Stop);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A session that goes on to what waits, or back to the others, however its run ends.
struct Lease {
    queue: Arc<Queue>,
    session: Option<Runner>,
}

impl Lease {
    fn of(queue: &Arc<Queue>, session: Runner) -> Lease {
        Lease { queue: Arc::clone(queue), session: Some(session) }
    }

    fn runner(&mut self) -> &mut Runner {
        self.session.as_mut().expect("a lease holds its session until it is dropped")
    }

    /// Runs what waits, on a thread that may block, until nothing does.
    fn work_off(self) {
        tokio::task::spawn_blocking(move || {
            let mut lease = self;
            loop {
                let jobs = lease.queue.next();
                if jobs.is_empty() {
                    break;
                }
                lease.answer(jobs);
            }
        });
    }

    fn run(&mut self, inputs: Vec<Tensor>, rows: usize, stop: Option<&Stop>) -> Result<RecordBatch> {
        let begun = Instant::now();
        let outputs = self.runner().run(inputs, rows, stop);
        let took = begun.elapsed();
        self.queue.note(took, rows);
        self.queue.counts.ran(rows, took);
        outputs
    }

    fn answer(&mut self, mut jobs: Vec<Job>) {
        let rows: usize = jobs.iter().map(|job| job.rows).sum();
        metrics().batch_rows.observe(rows as f64);
        jobs.iter_mut().for_each(|job| job.spans.wait = Span::none());
        // A run that requests share is in the trace of each.
        let traced = jobs.iter().filter(|job| !job.spans.asked.is_none());
        let runs: Vec<Span> = traced.map(|job| stage!(parent: &job.spans.asked, "run", rows)).collect();
        // What nobody waits for any more need not be run to its end.
        let until = jobs
            .iter()
            .map(|job| job.deadline)
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        if let [_] = jobs.as_slice()
            && let Some(mut job) = jobs.pop()
        {
            let outputs = self.run_until(std::mem::take(&mut job.inputs), rows, until);
            drop(runs);
            let _ = job.answer.send(outputs);
            return;
        }
        let mut together: Vec<Tensor> = jobs[0].inputs.clone();
        for job in &jobs[1..] {
            together.iter_mut().zip(job.inputs.clone()).for_each(|(all, inputs)| all.append(inputs));
        }
        let outputs = self.run_until(together, rows, until);
        drop(runs);
        match outputs {
            Ok(outputs) => {
                let mut start = 0;
                for job in jobs {
                    let _ = job.answer.send(Ok(outputs.slice(start, job.rows)));
                    start += job.rows;
                }
            }
            // A row that a model cannot bear must not fail the others.
            Err(_) => jobs.into_iter().for_each(|job| self.answer(vec![job])),
        }
    }

    fn run_until(&mut self, inputs: Vec<Tensor>, rows: usize, until: Option<Instant>) -> Result<RecordBatch> {
        let Some(until) = until else { return self.run(inputs, rows, None) };
        let stop = Stop::new()?;
        let ends = Ends(stop.clone());
        let watch = tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            drop(ends);
        });
        let outputs = self.run(inputs, rows, Some(&stop));
        watch.abort();
        outputs.map_err(|error| if Instant::now() >= until { late() } else { error })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut state = self.queue.state.lock();
        if state.rows == 0 {
            // The last is taken first: one that is started again is the last to be asked.
            let place = if session.is_up() { state.idle.len() } else { 0 };
            state.idle.insert(place, session);
            self.queue.returned.notify_one();
            return;
        }
        drop(state);
        // What came while this one ran has waited long enough.
        Lease::of(&self.queue, session).work_off();
    }
}
