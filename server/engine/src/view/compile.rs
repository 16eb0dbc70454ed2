//! Does a feature view make sense over its source, and what does it compile to?
//!
//! Expressions are parsed over all columns of the source, and compiled over just those that they name: only these are
//! read.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use feature_defs::{DefError, Definitions, FeatureView, Literal, Loc, Source, suggest};
use sha2::{Digest, Sha256};

use super::{Condition, Filter, ViewId, ViewPlan};
use crate::default::fitted;
use crate::expr::{Expression, Mistake, Reads, Written, functions_fingerprint, wish};
use crate::row::RowCodec;
use crate::schema::{arrow_type, conforms, identity_name, timestamp, type_name};
use crate::windows::Windows;

impl ViewPlan {
    /// Compiles `view` over the columns of its source, or reports every mistake.
    pub(crate) fn compile(
        view: &FeatureView,
        definitions: &Definitions,
        columns: &Schema,
    ) -> Result<ViewPlan, Vec<DefError>> {
        let source = &definitions.sources[&view.source];
        let keys = keys(view, definitions);
        let (mut stamp_columns, mut errors) = stamp_columns(view, source, &keys, columns);
        let filter = filter(view, source, columns, &mut stamp_columns);
        let filter = filter.map_err(|mistake| errors.push(mistake)).ok();
        let computed = Features::compile(view, source, columns).map_err(|mistakes| errors.extend(mistakes));
        let (Some(filter), Ok(computed), true) = (filter, computed, errors.is_empty()) else {
            return Err(errors);
        };
        let id = identify(view, definitions, filter.as_ref(), &computed);
        let Features { schema: features, row_columns, expressions, windows } = computed;
        let defaults = defaults(view, &features)?;
        let stored = if windows.is_some() { Arc::new(Schema::empty()) } else { Arc::clone(&features) };
        let codec = RowCodec::new(&stored)
            .map_err(|e| vec![DefError::new(&view.loc, format!("feature view `{}`: {e}", view.name))])?;
        Ok(ViewPlan {
            id,
            name: view.name.clone(),
            source: view.source.clone(),
            keys: Arc::new(keys),
            ttl_us: view.ttl_us,
            lag_us: view.lag_us,
            at: view.at,
            features,
            defaults,
            strict: strict(view),
            codec,
            windows: windows.map(Arc::new),
            stamp_columns,
            has_created: source.created_timestamp.is_some(),
            filter,
            row_columns,
            expressions,
        })
    }
}

/// The view's join keys, in key order.
fn keys(view: &FeatureView, definitions: &Definitions) -> Schema {
    let keys = view.entities.iter().flat_map(|entity| &definitions.entities[entity].join_keys);
    Schema::new(keys.map(|key| Field::new(&key.name, arrow_type(key.dtype), true)).collect::<Vec<_>>())
}

/// The columns of join keys, then those of times; and what is wrong with them.
fn stamp_columns(
    view: &FeatureView,
    source: &Source,
    keys: &Schema,
    columns: &Schema,
) -> (Vec<String>, Vec<DefError>) {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for key in keys.fields() {
        let column = view.keys.get(key.name()).unwrap_or(key.name());
        let needed_by = || format!("join key `{}` of feature view `{}`", key.name(), view.name);
        errors.extend(check_column(columns, column, key.data_type(), needed_by, &view.loc).err());
        names.push(column.clone());
    }
    for time in std::iter::once(&source.event_timestamp).chain(&source.created_timestamp) {
        let needed_by = || format!("source `{}`", source.name);
        errors.extend(check_column(columns, time, &timestamp(), needed_by, &source.loc).err());
        names.push(time.clone());
    }
    (names, errors)
}

