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

impl Settings {
    /// The project of this name, that this server serves.
    ///
    /// # Errors
    /// `Kind::NotFound`, with those that there are.
    pub fn project(&self, name: &str) -> Result<&Project> {
        let served = || self.projects.iter();
        served().find(|project| project.name == name).ok_or_else(|| {
            let known: Vec<&str> = served().map(|project| project.name.as_str()).collect();
            Error::not_found(format!(
                "this server serves no project `{name}`; known: {}. `projects` in its quern.yaml names their folders",
                known.join(", ")
            ))
        })
    }

    /// Finds what `projects` names, behind the repository's own.
    pub(super) fn find_projects(&mut self, own: String, folders: &[PathBuf]) -> Result<()> {
        let (repository, definitions) = (self.repository.clone(), self.definitions.clone());
        self.projects = vec![Project { name: own, repository, definitions }];
        for folder in folders {
            let wrong =
                |what: &str| Error::invalid(format!("the setting `projects`: {} {what}", folder.display()));
            let repository = folder.canonicalize().map_err(|_| wrong("is no folder"))?;
            let mut theirs = Settings::defaults(repository.clone());
            let said = theirs.read_file()?;
            let name = theirs.project_name.unwrap_or_else(|| DEFAULT_PROJECT.to_owned());
            if let Some(key) = said.iter().find(|key| !THEIR_OWN.contains(&key.as_str())) {
                return Err(wrong(&format!(
                    "is served by this server, whose {SETTINGS_FILE} says `{key}`: let theirs say no more than `project`, \
                     `served_by` and `definitions`"
                )));
            }
            if let Some(other) = self.projects.iter().find(|other| other.name == name) {
                return Err(wrong(&format!(
                    "is the project `{name}`, and so is {}: `project` in the {SETTINGS_FILE} of one of them gives it \
                     another name",
                    other.repository.display()
                )));
            }
            self.projects.push(Project { name, repository, definitions: theirs.definitions });
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
        let is_this = |project: &&Project| project.repository == self.repository;
        let Some(project) = settings.projects.iter().skip(1).find(is_this) else {
            return Err(Error::invalid(format!(
                "`served_by`: {} does not list {} among its `projects`; whoever runs that server adds it",
                settings.repository.join(SETTINGS_FILE).display(),
                self.repository.display()
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
