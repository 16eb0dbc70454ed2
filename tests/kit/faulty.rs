//! What does the binary do whose disk fails? libfiu, loaded before its C library, makes calls of that fail: those to
//! bring files onto the disk, and those to read and write at a place. It knows nothing of files, so `read` and `write`
//! are of no use, by which the threads of a runtime wake one another.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's package fiu-utils has its libraries.
const LIBRARIES: &str = "/usr/lib/fiu";
/// `EIO`: the disk fails.
pub const FAILS: u32 = 5;
/// `ENOSPC`: it has no room.
pub const FULL: u32 = 28;

/// Calls of a process that fail as long as a test wants.
pub struct Faults {
    pipes: PathBuf,
}

impl Faults {
    /// Faults of one process, which is told by pipes in `folder`.
    ///
    /// # Panics
    /// Where libfiu is missing.
    pub fn new(folder: &Path) -> Faults {
        let library = Path::new(LIBRARIES).join("fiu_posix_preload.so");
        assert!(
            library.exists(),
            "{} is missing: run ./setup.sh, which installs fiu-utils",
            library.display()
        );
        Faults { pipes: folder.join("fiu") }
    }

    /// What the process must have in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let libraries =
            ["fiu_run_preload.so", "fiu_posix_preload.so"].map(|name| format!("{LIBRARIES}/{name}"));
        vec![("LD_PRELOAD", libraries.join(" ")), ("FIU_CTRL_FIFO", self.pipes.display().to_string())]
    }

    /// Has calls of process `id` fail with this error: `sync/*`, `rw/pwrite`, `rw/pread`.
    pub fn begin(&self, id: u32, calls: &str, error: u32) {
        self.tell(id, &format!("enable name=posix/io/{calls},failinfo={error}"));
    }

    /// Has some of them fail.
    pub fn begin_at_random(&self, id: u32, calls: &str, probability: f64) {
        let how = format!("name=posix/io/{calls},probability={probability},failinfo={FAILS}");
        self.tell(id, &format!("enable_random {how}"));
    }

    /// Lets them work again.
    pub fn end(&self, id: u32, calls: &str) {
        self.tell(id, &format!("disable name=posix/io/{calls}"));
    }

    fn tell(&self, id: u32, what: &str) {
        let pipes = self.pipes.display().to_string();
        let told =
            Command::new("fiu-ctrl").args(["-f", &pipes, "-c", what, &id.to_string()]).output().unwrap();
        let said = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.success() && said.is_empty(), "fiu-ctrl: {said}");
    }
}
