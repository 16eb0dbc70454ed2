//! How does a pushed row become history and head at once?
//!
//! Its push is looked at row by row ([`rows`]) and waits in a queue. Whoever of those that wait comes first commits for
//! all of them ([`group`]): one write to disk holds the rows, the head that they make and what tells a repetition; only
//! then is anybody answered. Servers that share a head write into a log that they share as well before it, and whoever
//! comes next brings in what one that ended has left behind ([`missing`]). The queue is bounded: what does not fit is
//! turned away at once, to come again later.

mod group;
mod memory;
mod missing;
mod order;
mod repeats;
mod rows;
mod tiles;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use feature_defs::Source;
use parking_lot::Mutex;

use quern_access::{Action, Caller, Principal};
use quern_base::tasks::blocking;
use quern_engine::ViewPlan;
use quern_features::write::ViewWriter;
use quern_store::history::History;
use quern_store::log::Log;
pub use quern_store::log::StreamShare;
use quern_store::online::Online;
use quern_store::turns::Turns;
use quern_wire::{PushReply, PushTo, Rejected};

use crate::degraded::{self, Degraded};
use crate::error::{Error, Result};
use crate::live::Live;
use crate::metrics::metrics;
use crate::seal::Tail;

/// So many rows are looked at right where the request is.
const ROWS_INLINE_MAX: usize = 64;
/// Pushed rows that are in no file yet may take this much memory; then pushes are turned away.
const TAIL_BYTES_MAX: usize = 1 << 30;

/// Rows for a source, and where they go.
#[derive(Debug)]
pub struct PushedBatch {
    /// Name of the source.
    pub source: String,
    /// The rows, in any columns of the source; of types that conform to its own.
    pub rows: RecordBatch,
    /// Rows that are known to be no good.
    pub rejected: Vec<Rejected>,
    /// Where they go.
    pub to: PushTo,
    /// The view that they are pushed for, where one is named instead of the source.
    pub view: Option<String>,
    /// Names the push, so that it counts once however often it comes.
    pub idempotency_key: Option<String>,
    /// How far the parts of a stream that the rows come from are read with them.
    pub positions: Vec<Position>,
}

/// How far one part of a source's stream is read.
#[derive(Debug, Clone)]
pub struct Position {
    /// Names the part.
    pub part: String,
    /// Where reading began; none at the start. Rows that were read from elsewhere are not taken.
    pub from: Option<Vec<u8>>,
    /// Where reading goes on.
    pub to: Vec<u8>,
}

/// Takes pushed rows in.
pub struct Push {
    pub(crate) live: Live,
    pub(crate) history: Arc<History>,
    pub(crate) head: Online,
    pub(crate) log: Log,
    pub(crate) turns: Arc<Turns>,
    /// How many rows may wait to be written.
    pub(crate) queue_rows_max: usize,
    pub(crate) queue: Queue,
    pub(crate) degraded: Arc<Degraded>,
}

/// The pushes that are under way.
#[derive(Default)]
pub(crate) struct Queue {
    lanes: Mutex<BTreeMap<String, Arc<Lane>>>,
    waiting_rows: AtomicUsize,
}

/// Those that are committed together.
#[derive(Default)]
struct Lane {
    jobs: Mutex<Vec<Job>>,
    /// Held by whoever commits.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Queue {
    /// Each source has its own over a log of this server's, so that none waits for what another does; in a shared log
    /// one turn is for all.
    fn lane(&self, log: &Log, source: &str) -> Arc<Lane> {
        let name = if log.shared().is_some() { "" } else { source };
        Arc::clone(self.lanes.lock().entry(name.to_owned()).or_default())
    }
}

/// A push whose good rows wait to be committed.
struct Job {
    push: PushedBatch,
    who: Arc<Principal>,
    answer: tokio::sync::oneshot::Sender<Result<PushReply>>,
    room: Room,
}

impl Job {
    /// Answers whoever pushed. The room is given back before: the next batch of an upload may be on its way already.
    fn answer(self, answer: Result<PushReply>) {
        drop(self.room);
        // Who has gone away need not know.
        let _ = self.answer.send(answer);
    }
}

/// Room in the queue, given back when the rows are committed.
struct Room {
    push: Arc<Push>,
    rows: usize,
}

impl Room {
    fn take(push: &Arc<Push>, source: &Source, rows: usize) -> Result<Room> {
        let most = push.queue_rows_max;
        if rows > most {
            return Err(Error::too_large(format!(
                "the push brings {rows} rows, and {most} may wait at a time (`push_queue_rows`); send it in parts"
            )));
        }
        let room = Room { push: Arc::clone(push), rows };
        let waiting = push.queue.waiting_rows.fetch_add(rows, Ordering::Relaxed) + rows;
        metrics().push_queue_rows.set(waiting as i64);
        if waiting > most {
            return Err(Error::overloaded(format!(
                "{} pushed rows wait to be written, and {most} may (`push_queue_rows`)",
                waiting - rows
            )));
        }
        let (_, tail_bytes) = push.history.pushed.of(&source.name).tail_size();
        if tail_bytes > TAIL_BYTES_MAX {
            return Err(Error::overloaded(format!(
                "rows pushed to source `{}` come faster than they are written into files",
                source.name
            )));
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let waiting = self.push.queue.waiting_rows.fetch_sub(self.rows, Ordering::Relaxed) - self.rows;
        metrics().push_queue_rows.set(waiting as i64);
    }
}

impl Push {
    /// Takes rows in that `who` pushes. What the reply tells is on disk.
    ///
    /// # Errors
    /// [`NoneTaken`](crate::error::NoneTaken) where no row is any good, `Kind::Overloaded` where there is no room now;
    /// an unknown source, one that takes no pushes, columns that are missing, unknown or of other types.
    pub async fn push(self: &Arc<Self>, who: &Caller, push: PushedBatch) -> Result<PushReply> {
        // A stream is read on, whatever it held.
        let is_read_on = !push.positions.is_empty();
        self.take_in(who, push, is_read_on).await
    }

