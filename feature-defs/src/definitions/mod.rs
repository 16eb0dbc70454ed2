//! Which nouns does the language have?
//!
//! Everything here has passed the checks of [`parse`](crate::parse()): names resolve, durations are numbers, no
//! name is declared twice. Each noun keeps the line it was declared at, so that a later check can point there.

mod column;
mod model;
mod role;
mod service;
mod source;
mod view;

use std::collections::BTreeMap;

pub use self::column::{Column, Expr, Feature, Literal};
pub use self::model::{
    Action, Artifact, Batching, Fallback, Instead, Isolation, Model, ModelVersion, Route, Step,
};
pub use self::role::{Governance, Grant, Limits, Member, Operation, Pick, Rate, Right, Role};
pub use self::service::{FeatureService, Projection};
pub use self::source::{BatchSource, Broker, Format, Source, StreamSource};
pub use self::view::{Aggregation, At, FeatureView, Function, Window};
use crate::error::Loc;

/// Every definition of a repository, by kind and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Entities by name.
    pub entities: BTreeMap<String, Entity>,
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
