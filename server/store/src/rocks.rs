//! What is the latest row of this key? The head in RocksDB.
//!
//! One key space for all views: eight bytes of view id, then the encoded join keys. A changed view has another id, so
//! its old rows are never read again. Writes are monotonic: a row replaces one of the same or an earlier place in the
//! total order of time, never a later one. So any order and any repetition of writes ends in the same head.

mod commit;
mod known;
mod load;
mod packed;
mod sweep;
pub(crate) mod whole;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quern_engine::ViewId;
use quern_engine::row::{RowTimes, times};
use quern_engine::windows::Kept;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBPinnableSlice, DataBlockIndexType, ErrorKind, IngestExternalFileOptions, IteratorMode, Options,
    SstFileWriter, WriteBatch, WriteOptions,
};

use crate::error::{Error, Kind, Result};
use crate::position::Position;
pub use commit::{Applied, Commit};
pub use load::Load;
pub use packed::{Rows, Wanted};
use quern_base::metrics::Gauge;
pub(crate) use whole::check;

/// The version of the key space. A folder of another version is refused, not misread.
const FORMAT: &[u8] = b"4";
const META: &str = "meta";
const WATERMARK: &[u8] = b"watermark";
const KEPT: &[u8] = b"kept";
const FILES_UNTIL: &[u8] = b"files until";
const MADE_OF: &[u8] = b"made of";
const APPLIED: &[u8] = b"applied ";
const ID: &[u8] = b"id";
const LACKING: &[u8] = b"lacking";
/// What RocksDB says of the families that the format before this one had, pushed rows among them.
const OLD_FAMILIES: &str = "Column families not opened";
/// From this many rows on, building a table file and ingesting it beats the write path.
const INGEST_ROWS_MIN: usize = 8_192;
const BLOCK_CACHE_BYTES: usize = 512 << 20;

/// The head of one data folder. Only one process has it open.
pub struct Head {
    db: DB,
    options: Options,
    staging: PathBuf,
    next_file: AtomicU64,
    /// What is kept of the events of each view with windows; as it stands in the store.
    kept: parking_lot::RwLock<HashMap<ViewId, Arc<Kept>>>,
    /// Up to when each view is materialized; as it stands in the store.
    watermarks: parking_lot::RwLock<HashMap<ViewId, i64>>,
    /// How far the head follows the log of each source; as it stands in the store.
    applied: parking_lot::RwLock<BTreeMap<String, Position>>,
    /// Reading what is stored and replacing it is one step. Counts the writes of rows.
    writing: parking_lot::Mutex<u64>,
    /// Says whose the folder is; given back once the store is closed.
    _lock: Option<Arc<File>>,
}

/// What became of the rows of one [`Head::upsert`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows that are now the head.
    pub written: u64,
    /// Rows that were the head already.
    pub unchanged: u64,
    /// Rows that are older than the head.
    pub older: u64,
}

impl std::ops::AddAssign for Upserted {
    fn add_assign(&mut self, more: Upserted) {
        self.written += more.written;
        self.unchanged += more.unchanged;
        self.older += more.older;
    }
}

/// What became of the values of one [`Head::replace_if`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replaced {
    /// How many are now stored, or were already.
    pub done: u64,
    /// The places of the others: what they were made from is no longer what is stored.
    pub conflicts: Vec<usize>,
}

impl Replaced {
    /// Refuses where any is left.
    ///
    /// # Errors
    /// `Kind::Unavailable`.
    pub fn done(self) -> Result<()> {
        match self.conflicts.is_empty() {
            true => Ok(()),
            false => Err(Error::busy("another server changed the same tiles in between; try again")),
        }
    }
}

struct Fresh {
    rows: Vec<usize>,
    upserted: Upserted,
}

impl Head {
    /// The same, which keeps `lock`, whose the folder is, until it is closed: whoever finds the lock free may open it.
    #[must_use]
    pub fn locked_by(self, lock: Arc<File>) -> Head {
        Head { _lock: Some(lock), ..self }
    }

