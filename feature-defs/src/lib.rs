//! What does a data scientist declare, and is it sound?
//!
//! YAML documents go in; checked [`Definitions`] come out, or every mistake at once, each with its place.
//! This crate does no I/O: the caller reads the files and hands over their text. What needs a SQL engine
//! (types of expressions, cycles among derived features) or a disk (schemas of sources, ONNX files) is checked
//! by the crates above, which report through the same [`DefError`] at the same [`Loc`].

mod definitions;
mod dtype;
mod duration;
mod error;
mod literal;
mod model;
mod parse;
#[cfg(test)]
mod reference;
mod schema;
mod shape;
mod yaml;

pub use definitions::{
    Aggregation, BatchSource, Broker, Column, Definitions, Entity, Expr, Feature, FeatureService,
    FeatureView, Format, Function, Literal, Projection, ScalarType, Source, StreamSource, Type, Window,
};
pub use duration::{format_duration, parse_duration};
pub use error::{DefError, Loc, suggest};
pub use model::{Action, Artifact, Batching, Fallback, Instead, Model, ModelVersion, Route, Step};
pub use parse::{DefFile, parse};
pub use schema::schemas;
