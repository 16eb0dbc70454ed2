//! Where does a pass keep what memory does not hold?
//!
//! In files of the data folder that have no name: whatever ends the process, nothing of them stays. Entries go into
//! parts by the hash of their key, so that all entries of a key are read together.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use quern_engine::asof::{Address, Stamp, hash_of};

use crate::error::Result;

/// One part is held in memory at a time, and each has a descriptor.
const PARTS: usize = 64;

/// A folder that is this process's own.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: PathBuf,
    /// How many bytes are held in memory before something goes there.
    pub held_bytes: usize,
}

/// Keys and where a row of each lies, on disk.
pub struct Spill {
    parts: Vec<BufWriter<File>>,
}

impl Scratch {
    /// Files go into `folder`, which is there, where more than `held_bytes` would be held.
    pub fn new(folder: PathBuf, held_bytes: usize) -> Scratch {
        Scratch { folder, held_bytes }
    }

    /// A file without a name.
    fn file(&self) -> Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.folder.join(format!(".spill-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        // A process that ended in between has left its name here.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Spill {
    /// Nothing yet.
    ///
    /// # Errors
    /// Those of the disk; so with all others.
    pub fn new(scratch: &Scratch) -> Result<Spill> {
        let parts = (0..PARTS).map(|_| scratch.file().map(BufWriter::new));
        Ok(Spill { parts: parts.collect::<Result<_>>()? })
    }

    /// Adds a key and one of its rows.
    pub fn add(&mut self, key: &[u8], stamp: Stamp) -> Result<()> {
        let Some(address) = stamp.address() else { return Ok(()) };
        let part = &mut self.parts[hash_of(key) as usize % PARTS];
        part.write_all(&(key.len() as u32).to_le_bytes())?;
        part.write_all(key)?;
        part.write_all(&stamp.ts_us.to_le_bytes())?;
        part.write_all(&stamp.created_us.to_le_bytes())?;
        Ok(part.write_all(&address.order().to_le_bytes())?)
    }

    /// Shows all of it, part by part: `entry` hears of each row, `end` of the end of each part.
    pub fn read(self, mut entry: impl FnMut(&[u8], Stamp), mut end: impl FnMut()) -> Result<()> {
        let mut key = Vec::new();
        for part in self.parts {
            let mut file = part.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            let mut file = BufReader::new(file);
            while let Some(length) = number::<4>(&mut file)? {
                key.resize(u32::from_le_bytes(length) as usize, 0);
                file.read_exact(&mut key)?;
                let mut next = || number::<8>(&mut file).map(Option::unwrap_or_default);
                let (ts_us, created_us) = (i64::from_le_bytes(next()?), i64::from_le_bytes(next()?));
                let address = Address::of_order(u64::from_le_bytes(next()?));
                entry(&key, Stamp::new(ts_us, created_us, address));
            }
            end();
        }
        Ok(())
    }
}

/// The next bytes; none at the end.
fn number<const N: usize>(file: &mut impl Read) -> Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_rows_of_a_key_come_together_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        // Of a process that was killed just then.
        fs::write(folder.path().join(".spill-0"), "half").unwrap();
        let mut spill = Spill::new(&Scratch::new(folder.path().to_owned(), 0)).unwrap();
        let stamp = |i: i64| Stamp::new(i - 500, -i, Address::new(i as u32 % 3, i.unsigned_abs()));
        for i in 0..2_000i64 {
            spill.add(format!("key {}", i % 700).as_bytes(), stamp(i)).unwrap();
        }
        spill.add(b"", stamp(7)).unwrap();
        spill.add(b"no row", Stamp::NONE).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (mut rows, mut done, mut part) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let parts = RefCell::new(Vec::new());
        let mut entry = |key: &[u8], stamp: Stamp| {
            rows.insert((key.to_owned(), stamp));
            parts.borrow_mut().push(key.to_owned());
        };
        let mut end = || {
            part = parts.take().into_iter().collect();
            assert!(part.is_disjoint(&done), "a key came in two parts");
            done.append(&mut part);
        };
        spill.read(&mut entry, &mut end).unwrap();
        let mut wanted: BTreeSet<_> =
            (0..2_000i64).map(|i| (format!("key {}", i % 700).into_bytes(), stamp(i))).collect();
        wanted.insert((Vec::new(), stamp(7)));
        assert_eq!(rows, wanted);
    }
}
