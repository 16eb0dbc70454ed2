//! Which kinds of documents are there?

use super::object::Object;
use super::{connection, model, role, table};

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An entity.
    Entity,
    /// A connection.
    Connection,
    /// A source.
    Source,
    /// A feature view.
    FeatureView,
    /// A feature service.
    FeatureService,
    /// A model.
    Model,
    /// A role.
    Role,
}

impl Kind {
    /// In the order a repository is read: a kind refers only to kinds before it.
    pub(crate) const ALL: [Kind; 7] = [
        Kind::Entity,
        Kind::Connection,
        Kind::Source,
        Kind::FeatureView,
        Kind::FeatureService,
        Kind::Model,
        Kind::Role,
    ];

    /// The value of `kind`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Entity => "Entity",
            Kind::Connection => "Connection",
            Kind::Source => "Source",
            Kind::FeatureView => "FeatureView",
            Kind::FeatureService => "FeatureService",
            Kind::Model => "Model",
            Kind::Role => "Role",
        }
    }

    /// Its name in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Entity => "entity",
            Kind::Connection => "connection",
            Kind::Source => "source",
            Kind::FeatureView => "feature view",
            Kind::FeatureService => "feature service",
            Kind::Model => "model",
            Kind::Role => "role",
        }
    }

    /// Its keys.
    pub(crate) fn object(self) -> &'static Object {
        match self {
            Kind::Entity => &table::ENTITY,
            Kind::Connection => &connection::CONNECTION,
            Kind::Source => &table::SOURCE,
            Kind::FeatureView => &table::FEATURE_VIEW,
            Kind::FeatureService => &table::FEATURE_SERVICE,
            Kind::Model => &model::MODEL,
            Kind::Role => &role::ROLE,
        }
    }
}
