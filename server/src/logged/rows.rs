//! Which row of which segment is a logged prediction?
//!
//! A set of segments is called `{model}/{feature service}-{digest of the columns}`, so that all of it have the same
//! columns; a segment has the rows of one day of arrival, UTC. What a service names is in a struct each (`inputs`,
//! `features`, ...), since its names may be any.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use quern_base::points::pass;
use quern_engine::expr::functions_fingerprint;
use quern_engine::schema::timestamp;
use quern_engine::{Failed, Found, Origin, ServicePlan, Status};
use serde::{Deserialize, Serialize};

use super::{Entry, Given, Held};
use crate::error::{Error, Kind, Result};
use crate::live::Deployment;
use crate::live::describe::{service_digest, view_digest};
use crate::metrics::metrics;
use quern_base::digest::sha256;
use quern_features::Vectors;
use quern_store::segments::{Family, Prepared, Range, Segments, Set, day};

/// The column of who asked. What earlier builds have written lacks it.
pub(crate) const PRINCIPAL: &str = "principal";
/// The columns of what a version was made of, and of what answered. What earlier builds have written lacks them too.
pub(crate) const DIGEST: &str = "digest";
pub(crate) const SERVED_BY: &str = "served_by";
/// The column of what models on other servers said on the way, of a version that asks any.
pub(crate) const ASKED: &str = "asked";
/// How much of a digest names a set.
const DIGEST_CHARS: usize = 8;
/// Files that may wait for their names.
const UNNAMED_MAX: usize = 1_024;

/// The definitions that made a vector, by digest; `definitions` of a logged row, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the feature service.
    pub service: String,
    /// Of each look-up's feature view, by the name of the look-up.
    pub views: BTreeMap<String, String>,
    /// Of `exp`, `sin` and their like.
    #[serde(default)]
    pub functions: String,
}

impl Fingerprint {
    /// Of `service`, as `live` has it.
    pub fn of(live: &Deployment, service: &ServicePlan) -> Fingerprint {
        let views = lookup_names(service).into_iter().zip(&service.lookups);
        Fingerprint {
            service: service_digest(live, &service.name),
            views: views.map(|(name, lookup)| (name, view_digest(live, &lookup.view.name))).collect(),
            functions: functions_fingerprint().to_owned(),
        }
    }
}

/// Each look-up's name: its view's; numbered where a view is looked up more than once.
pub fn lookup_names(service: &ServicePlan) -> Vec<String> {
    let view = |place: usize| service.lookups[place].view.name.as_str();
    let name = |place: usize| match (0..place).filter(|other| view(*other) == view(place)).count() {
        0 => view(place).to_owned(),
        before => format!("{}.{}", view(place), before + 1),
    };
    (0..service.lookups.len()).map(name).collect()
}

/// The rows of `batch` at these places.
fn pick(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch> {
    let is_all = rows.len() == batch.num_rows() && rows.iter().enumerate().all(|(place, row)| place == *row);
    if is_all {
        return Ok(batch.clone());
    }
    Ok(take_record_batch(batch, &UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32)))?)
}

/// What becomes one segment.
#[derive(Default)]
struct Part {
    entries: Vec<Entry>,
    rows: Vec<RecordBatch>,
}

/// Writes what is held, a segment for each set and day. Gives what cannot be written now; what can't be ever is lost,
/// and said so.
pub(super) fn write(segments: &Segments, held: Held) -> Held {
    let mut left = Held::default();
    for file in held.unnamed {
        name(segments, file, &mut left);
    }
    let mut parts: BTreeMap<(Set, String), Part> = BTreeMap::new();
    // Of one deployment and version all entries have one fingerprint.
    let mut known: Option<(Arc<Deployment>, Arc<ServicePlan>, String)> = None;
    for entry in held.entries {
        let service = &entry.version.service;
        let is_known = |known: &(Arc<Deployment>, Arc<ServicePlan>, String)| {
            Arc::ptr_eq(&known.0, &entry.live) && Arc::ptr_eq(&known.1, service)
        };
        if !known.as_ref().is_some_and(is_known) {
            let definitions =
                serde_json::to_string(&Fingerprint::of(&entry.live, service)).unwrap_or_default();
            known = Some((Arc::clone(&entry.live), Arc::clone(service), definitions));
        }
        let definitions = known.as_ref().map_or("", |(_, _, definitions)| definitions);
        match rows(&entry, definitions) {
            Ok(rows) => {
                let part = parts.entry((set(&entry, &rows), day(entry.arrived_us))).or_default();
                part.rows.push(rows);
                part.entries.push(entry);
            }
            Err(error) => lost(&entry.model, entry.rows.len(), &error),
        }
    }
    for ((set, _), part) in parts {
        match prepare(segments, &set, &part.rows) {
            Ok(file) => {
                pass("predictions: written, named by nobody");
                name(segments, file, &mut left);
                pass("predictions: named");
            }
            Err(error) if error.kind() == Kind::Unavailable => {
                tracing::warn!(error = error.logged(), "logged predictions wait for the store");
                left.entries.extend(part.entries);
            }
            Err(error) => {
                let rows = part.rows.iter().map(RecordBatch::num_rows).sum();
                lost(model_of(&set), rows, &error);
            }
        }
    }
    left
}

