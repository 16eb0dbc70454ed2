//! What answers where the version whose turn it is does not, or should not?
//!
//! A version that fails, is late or overloaded, and instances whose features are too old or too few, are left to the
//! substitutes that the model declares, in order: the first that can answers. What a caller did wrong is no cause.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use quern_engine::Origin;

use super::answer::{Instances, Patience, Store, indices};
use super::target::{Cause, Part, Reason, Target};
use crate::error::{Error, Kind, Result};
use crate::live::model::{Fallback, Substitute};
use quern_features::Vectors;

/// How many runs over some rows of a batch may fail before the rest of these is left to the substitutes together.
const FAILURES_MAX: usize = 64;

/// Instances that are left to the substitutes.
struct Left<'a> {
    /// The version whose turn it was.
    place: usize,
    instances: &'a Instances,
    /// What was looked up for it, where that worked.
    vectors: Option<Vectors>,
    reason: Reason,
    /// What the caller gets where no substitute answers.
    error: Error,
}

/// Instances that a version should not answer, by their places among those that were looked up.
struct Unsound {
    cause: Cause,
    detail: &'static str,
    places: Vec<usize>,
}

impl Target {
    /// What the version at `place` says, and its substitutes where it does not.
    pub(super) async fn answer_or_fall_back(
        &self,
        store: Store<'_>,
        place: usize,
        instances: Instances,
        patience: Patience,
    ) -> Result<Vec<Part>> {
        let Some(fallback) = &self.model.fallback else {
            return Ok(vec![self.answer(store, place, instances, patience).await?]);
        };
        let looked_up = Box::pin(self.look_up(store, place, instances.clone(), patience)).await;
        let mut vectors = match looked_up {
            Ok((_, vectors)) => vectors,
            Err(error) => {
                let left = Left::new(place, &instances, None, error)?;
                return Ok(vec![self.fall_back(store, fallback, left, patience).await?]);
            }
        };
        let _held = self.hold(&vectors, patience).await?;
        // What failed in no row that is known is nobody's part.
        let elsewhere = vectors.failed.take_elsewhere();
        let mut parts = self.answer_found(store, fallback, (place, instances, vectors), patience).await?;
        if let Some(vectors) = parts.iter_mut().find_map(|part| part.vectors.as_mut()) {
            vectors.failed.add(&elsewhere);
        }
        Ok(parts)
    }

    /// What the version at `place` says of the vectors that it may answer, and its substitutes of the others.
    async fn answer_found(
        &self,
        store: Store<'_>,
        fallback: &Fallback,
        (place, instances, vectors): (usize, Instances, Vectors),
        patience: Patience,
    ) -> Result<Vec<Part>> {
        let hurried = patience.within(fallback.timeout);
        let rows = &instances.rows;
        let (sound, unsound) = sift(fallback, &vectors, &instances.query_times_us);
        let mut parts = Vec::new();
        for Unsound { cause, detail, places } in unsound {
            let detail = detail.to_owned();
            let left = Left {
                place,
                instances: &instances.pick(&places)?,
                vectors: Some(vectors.pick(&indices(&places))?),
                error: Error::unavailable(format!("{detail}, and nothing else answers")),
                reason: Reason { cause, detail },
            };
            parts.push(self.fall_back(store, fallback, left, patience).await?);
        }
        if sound.is_empty() && !rows.is_empty() {
            return Ok(parts);
        }
        let vectors = if sound.len() == rows.len() { vectors } else { vectors.pick(&indices(&sound))? };
        let mut asking = vec![(sound, vectors)];
        let mut failures = 0;
        while let Some((places, vectors)) = asking.pop() {
            match self.infer_found(place, &vectors, hurried).await {
                Ok(said) => {
                    let rows = places.iter().map(|place| rows[*place]).collect();
                    parts.push(self.part(place, rows, Some(vectors), said));
                }
                // Of a batch the others are asked again without the half that has the row which the model cannot bear.
                Err(error)
                    if patience.rows.is_some()
                        && places.len() > 1
                        && failures < FAILURES_MAX
                        && Cause::of(&error) == Some(Cause::Error) =>
                {
                    failures += 1;
                    let middle = places.len() / 2;
                    for half in [middle..places.len(), 0..middle] {
                        let picked = vectors.pick(&indices(&half.clone().collect::<Vec<_>>()))?;
                        asking.push((places[half].to_vec(), picked));
                    }
                }
                Err(error) => {
                    let instances = instances.pick(&places)?;
                    let left = Left::new(place, &instances, Some(vectors), error)?;
                    parts.push(self.fall_back(store, fallback, left, patience).await?);
                }
            }
        }
        Ok(parts)
    }

