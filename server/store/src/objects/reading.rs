//! How are rows read out of files in a bucket, or of a server that gives them over HTTP?
//!
//! A file is asked for by ranges, those that lie close together at once, and only as long as it is the one that was
//! listed: each answer says which it is. What was fetched lies on this machine for a while, under the name of its
//! state, so that it is never taken for another one's. Whoever reads waits, and must be where blocking is allowed.

mod undivided;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::{AddAssign, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use feature_defs::StorageOptions;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use quern_base::{Failure, Kind};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::undivided::Undivided;
use super::client::RETRIES_OF_MANY;
use super::copies::Copies;
use super::{Cloud, Lent, Location, Unread, in_time};
use crate::error::Error;
use crate::metrics::metrics;

/// Ranges with fewer bytes between them are one request.
const GAP_BYTES: u64 = 256 << 10;
/// A request for several ranges is not for more than this.
const REQUEST_BYTES: u64 = 8 << 20;
/// Requests for parts of one file at the same time.
const REQUESTS_AT_ONCE: usize = 8;
/// What may be fetched and not read to its end yet, by all who read.
const HELD_KIB: u32 = 512 << 10;
/// When what failed for a cause that may pass may be asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// More clients than this are of keys that were lent before.
const CLIENTS_MAX: usize = 256;
/// How long a folder is no table that was none.
const PLAIN_FOR: Duration = Duration::from_secs(300);

/// Which bucket or server, and who asks it how.
type Asking = (String, Cloud, StorageOptions, Lent);

/// The files in buckets that are read, and what of them lies here.
#[derive(Debug)]
pub(crate) struct Objects {
    /// None outside of a runtime: there nobody waits for a bucket.
    runtime: Option<Handle>,
    copies: Copies,
    clients: Mutex<HashMap<Asking, Arc<dyn ObjectStore>>>,
    /// The folders that are of no table, and when they were looked at.
    plain: Mutex<HashMap<PathBuf, Instant>>,
    room: Arc<Semaphore>,
}

/// A file in a bucket or of a server, as it was when it was listed.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    at: Location,
    meta: ObjectMeta,
    /// What all of it is read from, where it cannot be had in parts.
    undivided: Option<Arc<Undivided>>,
}

/// What was read out of buckets, for somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Requests for parts of files, without those that were sent again.
    pub requests: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that were read of copies on this machine instead.
    pub copied_bytes: u64,
}

impl AddAssign for Reads {
    fn add_assign(&mut self, more: Reads) {
        self.requests += more.requests;
        self.bytes += more.bytes;
        self.copied_bytes += more.copied_bytes;
    }
}

/// Bytes of a file, as long as there is room for them.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Where each part begins, ascending, and what is there.
    pub(crate) parts: Vec<(u64, Bytes)>,
    _room: OwnedSemaphorePermit,
}

impl Default for Objects {
    /// Without copies on this machine.
    fn default() -> Objects {
        Objects::keeping(Copies::default())
    }
}

impl Objects {
    fn keeping(copies: Copies) -> Objects {
        Objects {
            runtime: Handle::try_current().ok(),
            copies,
            clients: Mutex::default(),
            plain: Mutex::default(),
            room: Arc::new(Semaphore::new(HELD_KIB as usize)),
        }
    }

    /// With copies in `folder`, which is this process's own.
    pub(crate) fn caching(folder: PathBuf, bytes_max: u64) -> Result<Objects, Error> {
        Ok(Objects::keeping(Copies::open(folder, bytes_max)?))
    }

    /// The file at `location`; none where there is none.
    pub(crate) fn file(&self, location: &Location) -> Result<Option<Object>, Unread> {
        let store = self.store(location)?;
        match self.wait(location, async { in_time(store.head(&location.path)).await })? {
            Ok(Ok(meta)) => Ok(Some(Object { at: location.clone(), meta, undivided: None })),
            Ok(Err(error)) => {
                Some(location.unread(&error)).filter(|it| !it.perhaps_a_folder).map_or(Ok(None), Err)
            }
            Err(late) => Err(location.failed(&late)),
        }
    }

    /// At most `count` files whose names begin as `folder` does, at whole parts, and which are `wanted`.
    pub(crate) fn below(
        &self,
        folder: &Location,
        count: usize,
        mut wanted: impl FnMut(&[String]) -> bool,
    ) -> Result<Vec<Object>, Unread> {
        let store = self.store(folder)?;
        let listing = async {
            let mut listed = store.list(Some(&folder.path).filter(|path| !path.as_ref().is_empty()));
            let mut found = Vec::new();
            while found.len() < count {
                let next = in_time(listed.try_next()).await.map_err(|late| folder.failed(&late))?;
                let unlistable = |error: object_store::Error| match &error {
                    object_store::Error::InvalidPath { source } => Unread::odd(folder, source),
                    error => folder.unread(error),
                };
                let Some(meta) = next.map_err(unlistable)? else { break };
                let parts: Vec<String> = meta.location.parts().map(|part| part.as_ref().to_owned()).collect();
                if wanted(&parts) {
                    found.push(Object { at: folder.of(&meta.location), meta, undivided: None });
                }
            }
            Ok(found)
        };
        self.wait(folder, listing)?
    }