/// The model of a set.
pub(super) fn model_of(set: &Set) -> &str {
    set.name.split('/').next().unwrap_or_default()
}

fn prepare(segments: &Segments, set: &Set, rows: &[RecordBatch]) -> Result<Prepared> {
    let Some(first) = rows.first() else { return Err(Error::broken("no predictions to log")) };
    let rows = concat_batches(&first.schema(), rows)?;
    let range = Range::of_times(&[&rows], "arrived_at")?;
    Ok(segments.prepare(set, range, |writer| writer.write(&rows))?)
}

/// Makes a file count, or leaves it to be named later.
fn name(segments: &Segments, file: Prepared, left: &mut Held) {
    match segments.commit(&file) {
        Ok(_) => {
            metrics().predictions_written.with_label_values(&[model_of(&file.set)]).inc_by(file.rows);
        }
        Err(error) if error.kind() == Kind::Unavailable && left.unnamed.len() < UNNAMED_MAX => {
            tracing::warn!(error = error.logged(), "logged predictions wait for the registry");
            left.unnamed.push(file);
        }
        Err(error) => lost(model_of(&file.set), file.rows as usize, &error.into()),
    }
}

/// Gives up what is held.
pub(super) fn lose(held: Held, why: &'static str) {
    for entry in &held.entries {
        lost(&entry.model, entry.rows.len(), &Error::unavailable(why));
    }
    for file in &held.unnamed {
        lost(model_of(&file.set), file.rows as usize, &Error::unavailable(why));
    }
}

fn lost(model: &str, rows: usize, error: &crate::Error) {
    metrics().predictions_dropped.with_label_values(&[model]).inc_by(rows as u64);
    tracing::error!(model, rows, error = error.logged(), "logged predictions are lost");
}

fn set(entry: &Entry, rows: &RecordBatch) -> Set {
    let columns = sha256(format!("{:?}", rows.schema()).as_bytes());
    let columns = columns.get(..DIGEST_CHARS).unwrap_or(&columns).to_owned();
    let (model, service) = (&entry.model, &entry.version.service.name);
    Set::of(Family::Predictions, "", &format!("{model}/{service}-{columns}"))
}

/// An entry as rows of its set's columns.
fn rows(entry: &Entry, definitions: &str) -> Result<RecordBatch> {
    let service = &entry.version.service;
    let n = entry.rows.len();
    let times_us = |time: &dyn Fn(usize) -> Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = (0..n).map(time).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; n])) };
    let whole = |number: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![number; n])) };
    let numbers: Int64Array = entry.rows.iter().map(|row| *row as i64).collect();
    let inputs = match &entry.given {
        Given::Entities { inputs, .. } => Some(pick(inputs, &entry.rows)?),
        Given::Vectors(_) => None,
    };
    let query_time = |row: usize| match &entry.given {
        Given::Entities { query_times_us, .. } => query_times_us.get(entry.rows[row]).copied(),
        Given::Vectors(_) => None,
    };
    let features = match (&entry.looked_up, &entry.given) {
        (Some((vectors, _)), _) => vectors.clone(),
        (None, Given::Vectors(vectors)) => pick(vectors, &entry.rows)?,
        (None, Given::Entities { .. }) => RecordBatch::new_empty(Arc::clone(&service.outputs)),
    };
    let features = (features.num_rows() == n).then_some(features);
    let mut columns = vec![
        ("request_id", text(&entry.request_id)),
        ("row", Arc::new(numbers) as ArrayRef),
        ("arrived_at", times_us(&|_| Some(entry.arrived_us))),
        ("event_timestamp", times_us(&query_time)),
        ("version", text(&entry.version.version)),
        (DIGEST, text(&entry.version.model.digest)),
        ("reason", text(entry.reason)),
        (SERVED_BY, text(&entry.served_by)),
        ("latency_us", whole(entry.latency_us)),
        (PRINCIPAL, text(entry.principal.name())),
        ("definitions", text(definitions)),
    ];
    columns.extend(whole_struct("inputs", &service.inputs, inputs.as_ref(), n)?);
    columns.extend(whole_struct("features", &service.outputs, features.as_ref(), n)?);
    columns.extend(found(service, entry.looked_up.as_ref(), n)?);
    columns.extend(whole_struct("outputs", &entry.outputs.schema(), Some(&entry.outputs), n)?);
    if let Some(schema) = entry.version.model.asked() {
        columns.extend(whole_struct(ASKED, schema, entry.asked.as_ref(), n)?);
    }
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

