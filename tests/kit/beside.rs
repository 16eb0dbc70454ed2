//! Somebody else's server, for as long as a test needs it.
//!
//! It runs beside a shell that waits for this process to end, however it ends, and then ends the server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;

/// A server that is ready.
pub struct Beside {
    shell: Child,
    process: u32,
    log: Arc<Mutex<Vec<String>>>,
}

impl Beside {
    /// Starts `command`, and waits until it says `ready`. `wanted` tells where it is to be had.
    pub fn start(command: &[String], ready: &str, wanted: &str) -> Beside {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                r#"sh -c 'echo $$; exec "$@" 2>&1' sh "$@" & read -r _; kill -KILL $! 2>/dev/null; wait"#,
                "sh",
            ])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines().map(Result::unwrap);
        let process = lines.next().unwrap().parse().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let is_ready = lines.by_ref().any(|line| {
            let is_ready = line.contains(ready);
            log.lock().push(line);
            is_ready
        });
        assert!(is_ready, "{} ({wanted}) ended at once:\n{}", command[0], log.lock().join("\n"));
        // What it says later is read too, so that it never waits for a reader.
        let later = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| later.lock().push(line)));
        Beside { shell, process, log }
    }

    /// What it has said so far, by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.process.to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
