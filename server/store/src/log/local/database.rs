//! Is the log's RocksDB open, and what becomes of it once its disk has failed?
//!
//! A write that failed may be in its journal, or not, and it takes no more from then on. So it is closed and opened
//! again: what its journal holds is then brought into tables, and synced. As long as that cannot be done it stays
//! closed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options, WriteBatch, WriteOptions};

use super::{GROUPS, SEEN, SOURCES, seen_options, unreadable};
use crate::error::{Error, Result};
use crate::rocks::{check, not_opened};

/// What an error of the system's says of a disk that fails.
const FAILS: &str = "os error 5";

/// How long after a try to open it the next one comes.
const PAUSE: Duration = Duration::from_secs(1);

/// The RocksDB of a log.
pub(super) struct Database {
    folder: PathBuf,
    /// None where it could not be opened again.
    db: RwLock<Option<DB>>,
    /// Whether a write has failed since it was opened.
    failed: AtomicBool,
    /// When it could not be opened again, and why.
    tried: Mutex<Option<(Instant, Error)>>,
}

/// The same while it stays open.
pub(super) type Opened<'d> = MappedRwLockReadGuard<'d, DB>;

impl Database {
    pub(super) fn open(folder: &Path) -> Result<Database> {
        let db = RwLock::new(Some(open(folder)?));
        Ok(Database {
            folder: folder.to_owned(),
            db,
            failed: AtomicBool::new(false),
            tried: Mutex::default(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps it open for as long as the result lives. Who has it open already may ask once more.
    pub(super) fn get(&self) -> Result<Opened<'_>> {
        RwLockReadGuard::try_map(self.db.read_recursive(), Option::as_ref).map_err(|_| {
            Error::busy(
                "the log of pushed rows is closed, since its disk failed; it is opened again once that works",
            )
        })
    }

    /// Writes all of it or nothing; but where that fails, all of it may be there when it is opened again.
    pub(super) fn write(&self, batch: WriteBatch, is_synced: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(is_synced);
        Ok(self
            .get()?
            .write_opt(batch, &options)
            .inspect_err(|_| self.failed.store(true, Ordering::Release))?)
    }

    /// Whether a write has failed since it was opened, after which it takes no more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Closes it, once nobody reads, and opens it again; not at once where that has just failed, since each try leaves
    /// files behind until one works.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut tried = self.tried.lock();
        if let Some((at, error)) = &*tried
            && at.elapsed() < PAUSE
        {
            return Err(error.again().into());
        }
        let mut db = self.db.write();
        // Its lock is given back only then.
        *db = None;
        match open(&self.folder) {
            Ok(opened) => {
                (*db, *tried) = (Some(opened), None);
                Ok(())
            }
            Err(error) => {
                let again = error.again().into();
                *tried = Some((Instant::now(), error));
                Err(again)
            }
        }
    }

    /// Notes that all of what it holds is known again.
    pub(super) fn mended(&self) {
        self.failed.store(false, Ordering::Release);
    }
}

pub(super) fn family<'d>(db: &'d DB, name: &str) -> &'d ColumnFamily {
    db.cf_handle(name).expect("every column family was opened with the store")
}

fn open(folder: &Path) -> Result<DB> {
    check(folder).map_err(|damage| match damage.contains(FAILS) {
        true => Error::unavailable(format!("{} cannot be read for now", folder.display())).because(damage),
        false => unreadable(folder, damage),
    })?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_keep_log_file_num(4);
    // A write that a crash cut short was never acknowledged; whatever else is missing was.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    let families = [
        ColumnFamilyDescriptor::new("default", Options::default()),
        ColumnFamilyDescriptor::new(SOURCES, Options::default()),
        ColumnFamilyDescriptor::new(GROUPS, Options::default()),
        ColumnFamilyDescriptor::new(SEEN, seen_options()),
    ];
    DB::open_cf_descriptors(&options, folder, families).map_err(|error| not_opened(folder, error, unreadable))
}
