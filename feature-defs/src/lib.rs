//! What does a data scientist declare, and is it sound?
//!
//! YAML documents go in; checked [`Definitions`] come out, or every mistake at once, each with its line.
//! This crate does no I/O: the caller reads the files and hands over their text. What needs a SQL engine
//! (types of expressions, cycles among derived features) or a disk (schemas of sources, ONNX files) is checked
//! by the crates above, which report through the same [`DefError`] at the same [`Loc`].

mod definitions;
mod dtype;
mod duration;
pub mod epoch;
mod error;
mod format;
mod literal;
mod parse;
mod project;
mod reach;
#[cfg(test)]
mod reference;
mod registered;
mod schema;
mod shape;
mod stored;
mod whose;
mod words;
mod yaml;

pub use definitions::{
    ADMIN, Action, Aggregation, Artifact, At, BatchSource, Batching, Broker, Catalog, Cataloged, Column,
    Connection, Database, Definition, Definitions, DriverOption, Entity, Example, Expr, Fallback, Feature,
    FeatureService, FeatureView, Function, Governance, Grant, Input, Inputs, Instead, Isolation,
    KafkaOptions, Kind, Limits, Literal, Member, Model, ModelFile, ModelVersion, OAuth, Operation, Pick,
    Projection, PullSource, PulledRows, Rate, Remote, Right, Role, Route, SaslMechanism, SchemaRegistry,
    Secret, Source, Start, Step, StorageOptions, StreamSource, TrainedOn, Window,
};
pub use dtype::{ScalarType, Type};
pub use duration::{format_duration, parse_duration};
pub use epoch::Epoch;
pub use error::{DefError, Loc, nearest, suggest};
pub use format::{Dialect, Encoding, Format};
pub use literal::fit;
pub use parse::{DefFile, parse};
pub use project::{DEFAULT_PROJECT, is_project};
pub use reach::{Reach, Server};
pub use registered::{Registered, RegisteredModel};
pub use schema::schemas;
pub use stored::Stored;
pub use whose::{Whose, says_kind, whose};
