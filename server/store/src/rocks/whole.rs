//! Are the journals of a RocksDB whole, before it reads them?
//!
//! A bit that flips in a manifest may leave RocksDB (11.8) reading it for ever, and then no server starts. So the
//! records of its manifest and of its log are looked at first: `checksum (4 bytes) ‖ length (2) ‖ kind (1) ‖ content`,
//! little-endian, in blocks of 32 KiB. What a crash left unfinished at the very end is RocksDB's to judge.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crc::{CRC_32_ISCSI, Crc, Table};

const BLOCK: usize = 32 << 10;
const HEAD: usize = 7;
/// Of a record: whole, or the first, a middle or the last part of one; and what a log says of itself.
const KINDS: [u8; 6] = [1, 2, 3, 4, 9, 10];
static CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Looks at the journals in `folder`, of which there may be none.
///
/// # Errors
/// Which of them is damaged, and where.
pub(crate) fn check(folder: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let current = fs::read_to_string(folder.join("CURRENT")).unwrap_or_default();
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name == current.trim_end() || name.ends_with(".log") {
            let bytes = fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            if let Some(place) = damage(&bytes, false) {
                return Err(format!("{name} is damaged at byte {place} of {}", bytes.len()));
            }
        }
    }
    Ok(())
}

/// The journals in `folder` and how long each is now: of the log, whose records are all whole where nobody writes.
pub(crate) fn logs(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            match fs::metadata(&path) {
                Ok(metadata) => logs.push((path, metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(logs)
}

/// Looks at the first `length` bytes of a journal, of which nothing is unfinished. One that has gone since is whole.
///
/// # Errors
/// Which it is, and where it is damaged.
pub(crate) fn check_whole(path: &Path, length: u64) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().display();
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{name} cannot be read: {error}")),
    };
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    if (bytes.len() as u64) < length {
        return Err(format!("{name} has {} bytes, and {length} were written", bytes.len()));
    }
    match damage(&bytes, true) {
        Some(place) => Err(format!("{name} is damaged at byte {place} of {length}")),
        None => Ok(()),
    }
}

/// Where the first record begins that is none; the last may be unfinished unless all `is_whole`.
fn damage(bytes: &[u8], is_whole: bool) -> Option<usize> {
    let mut place = 0;
    while place < bytes.len() {
        let left = BLOCK - place % BLOCK;
        if left < HEAD {
            place += left;
            continue;
        }
        let unfinished = is_whole.then_some(place);
        let [a, b, c, d, low, high, kind, rest @ ..] = &bytes[place..] else { return unfinished };
        let (checksum, length) =
            (u32::from_le_bytes([*a, *b, *c, *d]), u16::from_le_bytes([*low, *high]) as usize);
        if (checksum, length, *kind) == (0, 0, 0) {
            // Room that was made for more.
            return rest.iter().position(|byte| *byte != 0).map(|_| place);
        }
        if !KINDS.contains(kind) || HEAD + length > left {
            return Some(place);
        }
        let Some(content) = rest.get(..length) else { return unfinished };
        let end = place + HEAD + length;
        if unmasked(checksum) != checksum_of(*kind, content) && (is_whole || end < bytes.len()) {
            return Some(place);
        }
        place = end;
    }
    None
}

fn checksum_of(kind: u8, content: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(&[kind]);
    digest.update(content);
    digest.finalize()
}

/// As RocksDB stores them: a checksum of what holds checksums would be a poor one.
fn unmasked(checksum: u32) -> u32 {
    checksum.wrapping_sub(0xa282_ead8).rotate_left(15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocksdb::DB;

    #[test]
    fn a_bit_that_flips_in_a_journal_is_seen_or_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for round in 0..3 {
            let db = DB::open_default(at("sound")).unwrap();
            (0..20).for_each(|key: u32| db.put(key.to_be_bytes(), [round; 100]).unwrap());
        }
        assert_eq!(check(&at("sound")), Ok(()));
        let names =
            fs::read_dir(at("sound")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names.collect();
        for (log, length) in logs(&at("sound")).unwrap() {
            assert_eq!(check_whole(&log, length), Ok(()));
            assert_eq!(check_whole(&log, length - 1).is_err(), length > 0);
        }
        let journals = names.iter().filter(|name| name.starts_with("MANIFEST") || name.ends_with(".log"));
        let (mut seen, mut opened) = (0, 0);
        for name in journals {
            let sound = fs::read(at("sound").join(name)).unwrap();
            for bit in (0..sound.len() * 8).step_by(17) {
                let mut bytes = sound.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(damage(&bytes, true).is_some(), "{name}: bit {bit}");
                if damage(&bytes, false).is_some() {
                    seen += 1;
                    continue;
                }
                fs::create_dir(at("damaged")).unwrap();
                for name in &names {
                    fs::copy(at("sound").join(name), at("damaged").join(name)).unwrap();
                }
                fs::write(at("damaged").join(name), bytes).unwrap();
                // Whatever it says, it comes to an end.
                let _ = DB::open_default(at("damaged"));
                fs::remove_dir_all(at("damaged")).unwrap();
                opened += 1;
            }
        }
        println!("{seen} seen, {opened} opened");
        assert!(seen > 3 * opened, "{seen} seen, {opened} opened");
    }
}
