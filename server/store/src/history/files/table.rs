//! Where does a table lie, and what is in its files?
//!
//! A table is a folder, here or in an object store, of which a log says what counts. Its files are named by URLs, and
//! none is read that lies outside of where its definition may lead.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use feature_defs::{BatchSource, Connection, DefError, Loc, Reach};
use parking_lot::Mutex;
use url::Url;

use super::{HistoryFile, Missed, local, remote};
use crate::objects::{Lent, Location, Object, Objects, Reads};
use crate::roots::{OUTSIDE_HELP, Roots, open_regular};

/// A log has folders of one level.
const DEPTH_MAX: usize = 4;
/// A file of a log, or of deleted rows, that is larger is none.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// The folder of a table.
#[derive(Debug)]
pub(super) struct Folder {
    /// As its definition names it.
    path: String,
    loc: Loc,
    /// Ends with a slash.
    url: Url,
    place: Place,
    /// What lies in a bucket below it, by the path of its URL, as it was when it was first asked for.
    listed: OnceLock<BTreeMap<String, Object>>,
    reads: Arc<Mutex<Reads>>,
}

#[derive(Debug)]
enum Place {
    Here(Roots),
    There(Arc<Objects>, Location, Box<Connection>),
}

/// Where the folder of a table is.
pub(super) struct At<'a> {
    /// Where that is declared.
    pub(super) loc: &'a Loc,
    /// A path on this machine, or a URL.
    pub(super) path: &'a str,
    /// What lies in it.
    pub(super) log: &'a str,
    /// What leads there, where it is a URL.
    pub(super) connection: Option<&'a Connection>,
    /// Keys to it, where these are lent.
    pub(super) lent: Lent,
}

impl<'a> At<'a> {
    /// As a source says it.
    pub(super) fn of(batch: &'a BatchSource, path: &'a str, log: &'a str) -> At<'a> {
        At { loc: &batch.loc, path, log, connection: batch.connection.as_ref(), lent: Lent::default() }
    }
}

/// A file of a table that was listed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) url: Url,
    pub(super) modified: SystemTime,
    pub(super) bytes: u64,
}

impl Folder {
    /// Opens it. Nothing of it is read yet.
    pub(super) fn open((roots, objects): (&Roots, &Arc<Objects>), at: At<'_>) -> Result<Folder, Missed> {
        let At { loc, path, log, connection, lent } = at;
        let mistake = |cause: String| DefError::new(loc, cause);
        let (url, place) = match (path.contains("://").then_some(path), connection) {
            (None, _) => {
                let folder = roots.repository().join(path);
                let real = folder.canonicalize();
                let mistaken = match &real {
                    Ok(real) if roots.hold(real) => None,
                    Err(_) if roots.admit(&folder) => {
                        let cause = format!("there is no folder `{path}`");
                        Some(mistake(cause).with_help(format!("name the folder in which `{log}` lies")))
                    }
                    _ => {
                        let cause = format!("`{path}` lies outside of the repository");
                        Some(mistake(cause).with_help(OUTSIDE_HELP))
                    }
                };
                if let Some(mistaken) = mistaken {
                    return Err(mistaken.into());
                }
                let real = real.map_err(|error| mistake(error.to_string()))?;
                let url = Url::from_directory_path(&real);
                let url = url.map_err(|()| mistake(format!("`{path}` is no folder")))?;
                (url, Place::Here(roots.clone()))
            }
            (Some(_), Some(connection)) => {
                let location = Location::parse_folder(path).map_err(mistake)?;
                let location = location.through(connection.storage.clone()).with(lent);
                let url = location.folder_url();
                (url, Place::There(Arc::clone(objects), location, Box::new(connection.clone())))
            }
            (Some(plain), None) => {
                return Err(mistake(format!("no connection of its project leads to `{plain}`")).into());
            }
        };
        let (path, loc) = (path.trim_end_matches('/').to_owned(), loc.clone());
        Ok(Folder { path, loc, url, place, listed: OnceLock::new(), reads: Arc::default() })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What lies below it by this name, in which nothing is escaped.
    pub(super) fn below_url(&self, name: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(name.split('/'));
        }
        url
    }

