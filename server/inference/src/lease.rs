//! What does a session do from when it is taken until it is given back?

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use quern_base::stage;
use quern_engine::fit::Tensor;
use tracing::Span;

use crate::error::Result;
use crate::metrics::metrics;
use crate::pool::{Callers, Job, Pool};
use crate::runner::Runner;
use crate::threads;

/// A session that goes on to what waits, or back to the others, however its run ends.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    session: Option<Runner>,
}

impl Lease {
    pub(crate) fn of(pool: &Arc<Pool>, session: Runner) -> Lease {
        Lease { pool: Arc::clone(pool), session: Some(session) }
    }

    /// Runs what waits, on a thread of the models' own, until nothing does.
    pub(crate) fn work_off(self) {
        threads::start(move || {
            let mut lease = self;
            while let Some(next) = lease.pool.next() {
                match next {
                    Ok((jobs, callers)) => lease.answer(jobs, &callers),
                    // Whoever waited for these hears that no answer comes.
                    Err(error) => tracing::error!(error = %error, "no run can be begun"),
                }
            }
        });
    }

    /// Runs `inputs`, for `callers` where they may go before it ends.
    pub(crate) fn run(
        &mut self,
        inputs: Vec<Tensor>,
        rows: usize,
        (jobs, callers): (&[Job], Option<&Callers>),
    ) -> Result<RecordBatch> {
        let begun = Instant::now();
        let runner = self.session.as_mut().expect("a lease holds its session until it is dropped");
        let outputs = runner.run(inputs, rows, callers.map(|callers| &callers.stop));
        self.pool.ended(jobs, rows, begun.elapsed(), callers);
        outputs
    }

    fn answer(&mut self, mut jobs: Vec<Job>, callers: &Callers) {
        let rows: usize = jobs.iter().map(|job| job.rows).sum();
        metrics().batch_rows.observe(rows as f64);
        jobs.iter_mut().for_each(|job| job.what.spans.wait = Span::none());
        // A run that requests share is in the trace of each.
        let traced = jobs.iter().filter(|job| !job.what.spans.asked.is_none());
        let runs: Vec<Span> = traced.map(|job| stage!(parent: &job.what.spans.asked, "run", rows)).collect();
        let is_alone = jobs.len() == 1;
        let mut together: Vec<Tensor> = match is_alone {
            true => std::mem::take(&mut jobs[0].what.inputs),
            false => jobs[0].what.inputs.clone(),
        };
        for job in &jobs[1..] {
            together.iter_mut().zip(job.what.inputs.clone()).for_each(|(all, inputs)| all.append(inputs));
        }
        // What asks another server passes its trace on.
        let traced = runs.first().map(Span::enter);
        let outputs = self.run(together, rows, (&jobs, Some(callers)));
        drop(traced);
        drop(runs);
        match outputs {
            Ok(outputs) => {
                let mut start = 0;
                for job in jobs {
                    let _ = job.what.answer.send(Ok(outputs.slice(start, job.rows)));
                    start += job.rows;
                }
            }
            Err(error) if is_alone => {
                let _ = jobs.remove(0).what.answer.send(Err(error));
            }
            // A server that is away is no better asked for each of them.
            Err(error) if self.session.as_ref().is_some_and(|runner| runner.fails_all(&error)) => {
                for job in jobs {
                    let _ = job.what.answer.send(Err(error.again().into()));
                }
            }
            // A row that a model cannot bear must not fail the others.
            Err(_) => jobs.into_iter().for_each(|job| self.answer_alone(job)),
        }
    }

    fn answer_alone(&mut self, job: Job) {
        match self.pool.register(vec![job]) {
            Ok(Some((jobs, callers))) => self.answer(jobs, &callers),
            // Nobody waits for it any more.
            Ok(None) => {}
            Err(error) => tracing::error!(error = %error, "no run can be begun"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if let Some(session) = self.pool.give_back(session) {
            // What came while this one ran has waited long enough.
            Lease::of(&self.pool, session).work_off();
        }
    }
}