fn check_column(
    columns: &Schema,
    name: &str,
    wanted: &DataType,
    needed_by: impl Fn() -> String,
    loc: &Loc,
) -> Result<(), DefError> {
    let Ok(field) = columns.field_with_name(name) else {
        let known = columns.fields().iter().map(|f| f.name().as_str());
        let cause = format!("{} needs column `{name}`, which the source does not have", needed_by());
        return Err(DefError::new(loc, cause).with_help(suggest(name, known)));
    };
    if !conforms(field.data_type(), wanted) {
        let (wanted, found) = (type_name(wanted), type_name(field.data_type()));
        let cause = format!("{} needs column `{name}` as {wanted}, but it is {found}", needed_by());
        return Err(DefError::new(loc, cause));
    }
    Ok(())
}

/// Compiles `where`, and adds the columns that it reads to those that stamps need.
fn filter(
    view: &FeatureView,
    source: &Source,
    columns: &Schema,
    stamp_columns: &mut Vec<String>,
) -> Result<Option<Filter>, DefError> {
    let Some(expr) = &view.filter else { return Ok(None) };
    let at = |mistake: Mistake| mistake.at(&expr.loc);
    let written = Written::parse(&expr.sql, columns).map_err(at)?;
    let reads = Reads::at_least_one(written.columns().to_vec(), columns, &source.event_timestamp);
    let expression = written.compile_filter(&reads.schema).map_err(at)?;
    let indices = reads.names().map(|name| {
        stamp_columns.iter().position(|known| known == name).unwrap_or_else(|| {
            stamp_columns.push(name.to_owned());
            stamp_columns.len() - 1
        })
    });
    let (columns, conditions) = (indices.collect(), Condition::all(&expression, &reads.schema));
    Ok(Some(Filter { expression, columns, conditions }))
}

/// What comes of the rows that were chosen.
struct Features {
    schema: SchemaRef,
    /// The columns that are read for it.
    row_columns: Vec<String>,
    /// Of a view of rows: what computes each feature.
    expressions: Vec<Expression>,
    windows: Option<Windows>,
}

impl Features {
    fn compile(view: &FeatureView, source: &Source, columns: &Schema) -> Result<Features, Vec<DefError>> {
        if view.aggregations.is_empty() {
            return Features::of_rows(view, source, columns);
        }
        let (windows, reads) = Windows::compile(view, source, columns)?;
        Ok(Features {
            schema: Arc::clone(windows.schema()),
            row_columns: reads.names().map(str::to_owned).collect(),
            expressions: Vec::new(),
            windows: Some(windows),
        })
    }

