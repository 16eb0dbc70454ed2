//! How does a backup become a data folder and a store?
//!
//! Nothing is touched before all of it is known to be whole. Then everything is put into a folder in the data folder,
//! and moved to its place at the end; as long as that folder is there, no server opens the data folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use quern_base::digest::Digested;
use quern_base::points::pass;
use quern_base::tasks::blocking;
use quern_store::registry::Location;
use quern_store::segments::{Refilled, StoreAt};
use quern_wire::Copied;

use crate::backup::{
    Backup, BackupFile, Copying, DATA, LIST, MARK, REGISTRY, STORE, digest, sync_folders, unreadable,
    unwritten,
};
use crate::data_folder::{LOCK_FILE, lock};
use crate::error::{Error, Result};
use crate::settings::{OnlineStore, Settings};

/// What is on its way into the data folder.
const UNFINISHED: &str = "restore.part";
/// What file systems keep for themselves.
const FOUND: &str = "lost+found";

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// When the backup was begun, RFC 3339.
    pub time: String,
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the registry was among them.
    pub registry: bool,
}

/// Refuses a data folder that is half restored.
pub(crate) fn check_whole(data: &Path) -> Result<()> {
    match data.join(UNFINISHED).exists() {
        false => Ok(()),
        true => Err(Error::refused(format!(
            "a restore into the data folder {} broke off: run `quern restore` again, or remove the folder",
            data.display()
        ))),
    }
}

/// Restores the backup in the folder `from` into the data folder and the store that `settings` name, and shows `see`
/// how far it is.
///
/// # Errors
/// `Kind::Refused` where the backup is damaged or does not fit, and where data folder or store are used; then nothing
/// was touched.
pub async fn restore(
    settings: Settings,
    from: PathBuf,
    mut see: impl FnMut(Copied) + Send + 'static,
) -> Result<Restored> {
    let (backup, settings, from, mut see) = blocking("looking at a backup", move || {
        let backup = Backup::read(&from)?;
        check_fits(&backup, &settings)?;
        check_unused(&settings.data)?;
        let at = settings.store();
        if !lies_in_data(&settings) {
            // What is on its way into a bucket has not begun to be.
            Refilled::check(&at, &settings.data, &mark(&backup, &from)?)?;
        }
        check_files(&backup, &from, &mut see)?;
        Ok::<_, Error>((backup, settings, from, see))
    })
    .await?;
    let is_new = !settings.data.exists();
    let lock = lock(&settings.data).await?;
    blocking("restoring a backup", move || {
        let filled = fill(&backup, &settings, &from, &mut see);
        if filled.is_err() {
            let _ = clear(&settings.data, is_new);
        }
        drop(lock);
        filled.map(|()| Restored {
            files: backup.files.len(),
            bytes: backup.bytes(),
            registry: backup.registry,
            time: backup.time,
        })
    })
    .await
}

/// Whether the settings have the places that the backup has something for.
fn check_fits(backup: &Backup, settings: &Settings) -> Result<()> {
    let is_sqlite = settings.registry == Location::Sqlite;
    if backup.registry != is_sqlite {
        let (has, wants) = match backup.registry {
            true => ("a registry in SQLite", "registry: sqlite"),
            false => ("no registry, which was in PostgreSQL", "registry: postgres://…"),
        };
        return Err(Error::refused(format!(
            "the backup has {has}, and the settings name another kind; set `{wants}` as it was"
        )));
    }
    if backup.log.is_some() && settings.online != OnlineStore::RocksDb {
        return Err(Error::refused(
            "the backup has a log of pushed rows, which a server with a shared online store does not read; set `online: \
             rocksdb` as it was",
        ));
    }
    Ok(())
}

/// Whether there is no data folder, or nothing in it.
fn check_unused(data: &Path) -> Result<()> {
    let used = |name: &str| {
        Err(Error::refused(format!(
            "the data folder {} is not empty (it has `{name}`); restore into a new one (`--data`), or move it away, once no \
             server has it open",
            data.display()
        )))
    };
    let is_half = data.join(UNFINISHED).exists();
    let entries = match fs::read_dir(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| unreadable(data, &error))?,
    };
    for entry in entries {
        let name =
            entry.map_err(|error| unreadable(data, &error))?.file_name().to_string_lossy().into_owned();
        // What broke off has moved some of its files already.
        if ![LOCK_FILE, FOUND].contains(&&name[..]) && !is_half {
            return used(&name);
        }
    }
    Ok(())
}

/// What says which store it was.
fn mark(backup: &Backup, from: &Path) -> Result<String> {
    let file = backup.files.iter().find(|file| file.path == MARK);
    let file =
        file.ok_or_else(|| Error::refused(format!("`{LIST}` names no {MARK}; take another backup")))?;
    let path = file.at(from);
    fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))
}

fn lies_in_data(settings: &Settings) -> bool {
    matches!(settings.store(), StoreAt::Folder { path, .. } if path == settings.data.join(STORE))
}

