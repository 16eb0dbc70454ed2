//! Where are the model files that went live? Copied, and named by what is in them.
//!
//! A repository's file may change or vanish after an apply; what is live must not. One flipped bit changes a model's
//! answers without an error, so a file is read back only if its digest still is its name.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The folder of model files.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    /// Opens the folder, or makes it.
    pub fn open(folder: &Path) -> Result<Artifacts> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        Ok(Artifacts { folder: folder.to_owned() })
    }

    /// Keeps `bytes` and returns their digest. What is there already stays as it is.
    pub fn store(&self, bytes: &[u8]) -> Result<String> {
        let digest = digest(bytes);
        let path = self.path(&digest);
        if self.load(&digest).is_ok() {
            return Ok(digest);
        }
        // Renamed only once it is whole and on disk: a crash leaves a temporary file, never half a model.
        let temporary = self.folder.join(format!("{digest}.{}.part", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.folder)?.sync_all()
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(&path, &error)
        })?;
        Ok(digest)
    }

    /// Reads the file with this digest.
    ///
    /// # Errors
    /// Where it is gone, or is not what it was.
    pub fn load(&self, wanted: &str) -> Result<Vec<u8>> {
        let path = self.path(wanted);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::Internal(format!(
                "the model file {} is gone; restore it from a backup, or from the repository that it was applied from",
                path.display()
            )),
            _ => failed(&path, &error),
        })?;
        let actual = digest(&bytes);
        if actual != wanted {
            return Err(Error::Internal(format!(
                "the model file {} is damaged: its SHA-256 is {actual}; restore it from a backup, or from the \
                 repository that it was applied from",
                path.display()
            )));
        }
        Ok(bytes)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.onnx"))
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::Internal(format!("{}: {error}", path.display()))
}