    fn of_rows(view: &FeatureView, source: &Source, columns: &Schema) -> Result<Features, Vec<DefError>> {
        let (mut written, mut errors) = (Vec::new(), Vec::new());
        for feature in &view.features {
            match Written::parse(&feature.expr.sql, columns) {
                Ok(expression) => written.push((feature, expression)),
                Err(mistake) => errors.push(mistake.at(&feature.expr.loc)),
            }
        }
        let named = written.iter().flat_map(|(_, expression)| expression.columns()).copied().collect();
        let reads = Reads::at_least_one(named, columns, &source.event_timestamp);
        let (mut fields, mut expressions) = (Vec::new(), Vec::new());
        for (feature, expression) in written {
            match expression.compile(&reads.schema, wish(feature.dtype).as_ref()) {
                Ok(expression) => {
                    fields.push(Field::new(&feature.name, expression.dtype().clone(), true));
                    expressions.push(expression);
                }
                Err(mistake) => errors.push(mistake.at(&feature.expr.loc)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let row_columns = reads.names().map(str::to_owned).collect();
        Ok(Features { schema: Arc::new(Schema::new(fields)), row_columns, expressions, windows: None })
    }
}

/// For each feature the default that its definition declares, as a value of the feature's type.
fn defaults(view: &FeatureView, features: &Schema) -> Result<Vec<Option<Literal>>, Vec<DefError>> {
    let of_rows = view.features.iter().map(|it| ((it.name.as_str(), &it.loc), it.default.as_ref()));
    let of_windows = view
        .aggregations
        .iter()
        .flat_map(|it| it.windows.iter().map(|_| ((it.name.as_str(), &it.loc), it.default.as_ref())));
    let (mut defaults, mut errors) = (Vec::new(), Vec::new());
    for ((named, default), field) in of_rows.chain(of_windows).zip(features.fields()) {
        match fitted(named, default, field.data_type()) {
            Ok(default) => defaults.push(default),
            Err(mistake) => errors.push(mistake),
        }
    }
    if errors.is_empty() { Ok(defaults) } else { Err(errors) }
}

/// For each feature whether its definition says `strict`.
fn strict(view: &FeatureView) -> Vec<bool> {
    let of_windows = view.aggregations.iter().flat_map(|a| a.windows.iter().map(|_| a.strict));
    view.features.iter().map(|feature| feature.strict).chain(of_windows).collect()
}

/// The reference evaluation's version: another one would make other values of the same expressions.
const REFERENCE: u32 = 2;

/// Hashes what shapes the stored rows. TTL and `at` are not part of it: they are rules for reading. Nor are windows:
/// they are read from the same tiles.
fn identify(
    view: &FeatureView,
    definitions: &Definitions,
    filter: Option<&Filter>,
    computed: &Features,
) -> ViewId {
    let source = &definitions.sources[&view.source];
    let mut text = format!("row v1\nreference {REFERENCE}\nview {:?}\nlag {}\n", view.name, view.lag_us);
    for key in view.entities.iter().flat_map(|entity| &definitions.entities[entity].join_keys) {
        text += &format!("key {:?} {} {:?}\n", key.name, key.dtype, view.keys.get(&key.name));
    }
    let batch = source.batch.as_ref().map(|batch| (batch.format, batch.place()));
    text += &format!("source {:?} {:?} {:?}\n", batch, source.event_timestamp, source.created_timestamp);
    // What is not declared is left out, so that the identity of what was stored before there was such a word stays.
    let dialect =
        source.batch.as_ref().map(|batch| batch.dialect.to_string()).filter(|said| !said.is_empty());
    text += &dialect.map_or_else(String::new, |said| format!("dialect {said}\n"));
    let version = source.batch.as_ref().and_then(|batch| batch.version);
    text += &version.map_or_else(String::new, |version| format!("version {version}\n"));
    let reference = source.batch.as_ref().and_then(|batch| batch.reference.as_ref());
    text += &reference.map_or_else(String::new, |reference| format!("ref {reference:?}\n"));
    let catalog = source.batch.as_ref().and_then(|batch| batch.catalog.as_ref());
    text += &catalog.map_or_else(String::new, |catalog| format!("catalog {:?}\n", catalog.by));
    for column in &source.columns {
        text += &column
            .format
            .map_or_else(String::new, |format| format!("format {:?} {}\n", column.name, format.name()));
        text += &column.from.map_or_else(String::new, |from| format!("from {:?} {from}\n", column.name));
    }
    text += &format!("where {:?}\n", view.filter.as_ref().map(|filter| &filter.sql));
    for (feature, field) in view.features.iter().zip(computed.schema.fields()) {
        text += &format!(
            "feature {:?} {:?} {}\n",
            feature.name,
            feature.expr.sql,
            identity_name(field.data_type())
        );
    }
    // Rows that a strict feature refuses are not stored.
    for strict in view.features.iter().filter(|feature| feature.strict) {
        text += &format!("strict {:?}\n", strict.name);
    }
    let windows = computed.windows.as_ref();
    text += &windows.map_or_else(String::new, |windows| windows.identity_text(&source.event_id));
    let mut of_rows = filter.map(|filter| &filter.expression).into_iter().chain(&computed.expressions);
    if of_rows.any(Expression::calls_real) || windows.is_some_and(Windows::calls_real) {
        text += &format!("functions {}\n", functions_fingerprint());
    }
    let digest = Sha256::digest(text.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    // The largest number is no id, so that each has a next one: the end of its rows in the head.
    ViewId(u64::from_be_bytes(id).min(u64::MAX - 1))
}
