//! What is a backup? A folder with the files of a data folder and of its store, and a list of them.
//!
//! ```text
//! backup.json   what is in the backup: every file with its length and its SHA-256
//! data/…        what lies in the data folder
//! store/…       what lies in the store
//! ```
//!
//! The list comes last, and under another name until it is whole: a folder without it is no backup. It has a sum of its
//! own, so that no damage to any byte of a backup is taken for what was to be kept.

mod copying;
mod data_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quern_base::digest::sha256;
use serde::{Deserialize, Serialize};

pub(crate) use self::copying::{Copying, See, digest, sync_folders, unreadable, unwritten};
pub(crate) use self::data_files::copy_partitions;
use crate::error::{Error, Result};

/// The version of all this.
const FORMAT: u32 = 1;
/// Says what is in a backup.
pub(crate) const LIST: &str = "backup.json";
/// What of a backup lies in the data folder, and what in the store.
pub(crate) const DATA: &str = "data";
pub(crate) const STORE: &str = "store";
/// Which store it is: in the store, and in the backup.
pub(crate) const MARK: &str = "store/store.json";
/// The registry, in the backup and in the data folder.
pub(crate) const REGISTRY: &str = "data/registry.sqlite";
/// More than the list of any backup.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    pub(crate) format: u32,
    /// When it was begun, RFC 3339.
    pub(crate) time: String,
    /// The process that wrote it.
    pub(crate) instance: String,
    /// The version of Quern that wrote it.
    pub(crate) quern: String,
    /// The log that is in it, and the last commit of each source; none where it is not in the data folder.
    pub(crate) log: Option<LogNoted>,
    /// Whether the registry is in it.
    pub(crate) registry: bool,
    /// By path.
    pub(crate) files: Vec<BackupFile>,
    /// Of this text, with nothing here.
    sha256: String,
}

/// A log of pushed rows that is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogNoted {
    pub(crate) id: String,
    pub(crate) positions: BTreeMap<String, i64>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupFile {
    /// Where it lies in the backup.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Backup {
    /// What was begun at this time.
    pub(crate) fn begun(time: String, instance: &str) -> Backup {
        Backup {
            format: FORMAT,
            time,
            instance: instance.to_owned(),
            quern: env!("CARGO_PKG_VERSION").to_owned(),
            log: None,
            registry: false,
            files: Vec::new(),
            sha256: String::new(),
        }
    }

    /// The text of the list.
    pub(crate) fn text(&self) -> Result<String> {
        let mut list = Backup { sha256: String::new(), ..self.clone() };
        list.sha256 = sha256(list.json()?.as_bytes());
        Ok(list.json()? + "\n")
    }

    fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Error::internal("writing the list of a backup", error))
    }

    /// Reads the list of the backup in `folder`.
    ///
    /// # Errors
    /// `Kind::Refused` where there is none, or where it is damaged.
    pub(crate) fn read(folder: &Path) -> Result<Backup> {
        let path = folder.join(LIST);
        let length = fs::metadata(&path).map(|metadata| metadata.len());
        let bytes = match length {
            Ok(length) if length > LIST_BYTES_MAX => return Err(damaged(&path, "it is too long")),
            Ok(_) => fs::read(&path).map_err(|error| unreadable(&path, &error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::refused(format!(
                    "{} is no backup: it has no `{LIST}`, which is written last; a backup that broke off is none, so take \
                     an earlier one",
                    folder.display()
                )));
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let format = serde_json::from_slice::<Versioned>(&bytes).map(|list| list.format).unwrap_or(FORMAT);
        if format != FORMAT {
            return Err(Error::refused(format!(
                "the backup {} has format {format}, which this build does not read; use the build that wrote it, or mend \
                 the list where it is damaged",
                folder.display()
            )));
        }
        let list: Backup = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
        if list.text()?.as_bytes() != bytes {
            return Err(damaged(&path, "its SHA-256 is another one"));
        }
        match list.files.iter().find(|file| !file.is_plain()) {
            Some(file) => Err(damaged(&path, format_args!("`{}` is no path in a backup", file.path))),
            None => Ok(list),
        }
    }

    /// How many bytes its files have.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What every format of the list has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl BackupFile {
    /// Whether its path leads below one of the two folders and nowhere else.
    fn is_plain(&self) -> bool {
        let mut parts = self.path.split('/');
        let below = parts.next().is_some_and(|first| [DATA, STORE].contains(&first));
        let plain =
            |part: &str| !part.is_empty() && ![".", ".."].contains(&part) && !part.contains(['\\', '\0']);
        below && self.path.contains('/') && parts.all(plain)
    }

    /// Where it lies in the backup that is in `folder`.
    pub(crate) fn at(&self, folder: &Path) -> PathBuf {
        folder.join(&self.path)
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::refused(format!("{} is damaged: {why}; take another backup", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_list_changes_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = Backup::begun("2026-01-01T00:00:00Z".to_owned(), "0123456789abcdef");
        list.log = Some(LogNoted { id: "ab".to_owned(), positions: [("payments".to_owned(), 7)].into() });
        list.files.push(BackupFile { path: "data/log/CURRENT".to_owned(), bytes: 3, sha256: sha256(b"abc") });
        let sound = list.text().unwrap().into_bytes();
        let read = |bytes: &[u8]| {
            fs::write(folder.path().join(LIST), bytes).unwrap();
            Backup::read(folder.path())
        };
        assert_eq!(read(&sound).unwrap().files, list.files);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = read(&bytes).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), crate::error::Kind::Refused, "bit {bit}: {refused}");
        }
        for length in 0..sound.len() {
            assert!(read(&sound[..length]).is_err(), "cut at {length}");
        }
        for path in ["data", "../data/x", "data/../x", "data//x", "/data/x", "other/x", "store/", "data/./x"]
        {
            let mut list = list.clone();
            list.files[0].path = path.to_owned();
            let refused = read(list.text().unwrap().as_bytes()).unwrap_err();
            assert!(refused.to_string().contains("is no path in a backup"), "{path}: {refused}");
        }
    }
}
