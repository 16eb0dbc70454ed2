//! Which program is a worker?

use std::ffi::OsString;
use std::path::PathBuf;

/// The program that is started for a worker: it calls [`serve`](crate::serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
}

impl Default for Program {
    /// This program, called with `worker`.
    fn default() -> Program {
        // On Linux that name leads to the very file that runs here, though another may lie in its place by now.
        let linux = PathBuf::from("/proc/self/exe");
        let path = if linux.exists() { linux } else { std::env::current_exe().unwrap_or_default() };
        Program { path, arguments: vec!["worker".into()] }
    }
}
