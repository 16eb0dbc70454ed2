//! How is another process asked, when it may end, hang or grow at any moment?
//!
//! Its standard input and output are sockets: over the first go requests and replies, over the second the number of a
//! run that is to end, and its end when this process ends, however that happens. So whatever a library prints there is
//! read by nobody and spoils nothing.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quern_base::metrics::resident_bytes;

use super::environment::of_worker;
use super::message::{Reply, Request, receive, send};
use crate::program::Program;
use crate::stop::Stop;

/// How often time, memory and whoever waits are looked at while a worker runs.
const LOOK: Duration = Duration::from_millis(10);
/// A run that is told to end has so long to do so; then its process is ended.
const GRACE: Duration = Duration::from_millis(200);

/// A worker's process; dropped, it is ended.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    requests: UnixStream,
    control: UnixStream,
    memory_bytes_max: u64,
    asked: u64,
}

/// Why a process is no more.
#[derive(Debug)]
pub(super) enum Ended {
    Died(String),
    Late(Duration),
    Grew(u64),
    Stopped,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Died(how) => f.write_str(how),
            Ended::Late(most) => write!(f, "was still busy after {} s", most.as_secs_f64()),
            Ended::Grew(most) => write!(f, "took more than {} MiB of memory", most >> 20),
            Ended::Stopped => f.write_str("did not stop when it was told to"),
        }
    }
}

impl Process {
    pub(super) fn start(program: &Program, memory_bytes_max: u64) -> io::Result<Process> {
        let (requests, theirs) = UnixStream::pair()?;
        let (control, theirs_too) = UnixStream::pair()?;
        for socket in [&requests, &control] {
            socket.set_read_timeout(Some(LOOK))?;
            socket.set_write_timeout(Some(LOOK))?;
        }
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env_clear().envs(of_worker());
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(theirs_too)).stderr(Stdio::null());
        // In a group of its own: what ends a server from its terminal must not end runs that it still waits for.
        let child = command.process_group(0).spawn()?;
        Ok(Process { child, requests, control, memory_bytes_max, asked: 0 })
    }

    /// Its answer, within `most`; or why there will be none any more from this process.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        most: Duration,
        stop: Option<&Stop>,
    ) -> Result<Reply, Ended> {
        self.asked += 1;
        let until = Instant::now() + most;
        let mut asking = Asking { process: self, until, most, stop, told: None, ended: None };
        let reply = send(&mut asking, request).and_then(|()| receive(&mut asking));
        let ended = asking.ended.take();
        reply.map_err(|error| ended.unwrap_or_else(|| Ended::Died(self.how_it_died(&error))))
    }

    /// Whether there is no such process any more.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn how_it_died(&mut self, error: &io::Error) -> String {
        // It is on its way out already, or closed its socket and shall be.
        let _ = self.child.kill();
        let Ok(status) = self.child.wait() else { return format!("ended: {error}") };
        let name = match status.signal() {
            Some(4) => " (SIGILL)",
            Some(6) => " (SIGABRT)",
            Some(7) => " (SIGBUS)",
            Some(8) => " (SIGFPE: a whole-number division that has no result)",
            Some(9) => " (SIGKILL)",
            Some(11) => " (SIGSEGV)",
            _ => "",
        };
        match (status.signal(), status.code()) {
            (Some(signal), _) => format!("was ended by signal {signal}{name}"),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => format!("ended: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that has ended, neither is left to be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that is on its way, and what may end it.
struct Asking<'a> {
    process: &'a mut Process,
    until: Instant,
    most: Duration,
    stop: Option<&'a Stop>,
    /// Until when the run was told to end.
    told: Option<Instant>,
    ended: Option<Ended>,
}

impl Asking<'_> {
    /// Tries until something comes or goes, looking up in between.
    fn patiently(&mut self, mut attempt: impl FnMut(&mut Process) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match attempt(self.process) {
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    if let Some(ended) = self.look() {
                        self.ended = Some(ended);
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    fn look(&mut self) -> Option<Ended> {
        let now = Instant::now();
        if now >= self.until {
            return Some(Ended::Late(self.most));
        }
        if resident_bytes(self.process.child.id()).is_some_and(|bytes| bytes > self.process.memory_bytes_max)
        {
            return Some(Ended::Grew(self.process.memory_bytes_max));
        }
        match self.told {
            Some(until) if now >= until => Some(Ended::Stopped),
            None if self.stop.is_some_and(Stop::is_asked) => {
                // Where nobody reads it, the grace passes.
                let _ = self.process.control.write_all(&self.process.asked.to_le_bytes());
                self.told = Some(now + GRACE);
                None
            }
            _ => None,
        }
    }
}

impl Read for Asking<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.patiently(|process| process.requests.read(bytes))
    }
}

impl Write for Asking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|process| process.requests.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
