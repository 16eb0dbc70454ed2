//! How is a process asked that runs a driver, when it may end, hang or grow at any moment?
//!
//! As a worker of models is: its standard input and output are sockets, so that whatever a library prints there spoils
//! nothing, and secrets stand neither on its command line nor in its environment. It is ended with the answers.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use quern_base::metrics::resident_bytes;

use crate::error::{Error, Result};
use crate::message::{Failed, Reply, answered, ask};
use crate::question::Question;
use crate::serve::VARIABLE;

/// How often time and memory are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// How long a database may think before it says anything more.
const SILENCE_MAX: Duration = Duration::from_secs(900);
/// What the process may hold in memory.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// What it gets of this process's environment: what libraries need to be found and to find the system's certificates.
/// Passwords lie among the rest.
const ENVIRONMENT: [&str; 11] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
];

/// The program that is started to ask a database: it calls [`serve`](crate::serve) where that
/// [`is_wanted`](crate::is_wanted).
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
    /// The folder that paths in URLs of databases start from.
    pub folder: PathBuf,
}

/// What a database answers, statement by statement.
#[derive(Debug)]
pub struct Answers {
    child: Child,
    socket: UnixStream,
    /// Closed with it, which ends the process.
    _control: UnixStream,
    driver: String,
    connection: String,
}

impl Answers {
    /// Starts a process that asks `question`; `connection` names the database in errors.
    ///
    /// # Errors
    /// `Kind::Internal` where no process is to be had.
    pub fn of(program: &Program, question: &Question, connection: &str) -> Result<Answers> {
        let no_process = |error: io::Error| Error::internal("starting a process that asks a database", error);
        let start = || -> io::Result<Answers> {
            let (mut socket, theirs) = UnixStream::pair()?;
            let (_control, theirs_too) = UnixStream::pair()?;
            let mut command = Command::new(&program.path);
            let environment = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
            command.args(&program.arguments).env_clear().envs(environment).env(VARIABLE, "1");
            command.current_dir(&program.folder);
            command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(theirs_too)).stderr(Stdio::null());
            // In a group of its own, as workers are.
            let child = command.process_group(0).spawn()?;
            // Closes our copies of its ends, so that its end is seen here.
            drop(command);
            socket.set_read_timeout(Some(LOOK))?;
            let (driver, connection) = (question.driver.clone(), connection.to_owned());
            // Dropped from here on, it is ended.
            let sent = ask(&mut socket, question);
            let answers = Answers { child, socket, _control, driver, connection };
            sent.map(|()| answers)
        };
        start().map_err(no_process)
    }

    /// The next rows of the statement that is under way; none at its end. The first batch of each statement has no
    /// rows, and says of which types they are.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the database does not answer or the driver ends; `Kind::Refused` what it refuses.
    pub fn rows(&mut self) -> Result<Option<RecordBatch>> {
        let mut patient = Patient { answers: self, since: Instant::now(), ended: None };
        let reply = answered(&mut patient);
        let ended = patient.ended.take();
        match reply {
            Ok(reply) => match reply? {
                Reply::Rows(rows) => Ok(Some(rows)),
                Reply::End => Ok(None),
                Reply::Failed(failed) => Err(self.failed(&failed)),
            },
            Err(error) => {
                let how = ended.unwrap_or_else(|| self.how_it_died(&error));
                Err(Error::unavailable(format!("{} {how}", self.whose())))
            }
        }
    }

    fn whose(&self) -> String {
        format!(
            "the process that asks the database of connection `{}` (driver `{}`)",
            self.connection, self.driver
        )
    }

    fn failed(&self, failed: &Failed) -> Error {
        let Failed { doing, status, sqlstate, message } = failed;
        let state = if sqlstate.is_empty() { String::new() } else { format!(", SQLSTATE {sqlstate}") };
        let what = format!(
            "the database of connection `{}` (driver `{}`) failed at {doing} ({status}{state}): {message}",
            self.connection, self.driver
        );
        match status.as_str() {
            "IO" | "Timeout" | "Cancelled" | "Unknown" | "Internal" => Error::unavailable(what),
            _ => Error::refused(what),
        }
    }

    fn how_it_died(&mut self, error: &io::Error) -> String {
        let _ = self.child.kill();
        let Ok(status) = self.child.wait() else { return format!("ended: {error}") };
        match (status.signal(), status.code()) {
            (Some(signal), _) => format!("was ended by signal {signal}: its driver may be broken"),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => format!("ended: {error}"),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // Of one that has ended, neither is left to be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for what comes, looking up in between.
struct Patient<'a> {
    answers: &'a mut Answers,
    since: Instant,
    ended: Option<String>,
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.answers.socket.read(bytes) {
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    if self.since.elapsed() >= SILENCE_MAX {
                        self.ended = Some(format!("was silent for {} s", SILENCE_MAX.as_secs()));
                    } else if resident_bytes(self.answers.child.id())
                        .is_some_and(|held| held > MEMORY_BYTES_MAX)
                    {
                        self.ended = Some(format!("took more than {} MiB of memory", MEMORY_BYTES_MAX >> 20));
                    }
                    if self.ended.is_some() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => {
                    self.since = Instant::now();
                    return other;
                }
            }
        }
    }
}
