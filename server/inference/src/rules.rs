//! How is a version run?

use feature_defs::{Batching, Isolation};

/// How a version is run, and whose it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// Name of the model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// How requests share a run.
    pub batching: Batching,
    /// Which process its files run in.
    pub isolation: Isolation,
}
