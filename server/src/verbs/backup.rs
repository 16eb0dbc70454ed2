//! How does everything that counts get into another folder, as of one moment, while pushes go on?
//!
//! The log first, the registry after it, and then what both name, none of which ever changes. Rows leave the log only
//! once the registry names a segment that has them, so what the copy of the log lacks its registry names. Between the
//! two nothing is named ([`Segments::hold`]): else a segment could have rows that the log of before does not know, and
//! whoever pushed them again would find them twice. What lies in the head is made of all that, and is not copied.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use feature_defs::Operation;
use parking_lot::Mutex;
use quern_base::points::pass;
use quern_store::log::{LocalLog, Log};
use quern_store::registry::Registry;
use quern_store::segments::{Segment, Segments, StoreAt};
use quern_wire::BackupSummary;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::backup::{
    Backup as List, Copying, DATA, LogNoted, MARK, REGISTRY, STORE, See, copy_partitions, unreadable,
    unwritten,
};
use crate::data_folder::INSTANCE;
use crate::error::{Error, Kind, Result};
use crate::live::Permitted;
use crate::settings::Settings;

/// What partitions there are: labels, and what earlier builds have written.
const PARTITIONS: [&str; 3] = ["labels", "predictions", "pushed"];

/// Copies everything that counts.
pub struct Backup {
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Registry,
    pub(crate) segments: Arc<Segments>,
    pub(crate) log: Log,
    /// Held by the one that is under way.
    pub(crate) one: Mutex<()>,
}

