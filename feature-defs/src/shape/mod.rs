//! What may stand under a key, and which keys does a kind have?
//!
//! The words are in [`object`], the tables in [`table`] and beside it. They are read by the structural
//! checks, by the JSON Schemas and by the test that writes the tables of `docs/definitions.md`, so that the three
//! cannot drift apart.

mod connection;
mod kind;
mod model;
mod object;
mod role;
mod table;

pub(crate) use connection::{CREDENTIALS_OF, SECURITY_PROTOCOLS, Who};
pub use kind::Kind;
pub(crate) use object::{NAME_CHARS_MAX, OBJECT_SCHEMES, Object, Shape, type_names};