    /// Where a path leads that is not below it; none where that is no place that it may lead to.
    pub(super) fn elsewhere(&self, path: &str) -> Option<Url> {
        match &self.place {
            Place::Here(_) => {
                let path =
                    path.strip_prefix("file:").map_or(path, |path| path.strip_prefix("//").unwrap_or(path));
                Url::from_file_path(path).ok()
            }
            Place::There(..) => {
                let (scheme, rest) = path.split_once("://")?;
                let (bucket, key) = rest.split_once('/')?;
                let same = |scheme: &str| {
                    matches!(scheme, "s3a" | "s3n").then_some("s3").unwrap_or(scheme).to_owned()
                };
                let own = self.url.as_str().split('/').nth(2)?;
                if same(scheme) != same(self.url.scheme()) || bucket != own {
                    return None;
                }
                let mut url = self.url.clone();
                url.path_segments_mut().ok()?.clear().extend(key.split('/'));
                Some(url)
            }
        }
    }

    /// Where it is, and how that is asked.
    pub(super) fn asked(&self) -> String {
        match &self.place {
            Place::Here(_) => self.url.to_string(),
            Place::There(_, location, connection) => format!("{location} {connection:?}"),
        }
    }

    /// What people call it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong with the table, at what names it.
    pub(super) fn mistake(&self, cause: String) -> DefError {
        DefError::new(&self.loc, cause)
    }

    /// What people call a file of it.
    pub(super) fn name_of(&self, url: &Url) -> String {
        match (&self.place, url.to_file_path()) {
            (Place::Here(roots), Ok(path)) => {
                path.strip_prefix(roots.repository()).unwrap_or(&path).display().to_string()
            }
            _ => url.to_string(),
        }
    }

    /// A file of the table; `gone` is the way out where it is not there.
    pub(super) fn file(&self, url: &Url, gone: &str) -> Result<HistoryFile, Missed> {
        let name = self.name_of(url);
        let is_gone = || {
            let cause = format!("`{name}` is gone, though the log of `{}` names it", self.path);
            Missed::from(self.mistake(cause).with_help(gone))
        };
        match &self.place {
            Place::Here(roots) => {
                let path = url.to_file_path().map_err(|()| self.outside(url))?;
                let Ok(real) = path.canonicalize() else { return Err(is_gone()) };
                if roots.keeps_back(&real) {
                    return Err(self.outside(url));
                }
                Ok(local::file((roots, &self.loc), real, name)?)
            }
            Place::There(objects, ..) => {
                let object = self.object(url)?.ok_or_else(is_gone)?;
                Ok(remote::file(objects, object, &self.reads))
            }
        }
    }

    /// The files below a folder of it, in the order of their paths.
    pub(super) fn below(&self, folder: &Url) -> Result<Vec<Found>, Missed> {
        let mut found: Vec<Found> = match &self.place {
            Place::Here(roots) => {
                let path = folder.to_file_path().map_err(|()| self.outside(folder))?;
                if !path.exists() || !roots.admit(&path) {
                    return Ok(Vec::new());
                }
                let mut files = Vec::new();
                self.walk(roots, (&path, 0), &mut files)?;
                let found = |(path, found): (PathBuf, Metadata)| {
                    let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    Some(Found { url: Url::from_file_path(path).ok()?, modified, bytes: found.len() })
                };
                files.into_iter().filter_map(found).collect()
            }
            Place::There(..) => {
                let below = self.listed()?.range(folder.path().to_owned()..);
                let below = below.take_while(|(path, _)| path.starts_with(folder.path()));
                let found = |object: &Object| Found {
                    url: object.location().url().clone(),
                    modified: object.modified(),
                    bytes: object.bytes(),
                };
                below.map(|(_, object)| found(object)).collect()
            }
        };
        found.sort_by(|a, b| a.url.path().cmp(b.url.path()));
        Ok(found)
    }

