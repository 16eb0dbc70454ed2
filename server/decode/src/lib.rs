//! How do the bytes of a request become columns?
//!
//! [`json`] reads rows, with the types that a feature service declares, and events with those of a source; [`avro`] and
//! [`schema`] say what is in an event that is no JSON. [`tensor`] and its [`datatype`] are those of
//! the Open Inference Protocol, both ways; [`print`] writes values as replies show them.
//!
//! Architecture invariant: no store, no node and no socket: whatever is thrown at it, it can be tried on its own.

pub mod avro;
pub mod datatype;
mod error;
pub mod json;
pub mod print;
mod protobuf;
pub mod schema;
pub mod tensor;

pub use self::error::{Error, Result};
pub use self::protobuf::Protobuf;

pub use quern_engine::json::BASE64;

#[cfg(test)]
mod tests;
