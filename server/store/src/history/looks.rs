//! What do the files of a source say about their columns?
//!
//! Whoever checks definitions looks at every file, many at a time: what is wrong with one should not show when the
//! first training set is made. What a file said is remembered for as long as it stays as it was.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::datatypes::Schema;
use feature_defs::{BatchSource, Epoch, Format, Source};
use parking_lot::Mutex;

use super::csv;
use super::files::{FILES_MAX, HistoryFile, Version};
use super::json;
use super::look::Look;
use super::parquet::RowGroup;
use super::typed::TypedFile;
use crate::error::Result;

/// How many files are looked at, at the most: those whose rows arrived last, and the first one.
pub(super) const LOOKED_AT_MAX: usize = 10_000;
/// Reading a footer is mostly waiting.
const THREADS_MAX: usize = 16;
/// Fewer files than this are looked at before a thread has started.
const FILES_PER_THREAD: usize = 8;

/// What files said that were looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    files: HashMap<PathBuf, Said>,
    /// Most files of a source say the same; it is kept once.
    looks: HashSet<Arc<Look>>,
}

/// What a file said in one state.
#[derive(Debug, Clone)]
struct Said {
    version: Version,
    look: Arc<Look>,
    /// Its row groups, for whoever asks of the same times.
    groups: Option<Groups>,
}

#[derive(Debug, Clone)]
struct Groups {
    event_timestamp: String,
    format: Option<Epoch>,
    all: Arc<[RowGroup]>,
}

/// A file with what its footer says, which need not be read for that.
pub(super) struct Opened {
    pub(super) file: TypedFile,
    /// What it says of its own columns.
    pub(super) own: Arc<Look>,
    /// The same in the words of its table, where it is one of a table.
    pub(super) look: Arc<Look>,
    pub(super) row_groups: Arc<[RowGroup]>,
}

impl Looks {
    /// Looks at `files`, which are in order of arrival, with `schema` for what CSV files do not say.
    pub(super) fn at(
        &self,
        files: &[HistoryFile],
        batch: &BatchSource,
        schema: &Schema,
    ) -> Vec<(usize, Result<Arc<Look>>)> {
        let left_out = 1..files.len().saturating_sub(LOOKED_AT_MAX - 1).max(1);
        let places: Vec<usize> = (0..files.len()).filter(|place| !left_out.contains(place)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = Vec::new();
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.push((*place, self.at_one(&files[*place], batch, schema)));
            }
            found
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let is_far = files.first().is_some_and(HistoryFile::is_far);
        let threads = match is_far {
            true => places.len().clamp(1, THREADS_MAX),
            false => (places.len() / FILES_PER_THREAD).clamp(1, (cores * 2).min(THREADS_MAX)),
        };
        let mut found = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = work();
            // A thread that panicked has looked at nothing; decoders are guarded, so none does.
            found.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_default()));
            found
        });
        found.sort_unstable_by_key(|(place, _)| *place);
        found
    }

    /// Opens a file of `source`. One that has not changed since is not touched: a source may have very many, of which
    /// the next run reads none.
    pub(super) fn open(&self, file: TypedFile, source: &Source) -> Result<Opened> {
        let format = source.format(&source.event_timestamp);
        if let Some(said) = self.said_by(file.file())
            && let Some(groups) = said.groups
            && groups.format == format
            && groups.event_timestamp == source.event_timestamp
        {
            let look = told(file.file(), Arc::clone(&said.look))?;
            return Ok(Opened { file, own: said.look, look, row_groups: groups.all });
        }
        let all: Arc<[RowGroup]> = file.row_groups(&source.event_timestamp, format)?.into();
        let event_timestamp = source.event_timestamp.clone();
        let groups = Groups { event_timestamp, format, all: Arc::clone(&all) };
        let own = self.note(file.file(), file.look()?, Some(groups));
        let look = told(file.file(), Arc::clone(&own))?;
        Ok(Opened { file, own, look, row_groups: all })
    }

    /// How many files are remembered, and how many different things they say.
    #[cfg(test)]
    pub(super) fn said(&self) -> (usize, usize) {
        let seen = self.seen.lock();
        (seen.files.len(), seen.looks.len())
    }

    fn at_one(&self, file: &HistoryFile, batch: &BatchSource, schema: &Schema) -> Result<Arc<Look>> {
        // What a text says depends on what is declared, and its beginning is soon read.
        let fields = match batch.format {
            Format::Csv => Some(csv::header(file, &batch.dialect, schema)?),
            Format::Json => Some(json::keys(file, schema)?),
            Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg => None,
        };
        if let Some(fields) = fields {
            return Ok(Arc::new(Look::of(fields)));
        }
        if let Some(said) = self.said_by(file) {
            return told(file, said.look);
        }
        let look = TypedFile::unopened(file.clone(), batch.format).look()?;
        told(file, self.note(file, look, None))
    }

    /// What a file has said, if it is as it was then.
    fn said_by(&self, file: &HistoryFile) -> Option<Said> {
        let (path, version) = file.identity()?;
        self.seen.lock().files.get(path).filter(|said| said.version == *version).cloned()
    }

    fn note(&self, file: &HistoryFile, look: Look, groups: Option<Groups>) -> Arc<Look> {
        let Some((path, version)) = file.identity() else { return Arc::new(look) };
        let mut seen = self.seen.lock();
        if seen.files.len() >= FILES_MAX {
            *seen = Seen::default();
        }
        let look = seen.looks.get(&look).cloned().unwrap_or_else(|| Arc::new(look));
        seen.looks.insert(Arc::clone(&look));
        let said = Said { version: version.clone(), look: Arc::clone(&look), groups };
        seen.files.insert(path.to_owned(), said);
        look
    }
}

/// What a file says, in the words of its table, where it is one of a table.
fn told(file: &HistoryFile, look: Arc<Look>) -> Result<Arc<Look>> {
    let Some(member) = &file.member else { return Ok(look) };
    member.look(&look).map(Arc::new).map_err(|why| file.unreadable(&why))
}
