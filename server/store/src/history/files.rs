//! Which files does a source's path name, in the order in which their rows count as arrived?

pub(crate) mod delta;
mod iceberg;
pub(super) mod local;
mod remote;
mod table;
mod web;

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Fields};
use feature_defs::{BatchSource, DefError, Format, Source};
use glob::Pattern;
use parking_lot::Mutex;
use quern_base::{Failure, Kind};
use quern_engine::caught::{caught, told};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use self::iceberg::Plans;
use super::kept::Kept;
use super::member::{Lacks, Member};
use crate::error::Error;
use crate::metrics::metrics;
use crate::objects::{Fetched, Object, Objects, Reads};
use crate::roots::{ProjectRoots, Roots, open_regular, place};
use crate::segments::Segment;

/// More files than this under one path are a mistake in the path.
pub(super) const FILES_MAX: usize = 100_000;
/// When a file that has just changed may be asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A file of history, as it was when its source was opened.
#[derive(Debug, Clone)]
pub(super) struct HistoryFile {
    /// Path relative to the repository where it lies inside, for messages and for the order of arrival.
    pub(super) name: String,
    place: Place,
    /// What its table says of it, where it is one of a table.
    pub(super) member: Option<Box<Member>>,
}

#[derive(Debug, Clone)]
enum Place {
    /// Somebody's, at a path without links.
    Path(PathBuf, Version),
    /// Somebody's, in a bucket or over HTTP.
    Object(PathBuf, Version, Arc<Remote>),
    /// Quern's own.
    Store(Arc<dyn Kept>, Arc<Segment>),
}

/// A file in a bucket or over HTTP, and who reads it.
#[derive(Debug)]
struct Remote {
    objects: Arc<Objects>,
    object: Object,
    /// What was read of it and of those that it was found with.
    reads: Arc<Mutex<Reads>>,
}

/// Where bytes of a file are read, by a decoder that looks for them in one place after the other.
#[derive(Debug)]
pub(super) enum Content {
    /// All of it.
    Whole(File),
    /// What was asked for, of so many bytes.
    Fetched(Fetched, u64),
}

impl HistoryFile {
    /// A file of Quern's own.
    pub(super) fn of(kept: &Arc<dyn Kept>, segment: Segment) -> HistoryFile {
        let name = segment.path.clone();
        HistoryFile { name, place: Place::Store(Arc::clone(kept), Arc::new(segment)), member: None }
    }

    /// Where it lies, and which state of it was found; none where it is Quern's own.
    pub(super) fn identity(&self) -> Option<(&Path, &Version)> {
        match &self.place {
            Place::Path(path, version) | Place::Object(path, version, _) => Some((path, version)),
            Place::Store(..) => None,
        }
    }

    /// Adds to `digest` what tells this state of it from others.
    pub(super) fn digest(&self, digest: &mut Sha256) {
        digest.update(self.name.as_bytes());
        digest.update([0]);
        if let Some((path, version)) = self.identity() {
            digest.update(path.as_os_str().as_bytes());
            digest.update([0]);
            version.digest(digest);
        }
        self.digest_removed(digest);
    }

    fn digest_removed(&self, digest: &mut Sha256) {
        if let Some(member) = &self.member {
            member.removed.iter().for_each(|row| digest.update(row.to_le_bytes()));
        }
    }

    /// The hash of what tells this state of it from others, in any process.
    pub(super) fn state(&self) -> u64 {
        let mut digest = Sha256::new();
        match self.identity() {
            // What has the tag of a bucket is the same, whenever it was written.
            Some((_, Version { bytes, mark: Mark::Tag(Some(tag)), .. })) => {
                digest.update(bytes.to_le_bytes());
                digest.update(tag.as_bytes());
                self.digest_removed(&mut digest);
            }
            _ => self.digest(&mut digest),
        }
        xxh3_64(&digest.finalize())
    }

