//! Which files does a source's path name, in the order in which their rows count as arrived?

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use feature_defs::{BatchSource, DefError, Format, Source};
use glob::{MatchOptions, Pattern};
use quern_base::{Failure, Kind};
use quern_engine::caught::{caught, told};
use sha2::{Digest, Sha256};

use super::kept::Kept;
use super::lakes;
use crate::error::Error;
use crate::metrics::metrics;
use crate::roots::{OUTSIDE_HELP, ProjectRoots, Roots, open_regular, place};
use crate::segments::Segment;

/// More files than this under one path are a mistake in the path.
pub(super) const FILES_MAX: usize = 100_000;
/// Deeper folders than this are a link that leads back into itself.
const DEPTH_MAX: usize = 32;
/// When a file that has just changed may be asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many of a folder's names an error shows.
const NAMES_SHOWN: usize = 5;

/// A file of history, as it was when its source was opened.
#[derive(Debug, Clone)]
pub(super) struct HistoryFile {
    /// Path relative to the repository where it lies inside, for messages and for the order of arrival.
    pub(super) name: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// Somebody's, at a path without links.
    Path(PathBuf, Version),
    /// Quern's own.
    Store(Arc<dyn Kept>, Arc<Segment>),
}

impl HistoryFile {
    /// A file of Quern's own.
    pub(super) fn of(kept: &Arc<dyn Kept>, segment: Segment) -> HistoryFile {
        let name = segment.path.clone();
        HistoryFile { name, place: Place::Store(Arc::clone(kept), Arc::new(segment)) }
    }

    /// Where it lies, and which state of it was found; none where it is Quern's own.
    pub(super) fn identity(&self) -> Option<(&Path, &Version)> {
        match &self.place {
            Place::Path(path, version) => Some((path, version)),
            Place::Store(..) => None,
        }
    }

    /// Adds to `digest` what tells this state of it from others.
    pub(super) fn digest(&self, digest: &mut Sha256) {
        digest.update(self.name.as_bytes());
        digest.update([0]);
        if let Place::Path(path, version) = &self.place {
            digest.update(path.as_os_str().as_bytes());
            digest.update([0]);
            version.digest(digest);
        }
    }

    /// How large it was when it was found.
    pub(super) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Path(_, version) => version.bytes,
            Place::Store(_, segment) => segment.bytes,
        }
    }
}

/// What tells one state of a file from another without reading it. A copy may have the size and the time of what it
/// replaces; the rest no program sets at will.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Version {
    bytes: u64,
    modified: Option<SystemTime>,
    linked: Linked,
}

/// Which file a name stands for, and when something about it changed last: its bytes, its names, its rights.
#[derive(Debug, Clone, PartialEq)]
struct Linked {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let linked = Linked { device: metadata.dev(), inode: metadata.ino(), changed };
        Version { bytes: metadata.len(), modified: metadata.modified().ok(), linked }
    }

    fn digest(&self, digest: &mut Sha256) {
        let Linked { device, inode, changed: (seconds, nanos) } = self.linked;
        let since = self.modified.and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified = since.unwrap_or_default().as_nanos() as u64;
        for number in [self.bytes, modified, device, inode, seconds as u64, nanos as u64] {
            digest.update(number.to_le_bytes());
        }
    }
}

impl HistoryFile {
    /// The file's bytes; refused where they are no longer those that were opened.
    pub(super) fn open(&self) -> Result<File, Error> {
        metrics().history_files_opened.inc();
        let (path, found) = match &self.place {
            Place::Path(path, version) => (path, version),
            Place::Store(kept, segment) => return kept.open(segment),
        };
        let opened = open_regular(path).and_then(|file| Ok((Version::of(&file.metadata()?), file)));
        let (version, file) = opened.map_err(|error| self.unreadable(&error))?;
        // A folder on the way may be a link by now, and may have been one for a moment when the file was found.
        let moved = place(&file).is_some_and(|place| place != *path);
        if moved || *found != version {
            let changed = Failure::new(
                Kind::Unavailable,
                format!(
                    "`{}` changed while it was being read ({} bytes, now {}); write new rows into new files, then run again",
                    self.name, found.bytes, version.bytes
                ),
            );
            // Who asks again finds it as it is now.
            return Err(changed.again_after(RETRY_AFTER).into());
        }
        Ok(file)
    }

