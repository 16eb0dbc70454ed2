//! Which documents are there, by kind and name, and may there be more than could be read?

use std::collections::BTreeMap;

use crate::reach::Reach;
use crate::shape::Kind;
use crate::yaml::Node;
use crate::{
    Connection, DefError, Definition, Definitions, Entity, FeatureService, FeatureView, Loc, Model, Role,
    Source, suggest,
};

/// All documents, by kind.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) entities: Names<Entity>,
    pub(super) connections: Names<Connection>,
    pub(super) sources: Names<Source>,
    pub(super) views: Names<FeatureView>,
    pub(super) services: Names<FeatureService>,
    pub(super) models: Names<Model>,
    pub(super) roles: Names<Role>,
}

/// The declarations of one kind.
pub(super) struct Names<T> {
    pub(super) all: Vec<Declaration<T>>,
    /// The first declaration of each name.
    index: BTreeMap<String, usize>,
    /// Whether more may be declared than could be read, so that a name not found is not a mistake.
    pub(super) open: bool,
}

/// One document and what it declares.
pub(super) struct Declaration<T> {
    pub(super) def: T,
    pub(super) node: Node,
    /// Whether its shape is sound; otherwise `def` may lack what the document meant to say.
    pub(super) whole: bool,
}

impl<T> Declaration<T> {
    /// Whether it is for the definitions of `project`: one of its own, or one that is shared with it.
    fn is_for(&self, project: &str) -> bool {
        let shared = self.node.get("share").map(Node::items).unwrap_or_default();
        let with = |named: &Node| named.text().is_some_and(|name| name == project || name == "*");
        self.node.loc.project() == project || shared.iter().any(with)
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { all: Vec::new(), index: BTreeMap::new(), open: false }
    }
}

impl<T: Definition> Names<T> {
    pub(super) fn add(&mut self, def: T, node: Node, whole: bool) {
        match def.name() {
            "" => self.open = true,
            name => {
                self.index.entry(name.to_owned()).or_insert(self.all.len());
            }
        }
        self.all.push(Declaration { def, node, whole });
    }

    pub(super) fn find(&self, name: &str) -> Option<&Declaration<T>> {
        self.index.get(name).map(|index| &self.all[*index])
    }

    /// Finds what `name` refers to at `loc`, and reports a name that refers to nothing there: to nothing of its
    /// project, nor to what another one shares with it.
    pub(super) fn resolve(
        &self,
        kind: Kind,
        name: &str,
        loc: &Loc,
        errors: &mut Vec<DefError>,
    ) -> Option<&Declaration<T>> {
        let found = self.find(name).filter(|declaration| declaration.is_for(loc.project()));
        if found.is_none() && !self.open && !name.is_empty() {
            let known = self.index.iter().filter(|(_, index)| self.all[**index].is_for(loc.project()));
            let cause = format!("unknown {} `{name}`", kind.noun());
            let help = suggest(name, known.map(|(name, _)| name.as_str()));
            errors.push(DefError::new(loc, cause).with_help(help));
        }
        found
    }

    fn by_name(self) -> BTreeMap<String, T> {
        self.all.into_iter().map(|it| (it.def.name().to_owned(), it.def)).collect()
    }
}

impl Declared {
    /// After a document that could not be read: it might have declared anything.
    pub(super) fn leave_open(&mut self) {
        self.entities.open = true;
        self.connections.open = true;
        self.sources.open = true;
        self.views.open = true;
        self.services.open = true;
        self.models.open = true;
        self.roles.open = true;
    }

    /// The documents of what may have an owner.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Node> {
        fn each<T>(of: &Names<T>) -> impl Iterator<Item = &Node> {
            of.all.iter().map(|declaration| &declaration.node)
        }
        let Declared { entities, connections, sources, views, services, models, roles: _ } = self;
        let rows = each(entities).chain(each(connections)).chain(each(sources));
        rows.chain(each(views)).chain(each(services)).chain(each(models))
    }

    pub(super) fn into_definitions(mut self) -> Definitions {
        for source in self.sources.all.iter_mut().map(|it| &mut it.def) {
            if let Some(pull) = &mut source.pull {
                pull.connection = self.connections.find(&pull.by).map(|it| it.def.clone());
            }
            if let Some(stream) = &mut source.stream {
                let reach = Reach::Servers(stream.reaches.clone());
                let connections = self.connections.all.iter().map(|it| &it.def);
                stream.connection = Connection::to(&reach, source.loc.project(), connections).cloned();
                let registered = stream.registry.as_ref().and_then(|by| self.connections.find(by));
                stream.registered = registered.map(|it| it.def.clone());
            }
            let Some(batch) = &mut source.batch else { continue };
            if let Some(catalog) = &mut batch.catalog {
                let project = source.loc.project();
                let all = self.connections.all.iter().map(|it| &it.def).filter(|it| it.is_for(project));
                let is_store = |it: &&Connection| matches!(it.reach, Reach::Objects { .. });
                catalog.storage = all.filter(is_store).cloned().collect();
                catalog.connection = self.connections.find(&catalog.by).map(|it| it.def.clone());
            }
            let Some(Ok(reach)) = batch.objects().map(Reach::parse) else { continue };
            let connections = self.connections.all.iter().map(|it| &it.def);
            batch.connection = Connection::to(&reach, source.loc.project(), connections).cloned();
        }
        Definitions {
            entities: self.entities.by_name(),
            connections: self.connections.by_name(),
            sources: self.sources.by_name(),
            views: self.views.by_name(),
            services: self.services.by_name(),
            models: self.models.by_name(),
            roles: self.roles.by_name(),
        }
    }
}