/// Reads every file of the backup.
fn check_files(backup: &Backup, from: &Path, see: &mut impl FnMut(Copied)) -> Result<()> {
    let (mut done_bytes, total_bytes) = (0, 2 * backup.bytes());
    for file in &backup.files {
        see(Copied { file: file.path.clone(), done_bytes, total_bytes });
        check_file(file, from)?;
        done_bytes += file.bytes;
    }
    Ok(())
}

fn check_file(file: &BackupFile, from: &Path) -> Result<()> {
    let (path, way_out) = (file.at(from), "take another backup, or bring this file back");
    let length = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => {
            return Err(Error::refused(format!("{} of the backup is no file; {way_out}", path.display())));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::refused(format!("{} of the backup is missing; {way_out}", path.display())));
        }
        Err(error) => return Err(unreadable(&path, &error)),
    };
    if length != file.bytes {
        return Err(Error::refused(format!(
            "{} of the backup is damaged: it has {length} bytes, and {} were written; {way_out}",
            path.display(),
            file.bytes
        )));
    }
    let Digested { sha256, .. } = digest(&path, &mut |_| ControlFlow::Continue(()))?;
    match sha256 == file.sha256 {
        true => Ok(()),
        false => Err(Error::refused(format!(
            "{} of the backup is damaged: its SHA-256 is {sha256}, and that of what was written {}; {way_out}",
            path.display(),
            file.sha256
        ))),
    }
}

/// Copies all, and moves it to its place.
fn fill(backup: &Backup, settings: &Settings, from: &Path, see: &mut impl FnMut(Copied)) -> Result<()> {
    let (data, part) = (&settings.data, settings.data.join(UNFINISHED));
    remove_all(data)?;
    fs::create_dir_all(part.join(DATA)).map_err(|error| unwritten(&part, &error))?;
    let (read, mut done) = (backup.bytes(), backup.bytes());
    let mut see_files = |copied: Copied| {
        see(Copied { done_bytes: read + copied.done_bytes, total_bytes: 2 * read, ..copied });
        ControlFlow::Continue(())
    };
    let mut copying = Copying::into(&part, &mut see_files);
    for file in backup.files.iter().filter(|file| file.path.starts_with(DATA)) {
        let copied = copying.copy(&file.path, &file.at(from))?;
        if copied != file {
            return Err(changed(file));
        }
    }
    done += copying.done_bytes;
    let at = match lies_in_data(settings) {
        true => StoreAt::Folder { path: part.join(DATA).join(STORE), shared: false },
        false => settings.store(),
    };
    pass("restore: files are copied");
    let store = Refilled::open(&at, &part, &mark(backup, from)?)?;
    for file in backup.files.iter().filter(|file| file.path.starts_with(STORE) && file.path != MARK) {
        see(Copied { file: file.path.clone(), done_bytes: done, total_bytes: 2 * read });
        let path = file.at(from);
        let mut open = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        let name = file.path.strip_prefix(STORE).unwrap_or_default().trim_start_matches('/');
        store.put(name, &Digested { bytes: file.bytes, sha256: file.sha256.clone() }, &mut open)?;
        done += file.bytes;
    }
    pass("restore: before anything has its place");
    let placed = sync_folders(&part).and_then(|()| place(&part, data));
    placed.map_err(|error| unwritten(data, &error))
}

/// Moves what was copied to its place. A server opens it once the last step is done.
fn place(part: &Path, data: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(part.join(DATA))? {
        let entry = entry?;
        fs::rename(entry.path(), data.join(entry.file_name()))?;
        pass("restore: some have their place");
    }
    File::open(data)?.sync_all()?;
    pass("restore: all have their place");
    fs::remove_dir_all(part)?;
    File::open(data)?.sync_all()?;
    data.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

fn changed(file: &BackupFile) -> Error {
    Error::refused(format!("`{}` of the backup changed while it was read", file.path))
}

/// Takes out what a restore has put into a data folder that was empty before.
fn remove_all(data: &Path) -> Result<()> {
    let part = data.join(UNFINISHED);
    if !part.exists() {
        return Ok(());
    }
    // What was moved already; whatever else is there is somebody's.
    let own: BTreeSet<&str> = ["labels", "predictions", "pushed", "log", "log.id", "models", STORE]
        .into_iter()
        .chain(REGISTRY.split('/').skip(1))
        .collect();
    for name in own {
        remove(&data.join(name)).map_err(|error| unwritten(&data.join(name), &error))?;
    }
    remove(&part).map_err(|error| unwritten(&part, &error))
}

fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Leaves the data folder as it was.
fn clear(data: &Path, is_new: bool) -> Result<()> {
    remove_all(data)?;
    if is_new {
        let gone = fs::remove_file(data.join(LOCK_FILE)).and_then(|()| fs::remove_dir(data));
        gone.map_err(|error| unwritten(data, &error))?;
    }
    Ok(())
}