    /// The same of a stream of which nothing was ever taken in: where no row is any good, it is not read on.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub async fn push_first(self: &Arc<Self>, who: &Caller, push: PushedBatch) -> Result<PushReply> {
        self.take_in(who, push, false).await
    }

    async fn take_in(
        self: &Arc<Self>,
        who: &Caller,
        push: PushedBatch,
        is_read_on: bool,
    ) -> Result<PushReply> {
        self.log.check()?;
        let timer = metrics().push_seconds.start_timer();
        let live = self.live.now();
        // Whoever brings it has asked for the source, which is in the audit.
        live.seen_by(who).permit_still(Action::Push, &push.source)?;
        let source = live.pushed_to(&push.source)?;
        // What a stream brings nobody asks for.
        if push.positions.is_empty() {
            live.note_pushed(who, &push.source, &push.rows);
        }
        let room = Room::take(self, source, push.rows.num_rows())?;
        let (name, given) = (push.source.clone(), push.rows.num_rows());
        let checked = if given <= ROWS_INLINE_MAX {
            rows::check(&live, push)?
        } else {
            let live = Arc::clone(&live);
            blocking("looking at pushed rows", move || rows::check(&live, push)).await?
        };
        if given > 0 && checked.rows.num_rows() == 0 && !is_read_on {
            // What a stream holds back comes again.
            if checked.positions.is_empty() {
                metrics().count_pushed(&name, "rejected", checked.rejected.len());
            }
            return Err(Error::none_taken(checked.rejected));
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let lane = self.queue.lane(&self.log, &name);
        lane.jobs.lock().push(Job { push: checked, who: Arc::clone(&who.principal), answer, room });
        // A task of its own: what was begun for others must not end where this client goes away.
        let committing = Arc::clone(self);
        tokio::spawn(async move {
            let turn = Arc::clone(&lane.turn).lock_owned().await;
            let jobs = std::mem::take(&mut *lane.jobs.lock());
            // Whoever had the turn before has often taken this push along.
            if !jobs.is_empty() {
                tokio::task::spawn_blocking(move || {
                    group::commit(&committing, jobs);
                    drop(turn);
                });
            }
        });
        let reply = answered.await.map_err(|error| Error::internal("committing pushed rows", error))?;
        self.degraded.note(degraded::PUSH, &reply, Instant::now());
        let reply = reply?;
        timer.observe_duration();
        // Not before: what another server was faster to read is counted there.
        metrics().count_pushed(&name, "rejected", reply.rejected.len());
        metrics().count_pushed(&name, "accepted", reply.accepted);
        metrics().count_pushed(&name, "repeated", reply.repeated);
        Ok(reply)
    }

    /// Whether pushes can be taken here at all.
    pub fn check(&self) -> Result<()> {
        Ok(self.log.check()?)
    }

    /// How far a part of a source's stream is read; none where it never was.
    pub fn position(&self, source: &str, part: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.positions(source, &[part])?.pop().flatten())
    }

    /// How far each of these parts is, as of one moment.
    pub fn positions(&self, source: &str, parts: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        repeats::positions(&self.log, source, parts)
    }

    /// Notes that this server reads the stream of `source`, for so long, and gives what of it is its own to read.
    pub async fn share(&self, source: &str, time: Duration) -> Result<StreamShare> {
        Ok(self.log.share(source, time).await?)
    }

    /// Notes that this server does not read it any more.
    pub async fn leave(&self, source: &str) -> Result<()> {
        Ok(self.log.leave(source).await?)
    }

    fn writer<'a>(&'a self, head: &'a Online, source: &'a Source, view: &'a ViewPlan) -> ViewWriter<'a> {
        ViewWriter { history: &self.history, head, source, view }
    }

    /// Notes that rows of `view` are about to come in; where it `is_new`, all that there will be comes this way.
    fn begin(&self, view: &ViewPlan, is_new: bool) -> Result<()> {
        if self.head.watermark(view.id)?.is_none() {
            self.head.begin(view.id)?;
        }
        if let Some(windows) = view.windows.as_ref().filter(|_| is_new && self.head.kept(view.id).is_none()) {
            self.head.set_kept(view.id, windows.kept())?;
        }
        Ok(())
    }

    pub(crate) fn tail(&self) -> Tail<'_> {
        Tail { history: &self.history, log: &self.log, turns: &self.turns, live: self.live.now() }
    }

    /// Forgets in a shared log what lies in segments up to the rows of `sealed`, by source, which have lain there for
    /// some time. Gives up to which rows they lie there now.
    ///
    /// # Errors
    /// Where log or head do not answer.
    pub fn forget_sealed(&self, sealed: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        self.tail().forget(sealed)
    }

    /// Writes the rows pushed to `source` that are in no segment yet into one, unless the head is being made; whether
    /// that was done.
    ///
    /// # Errors
    /// Where store or registry take nothing.
    pub fn seal(&self, source: &str) -> Result<bool> {
        self.tail().seal(source)
    }
}
