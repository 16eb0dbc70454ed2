//! What do these files declare, and what is wrong with them?
//!
//! Three passes, so that all mistakes come at once: the YAML of each file, the shape of each document, the
//! names across documents. A pass does not report what only follows from a mistake that an earlier pass has
//! reported: where a document cannot be read, nobody knows which names it would have declared.

mod aggregation;
mod connection;
mod declared;
mod model;
mod names;
mod qualify;
mod read;
mod role;
mod service;
mod source;
mod structure;
mod view;

use std::sync::Arc;

use self::declared::{Declared, Names};
use self::names::{not_reserved, not_twice};
use self::qualify::qualify;
use crate::project::{DEFAULT_PROJECT, Projects};
use crate::whose::is_anothers;
use crate::yaml::{self, Node};
use crate::{DefError, Definition, Definitions, Kind, Loc};

/// One definition file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefFile {
    /// The project whose it is.
    pub project: String,
    /// How errors name the file.
    pub path: String,
    /// The YAML documents in it.
    pub text: String,
}

impl DefFile {
    /// A file of the default project.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> DefFile {
        DefFile { project: DEFAULT_PROJECT.to_owned(), path: path.into(), text: text.into() }
    }

    fn start(&self) -> Loc {
        let project = Some(self.project.as_str()).filter(|project| *project != DEFAULT_PROJECT);
        Loc { project: project.map(Arc::from), ..Loc::start(self.path.as_str()) }
    }
}

/// Reads the definitions of projects that know one another: any number of documents in any number of files, in any
/// order. Passes over documents with `apiVersion`, which are other tools'; which files are ours
/// [`whose`](crate::whose()) says.
///
/// # Errors
/// Every mistake that can be found, by file, line and column.
pub fn parse(files: &[DefFile]) -> Result<Definitions, Vec<DefError>> {
    let mut errors = Vec::new();
    let mut declared = Declared::default();
    let projects = Projects::of(files.iter().map(|file| file.project.as_str()));
    for file in files {
        let read = yaml::read(file.start(), &file.text);
        // A key given twice leaves its document readable, but what it declares is anyone's guess.
        let sound = read.errors.is_empty();
        errors.extend(read.errors);
        if !read.complete {
            declared.leave_open();
        }
        for mut document in read.documents.into_iter().filter(|document| !is_anothers(document)) {
            match structure::kind_of(&document) {
                Ok(kind) => {
                    let mut found = Vec::new();
                    structure::check_object(kind.object(), &document, &mut found);
                    qualify(kind.object(), &mut document, &projects);
                    declare(&mut declared, kind, document, sound && found.is_empty());
                    errors.append(&mut found);
                }
                Err(error) => {
                    errors.push(error);
                    declared.leave_open();
                }
            }
        }
    }
    check_names(&mut declared, &mut errors);
    check_clashes(&declared, &projects, &mut errors);
    if errors.is_empty() {
        return Ok(declared.into_definitions());
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

/// Reads what a document declares. `whole` says whether its shape is sound.
fn declare(declared: &mut Declared, kind: Kind, node: Node, whole: bool) {
    match kind {
        Kind::Entity => declared.entities.add(read::entity(&node), node, whole),
        Kind::Connection => declared.connections.add(connection::read(&node), node, whole),
        Kind::Source => declared.sources.add(read::source(&node), node, whole),
        Kind::FeatureView => declared.views.add(read::view(&node), node, whole),
        Kind::FeatureService => declared.services.add(read::service(&node), node, whole),
        Kind::Model => declared.models.add(model::read(&node), node, whole),
        Kind::Role => declared.roles.add(role::read(&node), node, whole),
    }
}

/// Checks that every name refers to something and is declared once; lists the features of projections that take all.
fn check_names(declared: &mut Declared, errors: &mut Vec<DefError>) {
    once_each(&declared.entities, errors);
    once_each(&declared.connections, errors);
    once_each(&declared.sources, errors);
    once_each(&declared.views, errors);
    once_each(&declared.services, errors);
    once_each(&declared.models, errors);
    once_each(&declared.roles, errors);
    for entity in &declared.entities.all {
        let names = || entity.def.join_keys.iter().map(|key| (key.name.as_str(), &key.loc));
        not_twice("join key", names(), errors);
        not_reserved(names(), errors);
    }
    for source in &declared.sources.all {
        source::check(source, errors);
    }
    for view in &declared.views.all {
        view::check(view, &declared.sources, &declared.entities, errors);
    }
    let Declared { entities, views, services, .. } = declared;
    for service in &mut services.all {
        service::check(service, views, entities, errors);
    }
    for model in &declared.models.all {
        model::check(model, declared, errors);
    }
    connection::check(declared, errors);
    for role in &declared.roles.all {
        role::check(role, declared, errors);
    }
    for node in declared.owned() {
        role::check_owner(node, &declared.roles, errors);
    }
}

/// A model, a role or a connection of the default project must not be called as if it were another one's.
fn check_clashes(declared: &Declared, projects: &Projects<'_>, errors: &mut Vec<DefError>) {
    let models = declared.models.all.iter().map(|model| &model.def as &dyn Definition);
    let roles = declared.roles.all.iter().map(|role| &role.def as &dyn Definition);
    let connections = declared.connections.all.iter().map(|it| &it.def as &dyn Definition);
    for it in models.chain(roles).chain(connections).filter(|it| it.loc().project.is_none()) {
        let (kind, name) = (it.kind(), it.name());
        if let Some((project, rest)) = projects.split(name) {
            let cause =
                format!("{} `{name}` is what everybody calls `{rest}` of project `{project}`", kind.noun());
            errors.push(DefError::new(it.loc(), cause).with_help("give one of the two another name"));
        }
    }
}

fn once_each<T: Definition>(names: &Names<T>, errors: &mut Vec<DefError>) {
    let Some(first) = names.all.first() else { return };
    let each = names.all.iter().map(|declaration| (declaration.def.name(), declaration.def.loc()));
    not_twice(first.def.kind().noun(), each, errors);
}
