//! How does a file run that may end, hang or fill the process that runs it?
//!
//! In a process of its own, which holds one session. Its end is the end of the one run that caused it: it is started
//! again, after a pause that grows while it never lives to answer.

mod environment;
mod message;
mod process;
mod serve;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use quern_base::metrics::IntCounter;
use quern_base::{Failure, Kind};
use quern_engine::fit::{Signature, Tensor};

use self::message::{Answer, Asked, Load, Reply, Request, Run, of_bytes};
use self::process::{Ended, Process};
pub use self::serve::serve;
use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::provider::Provider;
use crate::runtime::Runtime;
use crate::stop::Stop;

/// The pause before a worker that has ended is started again: at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A request waits for a worker that is started again within this time, and is turned away otherwise.
const START_AWAITED: Duration = Duration::from_secs(1);
/// The longest time to make a session of a file, and what each MiB of it adds.
const LOAD_MAX: Duration = Duration::from_secs(10);
const LOAD_MAX_PER_MIB: Duration = Duration::from_millis(100);
/// The longest run of a model that is tried: on one row, and on more of them.
const TRIAL_ROW_MAX: Duration = Duration::from_secs(3);
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// The longest run of a model that is live, where whoever asks sets no earlier end.
const RUN_MAX: Duration = Duration::from_secs(60);
/// What a worker may hold in memory, beside this many times its file.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
const MEMORY_FILES_MAX: u64 = 8;

/// Of what a worker is made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) runtime: Runtime,
    pub(crate) onnx: Bytes,
    /// The names of the model and of its version, by which its ends are counted.
    pub(crate) whose: [String; 2],
}

/// A session in a process of its own.
#[derive(Debug)]
pub(crate) struct Worker {
    plan: Arc<Plan>,
    state: State,
    pause: Duration,
    is_live: bool,
}

/// What a worker is found to be.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) signature: Signature,
    /// Its outputs as columns, where the file leaves nothing of them open.
    pub(crate) declared: Option<SchemaRef>,
    pub(crate) provider: Provider,
}

#[derive(Debug)]
enum State {
    Up(Box<Process>),
    Starting(Starting),
}

/// A process that a thread is starting.
#[derive(Debug)]
struct Starting {
    begins: Instant,
    started: Receiver<std::result::Result<Process, String>>,
    /// Dropped, it spares the thread its pause, and us a process that nobody wants.
    _wanted: Sender<()>,
}

impl Plan {
    /// How often workers of this version were started again.
    fn restarts(&self) -> IntCounter {
        let [model, version] = &self.whose;
        metrics().worker_restarts.with_label_values(&[model, version])
    }

    /// A process with a session of the file.
    fn start(&self) -> std::result::Result<(Process, Found), String> {
        let file_bytes = self.onnx.len() as u64;
        let memory = MEMORY_BYTES_MAX + MEMORY_FILES_MAX * file_bytes;
        let mut process = Process::start(&self.runtime.worker, memory).map_err(|error| {
            let program = self.runtime.worker.path.display();
            format!("the process that models are tried in does not start from {program}: {error}")
        })?;
        let load = Load {
            library: self.runtime.library.to_string_lossy().into_owned(),
            providers: self.runtime.providers.iter().map(ToString::to_string).collect(),
            onnx: self.onnx.clone(),
        };
        let most = LOAD_MAX + LOAD_MAX_PER_MIB * u32::try_from(file_bytes >> 20).unwrap_or(u32::MAX);
        let reply = process.ask(&Request { asked: Some(Asked::Load(load)) }, most, None);
        match reply.map_err(|ended| format!("the process that loads the model {ended}"))?.answer {
            Some(Answer::Loaded(loaded)) => {
                let provider = loaded.provider.parse()?;
                let declared = match loaded.columns.is_empty() {
                    true => None,
                    false => Some(of_bytes(&loaded.columns).map_err(|error| error.to_string())?.schema()),
                };
                Ok((process, Found { signature: loaded.signature(), declared, provider }))
            }
            Some(Answer::Failed(failed)) => Err(Error::from(failed).to_string()),
            _ => Err("the process that loads the model answered something else".to_owned()),
        }
    }
}

