//! Who is next, and who is refused? Given what waits, what runs cost, and the time; nothing here runs or looks at a
//! clock.
//!
//! While all that has a deadline can be met, the earliest deadline is served first. Beyond that somebody must lose, and
//! then whoever has most time left is served first: those leave room for the largest run, while the others would make
//! each run as small as the little time that is left to them. What cannot be done in time any more is refused before
//! it is run. What has no deadline takes turns with what has one, in the order in which it came; interactive jobs go
//! before those of a batch, but for one run in [`BATCH_TURN`]. Whoever goes first, others ride along where rows are
//! cheaper together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::costs::Costs;

/// What a run may take of what it is expected to, which half of the runs exceed.
const MARGIN: f64 = 1.25;
/// The same where those who ride along have no hurry: they are not to make it close for the others.
const GUEST_MARGIN: f64 = 2.0;
/// One run in so many begins with a job of a batch, whoever else waits.
const BATCH_TURN: u64 = 16;
/// One run in so many has company that is not expected to pay, or to be done in time: only runs teach what runs cost.
const TRY_TURN: u64 = 256;
/// So many jobs are looked through for whether all can be met: where more wait, they cannot.
const LOOKED_AT_MAX: usize = 2_048;

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

/// What is the same for all runs of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Rows in a run that jobs share.
    pub(crate) max_rows: usize,
    /// Rows that may wait.
    pub(crate) queue_rows: usize,
    /// Runs at the same time.
    pub(crate) sessions: usize,
}

/// Names a job that waits, or that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    deadline: Option<Instant>,
    priority: Priority,
}

/// Why a job is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its deadline has passed.
    Late,
    /// Its deadline would pass.
    NoTime,
    /// As many rows wait as may.
    Full {
        /// So many.
        waiting: usize,
    },
}

/// A job and how many rows it has.
#[derive(Debug)]
pub(crate) struct Job<T> {
    pub(crate) ticket: Ticket,
    pub(crate) rows: usize,
    pub(crate) what: T,
}

/// The jobs of the next run, none where nothing can be run, and those to refuse.
#[derive(Debug)]
pub(crate) struct Picked<T> {
    pub(crate) run: Vec<Job<T>>,
    pub(crate) refused: Vec<(Job<T>, Refusal)>,
}

/// All that waits for a session of one file.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    interactive: Class<T>,
    batch: Class<T>,
    rows: usize,
    came: u64,
    picks: u64,
    /// Since when there is somebody.
    since: Option<Instant>,
}

/// The jobs of one priority.
#[derive(Debug)]
struct Class<T> {
    /// By deadline, and then as they came.
    hurried: BTreeMap<(Instant, u64), Job<T>>,
    /// As they came.
    patient: BTreeMap<u64, Job<T>>,
    /// Rows of those in a hurry.
    hurried_rows: usize,
}

impl<T> Class<T> {
    fn is_empty(&self) -> bool {
        self.hurried.is_empty() && self.patient.is_empty()
    }
}

impl<T> Waiting<T> {
    pub(crate) fn new() -> Waiting<T> {
        let class = || Class { hurried: BTreeMap::new(), patient: BTreeMap::new(), hurried_rows: 0 };
        Waiting { interactive: class(), batch: class(), rows: 0, came: 0, picks: 0, since: None }
    }

    /// Rows that wait.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Jobs that wait.
    pub(crate) fn jobs(&self) -> usize {
        let count = |class: &Class<T>| class.hurried.len() + class.patient.len();
        count(&self.interactive) + count(&self.batch)
    }

