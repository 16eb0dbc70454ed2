//! Where does work go that may take long, or that goes on beside others?

use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// How many more [`long`] jobs may begin.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4 * cores()));

/// The threads of what takes much of a core at a time: half as many as there are cores, so that others have one. None
/// where the system has none to give.
static BESIDE: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let threads = (cores() / 2).max(1);
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("beside").on_thread_start(step_back);
    builder.enable_all().build().ok()
});

/// Lets this thread, and those that it starts, have a core when nobody else wants it much: a thread that has waited
/// for a socket goes first.
#[expect(unsafe_code, reason = "the one call of the system's that no library here has a safe one for")]
pub fn step_back() {
    // SAFETY: it takes three numbers and returns one; on Linux, 0 is the thread that calls.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, STEPS_BACK) };
}

/// A tenth of the share of a thread that has not stepped back.
const STEPS_BACK: i32 = 10;

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Runs `work`, and what may block in it, on threads beside those that wait for sockets and timers; it ends with its
/// caller.
pub async fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let Some(runtime) = &*BESIDE else { return work.await };
    let mut task = Task(runtime.spawn(work));
    match (&mut task.0).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody else ends it, and its runtime is never shut down.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Runs `job` on a thread that may block: the async runtime is for those who wait. `what` names it where it panics.
///
/// # Errors
/// Those of `job`.
pub async fn blocking<T, E>(
    what: &'static str,
    job: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<crate::Failure> + Send + 'static,
{
    spawn_blocking(job).await.map_err(|error| broken_off(what, error))?
}

/// [`blocking`], for what may take minutes: of such jobs there are only a few at a time, so that threads are left for
/// what takes moments.
///
/// # Errors
/// Those of `job`.
pub async fn long<T, E>(
    what: &'static str,
    job: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<crate::Failure> + Send + 'static,
{
    // Nobody closes it. The turn is the job's: it ends with it, and not with a caller that goes away before.
    let turn = TURNS.acquire().await;
    let job = move || {
        let _turn = turn;
        job()
    };
    blocking(what, job).await
}

/// Runs `job` to its end, whatever becomes of the caller.
///
/// # Errors
/// Those of `job`.
pub async fn detached<T, E>(
    what: &'static str,
    job: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<crate::Failure> + Send + 'static,
{
    tokio::spawn(job).await.map_err(|error| broken_off(what, error))?
}

fn broken_off<E: From<crate::Failure>>(what: &'static str, error: JoinError) -> E {
    crate::Failure::new(crate::Kind::Internal, what).because(error).into()
}

/// A task that ends when it is dropped.
#[derive(Debug)]
pub struct Task<T = ()>(JoinHandle<T>);

impl Task {
    /// Starts `work`.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(work))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Work that is done again and again beside everything else, on threads that may block, until this is dropped or ended.
#[derive(Debug)]
pub struct Rounds {
    _task: Task,
    busy: Turn,
}

/// Whoever holds this is in the middle of a round.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Gives rounds their threads.
#[derive(Debug, Clone)]
pub struct Round(Turn);

impl Rounds {
    /// Starts `rounds`, which does its work by [`Round::work`].
    pub fn start<F: Future<Output = ()> + Send + 'static>(rounds: impl FnOnce(Round) -> F) -> Rounds {
        let busy = Turn::default();
        Rounds { _task: Task::spawn(rounds(Round(Arc::clone(&busy)))), busy }
    }

    /// Begins no further round, and waits for the end of the one under way, but no longer than this: its runtime is
    /// about to go, and what waits for a timer of it then panics.
    pub async fn end(self, longest: Duration) {
        drop(self._task);
        let _ = tokio::time::timeout(longest, self.busy.lock()).await;
    }
}

impl Round {
    /// Does the work of one round, as [`long`] does.
    ///
    /// # Errors
    /// Those of `job`.
    pub async fn work<T, E>(
        &self,
        what: &'static str,
        job: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::Failure> + Send + 'static,
    {
        let turn = Arc::clone(&self.0).lock_owned().await;
        let job = move || {
            let _turn = turn;
            job()
        };
        long(what, job).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{Failure, Kind};

    /// Held by whoever counts turns, and by whoever takes one.
    static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_ends_rounds_waits_for_the_one_under_way() {
        let _alone = COUNTING.lock().await;
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let (done, ends) = mpsc::channel();
        let rounds = Rounds::start(|round| async move {
            let job = move || {
                begun.send(()).map_err(|error| Failure::new(Kind::Internal, error))?;
                let _ = goes.recv();
                done.send(()).map_err(|error| Failure::new(Kind::Internal, error))
            };
            let _ = round.work("a round", job).await;
        });
        begins.recv().unwrap();
        let ending = tokio::spawn(rounds.end(Duration::from_secs(60)));
        drop(go);
        ending.await.unwrap();
        assert_eq!(ends.try_recv(), Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_job_keeps_its_turn_when_its_caller_goes_away() {
        let _alone = COUNTING.lock().await;
        let all = TURNS.available_permits();
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let caller = tokio::spawn(long("waiting", move || {
            begun.send(()).map_err(|error| Failure::new(Kind::Internal, error))?;
            // Until the other end is dropped.
            let _ = goes.recv();
            Ok::<_, Failure>(())
        }));
        begins.recv().unwrap();
        caller.abort();
        assert!(caller.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(TURNS.available_permits(), all - 1);
        drop(go);
        let _all = TURNS.acquire_many(all as u32).await.unwrap();
    }
}