impl Worker {
    /// Starts it, and says what it found. It is tried first.
    ///
    /// # Errors
    /// Why the file is not loaded.
    pub(crate) fn start(plan: Arc<Plan>) -> std::result::Result<(Worker, Found), String> {
        let (process, found) = plan.start()?;
        let state = State::Up(Box::new(process));
        Ok((Worker { plan, state, pause: PAUSE_FIRST, is_live: false }, found))
    }

    /// The same, for a model that is live.
    pub(crate) fn live(self) -> Worker {
        // None so far: a count that first appears when it grows is no rate to alert on.
        self.plan.restarts();
        Worker { is_live: true, ..self }
    }

    /// Whether it runs at once.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(crate) fn run(
        &mut self,
        inputs: Vec<Tensor>,
        rows: usize,
        stop: Option<&Stop>,
    ) -> Result<RecordBatch> {
        let most = match rows {
            _ if self.is_live => RUN_MAX,
            1 => TRIAL_ROW_MAX,
            _ => TRIAL_MAX,
        };
        let request = Request { asked: Some(Asked::Run(Run::new(inputs, rows))) };
        let timer = metrics().inference.start_timer();
        let reply = self.process(stop)?.ask(&request, most, stop);
        timer.observe_duration();
        let answer = match reply {
            Ok(Reply { answer }) => answer,
            Err(ended) => {
                let told = format!("the worker process of the model {ended}");
                tracing::warn!(model = self.plan.whose[0], version = self.plan.whose[1], "{told}");
                self.start_again();
                return Err(match ended {
                    Ended::Stopped => Error::late("the model did not answer in time"),
                    _ => Error::unavailable(told),
                });
            }
        };
        self.pause = PAUSE_FIRST;
        match answer {
            Some(Answer::Outputs(bytes)) => of_bytes(&bytes),
            Some(Answer::Failed(failed)) => Err(failed.into()),
            _ => Err(Error::broken("a worker answered something else")),
        }
    }

    /// The process; waits for one that is about to be up.
    fn process(&mut self, stop: Option<&Stop>) -> Result<&mut Process> {
        // One that ended while nobody asked is no fault of whoever asks next.
        if let State::Up(process) = &mut self.state
            && process.has_ended()
        {
            self.start_again();
        }
        if let State::Starting(starting) = &self.state {
            match starting.wait(stop)? {
                Ok(process) => self.state = State::Up(Box::new(process)),
                Err(cause) => {
                    self.start_again();
                    return Err(
                        Error::unavailable("the worker process of the model does not start").because(cause)
                    );
                }
            }
        }
        match &mut self.state {
            State::Up(process) => Ok(process),
            State::Starting(_) => unreachable!("it was waited for"),
        }
    }

    fn start_again(&mut self) {
        // What is tried may never be live, and has no count that anybody looks at.
        if self.is_live {
            self.plan.restarts().inc();
        }
        let (pause, plan) = (self.pause, Arc::clone(&self.plan));
        let (sender, started) = channel();
        let (_wanted, wanted) = channel::<()>();
        let start = move || {
            if wanted.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // Who does not want it any more has dropped the other end, and the process ends with it.
                let _ = sender.send(plan.start().map(|(process, _)| process));
            }
        };
        // Where there is no thread to be had, the other end is gone, and the next request tries again.
        let _ = thread::Builder::new().name("worker".to_owned()).spawn(start);
        self.state = State::Starting(Starting { begins: Instant::now() + pause, started, _wanted });
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

impl Starting {
    fn wait(&self, stop: Option<&Stop>) -> Result<std::result::Result<Process, String>> {
        let pause = self.begins.saturating_duration_since(Instant::now());
        if pause > START_AWAITED {
            let told = "the worker process of the model has ended again and again, and is started later";
            return Err(Failure::new(Kind::Unavailable, told).again_after(pause).into());
        }
        loop {
            match self.started.recv_timeout(Duration::from_millis(10)) {
                Ok(started) => return Ok(started),
                Err(RecvTimeoutError::Disconnected) => return Ok(Err("no thread starts it".to_owned())),
                Err(RecvTimeoutError::Timeout) if stop.is_some_and(Stop::is_asked) => {
                    return Err(Error::late("the model did not answer in time"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
