//! Where are the model files that went live? Copied, and named by what is in them.
//!
//! A repository's file may change or vanish after an apply; what is live must not. One flipped bit changes a model's
//! answers without an error, so a file is read back only if its digest still is its name.
//!
//! They lie in a folder. Servers that share a registry share no disk: then the store has every file where they share
//! that, else PostgreSQL; and the folder keeps what this server has read of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use quern_base::digest::sha256;
use quern_base::points::pass;
use quern_base::random;
use quern_base::tasks::blocking;
use sqlx::postgres::PgPool;

use super::answer;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::roots::open_regular;

/// A part of a file in PostgreSQL, whose values end at 1 GiB. Never changed: a part is overwritten by its number.
const PART_BYTES: usize = 4 << 20;

/// More than a model file may have when it is applied, with the weights that lay beside it.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// The model files, by digest.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
    /// Has those that were applied while no store had them.
    database: Option<PgPool>,
    store: Option<Kept>,
}

/// A store that has model files.
#[derive(Debug, Clone)]
struct Kept {
    place: Arc<Place>,
    /// Whether new ones are put there: all servers are known to have it now.
    takes: Arc<AtomicBool>,
    /// The files that were found damaged there: they are written again.
    damaged: Arc<Mutex<HashSet<String>>>,
}

impl Artifacts {
    pub(super) fn open(folder: &Path, database: Option<PgPool>) -> Result<Artifacts> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        Ok(Artifacts { folder: folder.to_owned(), database, store: None })
    }

    /// Has the files in `place` as well; new ones there and not in the database, while it `takes` them.
    pub(crate) fn keep_in(&mut self, place: Arc<Place>, takes: Arc<AtomicBool>) {
        self.store = Some(Kept { place, takes, damaged: Arc::default() });
    }

    /// Keeps `bytes` and returns their digest. What is there already stays as it is, or is repaired.
    pub async fn store(&self, bytes: Bytes) -> Result<String> {
        let (folder, copy) = (self.folder.clone(), bytes.clone());
        let digest = blocking("a model file", move || write(&folder, &copy)).await?;
        match (self.store.clone().filter(Kept::takes), &self.database) {
            (Some(store), _) => {
                let name = digest.clone();
                blocking("a model file", move || store.put(&name, bytes)).await?;
            }
            (None, Some(database)) => upload(database, &digest, &bytes).await?,
            (None, None) => {}
        }
        Ok(digest)
    }

    /// Reads the file with this digest.
    ///
    /// # Errors
    /// Where it is gone, or is not what it was.
    pub async fn load(&self, wanted: &str) -> Result<Bytes> {
        let (folder, name) = (self.folder.clone(), wanted.to_owned());
        let here = blocking("a model file", move || read(&folder, &name)).await;
        let Some(database) = self.database.as_ref().filter(|_| here.is_err()) else {
            return here;
        };
        let (store, name) = (self.store.clone(), wanted.to_owned());
        let kept = blocking("a model file", move || match store {
            Some(store) => store.get(&name),
            None => Ok(None),
        });
        // What an older apply has put into the database is there still, whatever is wrong with the store.
        let (kept, bytes) = match kept.await {
            Ok(Some(bytes)) => (Ok(()), bytes),
            Ok(None) => (Ok(()), download(database, wanted).await?),
            Err(error) => (Err(error), download(database, wanted).await?),
        };
        if bytes.is_empty() {
            kept?;
        }
        let (folder, wanted) = (self.folder.clone(), wanted.to_owned());
        let places = if self.store.is_some() { "the registry and from the store" } else { "the registry" };
        blocking("a model file", move || {
            if bytes.is_empty() {
                return Err(Error::broken(format!(
                    "the model file {wanted} is gone from {places}; {RESTORE}"
                )));
            }
            in_registry(&bytes, &wanted)?;
            // Without a copy here the next start reads it from the database again, and that is all.
            if let Err(error) = write(&folder, &bytes) {
                tracing::warn!(%error, "a model file is not kept in the data folder");
            }
            Ok(bytes)
        })
        .await
    }
}

