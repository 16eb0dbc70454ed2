//! Is all of the log there, and what is a copy of it?
//!
//! What a process has open it does not read again: blocks lie in its cache, and what its journals hold in its memory.
//! So the journals are looked at as they lie on disk, and the rest in a checkpoint, which RocksDB makes of one moment
//! and which shares the files: it is opened as any log is, and every block of it is read.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{IteratorMode, ReadOptions};

use super::{GROUPS, LocalLog, SEEN, SOURCES, family, name_of};
use crate::error::{Error, Kind, Result};
use crate::rocks::whole;

/// What RocksDB says of a disk that fails.
const FAILS: &str = "Input/output error";

/// How often it is looked whether a manifest that is being written is whole, and how long is waited in between.
const LOOKS_MAX: usize = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

impl LocalLog {
    /// Makes `folder`, which is not there, a log as this one is at some moment between call and return, with its name
    /// beside it. Where it lies on the same disk, the two share their files.
    pub fn checkpoint(&self, folder: &Path) -> Result<()> {
        // What is in its journal comes along as such: whoever looks at a log writes no more into it.
        Checkpoint::new(&*self.db.get()?)?.create_checkpoint_with_log_size(folder, u64::MAX)?;
        Ok(fs::write(folder.with_extension("id"), &self.id)?)
    }

    /// Reads all that is there, and shows `visit` how many bytes, until that says to stop; gives what is wrong, of
    /// which there may be more. `scratch` is a folder on the same disk, which is not there.
    ///
    /// # Errors
    /// Where `scratch` takes nothing.
    pub fn examine(
        &self,
        scratch: &Path,
        visit: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<String>> {
        if let Some(damage) = self.look_at_journals()? {
            return Ok(Some(damage));
        }
        fs::create_dir_all(scratch)?;
        let copy = scratch.join("log");
        let examined = self.checkpoint(&copy).and_then(|()| LocalLog::open(&copy)?.read_all(visit));
        let removed = fs::remove_dir_all(scratch);
        match examined {
            Ok(()) => removed.map(|()| None).map_err(Error::from),
            // A disk that cannot read what is there is damage.
            Err(error) if error.kind() == Kind::Unavailable && !error.logged().contains(FAILS) => Err(error),
            // In words that name the files where they lie.
            Err(error) => {
                let (there, here) = (copy.display().to_string(), self.db.folder().display().to_string());
                Ok(Some(error.logged().replace(&there, &here)))
            }
        }
    }

    /// Reads every block, and shows `visit` how many bytes, until that says to stop.
    ///
    /// # Errors
    /// Where one is damaged.
    pub fn read_all(&self, visit: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<()> {
        let db = self.db.get()?;
        for name in ["default", SOURCES, GROUPS, SEEN] {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.fill_cache(false);
            for entry in db.iterator_cf_opt(family(&db, name), options, IteratorMode::Start) {
                let (key, value) = entry?;
                if visit((key.len() + value.len()) as u64).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What is wrong with what RocksDB reads when it opens the log next.
    fn look_at_journals(&self) -> Result<Option<String>> {
        let folder = self.db.folder();
        if name_of(folder)?.as_deref() != Some(self.id.as_str()) {
            let name = folder.with_extension("id");
            return Ok(Some(format!("{} does not hold its name, {}", name.display(), self.id)));
        }
        let logs = {
            // Whoever writes holds this: all that is written is whole.
            let _alone = self.state.lock();
            whole::logs(folder)?
        };
        if let Some(damage) = logs.iter().find_map(|(path, length)| whole::check_whole(path, *length).err()) {
            return Ok(Some(damage));
        }
        let mut damage = look_at_manifest(folder).err();
        // Compactions write into it as they come to an end.
        for _ in 1..LOOKS_MAX {
            if damage.is_none() {
                break;
            }
            std::thread::sleep(LOOK_PAUSE);
            damage = look_at_manifest(folder).err();
        }
        Ok(damage)
    }
}

/// Looks whether there is a manifest, and whether it is whole.
fn look_at_manifest(folder: &Path) -> std::result::Result<(), String> {
    let current = fs::read(folder.join("CURRENT")).map_err(|error| format!("CURRENT: {error}"))?;
    let current = String::from_utf8_lossy(&current);
    let name = current.strip_suffix('\n').filter(|name| name.starts_with("MANIFEST-"));
    let name = name.ok_or_else(|| "CURRENT is damaged: it names no manifest".to_owned())?;
    let path = folder.join(name);
    let length = fs::metadata(&path).map_err(|error| format!("{name}, which CURRENT names: {error}"))?.len();
    whole::check_whole(&path, length)
}
