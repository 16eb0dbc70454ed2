//! Which vector does a model get? Training and serving both ask here, and nowhere else.
//!
//! A [`ServicePlan`] knows its inputs (join keys and request columns), the look-ups that bring features, and the
//! derived expressions. Whoever did the look-ups, [`ServicePlan::finish`] makes the vector.

mod behind;
mod compile;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use feature_defs::Literal;

use crate::default::constant;
use crate::expr::{Evaluated, Expression, Reads};
use crate::key::Keys;
use crate::size::{check_together, column_bytes};
use crate::time::RowState;
use crate::view::ViewPlan;
use crate::{EngineError, Failed};

/// A feature service, compiled.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// The service's name.
    pub name: String,
    /// What an instance or a spine row brings besides `event_timestamp`: join-key columns, then request columns.
    pub inputs: SchemaRef,
    /// How many of `inputs` are join-key columns.
    pub key_count: usize,
    /// The views joined.
    pub lookups: Vec<Lookup>,
    /// The vector: columns of the training set, inputs of a model.
    pub outputs: SchemaRef,
    /// Where each output comes from.
    pub origins: Vec<Origin>,
    /// The declared default of each output.
    pub defaults: Vec<Option<Literal>>,
    derived: Derived,
    /// For each output its index among all columns: inputs, event timestamp, features, derived.
    picks: Vec<usize>,
}

/// One view, as a service joins it.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The view.
    pub view: Arc<ViewPlan>,
    /// The indices of its key columns among the service's inputs, in key order.
    pub keys: Vec<usize>,
    /// The indices among the service's inputs of the columns that hold the `event_id` of an event that does not count;
    /// none where all do.
    pub exclude_event: Option<Vec<usize>>,
    /// The indices of the features taken among the view's.
    pub features: Vec<usize>,
    /// The names they leave under.
    pub names: Vec<String>,
}

impl Lookup {
    /// What failed of the view's features, under the names that they leave by.
    pub fn named(&self, failed: &Failed) -> Failed {
        failed.named(|feature| {
            let is_it = |taken: &usize| self.view.features.field(*taken).name() == feature;
            let place = self.features.iter().position(is_it)?;
            Some(self.names[place].as_str())
        })
    }

    /// What stands in for an answer of the online store where there is none: the declared default of each feature. None
    /// where a feature has no default.
    pub fn fall_back(&self, keys: &Keys) -> Result<Option<Found>, EngineError> {
        let default = |feature: &usize| self.view.defaults[*feature].as_ref();
        let Some(defaults) = self.features.iter().map(default).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        // A row without a key is nobody's, which is known without asking.
        let rows = (0..keys.len()).map(|row| keys.get(row));
        let first = UInt32Array::from_iter(rows.clone().map(|key| key.map(|_| 0)));
        let columns = self.features.iter().zip(defaults).map(|(feature, default)| {
            let default = constant(default, self.view.features.field(*feature).data_type())?;
            take(&default, &first, None)
        });
        let state = |key: Option<&[u8]>| key.map_or(RowState::NotFound, |_| RowState::Unavailable);
        Ok(Some(Found {
            columns: columns.collect::<Result<_, _>>()?,
            states: rows.map(state).collect(),
            event_timestamps: vec![0; keys.len()],
            absent: Vec::new(),
            failed: Failed::default(),
        }))
    }
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the request, the spine or a join key: an index among the inputs.
    Input(usize),
    /// From a view.
    Feature {
        /// The index of the look-up.
        lookup: usize,
        /// The index among the features that the look-up takes.
        feature: usize,
    },
    /// Computed by the service.
    Derived,
}

/// What one look-up brought, row by row of the inputs.
#[derive(Debug, Clone)]
pub struct Found {
    /// The features taken, in the look-up's order; null where the state is not `Present`.
    pub columns: Vec<ArrayRef>,
    /// How each row's look-up ended.
    pub states: Vec<RowState>,
    /// Event timestamp of the row found, µs; meaningless where none was. Windows have none: they are of many rows.
    pub event_timestamps: Vec<i64>,
    /// Which of the features are not materialized yet; empty where all are.
    pub absent: Vec<bool>,
    /// Which values could not be computed, under the names that they leave by.
    pub failed: Failed,
}

impl Found {
    /// Some of the rows.
    pub fn pick(&self, rows: &UInt32Array) -> Result<Found, EngineError> {
        let columns = self.columns.iter().map(|column| take(column, rows, None)).collect::<Result<_, _>>()?;
        let picked = || rows.values().iter().map(|row| *row as usize);
        Ok(Found {
            columns,
            states: picked().map(|row| self.states[row]).collect(),
            // Windows have none.
            event_timestamps: picked().filter_map(|row| self.event_timestamps.get(row).copied()).collect(),
            absent: self.absent.clone(),
            failed: self.failed.pick(rows.values()),
        })
    }
}

/// Derived expressions in an order in which each finds what it reads: all of one level see the columns before it.
#[derive(Debug, Clone, Default)]
struct Derived {
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    /// Out of all columns so far.
    reads: Reads,
    expressions: Vec<Derivation>,
}

/// A derived feature.
#[derive(Debug, Clone)]
struct Derivation {
    name: String,
    expression: Expression,
    /// Whether a row of which it cannot be computed is refused.
    strict: bool,
}

impl ServicePlan {
    /// The vectors of `inputs` (columns as in [`ServicePlan::inputs`]), given what each look-up found. Derived values
    /// that cannot be computed are null, and `failed` hears how many.
    pub fn finish(
        &self,
        inputs: &RecordBatch,
        event_timestamps: &ArrayRef,
        found: &[Found],
        failed: &mut Failed,
    ) -> Result<RecordBatch, EngineError> {
        let rows = inputs.num_rows();
        let features = found.iter().flat_map(|found| &found.columns);
        let given: Vec<&ArrayRef> =
            inputs.columns().iter().chain([event_timestamps]).chain(features).collect();
        let (mut derived, mut derived_bytes): (Vec<ArrayRef>, usize) = (Vec::new(), 0);
        let pick = |derived: &[ArrayRef], indices: &[usize]| {
            let column = |index: &usize| match given.get(*index) {
                Some(column) => Arc::clone(column),
                None => Arc::clone(&derived[*index - given.len()]),
            };
            indices.iter().map(column).collect::<Vec<_>>()
        };
        for level in &self.derived.levels {
            let batch = batch_of(&level.reads.schema, pick(&derived, &level.reads.columns), rows)?;
            for Derivation { name, expression, strict } in &level.expressions {
                let what = || format!("feature service `{}`, derived `{name}`", self.name);
                let Evaluated { values, failed: rows } = expression.evaluate(&batch, &what)?;
                failed.note_rows(name, &rows, *strict);
                derived_bytes += column_bytes(&values);
                check_together(inputs.num_rows(), derived_bytes)?;
                derived.push(values);
            }
        }
        batch_of(&self.outputs, pick(&derived, &self.picks), rows)
    }

    /// The index of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.index_of(name).ok()
    }
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, EngineError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
