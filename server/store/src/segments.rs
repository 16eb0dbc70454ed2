//! Where lies what Quern itself keeps for good: pushed rows, labels, logged predictions?
//!
//! In *segments*: Parquet files, each written once, in the *store*, which is a folder or a bucket
//! ([`place`](crate::place)). The *manifest* in the registry names the segments that count, and what must be in each
//! ([`manifest`]). So a file is either whole, durable and named, or it is nothing: a crash leaves at most a file that
//! nobody names, which goes later ([`sweep`]). Whoever reads one reads the bytes that were written, or is told that
//! they are not there any more ([`checked`]).
//!
//! A store belongs to one registry, and has an id that both know ([`members`]).
//!
//! Architecture invariant: a segment's file is durable before the manifest names it, and is removed after the manifest
//! has forgotten it for so long that nobody reads it any more.

mod checked;
mod copied;
mod keep;
mod manifest;
mod members;
mod reader;
mod scrub;
mod set;
mod sweep;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quern_base::digest::Digested;
use quern_base::points::pass;
use quern_base::random;
use tokio::runtime::Handle;

use self::checked::Checked;
use self::manifest::Manifest;
use self::members::Member;
use self::set::EXTENSION;
use crate::cache::Cache;
use crate::error::{Error, Kind, Result};
use crate::metrics::metrics;
use crate::place::Place;
use crate::position::Position;
use crate::registry::Registry;

pub use self::copied::{Refilled, Staying};
pub use self::keep::Keeping;
pub use self::manifest::Wanted;
pub use self::members::Shared;
pub use self::reader::Reader;
pub use self::scrub::Damage;
pub use self::set::{Family, Prepared, Range, Segment, Set, day};
pub use self::sweep::Swept;
pub use self::writer::Writer;
pub use crate::place::StoreAt;

/// A store of segments. All but what is `async` must be called where blocking is allowed.
#[derive(Debug)]
pub struct Segments {
    at: StoreAt,
    place: Arc<Place>,
    registry: Registry,
    runtime: Handle,
    /// Who this server is among those that have the same store, and which store it is.
    member: Member,
    checked: Checked,
    /// The segments of a bucket that lie here too.
    cache: Cache,
    /// The paths of those that were found damaged or missing last.
    damaged: Mutex<Vec<String>>,
    /// Held by whoever changes which segments count; exclusively by whoever copies what says so.
    naming: RwLock<()>,
    /// How many want all files to stay.
    staying: AtomicUsize,
}

impl Segments {
    /// Opens the store at `at`, whose segments `registry` names. `scratch` is a folder of this server's own, for what
    /// is on its way into a bucket, and for at most `cache_bytes_max` of what came out of it.
    ///
    /// # Errors
    /// `Kind::Refused` where the store belongs to another registry. A store that does not answer now is asked again
    /// later.
    pub fn open(
        at: StoreAt,
        registry: &Registry,
        (scratch, cache_bytes_max): (PathBuf, u64),
    ) -> Result<Arc<Segments>> {
        let segments = Arc::new(Segments {
            place: Arc::new(Place::open(&at, &scratch)?),
            at,
            registry: registry.clone(),
            runtime: Handle::current(),
            member: Member::new(random::number()),
            checked: Checked::default(),
            cache: Cache::open(scratch.join("segments"), EXTENSION, cache_bytes_max)?,
            damaged: Mutex::default(),
            naming: RwLock::default(),
            staying: AtomicUsize::new(0),
        });
        // Shown from the start: an alert that has nothing to look at keeps silent for the wrong cause.
        metrics().segments_damaged.set(0);
        match segments.meet() {
            Err(error) if error.kind() == Kind::Unavailable => {
                tracing::warn!(store = %segments.at, error = error.logged(), "the store does not answer");
            }
            met => drop(met?),
        }
        Ok(segments)
    }

    /// Names it in the registry.
    ///
    /// # Errors
    /// Where it does not answer, and never has.
    pub fn id(&self) -> Result<String> {
        Ok(self.manifest()?.store)
    }

    /// Has the models of `registry` kept in the store, while all servers are known to have it.
    pub fn keep_models_of(&self, registry: &mut Registry) {
        if registry.is_shared() && self.at.is_said_shared() {
            registry.artifacts.keep_in(Arc::clone(&self.place), Arc::clone(&self.member.holds));
        }
    }

    /// Where the store is.
    pub fn at(&self) -> &StoreAt {
        &self.at
    }

