//! On which thread does a run happen that its caller's thread must not wait for?
//!
//! Models have threads of their own. Those of the async runtime that may block are shared with all that blocks: streams
//! of training sets alone could fill them, and predictions would wait behind. Whoever asks for a thread here holds a
//! session, so there are never more than sessions.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A thread that has had nothing to do for so long ends: of models that are no longer live, none is left.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

struct Threads {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    work: VecDeque<Work>,
    /// Threads that wait for work.
    idle: usize,
    all: usize,
}

static THREADS: Threads =
    Threads { state: Mutex::new(State { work: VecDeque::new(), idle: 0, all: 0 }), arrived: Condvar::new() };

/// Does `work` on a thread of the models' own, at once.
pub(crate) fn start(work: impl FnOnce() + Send + 'static) {
    let mut state = THREADS.state.lock();
    state.work.push_back(Box::new(work));
    if state.work.len() <= state.idle {
        drop(state);
        THREADS.arrived.notify_one();
        return;
    }
    state.all += 1;
    drop(state);
    let started = std::thread::Builder::new().name("quern-model".to_owned()).spawn(attend);
    if started.is_err() {
        // No thread can be had: another one takes it when it is done, or this one does it, since somebody must.
        let mut state = THREADS.state.lock();
        state.all -= 1;
        let work = if state.all == 0 { state.work.pop_front() } else { None };
        drop(state);
        if let Some(work) = work {
            work();
        }
    }
}

fn attend() {
    let mut state = THREADS.state.lock();
    loop {
        if let Some(work) = state.work.pop_front() {
            drop(state);
            // What waits for its answer sees that it never comes; the thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(work));
            state = THREADS.state.lock();
            continue;
        }
        state.idle += 1;
        let ended = THREADS.arrived.wait_for(&mut state, IDLE_MAX).timed_out();
        state.idle -= 1;
        if ended && state.work.is_empty() {
            state.all -= 1;
            return;
        }
    }
}
