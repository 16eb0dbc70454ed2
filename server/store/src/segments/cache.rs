//! Which segments of a bucket lie on this machine too?
//!
//! As many as there is room for; those that were read last stay. What is removed while somebody reads it stays there
//! for whoever has it open.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::Result;
use crate::place::files_below;

/// Files below a folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    files: HashMap<PathBuf, File>,
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
    /// What lies in `folder`, which need not be there yet.
    pub(super) fn open(folder: PathBuf, bytes_max: u64) -> Result<Cache> {
        let mut found = files_below(&folder)?;
        found.sort_by_key(|(_, _, used)| *used);
        let cache = Cache { folder, bytes_max, held: Mutex::default() };
        for (path, bytes, _) in found {
            match path.extension().is_some_and(|extension| extension == super::set::EXTENSION) {
                true => cache.add(path, bytes),
                // What an earlier process did not fetch to its end.
                false => fs::remove_file(path)?,
            }
        }
        Ok(cache)
    }

    /// Where the copy of a segment lies, where there is one.
    pub(super) fn path(&self, segment: &str) -> PathBuf {
        self.folder.join(segment)
    }

    /// Notes that a file is there, and makes room for it.
    pub(super) fn add(&self, path: PathBuf, bytes: u64) {
        let mut held = self.held.lock();
        held.uses += 1;
        let used = held.uses;
        held.bytes += bytes;
        if let Some(before) = held.files.insert(path.clone(), File { bytes, used }) {
            held.bytes -= before.bytes;
        }
        while held.bytes > self.bytes_max {
            let others = held.files.iter().filter(|(other, _)| **other != path);
            let Some(oldest) = others.min_by_key(|(_, file)| file.used).map(|(path, _)| path.clone()) else {
                return;
            };
            held.remove(&oldest);
        }
    }

    /// Notes that a file was read.
    pub(super) fn touch(&self, path: &Path) {
        let mut held = self.held.lock();
        held.uses += 1;
        let used = held.uses;
        if let Some(file) = held.files.get_mut(path) {
            file.used = used;
        }
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) {
        self.held.lock().remove(path);
    }
}

impl Held {
    fn remove(&mut self, path: &Path) {
        if let Some(file) = self.files.remove(path) {
            self.bytes -= file.bytes;
        }
        // It may be gone already; else it takes room until the next start.
        let _ = fs::remove_file(path);
    }
}
