//! What does a model say of these columns?
//!
//! Models are ONNX files, run by ONNX Runtime, whose shared library is loaded once per process. A model is loaded from
//! bytes, fitted to its feature service and tried before it goes live: what does not fit or does not run never does.
//!
//! 1. [`Model`]: one file, or the steps of an ensemble.
//! 2. [`onnx`]: one file: its sessions, and how vectors become its tensors.
//! 3. [`needs`]: what a file lacks.
//! 4. [`bounds`]: which files may end or hang the process that runs them; [`trees`]: which read beyond their row.
//! 5. [`worker`]: a process of its own, in which every file is tried, and such a file runs.
//! 6. [`queue`]: who runs when, and together with whom.
//!
//! Architecture invariant: this crate knows columns, tensors and ONNX Runtime; no store, no view and no route.

mod bounds;
mod counts;
mod error;
mod graph;
mod library;
mod metrics;
mod model;
mod needs;
mod onnx;
mod outputs;
mod parts;
mod program;
mod provider;
mod queue;
mod rules;
mod run;
mod runner;
mod runtime;
mod stop;
mod trees;
pub mod weights;
mod worker;

pub use self::counts::Work;
pub use self::error::{Error, Result};
pub use self::metrics::metrics;
pub use self::model::{Model, Predictions, digest, paths, predict};
pub use self::program::Program;
pub use self::provider::Provider;
pub use self::queue::{Limits, Pressure, Priority};
pub use self::rules::Rules;
pub use self::runtime::Runtime;
pub use self::worker::serve;

#[cfg(test)]
mod tests;