    /// What `look` says of the folder, unless it has said nothing within the last minutes.
    pub(crate) fn told_of<T>(&self, folder: &Location, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let name = folder.name();
        if self.plain.lock().get(&name).is_some_and(|looked| looked.elapsed() < PLAIN_FOR) {
            return None;
        }
        let told = look();
        if told.is_none() {
            self.plain.lock().insert(name, Instant::now());
        }
        told
    }

    /// What lies in these ranges, in their order; they must not be empty. It is counted in `reads`.
    pub(crate) fn fetch(
        &self,
        object: &Object,
        ranges: &[Range<u64>],
        reads: &Mutex<Reads>,
    ) -> Result<Fetched, Unread> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let held = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, HELD_KIB);
        let room = self.wait(&object.at, Arc::clone(&self.room).acquire_many_owned(held))?;
        let room = room.map_err(|_| object.at.failed("this server stops"))?;
        if let Some(undivided) = &object.undivided {
            let parts = self.parts_of(object, undivided, ranges, reads)?;
            return Ok(Fetched { parts, _room: room });
        }
        let mut parts: Vec<Option<Bytes>> =
            ranges.iter().map(|range| self.copies.read(object, range)).collect();
        let missing: Vec<usize> = (0..ranges.len()).filter(|place| parts[*place].is_none()).collect();
        let copied_bytes = parts.iter().flatten().map(|part| part.len() as u64).sum();
        let mut read = Reads { copied_bytes, ..Reads::default() };
        if !missing.is_empty() {
            let store = self.store(&object.at)?;
            let requests = together(&missing.iter().map(|place| ranges[*place].clone()).collect::<Vec<_>>());
            let asking = stream::iter(requests).map(|request| object.ask(&store, request));
            let came: Vec<(u64, Bytes)> =
                self.wait(&object.at, asking.buffered(REQUESTS_AT_ONCE).try_collect())??;
            read.requests = came.len() as u64;
            read.bytes = came.iter().map(|(_, part)| part.len() as u64).sum();
            for place in missing {
                let range = &ranges[place];
                let request = came.partition_point(|(start, _)| *start <= range.start).saturating_sub(1);
                let (start, bytes) = &came[request];
                let part = bytes.slice((range.start - start) as usize..(range.end - start) as usize);
                self.copies.keep(object, range, &part);
                parts[place] = Some(part);
            }
        }
        *reads.lock() += read;
        let starts = ranges.iter().map(|range| range.start);
        Ok(Fetched { parts: starts.zip(parts.into_iter().flatten()).collect(), _room: room })
    }

    /// All of it, in a file that has no name on this machine.
    pub(crate) fn whole(&self, object: &Object, reads: &Mutex<Reads>) -> Result<File, Unread> {
        if let Some(undivided) = &object.undivided {
            return self.all_of(object, undivided, reads);
        }
        let failed = |error: io::Error| object.at.failed(&format!("no room for it here: {error}"));
        let mut file = self.copies.nameless().map_err(failed)?;
        let (mut start, end) = (0, object.bytes());
        while start < end {
            let ranges: Vec<Range<u64>> = (0..REQUESTS_AT_ONCE as u64)
                .map(|part| start + part * REQUEST_BYTES..end.min(start + (part + 1) * REQUEST_BYTES))
                .filter(|range| !range.is_empty())
                .collect();
            for (_, part) in self.fetch(object, &ranges, reads)?.parts {
                file.write_all(&part).map_err(failed)?;
                start += part.len() as u64;
            }
        }
        file.rewind().map_err(failed)?;
        Ok(file)
    }

    /// One client for all that is asked in the same way, with the secrets of now.
    fn store(&self, location: &Location) -> Result<Arc<dyn ObjectStore>, Unread> {
        let Location { cloud, storage, lent, .. } = location;
        let key = (location.bucket().to_owned(), cloud.clone(), StorageOptions::clone(storage), lent.clone());
        // Over HTTP each request is told them.
        if (storage.credentials.is_empty() || location.is_over_http())
            && let Some(store) = self.clients.lock().get(&key)
        {
            return Ok(Arc::clone(store));
        }
        let store = location.store_retrying(RETRIES_OF_MANY).map_err(|error| location.unread(&error))?;
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&store));
        Ok(store)
    }

    fn wait<F: Future>(&self, location: &Location, asked: F) -> Result<F::Output, Unread> {
        self.now(asked).ok_or_else(|| location.failed("buckets are read by a server alone"))
    }

    /// What is asked of the network; none outside of a server.
    pub(crate) fn now<F: Future>(&self, asked: F) -> Option<F::Output> {
        let runtime = self.runtime.as_ref()?;
        Some(tokio::task::block_in_place(|| runtime.block_on(asked)))
    }
}