    /// Runs a decoder on this file. Decoders of foreign formats may panic on malformed bytes: both ways to fail
    /// become an error that names the file.
    pub(super) fn guarded<T, E: Display>(&self, decode: impl FnOnce() -> Result<T, E>) -> Result<T, Error> {
        match caught(decode) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.unreadable(&error)),
            Err(panic) => {
                let why = told(&panic).unwrap_or("the library gave up");
                Err(self.unreadable(&format!("it is malformed ({why})")))
            }
        }
    }

    /// The file is missing, truncated, malformed or not allowed to be read.
    pub(super) fn unreadable(&self, why: &dyn Display) -> Error {
        Error::invalid(self.cannot_be_read(why))
    }

    /// The same for what is wrong with its values, which `whole` may quote and `why` does not.
    pub(super) fn unfit(&self, why: &dyn Display, whole: &dyn Display) -> Error {
        Error::invalid(self.cannot_be_read(why)).quoting(self.cannot_be_read(whole))
    }

    fn cannot_be_read(&self, why: &dyn Display) -> String {
        format!("`{}` cannot be read: {why}", self.name)
    }
}

/// Every file that `batch` names, sorted by name. A folder stands for all files in it with the format's
/// extension, at any depth, names that begin with `.` or `_` left out (as Spark and Hive do: half-written output).
pub(super) fn find(
    roots: &ProjectRoots,
    source: &Source,
    batch: &BatchSource,
) -> Result<Vec<HistoryFile>, DefError> {
    let of_source = |mistake: DefError| {
        let cause = format!("source `{}`: {}", source.name, mistake.cause);
        DefError { cause, ..mistake }
    };
    let kept_back = |name: &str| {
        let cause = format!("`{name}` is hidden, or YAML, and so no file of a source");
        of_source(DefError::new(&batch.loc, cause).with_help("move its rows into a file of another name"))
    };
    let roots = roots.at(&batch.loc).map_err(of_source)?;
    // By its name first: whether there is such a file is told nobody.
    if roots.keeps_back(&roots.repository().join(&batch.path)) {
        return Err(kept_back(&batch.path));
    }
    let files = named(roots, batch).map_err(of_source)?;
    let leads_there = |file: &&HistoryFile| file.identity().is_some_and(|(path, _)| roots.keeps_back(path));
    files.iter().find(leads_there).map_or(Ok(()), |file| Err(kept_back(&file.name)))?;
    Ok(files)
}

/// The same, whatever source it is.
pub(super) fn named(roots: &Roots, batch: &BatchSource) -> Result<Vec<HistoryFile>, DefError> {
    let root = roots.repository();
    let mistake = |cause: String| DefError::new(&batch.loc, cause);
    if let Some((scheme, _)) = batch.path.split_once("://") {
        return Err(mistake(format!("`{}` is not a path of this machine", batch.path)).with_help(format!(
            "`{scheme}://` is not read yet; copy or mount the files and name a path or glob"
        )));
    }
    let outside = |name: &str| {
        mistake(format!("`{name}` lies outside of the repository, or is a link that leads out of it"))
            .with_help(OUTSIDE_HELP)
    };
    if !roots.admit(&root.join(&batch.path)) {
        return Err(outside(&batch.path));
    }
    let mut paths = Vec::new();
    let listed = matching(roots, batch, &mut paths);
    listed.map_err(|why| mistake(format!("`{}` cannot be listed: {why}", batch.path)))?;
    if paths.len() > FILES_MAX {
        return Err(mistake(format!("`{}` names more than {FILES_MAX} files", batch.path))
            .with_help("narrow the glob, or merge small files into larger ones"));
    }
    if paths.is_empty() {
        return Err(mistake(format!("no file matches `{}`", batch.path)).with_help(way_out(root, batch)));
    }
    if let Some(lake) = lakes::among(root, &paths) {
        return Err(mistake(lake.to_string()).with_help(lake.way_out()));
    }
    let (mut files, mut real) = (Vec::with_capacity(paths.len()), Real::default());
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let unread = |why: io::Error| mistake(format!("`{name}` cannot be read: {why}"));
        let path = real.of(&path).map_err(unread)?;
        if !roots.hold(&path) {
            return Err(outside(&name));
        }
        let metadata = fs::symlink_metadata(&path).map_err(unread)?;
        if !metadata.is_file() {
            return Err(mistake(format!("`{name}` is no regular file")));
        }
        files.push(HistoryFile { name, place: Place::Path(path, Version::of(&metadata)) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    Ok(files)
}

/// Where paths lead, each folder looked up once: most files of a source lie beside others.
#[derive(Default)]
struct Real {
    folders: HashMap<PathBuf, PathBuf>,
}

impl Real {
    fn of(&mut self, path: &Path) -> io::Result<PathBuf> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize();
        };
        if fs::symlink_metadata(path)?.is_symlink() {
            return path.canonicalize();
        }
        if let Some(real) = self.folders.get(folder) {
            return Ok(real.join(name));
        }
        let real = folder.canonicalize()?;
        let path = real.join(name);
        self.folders.insert(folder.to_owned(), real);
        Ok(path)
    }
}