    /// Since when somebody waits for company.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = |class: &Class<T>| class.hurried.first_key_value().map(|((due, _), _)| *due);
        first(&self.interactive).into_iter().chain(first(&self.batch)).min()
    }

    /// Whether a job of `rows` may wait behind those that do.
    pub(crate) fn admits(
        &self,
        (rows, deadline): (usize, Option<Instant>),
        (costs, rules): (&Costs, Rules),
        now: Instant,
    ) -> Result<(), Refusal> {
        // With nobody ahead it is tried, whatever is expected.
        if self.rows == 0 {
            return Ok(());
        }
        if self.rows + rows > rules.queue_rows {
            return Err(Refusal::Full { waiting: self.rows });
        }
        match deadline {
            Some(deadline) if now + costs.of(rows) > deadline => Err(Refusal::NoTime),
            _ => Ok(()),
        }
    }

    pub(crate) fn push(&mut self, what: T, rows: usize, limits: Limits, now: Instant) -> Ticket {
        self.came += 1;
        self.since.get_or_insert(now);
        self.rows += rows;
        let Limits { deadline, priority } = limits;
        let ticket = Ticket { number: self.came, deadline, priority };
        let job = Job { ticket, rows, what };
        let class = self.class(priority);
        match deadline {
            Some(due) => {
                class.hurried_rows += rows;
                class.hurried.insert((due, ticket.number), job)
            }
            None => class.patient.insert(ticket.number, job),
        };
        ticket
    }

    /// Takes a job out, if it still waits.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Job<T>> {
        let class = self.class(ticket.priority);
        let job = match ticket.deadline {
            Some(due) => class.hurried.remove(&(due, ticket.number)),
            None => class.patient.remove(&ticket.number),
        }?;
        class.hurried_rows -= ticket.deadline.map_or(0, |_| job.rows);
        self.rows -= job.rows;
        if self.rows == 0 {
            self.since = None;
        }
        Some(job)
    }

    /// Takes out those with the earliest deadlines while not all can be done by the last one: somebody must lose, and
    /// who is told so early can still ask elsewhere.
    pub(crate) fn shed(&mut self, costs: &Costs, rules: Rules, now: Instant) -> Vec<(Job<T>, Refusal)> {
        let mut shed = Vec::new();
        let together = if costs.company_pays(rules.max_rows) { costs.best_rows(rules.max_rows) } else { 1 };
        let per_row = costs.of(together).as_secs_f64() / together as f64 / rules.sessions as f64;
        for priority in [Priority::Batch, Priority::Interactive] {
            loop {
                let class = self.class(priority);
                let needs = Duration::from_secs_f64(per_row * class.hurried_rows as f64);
                let hurried = &class.hurried;
                let ends = hurried.first_key_value().zip(hurried.last_key_value());
                let Some(((_, first), ((last, _), _))) = ends.filter(|_| hurried.len() > 1) else { break };
                if now + needs <= *last {
                    break;
                }
                let ticket = first.ticket;
                shed.extend(self.remove(ticket).map(|job| (job, Refusal::NoTime)));
            }
        }
        shed
    }

    /// Takes out the jobs of the next run, and those that can never be one. While anybody waits, at least one job is
    /// taken out.
    pub(crate) fn pick(&mut self, costs: &Costs, rules: Rules, now: Instant) -> Picked<T> {
        self.picks += 1;
        let mut refused = Vec::new();
        let hopeless = self.sift(costs, now, &mut refused);
        let mut choice = Choice::new(costs, rules, now, self.picks.is_multiple_of(TRY_TURN));
        let batch_turn = self.picks.is_multiple_of(BATCH_TURN) && !self.batch.is_empty();
        let classes = match batch_turn || self.interactive.is_empty() {
            true => [&self.batch, &self.interactive],
            false => [&self.interactive, &self.batch],
        };
        for class in classes {
            choice.take_class(class, self.picks.is_multiple_of(2));
        }
        let Choice { tickets, .. } = choice;
        let mut run: Vec<Job<T>> = tickets.into_iter().filter_map(|ticket| self.remove(ticket)).collect();
        // Where none can be done in time, one is tried: only runs teach what runs cost.
        if run.is_empty() {
            run.extend(hopeless.or_else(|| self.earliest().and_then(|ticket| self.remove(ticket))));
        } else {
            refused.extend(hopeless.map(|job| (job, Refusal::NoTime)));
        }
        Picked { run, refused }
    }

    fn earliest(&self) -> Option<Ticket> {
        let first = |class: &Class<T>| class.hurried.values().next().map(|job| job.ticket);
        first(&self.interactive).or_else(|| first(&self.batch))
    }

    /// Takes out what is late, and what would be; the last of the latter comes back, and may be tried.
    fn sift(&mut self, costs: &Costs, now: Instant, refused: &mut Vec<(Job<T>, Refusal)>) -> Option<Job<T>> {
        let mut hopeless: Option<Job<T>> = None;
        for priority in [Priority::Batch, Priority::Interactive] {
            while let Some(((due, _), job)) = self.class(priority).hurried.first_key_value() {
                let (is_late, ticket) = (*due <= now, job.ticket);
                if !is_late && now + costs.of(job.rows) <= *due {
                    break;
                }
                let Some(job) = self.remove(ticket) else { break };
                if is_late {
                    refused.push((job, Refusal::Late));
                } else {
                    refused.extend(hopeless.replace(job).map(|job| (job, Refusal::NoTime)));
                }
            }
        }
        hopeless
    }

    fn class(&mut self, priority: Priority) -> &mut Class<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}

