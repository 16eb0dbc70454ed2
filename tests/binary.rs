//! The binary `quern` as a user starts it: in a process of its own, with nothing of our environment but its tools.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Printed {
    /// Its answer, where it succeeded.
    pub(crate) fn answer(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.answer()).unwrap()
    }
}

/// A command in `folder`, deaf to settings and credentials of ours that would override the test's.
pub(crate) fn command(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quern"));
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
pub(crate) fn run(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Printed {
    run_in(folder, arguments, &[])
}

/// Runs it with more in its environment.
pub(crate) fn run_in(
    folder: &Path,
    arguments: &[impl AsRef<OsStr>],
    environment: &[(&str, String)],
) -> Printed {
    let mut command = command(folder, arguments);
    let Output { status, stdout, stderr } = command.envs(environment.iter().cloned()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Printed { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// `quern serve` on a free port, until it is stopped or dropped.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) url: String,
    process: Child,
    // Nobody reads on, but closing it would end the server at its next word.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Server {
        Server::start_in(folder, &[])
    }

    /// Starts it with more in its environment.
    pub(crate) fn start_in(folder: &Path, environment: &[(&str, String)]) -> Server {
        let mut command = command(folder, &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().cloned());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let server = Server { url, process, _stdout: stdout };
        assert!(server.url.starts_with("http://127.0.0.1:"), "the server said {line:?}");
        server
    }

    /// Ends it as an operator does.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.process.wait().unwrap()
    }

    /// Ends it as a power failure does.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
