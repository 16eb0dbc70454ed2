//! What does a model say of these entities? Keys and request columns in, predictions out, and which version made each.
//!
//! A [`Target`] is a model as one request sees it. It says which columns an instance brings, and answers an [`Ask`].

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feature_defs::suggest;
use quern_engine::ServicePlan;

use crate::deployment::{Deployment, LiveModel, LiveVersion};
use crate::error::{Error, Result};
use crate::serving::{self, Vectors};
use crate::{Quern, inference};

/// The columns that a request brings for each instance, besides `event_timestamp`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The feature service or model that wants them, as people call it; empty where a request lists features itself.
    pub of: &'a str,
    /// Names and types: join keys, then request columns.
    pub schema: &'a SchemaRef,
}

impl<'a> From<&'a ServicePlan> for Inputs<'a> {
    fn from(service: &'a ServicePlan) -> Self {
        Inputs { of: &service.name, schema: &service.inputs }
    }
}

/// A model, as one request sees it.
#[derive(Debug)]
pub struct Target {
    live: Arc<Deployment>,
    model: Arc<LiveModel>,
    /// The version that the caller names.
    pinned: Option<Arc<LiveVersion>>,
}

/// What a request asks of a model.
#[derive(Debug)]
pub struct Ask {
    /// What is known of each instance.
    pub given: Given,
    /// Names the request, in the reply and in the prediction log.
    pub request_id: String,
    /// When nobody waits for the answer any more.
    pub deadline: Option<Instant>,
    /// Who goes first where not all can.
    pub priority: Priority,
}

/// What is known of each instance.
#[derive(Debug)]
pub enum Given {
    /// Its keys and request columns, as [`Target::inputs`] has them, and its query time (µs).
    Entities {
        /// A row for each instance.
        inputs: RecordBatch,
        /// One for each row.
        query_times_us: Vec<i64>,
    },
    /// Its whole feature vector, as [`Target::features`] has it.
    Vectors(RecordBatch),
}

/// Who goes first where not all can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody waits for a single answer.
    Batch,
    /// Somebody waits.
    #[default]
    Interactive,
}

/// What the model says.
pub struct Answer {
    /// A row for each instance, a column for each output of the model.
    pub outputs: RecordBatch,
    /// Who said it: every instance is in one part.
    pub parts: Vec<Part>,
}

/// Instances that one version answered.
pub struct Part {
    /// Their places in the request, ascending.
    pub rows: Vec<usize>,
    /// The version.
    pub version: Arc<LiveVersion>,
    /// What it saw, row by row; none where the caller brought the vectors.
    pub vectors: Option<Vectors>,
}

impl Target {
    /// The model called `model`, or one version of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], with the nearest names.
    pub fn find(quern: &Quern, model: &str, version: Option<&str>) -> Result<Target> {
        let live = quern.live();
        let found = live.models.get(model).cloned().ok_or_else(|| {
            let known = suggest(model, live.models.keys().map(String::as_str));
            Error::NotFound(format!("unknown model `{model}`; {known}"))
        })?;
        let pinned = match version {
            None => None,
            Some(name) => {
                let version =
                    found.versions.iter().find(|version| version.version == name).ok_or_else(|| {
                        let known = suggest(name, found.versions.iter().map(|live| live.version.as_str()));
                        Error::NotFound(format!("model `{model}` has no version `{name}`; {known}"))
                    })?;
                Some(Arc::clone(version))
            }
        };
        Ok(Target { live, model: found, pinned })
    }

    /// The model.
    pub fn model(&self) -> &LiveModel {
        &self.model
    }

    /// The version that the caller names, or the one that answers by default.
    pub fn version(&self) -> &Arc<LiveVersion> {
        self.pinned.as_ref().unwrap_or_else(|| self.model.versions.last().expect("a model has a version"))
    }

    /// What an instance brings.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs::from(self.version().service.as_ref())
    }

    /// The columns of a whole feature vector, for who brings that instead.
    pub fn features(&self) -> &SchemaRef {
        &self.version().service.outputs
    }

    /// Answers.
    ///
    /// # Errors
    /// As [`serving::look_up`] and [`inference::predict`].
    pub async fn predict(&self, quern: &Arc<Quern>, ask: Ask) -> Result<Answer> {
        let version = self.version();
        let (vectors, batch) = match ask.given {
            Given::Entities { inputs, query_times_us } => {
                let vectors =
                    serving::look_up(quern, &self.live, &version.service, inputs, query_times_us).await?;
                let batch = vectors.vectors.clone();
                (Some(vectors), batch)
            }
            Given::Vectors(batch) => (None, batch),
        };
        let outputs = inference::predict(&version.model, &batch).await?.outputs;
        let rows = (0..outputs.num_rows()).collect();
        Ok(Answer { outputs, parts: vec![Part { rows, version: Arc::clone(version), vectors }] })
    }
}
