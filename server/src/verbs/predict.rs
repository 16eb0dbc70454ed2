//! What does a model say of these entities? Keys and request columns in, predictions out, and which version made each.
//!
//! A [`Target`] is a model as one request sees it. It says which columns an instance brings, and answers an [`Ask`]:
//!
//! 1. [`route`]: which version answers which instance.
//! 2. [`answer`]: the version looks the features up and predicts; [`counted`] is what of it a ramp is judged by.
//! 3. [`fallback`]: what answers where it does not, or should not.
//! 4. [`shadow`]: versions that get the same and whose answers nobody waits for.
//!
//! [`noted`] is what of it goes into the prediction log. [`batch`] asks about whole tables, `then` about their past.

mod answer;
pub mod batch;
mod counted;
mod fallback;
mod noted;
mod shadow;
mod target;
mod then;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use quern_access::{Action, Caller, Question};
use quern_engine::EngineError;
use quern_engine::size::column_bytes;
use quern_features::Reader;
use quern_inference::{Limits, Predictions};

use self::answer::{Instances, Patience, Store, Turn};
use self::noted::Noted;
pub use self::target::{Answer, Ask, Cause, Given, Part, Priority, Reason, Target};
use crate::error::{Error, Kind, Result};
use crate::live::Live;
use crate::logged::PredictionLog;
use crate::metrics::metrics;

/// Answers with predictions.
pub struct Predict {
    pub(crate) live: Live,
    pub(crate) reader: Reader,
    pub(crate) log: Arc<PredictionLog>,
}

impl Predict {
    /// The model called `model` as it is live now, or one version of it, for `who` wants predictions.
    ///
    /// # Errors
    /// As [`Target::find`].
    pub fn target(&self, who: &Caller, model: &str, version: Option<&str>) -> Result<Target> {
        Target::find(self.live.now(), who, model, version)
    }
}

impl Target {
    /// Answers. A caller who names a version gets that one or an error; others what the model's route says, or what
    /// stands in for it. One who may not know what goes into the model gets its outputs, and of a failure its kind.
    ///
    /// # Errors
    /// As [`look_up`](Reader::look_up) and [`predict`](quern_inference::predict); `Kind::Forbidden` for what would show
    /// or choose what goes into the model.
    pub async fn predict(&self, verb: &Arc<Predict>, ask: Ask) -> Result<Answer> {
        match &ask.given {
            Given::Vectors(_) => self.check_sees("bring that itself")?,
            Given::Entities { timed: true, .. } => self.check_sees("say as of when (`event_timestamp`)")?,
            Given::Entities { .. } => {}
        }
        if let Given::Entities { inputs, .. } = &ask.given {
            let services = self.model.versions.iter().map(|version| version.service.as_ref());
            let what = Question::Do(Action::Predict, &self.model.name);
            self.live.note_asked(&self.who, what, services, inputs);
        }
        let answered = self.answered(verb, ask).await;
        self.told(answered)
    }

    /// As much of an answer as whoever asks may know.
    fn told(&self, answered: Result<Answer>) -> Result<Answer> {
        if self.sees { answered } else { answered.map(Answer::without_why).map_err(veiled) }
    }

    async fn answered(&self, verb: &Arc<Predict>, ask: Ask) -> Result<Answer> {
        let noted = Noted::of(self, &ask).map(Arc::new);
        let limits = Limits { deadline: ask.deadline, priority: ask.priority };
        let patience = Patience { limits, rows: None };
        let answer = match ask.given {
            Given::Vectors(vectors) => Box::pin(self.predict_vectors(vectors, patience)).await?,
            Given::Entities { inputs, query_times_us, .. } => {
                let all = Instances::all(inputs, query_times_us);
                self.predict_entities(Store::Head(verb), all, patience, noted.as_ref()).await?
            }
        };
        self.count(&answer);
        if let Some(noted) = &noted {
            noted.record(&verb.log, &answer.parts);
        }
        Ok(answer)
    }

    /// Answers rows of a table, for none of which alone anybody waits: `under_way` are these and those before them.
    async fn predict_rows(&self, store: Store<'_>, all: Instances, under_way: usize) -> Result<Answer> {
        let rows = Some(u32::try_from(under_way).unwrap_or(u32::MAX));
        let limits = Limits { deadline: None, priority: Priority::Batch };
        let answer = self.predict_entities(store, all, Patience { limits, rows }, None).await;
        answer.iter().for_each(|answer| self.count(answer));
        self.told(answer)
    }

    async fn predict_vectors(&self, vectors: RecordBatch, patience: Patience) -> Result<Answer> {
        let version = self.version();
        let Predictions { outputs, asked } = self.infer(version, &vectors, patience).await?;
        let part = Part {
            rows: (0..outputs.num_rows()).collect(),
            version: Arc::clone(version),
            served_by: version.version.clone(),
            reason: None,
            vectors: None,
            outputs: outputs.clone(),
            asked,
        };
        Ok(Answer { outputs, parts: vec![part], veiled: false })
    }

    async fn predict_entities(
        &self,
        store: Store<'_>,
        all: Instances,
        patience: Patience,
        noted: Option<&Arc<Noted>>,
    ) -> Result<Answer> {
        let rows = all.rows.len();
        let mut parts = Vec::new();
        // On the heap: a request would carry the room for all that may become of it.
        let keeps = self.shows;
        if let Some(place) = self.pinned {
            let turn = Turn { place, instances: all, alone: true, keeps };
            parts = Box::pin(self.answer_all(store, turn, patience)).await?;
        } else {
            let route = &self.model.route;
            let shadowed = (!route.shadow.is_empty()).then(|| all.clone());
            match route.only() {
                Some(place) => {
                    let turn = Turn { place, instances: all, alone: false, keeps };
                    parts = Box::pin(self.answer_counted(store, turn, patience)).await?;
                }
                None => {
                    for (place, rows) in route.assign(&all.inputs)? {
                        let turn = Turn { place, instances: all.pick(&rows)?, alone: false, keeps };
                        parts.extend(Box::pin(self.answer_counted(store, turn, patience)).await?);
                    }
                }
            }
            // What is asked of the past is no request.
            if let (Some(all), Store::Head(verb)) = (shadowed, store) {
                self.shadow(verb, all, &parts, noted.cloned());
            }
        }
        let outputs = together(&parts, rows, &self.version().model.outputs)?;
        Ok(Answer { outputs, parts, veiled: false })
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

/// What went wrong, for who may not know what went into it: its kind, and when to come again. The log has the rest.
fn veiled(error: Error) -> Error {
    let words = match error.kind() {
        Kind::TooLarge => "the prediction cannot be computed: ask for fewer instances at a time",
        Kind::Overloaded => "the prediction cannot be computed now: too many are asked for",
        Kind::Late => "the prediction was not there in time",
        Kind::Unavailable => "the prediction cannot be computed now",
        _ => "the prediction cannot be computed",
    };
    error.veiled(words)
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
            // What the columns of all of them would hold may be more than one column can.
            let columns = (0..schema.fields().len()).map(|column| {
                outputs.iter().map(|outputs| column_bytes(outputs.column(column))).sum::<usize>()
            });
            if columns.max().is_some_and(|bytes| i32::try_from(bytes).is_err()) {
                return Err(EngineError::TooLarge { rows }.into());
            }
            Ok(interleave_record_batch(&outputs, &places)?)
        }
    }
}
