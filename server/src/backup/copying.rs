//! How do files get into a backup, so that what is noted of each is what was read?
//!
//! Each is hashed on its way, so that what lies there later is held to what was read, and not to what a disk made of
//! it. Files and folders are synced before the list names them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use quern_base::digest::{Digested, Hashing};
use quern_base::points::pass;
use quern_wire::Copied;

use super::{BackupFile, LIST};
use crate::error::{Error, Kind, Result};

const BUFFER_BYTES: usize = 1 << 20;

/// Is shown how far a copy is, and says whether to go on.
pub(crate) type See<'s> = &'s mut dyn FnMut(Copied) -> ControlFlow<()>;

/// Files on their way into a folder.
pub(crate) struct Copying<'s> {
    root: PathBuf,
    pub(crate) files: Vec<BackupFile>,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    see: See<'s>,
}

/// A file that is hashed as it is written, and keeps what the disk said.
struct Target {
    file: File,
    failed: Option<io::Error>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            // Its kind and its words: an error is not copied.
            self.failed = Some(io::Error::new(error.kind(), error.to_string()));
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<'s> Copying<'s> {
    /// Into `root`, which is there.
    pub(crate) fn into(root: &Path, see: See<'s>) -> Copying<'s> {
        Copying { root: root.to_owned(), files: Vec::new(), done_bytes: 0, total_bytes: 0, see }
    }

    /// Where `path` lies, in a folder that is made where there is none.
    pub(crate) fn at(&self, path: &str) -> Result<PathBuf> {
        let at = self.root.join(path);
        let folder = at.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
        Ok(at)
    }

    /// Writes the file `path`, by what `write` puts into it.
    pub(crate) fn write(
        &mut self,
        path: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<&BackupFile> {
        self.show(path)?;
        let at = self.at(path)?;
        let file = File::create_new(&at).map_err(|error| unwritten(&at, &error))?;
        let mut hashing = Hashing::into(Target { file, failed: None });
        let written = write(&mut hashing);
        let (target, digested) = hashing.finish();
        // Whoever reads says that the disk took nothing, and means another one.
        match (written, target.failed) {
            (Err(_), Some(failed)) => return Err(unwritten(&at, &failed)),
            (written, _) => written?,
        }
        target.file.sync_all().map_err(|error| unwritten(&at, &error))?;
        Ok(self.note(path, digested))
    }

    /// Copies a file.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<&BackupFile> {
        let mut file = File::open(from).map_err(|error| unreadable(from, &error))?;
        self.copy_open(path, from, &mut file)
    }

    /// The same of one that is open.
    pub(crate) fn copy_open(&mut self, path: &str, from: &Path, file: &mut File) -> Result<&BackupFile> {
        self.write(path, |to| {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let read = match file.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(unreadable(from, &error)),
                };
                to.write_all(&buffer[..read])?;
            }
        })
    }

    /// Takes in a file that somebody has written at `path`.
    pub(crate) fn adopt(&mut self, path: &str) -> Result<&BackupFile> {
        let at = self.at(path)?;
        let digested = digest(&at, &mut |_| ControlFlow::Continue(()))?;
        File::open(&at).and_then(|file| file.sync_all()).map_err(|error| unwritten(&at, &error))?;
        Ok(self.note(path, digested))
    }

    fn note(&mut self, path: &str, Digested { bytes, sha256 }: Digested) -> &BackupFile {
        self.done_bytes += bytes;
        self.total_bytes = self.total_bytes.max(self.done_bytes);
        self.files.push(BackupFile { path: path.to_owned(), bytes, sha256 });
        &self.files[self.files.len() - 1]
    }

    /// Takes out the files that are not `wanted`.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for file in self.files.extract_if(.., |file| !wanted(&file.path)) {
            let at = file.at(&self.root);
            fs::remove_file(&at).map_err(|error| unwritten(&at, &error))?;
        }
        Ok(())
    }

    /// Says how far it is.
    ///
    /// # Errors
    /// Where nobody waits for it any more.
    pub(crate) fn show(&mut self, file: &str) -> Result<()> {
        let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
        match (self.see)(Copied { file: file.to_owned(), done_bytes, total_bytes }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::unavailable("whoever asked for the copy has gone")),
        }
    }

    /// Brings all names onto the disk, and then the list, which makes a backup of it.
    pub(crate) fn finish(&self, list: &str) -> Result<()> {
        sync_folders(&self.root).map_err(|error| unwritten(&self.root, &error))?;
        let (path, unfinished) = (self.root.join(LIST), self.root.join(format!("{LIST}.part")));
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(list.as_bytes())?;
            file.sync_all()?;
            pass("backup: before the list has its name");
            fs::rename(&unfinished, &path)?;
            pass("backup: the list has its name");
            File::open(&self.root)?.sync_all()?;
            // The folder itself may be new.
            self.root.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
        });
        written.map_err(|error| unwritten(&path, &error))
    }
}

/// Length and SHA-256 of a file, of which `see` is shown what was read.
pub(crate) fn digest(path: &Path, see: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Digested> {
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let (mut hashing, mut buffer) = (Hashing::into(io::sink()), vec![0; BUFFER_BYTES]);
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(hashing.finish().1),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(path, &error)),
        };
        hashing.write_all(&buffer[..read])?;
        if see(read as u64).is_break() {
            return Err(Error::unavailable("whoever asked for it has gone"));
        }
    }
}

/// Brings the names in `folder`, and in all folders below it, onto the disk.
pub(crate) fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

/// A file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::refused(format!("{} cannot be read: {error}", path.display()))
}

/// A file that cannot be written.
pub(crate) fn unwritten(path: &Path, error: &io::Error) -> Error {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::ReadOnlyFilesystem];
    let (kind, way_out) = match full.contains(&error.kind()) {
        true => (Kind::Unavailable, "make room there and try again"),
        false => (Kind::Refused, "mend that and try again"),
    };
    quern_base::Failure::new(kind, format!("{} cannot be written: {error}; {way_out}", path.display())).into()
}