    /// What is read of it and of those that it was found with, where that is in a bucket or over HTTP.
    pub(super) fn reads(&self) -> Option<&Arc<Mutex<Reads>>> {
        match &self.place {
            Place::Object(_, _, far) => Some(&far.reads),
            Place::Path(..) | Place::Store(..) => None,
        }
    }

    /// Whether who reads it waits for it.
    pub(super) fn is_far(&self) -> bool {
        matches!(self.place, Place::Object(..))
    }

    /// How large it was when it was found.
    pub(super) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Path(_, version) | Place::Object(_, version, _) => version.bytes,
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
    mark: Mark,
}

/// What the system that holds a file says of its state.
#[derive(Debug, Clone, PartialEq)]
enum Mark {
    /// Which file a name stands for, and when something about it changed last: its bytes, its names, its rights.
    Linked { device: u64, inode: u64, changed: (i64, i64) },
    /// What a bucket or a server calls it.
    Tag(Option<String>),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let mark = Mark::Linked { device: metadata.dev(), inode: metadata.ino(), changed };
        Version { bytes: metadata.len(), modified: metadata.modified().ok(), mark }
    }

    fn of_object(object: &Object) -> Self {
        let mark = Mark::Tag(object.e_tag().map(str::to_owned));
        Version { bytes: object.bytes(), modified: Some(object.modified()), mark }
    }

    fn digest(&self, digest: &mut Sha256) {
        let since = self.modified.and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified = since.unwrap_or_default().as_nanos() as u64;
        let mut number = |number: u64| digest.update(number.to_le_bytes());
        number(self.bytes);
        number(modified);
        match &self.mark {
            Mark::Linked { device, inode, changed: (seconds, nanos) } => {
                [*device, *inode, *seconds as u64, *nanos as u64].into_iter().for_each(number);
            }
            Mark::Tag(tag) => digest.update(tag.as_deref().unwrap_or_default().as_bytes()),
        }
    }
}

impl HistoryFile {
    /// What lies in these ranges of it, none of which is empty; of a file on this machine, all of it.
    pub(super) fn content_at(&self, ranges: &[Range<u64>]) -> Result<Content, Error> {
        match &self.place {
            Place::Object(_, version, far) => {
                metrics().history_files_opened.inc();
                let fetched = far.objects.fetch(&far.object, ranges, &far.reads);
                fetched.map(|fetched| Content::Fetched(fetched, version.bytes)).map_err(Error::from)
            }
            Place::Path(..) | Place::Store(..) => self.open().map(Content::Whole),
        }
    }

