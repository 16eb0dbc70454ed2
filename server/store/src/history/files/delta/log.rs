//! Where does a table lie, and what is in the files of its log?

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use delta_kernel::{FileMeta, KernelError, KernelResult};
use feature_defs::{BatchSource, Connection, DefError, Loc, Reach};
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::super::{HistoryFile, Missed, local, remote};
use super::FirstAdded;
use crate::objects::{Location, Object, Objects, Reads, Unread};
use crate::roots::{OUTSIDE_HELP, Roots, open_regular};

const LOG: &str = "_delta_log";
/// A log has folders of one level.
const DEPTH_MAX: usize = 4;
/// A file of a log, or of deleted rows, that is larger is none.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// A table, and what its log said that could not be read.
#[derive(Debug)]
pub(super) struct Table {
    /// As its definition names it.
    path: String,
    loc: Loc,
    /// Ends with a slash.
    url: Url,
    place: Place,
    /// What lies in a bucket below it, by the path of its URL, as it was when it was first asked for.
    listed: OnceLock<BTreeMap<String, Object>>,
    reads: Arc<Mutex<Reads>>,
    /// Why something was not read, as people are told.
    failed: Mutex<Option<Missed>>,
}

#[derive(Debug)]
enum Place {
    Here(Roots),
    There(Arc<Objects>, Location, Box<Connection>),
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
    pub(super) fn open(
        (roots, objects): (&Roots, &Arc<Objects>),
        batch: &BatchSource,
    ) -> Result<Table, Missed> {
        let mistake = |cause: String| DefError::new(&batch.loc, cause);
        let (url, place) = match (batch.objects(), &batch.connection) {
            (None, _) => {
                let folder = roots.repository().join(&batch.path);
                let real = folder.canonicalize();
                let mistaken = match &real {
                    Ok(real) if roots.hold(real) => None,
                    Err(_) if roots.admit(&folder) => {
                        let cause = format!("there is no folder `{}`", batch.path);
                        Some(mistake(cause).with_help("name the folder in which `_delta_log` lies"))
                    }
                    _ => {
                        let cause = format!("`{}` lies outside of the repository", batch.path);
                        Some(mistake(cause).with_help(OUTSIDE_HELP))
                    }
                };
                if let Some(mistaken) = mistaken {
                    return Err(mistaken.into());
                }
                let real = real.map_err(|error| mistake(error.to_string()))?;
                let url = Url::from_directory_path(&real);
                let url = url.map_err(|()| mistake(format!("`{}` is no folder", batch.path)))?;
                (url, Place::Here(roots.clone()))
            }
            (Some(plain), Some(connection)) => {
                let location = Location::parse_folder(plain).map_err(mistake)?;
                let location = location.through(connection.storage.clone());
                let url = location.folder_url();
                (url, Place::There(Arc::clone(objects), location, Box::new(connection.clone())))
            }
            (Some(plain), None) => {
                return Err(mistake(format!("no connection of its project leads to `{plain}`")).into());
            }
        };
        Ok(Table {
            path: batch.path.trim_end_matches('/').to_owned(),
            loc: batch.loc.clone(),
            url,
            place,
            listed: OnceLock::new(),
            reads: Arc::default(),
            failed: Mutex::default(),
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Why something was not read, if that is known better than the library knows it.
    pub(super) fn failed(&self) -> Option<Missed> {
        self.failed.lock().take()
    }

    /// A file of the table, which the log calls so.
    pub(super) fn file(&self, path: &str, member: super::Member) -> Result<HistoryFile, Missed> {
        let mistake = |cause: String| DefError::new(&self.loc, cause);
        let away = || mistake(format!("`{}`: its log names `{path}`, which leads out of it", self.path));
        let url = self.url.join(path).map_err(|_| away())?;
        let gone = |name: &str| {
            let cause = format!("`{name}` is gone, though the log of `{}` names it", self.path);
            mistake(cause)
                .with_help("VACUUM removes files of old versions; leave `version` out, or name a later one")
        };
        let file = match &self.place {
            Place::Here(roots) => {
                let path = url.to_file_path().map_err(|()| away())?;
                let name = path.strip_prefix(roots.repository()).unwrap_or(&path).display().to_string();
                let Ok(real) = path.canonicalize() else { return Err(gone(&name).into()) };
                if roots.keeps_back(&real) {
                    return Err(away().into());
                }
                local::file((roots, &self.loc), real, name)?
            }
            Place::There(objects, ..) => {
                let missed = |error: KernelError| match self.failed() {
                    Some(missed) => missed,
                    None if matches!(error, KernelError::FileNotFound(_)) => gone(url.path()).into(),
                    None => away().into(),
                };
                remote::file(objects, self.object(&url).map_err(missed)?, &self.reads)
            }
        };
        Ok(HistoryFile { member: Some(Box::new(member)), ..file })
    }

    /// In which commit of the log each file was added first, up to this version.
    pub(super) fn first_added(&self, version: u64) -> KernelResult<FirstAdded> {
        let mut first = FirstAdded::new();
        let log = self.url.join(&format!("{LOG}/"))?;
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
        let folder = from.join(".")?;
        let meta = |location: Url, modified: SystemTime, size: u64| {
            let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            FileMeta { location, last_modified: since.as_millis() as i64, size }
        };
        let mut found: Vec<FileMeta> = match &self.place {
            Place::Here(roots) => {
                let path = folder.to_file_path().map_err(|()| self.outside())?;
                if !path.exists() || !roots.admit(&path) {
                    return Ok(Vec::new());
                }
                let mut files = Vec::new();
                self.walk(roots, (&path, 0), &mut files)?;
                let url = |path: &Path| Url::from_file_path(path).ok();
                let meta = |(path, found): (PathBuf, Metadata)| {
                    Some(meta(url(&path)?, found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len()))
                };
                files.into_iter().filter_map(meta).collect()
            }
            Place::There(..) => {
                let below = self.listed()?.range(folder.path().to_owned()..);
                let below = below.take_while(|(path, _)| path.starts_with(folder.path()));
                let url = |object: &Object| object.location().url().clone();
                below.map(|(_, object)| meta(url(object), object.modified(), object.bytes())).collect()
            }
        };
        found.retain(|file| file.location.path() > from.path());
        found.sort_by(|a, b| a.location.path().cmp(b.location.path()));
        Ok(found)
    }

    /// What is in a file of the log, or of deleted rows.
    pub(super) fn read(&self, url: &Url, range: Option<Range<u64>>) -> KernelResult<Bytes> {
        match &self.place {
            Place::Here(roots) => {
                let path = url.to_file_path().map_err(|()| self.outside())?;
                if !roots.admit(&path) {
                    return Err(self.outside());
                }
                let file = open_regular(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => KernelError::FileNotFound(url.to_string()),
                    _ => KernelError::from(error),
                })?;
                let mut bytes = Vec::new();
                file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
                let bytes = Bytes::from(bytes);
                match range {
                    Some(range) if range.end as usize <= bytes.len() => {
                        Ok(bytes.slice(range.start as usize..range.end as usize))
                    }
                    Some(_) => Err(KernelError::generic(format!("`{url}` is shorter than its table says"))),
                    None => Ok(bytes),
                }
            }
            Place::There(objects, ..) => {
                let object = self.object(url)?;
                let range = range.unwrap_or(0..object.bytes());
                if range.is_empty() {
                    return Ok(Bytes::new());
                }
                let fetched = objects.fetch(&object, std::slice::from_ref(&range), &self.reads);
                let fetched = fetched.map_err(|unread| self.unread(unread))?;
                Ok(fetched.parts.into_iter().next().map(|(_, bytes)| bytes).unwrap_or_default())
            }
        }
    }

    /// What is known of a file without reading it.
    pub(super) fn head(&self, url: &Url) -> KernelResult<FileMeta> {
        let size = match &self.place {
            Place::Here(..) => {
                let path = url.to_file_path().map_err(|()| self.outside())?;
                let found = path.metadata().map_err(|_| KernelError::FileNotFound(url.to_string()))?;
                found.len()
            }
            Place::There(..) => self.object(url)?.bytes(),
        };
        Ok(FileMeta { location: url.clone(), last_modified: 0, size })
    }

    /// Finds all files below a folder of this machine, wherever links lead, as far as roots do.
    fn walk(
        &self,
        roots: &Roots,
        (folder, depth): (&Path, usize),
        found: &mut Vec<(PathBuf, Metadata)>,
    ) -> KernelResult<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !roots.admit(&path) || depth > DEPTH_MAX {
                return Err(KernelError::generic(format!("`{}` leads out of where it lies", path.display())));
            }
            match fs::metadata(&path)? {
                metadata if metadata.is_dir() => self.walk(roots, (&path, depth + 1), found)?,
                metadata => found.push((path, metadata)),
            }
        }
        Ok(())
    }

