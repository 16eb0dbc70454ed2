//! How does a store get into a backup, and out of one?

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLockWriteGuard;
use quern_base::digest::{Digested, Hashing};
use quern_base::random;

use super::checked::{Fault, check, damaged};
use super::manifest::Manifest;
use super::members::{MARK, id_in};
use super::{Segment, Segments, StoreAt};
use crate::error::{Error, Result};
use crate::place::Place;
use crate::registry::{Database, Registry, answer, on};

/// As long as this lives, no file of the store goes that a manifest has named.
#[derive(Debug)]
pub struct Staying<'s>(&'s AtomicUsize);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Segments {
    /// As long as the result lives, this process lets no segment count, and none count no more.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.naming.write()
    }

    /// As long as the result lives, this process removes no file of the store.
    pub fn stay(&self) -> Staying<'_> {
        self.staying.fetch_add(1, Ordering::Relaxed);
        Staying(&self.staying)
    }

    /// What says in a store which it is.
    pub fn mark(&self) -> Result<String> {
        self.manifest()?;
        self.place.read_small(MARK)?.ok_or_else(|| self.damaged_mark())
    }

    /// The segments of this store that `registry` names, which may be a copy of an earlier moment; those too that count
    /// no more where they `need_not_count`.
    pub fn named_in(&self, registry: &Registry, need_not_count: bool) -> Result<Vec<Segment>> {
        let manifest = Manifest { registry: registry.clone(), store: self.manifest()?.store };
        let (mut named, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.wait(manifest.page(&after, !need_not_count))?;
            let Some(last) = page.last() else { return Ok(named) };
            after = last.path.clone();
            named.extend(page);
        }
    }

    /// Whether a segment counts now.
    pub fn counts(&self, segment: &Segment) -> Result<bool> {
        let manifest = self.manifest()?;
        Ok(self.wait(manifest.segment(&segment.path))?.is_some())
    }

    /// How many segments count, and how large they are together.
    pub fn total(&self) -> Result<(u64, u64)> {
        let Manifest { registry, store } = self.manifest()?;
        let asked = "SELECT COUNT(*), CAST(COALESCE(SUM(byte_count), 0) AS BIGINT) FROM segments WHERE store = $1 \
                     AND replaced IS NULL";
        let total: Result<(i64, i64)> = self.wait(async {
            Ok(on!(registry.database, |pool| sqlx::query_as(asked).bind(&store).fetch_one(pool))?)
        });
        total.map(|(count, bytes)| (count.unsigned_abs(), bytes.unsigned_abs()))
    }

    /// Copies a segment into `to`, as it was written.
    ///
    /// # Errors
    /// Where its bytes are others, or there is no file: such an error names the segment and the way out.
    pub fn copy(&self, segment: &Segment, to: &mut dyn Write) -> Result<()> {
        let mut hashing = Hashing::into(to);
        let copied = match self.place.read(&segment.path, &mut hashing) {
            Ok(true) => check(&hashing.finish().1, segment),
            Ok(false) => Err(Fault::Damaged(super::Damage::Missing)),
            Err(error) => Err(error.into()),
        };
        copied.map_err(|fault| match fault {
            Fault::Damaged(damage) => {
                self.note_damage(segment, &damage);
                damaged(segment, &damage)
            }
            Fault::Unknown(error) => error,
        })
    }
}

/// A store that files of a backup are put into, and that nobody else uses.
#[derive(Debug)]
pub struct Refilled {
    place: Place,
    /// The files of a bucket, and how long they are. To read them all would take as long as to put them there.
    known: HashMap<String, u64>,
}

impl Refilled {
    /// Looks whether what is at `at` may be filled from a backup of the store with this `mark`: it is empty, or is the
    /// same store. Changes nothing.
    ///
    /// # Errors
    /// `Kind::Refused` where it is not.
    pub fn check(at: &StoreAt, scratch: &Path, mark: &str) -> Result<()> {
        let id = id_in(mark)
            .ok_or_else(|| Error::refused(format!("the `{MARK}` of the backup names no store")))?;
        if let StoreAt::Folder { path, .. } = at
            && !path.exists()
        {
            return Ok(());
        }
        let place = Place::open(at, scratch)?;
        let is_same = match place.read_small(MARK)? {
            Some(text) => id_in(&text) == Some(id),
            None => place.list()?.is_empty(),
        };
        match is_same {
            true => Ok(()),
            false => Err(Error::refused(format!(
                "the store {at} has files in it, and is not the store of the backup; name an empty folder or prefix in \
                 `store`, or remove what is there"
            ))),
        }
    }

    /// Opens the store to be filled. `scratch` is a folder of this machine.
    ///
    /// # Errors
    /// As [`Refilled::check`].
    pub fn open(at: &StoreAt, scratch: &Path, mark: &str) -> Result<Refilled> {
        Refilled::check(at, scratch, mark)?;
        let place = Place::open(at, scratch)?;
        // First: of what breaks off here it is known whose it is.
        if place.read_small(MARK)?.is_none() {
            place.create_small(MARK, mark, random::number())?;
        }
        let known = match &place {
            Place::Folder(_) => HashMap::new(),
            Place::Bucket(..) => place.list()?.into_iter().map(|file| (file.path, file.bytes)).collect(),
        };
        Ok(Refilled { place, known })
    }

    /// Puts a file at `path`, unless it is there; says whether it did. It is durable when this returns.
    pub fn put(&self, path: &str, file: &Digested, from: &mut File) -> Result<bool> {
        if self.has(path, file)? {
            return Ok(false);
        }
        let (unfinished, to) = match self.place.begin(path) {
            Err(error) if matches!(self.place, Place::Folder(_)) => {
                // What an earlier attempt has left.
                self.place.remove(&format!("{path}.part"))?;
                self.place.begin(path).map_err(|_| error)?
            }
            begun => begun?,
        };
        from.rewind()?;
        let mut hashing = Hashing::into(to);
        io::copy(from, &mut hashing)?;
        let (to, found) = hashing.finish();
        if found != *file {
            return Err(Error::refused(format!("`{path}` of the backup changed while it was read")));
        }
        to.sync_all()?;
        self.place.finish(&unfinished, file.bytes)?;
        Ok(true)
    }

    fn has(&self, path: &str, file: &Digested) -> Result<bool> {
        if let Place::Bucket(..) = self.place {
            return Ok(self.known.get(path) == Some(&file.bytes));
        }
        let mut hashing = Hashing::into(io::sink());
        Ok(self.place.read(path, &mut hashing)? && hashing.finish().1 == *file)
    }
}