impl Artifacts {
    /// Opens the file with this digest where it lies in the folder; its bytes may be others.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn open_file(&self, wanted: &str) -> Result<File> {
        let path = path(&self.folder, wanted);
        open_regular(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => gone(&path),
            _ => failed(&path, &error),
        })
    }

    /// Reads the file with this digest where it is kept, and not a copy of it; gives how large it is.
    ///
    /// # Errors
    /// Where it is gone, or is not what it was: in words that name it, and the way out.
    pub async fn examine(&self, wanted: &str) -> Result<u64> {
        let wanted = wanted.to_owned();
        match &self.database {
            Some(database) => {
                let (bytes, store) = (download(database, &wanted).await?, self.store.clone());
                blocking("a model file", move || {
                    let kept =
                        store.filter(|_| bytes.is_empty()).map(|store| store.get(&wanted)).transpose()?;
                    let bytes = kept.flatten().unwrap_or(bytes);
                    in_registry(&bytes, &wanted).map(|()| bytes.len() as u64)
                })
                .await
            }
            None => {
                let folder = self.folder.clone();
                blocking("a model file", move || read(&folder, &wanted).map(|bytes| bytes.len() as u64)).await
            }
        }
    }
}

/// Looks whether the parts of a file make what they should.
fn in_registry(bytes: &[u8], wanted: &str) -> Result<()> {
    if bytes.is_empty() {
        return Err(Error::broken(format!("the model file {wanted} is gone from the registry; {RESTORE}")));
    }
    checked(bytes, wanted, format_args!("the model file {wanted} in the registry"))
}

fn gone(path: &Path) -> Error {
    Error::broken(format!("the model file {} is gone; {RESTORE}", path.display()))
}

const RESTORE: &str = "restore it from a backup, or from the repository that it was applied from";

impl Kept {
    fn path(digest: &str) -> String {
        format!("models/{digest}.onnx")
    }

    fn takes(&self) -> bool {
        self.takes.load(Ordering::Relaxed)
    }

    fn put(&self, digest: &str, bytes: Bytes) -> Result<()> {
        let path = Kept::path(digest);
        let is_damaged = self.damaged.lock().contains(digest);
        if is_damaged || self.place.bytes(&path)? != Some(bytes.len() as u64) {
            self.place.put(&path, bytes, random::number())?;
            self.damaged.lock().remove(digest);
        }
        Ok(())
    }

    /// The file; none where it is not there.
    fn get(&self, digest: &str) -> Result<Option<Bytes>> {
        let mut bytes = Vec::new();
        if !self.place.read(&Kept::path(digest), &mut bytes)? {
            return Ok(None);
        }
        let checked = checked(&bytes, digest, format_args!("the model file {digest} in the store"));
        if checked.is_err() {
            self.damaged.lock().insert(digest.to_owned());
        }
        checked.map(|()| Some(bytes.into()))
    }
}

fn write(folder: &Path, bytes: &[u8]) -> Result<String> {
    let digest = sha256(bytes);
    let path = path(folder, &digest);
    if read(folder, &digest).is_ok() {
        return Ok(digest);
    }
    // Renamed only once it is whole and on disk: a crash leaves a temporary file, never half a model.
    let temporary = folder.join(format!("{digest}.{}.part", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        pass("model file: written, without its name");
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(&path, &error)
    })?;
    Ok(digest)
}

fn read(folder: &Path, wanted: &str) -> Result<Bytes> {
    let path = path(folder, wanted);
    let bytes = whole(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => gone(&path),
        _ => failed(&path, &error),
    })?;
    checked(&bytes, wanted, format_args!("the model file {}", path.display()))?;
    Ok(bytes.into())
}

/// All bytes of a file that a model may be.
fn whole(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has {length} bytes, more than any model")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checked(bytes: &[u8], wanted: &str, file: std::fmt::Arguments<'_>) -> Result<()> {
    match sha256(bytes) {
        actual if actual == wanted => Ok(()),
        actual => Err(Error::broken(format!("{file} is damaged: its SHA-256 is {actual}; {RESTORE}"))),
    }
}

fn path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.onnx"))
}

/// All parts or none. Written over what is there, which is the same unless it was damaged.
async fn upload(database: &PgPool, digest: &str, bytes: &[u8]) -> Result<()> {
    let part = "INSERT INTO artifacts (digest, part, content) VALUES ($1, $2, $3) \
                ON CONFLICT (digest, part) DO UPDATE SET content = excluded.content";
    let mut transaction = database.begin().await?;
    for (number, content) in (0i64..).zip(bytes.chunks(PART_BYTES)) {
        let part = sqlx::query(part).bind(digest).bind(number).bind(content);
        answer(part.execute(&mut *transaction)).await?;
    }
    Ok(answer(transaction.commit()).await?)
}

/// The parts of a file, put together; empty where there is none.
async fn download(database: &PgPool, digest: &str) -> Result<Bytes> {
    let parts = "SELECT content FROM artifacts WHERE digest = $1 ORDER BY part";
    let mut parts = sqlx::query_scalar::<_, Vec<u8>>(parts).bind(digest).fetch(database);
    let mut bytes = Vec::new();
    while let Some(part) = answer(parts.try_next()).await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::internal(path.display().to_string(), error.to_string())
}
