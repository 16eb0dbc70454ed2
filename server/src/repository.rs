//! Which definition files does a repository hold?
//!
//! Every `*.yaml` and `*.yml` in any folder layout, or in the folders that the setting `definitions` names, as far as
//! it is ours: code lies beside it, and code brings the YAML of many tools. Passed over are what is hidden, what
//! `.quernignore` lists in git's syntax, and folders that say that they are something else.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use feature_defs::{DefFile, Whose, says_kind, whose};
use ignore::{DirEntry, WalkBuilder};
use parking_lot::Mutex;
use quern_store::roots::Roots;

use crate::data_folder::LOCK_FILE;
use crate::error::{Error, Result};
use crate::mlflow;
use crate::settings::{Project, SETTINGS_FILE, Settings};

/// What to pass over, in git's syntax; in any folder of a repository.
pub const IGNORE_FILE: &str = ".quernignore";

const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 32;
/// How many of the files that were left alone an error names.
const LEFT_ALONE_SHOWN: usize = 3;

/// Folders that hold the code of others, by name.
const NAMES: [(&str, &str); 4] = [
    ("node_modules", "packages of JavaScript"),
    ("site-packages", "packages of Python"),
    ("venv", "a virtual environment of Python"),
    ("__pycache__", "a cache of Python"),
];
/// What says of the folder that it lies in what that folder is.
const MARKS: [(&str, &str); 6] = [
    (SETTINGS_FILE, "a repository of its own"),
    (LOCK_FILE, "a data folder"),
    (mlflow::DESCRIPTION, "an MLflow model"),
    ("pyvenv.cfg", "a virtual environment of Python"),
    ("conda-meta", "an environment of conda"),
    ("CACHEDIR.TAG", "a cache"),
];

/// The YAML of a repository.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    /// The definition files by path.
    pub files: Vec<DefFile>,
    /// The others, and whole folders that were passed over, by path.
    pub left_alone: Vec<LeftAlone>,
}

/// A file that declares nothing of ours, or a folder that nothing was looked for in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftAlone {
    /// Its path from the repository's root; a folder's ends with `/`.
    pub path: String,
    /// What it is instead.
    pub why: String,
}

/// Reads the definition files of a project that `settings` name. Paths are relative to its repository's root, with `/`
/// on every system.
///
/// # Errors
/// `Kind::InvalidArgument` where there is no such folder, or no definition file in it: an apply of nothing by mistake
/// would remove everything. `Kind::NotFound` where there is no such project.
pub fn read(settings: &Settings, project: &str) -> Result<Repository> {
    let project = settings.project(project)?;
    let root = &project.repository;
    if !root.is_dir() {
        return Err(Error::invalid(format!(
            "there is no folder {}; `quern init {}` writes a repository to start from",
            root.display(),
            root.display()
        )));
    }
    for folder in &project.definitions {
        let found = fs::symlink_metadata(root.join(folder));
        if !found.is_ok_and(|found| found.is_dir()) {
            let (folder, root) = (folder.display(), root.display());
            return Err(Error::invalid(format!(
                "the setting `definitions`: there is no folder `{folder}` in {root}"
            )));
        }
    }
    let left_alone = Arc::new(Mutex::new(Vec::new()));
    let (mut files, roots) = (Vec::new(), settings.roots_of(project));
    for entry in walk(project, &left_alone).build() {
        let entry = entry.map_err(|error| Error::invalid(format!("{error}; {WAY_OUT}")))?;
        // A folder is where a line of an ignore file shows that makes no sense.
        if let Some(error) = entry.error() {
            return Err(Error::invalid(error.to_string()));
        }
        // A link to a file below a root is followed, as mounted configurations use them; one to a folder could go in
        // circles.
        if !is_yaml(entry.path()) || !entry.path().is_file() {
            continue;
        }
        let path = relative(root, entry.path());
        match look(&roots, entry.path(), &path)? {
            Found::Definitions(text) => files.push(DefFile { project: project.name.clone(), path, text }),
            Found::Another(why) => left_alone.lock().push(LeftAlone { path, why }),
        }
        if files.len() > FILES_MAX {
            return Err(Error::too_large(format!("a repository holds at most {FILES_MAX} definition files")));
        }
    }
    let mut left_alone = std::mem::take(&mut *left_alone.lock());
    left_alone.sort();
    if files.is_empty() {
        return Err(nothing(project, &left_alone));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Repository { files, left_alone })
}