type Named = (&'static str, ArrayRef);

/// Columns as one struct. Parquet has no struct without fields: one is left out.
fn structure(name: &'static str, columns: Vec<(FieldRef, ArrayRef)>) -> Result<Option<Named>> {
    if columns.is_empty() {
        return Ok(None);
    }
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let all = StructArray::try_new(Fields::from(fields), columns, None)?;
    Ok(Some((name, Arc::new(all))))
}

fn whole_struct(
    name: &'static str,
    schema: &SchemaRef,
    rows: Option<&RecordBatch>,
    n: usize,
) -> Result<Option<Named>> {
    let column = |(place, field): (usize, &FieldRef)| {
        let field = Arc::new(Field::clone(field).with_nullable(true));
        let nulls = || new_null_array(field.data_type(), n);
        let column = rows.map_or_else(nulls, |rows| Arc::clone(rows.column(place)));
        (field, column)
    };
    structure(name, schema.fields().iter().enumerate().map(column).collect())
}

/// The statuses and event timestamps of the features that leave, and of what each look-up found.
fn found(
    service: &Arc<ServicePlan>,
    looked_up: Option<&(RecordBatch, Vec<Found>)>,
    n: usize,
) -> Result<Vec<Named>> {
    let vectors = looked_up.map(|(vectors, found)| Vectors {
        vectors: vectors.clone(),
        found: found.clone(),
        service: Arc::clone(service),
        failed: Failed::default(),
        held: None,
    });
    let text = |status: &dyn Fn(&Vectors, usize) -> Status| -> (DataType, ArrayRef) {
        let status = |row| vectors.as_ref().map(|vectors| status(vectors, row).as_str());
        (DataType::Utf8, Arc::new((0..n).map(status).collect::<StringArray>()))
    };
    let time = |time: &dyn Fn(&Vectors, usize) -> Option<i64>| -> (DataType, ArrayRef) {
        let time = |row| vectors.as_ref().and_then(|vectors| time(vectors, row));
        let times: TimestampMicrosecondArray = (0..n).map(time).collect();
        (timestamp(), Arc::new(times.with_timezone("UTC")))
    };
    let column = |name: &str, (dtype, column): (DataType, ArrayRef)| -> (FieldRef, ArrayRef) {
        (Arc::new(Field::new(name, dtype, true)), column)
    };
    let (mut statuses, mut times) = (Vec::new(), Vec::new());
    for (output, field) in service.outputs.fields().iter().enumerate() {
        if matches!(service.origins[output], Origin::Feature { .. }) {
            statuses.push(column(field.name(), text(&|vectors, row| vectors.status(output, row))));
            times.push(column(field.name(), time(&|vectors, row| vectors.event_timestamp(output, row))));
        }
    }
    let (mut view_states, mut view_times) = (Vec::new(), Vec::new());
    for (place, name) in lookup_names(service).iter().enumerate() {
        let state = |vectors: &Vectors, row: usize| Status::of(vectors.found[place].states[row], false);
        let at = |vectors: &Vectors, row: usize| {
            let found = &vectors.found[place];
            found.states[row].has_row().then(|| found.event_timestamps.get(row).copied()).flatten()
        };
        view_states.push(column(name, text(&state)));
        view_times.push(column(name, time(&at)));
    }
    let all = [
        structure("statuses", statuses)?,
        structure("event_timestamps", times)?,
        structure("view_statuses", view_states)?,
        structure("view_event_timestamps", view_times)?,
    ];
    Ok(all.into_iter().flatten().collect())
}
