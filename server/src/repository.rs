//! Which definition files does a repository hold?
//!
//! Every `*.yaml` and `*.yml` in any folder layout, except `quern.yaml`, hidden files and folders, data folders, and
//! the folders of MLflow models, which have YAML of their own.

use std::fs;
use std::path::Path;

use feature_defs::DefFile;

use crate::data_folder::LOCK_FILE;
use crate::error::{Error, Result};
use crate::mlflow;
use crate::settings::SETTINGS_FILE;

const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 32;

/// Reads the definition files under `root`, sorted by path. Paths are relative to `root`, with `/` on every system.
///
/// # Errors
/// `Kind::InvalidArgument` where there is no such folder, or no definition file in it: an apply of nothing by mistake
/// would remove everything.
pub fn read(root: &Path) -> Result<Vec<DefFile>> {
    if !root.is_dir() {
        return Err(Error::invalid(format!(
            "there is no folder {}; `quern init {}` writes a repository to start from",
            root.display(),
            root.display()
        )));
    }
    let mut files = Vec::new();
    walk(root, "", 0, &mut files)?;
    if files.is_empty() {
        return Err(Error::invalid(format!(
            "{} holds no definition files (*.yaml); `quern init {}` writes some to start from",
            root.display(),
            root.display()
        )));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<DefFile>) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::invalid(format!("{} cannot be read: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let (path, relative) = (entry.path(), format!("{prefix}{name}"));
        // A link to a file is followed, as mounted configurations use them; one to a folder could go in circles.
        if entry.file_type().map_err(failed)?.is_dir() {
            let is_another = [LOCK_FILE, mlflow::DESCRIPTION].iter().any(|name| path.join(name).exists());
            if depth < DEPTH_MAX && !is_another {
                walk(&path, &format!("{relative}/"), depth + 1, files)?;
            }
        } else if is_definition(&name, depth) && path.is_file() {
            if files.len() == FILES_MAX {
                return Err(Error::too_large(format!(
                    "a repository holds at most {FILES_MAX} definition files"
                )));
            }
            files.push(DefFile { text: text(&path, &relative)?, path: relative });
        }
    }
    Ok(())
}

fn is_definition(name: &str, depth: usize) -> bool {
    (name.ends_with(".yaml") || name.ends_with(".yml")) && !(depth == 0 && name == SETTINGS_FILE)
}

fn text(path: &Path, relative: &str) -> Result<String> {
    let failed = |error: std::io::Error| Error::invalid(format!("{relative} cannot be read: {error}"));
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(Error::too_large(format!("{relative} is larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(fs::read(path).map_err(failed)?)
        .map_err(|error| Error::invalid(format!("{relative} is not UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_found_in_any_layout_and_data_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [
            "b.yaml",
            "a/z.yml",
            "quern.yaml",
            ".hidden/x.yaml",
            "data/rows.csv",
            "store/quern.lock",
            "store/y.yaml",
            "models/m/MLmodel",
            "models/m/conda.yaml",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "# nothing\n").expect("written");
        }
        let paths: Vec<String> =
            read(folder.path()).expect("sound").into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a/z.yml", "b.yaml"]);
    }

    #[test]
    fn an_empty_folder_is_not_a_repository() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read(folder.path()).expect_err("nothing there").to_string();
        assert!(error.contains("quern init"), "{error}");
    }
}