    /// What is in a file of the log, or of deleted rows; none where there is no such file.
    pub(super) fn read(&self, url: &Url, range: Option<Range<u64>>) -> Result<Option<Bytes>, Missed> {
        match &self.place {
            Place::Here(roots) => {
                let path = url.to_file_path().map_err(|()| self.outside(url))?;
                if !roots.admit(&path) {
                    return Err(self.outside(url));
                }
                let file = match open_regular(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(self.unread(url, &error)),
                };
                let mut bytes = Vec::new();
                let read = file.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes);
                read.map_err(|error| self.unread(url, &error))?;
                self.check_size(url, bytes.len() as u64)?;
                let bytes = Bytes::from(bytes);
                let Some(range) = range else { return Ok(Some(bytes)) };
                if range.end > bytes.len() as u64 || range.start > range.end {
                    let cause = format!("`{}` is shorter than its table says", self.name_of(url));
                    return Err(self.mistake(cause).into());
                }
                Ok(Some(bytes.slice(range.start as usize..range.end as usize)))
            }
            Place::There(objects, ..) => {
                let Some(object) = self.object(url)? else { return Ok(None) };
                let range = range.unwrap_or(0..object.bytes());
                self.check_size(url, range.end.saturating_sub(range.start))?;
                if range.is_empty() {
                    return Ok(Some(Bytes::new()));
                }
                let fetched = objects.fetch(&object, std::slice::from_ref(&range), &self.reads);
                let fetched = fetched.map_err(|unread| remote::missed(&self.loc, unread))?;
                Ok(Some(fetched.parts.into_iter().next().map(|(_, bytes)| bytes).unwrap_or_default()))
            }
        }
    }

    fn check_size(&self, url: &Url, bytes: u64) -> Result<(), Missed> {
        if bytes <= LOG_BYTES_MAX {
            return Ok(());
        }
        let cause = format!("`{}` has more than {LOG_BYTES_MAX} bytes, as no log has", self.name_of(url));
        Err(self.mistake(cause).into())
    }

    /// How large a file is; none where there is no such file.
    pub(super) fn bytes(&self, url: &Url) -> Result<Option<u64>, Missed> {
        match &self.place {
            Place::Here(..) => {
                let path = url.to_file_path().map_err(|()| self.outside(url))?;
                Ok(path.metadata().ok().map(|found| found.len()))
            }
            Place::There(..) => Ok(self.object(url)?.map(|object| object.bytes())),
        }
    }

    /// Finds all files below a folder of this machine, wherever links lead, as far as roots do.
    fn walk(
        &self,
        roots: &Roots,
        (folder, depth): (&Path, usize),
        found: &mut Vec<(PathBuf, Metadata)>,
    ) -> Result<(), Missed> {
        let unread = |path: &Path, error: &io::Error| {
            self.mistake(format!("`{}` cannot be read: {error}", path.display()))
        };
        for entry in fs::read_dir(folder).map_err(|error| unread(folder, &error))? {
            let path = entry.map_err(|error| unread(folder, &error))?.path();
            if !roots.admit(&path) || depth > DEPTH_MAX {
                let cause = format!("`{}` leads out of where it lies", path.display());
                return Err(self.mistake(cause).with_help(OUTSIDE_HELP).into());
            }
            match fs::metadata(&path).map_err(|error| unread(&path, &error))? {
                metadata if metadata.is_dir() => self.walk(roots, (&path, depth + 1), found)?,
                metadata => found.push((path, metadata)),
            }
        }
        Ok(())
    }

    /// All that lies in a bucket below the table.
    fn listed(&self) -> Result<&BTreeMap<String, Object>, Missed> {
        if let Some(listed) = self.listed.get() {
            return Ok(listed);
        }
        let Place::There(objects, location, _) = &self.place else { return Err(self.outside(&self.url)) };
        let found = objects.below(location, usize::MAX, |_| true);
        let found = found.map_err(|unread| remote::missed(&self.loc, unread))?;
        let by_path = found.into_iter().map(|object| (object.location().url().path().to_owned(), object));
        Ok(self.listed.get_or_init(|| by_path.collect()))
    }

    /// What lies at a URL in a bucket, which its connection must lead to.
    fn object(&self, url: &Url) -> Result<Option<Object>, Missed> {
        let Place::There(objects, location, connection) = &self.place else { return Err(self.outside(url)) };
        let at = location.at_url(url).ok_or_else(|| self.outside(url))?;
        if !Reach::parse(&at.to_string()).is_ok_and(|reach| connection.reach.covers(&reach)) {
            return Err(self.outside(url));
        }
        if let Some(object) = self.listed()?.get(url.path()) {
            return Ok(Some(object.clone()));
        }
        objects.file(&at).map_err(|unread| remote::missed(&self.loc, unread))
    }

    fn unread(&self, url: &Url, error: &io::Error) -> Missed {
        self.mistake(format!("`{}` cannot be read: {error}", self.name_of(url))).into()
    }

    /// It names a file that its definition may not lead to.
    pub(super) fn outside(&self, to: &dyn std::fmt::Display) -> Missed {
        self.mistake(format!("`{}`: its log names `{to}`, which leads out of it", self.path)).into()
    }
}
