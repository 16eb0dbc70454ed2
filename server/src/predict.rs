//! What does a model say of these entities? Keys and request columns in, predictions out, and which version made each.
//!
//! A [`Target`] is a model as one request sees it. It says which columns an instance brings, and answers an [`Ask`]:
//!
//! 1. [`route`]: which version answers which instance.
//! 2. [`answer`]: the version looks the features up and predicts.
//! 3. [`fallback`]: what answers where it does not, or should not.
//! 4. [`shadow`]: versions that get the same and whose answers nobody waits for.
//!
//! [`live`] is what all of them know beforehand. [`batch`] asks about whole tables; [`log`] keeps what was said,
//! [`logged`] reads it, and [`joined`] puts labels beside it.

mod answer;
pub mod batch;
mod fallback;
pub mod joined;
mod live;
pub mod log;
pub mod logged;
mod route;
mod shadow;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use feature_defs::suggest;
use quern_engine::ServicePlan;

use self::answer::Instances;
pub use self::fallback::{Cause, Reason};
pub use self::live::{LiveModel, LiveVersion};
use self::log::Noted;
pub use self::route::Route;
use crate::Quern;
use crate::deployment::Deployment;
use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::serving::Vectors;
use quern_inference::Limits;
pub use quern_inference::Priority;

/// The columns that a request brings for each instance, besides `event_timestamp`.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What wants them: `feature service` or `model`.
    pub kind: &'a str,
    /// Its name; empty where a request lists features itself.
    pub of: &'a str,
    /// Names and types: join keys, then request columns.
    pub schema: &'a SchemaRef,
}

impl<'a> From<&'a ServicePlan> for Inputs<'a> {
    fn from(service: &'a ServicePlan) -> Self {
        Inputs { kind: "feature service", of: &service.name, schema: &service.inputs }
    }
}

/// A model, as one request sees it.
#[derive(Debug)]
pub struct Target {
    live: Arc<Deployment>,
    model: Arc<LiveModel>,
    /// The place of the version that the caller names.
    pinned: Option<usize>,
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

/// What the model says.
pub struct Answer {
    /// A row for each instance, a column for each output of the model.
    pub outputs: RecordBatch,
    /// Who said it: every instance is in one part.
    pub parts: Vec<Part>,
}

/// Instances that were answered alike.
pub struct Part {
    /// Their places in the request, ascending.
    pub rows: Vec<usize>,
    /// The version that answered them, or that would have where an expression or a constant did.
    pub version: Arc<LiveVersion>,
    /// What answered: the name of a version, `expr` or `constant`.
    pub served_by: String,
    /// Why that one, where it was not the version's turn.
    pub reason: Option<Reason>,
    /// What it saw, row by row; none where the caller brought the vectors, or nothing could be looked up.
    pub vectors: Option<Vectors>,
    /// What it said, row by row.
    pub outputs: RecordBatch,
}

impl Target {
    /// The model called `model`, or one version of it.
    ///
    /// # Errors
    /// `Kind::NotFound`, with the nearest names.
    pub fn find(quern: &Quern, model: &str, version: Option<&str>) -> Result<Target> {
        let live = quern.live();
        let found = live.models.get(model).cloned().ok_or_else(|| {
            let known = suggest(model, live.models.keys().map(String::as_str));
            Error::not_found(format!("unknown model `{model}`; {known}"))
        })?;
        let pinned = version.map(|name| {
            found.place(name).ok_or_else(|| {
                let known = suggest(name, found.versions.iter().map(|live| live.version.as_str()));
                Error::not_found(format!("model `{model}` has no version `{name}`; {known}"))
            })
        });
        Ok(Target { pinned: pinned.transpose()?, live, model: found })
    }

    /// The model.
    pub fn model(&self) -> &LiveModel {
        &self.model
    }

    /// What is live for this request.
    pub fn live(&self) -> &Arc<Deployment> {
        &self.live
    }

    /// The version that the caller names, or the one that answers most.
    pub fn version(&self) -> &Arc<LiveVersion> {
        &self.model.versions[self.place()]
    }

    /// Whether an answer should tell who gave it: it may have been one or another.
    pub fn says_who(&self) -> bool {
        self.pinned.is_none() && self.model.says_who
    }

    fn place(&self) -> usize {
        self.pinned.unwrap_or_else(|| self.model.route.heaviest())
    }