/// Everything below the repository's root that may hold definitions. Folders that may not are noted in `left_alone`.
fn walk(project: &Project, left_alone: &Arc<Mutex<Vec<LeftAlone>>>) -> WalkBuilder {
    let (root, named) = (project.repository.clone(), project.definitions.clone());
    let left_alone = Arc::clone(left_alone);
    let mut walk = WalkBuilder::new(&root);
    walk.standard_filters(false).add_custom_ignore_filename(IGNORE_FILE).max_depth(Some(DEPTH_MAX));
    walk.filter_entry(move |entry| {
        let path = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        // Whatever a folder is, one that was named is meant.
        if path.as_os_str().is_empty() || named.iter().any(|folder| folder.starts_with(path)) {
            return true;
        }
        if !named.is_empty() && !named.iter().any(|folder| path.starts_with(folder)) {
            return false;
        }
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            return false;
        }
        let something_else = something_else(entry);
        if let Some(why) = something_else {
            let path = format!("{}/", relative(&root, entry.path()));
            left_alone.lock().push(LeftAlone { path, why: why.to_owned() });
        }
        something_else.is_none()
    });
    walk
}

/// What a folder is, where it is not one of definitions.
fn something_else(entry: &DirEntry) -> Option<&'static str> {
    if !entry.file_type().is_some_and(|entry| entry.is_dir()) {
        return None;
    }
    let by_name = NAMES.iter().find(|(name, _)| entry.file_name() == *name);
    let by_mark = || MARKS.iter().find(|(mark, _)| entry.path().join(mark).exists());
    by_name.or_else(by_mark).map(|(_, what)| *what)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|is| is.eq_ignore_ascii_case("yaml") || is.eq_ignore_ascii_case("yml"))
        && path.file_name().is_none_or(|name| name != SETTINGS_FILE)
}

fn relative(root: &Path, path: &Path) -> String {
    let names = path.strip_prefix(root).unwrap_or(path).iter();
    names.map(|name| name.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// What is in a YAML file.
enum Found {
    /// The text of definitions.
    Definitions(String),
    /// Another tool's, for this reason.
    Another(String),
}

const WAY_OUT: &str = "what is another tool's, `.quernignore` passes over";

fn look(roots: &Roots, path: &Path, name: &str) -> Result<Found> {
    let mut bytes = Vec::new();
    let read = roots.open(path).and_then(|file| {
        let mut file = file.take(FILE_BYTES_MAX + 1);
        file.read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))
    });
    read.map_err(|cause| Error::invalid(format!("{name} {cause}; {WAY_OUT}")))?;
    // Whatever cannot be read as YAML is a mistake only where it may be ours.
    let is_large = bytes.len() as u64 > FILE_BYTES_MAX;
    let is_utf8 = str::from_utf8(&bytes).is_ok();
    let text = String::from_utf8_lossy(&bytes);
    let why = if is_large {
        format!("is larger than {FILE_BYTES_MAX} bytes")
    } else if !is_utf8 || text.contains('\0') {
        "is not UTF-8".to_owned()
    } else {
        return Ok(match whose(&text) {
            Whose::Ours => Found::Definitions(text.into_owned()),
            Whose::Others(why) => Found::Another(why),
        });
    };
    // UTF-16 is what is left when its zeros are gone.
    match says_kind(&text.replace(['\0', char::REPLACEMENT_CHARACTER], "")) {
        true if is_large => Err(Error::too_large(format!("{name} {why}; {WAY_OUT}"))),
        true => Err(Error::invalid(format!("{name} {why}; {WAY_OUT}"))),
        false => Ok(Found::Another(format!("it {why}"))),
    }
}