    /// Opens or creates the head in `folder`.
    pub fn open(folder: &Path) -> Result<Head> {
        let options = options();
        check(folder).map_err(|damage| unreadable(folder, damage))?;
        let families = [
            ColumnFamilyDescriptor::new("default", options.clone()),
            ColumnFamilyDescriptor::new(META, Options::default()),
        ];
        let db = DB::open_cf_descriptors(&options, folder, families)
            .map_err(|error| not_opened(folder, error, unreadable))?;
        let staging = folder.join("staging");
        // What an interrupted bulk load left behind was never part of the head.
        if staging.exists() {
            std::fs::remove_dir_all(&staging)?;
        }
        std::fs::create_dir_all(&staging)?;
        let head = Head {
            db,
            options,
            staging,
            next_file: AtomicU64::new(0),
            kept: parking_lot::RwLock::default(),
            watermarks: parking_lot::RwLock::default(),
            applied: parking_lot::RwLock::default(),
            writing: parking_lot::Mutex::default(),
            _lock: None,
        };
        match head.db.get_cf(head.meta(), "format").map_err(|error| unreadable(folder, error))? {
            None => head.db.put_cf(head.meta(), "format", FORMAT)?,
            Some(found) if found == FORMAT => {}
            Some(found) => {
                return Err(Error::refused(format!(
                    "the online store {} has format {}, and this build reads format {}; remove the folder and \
                     materialize again",
                    folder.display(),
                    String::from_utf8_lossy(&found),
                    String::from_utf8_lossy(FORMAT),
                )));
            }
        }
        for entry in head.db.iterator_cf(head.meta(), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| unreadable(folder, error))?;
            if let Some(view) = view_of(&key, KEPT) {
                head.kept.write().insert(view, Arc::new(Kept::read(&value)));
            }
            if let Some(source) = key.strip_prefix(APPLIED)
                && let (Ok(source), Some(position)) = (str::from_utf8(source), Position::read(&value))
            {
                head.applied.write().insert(source.to_owned(), position);
            }
            if let Some(view) = view_of(&key, WATERMARK) {
                head.watermarks.write().insert(view, known::instant(&value)?);
            }
        }
        Ok(head)
    }

    fn family(&self, name: &str) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(name).expect("every column family was opened with the store")
    }

    fn meta(&self) -> &rocksdb::ColumnFamily {
        self.family(META)
    }

    fn rows(&self) -> &rocksdb::ColumnFamily {
        self.family("default")
    }

    /// The stored rows of `wanted`, in its order, in one round.
    pub fn get_many(&self, wanted: &Wanted) -> Result<Vec<Option<DBPinnableSlice<'_>>>> {
        if let Some(key) = wanted.only() {
            return Ok(vec![if key.is_empty() { None } else { self.db.get_pinned_cf(self.rows(), key)? }]);
        }
        let found = self.db.batched_multi_get_cf(self.rows(), wanted.iter(), false);
        Ok(found.into_iter().collect::<std::result::Result<Vec<_>, _>>()?)
    }

    /// Brings rows of distinct keys in; each replaces what is stored unless that is later.
    pub fn upsert(&self, rows: &Rows) -> Result<Upserted> {
        let mut writes = self.writing.lock();
        let fresh = self.fresh(rows, &rows.in_key_order())?;
        self.write(rows, &fresh.rows, &mut writes)?;
        Ok(fresh.upserted)
    }

    /// Which of the rows are not stored yet, nor later ones.
    fn fresh(&self, rows: &Rows, sorted: &[usize]) -> Result<Fresh> {
        let mut upserted = Upserted::default();
        let mut fresh = Vec::with_capacity(sorted.len());
        for some in sorted.chunks(1_024) {
            let stored = self.db.batched_multi_get_cf(self.rows(), some.iter().map(|i| rows.get(*i).0), true);
            for (i, stored) in some.iter().zip(stored) {
                let row = rows.get(*i).1;
                match stored? {
                    Some(stored) if stored[..] == *row => upserted.unchanged += 1,
                    Some(stored) if later(&stored, row)? => upserted.older += 1,
                    _ => fresh.push(*i),
                }
            }
        }
        upserted.written = fresh.len() as u64;
        Ok(Fresh { rows: fresh, upserted })
    }

    /// Brings values of distinct keys in, each of which was made from what `expected` has at its place: where something
    /// else is stored by now, nothing happens to it, and its place is among the conflicts.
    pub fn replace_if(&self, rows: &Rows, expected: &[Option<&[u8]>]) -> Result<Replaced> {
        let sorted = rows.in_key_order();
        let mut writes = self.writing.lock();
        let (mut replaced, mut fresh) = (Replaced::default(), Vec::with_capacity(sorted.len()));
        for some in sorted.chunks(1_024) {
            let stored = self.db.batched_multi_get_cf(self.rows(), some.iter().map(|i| rows.get(*i).0), true);
            for (i, stored) in some.iter().zip(stored) {
                let stored = stored?;
                if stored.as_deref() == expected[*i] {
                    fresh.push(*i);
                } else if stored.as_deref() != Some(rows.get(*i).1) {
                    replaced.conflicts.push(*i);
                }
            }
        }
        self.write(rows, &fresh, &mut writes)?;
        replaced.done = (rows.len() - replaced.conflicts.len()) as u64;
        replaced.conflicts.sort_unstable();
        Ok(replaced)
    }

    fn write(&self, rows: &Rows, sorted: &[usize], writes: &mut u64) -> Result<()> {
        *writes += 1;
        if sorted.len() >= INGEST_ROWS_MIN {
            return self.ingest(&self.table_file(rows, sorted)?);
        }
        let mut batch = WriteBatch::default();
        for i in sorted {
            let (key, row) = rows.get(*i);
            batch.put_cf(self.rows(), key, row);
        }
        Ok(self.db.write_opt(batch, &in_order())?)
    }

    /// A file of rows that [`Head::ingest`] takes.
    fn table_file(&self, rows: &Rows, sorted: &[usize]) -> Result<PathBuf> {
        let file = self.staging.join(format!("{}.sst", self.next_file.fetch_add(1, Ordering::Relaxed)));
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(&file)?;
        for i in sorted {
            let (key, row) = rows.get(*i);
            writer.put(key, row)?;
        }
        writer.finish()?;
        Ok(file)
    }

    fn ingest(&self, file: &Path) -> Result<()> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        Ok(self.db.ingest_external_file_cf_opts(self.rows(), &options, vec![file])?)
    }

    /// Drops the rows of every view but `live`: those of definitions that have changed or gone.
    pub fn retain(&self, live: &[ViewId]) -> Result<()> {
        let known: Vec<ViewId> = self.watermarks.read().keys().copied().collect();
        let gone: Vec<ViewId> = known.into_iter().filter(|view| !live.contains(view)).collect();
        self.drop_views(&gone)
    }

    /// Drops the rows of these views, and what is known of them.
    pub fn drop_views(&self, gone: &[ViewId]) -> Result<()> {
        let mut writes = self.writing.lock();
        *writes += 1;
        for view in gone {
            let id = view.0;
            self.kept.write().remove(view);
            self.db.delete_cf(self.meta(), about(KEPT, *view))?;
            self.db.delete_cf(self.meta(), about(FILES_UNTIL, *view))?;
            self.db.delete_cf(self.meta(), about(MADE_OF, *view))?;
            self.db.delete_range_cf(self.rows(), id.to_be_bytes(), id.saturating_add(1).to_be_bytes())?;
            self.db.delete_cf(self.meta(), about(WATERMARK, *view))?;
            self.watermarks.write().remove(view);
        }
        Ok(())
    }

    /// Bytes on disk, as RocksDB estimates them.
    pub fn bytes(&self) -> u64 {
        self.property("rocksdb.total-sst-files-size")
    }

    /// How its cache, its memory and its files are doing.
    pub fn gauges(&self) -> [Gauge; 6] {
        let of = |name, help, property| Gauge::new(name, help, self.property(property));
        [
            of(
                "quern_rocksdb_block_cache_bytes",
                "Bytes of RocksDB's blocks in memory",
                "rocksdb.block-cache-usage",
            ),
            of(
                "quern_rocksdb_block_cache_capacity_bytes",
                "As many as there may be",
                "rocksdb.block-cache-capacity",
            ),
            of(
                "quern_rocksdb_memtable_bytes",
                "Bytes that RocksDB holds until it writes a file",
                "rocksdb.cur-size-all-mem-tables",
            ),
            of("quern_rocksdb_table_bytes", "Bytes of RocksDB's files", "rocksdb.total-sst-files-size"),
            of(
                "quern_rocksdb_pending_compaction_bytes",
                "Bytes that RocksDB has yet to compact",
                "rocksdb.estimate-pending-compaction-bytes",
            ),
            of(
                "quern_rocksdb_write_stopped",
                "Whether RocksDB takes no writes until it has compacted",
                "rocksdb.is-write-stopped",
            ),
        ]
    }

    /// Of the column family that has the rows.
    fn property(&self, name: &str) -> u64 {
        self.db.property_int_value_cf(self.rows(), name).ok().flatten().unwrap_or(0)
    }
}

