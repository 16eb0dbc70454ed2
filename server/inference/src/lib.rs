//! What does a model say of these columns?
//!
//! Models are ONNX files, run by ONNX Runtime, whose shared library is loaded once per process. A model is loaded from
//! bytes, fitted to its feature service and tried before it goes live: what does not fit or does not run never does.
//!
//! 1. [`Model`]: one file, or the steps of an ensemble.
//! 2. [`fed`]: a model and what feeds it; [`onnx`]: one file, its sessions, and how vectors become its tensors;
//!    [`trial`]: what it says before it is asked; [`remote`]: a model on another server, which a [`caller`] asks.
//! 3. [`needs`]: what a file lacks; [`kept`]: which of its outputs are computed.
//! 4. [`bounds`]: which files may end or hang the process that runs them; [`sizes`]: which may fill it; [`trees`]:
//!    which read beyond their row.
//! 5. [`worker`]: a process of its own, in which every file is tried, and such a file runs.
//! 6. [`queue`]: how a caller gets its answer, over [`lease`], what a session does, and [`pool`], who waits for one.
//! 7. [`policy`]: who is next, and who is refused; [`costs`]: what a run will cost; [`threads`]: where it happens.
//!
//! Architecture invariant: this crate knows columns, tensors and ONNX Runtime; no store, no view and no route.

mod bounds;
mod caller;
mod costs;
mod counts;
mod error;
mod fed;
mod graph;
mod kept;
mod lease;
mod library;
mod metrics;
mod model;
mod needs;
mod number;
mod onnx;
mod outputs;
mod parts;
mod policy;
mod pool;
mod program;
mod provider;
mod queue;
pub mod remote;
mod rules;
mod run;
mod runner;
mod runtime;
mod sizes;
mod stop;
mod threads;
mod trees;
mod trial;
pub mod weights;
mod worker;

pub use self::counts::Work;
pub use self::error::{Error, Result};
pub use self::metrics::metrics;
pub use self::model::{Made, Model, Part, Predictions, digest, paths, predict};
pub use self::policy::{Limits, Priority};
pub use self::pool::Pressure;
pub use self::program::Program;
pub use self::provider::Provider;
pub use self::rules::Rules;
pub use self::runtime::Runtime;
pub use self::trial::{Rows, Tried};
pub use self::worker::serve;

#[cfg(test)]
mod tests;
