//! Which repositories does a server serve, each as a project?

use std::path::{Path, PathBuf};

use feature_defs::{DEFAULT_PROJECT, is_project};

use super::{SETTINGS_FILE, Settings};
use crate::error::{Error, Result};

/// What the settings of a repository may say that is served by another one's server.
const THEIR_OWN: [&str; 3] = ["project", "served_by", "definitions"];

/// A repository, as a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// What its definitions' names begin with, elsewhere.
    pub name: String,
    /// The folder of the definition files.
    pub repository: PathBuf,
    /// The folders in it that they lie in; all of it where there is none.
    pub definitions: Vec<PathBuf>,
}

impl Project {
    /// The one that a repository is where its settings say nothing.
    pub(super) fn of(repository: PathBuf) -> Project {
        Project { name: DEFAULT_PROJECT.to_owned(), repository, definitions: Vec::new() }
    }
}

impl Settings {
    /// The project of this name, that this server serves.
    ///
    /// # Errors
    /// `Kind::NotFound`, with those that there are.
    pub fn project(&self, name: &str) -> Result<&Project> {
        self.projects().find(|project| project.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.projects().map(|project| project.name.as_str()).collect();
            Error::not_found(format!(
                "this server serves no project `{name}`; known: {}. `projects` in its quern.yaml names their folders",
                known.join(", ")
            ))
        })
    }

    /// The projects: the repository's own, then the others.
    pub fn projects(&self) -> impl Iterator<Item = &Project> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// Finds what `projects` names.
    pub(super) fn find_others(&mut self) -> Result<()> {
        for folder in self.served.clone() {
            let wrong =
                |what: &str| Error::invalid(format!("the setting `projects`: {} {what}", folder.display()));
            let repository = folder.canonicalize().map_err(|_| wrong("is no folder"))?;
            let mut theirs = Settings::defaults(repository);
            let said = theirs.read_file()?;
            let Project { name, .. } = &theirs.own;
            if let Some(key) = said.iter().find(|key| !THEIR_OWN.contains(&key.as_str())) {
                return Err(wrong(&format!(
                    "is served by this server, whose {SETTINGS_FILE} says `{key}`: let theirs say no more than `project`, \
                     `served_by` and `definitions`"
                )));
            }
            if let Some(other) = self.projects().find(|other| other.name == *name) {
                return Err(wrong(&format!(
                    "is the project `{name}`, and so is {}: `project` in the {SETTINGS_FILE} of one of them gives it \
                     another name",
                    other.repository.display()
                )));
            }
            self.others.push(theirs.own);
        }
        Ok(())
    }

    /// The settings of the server that serves this repository, with this one's project to apply.
    pub(super) fn of_server(
        &self,
        server: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
        flags: &[(&str, String)],
    ) -> Result<Settings> {
        let mut settings = Settings::load_from(server, environment, flags)?;
        let is_this = |project: &&Project| project.repository == self.own.repository;
        let Some(project) = settings.others.iter().find(is_this) else {
            return Err(Error::invalid(format!(
                "`served_by`: {} does not list {} among its `projects`; whoever runs that server adds it",
                settings.own.repository.join(SETTINGS_FILE).display(),
                self.own.repository.display()
            )));
        };
        settings.applies = project.name.clone();
        Ok(settings)
    }
}

/// The name of a project.
pub(super) fn name(text: &str) -> std::result::Result<String, String> {
    match is_project(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no name of letters, digits, `_` and `-`, at most 64 of them")),
    }
}
