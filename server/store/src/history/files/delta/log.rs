//! What is in the files of the log of a table of Delta Lake?

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use delta_kernel::{FileMeta, KernelError, KernelResult};
use feature_defs::{BatchSource, Connection, Loc};
use parking_lot::Mutex;
use quern_base::random;
use serde::Deserialize;
use url::Url;

use super::super::table::{At, Folder, Found};
use super::super::{HistoryFile, Missed};
use super::FirstAdded;
use crate::error::Kind;
use crate::objects::{Lent, Objects};
use crate::place::Place;
use crate::roots::Roots;

const LOG: &str = "_delta_log";
const GONE_HELP: &str = "VACUUM removes files of old versions; leave `version` out, or name a later one";

/// A table, and what its log said that could not be read.
#[derive(Debug)]
pub(super) struct Table {
    folder: Folder,
    /// What commits are written into; none for who only reads.
    into: Option<Arc<Place>>,
    /// Why something was not read, as people are told.
    failed: Mutex<Option<Missed>>,
}

/// What is needed of a line of a commit.
#[derive(Deserialize)]
struct Line {
    add: Option<Add>,
}

#[derive(Deserialize)]
struct Add {
    path: String,
}

impl Table {
    /// The table that `batch` names. Nothing of it is read yet.
    pub(super) fn open(places: (&Roots, &Arc<Objects>), batch: &BatchSource) -> Result<Table, Missed> {
        let folder = Folder::open(places, At::of(batch, &batch.path, LOG))?;
        Ok(Table { folder, into: None, failed: Mutex::default() })
    }

    /// The table in a folder that is there, of which commits go into `place`.
    pub(super) fn to_write(
        places: (&Roots, &Arc<Objects>),
        (loc, path, connection): (&Loc, &str, Option<&Connection>),
        place: &Arc<Place>,
    ) -> Result<Table, Missed> {
        let folder = Folder::open(places, At { loc, path, log: LOG, connection, lent: Lent::default() })?;
        Ok(Table { folder, into: Some(Arc::clone(place)), failed: Mutex::default() })
    }

    /// Whether it has a log.
    pub(super) fn is_one(&self) -> KernelResult<bool> {
        let log = self.url().join(&format!("{LOG}/"))?;
        Ok(!self.list_after(&log)?.is_empty())
    }

    /// Writes a commit, unless there is one of that name; says whether it did.
    pub(super) fn create(&self, url: &Url, text: &str) -> KernelResult<bool> {
        let name = self.url().make_relative(url);
        let (Some(place), Some(name)) = (&self.into, name) else {
            return Err(KernelError::unsupported("tables are only read"));
        };
        let created = place.create_small(&name, text, random::number()).map_err(|error| {
            let missed = Missed::from(self.folder.mistake(error.to_string()));
            self.note(Missed { again: error.kind() == Kind::Unavailable, ..missed })
        })?;
        // A request that was sent again finds what it has written itself: each commit names itself.
        Ok(created || self.read(url, None).is_ok_and(|there| there == text.as_bytes()))
    }

    /// What people call it.
    pub(super) fn path(&self) -> &str {
        self.folder.path()
    }

    pub(super) fn url(&self) -> &Url {
        self.folder.url()
    }

    /// Why something was not read, if that is known better than the library knows it.
    pub(super) fn failed(&self) -> Option<Missed> {
        self.failed.lock().take()
    }

    /// A file of the table, which the log calls so.
    pub(super) fn file(&self, path: &str, member: super::Member) -> Result<HistoryFile, Missed> {
        let url = self.url().join(path).map_err(|_| self.folder.outside(&path))?;
        let file = self.folder.file(&url, GONE_HELP)?;
        Ok(HistoryFile { member: Some(Box::new(member)), ..file })
    }

    /// In which commit of the log each file was added first, up to this version.
    pub(super) fn first_added(&self, version: u64) -> KernelResult<FirstAdded> {
        let mut first = FirstAdded::new();
        let log = self.url().join(&format!("{LOG}/"))?;
        for file in self.list_after(&log)? {
            let name = file.location.path().rsplit('/').next().unwrap_or_default();
            let Some(commit) = name.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok())
            else {
                continue;
            };
            if commit > version || !file.location.path().ends_with(&format!("/{LOG}/{name}")) {
                continue;
            }
            let bytes = self.read(&file.location, None)?;
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // What is no action at all the library has refused.
                if let Ok(Line { add: Some(Add { path }) }) = serde_json::from_slice(line) {
                    first.entry(path).or_insert(commit as i64);
                }
            }
        }
        Ok(first)
    }

    /// The files below the folder of `from` whose paths come after it, in their order.
    pub(super) fn list_after(&self, from: &Url) -> KernelResult<Vec<FileMeta>> {
        let found = self.folder.below(&from.join(".")?).map_err(|missed| self.note(missed))?;
        let meta = |Found { url, modified, bytes }: Found| {
            let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            FileMeta { location: url, last_modified: since.as_millis() as i64, size: bytes }
        };
        Ok(found.into_iter().filter(|file| file.url.path() > from.path()).map(meta).collect())
    }

    /// What is in a file of the log, or of deleted rows.
    pub(super) fn read(&self, url: &Url, range: Option<Range<u64>>) -> KernelResult<Bytes> {
        let read = self.folder.read(url, range).map_err(|missed| self.note(missed))?;
        read.ok_or_else(|| KernelError::FileNotFound(url.to_string()))
    }

    /// What is known of a file without reading it.
    pub(super) fn head(&self, url: &Url) -> KernelResult<FileMeta> {
        let size = self.folder.bytes(url).map_err(|missed| self.note(missed))?;
        let size = size.ok_or_else(|| KernelError::FileNotFound(url.to_string()))?;
        Ok(FileMeta { location: url.clone(), last_modified: 0, size })
    }

    /// Keeps for people what the library passes on as its own.
    fn note(&self, missed: Missed) -> KernelError {
        let error = KernelError::generic(&missed.mistake.cause);
        *self.failed.lock() = Some(missed);
        error
    }
}
