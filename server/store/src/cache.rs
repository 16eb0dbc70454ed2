//! What of a bucket lies on this machine too?
//!
//! As much as there is room for; what was read last stays. What is removed while somebody reads it stays there
//! for whoever has it open.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::Result;
use crate::walk::files_below;

/// Files below a folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    files: HashMap<PathBuf, File>,
    /// The same, by the use that was their last.
    by_use: BTreeMap<u64, PathBuf>,
    bytes: u64,
    /// How often something was used.
    uses: u64,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    /// Which of all uses was its last.
    used: u64,
}

impl Cache {
    /// What lies in `folder`, which need not be there yet, and has this extension.
    pub(crate) fn open(folder: PathBuf, extension: &str, bytes_max: u64) -> Result<Cache> {
        let mut found = files_below(&folder)?;
        found.sort_by_key(|(_, _, used)| *used);
        let cache = Cache { folder, bytes_max, held: Mutex::default() };
        for (path, bytes, _) in found {
            match path.extension().is_some_and(|its| its == extension) {
                true => cache.add(path, bytes),
                // What an earlier process did not fetch to its end.
                false => fs::remove_file(path)?,
            }
        }
        Ok(cache)
    }

    /// Where the copy of what is called so lies, where there is one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Notes that a file is there, and makes room for it.
    pub(crate) fn add(&self, path: PathBuf, bytes: u64) {
        let mut held = self.held.lock();
        held.forget(&path);
        held.note(path, bytes);
        // What was just added stays: somebody is about to read it.
        while held.bytes > self.bytes_max && held.by_use.len() > 1 {
            let Some((_, oldest)) = held.by_use.pop_first() else { return };
            held.forget(&oldest);
            // It may be gone already; else it takes room until the next start.
            let _ = fs::remove_file(&oldest);
        }
    }

    /// Notes that a file was read.
    pub(crate) fn touch(&self, path: &Path) {
        let mut held = self.held.lock();
        if let Some(bytes) = held.forget(path) {
            held.note(path.to_owned(), bytes);
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) {
        self.held.lock().forget(path);
        let _ = fs::remove_file(path);
    }
}

impl Held {
    fn note(&mut self, path: PathBuf, bytes: u64) {
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, path.clone());
        self.files.insert(path, File { bytes, used: self.uses });
    }

    fn forget(&mut self, path: &Path) -> Option<u64> {
        let File { bytes, used } = self.files.remove(path)?;
        self.by_use.remove(&used);
        self.bytes -= bytes;
        Some(bytes)
    }
}
