//! How does a caller get its answer?
//!
//! A run on a free session happens at once, on the caller's own thread where it is short. While all sessions are taken,
//! jobs wait, and whoever is done takes along those that [`policy`](crate::policy) picks: so batches form by themselves
//! under load, and one request alone never waits for company, unless it is told to (`max_delay`) and company would make
//! it cheaper.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use quern_base::stage;
use quern_engine::fit::Tensor;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::policy::{Limits, Refusal, Ticket};
use crate::pool::{Asked, Pool, Spans};

/// Somebody who waits for an answer. Who drops it has gone.
struct Caller {
    pool: Arc<Pool>,
    ticket: Ticket,
    answered: oneshot::Receiver<Result<RecordBatch>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        // Before the pool is told, so that a job that is just being picked is seen to have nobody.
        self.answered.close();
        self.pool.leave(self.ticket);
    }
}

/// Runs on this thread, as soon as a session is free.
pub(crate) fn run_here(pool: &Arc<Pool>, inputs: Vec<Tensor>, rows: usize) -> Result<RecordBatch> {
    Lease::of(pool, pool.wait()).run(inputs, rows, (&[], None))
}

/// Runs at once where a session is free, else waits for its turn. Whoever drops the future ends the run.
///
/// # Errors
/// `Kind::Overloaded` where too many wait, `Kind::Late` where the deadline passes.
pub(crate) async fn run(
    pool: &Arc<Pool>,
    inputs: Vec<Tensor>,
    rows: usize,
    limits: Limits,
) -> Result<RecordBatch> {
    // A run on this thread cannot be ended when a deadline passes, and sockets and timers wait with it.
    if limits.deadline.is_none()
        && !pool.takes_company(rows)
        && let Some(session) = pool.free_for_short(rows)
    {
        return stage!("run", rows).in_scope(|| Lease::of(pool, session).run(inputs, rows, (&[], None)));
    }
    // On the heap: what waits is rare, and every request would carry the room for it.
    Box::pin(queued(pool, inputs, rows, limits)).await
}

async fn queued(pool: &Arc<Pool>, inputs: Vec<Tensor>, rows: usize, limits: Limits) -> Result<RecordBatch> {
    let (answer, answered) = oneshot::channel();
    let asked = Asked { inputs, answer, spans: Spans::waiting(), since: Instant::now() };
    let (ticket, session) = pool.enter(asked, rows, limits)?;
    let mut caller = Caller { pool: Arc::clone(pool), ticket, answered };
    if let Some(session) = session {
        Lease::of(pool, session).work_off();
    }
    let answered =
        async { (&mut caller.answered).await.map_err(|error| Error::internal("inference", error))? };
    match limits.deadline {
        None => answered.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answered)
            .await
            .unwrap_or_else(|_| Err(pool.error(Refusal::Late))),
    }
}
