//! Which files of this machine does a source's path name?

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use feature_defs::{BatchSource, DefError, Format, Loc};
use glob::{MatchOptions, Pattern};

use super::super::format::{extensions, is_of};
use super::super::lakes;
use super::{FILES_MAX, HistoryFile, Named, Place, Version, is_passed_over, too_many};
use crate::roots::{OUTSIDE_HELP, Roots};

/// Deeper folders than this are a link that leads back into itself.
const DEPTH_MAX: usize = 32;
/// How many of a folder's names an error shows.
const NAMES_SHOWN: usize = 5;

/// Every file that `batch` names, sorted by name.
pub(in crate::history) fn named(roots: &Roots, batch: &BatchSource) -> Result<Vec<HistoryFile>, DefError> {
    let root = roots.repository();
    let mistake = |cause: String| DefError::new(&batch.loc, cause);
    if !roots.admit(&root.join(&batch.path)) {
        return Err(outside(&batch.loc, &batch.path));
    }
    let mut paths = Vec::new();
    let listed = matching(roots, batch, &mut paths);
    listed.map_err(|why| mistake(format!("`{}` cannot be listed: {why}", batch.path)))?;
    if paths.len() > FILES_MAX {
        return Err(too_many(batch));
    }
    if paths.is_empty() {
        return Err(mistake(format!("no file matches `{}`", batch.path)).with_help(way_out(root, batch)));
    }
    if let Some(lake) = lakes::among(root, &paths) {
        return Err(mistake(lake.to_string()).with_help(lake.way_out()));
    }
    let (mut files, mut real) = (Vec::with_capacity(paths.len()), Real::default());
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let path = real.of(&path).map_err(|why| mistake(format!("`{name}` cannot be read: {why}")))?;
        files.push(file((roots, &batch.loc), path, name)?);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    Ok(files)
}

/// The file at a path without links.
pub(super) fn file(
    (roots, loc): (&Roots, &Loc),
    path: PathBuf,
    name: String,
) -> Result<HistoryFile, DefError> {
    if !roots.hold(&path) {
        return Err(outside(loc, &name));
    }
    let unread = |why: io::Error| DefError::new(loc, format!("`{name}` cannot be read: {why}"));
    let metadata = fs::symlink_metadata(&path).map_err(unread)?;
    if !metadata.is_file() {
        return Err(DefError::new(loc, format!("`{name}` is no regular file")));
    }
    Ok(HistoryFile { name, place: Place::Path(path, Version::of(&metadata)), member: None })
}

fn outside(loc: &Loc, name: &str) -> DefError {
    DefError::new(loc, format!("`{name}` lies outside of the repository, or is a link that leads out of it"))
        .with_help(OUTSIDE_HELP)
}

/// Where paths lead, each folder looked up once: most files of a source lie beside others.
#[derive(Default)]
struct Real {
    folders: HashMap<PathBuf, PathBuf>,
}

impl Real {
    fn of(&mut self, path: &Path) -> io::Result<PathBuf> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize();
        };
        if fs::symlink_metadata(path)?.is_symlink() {
            return path.canonicalize();
        }
        if let Some(real) = self.folders.get(folder) {
            return Ok(real.join(name));
        }
        let real = folder.canonicalize()?;
        let path = real.join(name);
        self.folders.insert(folder.to_owned(), real);
        Ok(path)
    }
}

/// Fills `paths` with the files that the path or glob names, in any order, perhaps twice.
fn matching(roots: &Roots, batch: &BatchSource, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let root = roots.repository();
    let literal = root.join(&batch.path);
    if literal.exists() {
        return take(roots, &literal, batch.format, paths);
    }
    let absolute = Path::new(&batch.path).is_absolute();
    let folder = if absolute { String::new() } else { Pattern::escape(&root.to_string_lossy()) };
    let pattern = Path::new(&folder).join(&batch.path);
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(io::Error::other)?;
    let named = Named::by(&batch.path);
    for path in found {
        let path = path.map_err(io::Error::from)?;
        let below = path.strip_prefix(root).unwrap_or(&path).components();
        if below.into_iter().all(|part| named.means(&part.as_os_str().to_string_lossy())) {
            take(roots, &path, batch.format, paths)?;
        }
    }
    Ok(())
}

fn take(roots: &Roots, path: &Path, format: Format, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        return walk(roots, (path, 0), format, paths);
    }
    paths.push(path.to_owned());
    Ok(())
}

fn walk(
    roots: &Roots,
    (folder, depth): (&Path, usize),
    format: Format,
    paths: &mut Vec<PathBuf>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "folders are nested deeper than {DEPTH_MAX}: {}",
            folder.display()
        )));
    }
    // What a folder outside holds is nobody's business, not even the names.
    if !roots.admit(folder) {
        return Err(io::Error::other(format!(
            "the folder {} is a link that leads out of the repository",
            folder.display()
        )));
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_passed_over(&name) || paths.len() > FILES_MAX {
            continue;
        }
        if path.is_dir() {
            walk(roots, (&path, depth + 1), format, paths)?;
        } else if is_of(format, &name) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Says what lies where the search began, which is mostly enough to see the typing error.
fn way_out(root: &Path, batch: &BatchSource) -> String {
    let is_plain = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let mut folder = root.join(Path::new(&batch.path).components().take_while(is_plain).collect::<PathBuf>());
    while !folder.is_dir() && folder.pop() {}
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    let more = if names.len() > NAMES_SHOWN { ", …" } else { "" };
    names.truncate(NAMES_SHOWN);
    let holds = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!(
        "looked in `{}`, which holds {holds}{more}; a path is relative to the repository's root, and a folder \
         stands for every {} file in it",
        folder.display(),
        extensions(batch.format).iter().map(|end| format!(".{end}")).collect::<Vec<_>>().join(" or ")
    )
}