    /// Writes rows into a new segment of `set`, which counts when this returns.
    ///
    /// # Errors
    /// As [`Segments::prepare`] and [`Segments::commit`].
    pub fn write(
        &self,
        set: &Set,
        range: Range,
        rows: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<Segment> {
        self.commit(&self.prepare(set, range, rows)?)
    }

    /// Writes rows into a file that nobody names yet; it is durable when this returns. `range` says which rows they
    /// are.
    ///
    /// # Errors
    /// Where no rows are written; where the store takes nothing, which is `Kind::Unavailable` where it may do so later.
    pub fn prepare(
        &self,
        set: &Set,
        range: Range,
        rows: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<Prepared> {
        let path = set.path(&range, random::number())?;
        // Removed by itself where something fails.
        let (unfinished, file) = self.place.begin(&path)?;
        let mut writer = Writer::new(file);
        rows(&mut writer)?;
        let written = writer.finish()?;
        if !set.family.may_be(&range, written.rows) {
            return Err(Error::broken(format!(
                "rows {} to {} of a segment are {} rows",
                range.first, range.end, written.rows
            )));
        }
        pass("segment: written, without its name");
        self.place.finish(&unfinished, written.file.bytes)?;
        pass("segment: durable, counted by nobody");
        let (rows, Digested { bytes, sha256 }) = (written.rows, written.file);
        Ok(Prepared { set: set.clone(), path, range, rows, bytes, sha256 })
    }

    /// Makes a file count. It may be called again where nobody knows whether it has worked.
    ///
    /// # Errors
    /// `Kind::Refused` where another segment has rows of its numbers; then its file is removed. `Kind::Unavailable`
    /// where the registry does not answer: whether it counts shows later.
    pub fn commit(&self, file: &Prepared) -> Result<Segment> {
        self.commit_of(file, None)
    }

    /// The same of rows out of a log that servers share: as long as that has the commit `of`, the last of theirs.
    ///
    /// # Errors
    /// As [`Segments::commit`]; `Kind::Refused` too where the log has that commit no more.
    pub fn commit_of(&self, file: &Prepared, of: Option<Position>) -> Result<Segment> {
        let manifest = self.manifest()?;
        let _naming = self.naming.read();
        self.named(file, self.wait(manifest.commit(file, of)))
    }

    /// Makes a file count in place of `old`, all at once. Their files stay for some time, for those who read them.
    ///
    /// # Errors
    /// `Kind::Refused` where one of them does not count any more; else as [`Segments::commit`].
    pub fn replace(&self, old: &[Segment], file: &Prepared) -> Result<Segment> {
        let manifest = self.manifest()?;
        let _naming = self.naming.read();
        self.named(file, self.wait(manifest.replace(old, file)))
    }

    fn named(&self, file: &Prepared, named: Result<Segment>) -> Result<Segment> {
        if named.as_ref().is_err_and(|error| error.kind() == Kind::Refused) {
            // The manifest has said that it does not name it; where it is not removed now, it is later.
            let _ = self.place.remove(&file.path);
        }
        named
    }

    /// Lets segments count no more. Their files stay for some time, for those who read them.
    pub fn remove(&self, old: &[Segment]) -> Result<()> {
        let manifest = self.manifest()?;
        let _naming = self.naming.read();
        self.wait(manifest.end(old))
    }

    /// The segments of `set`, in the order of their rows.
    pub fn list(&self, set: &Set) -> Result<Vec<Segment>> {
        let manifest = self.manifest()?;
        self.wait(manifest.list(set))
    }

    /// The segments that are wanted, of one set after the other, each in the order of its rows.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<Vec<Segment>> {
        let manifest = self.manifest()?;
        self.wait(manifest.find(wanted))
    }

    /// The sets of a family and a log that have segments, by name.
    pub fn sets(&self, family: Family, log: &str) -> Result<Vec<Set>> {
        let manifest = self.manifest()?;
        self.wait(manifest.sets(family, log))
    }

    /// Whether a job that servers take turns in is this server's, for so long from now on.
    pub fn lease(&self, job: &str, time: Duration) -> Result<bool> {
        let name = format!("{job} {}", self.manifest()?.store);
        self.wait(self.registry.lease(&name, &self.member.name, time))
    }

    /// What time it is by the registry's clock (µs).
    pub fn now_us(&self) -> Result<i64> {
        self.wait(self.registry.now_us())
    }

    fn manifest(&self) -> Result<Manifest> {
        let store = match self.member.store() {
            Some(store) => store,
            None => self.meet()?,
        };
        Ok(Manifest { registry: self.registry.clone(), store })
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        tokio::task::block_in_place(|| self.runtime.block_on(future))
    }
}

#[cfg(test)]
mod tests;
