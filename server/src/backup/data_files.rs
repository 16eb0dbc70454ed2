//! How is a folder copied in which files become one meanwhile?
//!
//! Files of partitions are written once and then stay as they are, until a new one holds what some of them held and
//! those go. A list of a folder is not of one moment: it may lack the new one, and some of those that went. But what
//! was there before a list was begun, and is not in it, has gone: so no list counts that lacks what the one before it
//! had, or of which a file is gone when it is to be copied.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::{Copying, unreadable};
use crate::error::{Error, Result};

/// Lists in a row that may be of no use. Files become one once in a hundred that are written.
const LISTS_MAX: usize = 1_000;

/// Copies the partitions in `folder`, of which there may be none, to `to`.
pub(crate) fn copy_partitions(copying: &mut Copying<'_>, folder: &Path, to: &str) -> Result<()> {
    let listed = || list(folder).map_err(|error| unreadable(folder, &error));
    let mut before = listed()?;
    for _ in 0..LISTS_MAX {
        let now = listed()?;
        if now.is_superset(&before) && copy_all(copying, folder, to, &now)? {
            let wanted = |path: &str| match path.strip_prefix(to).and_then(|rest| rest.strip_prefix('/')) {
                Some(rest) => now.contains(rest),
                None => true,
            };
            return copying.retain(wanted);
        }
        before = now;
    }
    Err(Error::busy(format!("the files in {} change too fast to be copied; try again", folder.display())))
}

/// Copies those of the files that are not copied yet; whether all were there.
fn copy_all(copying: &mut Copying<'_>, folder: &Path, to: &str, files: &BTreeSet<String>) -> Result<bool> {
    for file in files {
        let (from, path) = (folder.join(file), format!("{to}/{file}"));
        if copying.files.iter().any(|known| known.path == path) {
            continue;
        }
        match File::open(&from) {
            Ok(mut file) => _ = copying.copy_open(&path, &from, &mut file)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unreadable(&from, &error)),
        }
    }
    Ok(true)
}

/// The paths of all whole files below a folder.
fn list(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            files.extend(list(&path)?.into_iter().map(|file| format!("{name}/{file}")));
        } else if !name.ends_with(".part") {
            files.insert(name.to_owned());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Numbers in files, of which some become one again and again: a copy has every number of before.
    #[test]
    fn nothing_is_missing_where_files_become_one_meanwhile() {
        let root = tempfile::tempdir().unwrap();
        let (folder, done) = (root.path().join("labels"), AtomicBool::new(false));
        fs::create_dir_all(folder.join("m")).unwrap();
        let write = |name: u32, content: &str| {
            let path = folder.join(format!("m/{name}"));
            fs::write(path.with_extension("part"), content).unwrap();
            fs::rename(path.with_extension("part"), path).unwrap();
        };
        (0..50).for_each(|number| write(number, &format!("{number} ")));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 50;
                while !done.load(Ordering::Relaxed) {
                    (next..next + 20).for_each(|number| write(number, &format!("{number} ")));
                    let names = list(&folder).unwrap();
                    let all: String =
                        names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect();
                    write(next + 20, &all);
                    names.iter().for_each(|name| fs::remove_file(folder.join(name)).unwrap());
                    next += 21;
                    if next > 5_000 {
                        break;
                    }
                }
            });
            for round in 0..20 {
                let copy = root.path().join(format!("copy {round}"));
                fs::create_dir(&copy).unwrap();
                let mut see = |_| ControlFlow::Continue(());
                let mut copying = Copying::into(&copy, &mut see);
                if let Err(error) = copy_partitions(&mut copying, &folder, "data/labels") {
                    assert!(error.to_string().contains("change too fast"), "{error}");
                    continue;
                }
                let text: String =
                    copying.files.iter().map(|file| fs::read_to_string(file.at(&copy)).unwrap()).collect();
                let numbers: BTreeSet<u32> =
                    text.split_whitespace().map(|text| text.parse().unwrap()).collect();
                assert!(numbers.is_superset(&(0..50).collect()), "round {round}: {numbers:?}");
                let names: Vec<&str> = copying.files.iter().map(|file| &file.path[..]).collect();
                assert!(list(&copy).unwrap().iter().eq(names.iter().collect::<BTreeSet<_>>()), "{names:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
