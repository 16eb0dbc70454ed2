//! How does a test make a RocksDB one of an older build? It says another format.

use std::path::Path;

use rocksdb::{DB, Options};

/// Writes `format` into the RocksDB in `folder`, where it says which one it has: in the default family or in another
/// one.
pub fn set_format(folder: &Path, family: Option<&str>, format: &str) {
    let options = Options::default();
    let families = DB::list_cf(&options, folder).unwrap();
    let db = DB::open_cf(&options, folder, families).unwrap();
    db.put_cf(db.cf_handle(family.unwrap_or("default")).unwrap(), "format", format).unwrap();
}
