//! Quern: a feature store that serves models.
//!
//! Everything that touches a disk, a socket or a clock. The three ways of the data, and where to read them:
//!
//! ```text
//! write   source rows ─► history ─► head                 store/history, materialize, store/rocks
//! train   spine ─► as-of(history) ─► derived ─► Flight    training, past, point_in_time, api/flight
//! serve   keys ─► look-up(head) ─► derived ─► ONNX ─► reply   serving, predict, inference, api/predict
//! ```
//!
//! Architecture invariant: arrows point down only, `api → verbs → store | engine → feature-defs`. The stores and the
//! engine meet in a verb and nowhere else.

pub mod api;
mod blocking;
pub mod cli;
pub mod deployment;
pub mod error;
pub mod follow;
pub mod metrics;
pub mod repository;
pub mod settings;
pub mod store;
mod trace;

pub mod apply;
pub mod labels;
pub mod materialize;
mod past;
pub mod point_in_time;
pub mod predict;
pub mod push;
pub mod serving;
pub mod training;
pub mod verify;
mod windows;

pub use deployment::{Deployment, Quern};
pub use error::{Error, Result};
pub use settings::Settings;