/// Nothing is declared: where it was looked for, and what was there instead.
fn nothing(project: &Project, left_alone: &[LeftAlone]) -> Error {
    let root = project.repository.display();
    let folders: Vec<String> =
        project.definitions.iter().map(|folder| folder.display().to_string()).collect();
    let within = match folders.as_slice() {
        [] => String::new(),
        folders => format!(" in `{}`, where its setting `definitions` looks for them", folders.join("`, `")),
    };
    let nested: Vec<PathBuf> = left_alone
        .iter()
        .map(|left| project.repository.join(&left.path))
        .filter(|path| path.join(SETTINGS_FILE).exists())
        .collect();
    if let Some(first) = nested.first() {
        let first = first.display();
        return Error::invalid(format!(
            "{root} holds no definition files{within}; {first} is a repository of its own: name that folder"
        ));
    }
    let mut others: Vec<String> =
        left_alone.iter().map(|left| format!("{} ({})", left.path, left.why)).collect();
    let more = others.len().saturating_sub(LEFT_ALONE_SHOWN);
    others.truncate(LEFT_ALONE_SHOWN);
    if more > 0 {
        others.push(format!("{more} more"));
    }
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; left alone, as other tools': {}", others.join(", ")),
    };
    Error::invalid(format!(
        "{root} holds no definition files (*.yaml){within}{others}; `quern init {root}` writes some to start from"
    ))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use feature_defs::DEFAULT_PROJECT;

    use super::*;

    const OURS: &str = "kind: Entity\nname: k\njoin_keys: [{name: k, type: int64}]\n";

    /// The definition files, what was left alone, or what is wrong, of a folder with these files.
    fn check(files: &[(&str, &str)], expected: Expect) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let settings = Settings::load_from(folder.path(), |_| None, &[]).expect("sound");
        let said = match read(&settings, DEFAULT_PROJECT) {
            Ok(Repository { files, left_alone }) => {
                let files = files.into_iter().map(|file| file.path);
                let left =
                    left_alone.into_iter().map(|left| format!("left alone: {}: {}", left.path, left.why));
                files.chain(left).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        let root = settings.own.repository.display().to_string();
        expected.assert_eq(&said.replace(&root, "ROOT"));
    }

    #[test]
    fn definitions_are_found_in_any_layout_and_what_is_something_else_is_not() {
        check(
            &[
                ("b.yaml", OURS),
                ("a/z.yml", OURS),
                ("a/UPPER.YAML", OURS),
                ("a/z.yaml.bak", OURS),
                ("quern.yaml", "listen: 127.0.0.1:1\n"),
                (".hidden/x.yaml", OURS),
                ("data/rows.csv", "a,b\n"),
                ("store/quern.lock", ""),
                ("store/y.yaml", OURS),
                ("models/m/MLmodel", ""),
                ("models/m/conda.yaml", OURS),
                ("venv/lib/data.yaml", OURS),
                ("py/env/pyvenv.cfg", ""),
                ("py/env/data.yaml", OURS),
                ("ui/node_modules/p/x.yaml", OURS),
                ("other/quern.yaml", ""),
                ("other/x.yaml", OURS),
                ("docker-compose.yaml", "services: {db: {image: postgres}}\n"),
                ("chart/a.yaml", "kind: Deployment\n{{- if .x }}\n"),
                ("latin.yaml", "a: x\n"),
            ],
            expect![[r#"
                a/UPPER.YAML
                a/z.yml
                b.yaml
                left alone: chart/a.yaml: it is no YAML; line 2: not valid YAML: "-" is only valid inside a block
                left alone: docker-compose.yaml: it has no `kind`
                left alone: latin.yaml: it has no `kind`
                left alone: models/m/: an MLflow model
                left alone: other/: a repository of its own
                left alone: py/env/: a virtual environment of Python
                left alone: store/: a data folder
                left alone: ui/node_modules/: packages of JavaScript
                left alone: venv/: a virtual environment of Python"#]],
        );
    }

    #[test]
    fn an_ignore_file_and_a_setting_say_where_definitions_are() {
        let files = [
            ("old/a.yaml", OURS),
            ("features/a.yaml", OURS),
            ("features/draft/b.yaml", OURS),
            ("features/draft/keep.yaml", OURS),
            ("models/c.yaml", OURS),
            (".quernignore", "# git's syntax\n/old/\n"),
            ("features/.quernignore", "draft/*\n!draft/keep.yaml\n"),
        ];
        check(
            &files,
            expect![[r#"
            features/a.yaml
            features/draft/keep.yaml
            models/c.yaml"#]],
        );
        let with = |settings: &'static str| [files.as_slice(), &[("quern.yaml", settings)]].concat();
        check(
            &with("definitions: features/\n"),
            expect![[r#"
            features/a.yaml
            features/draft/keep.yaml"#]],
        );
        check(
            &with("definitions: [features/draft, ./models]\n"),
            expect![[r#"
            features/draft/keep.yaml
            models/c.yaml"#]],
        );
        check(
            &with("definitions: nowhere\n"),
            expect!["the setting `definitions`: there is no folder `nowhere` in ROOT"],
        );
        check(
            &with("definitions: .hidden\n"),
            expect!["the setting `definitions`: there is no folder `.hidden` in ROOT"],
        );
    }

    #[test]
    fn what_may_be_ours_is_never_left_alone() {
        let utf16: String = OURS.chars().flat_map(|c| [c, '\0']).collect();
        check(
            &[("a.yaml", &utf16)],
            expect!["a.yaml is not UTF-8; what is another tool's, `.quernignore` passes over"],
        );
        check(
            &[("a.yaml", "kind: Entitty\n"), ("b.yaml", "a: 1\n---\nkind: Entity\n")],
            expect![[r#"
            a.yaml
            b.yaml"#]],
        );
    }

    #[test]
    fn a_folder_without_definitions_is_not_a_repository() {
        check(
            &[],
            expect!["ROOT holds no definition files (*.yaml); `quern init ROOT` writes some to start from"],
        );
        check(
            &[("a.yaml", "x: 1"), ("b.yaml", "x: 1"), ("c.yaml", "x: 1"), ("d.yaml", "x: 1")],
            expect![
                "ROOT holds no definition files (*.yaml); left alone, as other tools': a.yaml (it has no `kind`), b.yaml (it has no `kind`), c.yaml (it has no `kind`), 1 more; `quern init ROOT` writes some to start from"
            ],
        );
        check(
            &[("demo/quern.yaml", ""), ("demo/a.yaml", OURS)],
            expect![
                "ROOT holds no definition files; ROOT/demo/ is a repository of its own: name that folder"
            ],
        );
    }
}
