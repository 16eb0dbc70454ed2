//! What is one version of a model, loaded?

use std::sync::Arc;

use quern_engine::ServicePlan;
use quern_inference::Model;

/// One version of a model, loaded.
#[derive(Debug)]
pub struct LiveVersion {
    /// Unique within the model.
    pub version: String,
    /// What feeds it.
    pub service: Arc<ServicePlan>,
    /// What makes the predictions.
    pub model: Arc<Model>,
    /// Its files, in the order of its steps.
    pub files: Vec<LiveFile>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// Its SHA-256.
    pub digest: String,
    /// The path that it was read from: the declared one, or the registered version that an alias led to.
    pub path: String,
}