impl Backup {
    /// Copies everything into the folder `to`, which is new or empty, and shows `see` how far it is, until that says to
    /// stop. Of what fails nothing is left. Call it where blocking is allowed.
    ///
    /// # Errors
    /// `Kind::Refused` where `to` is no such folder, or where something that counts is damaged or missing;
    /// `Kind::Unavailable` where the disk takes nothing.
    pub fn run(&self, permitted: &Permitted, to: &Path, see: See<'_>) -> Result<BackupSummary> {
        permitted.to(Operation::Backup)?;
        let (begun, time) = (Instant::now(), Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true));
        let Some(_one) = self.one.try_lock() else {
            return Err(Error::refused("another backup of this server is under way; wait until it is done"));
        };
        if self.registry.is_shared() && self.log.local().is_some() {
            return Err(Error::refused(
                "the log of pushed rows is in the data folder and the registry in PostgreSQL: no two copies of them fit \
                 while pushes go on. Stop the server, dump the database, and copy the data folder and the store before \
                 it starts again",
            ));
        }
        let target = Target::make(to, &self.settings)?;
        let mut list = List::begun(time, &INSTANCE);
        let mut copying = Copying::into(&target.folder, see);
        let copied = self.copy(&mut copying, &mut list).and_then(|segments| {
            list.files = std::mem::take(&mut copying.files);
            list.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            copying.finish(&list.text()?)?;
            Ok(segments)
        });
        let segments = copied.inspect_err(|_| target.clear())?;
        Ok(BackupSummary {
            to: target.folder.display().to_string(),
            files: list.files.len() as u64,
            bytes: list.bytes(),
            segments: segments as u64,
            positions: list.log.map(|log| log.positions).unwrap_or_default(),
            notes: self.notes(),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// What is not in the backup.
    fn notes(&self) -> Vec<String> {
        let shared = self.registry.is_shared().then(|| {
            format!(
                "definitions, pushed rows and the list of the segments are in PostgreSQL ({}) and not in this backup, \
                 which goes with a dump of the database that was made before it, at most a day: what an earlier \
                 dump names is here. Restore the dump, then this, then `quern materialize --accept-loss`",
                self.registry.place()
            )
        });
        shared.into_iter().collect()
    }

    /// Copies all; gives how many segments there are.
    fn copy(&self, copying: &mut Copying<'_>, list: &mut List) -> Result<usize> {
        let _staying = self.segments.stay();
        let scratch = Scratch::at(self.settings.data.join("cache/backup"))?;
        copying.show("log and registry")?;
        let named = {
            let _held = self.segments.hold();
            if let Some(local) = self.log.local() {
                local.log.checkpoint(&scratch.0.join("log"))?;
            }
            match self.registry.is_shared() {
                true => None,
                false => Some(self.copy_registry(&copying.at(REGISTRY)?)?),
            }
        };
        // Of PostgreSQL those too that an earlier dump may name.
        let (registry, is_earlier) = match &named {
            Some(copy) => (copy, false),
            None => (&self.registry, true),
        };
        pass("backup: log and registry are copied");
        let segments = self.segments.named_in(registry, is_earlier)?;
        copying.total_bytes = segments.iter().map(|segment| segment.bytes).sum();
        if let Some(copy) = &named {
            copying.adopt(REGISTRY)?;
            list.registry = true;
            self.copy_models(copying, copy)?;
        } else {
            self.copy_shared_models(copying)?;
        }
        if self.log.local().is_some() {
            list.log = Some(copy_log(copying, &scratch.0)?);
        }
        for folder in PARTITIONS {
            copy_partitions(copying, &self.settings.data.join(folder), &format!("{DATA}/{folder}"))?;
        }
        let mark = self.segments.mark()?;
        copying.write(MARK, |to| Ok(to.write_all(mark.as_bytes())?))?;
        segments.iter().try_fold(0, |count, segment| {
            self.copy_segment(copying, segment, is_earlier).map(|copied| count + usize::from(copied))
        })
    }

    fn copy_registry(&self, to: &Path) -> Result<Registry> {
        Ok(block_in_place(|| Handle::current().block_on(self.registry.copy_to(to)))?)
    }

    fn copy_models(&self, copying: &mut Copying<'_>, registry: &Registry) -> Result<()> {
        for digest in block_in_place(|| Handle::current().block_on(registry.model_digests()))? {
            let name = format!("models/{digest}.onnx");
            let mut file = registry.artifacts.open_file(&digest)?;
            let copied =
                copying.copy_open(&format!("{DATA}/{name}"), &self.settings.data.join(&name), &mut file)?;
            if copied.sha256 != digest {
                return Err(Error::refused(format!(
                    "the model file {name} of the data folder is damaged: its SHA-256 is {}; copy it from the repository that \
                     it was applied from, or from an earlier backup, and try again",
                    copied.sha256
                )));
            }
        }
        Ok(())
    }

    /// The same where servers share them: they lie in the store, or in PostgreSQL.
    fn copy_shared_models(&self, copying: &mut Copying<'_>) -> Result<()> {
        for digest in block_in_place(|| Handle::current().block_on(self.registry.model_digests()))? {
            let bytes = block_in_place(|| Handle::current().block_on(self.registry.artifacts.load(&digest)))?;
            copying.write(&format!("{DATA}/models/{digest}.onnx"), |to| Ok(to.write_all(&bytes)?))?;
        }
        Ok(())
    }

    /// Copies a segment; not one that has gone since, where it `may_be_gone` because it counts no more.
    fn copy_segment(&self, copying: &mut Copying<'_>, segment: &Segment, may_be_gone: bool) -> Result<bool> {
        let path = format!("{STORE}/{}", segment.path);
        pass("backup: before a segment");
        let copied = copying.write(&path, |to| Ok(self.segments.copy(segment, to)?)).map(|_| true);
        match copied {
            Err(error)
                if error.kind() == Kind::Internal && may_be_gone && !self.segments.counts(segment)? =>
            {
                let at = copying.at(&path)?;
                fs::remove_file(&at).map_err(|error| unwritten(&at, &error))?;
                Ok(false)
            }
            copied => copied,
        }
    }
}

/// Copies the checkpoint of the log that lies in `scratch`, if nothing of it is damaged.
fn copy_log(copying: &mut Copying<'_>, scratch: &Path) -> Result<LogNoted> {
    let from = scratch.join("log");
    let entries = fs::read_dir(&from).map_err(|error| unreadable(&from, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&from, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        copying.copy(&format!("{DATA}/log/{name}"), &path)?;
    }
    copying.copy(&format!("{DATA}/log.id"), &from.with_extension("id"))?;
    // What was copied is what lies there: it is opened, and read, as it will be.
    let opened = LocalLog::open(&from).and_then(|log| {
        log.read_all(&mut |_| ControlFlow::Continue(()))?;
        Ok(log)
    });
    let log = opened.map_err(|error| match error.kind() {
        Kind::Unavailable => Error::from(error),
        _ => Error::refused(format!(
            "the log of pushed rows is damaged, so that no backup of it would open ({}); `quern scrub` names the way out",
            error.logged()
        )),
    })?;
    let positions = log.lasts().into_iter().map(|(source, last)| (source, last.number)).collect();
    Ok(LogNoted { id: log.id().to_owned(), positions })
}

/// A folder that goes again.
struct Scratch(PathBuf);

impl Scratch {
    fn at(folder: PathBuf) -> Result<Scratch> {
        // What a process has left that was killed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| unwritten(&folder, &error))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder of a backup.
struct Target {
    folder: PathBuf,
    is_new: bool,
}

impl Target {
    fn make(to: &Path, settings: &Settings) -> Result<Target> {
        if !to.is_absolute() {
            return Err(Error::invalid(format!(
                "a backup goes to a folder by its whole path, not to {}",
                to.display()
            )));
        }
        let is_new = match fs::create_dir(to) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(unwritten(to, &error)),
        };
        let mut target = Target { folder: to.to_owned(), is_new };
        target.checked(settings).inspect_err(|_| {
            if is_new {
                let _ = fs::remove_dir(to);
            }
        })?;
        // Who comes at the same time finds it used.
        let data = target.folder.join(DATA);
        fs::create_dir(&data).map_err(|error| unwritten(&data, &error))?;
        Ok(target)
    }

    fn checked(&mut self, settings: &Settings) -> Result<()> {
        let to = self.folder.display().to_string();
        self.folder = self.folder.canonicalize().map_err(|error| unreadable(&self.folder, &error))?;
        let mut entries = fs::read_dir(&self.folder).map_err(|error| unreadable(&self.folder, &error))?;
        if entries.next().is_some() {
            return Err(Error::refused(format!(
                "{to} is not empty; a backup goes to a new folder or an empty one"
            )));
        }
        let store = match settings.store() {
            StoreAt::Folder { path, .. } => Some(path),
            StoreAt::Bucket(_) => None,
        };
        for (what, own) in [("the data folder", Some(&settings.data)), ("the store", store.as_ref())] {
            if own.and_then(|own| own.canonicalize().ok()).is_some_and(|own| self.folder.starts_with(own)) {
                return Err(Error::refused(format!(
                    "{to} lies in {what}: what is lost with the one is lost with the other; name a folder elsewhere"
                )));
            }
        }
        Ok(())
    }

    /// Takes everything out again, for what it is worth.
    fn clear(&self) {
        for folder in [DATA, STORE] {
            let _ = fs::remove_dir_all(self.folder.join(folder));
        }
        for list in [crate::backup::LIST.to_owned(), format!("{}.part", crate::backup::LIST)] {
            let _ = fs::remove_file(self.folder.join(list));
        }
        if self.is_new {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
