//! What did we know about an entity at a moment, and which vector does a model get from it?
//!
//! This crate is pure: no tokio, no files, no clock. Read it in this order:
//!
//! 1. [`schema`]: which Arrow types stand for the types of the language; [`instant`]: which moments numbers
//!    say; [`json`]: which values JSON says.
//! 2. [`expr`]: SQL text, checked and compiled once, evaluated on batches.
//! 3. [`ViewPlan`]: raw rows of a source become stamped, keyed feature rows.
//! 4. [`key`] and [`row`]: keys and feature rows as bytes, for the head.
//! 5. [`asof`]: the point-in-time join: rows stream past a spine, the latest visible one stays.
//! 6. [`windows`]: aggregates over time, from events (training) and from tiles (serving), by one algebra.
//! 7. [`ServicePlan`]: where training and serving meet. Both hand it the same columns and get the same vector.
//! 8. [`fit`]: the vector becomes a model's tensors; [`examples`]: vectors that a model is tried on; [`Computed`] what
//!    stands between models, or in for one.
//! 9. [`size`]: how much of all that may be held together; [`weigh`]: what a message of Arrow IPC will take;
//!    [`caught`]: what becomes of a library's panic.
//!
//! Architecture invariant: a row is a batch of one. No function here has a second path for a single row.

mod address;
pub mod asof;
mod catalog;
pub mod caught;
mod compute;
mod default;
mod digest;
mod error;
pub mod examples;
pub mod expr;
mod failed;
pub mod fit;
mod inputs;
pub mod instant;
pub mod json;
pub mod key;
pub mod row;
pub mod schema;
mod service;
pub mod size;
pub mod time;
mod view;
pub mod weigh;
pub mod windows;

pub use catalog::{Catalog, SourceSchemas, compile};
pub use compute::{Computed, Uncompiled};
pub use digest::ColumnDigest;
pub use error::{EngineError, Misfit, in_words};
pub use failed::Failed;
pub use inputs::Inputs;
pub use service::{Found, Lookup, Origin, ServicePlan};
pub use time::{RowState, Status};
pub use view::{Condition, Stamps, ViewId, ViewPlan};