    async fn fall_back(
        &self,
        store: Store<'_>,
        fallback: &Fallback,
        left: Left<'_>,
        patience: Patience,
    ) -> Result<Part> {
        let Left { place, instances, mut vectors, reason, error } = left;
        let outputs = &self.model.versions[place].model.outputs;
        for substitute in &fallback.to {
            let part = match (substitute, &vectors) {
                // That one has just failed.
                (Substitute::Version(other), _) if *other == place => continue,
                (Substitute::Version(other), _) => {
                    self.answer(store, *other, instances.clone(), patience).await
                }
                (Substitute::Expr(each), Some(found)) => {
                    let value = each[place].evaluate(&found.vectors).map_err(Error::from);
                    value.and_then(|value| one_column(outputs, value)).map(|outputs| {
                        let part = self.part(place, instances.rows.clone(), None, outputs);
                        Part { served_by: "expr".to_owned(), ..part }
                    })
                }
                (Substitute::Expr(_), None) => continue,
                (Substitute::Constant(constant), _) => {
                    let value = constant.evaluate(&nothing(instances.rows.len())?).map_err(Error::from);
                    value.and_then(|value| one_column(outputs, value)).map(|outputs| {
                        let part = self.part(place, instances.rows.clone(), None, outputs);
                        Part { served_by: "constant".to_owned(), ..part }
                    })
                }
            };
            match part {
                Ok(part) => {
                    let vectors = part.vectors.or(vectors.take());
                    return Ok(Part { reason: Some(reason), vectors, ..part });
                }
                Err(error) => tracing::debug!(model = self.model.name, cause = %error, "a substitute failed"),
            }
        }
        Err(error)
    }
}

impl<'a> Left<'a> {
    /// Instances that a version failed to answer; where the caller is to blame, that is the answer.
    fn new(
        place: usize,
        instances: &'a Instances,
        vectors: Option<Vectors>,
        error: Error,
    ) -> Result<Left<'a>> {
        match Cause::of(&error) {
            Some(cause) => {
                // The caller gets an answer: only the log can tell a fault of our own.
                if error.kind() == Kind::Internal {
                    tracing::warn!(cause = error.logged(), "a model failed, and its fallback answers");
                    tracing::debug!(cause = %error, "what failed, with the values it met");
                }
                let reason = Reason { cause, detail: error.said() };
                Ok(Left { place, instances, vectors, reason, error })
            }
            None => Err(error),
        }
    }
}

/// The places that the version may answer, and those that it should not, by cause.
fn sift(fallback: &Fallback, vectors: &Vectors, query_times_us: &[i64]) -> (Vec<usize>, Vec<Unsound>) {
    let rows = vectors.vectors.num_rows();
    if fallback.max_age_us.is_none() && fallback.max_missing.is_none() {
        return ((0..rows).collect(), Vec::new());
    }
    let origins = vectors.service.origins.iter().enumerate();
    let features: Vec<usize> = origins
        .filter(|(_, origin)| matches!(origin, Origin::Feature { .. }))
        .map(|(output, _)| output)
        .collect();
    let is_stale = |row: usize, max_age_us: i64| {
        let oldest = features.iter().filter_map(|output| vectors.event_timestamp(*output, row)).min();
        oldest.is_some_and(|ts_us| query_times_us[row].saturating_sub(ts_us) > max_age_us)
    };
    let (mut sound, mut stale, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let share = features.iter().filter(|output| vectors.is_missing(**output, row)).count() as f64
            / features.len().max(1) as f64;
        if fallback.max_missing.is_some_and(|most| share > most) {
            missing.push(row);
        } else if fallback.max_age_us.is_some_and(|max_age_us| is_stale(row, max_age_us)) {
            stale.push(row);
        } else {
            sound.push(row);
        }
    }
    let unsound = [
        Unsound {
            cause: Cause::Missing,
            detail: "more features are missing than `max_missing` allows",
            places: missing,
        },
        Unsound { cause: Cause::Stale, detail: "a feature is older than `max_age`", places: stale },
    ];
    (sound, unsound.into_iter().filter(|unsound| !unsound.places.is_empty()).collect())
}

fn one_column(outputs: &SchemaRef, value: ArrayRef) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(Arc::clone(outputs), vec![value])?)
}

/// Rows without columns.
fn nothing(rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
}