    /// All that lies in a bucket below the table.
    fn listed(&self) -> KernelResult<&BTreeMap<String, Object>> {
        if let Some(listed) = self.listed.get() {
            return Ok(listed);
        }
        let Place::There(objects, location, _) = &self.place else { return Err(self.outside()) };
        let found = objects.below(location, usize::MAX, |_| true).map_err(|unread| self.unread(unread))?;
        let by_path = found.into_iter().map(|object| (object.location().url().path().to_owned(), object));
        Ok(self.listed.get_or_init(|| by_path.collect()))
    }

    /// What lies at a URL in a bucket, which its connection must lead to.
    fn object(&self, url: &Url) -> KernelResult<Object> {
        let Place::There(objects, location, connection) = &self.place else { return Err(self.outside()) };
        let at = location.at_url(url);
        if !Reach::parse(&at.to_string()).is_ok_and(|reach| connection.reach.covers(&reach)) {
            return Err(self.outside());
        }
        if let Some(object) = self.listed()?.get(url.path()) {
            return Ok(object.clone());
        }
        let found = objects.file(&at).map_err(|unread| self.unread(unread))?;
        found.ok_or_else(|| KernelError::FileNotFound(url.to_string()))
    }

    fn unread(&self, unread: Unread) -> KernelError {
        let error = KernelError::generic(&unread.cause);
        *self.failed.lock() = Some(remote::missed(&self.loc, unread));
        error
    }

    fn outside(&self) -> KernelError {
        KernelError::generic(format!("`{}` leads out of where it lies", self.path))
    }
}