impl From<Unread> for Error {
    fn from(Unread { cause, help, again, .. }: Unread) -> Error {
        let said = format!("{cause}; {help}");
        match again {
            true => Failure::new(Kind::Unavailable, said).again_after(RETRY_AFTER).into(),
            false => Error::invalid(said),
        }
    }
}

impl Object {
    /// As people write it, with the key as it is.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.at.bucket(), self.meta.location)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.meta.size
    }

    pub(crate) fn modified(&self) -> SystemTime {
        self.meta.last_modified.into()
    }

    /// What its store calls this state of it: another one where the bytes are others, if it gives any.
    pub(crate) fn e_tag(&self) -> Option<&str> {
        self.meta.e_tag.as_deref()
    }

    /// Where it is.
    pub(crate) fn location(&self) -> &Location {
        &self.at
    }

    /// The parts of its key.
    pub(crate) fn parts(&self) -> Vec<String> {
        self.meta.location.parts().map(|part| part.as_ref().to_owned()).collect()
    }

    /// What tells it from others, in whatever store.
    pub(crate) fn place(&self) -> PathBuf {
        self.at.name()
    }

    async fn ask(&self, store: &Arc<dyn ObjectStore>, range: Range<u64>) -> Result<(u64, Bytes), Unread> {
        let found = self.answer(store, Some(GetRange::Bounded(range.clone()))).await?;
        let count = range.end - range.start;
        let mut bytes = Vec::with_capacity(count.min(REQUEST_BYTES) as usize);
        let whole = self.at.body(found, count, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        });
        whole.await?;
        metrics().history_object_bytes.inc_by(count);
        Ok((range.start, bytes.into()))
    }

    /// What is answered to who asks for a range, or for all of it, as long as it is of the state that was listed.
    async fn answer(
        &self,
        store: &Arc<dyn ObjectStore>,
        range: Option<GetRange>,
    ) -> Result<GetResult, Unread> {
        let if_match = self.meta.e_tag.clone().filter(|tag| is_strong(tag));
        let options = GetOptions { range, if_match, ..GetOptions::default() };
        metrics().history_object_requests.inc();
        match in_time(store.get_opts(&self.at.path, options)).await {
            Ok(Ok(found)) if self.is(&found) => Ok(found),
            Ok(
                Ok(_) | Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }),
            ) => Err(Unread::changed(&self.name())),
            Ok(Err(error)) => Err(self.at.unread(&error)),
            Err(late) => Err(self.at.failed(&late)),
        }
    }

    /// Whether an answer is of the state that was listed.
    fn is(&self, found: &GetResult) -> bool {
        let (now, then) = (&found.meta, &self.meta);
        let same_tag = now.e_tag.is_none() || then.e_tag.is_none() || now.e_tag == then.e_tag;
        let tagged = now.e_tag.is_some() && then.e_tag.is_some();
        now.size == then.size && same_tag && (tagged || now.last_modified == then.last_modified)
    }
}

impl Location {
    /// What tells it from others: where it is asked for, and what it is called there.
    fn name(&self) -> PathBuf {
        Path::new(self.storage.endpoint.as_deref().unwrap_or_default()).join(self.to_string())
    }
}

/// Whether a server compares a tag: not one that need not be another where a single byte is.
fn is_strong(tag: &str) -> bool {
    !tag.starts_with("W/")
}

/// What is asked for at once, so that each of `ranges` lies in one request.
fn together(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut requests: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match requests.last_mut() {
            // What overlaps must be one, however large.
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(last) if range.start - last.end <= GAP_BYTES && range.end - last.start <= REQUEST_BYTES => {
                last.end = range.end;
            }
            _ => requests.push(range),
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_range_lies_in_one_request(
            ranges in proptest::collection::vec((0u64..40 << 20, 1u64..2 << 20), 1..40),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, bytes)| start..start + bytes).collect();
            let requests = together(&ranges);
            prop_assert!(requests.is_sorted_by(|a, b| a.end <= b.start));
            for range in &ranges {
                let holding = requests.iter().filter(|it| it.start <= range.start && range.end <= it.end);
                prop_assert_eq!(holding.count(), 1);
            }
            let wanted = |at: u64| ranges.iter().any(|range| range.start <= at && at < range.end);
            for request in &requests {
                prop_assert!(wanted(request.start) && wanted(request.end - 1));
            }
        }
    }
}
