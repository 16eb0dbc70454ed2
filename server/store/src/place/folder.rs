//! How do files lie in a store that is a folder?
//!
//! A file has its name only when it is whole and on disk. What an interrupted write leaves behind has another ending.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::roots::open_regular;
use crate::walk::below;

/// What a file ends with as long as it is being written.
const UNFINISHED: &str = "part";

/// A file in the store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// By the store's own clock.
    pub(crate) modified: SystemTime,
}

/// A folder that is a store.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
}

impl Folder {
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A new file, to be written and then put at `path`.
    pub(crate) fn begin(&self, path: &str) -> io::Result<(PathBuf, File)> {
        let target = self.at(path);
        fs::create_dir_all(target.parent().unwrap_or(&self.root))?;
        let unfinished = unfinished(&target);
        let file = File::create_new(&unfinished)?;
        Ok((unfinished, file))
    }

    /// Puts a file that is on disk at `path`.
    pub(crate) fn finish(&self, unfinished: &Path, path: &str) -> io::Result<()> {
        let target = self.at(path);
        fs::rename(unfinished, &target)?;
        self.sync_names(&target)
    }

    /// The names, too, must survive a loss of power: of the file, and of folders that are new.
    fn sync_names(&self, target: &Path) -> io::Result<()> {
        let folders = target.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root));
        folders.into_iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// Writes a small file, over what is there.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let target = self.at(path);
        fs::create_dir_all(target.parent().unwrap_or(&self.root))?;
        let unfinished = unfinished(&target);
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            self.finish(&unfinished, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Writes a small file, unless there is one; says whether it did.
    pub(crate) fn create(&self, path: &str, bytes: &[u8], unique: u64) -> io::Result<bool> {
        let own = format!("{path}.{unique:016x}");
        self.write(&own, bytes)?;
        // A second name, which unlike another name for the first never replaces anything.
        let named = fs::hard_link(self.at(&own), self.at(path));
        let created = match named {
            Ok(()) => self.sync_names(&self.at(path)).map(|()| true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // Some file systems give a file one name only.
            Err(_) if self.at(path).exists() => Ok(false),
            Err(_) => self.write(path, bytes).map(|()| true),
        };
        let _ = fs::remove_file(self.at(&own));
        created
    }

    /// What is in a small file; none where there is no file.
    pub(crate) fn read(&self, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match open_regular(&self.at(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Removes a file, where it is there.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.at(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All files below it, those too that are being written.
    pub(crate) fn list(&self) -> io::Result<Vec<Stored>> {
        let mut files = Vec::new();
        below(&self.root, &mut |path, metadata| {
            if let Some(path) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                let modified = metadata.modified().unwrap_or(SystemTime::now());
                files.push(Stored { path: path.to_owned(), bytes: metadata.len(), modified });
            }
        })?;
        Ok(files)
    }
}

/// Where the file of `target` lies while it is written.
fn unfinished(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(format!(".{UNFINISHED}"));
    target.with_file_name(name)
}
