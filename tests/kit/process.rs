//! What does the binary `quern` do, as a user starts it? In a process of its own, with nothing of our environment but
//! its tools.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use crate::required;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it said.
    pub stdout: String,
    /// What it said of mistakes and progress.
    pub stderr: String,
}

impl Printed {
    /// Returns its answer, where it succeeded.
    pub fn answer(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns its answer, where it succeeded and was asked for JSON.
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.answer()).unwrap()
    }
}

/// Makes a command in `folder`, deaf to settings and credentials of ours that would override the test's.
pub fn command(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    // Cargo builds the binary for the tests of its package, and tells them where it is.
    let mut command = Command::new(required("CARGO_BIN_EXE_quern"));
    let ours = |name: &&std::ffi::OsString| {
        let name = name.to_string_lossy();
        ["QUERN_", "AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix))
    };
    for name in std::env::vars_os().map(|(name, _)| name).collect::<Vec<_>>().iter().filter(ours) {
        command.env_remove(name);
    }
    command.env("QUERN_LOG", "warn").current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Printed {
    run_in(folder, arguments, &[])
}

/// Runs it with more in its environment.
pub fn run_in(folder: &Path, arguments: &[impl AsRef<OsStr>], environment: &[(&str, String)]) -> Printed {
    let mut command = command(folder, arguments);
    let Output { status, stdout, stderr } = command.envs(environment.iter().cloned()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Printed { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// `quern serve` on a free port, until it is stopped or dropped.
pub struct Process {
    /// Where it listens.
    pub url: String,
    process: Child,
    // Nobody reads on, but closing it would end the server at its next word.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits until it listens.
    pub fn start(folder: &Path) -> Process {
        Process::start_in(folder, &[])
    }

    /// Starts it with more in its environment.
    pub fn start_in(folder: &Path, environment: &[(&str, String)]) -> Process {
        Process::start_logged(folder, environment, Stdio::inherit())
    }

    /// Starts it with its log where a test reads it.
    pub fn start_logged(folder: &Path, environment: &[(&str, String)], log: impl Into<Stdio>) -> Process {
        let mut command = command(folder, &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().cloned()).stderr(log);
        Process::of(command)
    }

    /// Starts it on the port of one that has ended.
    pub fn start_at(folder: &Path, port: u16) -> Process {
        Process::of(command(folder, &["serve", "--listen", &format!("127.0.0.1:{port}")]))
    }

    fn of(mut command: Command) -> Process {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let server = Process { url, process, _stdout: stdout };
        let listens =
            ["http://127.0.0.1:", "https://127.0.0.1:"].iter().any(|url| server.url.starts_with(url));
        assert!(listens, "the server said {line:?}");
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Its number among the system's processes.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The processes that it has started and that have not ended.
    pub fn children(&self) -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
            // A thread may have ended since it was listed.
            std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default()
        };
        let all: Vec<_> = threads.map(of_thread).collect();
        all.iter().flat_map(|some| some.split_whitespace()).map(|id| id.parse().unwrap()).collect()
    }

    /// Returns the most memory that it has held so far, in bytes.
    pub fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Holds it still: connections stay open, and nobody answers.
    pub fn hold(&self) {
        self.signal("STOP");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Ends it as an operator does.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.process.wait().unwrap()
    }

    /// Ends it as a power failure does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
