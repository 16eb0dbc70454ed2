//! What do these files declare, and what is wrong with them?
//!
//! Three passes, so that all mistakes come at once: the YAML of each file, the shape of each document, the
//! names across documents. A pass does not report what only follows from a mistake that an earlier pass has
//! reported: where a document cannot be read, nobody knows which names it would have declared.

mod aggregation;
mod model;
mod names;
mod read;
mod service;
mod structure;

use std::collections::BTreeMap;

use crate::shape::Kind;
use crate::yaml::{self, Node};
use crate::{DefError, Definitions, Entity, FeatureService, FeatureView, Loc, Model, Source, error::suggest};

/// One definition file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefFile {
    /// How errors name the file.
    pub path: String,
    /// The YAML documents in it.
    pub text: String,
}

/// Reads the definitions of a repository: any number of documents in any number of files, in any order.
///
/// # Errors
/// Every mistake that can be found, by file, line and column.
pub fn parse(files: &[DefFile]) -> Result<Definitions, Vec<DefError>> {
    let mut errors = Vec::new();
    let mut declared = Declared::default();
    for file in files {
        let read = yaml::read(&file.path, &file.text);
        // A key given twice leaves its document readable, but what it declares is anyone's guess.
        let sound = read.errors.is_empty();
        errors.extend(read.errors);
        if !read.complete {
            declared.leave_open();
        }
        for document in read.documents {
            match structure::kind_of(&document) {
                Ok(kind) => declared.add(kind, document, sound, &mut errors),
                Err(error) => {
                    errors.push(error);
                    declared.leave_open();
                }
            }
        }
    }
    names::check(&mut declared, &mut errors);
    if errors.is_empty() {
        return Ok(declared.into_definitions());
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

/// All documents, by kind.
#[derive(Default)]
struct Declared {
    entities: Names<Entity>,
    sources: Names<Source>,
    views: Names<FeatureView>,
    services: Names<FeatureService>,
    models: Names<Model>,
}

/// The declarations of one kind.
struct Names<T> {
    all: Vec<Declaration<T>>,
    /// The first declaration of each name.
    index: BTreeMap<String, usize>,
    /// Whether more may be declared than could be read, so that a name not found is not a mistake.
    open: bool,
}

/// One document and what it declares.
struct Declaration<T> {
    def: T,
    node: Node,
    /// Whether its shape is sound; otherwise `def` may lack what the document meant to say.
    whole: bool,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { all: Vec::new(), index: BTreeMap::new(), open: false }
    }
}

impl<T> Names<T> {
    fn add(&mut self, name: String, def: T, node: Node, whole: bool) {
        match name.is_empty() {
            true => self.open = true,
            false => {
                self.index.entry(name).or_insert(self.all.len());
            }
        }
        self.all.push(Declaration { def, node, whole });
    }

    fn find(&self, name: &str) -> Option<&Declaration<T>> {
        self.index.get(name).map(|index| &self.all[*index])
    }

    /// Finds what `name` refers to, and reports a name that refers to nothing.
    fn resolve(
        &self,
        kind: Kind,
        name: &str,
        loc: &Loc,
        errors: &mut Vec<DefError>,
    ) -> Option<&Declaration<T>> {
        let found = self.find(name);
        if found.is_none() && !self.open && !name.is_empty() {
            let known = self.index.keys().map(String::as_str);
            let cause = format!("unknown {} `{name}`", kind.noun());
            errors.push(DefError::new(loc, cause).with_help(suggest(name, known)));
        }
        found
    }

    fn by_name(self, name: impl Fn(&T) -> String) -> BTreeMap<String, T> {
        self.all.into_iter().map(|declaration| (name(&declaration.def), declaration.def)).collect()
    }
}

impl Declared {
    /// After a document that could not be read: it might have declared anything.
    fn leave_open(&mut self) {
        self.entities.open = true;
        self.sources.open = true;
        self.views.open = true;
        self.services.open = true;
        self.models.open = true;
    }

    fn add(&mut self, kind: Kind, node: Node, sound: bool, errors: &mut Vec<DefError>) {
        let before = errors.len();
        structure::check_object(kind.object(), &node, errors);
        let whole = sound && errors.len() == before;
        match kind {
            Kind::Entity => {
                let def = read::entity(&node);
                self.entities.add(def.name.clone(), def, node, whole);
            }
            Kind::Source => {
                let def = read::source(&node);
                self.sources.add(def.name.clone(), def, node, whole);
            }
            Kind::FeatureView => {
                let def = read::view(&node);
                self.views.add(def.name.clone(), def, node, whole);
            }
            Kind::FeatureService => {
                let def = read::service(&node);
                self.services.add(def.name.clone(), def, node, whole);
            }
            Kind::Model => {
                let def = model::read(&node);
                self.models.add(def.name.clone(), def, node, whole);
            }
        }
    }

    fn into_definitions(self) -> Definitions {
        Definitions {
            entities: self.entities.by_name(|def| def.name.clone()),
            sources: self.sources.by_name(|def| def.name.clone()),
            views: self.views.by_name(|def| def.name.clone()),
            services: self.services.by_name(|def| def.name.clone()),
            models: self.models.by_name(|def| def.name.clone()),
        }
    }
}
