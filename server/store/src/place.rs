//! Where is the store: in a folder, or in a bucket?
//!
//! Whatever waits for a bucket must be called where blocking is allowed.

mod folder;

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::runtime::Handle;

use self::folder::{Folder, Stored};
use crate::error::{Error, Result};
use crate::objects::{Bucket, Location};
use crate::roots::open_regular;

/// More than any file that is read as a whole.
const SMALL_BYTES_MAX: u64 = 1 << 16;

/// Where a store is, as settings say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// In this folder.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Whether every server of the registry has the same one, as it is said.
        shared: bool,
    },
    /// Below this URL, where every server reaches it.
    Bucket(Location),
}

impl StoreAt {
    /// Whether it is said that every server of the registry has the same one.
    pub fn is_said_shared(&self) -> bool {
        match self {
            StoreAt::Folder { shared, .. } => *shared,
            StoreAt::Bucket(_) => true,
        }
    }
}

impl fmt::Display for StoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreAt::Folder { path, .. } => write!(f, "{}", path.display()),
            StoreAt::Bucket(location) => write!(f, "{location}"),
        }
    }
}

/// A store, open.
#[derive(Debug)]
pub(crate) enum Place {
    Folder(Folder),
    Bucket(Box<Bucket>, Local),
}

/// What a store in a bucket needs of this machine.
#[derive(Debug)]
pub(crate) struct Local {
    runtime: Handle,
    /// What is to be sent lies here meanwhile.
    outbox: PathBuf,
}

impl Local {
    fn wait<F: Future>(&self, future: F) -> F::Output {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }
}

/// A file that is being written. What is not finished is removed.
pub(crate) struct Unfinished {
    local: PathBuf,
    path: String,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing is there where it has its name by now.
        let _ = fs::remove_file(&self.local);
    }
}

impl Place {
    /// Opens the store at `at`; `scratch` is a folder of this server's own.
    pub(crate) fn open(at: &StoreAt, scratch: &Path) -> Result<Place> {
        match at {
            StoreAt::Folder { path, .. } => {
                fs::create_dir_all(path).map_err(|error| {
                    Error::invalid(format!("the store {} cannot be made: {error}", path.display()))
                })?;
                Ok(Place::Folder(Folder { root: path.clone() }))
            }
            StoreAt::Bucket(location) => {
                let outbox = scratch.join("outbox");
                // What an earlier process has not sent is in no registry.
                let _ = fs::remove_dir_all(&outbox);
                let local = Local { runtime: Handle::current(), outbox };
                Ok(Place::Bucket(Box::new(Bucket::open(location.clone())?), local))
            }
        }
    }

    /// A new file, to be written here and then put at `path`.
    pub(crate) fn begin(&self, path: &str) -> Result<(Unfinished, File)> {
        let (local, file) = match self {
            Place::Folder(folder) => folder.begin(path)?,
            Place::Bucket(_, Local { outbox, .. }) => {
                fs::create_dir_all(outbox)?;
                let local = outbox.join(path.rsplit('/').next().unwrap_or(path));
                let file = File::create_new(&local)?;
                (local, file)
            }
        };
        Ok((Unfinished { local, path: path.to_owned() }, file))
    }

    /// Puts a file, which is on disk, where it belongs; it is durable when this returns.
    pub(crate) fn finish(&self, unfinished: &Unfinished, bytes: u64) -> Result<()> {
        let Unfinished { local, path } = unfinished;
        match self {
            Place::Folder(folder) => Ok(folder.finish(local, path)?),
            Place::Bucket(bucket, here) => {
                let mut file = File::open(local)?;
                here.wait(bucket.upload(path, &mut file, bytes))
            }
        }
    }

    /// Writes a file, over what is there; it is durable when this returns.
    pub(crate) fn put(&self, path: &str, bytes: Bytes, unique: u64) -> Result<()> {
        match self {
            Place::Folder(folder) => {
                // Two servers may write the same one.
                let own = format!("{path}.{unique:016x}");
                folder.write(&own, &bytes)?;
                Ok(folder.finish(&folder.at(&own), path)?)
            }
            Place::Bucket(bucket, here) => here.wait(bucket.put(path, bytes)),
        }
    }

    /// How large a file is; none where there is none.
    pub(crate) fn bytes(&self, path: &str) -> Result<Option<u64>> {
        match self {
            Place::Folder(folder) => Ok(Place::open_here(folder, path)?
                .map(|file| file.metadata())
                .transpose()?
                .map(|found| found.len())),
            Place::Bucket(bucket, here) => Ok(here.wait(bucket.head(path))?.map(|found| found.bytes)),
        }
    }

    /// Opens a file where it lies; none where it is not there.
    pub(crate) fn open_here(folder: &Folder, path: &str) -> Result<Option<File>> {
        match open_regular(&folder.at(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows all of a file to `take`; says whether it is there.
    pub(crate) fn read(&self, path: &str, take: &mut dyn Write) -> Result<bool> {
        match self {
            Place::Folder(folder) => match Place::open_here(folder, path)? {
                Some(mut file) => {
                    file.rewind()?;
                    std::io::copy(&mut file, take)?;
                    Ok(true)
                }
                None => Ok(false),
            },
            Place::Bucket(bucket, here) => here.wait(bucket.download(path, take)),
        }
    }

    /// Writes a small file, over what is there.
    pub(crate) fn write_small(&self, path: &str, text: &str) -> Result<()> {
        match self {
            Place::Folder(folder) => Ok(folder.write(path, text.as_bytes())?),
            Place::Bucket(bucket, here) => here.wait(bucket.write(path, text.to_owned().into())),
        }
    }

    /// Writes a small file, unless there is one; says whether it did.
    pub(crate) fn create_small(&self, path: &str, text: &str, unique: u64) -> Result<bool> {
        match self {
            Place::Folder(folder) => Ok(folder.create(path, text.as_bytes(), unique)?),
            Place::Bucket(bucket, here) => here.wait(bucket.create(path, text.to_owned().into())),
        }
    }

    /// What is in a small file; none where there is none.
    pub(crate) fn read_small(&self, path: &str) -> Result<Option<String>> {
        let bytes = match self {
            Place::Folder(folder) => folder.read(path, SMALL_BYTES_MAX)?,
            Place::Bucket(bucket, here) => here.wait(bucket.read(path))?.map(Vec::from),
        };
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Removes a file, where it is there.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        match self {
            Place::Folder(folder) => Ok(folder.remove(path)?),
            Place::Bucket(bucket, here) => here.wait(bucket.remove(path)),
        }
    }

    /// When a file was written, by the store's clock; none where there is none.
    pub(crate) fn modified(&self, path: &str) -> Result<Option<SystemTime>> {
        match self {
            Place::Folder(folder) => match fs::metadata(folder.at(path)) {
                Ok(metadata) => Ok(Some(metadata.modified()?)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
            Place::Bucket(bucket, here) => Ok(here.wait(bucket.head(path))?.map(|found| found.modified)),
        }
    }

    /// All files of the store, those too that are being written.
    pub(crate) fn list(&self) -> Result<Vec<Stored>> {
        match self {
            Place::Folder(folder) => Ok(folder.list()?),
            Place::Bucket(bucket, here) => {
                let listed = here.wait(bucket.list())?.into_iter();
                let stored =
                    listed.map(|file| Stored { path: file.path, bytes: file.bytes, modified: file.modified });
                Ok(stored.collect())
            }
        }
    }
}
