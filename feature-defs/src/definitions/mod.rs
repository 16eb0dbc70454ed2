//! Which nouns does the language have?
//!
//! Everything here has passed the checks of [`parse`](crate::parse()): names resolve, durations are numbers, no
//! name is declared twice. Each noun keeps the line it was declared at, so that a later check can point there.

mod column;
mod connection;
mod model;
mod role;
mod service;
mod source;
mod view;

use std::collections::BTreeMap;

pub use self::column::{Column, Expr, Feature, Literal};
pub use self::connection::{
    Catalog, Connection, Database, DriverOption, KafkaOptions, OAuth, SaslMechanism, SchemaRegistry, Secret,
    StorageOptions,
};
pub use self::model::{
    Action, Artifact, Batching, Example, Fallback, Input, Inputs, Instead, Isolation, Model, ModelFile,
    ModelVersion, Remote, Route, Step, TrainedOn,
};
pub use self::role::{ADMIN, Governance, Grant, Limits, Member, Operation, Pick, Rate, Right, Role};
pub use self::service::{FeatureService, Projection};
pub use self::source::{BatchSource, Broker, Cataloged, PullSource, PulledRows, Source, Start, StreamSource};
pub use self::view::{Aggregation, At, FeatureView, Function, Window};
use crate::error::Loc;
pub use crate::shape::Kind;

/// Every definition of a repository, by kind and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Entities by name.
    pub entities: BTreeMap<String, Entity>,
    /// Connections by name.
    pub connections: BTreeMap<String, Connection>,
    /// Sources by name.
    pub sources: BTreeMap<String, Source>,
    /// Feature views by name.
    pub views: BTreeMap<String, FeatureView>,
    /// Feature services by name.
    pub services: BTreeMap<String, FeatureService>,
    /// Models by name.
    pub models: BTreeMap<String, Model>,
    /// Roles by name.
    pub roles: BTreeMap<String, Role>,
}

/// What every definition has, whatever its kind.
pub trait Definition {
    /// Its kind.
    fn kind(&self) -> Kind;
    /// Its name, unique among its kind.
    fn name(&self) -> &str;
    /// Whose it is; a role is nobody's.
    fn governance(&self) -> Option<&Governance>;
    /// Where it is declared.
    fn loc(&self) -> &Loc;
}

macro_rules! definitions {
    ($($kind:ident: $governance:expr;)*) => {$(
        impl Definition for $kind {
            fn kind(&self) -> Kind {
                Kind::$kind
            }

            fn name(&self) -> &str {
                &self.name
            }

            fn governance(&self) -> Option<&Governance> {
                let governance: fn(&$kind) -> Option<&Governance> = $governance;
                governance(self)
            }

            fn loc(&self) -> &Loc {
                &self.loc
            }
        }
    )*};
}

definitions! {
    Entity: |it| Some(&it.governance);
    Connection: |it| Some(&it.governance);
    Source: |it| Some(&it.governance);
    FeatureView: |it| Some(&it.governance);
    FeatureService: |it| Some(&it.governance);
    Model: |it| Some(&it.governance);
    Role: |_| None;
}

impl Definitions {
    /// All of them, kind by kind.
    pub fn all(&self) -> impl Iterator<Item = &dyn Definition> {
        fn each<T: Definition>(of: &BTreeMap<String, T>) -> impl Iterator<Item = &dyn Definition> {
            of.values().map(|it| it as &dyn Definition)
        }
        let Definitions { entities, connections, sources, views, services, models, roles } = self;
        let rows = each(entities).chain(each(connections)).chain(each(sources));
        rows.chain(each(views)).chain(each(services)).chain(each(models)).chain(each(roles))
    }

    /// The one of this kind and name.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&dyn Definition> {
        fn one<'a, T: Definition>(of: &'a BTreeMap<String, T>, name: &str) -> Option<&'a dyn Definition> {
            of.get(name).map(|it| it as &dyn Definition)
        }
        match kind {
            Kind::Entity => one(&self.entities, name),
            Kind::Connection => one(&self.connections, name),
            Kind::Source => one(&self.sources, name),
            Kind::FeatureView => one(&self.views, name),
            Kind::FeatureService => one(&self.services, name),
            Kind::Model => one(&self.models, name),
            Kind::Role => one(&self.roles, name),
        }
    }
}

/// What features describe: a plane, a route, a customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The columns that identify one entity, in key order.
    pub join_keys: Vec<Column>,
    /// Whose it is.
    pub governance: Governance,
    /// Where it is declared.
    pub loc: Loc,
}
