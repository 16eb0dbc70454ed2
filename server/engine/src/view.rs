//! How do raw rows of a source become stamped, keyed feature rows?
//!
//! In two steps, so that what is not needed is never read: [`ViewPlan::stamps`] looks at keys, times and the filter
//! of every row; [`ViewPlan::features`] evaluates the expressions of the rows that were chosen.

mod compile;
mod condition;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, FieldRef, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use feature_defs::{At, Literal};

pub use self::condition::Condition;
use crate::expr::{Evaluated, Expression, Kept};
use crate::key::Keys;
use crate::row::RowCodec;
use crate::schema::{CREATED_TIMESTAMP, EVENT_TIMESTAMP, conform, timestamp};
use crate::windows::Windows;
use crate::{EngineError, Failed};

/// Names the stored rows of a view: a hash of everything that shapes them. A changed view has another id, so its rows
/// never mix with those of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u64);

/// A feature view, compiled.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// Names its stored rows.
    pub id: ViewId,
    /// The view's name.
    pub name: String,
    /// Its source's name.
    pub source: String,
    /// Join keys, in key order.
    pub keys: SchemaRef,
    /// How long a row counts after it became visible, µs.
    pub ttl_us: Option<i64>,
    /// How long after its event timestamp a row becomes visible, µs.
    pub lag_us: i64,
    /// Whether a row counts at the very time at which it becomes visible.
    pub at: At,
    /// Features, in order.
    pub features: SchemaRef,
    /// For each feature its declared default.
    pub defaults: Vec<Option<Literal>>,
    /// For each feature whether a row of which it cannot be computed is refused.
    pub strict: Vec<bool>,
    /// Writes and reads its stored rows; of a view with windows no rows are stored.
    pub codec: RowCodec,
    /// Its aggregations over time; none for a view of rows.
    pub windows: Option<Arc<Windows>>,
    stamp_columns: Vec<String>,
    has_created: bool,
    filter: Option<Filter>,
    row_columns: Vec<String>,
    expressions: Vec<Expression>,
}

/// Which rows exist for a view.
#[derive(Debug, Clone, PartialEq)]
struct Filter {
    expression: Expression,
    /// The columns that it reads, as indices among [`ViewPlan::stamp_columns`].
    columns: Vec<usize>,
    conditions: Vec<Condition>,
}

/// What is known of a batch of rows before their features are computed, row by row.
#[derive(Debug)]
pub struct Stamps {
    /// Encoded keys.
    pub keys: Keys,
    /// Event timestamps, µs; 0 where the row is not kept for lack of one.
    pub times_us: Vec<i64>,
    /// Created timestamps, µs; the event timestamp where a row or its source has none.
    pub created_us: Vec<i64>,
    /// Rows without a key: a join key is null.
    pub null_keys: u64,
    /// Rows without an event timestamp.
    pub null_times: u64,
    /// Rows that `where` leaves out.
    pub filtered: u64,
    /// Those among them for which it could not be computed.
    pub failed: u64,
    keep: Vec<bool>,
}

impl Stamps {
    /// Leaves out all rows but those that stay.
    pub fn retain(&mut self, stays: impl Fn(usize) -> bool) {
        self.keep.iter_mut().enumerate().for_each(|(row, keep)| *keep &= stays(row));
    }

    /// The rows that exist for the view: with a key, with a time, and not filtered out.
    pub fn kept(&self) -> impl Iterator<Item = usize> {
        self.keep.iter().enumerate().filter_map(|(row, keep)| keep.then_some(row))
    }
}

impl ViewPlan {
    /// The columns that [`ViewPlan::stamps`] needs, in order.
    pub fn stamp_columns(&self) -> &[String] {
        &self.stamp_columns
    }

    /// The columns that [`ViewPlan::features`] needs, in order.
    pub fn row_columns(&self) -> &[String] {
        &self.row_columns
    }

    /// What `where` asks of a row, and each part that it joins by `AND`.
    pub fn conditions(&self) -> &[Condition] {
        self.filter.as_ref().map(|filter| filter.conditions.as_slice()).unwrap_or_default()
    }

    /// Whether it makes the same stamps as `other` of every row, and sees each from the same time on.
    pub fn stamps_as(&self, other: &ViewPlan) -> bool {
        let types = |view: &ViewPlan| {
            view.keys.fields().iter().map(|key| key.data_type().clone()).collect::<Vec<_>>()
        };
        self.source == other.source
            && self.stamp_columns == other.stamp_columns
            && types(self) == types(other)
            && self.lag_us == other.lag_us
            && self.filter == other.filter
    }

