//! How is a file found that a server gives over HTTP, and how is one read that cannot be had in parts?
//!
//! Whoever looks for a file asks for its first byte: the answer says how large it is and which state, and is a part of
//! it, or all. Of what comes as a whole alone, all is fetched once, onto this machine, when somebody first reads it,
//! and stays for as long as the file that was found does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use parking_lot::Mutex;

use super::super::{Location, Unread, in_time};
use super::{Object, Objects, Reads};
use crate::metrics::metrics;

/// A file that cannot be had in parts, and where all of it lies once it was read.
#[derive(Debug, Default)]
pub(super) struct Undivided(Mutex<Option<Held>>);

/// A file of this machine that goes with whoever holds it.
#[derive(Debug)]
struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl Objects {
    /// The file that a server gives at `location`.
    pub(crate) fn served(&self, location: &Location) -> Result<Object, Unread> {
        let store = self.store(location)?;
        let (meta, comes_in_parts) = self.wait(location, found(&store, location))??;
        if meta.e_tag.is_none() && meta.last_modified.timestamp() == 0 {
            return Err(Unread {
                cause: format!(
                    "`{location}`: its server says neither `ETag` nor `Last-Modified`, so that nobody could tell when it \
                     changes"
                ),
                help: "let the server say one of them, or put the file into a bucket".to_owned(),
                perhaps_a_folder: false,
                again: false,
            });
        }
        let undivided = (!comes_in_parts).then(Arc::default);
        Ok(Object { at: location.clone(), meta, undivided })
    }

    /// What lies in these ranges of a file that cannot be had in parts.
    pub(super) fn parts_of(
        &self,
        object: &Object,
        undivided: &Undivided,
        ranges: &[Range<u64>],
        reads: &Mutex<Reads>,
    ) -> Result<Vec<(u64, Bytes)>, Unread> {
        let file = self.all_of(object, undivided, reads)?;
        let part = |range: &Range<u64>| -> io::Result<(u64, Bytes)> {
            let mut part = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut part, range.start)?;
            Ok((range.start, part.into()))
        };
        ranges.iter().map(part).collect::<io::Result<_>>().map_err(|error| object.not_here(&error))
    }

    /// All of a file that cannot be had in parts.
    pub(super) fn all_of(
        &self,
        object: &Object,
        undivided: &Undivided,
        reads: &Mutex<Reads>,
    ) -> Result<File, Unread> {
        let mut held = undivided.0.lock();
        let Held(path) = match &mut *held {
            Some(held) => held,
            none => none.insert(self.downloaded(object, reads)?),
        };
        File::open(path).map_err(|error| object.not_here(&error))
    }

    fn downloaded(&self, object: &Object, reads: &Mutex<Reads>) -> Result<Held, Unread> {
        let (path, mut file) = self.copies.begin().map_err(|error| object.not_here(&error))?;
        let held = Held(path);
        let store = self.store(&object.at)?;
        let bytes = object.bytes();
        let download = async {
            let answer = object.answer(&store, None).await?;
            let keep = |part: &[u8]| file.write_all(part).map_err(|error| object.not_here(&error));
            object.at.body(answer, bytes, keep).await
        };
        self.wait(&object.at, download)??;
        metrics().history_object_bytes.inc_by(bytes);
        *reads.lock() += Reads { requests: 1, bytes, copied_bytes: 0 };
        Ok(held)
    }
}

impl Object {
    fn not_here(&self, error: &io::Error) -> Unread {
        self.at.failed(&format!("all of it cannot be kept here: {error}"))
    }
}

/// What is known of a file without reading it, and whether it can be had in parts.
async fn found(store: &Arc<dyn ObjectStore>, at: &Location) -> Result<(ObjectMeta, bool), Unread> {
    let first = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
    let asked = |options| async move { in_time(store.get_opts(&at.path, options)).await };
    match asked(first).await.map_err(|late| at.failed(&late))? {
        Ok(part) => {
            let meta = part.meta.clone();
            // To its end, so that the next request need not connect anew.
            let _ = at.body(part, 1, |_| Ok(())).await;
            Ok((meta, true))
        }
        Err(object_store::Error::NotSupported { .. }) => {
            let whole = asked(GetOptions::default()).await.map_err(|late| at.failed(&late))?;
            whole.map(|whole| (whole.meta, false)).map_err(|error| at.unread(&error))
        }
        Err(error) => Err(at.unread(&error)),
    }
}
