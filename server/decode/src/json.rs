//! How does JSON become Arrow columns?
//!
//! A body is parsed once into [`Json`], which borrows its text, and then read column by column with the types that the
//! feature service declares. Nothing is guessed: a value of another type is an error that names its instance, its
//! column, and both types.

mod labels;
mod parse;
mod read;
mod rows;

pub use labels::labels;
pub use parse::{body, flag, object};
pub use quern_engine::json::Json;
pub use read::{Asked, INSTANCES_MAX, cells, columns, entities, instances, limit};
pub use rows::{event, events, rows};
