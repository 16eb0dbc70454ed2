//! How do raw rows of a source become stamped, keyed feature rows?
//!
//! In two steps, so that what is not needed is never read: [`ViewPlan::stamps`] looks at keys, times and the filter
//! of every row; [`ViewPlan::features`] evaluates the expressions of the rows that were chosen.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use feature_defs::{DefError, Definitions, FeatureView, Literal, Loc, suggest};
use sha2::{Digest, Sha256};

use crate::EngineError;
use crate::expr::{Expression, Mistake, wish};
use crate::key::Keys;
use crate::row::RowCodec;
use crate::schema::{arrow_type, conform, conforms, timestamp, type_name};
use crate::windows::Windows;

/// Names the stored rows of a view: a hash of everything that shapes them. A changed view has another id, and its
/// rows another place in the head.
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
    /// Features, in order.
    pub features: SchemaRef,
    /// For each feature its declared default.
    pub defaults: Vec<Option<Literal>>,
    /// Writes and reads its stored rows; of a view with windows no rows are stored.
    pub codec: RowCodec,
    /// Its aggregations over time; none for a view of rows.
    pub windows: Option<Arc<Windows>>,
    stamp_columns: Vec<String>,
    has_created: bool,
    filter: Option<(Expression, Vec<usize>)>,
    row_columns: Vec<String>,
    expressions: Vec<Expression>,
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
    keep: Vec<bool>,
}