    /// All of the file's bytes; refused where they are no longer those that were opened.
    pub(super) fn open(&self) -> Result<File, Error> {
        metrics().history_files_opened.inc();
        let (path, found) = match &self.place {
            Place::Path(path, version) => (path, version),
            Place::Object(_, _, far) => return Ok(far.objects.whole(&far.object, &far.reads)?),
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

/// Where files are looked for.
pub(super) struct Places {
    roots: ProjectRoots,
    objects: Arc<Objects>,
    /// What tables have been found to hold.
    plans: Plans,
    /// How the rows of a file are read that say which of a table were deleted.
    rows: EveryRow,
}

/// Hears of rows, and may find them wrong.
pub(super) type Visit<'a> = dyn FnMut(&RecordBatch) -> Result<(), String> + 'a;
/// Reads all rows of a file of a table.
pub(super) type EveryRow = fn(HistoryFile, Lacks, &mut Visit<'_>) -> Result<(), String>;

impl Places {
    pub(super) fn new(roots: ProjectRoots, objects: Objects, rows: EveryRow) -> Places {
        Places { roots, objects: Arc::new(objects), plans: Plans::default(), rows }
    }

    /// The same, with other copies of what was read of buckets.
    pub(super) fn with(self, objects: Objects) -> Places {
        Places { objects: Arc::new(objects), ..self }
    }

    /// Where a source's files may lie.
    fn at(&self, batch: &BatchSource) -> Result<(&Roots, &Arc<Objects>), DefError> {
        Ok((self.roots.at(&batch.loc)?, &self.objects))
    }
}

/// Every file that `batch` names, sorted by name. A folder stands for all files in it with the format's
/// extension, at any depth, names that begin with `.` or `_` left out (as Spark and Hive do: half-written output).
pub(super) fn find(
    places: &Places,
    source: &Source,
    batch: &BatchSource,
) -> Result<Vec<HistoryFile>, Missed> {
    let of_source = |mistake: DefError| {
        let cause = format!("source `{}`: {}", source.name, mistake.cause);
        DefError { cause, ..mistake }
    };
    let missed = |missed: Missed| Missed { mistake: of_source(missed.mistake), ..missed };
    match batch.format {
        Format::Delta => return delta::named(places, batch).map_err(missed),
        Format::Iceberg => return iceberg::named(places, batch).map_err(missed),
        _ => {}
    }
    if batch.is_over_http() {
        return web::named(&places.objects, batch).map_err(missed);
    }
    if batch.objects().is_some() {
        return remote::named(&places.objects, batch).map_err(missed);
    }
    let kept_back = |name: &str| {
        let cause = format!("`{name}` is hidden, or YAML, and so no file of a source");
        of_source(DefError::new(&batch.loc, cause).with_help("move its rows into a file of another name"))
    };
    let (roots, _) = places.at(batch).map_err(of_source)?;
    // By its name first: whether there is such a file is told nobody.
    if roots.keeps_back(&roots.repository().join(&batch.path)) {
        return Err(kept_back(&batch.path).into());
    }
    let files = local::named(roots, batch).map_err(of_source)?;
    let leads_there = |file: &&HistoryFile| file.identity().is_some_and(|(path, _)| roots.keeps_back(path));
    files.iter().find(leads_there).map_or(Ok(()), |file| Err(Missed::from(kept_back(&file.name))))?;
    Ok(files)
}

/// The columns of a table, which it has where it has no files, too; none of what is no table.
pub(super) fn columns(places: &Places, batch: &BatchSource) -> Option<Fields> {
    let columns = match batch.format {
        Format::Delta => delta::columns(places, batch).ok()?,
        Format::Iceberg => iceberg::columns(places, batch).ok()?,
        _ => return None,
    };
    Some(columns.0.iter().map(|column| Field::new(&column.name, column.dtype.clone(), true)).collect())
}

/// Why the files of a source are not found.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) mistake: DefError,
    /// Whether another time they may be: nobody answers who knows.
    pub(super) again: bool,
}

impl From<DefError> for Missed {
    fn from(mistake: DefError) -> Missed {
        Missed { mistake, again: false }
    }
}

impl From<Missed> for Error {
    fn from(Missed { mistake, again }: Missed) -> Error {
        let help = mistake.help.map(|help| format!("; {help}")).unwrap_or_default();
        let said = mistake.cause + &help;
        match again {
            true => Failure::new(Kind::Unavailable, said).again_after(RETRY_AFTER).into(),
            false => Error::invalid(said),
        }
    }
}

/// What parts of a path are meant though they are passed over elsewhere: those that the path itself names.
struct Named(Vec<Pattern>);

impl Named {
    fn by(path: &str) -> Named {
        let named = path.split('/').filter(|part| is_passed_over(part));
        Named(named.filter_map(|part| Pattern::new(part).ok()).collect())
    }

    fn means(&self, part: &str) -> bool {
        !is_passed_over(part) || self.0.iter().any(|pattern| pattern.matches(part))
    }
}

/// Whether a file or folder of this name is none of a table, unless somebody names it: what Spark leaves beside its
/// rows, such as `_SUCCESS` and `_temporary`, and what is hidden. A column may be called so.
fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('_') && !name.contains('=')
}

fn too_many(batch: &BatchSource) -> DefError {
    DefError::new(&batch.loc, format!("`{}` names more than {FILES_MAX} files", batch.path))
        .with_help("narrow the glob, or merge small files into larger ones")
}