/// Why a RocksDB does not open: what is there may be `damaged`, or this process lacks something.
pub(crate) fn not_opened(folder: &Path, error: rocksdb::Error, damaged: fn(&Path, String) -> Error) -> Error {
    let text = error.to_string();
    if error.kind() != ErrorKind::IOError || text.contains("No such file") {
        return damaged(folder, text);
    }
    let known = Error::from(error);
    match known.kind() {
        // A disk that is full, or fails.
        Kind::Unavailable => known,
        _ => Error::unavailable(format!("{} does not open for now", folder.display())).because(text),
    }
}

fn unreadable(folder: &Path, error: impl Display) -> Error {
    let error = error.to_string();
    if error.contains(OLD_FAMILIES) {
        return Error::refused(format!(
            "the online store {} is of an older format, and may hold pushed rows that are in no file: with the build that \
             wrote it, save them by `quern train` or push them again; then remove the folder and materialize",
            folder.display()
        ));
    }
    Error::refused(format!(
        "the online store {} does not open; where it is damaged, remove the folder and materialize: it is made from \
         history",
        folder.display()
    ))
    .because(error)
}

/// The view that a key of the column family `meta` is about.
fn view_of(key: &[u8], what: &[u8]) -> Option<ViewId> {
    key.strip_prefix(what).and_then(|id| id.try_into().ok()).map(|id| ViewId(u64::from_be_bytes(id)))
}

fn about(what: &[u8], view: ViewId) -> Vec<u8> {
    [what, &view.0.to_be_bytes()].concat()
}

/// Whether `stored` has a later place in the total order than `row`. Equal times: the last to arrive wins.
fn later(stored: &[u8], row: &[u8]) -> Result<bool> {
    let (stored, row): (RowTimes, RowTimes) = (times(stored)?, times(row)?);
    Ok(stored > row)
}

/// For a batch whose keys ascend: each is looked for from where the one before was put.
fn in_order() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_memtable_insert_hint_per_batch(true);
    options
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    // Without a lock that every read takes; entries of any size.
    table.set_block_cache(&Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, 0));
    table.set_bloom_filter(10.0, false);
    table.set_index_type(BlockBasedIndexType::BinarySearch);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_block_size(8 << 10);
    table.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_write_buffer_size(64 << 20);
    options.set_keep_log_file_num(4);
    options
}