/// The next run, while it is put together.
struct Choice<'a> {
    costs: &'a Costs,
    now: Instant,
    sessions: u32,
    /// The most rows, and jobs, that share the run.
    most_rows: usize,
    most_jobs: usize,
    is_try: bool,
    tickets: Vec<Ticket>,
    rows: usize,
    /// The earliest deadline of those in it.
    until: Option<Instant>,
}

impl<'a> Choice<'a> {
    fn new(costs: &'a Costs, rules: Rules, now: Instant, is_try: bool) -> Choice<'a> {
        let pays = costs.company_pays(rules.max_rows);
        Choice {
            costs,
            now,
            sessions: u32::try_from(rules.sessions).unwrap_or(u32::MAX).max(1),
            most_rows: rules.max_rows,
            most_jobs: if pays { usize::MAX } else { 1 + usize::from(is_try && rules.max_rows > 1) },
            is_try,
            tickets: Vec::new(),
            rows: 0,
            until: None,
        }
    }

    fn take_class<T>(&mut self, class: &Class<T>, patient_first: bool) {
        let leads = self.tickets.is_empty();
        if patient_first && leads {
            self.take(class.patient.values(), MARGIN);
        }
        if leads && self.tickets.is_empty() && self.all_in_time(class) {
            self.take(class.hurried.values(), MARGIN);
        } else {
            self.take(class.hurried.values().rev(), MARGIN);
        }
        if !(patient_first && leads) {
            let margin = if self.until.is_some() { GUEST_MARGIN } else { MARGIN };
            self.take(class.patient.values(), margin);
        }
    }

    /// Takes jobs while they fit.
    fn take<'b, T: 'b>(&mut self, jobs: impl Iterator<Item = &'b Job<T>>, margin: f64) {
        for job in jobs {
            if self.fits(job, margin) {
                self.rows += job.rows;
                self.until = self.until.into_iter().chain(job.ticket.deadline).min();
                self.tickets.push(job.ticket);
            } else if !self.tickets.is_empty() {
                break;
            }
        }
    }

    fn fits<T>(&self, job: &Job<T>, margin: f64) -> bool {
        let until = self.until.into_iter().chain(job.ticket.deadline).min();
        let in_time = |rows, margin| until.is_none_or(|until| self.ends(self.now, rows, margin) <= until);
        if self.tickets.is_empty() {
            return in_time(job.rows, 1.0);
        }
        let rows = self.rows + job.rows;
        let fits = self.tickets.len() < self.most_jobs && rows <= self.most_rows;
        if self.is_try && self.tickets.len() == 1 {
            return fits;
        }
        // Where somebody is in a hurry, a run is at most twice as large as those whose cost is known.
        fits && in_time(rows, margin) && (until.is_none() || rows <= 2 * self.costs.tried())
    }

    fn ends(&self, begin: Instant, rows: usize, margin: f64) -> Instant {
        begin + self.costs.of(rows).mul_f64(margin)
    }

    /// Whether all who are in a hurry are answered in time where the earliest deadline is always served first.
    fn all_in_time<T>(&self, class: &Class<T>) -> bool {
        if class.hurried.len() > LOOKED_AT_MAX {
            return false;
        }
        let (mut begin, mut rows, mut jobs, mut until) = (self.now, 0, 0, None);
        for ((due, _), job) in &class.hurried {
            let together = rows + job.rows;
            let rides = jobs > 0
                && jobs < self.most_jobs
                && together <= self.most_rows
                && until.is_some_and(|until| self.ends(begin, together, MARGIN) <= until);
            if rides {
                (rows, jobs) = (together, jobs + 1);
                continue;
            }
            // The sessions take turns: each begins when its own last run has ended.
            begin += self.costs.of(rows) / self.sessions * u32::from(jobs > 0);
            if self.ends(begin, job.rows, 1.0) > *due {
                return false;
            }
            (rows, jobs, until) = (job.rows, 1, Some(*due));
        }
        true
    }
}

#[cfg(test)]
mod tests;
