//! Which files lie below a folder of this machine?

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Result;

/// Shows all files below `folder`; none where there is no such folder, and none that goes meanwhile.
pub(crate) fn below(folder: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let entries = match fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => below(&path, visit)?,
            Ok(metadata) if metadata.is_file() => visit(&path, &metadata),
            Ok(_) => {}
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The files below a folder of this machine: path, bytes, and when each was read or written last.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<(PathBuf, u64, SystemTime)>> {
    let mut files = Vec::new();
    below(folder, &mut |path, metadata| {
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        files.push((path.to_owned(), metadata.len(), used));
    })?;
    Ok(files)
}