/// Fills `paths` with the files that the path or glob names, in any order, perhaps twice.
fn matching(roots: &Roots, batch: &BatchSource, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let root = roots.repository();
    let literal = root.join(&batch.path);
    if literal.exists() {
        return take(roots, &literal, batch.format, paths);
    }
    let absolute = Path::new(&batch.path).is_absolute();
    let folder = if absolute { String::new() } else { Pattern::escape(&root.to_string_lossy()) };
    let pattern = Path::new(&folder).join(&batch.path);
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(io::Error::other)?;
    // What the path itself names is meant.
    let named = batch.path.split('/').filter(|part| is_passed_over(part));
    let named: Vec<Pattern> = named.filter_map(|part| Pattern::new(part).ok()).collect();
    for path in found {
        let path = path.map_err(io::Error::from)?;
        let below = path.strip_prefix(root).unwrap_or(&path).components();
        let mut parts =
            below.map(|part| part.as_os_str().to_string_lossy()).filter(|part| is_passed_over(part));
        if parts.all(|part| named.iter().any(|pattern| pattern.matches(&part))) {
            take(roots, &path, batch.format, paths)?;
        }
    }
    Ok(())
}

/// Whether a file or folder of this name is none of a table, unless somebody names it: what Spark leaves beside its
/// rows, such as `_SUCCESS` and `_temporary`, and what is hidden. A column may be called so.
fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_') && !name.contains('=')
}

fn take(roots: &Roots, path: &Path, format: Format, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        return walk(roots, (path, 0), format, paths);
    }
    paths.push(path.to_owned());
    Ok(())
}

fn walk(
    roots: &Roots,
    (folder, depth): (&Path, usize),
    format: Format,
    paths: &mut Vec<PathBuf>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "folders are nested deeper than {DEPTH_MAX}: {}",
            folder.display()
        )));
    }
    // What a folder outside holds is nobody's business, not even the names.
    if !roots.admit(folder) {
        return Err(io::Error::other(format!(
            "the folder {} is a link that leads out of the repository",
            folder.display()
        )));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_passed_over(&name) || paths.len() > FILES_MAX {
            continue;
        }
        if path.is_dir() {
            walk(roots, (&path, depth + 1), format, paths)?;
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension(format))) {
            paths.push(path);
        }
    }
    Ok(())
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Parquet => "parquet",
        Format::Csv => "csv",
    }
}

/// Says what lies where the search began, which is mostly enough to see the typing error.
fn way_out(root: &Path, batch: &BatchSource) -> String {
    let is_plain = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let mut folder = root.join(Path::new(&batch.path).components().take_while(is_plain).collect::<PathBuf>());
    while !folder.is_dir() && folder.pop() {}
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    let more = if names.len() > NAMES_SHOWN { ", …" } else { "" };
    names.truncate(NAMES_SHOWN);
    let holds = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!(
        "looked in `{}`, which holds {holds}{more}; a path is relative to the repository's root, and a folder \
         stands for every .{} file in it",
        folder.display(),
        extension(batch.format)
    )
}
