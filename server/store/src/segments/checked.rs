//! Are these the bytes that were written?
//!
//! One flipped bit may be another value without an error. So a file is hashed when this process reads it first, and
//! again when something about it has changed since: a wrong one is never read. Of a copy that a bucket has as well,
//! wrong means that it is fetched again.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use parking_lot::Mutex;
use quern_base::digest::{Digested, Hashing};

use super::{Prepared, Segments};
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::roots::open_regular;

/// More than there are segments; beyond that all are checked once more.
const KNOWN_MAX: usize = 1 << 20;
/// So many segments are fetched at a time.
const FETCHES_MAX: usize = 16;

/// The files that were checked, as they were then.
#[derive(Debug, Default)]
pub(super) struct Checked {
    known: Mutex<HashMap<String, State>>,
    /// Nobody fetches what another one fetches.
    fetching: [Mutex<()>; FETCHES_MAX],
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq)]
struct State {
    bytes: u64,
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> State {
        State {
            bytes: metadata.len(),
            file: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why a segment cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// There is no such file.
    Missing,
    /// Its bytes are others than were written, in words.
    Differs(String),
    /// The disk does not give its bytes back, in the system's words.
    Unreadable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => f.write_str("is missing"),
            Damage::Differs(how) => write!(f, "is damaged: {how}"),
            Damage::Unreadable(cause) => write!(f, "cannot be read: {cause}"),
        }
    }
}

/// Why there is no answer: the file is wrong, or nobody knows.
pub(super) enum Fault {
    Damaged(Damage),
    Unknown(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Unknown(error)
    }
}

/// Compares with what was written.
pub(super) fn check(found: &Digested, file: &Prepared) -> std::result::Result<(), Fault> {
    let differs = |what: String| Err(Fault::Damaged(Damage::Differs(what)));
    let (bytes, sha256) = (found.bytes, &found.sha256);
    if bytes != file.bytes {
        return differs(format!("it has {bytes} bytes, and {} were written", file.bytes));
    }
    match *sha256 == file.sha256 {
        true => Ok(()),
        false => differs(format!("its SHA-256 is {sha256}, and that of what was written {}", file.sha256)),
    }
}

impl Segments {
    /// Opens the file of a segment, whose bytes are those that were written.
    ///
    /// # Errors
    /// Where they are not, or there is no file: such an error names the segment and the way out. `Kind::Unavailable`
    /// where the store does not answer.
    pub fn local(&self, segment: &Prepared) -> Result<File> {
        let opened = match &*self.place {
            Place::Folder(folder) => match Place::open_here(folder, &segment.path) {
                Ok(Some(file)) => self.sound(file, segment),
                Ok(None) => Err(Fault::Damaged(Damage::Missing)),
                Err(error) => Err(unreadable(error)),
            },
            Place::Bucket(..) => self.cached(segment),
        };
        match opened {
            Ok(file) => Ok(file),
            Err(Fault::Unknown(error)) => Err(error),
            Err(Fault::Damaged(damage)) => {
                self.note_damage(segment, &damage);
                Err(damaged(segment, &damage))
            }
        }
    }

    /// A file that was opened just now, if its bytes are those of the segment.
    fn sound(&self, mut file: File, segment: &Prepared) -> std::result::Result<File, Fault> {
        let state = |file: &File| file.metadata().map(|metadata| State::of(&metadata));
        let state = |file: &File| state(file).map_err(|error| unreadable(error.into()));
        let before = state(&file)?;
        if self.checked.known.lock().get(&segment.path) == Some(&before) {
            return Ok(file);
        }
        self.checked.known.lock().remove(&segment.path);
        let mut hashing = Hashing::into(io::sink());
        io::copy(&mut file, &mut hashing).map_err(|error| unreadable(error.into()))?;
        check(&hashing.finish().1, segment)?;
        if state(&file)? != before {
            return Err(
                Error::busy(format!("the segment `{}` changed while it was read", segment.path)).into()
            );
        }
        file.rewind().map_err(|error| unreadable(error.into()))?;
        let mut known = self.checked.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(segment.path.clone(), before);
        Ok(file)
    }

    /// The copy of a segment that lies here, or is fetched now.
    fn cached(&self, segment: &Prepared) -> std::result::Result<File, Fault> {
        let path = self.cache.path(&segment.path);
        let number =
            segment.path.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31) + usize::from(byte));
        let _alone = self.checked.fetching[number % FETCHES_MAX].lock();
        if let Ok(file) = open_regular(&path) {
            match self.sound(file, segment) {
                Ok(file) => {
                    self.cache.touch(&path);
                    return Ok(file);
                }
                Err(Fault::Damaged(damage)) => {
                    tracing::warn!(segment = segment.path, "its copy here {damage}; it is fetched again");
                }
                Err(unknown) => return Err(unknown),
            }
            self.cache.remove(&path);
        }
        self.fetch(segment, &path)
    }

    fn fetch(&self, segment: &Prepared, path: &Path) -> std::result::Result<File, Fault> {
        let of_disk = |error: io::Error| Fault::Unknown(error.into());
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(of_disk)?;
        let unfinished = path.with_extension("part");
        let fetched = File::create(&unfinished).map_err(of_disk).and_then(|file| {
            let mut hashing = Hashing::into(file);
            match self.place.read(&segment.path, &mut hashing)? {
                true => check(&hashing.finish().1, segment)?,
                false => return Err(Fault::Damaged(Damage::Missing)),
            }
            fs::rename(&unfinished, path).map_err(of_disk)?;
            let file = open_regular(path).map_err(of_disk)?;
            let state = State::of(&file.metadata().map_err(of_disk)?);
            self.checked.known.lock().insert(segment.path.clone(), state);
            Ok(file)
        });
        match &fetched {
            Ok(_) => self.cache.add(path.to_owned(), segment.bytes),
            Err(_) => _ = fs::remove_file(&unfinished),
        }
        fetched
    }

    /// Reads all of a segment where it lies, whatever is known of it.
    pub(super) fn examine(&self, segment: &Prepared) -> std::result::Result<(), Fault> {
        let mut hashing = Hashing::into(io::sink());
        let checked = match self.place.read(&segment.path, &mut hashing) {
            Ok(true) => check(&hashing.finish().1, segment),
            Ok(false) => Err(Fault::Damaged(Damage::Missing)),
            Err(error) => Err(unreadable(error)),
        };
        if checked.is_err() {
            // Nothing about the file need have changed.
            self.checked.known.lock().remove(&segment.path);
        }
        checked
    }
}

/// What the disk does not give back is as bad as what it gives back wrong; who cannot be reached may be so later.
fn unreadable(error: Error) -> Fault {
    match error.kind() {
        Kind::Internal => Fault::Damaged(Damage::Unreadable(error.logged())),
        _ => Fault::Unknown(error),
    }
}

pub(super) fn damaged(segment: &Prepared, damage: &Damage) -> Error {
    Error::broken(format!(
        "the segment `{}` of the store {damage}; bring the file back from a backup of the store, or from an earlier version \
         of the object, where the bucket keeps any",
        segment.path
    ))
}