    /// Keys, times and filter of `rows`, whose columns are [`ViewPlan::stamp_columns`].
    pub fn stamps(&self, rows: &RecordBatch) -> Result<Stamps, EngineError> {
        let key_count = self.keys.fields().len();
        let keys = (0..key_count)
            .map(|i| {
                let key = self.keys.field(i);
                conform(rows.column(i), key.data_type()).map_err(|error| {
                    let what = format!("feature view `{}`, join key `{}`", self.name, key.name());
                    let cause = match error {
                        ArrowError::CastError(cause) => cause,
                        other => other.to_string(),
                    };
                    EngineError::Value { what, cause }
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let keys = Keys::encode(&self.keys, &keys)?;
        let times = conform(rows.column(key_count), &timestamp())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let created = match self.has_created {
            true => conform(rows.column(key_count + 1), &timestamp())?,
            false => Arc::new(times.clone()),
        };
        let created = created.as_primitive::<TimestampMicrosecondType>();
        let kept = self.kept(rows)?;
        let n = rows.num_rows();
        let mut stamps = Stamps {
            keys,
            times_us: Vec::with_capacity(n),
            created_us: Vec::with_capacity(n),
            null_keys: 0,
            null_times: 0,
            filtered: 0,
            failed: kept.as_ref().map_or(0, |kept| kept.failed.len() as u64),
            keep: Vec::with_capacity(n),
        };
        for row in 0..n {
            let ts_us = if times.is_null(row) { 0 } else { times.value(row) };
            stamps.times_us.push(ts_us);
            stamps.created_us.push(if created.is_null(row) { ts_us } else { created.value(row) });
            let counter = if kept.as_ref().is_some_and(|kept| !kept.mask.value(row)) {
                Some(&mut stamps.filtered)
            } else if stamps.keys.get(row).is_none() {
                Some(&mut stamps.null_keys)
            } else if times.is_null(row) {
                Some(&mut stamps.null_times)
            } else {
                None
            };
            stamps.keep.push(counter.is_none());
            if let Some(counter) = counter {
                *counter += 1;
            }
        }
        Ok(stamps)
    }

    /// What a table of its rows has beside features: join keys, the event timestamp and, where its source has one, the
    /// created timestamp.
    pub fn stamp_fields(&self) -> Vec<FieldRef> {
        let created = self.has_created.then_some(CREATED_TIMESTAMP);
        let times = [EVENT_TIMESTAMP].into_iter().chain(created);
        let times = times.map(|name| Arc::new(Field::new(name, timestamp(), true)));
        self.keys.fields().iter().cloned().chain(times).collect()
    }

    /// The values of these of `rows`, whose columns are [`ViewPlan::stamp_columns`].
    pub fn stamp_values(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, EngineError> {
        let fields = self.stamp_fields();
        let values =
            rows.columns().iter().zip(&fields).map(|(column, field)| conform(column, field.data_type()));
        Ok(values.collect::<Result<_, _>>()?)
    }

    fn kept(&self, rows: &RecordBatch) -> Result<Option<Kept>, EngineError> {
        let Some(Filter { expression, columns, .. }) = &self.filter else { return Ok(None) };
        let input = rows.project(columns)?;
        expression.keeps(&input, &|| format!("feature view `{}`, where", self.name)).map(Some)
    }

    /// The features numbered `wanted` of `rows`, whose columns are [`ViewPlan::row_columns`]. Values that cannot be
    /// computed are null, and `failed` hears of them.
    pub fn features(
        &self,
        rows: &RecordBatch,
        wanted: &[usize],
        failed: &mut Failed,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let evaluate = |feature: &usize| {
            let name = self.features.field(*feature).name();
            let what = || format!("feature view `{}`, feature `{name}`", self.name);
            let Evaluated { values, failed: rows } = self.expressions[*feature].evaluate(rows, &what)?;
            failed.note_rows(name, &rows, self.strict[*feature]);
            Ok(values)
        };
        wanted.iter().map(evaluate).collect()
    }

    /// The indices of all features.
    pub fn every(&self) -> Vec<usize> {
        (0..self.features.fields().len()).collect()
    }

    /// The index of the feature called `name`.
    pub fn feature(&self, name: &str) -> Option<usize> {
        self.features.index_of(name).ok()
    }
}
