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
    /// The digests of its files, in the order of its steps.
    pub files: Vec<String>,
}
