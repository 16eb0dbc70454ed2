//! Which parts of files in buckets lie on this machine too?
//!
//! Each under a name that its file's state is part of, and behind a checksum: what is not what was fetched is none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quern_base::digest::sha256;
use xxhash_rust::xxh3::xxh3_64;

use super::Object;
use crate::cache::Cache;
use crate::error::Error;
use crate::metrics::metrics;

/// What a copy begins with: the checksum of the rest.
const CHECKSUM_BYTES: usize = 8;
const EXTENSION: &str = "range";
/// How much of a digest names a state.
const DIGEST_CHARS: usize = 32;

/// Copies, or none.
#[derive(Debug, Default)]
pub(super) struct Copies {
    cache: Option<Cache>,
}

/// How many files this process has begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

impl Copies {
    /// Those in `folder`, which is this process's own.
    pub(super) fn open(folder: PathBuf, bytes_max: u64) -> Result<Copies, Error> {
        Ok(Copies { cache: Some(Cache::open(folder, EXTENSION, bytes_max)?) })
    }

    /// The copy of a range, if there is one and it is whole.
    pub(super) fn read(&self, object: &Object, range: &Range<u64>) -> Option<Bytes> {
        let cache = self.cache.as_ref()?;
        let path = cache.path(&name(object, range)?);
        let bytes = Bytes::from(fs::read(&path).ok()?);
        let (checksum, content) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if checksum != xxh3_64(content).to_le_bytes() || content.len() as u64 != range.end - range.start {
            cache.remove(&path);
            return None;
        }
        cache.touch(&path);
        metrics().history_object_copies_read.inc();
        Some(bytes.slice(CHECKSUM_BYTES..))
    }

    /// Keeps a copy of a range. It is no matter if there is no room for it.
    pub(super) fn keep(&self, object: &Object, range: &Range<u64>, content: &[u8]) {
        let Some((cache, name)) = self.cache.as_ref().zip(name(object, range)) else { return };
        let path = cache.path(&name);
        let part = path.with_extension(format!("{}.part", next()));
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let mut file = File::create(&part)?;
            file.write_all(&xxh3_64(content).to_le_bytes())?;
            file.write_all(content)?;
            fs::rename(&part, &path)
        };
        match write() {
            Ok(()) => cache.add(path, (content.len() + CHECKSUM_BYTES) as u64),
            Err(error) => {
                let _ = fs::remove_file(&part);
                tracing::debug!(%error, "what was fetched of a bucket is not kept");
            }
        }
    }

    /// A new file that has no name any more, and goes with whoever holds it.
    pub(super) fn nameless(&self) -> io::Result<File> {
        let (path, file) = self.begin()?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// A new file, which whoever began it removes.
    pub(super) fn begin(&self) -> io::Result<(PathBuf, File)> {
        let folder = self.cache.as_ref().map_or_else(std::env::temp_dir, |cache| cache.path("whole"));
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("quern-{}-{}", std::process::id(), next()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((path, file))
    }
}

fn next() -> u64 {
    BEGUN.fetch_add(1, Ordering::Relaxed)
}

/// What a copy of a range is called; none where nothing tells its file's state from another.
fn name(object: &Object, range: &Range<u64>) -> Option<String> {
    let state = format!("{} {} {}", object.place().display(), object.e_tag()?, object.bytes());
    let mut digest = sha256(state.as_bytes());
    digest.truncate(DIGEST_CHARS);
    let (folder, rest) = digest.split_at(2);
    Some(format!("{folder}/{rest}-{}-{}.{EXTENSION}", range.start, range.end))
}