    /// What an instance brings.
    pub fn inputs(&self) -> Inputs<'_> {
        match self.pinned {
            None if self.model.says_who => {
                Inputs { kind: "model", of: &self.model.name, schema: &self.model.inputs }
            }
            _ => Inputs::from(self.version().service.as_ref()),
        }
    }

    /// The columns of a whole feature vector, for who brings that instead.
    pub fn features(&self) -> &SchemaRef {
        &self.version().service.outputs
    }

    /// Answers. A caller who names a version gets that one or an error; others what the model's route says, or what
    /// stands in for it.
    ///
    /// # Errors
    /// As [`look_up`](crate::serving::look_up) and [`predict`](quern_inference::predict).
    pub async fn predict(&self, quern: &Arc<Quern>, ask: Ask) -> Result<Answer> {
        let noted = quern.predictions.note(self, &ask).map(Arc::new);
        let limits = Limits { deadline: ask.deadline, priority: ask.priority };
        let answer = match ask.given {
            Given::Vectors(vectors) => Box::pin(self.predict_vectors(vectors, limits)).await?,
            Given::Entities { inputs, query_times_us } => {
                let all = Instances::all(inputs, query_times_us);
                self.predict_entities(quern, all, limits, noted.as_ref()).await?
            }
        };
        self.count(&answer);
        if let Some(noted) = &noted {
            quern.predictions.record(noted, &answer.parts);
        }
        Ok(answer)
    }

    async fn predict_vectors(&self, vectors: RecordBatch, limits: Limits) -> Result<Answer> {
        let version = self.version();
        let outputs = self.infer(version, &vectors, limits).await?;
        let part = Part {
            rows: (0..outputs.num_rows()).collect(),
            version: Arc::clone(version),
            served_by: version.version.clone(),
            reason: None,
            vectors: None,
            outputs: outputs.clone(),
        };
        Ok(Answer { outputs, parts: vec![part] })
    }

    async fn predict_entities(
        &self,
        quern: &Arc<Quern>,
        all: Instances,
        limits: Limits,
        noted: Option<&Arc<Noted>>,
    ) -> Result<Answer> {
        let rows = all.rows.len();
        let mut parts = Vec::with_capacity(1);
        if let Some(place) = self.pinned {
            parts.push(self.answer(quern, place, all, limits).await?);
        } else {
            let route = &self.model.route;
            let shadowed = (!route.shadow.is_empty()).then(|| all.clone());
            match route.only() {
                Some(place) if self.model.fallback.is_none() => {
                    parts.push(self.answer(quern, place, all, limits).await?);
                }
                // On the heap, as is what falls back: most requests do neither, and would carry the room for it.
                Some(place) => {
                    parts.extend(Box::pin(self.answer_or_fall_back(quern, place, all, limits)).await?);
                }
                None => {
                    for (place, rows) in route.assign(&all.inputs)? {
                        let instances = all.pick(&rows)?;
                        let answered = self.answer_or_fall_back(quern, place, instances, limits);
                        parts.extend(Box::pin(answered).await?);
                    }
                }
            }
            if let Some(all) = shadowed {
                self.shadow(quern, all, &parts, noted.cloned());
            }
        }
        Ok(Answer { outputs: together(&parts, rows, &self.version().model.outputs)?, parts })
    }

    fn count(&self, answer: &Answer) {
        let name = self.model.name.as_str();
        for part in &answer.parts {
            let route = match (&part.reason, self.pinned) {
                (Some(_), _) => "fallback",
                (None, Some(_)) => "pinned",
                (None, None) => "route",
            };
            let rows = part.rows.len() as u64;
            metrics().predictions.with_label_values(&[name, &part.served_by, route]).inc_by(rows);
            if let Some(reason) = &part.reason {
                let cause = reason.cause.as_str();
                metrics().fallbacks.with_label_values(&[name, cause, &part.served_by]).inc_by(rows);
            }
        }
    }
}

/// The outputs of all parts, in the order of the instances.
fn together(parts: &[Part], rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    match parts {
        [] => Ok(RecordBatch::new_empty(Arc::clone(schema))),
        [only] => Ok(only.outputs.clone()),
        _ => {
            let mut places = vec![(0, 0); rows];
            for (part, of) in parts.iter().enumerate() {
                of.rows.iter().enumerate().for_each(|(at, row)| places[*row] = (part, at));
            }
            let outputs: Vec<&RecordBatch> = parts.iter().map(|part| &part.outputs).collect();
            Ok(interleave_record_batch(&outputs, &places)?)
        }
    }
}
