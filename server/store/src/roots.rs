//! Which files of this machine may definitions name?
//!
//! Those below the repository and below the folders that the setting `roots` names, wherever links lead. Who writes
//! definitions need not be who runs the server, and must not reach by a path what only the server may read: neither
//! what is in a file, nor whether there is one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use feature_defs::{DEFAULT_PROJECT, DefError, Loc};

/// `O_NONBLOCK` of Linux: opening a pipe that nobody writes into must not wait for who would.
const NONBLOCK: i32 = 0o4000;

/// How to go on where a path leads out.
pub const OUTSIDE_HELP: &str = "files are read below the repository and below the folders that its setting `roots` names, \
                                wherever links lead; move the file there, or add its folder to `roots` in quern.yaml, which a \
                                server reads when it starts";

/// The folders that paths in definitions may lead into.
#[derive(Debug, Clone)]
pub struct Roots {
    repository: PathBuf,
    /// The same and the others, without links.
    folders: Vec<PathBuf>,
    /// What lies below one of them and is not theirs.
    but: Vec<PathBuf>,
}

/// The folders of each project.
#[derive(Debug, Clone, Default)]
pub struct ProjectRoots(BTreeMap<String, Roots>);

impl ProjectRoots {
    /// Those of these.
    pub fn new(projects: impl IntoIterator<Item = (String, Roots)>) -> ProjectRoots {
        ProjectRoots(projects.into_iter().collect())
    }

    /// Where what is written at `loc` may lead.
    ///
    /// # Errors
    /// Where this server does not know the folder of that project.
    pub fn at(&self, loc: &Loc) -> Result<&Roots, DefError> {
        self.0.get(loc.project()).ok_or_else(|| {
            let cause = format!("the project `{}` has no folder on this server", loc.project());
            DefError::new(loc, cause).with_help("add its folder to `projects` in the server's quern.yaml")
        })
    }
}

/// Those of the default project alone.
impl From<Roots> for ProjectRoots {
    fn from(roots: Roots) -> ProjectRoots {
        ProjectRoots::new([(DEFAULT_PROJECT.to_owned(), roots)])
    }
}

impl Roots {
    /// The repository, where relative paths begin, and other folders.
    pub fn new(repository: &Path, others: &[PathBuf]) -> Roots {
        let all = std::iter::once(repository).chain(others.iter().map(PathBuf::as_path));
        let folders = all.map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_owned())).collect();
        Roots { repository: repository.to_owned(), folders, but: Vec::new() }
    }

    /// The same but for `folder`, which is not theirs: the data folder, which holds what all have pushed and been
    /// answered, or another project's. One that the repository itself lies in is left as it is.
    #[must_use]
    pub fn without(mut self, folder: &Path) -> Roots {
        if !self.folders.first().is_some_and(|repository| repository.starts_with(folder)) {
            self.but.push(folder.to_owned());
        }
        self
    }

    /// Every file of this machine: for whoever reads with rights of their own.
    pub fn anywhere(repository: &Path) -> Roots {
        Roots::new(repository, &[PathBuf::from("/")])
    }

    /// Where relative paths begin.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Whether `path` leads to a place below a root. What is not there yet would be where its nearest folder is, so
    /// that the answer does not say whether there is something outside.
    pub fn admit(&self, path: &Path) -> bool {
        let nearest = path.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
        nearest.is_some_and(|(folder, real)| {
            let rest = path.strip_prefix(folder).unwrap_or(path);
            self.hold(&real) && !rest.components().any(|part| part == Component::ParentDir)
        })
    }

    /// Whether a path without links lies below a root.
    pub(crate) fn hold(&self, real: &Path) -> bool {
        // It may have been made since.
        let mut but = self.but.iter().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.clone()));
        self.folders.iter().any(|folder| real.starts_with(folder))
            && !but.any(|folder| real.starts_with(folder))
    }

    /// Whether what lies at `path` below a root is none of a table's: hidden, as keys and passwords mostly are, or
    /// YAML, as settings are. What a mounted volume calls `..data` is not hidden.
    pub(crate) fn keeps_back(&self, path: &Path) -> bool {
        let roots = std::iter::once(&self.repository).chain(&self.folders);
        let below = roots.filter_map(|root| path.strip_prefix(root).ok());
        let Some(below) = below.min_by_key(|below| below.components().count()) else { return false };
        let is_hidden = |part: Component<'_>| {
            let name = part.as_os_str().as_encoded_bytes();
            matches!(part, Component::Normal(_)) && name.starts_with(b".") && !name.starts_with(b"..")
        };
        let is_yaml =
            |extension: &OsStr| ["yaml", "yml"].iter().any(|yaml| extension.eq_ignore_ascii_case(yaml));
        below.components().any(is_hidden) || below.extension().is_some_and(is_yaml)
    }

    /// Opens a regular file below a root.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its name.
    pub fn open(&self, path: &Path) -> Result<File, String> {
        let outside = || "lies outside of the repository, or is a link that leads out of it".to_owned();
        if !self.admit(path) {
            return Err(outside());
        }
        let file = open_regular(path).map_err(|error| format!("cannot be read: {error}"))?;
        // A link may have changed since.
        match place(&file) {
            Some(real) if !self.hold(&real) => Err(outside()),
            _ => Ok(file),
        }
    }
}