impl Stamps {
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
            .map(|i| conform(rows.column(i), self.keys.field(i).data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        let keys = Keys::encode(&self.keys, &keys)?;
        let times = conform(rows.column(key_count), &timestamp())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let created = match self.has_created {
            true => conform(rows.column(key_count + 1), &timestamp())?,
            false => Arc::new(times.clone()),
        };
        let created = created.as_primitive::<TimestampMicrosecondType>();
        let kept = self.filter_mask(rows)?;
        let n = rows.num_rows();
        let mut stamps = Stamps {
            keys,
            times_us: Vec::with_capacity(n),
            created_us: Vec::with_capacity(n),
            null_keys: 0,
            null_times: 0,
            filtered: 0,
            keep: Vec::with_capacity(n),
        };
        for row in 0..n {
            let ts_us = if times.is_null(row) { 0 } else { times.value(row) };
            stamps.times_us.push(ts_us);
            stamps.created_us.push(if created.is_null(row) { ts_us } else { created.value(row) });
            let counter = if kept.as_ref().is_some_and(|kept| !kept.value(row)) {
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

    fn filter_mask(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, EngineError> {
        let Some((filter, columns)) = &self.filter else { return Ok(None) };
        let input = rows.project(columns)?;
        let mask = filter.keeps(&input, &|| format!("feature view `{}`, where", self.name))?;
        Ok(Some(mask))
    }

    /// The features numbered `wanted` of `rows`, whose columns are [`ViewPlan::row_columns`].
    pub fn features(&self, rows: &RecordBatch, wanted: &[usize]) -> Result<Vec<ArrayRef>, EngineError> {
        let evaluate = |feature: &usize| {
            let name = self.features.field(*feature).name();
            self.expressions[*feature]
                .evaluate(rows, &|| format!("feature view `{}`, feature `{name}`", self.name))
        };
        wanted.iter().map(evaluate).collect()
    }

    /// The places of all features.
    pub fn every(&self) -> Vec<usize> {
        (0..self.features.fields().len()).collect()
    }

    /// The place of the feature called `name`.
    pub fn feature(&self, name: &str) -> Option<usize> {
        self.features.index_of(name).ok()
    }

    pub(crate) fn compile(
        view: &FeatureView,
        definitions: &Definitions,
        source_schema: &Schema,
    ) -> Result<ViewPlan, Vec<DefError>> {
        let mut errors = Vec::new();
        let source = &definitions.sources[&view.source];
        let keys: Vec<_> = view
            .entities
            .iter()
            .flat_map(|entity| &definitions.entities[entity].join_keys)
            .map(|key| (Field::new(&key.name, arrow_type(key.dtype), true), view.keys.get(&key.name)))
            .collect();
        let mut stamp_columns = Vec::new();
        for (key, column) in &keys {
            let column = column.unwrap_or(key.name());
            let needs = format!("join key `{}` of feature view `{}`", key.name(), view.name);
            check_column(source_schema, column, key.data_type(), &needs, &view.loc, &mut errors);
            stamp_columns.push(column.clone());
        }
        for time in std::iter::once(&source.event_timestamp).chain(&source.created_timestamp) {
            let needs = format!("source `{}`", source.name);
            check_column(source_schema, time, &timestamp(), &needs, &source.loc, &mut errors);
            stamp_columns.push(time.clone());
        }
        let mut expressions = Vec::new();
        for feature in &view.features {
            match Expression::compile(&feature.expr.sql, source_schema, wish(feature.dtype).as_ref()) {
                Ok(expression) => expressions.push(expression),
                Err(mistake) => errors.push(at(mistake, &feature.expr.loc)),
            }
        }
        let filter = view.filter.as_ref().and_then(|filter| {
            Expression::compile_filter(&filter.sql, source_schema)
                .map_err(|mistake| errors.push(at(mistake, &filter.loc)))
                .ok()
        });
        let windows = match view.aggregations.is_empty() {
            true => None,
            false => Windows::compile(view, &source.event_id, source_schema, &source.event_timestamp)
                .map_err(|mistakes| errors.extend(mistakes))
                .ok(),
        };
        if !errors.is_empty() {
            return Err(errors);
        }

        // Everything holds. Compile once more over just the columns that are used, so that only those are read.
        let narrow = |sql: &str, wanted: Option<&DataType>, columns: &[usize]| {
            let schema = source_schema.project(columns).expect("columns come from the schema");
            Expression::compile(sql, &schema, wanted).map_err(|m| vec![at(m, &view.loc)])
        };
        let mut used: Vec<usize> = expressions.iter().flat_map(Expression::columns).collect();
        used.extend(used.is_empty().then(|| source_schema.index_of(&source.event_timestamp).unwrap_or(0)));
        used.sort_unstable();
        used.dedup();
        let filter = match (&view.filter, filter) {
            (Some(expr), Some(wide)) => {
                let mut columns: Vec<usize> = wide.columns().collect();
                columns.extend(
                    columns.is_empty().then(|| source_schema.index_of(&source.event_timestamp).unwrap_or(0)),
                );
                columns.sort_unstable();
                columns.dedup();
                let places = columns.iter().map(|column| {
                    let name = source_schema.field(*column).name();
                    stamp_columns.iter().position(|known| known == name).unwrap_or_else(|| {
                        stamp_columns.push(name.clone());
                        stamp_columns.len() - 1
                    })
                });
                let places: Vec<usize> = places.collect();
                Some((narrow(&expr.sql, None, &columns)?, places))
            }
            _ => None,
        };
        let features = Schema::new(
            view.features
                .iter()
                .zip(&expressions)
                .map(|(feature, expression)| Field::new(&feature.name, expression.dtype().clone(), true))
                .collect::<Vec<_>>(),
        );
        let expressions = view
            .features
            .iter()
            .map(|feature| narrow(&feature.expr.sql, wish(feature.dtype).as_ref(), &used))
            .collect::<Result<Vec<_>, _>>()?;
        let (features, windows, row_columns) = match windows {
            Some((windows, columns)) => (Arc::clone(windows.schema()), Some(Arc::new(windows)), columns),
            None => {
                let columns = used.iter().map(|i| source_schema.field(*i).name().clone()).collect();
                (Arc::new(features), None, columns)
            }
        };
        let stored = if windows.is_some() { Arc::new(Schema::empty()) } else { Arc::clone(&features) };
        let codec = RowCodec::new(&stored)
            .map_err(|e| vec![DefError::new(&view.loc, format!("feature view `{}`: {e}", view.name))])?;
        Ok(ViewPlan {
            id: identify(view, definitions, &features, windows.as_deref()),
            name: view.name.clone(),
            source: view.source.clone(),
            keys: Arc::new(Schema::new(keys.into_iter().map(|(field, _)| field).collect::<Vec<_>>())),
            ttl_us: view.ttl_us,
            lag_us: view.lag_us,
            features,
            defaults: defaults(view),
            codec,
            windows,
            stamp_columns,
            has_created: source.created_timestamp.is_some(),
            filter,
            row_columns,
            expressions,
        })
    }
}

/// A mistake, now that it is known where it stands.
pub(crate) fn at(mistake: Mistake, loc: &Loc) -> DefError {
    let error = DefError::new(loc, mistake.cause);
    match mistake.help {
        Some(help) => error.with_help(help),
        None => error,
    }
}

fn check_column(
    schema: &Schema,
    column: &str,
    wanted: &DataType,
    needed_by: &str,
    loc: &Loc,
    errors: &mut Vec<DefError>,
) {
    match schema.field_with_name(column) {
        Err(_) => {
            let known = schema.fields().iter().map(|f| f.name().as_str());
            let cause = format!("{needed_by} needs column `{column}`, which the source does not have");
            errors.push(DefError::new(loc, cause).with_help(suggest(column, known)));
        }
        Ok(field) if !conforms(field.data_type(), wanted) => {
            let (wanted, found) = (type_name(wanted), type_name(field.data_type()));
            let cause = format!("{needed_by} needs column `{column}` as {wanted}, but it is {found}");
            errors.push(DefError::new(loc, cause));
        }
        Ok(_) => {}
    }
}

/// For each feature the default that its definition declares.
fn defaults(view: &FeatureView) -> Vec<Option<Literal>> {
    let of_windows = view.aggregations.iter().flat_map(|a| a.windows.iter().map(|_| a.default.clone()));
    view.features.iter().map(|feature| feature.default.clone()).chain(of_windows).collect()
}

/// Hashes what shapes the stored rows. TTL is not part of it: it is a rule for reading. Nor are windows: they are read
/// from the same tiles.
fn identify(
    view: &FeatureView,
    definitions: &Definitions,
    features: &SchemaRef,
    windows: Option<&Windows>,
) -> ViewId {
    let source = &definitions.sources[&view.source];
    let mut text = format!("row v1\nview {:?}\nlag {}\n", view.name, view.lag_us);
    for key in view.entities.iter().flat_map(|entity| &definitions.entities[entity].join_keys) {
        text += &format!("key {:?} {} {:?}\n", key.name, key.dtype, view.keys.get(&key.name));
    }
    let batch = source.batch.as_ref().map(|batch| (batch.format, &batch.path));
    text += &format!("source {:?} {:?} {:?}\n", batch, source.event_timestamp, source.created_timestamp);
    text += &format!("where {:?}\n", view.filter.as_ref().map(|filter| &filter.sql));
    for (feature, field) in view.features.iter().zip(features.fields()) {
        text +=
            &format!("feature {:?} {:?} {}\n", feature.name, feature.expr.sql, type_name(field.data_type()));
    }
    text += &windows.map_or_else(String::new, |windows| windows.identity_text(&source.event_id));
    let digest = Sha256::digest(text.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    // The largest number is no id, so that each has a next one: the end of its rows in the head.
    ViewId(u64::from_be_bytes(id).min(u64::MAX - 1))
}