/// Where an open file lies, whatever its name leads to by now; none where the system does not say.
pub(crate) fn place(file: &File) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// Opens a file, unless it is a device or a pipe: what those hold has no end, and opening one may wait for ever.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let regular = |is_file: bool| match is_file {
        true => Ok(()),
        false => Err(std::io::Error::other("it is no regular file")),
    };
    // Before it is opened, since that alone may do something to a device; and after, since it may be another one.
    regular(fs::metadata(path)?.is_file())?;
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_leads_below_a_root_or_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for (path, text) in [("repo/a", "a"), ("repo/sub/b", "b"), ("data/c", "c"), ("secret", "s")] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        }
        symlink(at("secret"), at("repo/out")).unwrap();
        symlink(at(""), at("repo/up")).unwrap();
        symlink(at("data/c"), at("repo/in")).unwrap();
        let said = |roots: &Roots, path: &str| match roots.open(&at("repo").join(path)) {
            Ok(file) => std::io::read_to_string(file).unwrap(),
            Err(cause) => cause,
        };
        let roots = Roots::new(&at("repo"), &[at("data")]);
        assert_eq!(said(&roots, "a"), "a");
        assert_eq!(said(&roots, "sub/../a"), "a");
        assert_eq!(said(&roots, "../data/c"), "c");
        assert_eq!(said(&roots, "in"), "c");
        assert!(said(&roots, "none").starts_with("cannot be read: No such file"));
        assert_eq!(said(&roots, "sub"), "cannot be read: it is no regular file");
        let absolute = at("secret").display().to_string();
        for path in ["out", "up/secret", "up/none", "../secret", "../none", "none/../../secret", &absolute] {
            assert!(said(&roots, path).starts_with("lies outside"), "{path}");
        }
        assert!(said(&Roots::new(&at("repo"), &[]), "in").starts_with("lies outside"));
        assert!(
            said(&Roots::new(&at("repo"), &[at("data")]).without(&at("data")), "in")
                .starts_with("lies outside")
        );
        assert_eq!(said(&Roots::new(&at("repo"), &[]).without(&at("")), "a"), "a");
        assert_eq!(said(&Roots::anywhere(&at("repo")), "out"), "s");
    }

    #[test]
    fn a_pipe_is_refused_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let refused = Roots::new(folder.path(), &[]).open(&pipe).unwrap_err();
        assert_eq!(refused, "cannot be read: it is no regular file");
    }
}
