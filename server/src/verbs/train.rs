//! Which rows would the model have seen? A spine goes in, its training set comes out, row for row.
//!
//! Held in memory: the spine, and of each view the distinct rows that the spine found. The training set itself is
//! made batch by batch as it is taken.

mod pin;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use feature_defs::Literal;
use quern_access::{Action, Caller};
use quern_base::memory::Lease;
use quern_engine::expr::functions_fingerprint;
use quern_engine::schema::{EVENT_TIMESTAMP, timestamp};
use quern_engine::size::row_bytes;
use quern_engine::{Origin, ServicePlan};
use quern_features::past::{Columns, Past, Rule};
use quern_store::history::History;
use quern_store::objects::Reads;
use quern_wire::{
    DEFAULTS, FEATURE_SERVICE, FUNCTIONS, OUTPUTS, ObjectReads, TableNotes, TrainingSetCommand,
};
use serde_json::{Map, Value};

use self::pin::Pinning;
use crate::error::{Error, Kind, Result};
use crate::live::Deployment;
use crate::noted_rows::NotedRows;

/// The most rows in a batch of a training set.
const BATCH_ROWS: usize = 32_768;
/// Rows in the first one, from which the next one learns how large rows are.
const FIRST_ROWS: usize = 64;
/// How many times as many rows as the one before a batch may have.
const GROWTH: usize = 8;
/// What a batch should hold: whoever takes it has it in memory, and the texts of a column count their bytes in 31 bits.
const BATCH_BYTES: usize = 16 << 20;

/// A training set, batch by batch: the spine's columns in its order, then the service's outputs in the service's.
pub struct TrainingSet {
    plan: Layout,
    spine: RecordBatch,
    past: Past,
    pinning: Pinning,
    next: usize,
    /// Rows in the next batch, at the most.
    rows: usize,
}

/// How a training set's columns come from a spine and a service; known before the first row is.
pub struct Layout {
    /// The training set's schema.
    pub schema: SchemaRef,
    service: Arc<ServicePlan>,
    spine: Columns,
    columns: Vec<Column>,
}

enum Column {
    Spine(usize),
    Input(usize),
    Time,
    Output(usize),
}

impl Layout {
    /// Fits `spine` to `service`; what is missing, of a wrong type or named twice is an error.
    ///
    /// The spine's columns come first, but for those that the service gives out as well, such as a request column among
    /// its `outputs`: these stand where the service has them. So the last columns are the service's outputs in its
    /// order, and none is there twice.
    pub fn new(service: &Arc<ServicePlan>, spine: &Schema) -> Result<Layout> {
        let found = Columns::find(service.as_ref().into(), "spine", spine, true)?;
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (place, field) in spine.fields().iter().enumerate() {
            let input = found.inputs.iter().position(|input| *input == place);
            if let Some(input) = input {
                if !service.origins.contains(&Origin::Input(input)) {
                    fields.push(service.inputs.fields()[input].clone());
                    columns.push(Column::Input(input));
                }
            } else if found.time == Some(place) {
                fields.push(Arc::new(Field::new(EVENT_TIMESTAMP, timestamp(), true)));
                columns.push(Column::Time);
            } else {
                fields.push(field.clone());
                columns.push(Column::Spine(place));
            }
        }
        for (output, field) in service.outputs.fields().iter().enumerate() {
            if fields.iter().any(|known| known.name() == field.name()) {
                return Err(Error::invalid(format!(
                    "the spine's column `{0}` and an output of feature service `{1}` share a name; rename or drop the \
                     spine's column",
                    field.name(),
                    service.name
                )));
            }
            fields.push(field.clone());
            columns.push(match service.origins[output] {
                Origin::Input(input) => Column::Input(input),
                Origin::Feature { .. } | Origin::Derived => Column::Output(output),
            });
        }
        let schema = Arc::new(Schema::new(fields).with_metadata(described(service)?));
        Ok(Layout { schema, service: Arc::clone(service), spine: found, columns })
    }
}

/// What the schema says besides columns: the service, and its outputs in the order in which a model takes them.
fn described(service: &ServicePlan) -> Result<HashMap<String, String>> {
    let outputs: Vec<&str> = service.outputs.fields().iter().map(|field| field.name().as_str()).collect();
    let outputs =
        serde_json::to_string(&outputs).map_err(|error| Error::internal("naming outputs", error))?;
    let mut described = HashMap::from([
        (FEATURE_SERVICE.to_owned(), service.name.clone()),
        (OUTPUTS.to_owned(), outputs),
        (FUNCTIONS.to_owned(), functions_fingerprint().to_owned()),
    ]);
    let defaults = service.outputs.fields().iter().zip(&service.defaults);
    let defaults =
        defaults.filter_map(|(field, default)| Some((field.name().clone(), json(default.as_ref()?))));
    let defaults: Map<String, Value> = defaults.collect();
    if !defaults.is_empty() {
        described.insert(DEFAULTS.to_owned(), Value::Object(defaults).to_string());
    }
    Ok(described)
}

fn json(literal: &Literal) -> Value {
    match literal {
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::from(*value),
        Literal::Float(value) => Value::from(*value),
        Literal::String(value) => Value::String(value.clone()),
        Literal::List(items) => items.iter().map(json).collect(),
    }
}

/// The service that `request` names, for `who` wants a training set.
///
/// # Errors
/// As [`Seen::service`](crate::live::Seen::service).
pub fn service<'a>(
    live: &'a Deployment,
    who: &'a Caller,
    request: &TrainingSetCommand,
) -> Result<&'a Arc<ServicePlan>> {
    live.seen_by(who).service(Action::Train, &request.feature_service)
}

/// Makes training sets.
#[derive(Clone)]
pub struct Train {
    pub(crate) history: Arc<History>,
}

impl Train {
    /// Makes the training set of a spine; what it holds is taken from `room`. Reads history: call it where blocking is
    /// allowed.
    pub fn training_set(
        &self,
        (live, who): (&Deployment, &Caller),
        request: &TrainingSetCommand,
        (spine_schema, spine): (&SchemaRef, &[RecordBatch]),
        room: Option<&Arc<Lease>>,
    ) -> Result<TrainingSet> {
        let plan = Layout::new(service(live, who, request)?, spine_schema)?;
        let spine = concat_batches(spine_schema, spine)?;
        room.map_or(Ok(()), |room| room.take(plan.spine.input_bytes(&spine)))?;
        let asked = (plan.spine.inputs(&spine)?, plan.spine.times(&spine)?);
        let rule = Rule { as_known: request.as_known, room, ..Rule::default() };
        let past = Past::ask((&self.history, &live.compiled), &plan.service, asked, rule)?;
        let pinning = Pinning::begin(live, &plan.service, &past, &plan.schema, request.as_known);
        Ok(TrainingSet { plan, spine, past, pinning, next: 0, rows: FIRST_ROWS })
    }
}

impl TrainingSet {
    /// Its schema, known before the first batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    fn batch(&mut self, start: usize, rows: usize) -> Result<NotedRows> {
        let end = start + rows;
        let (outputs, failed) = self.past.vectors(start..end)?;
        let columns = self.plan.columns.iter().map(|column| match column {
            Column::Spine(place) => self.spine.column(*place).slice(start, rows),
            Column::Input(place) => self.past.inputs.column(*place).slice(start, rows),
            Column::Time => self.past.times.slice(start, rows),
            Column::Output(place) => outputs.column(*place).clone(),
        });
        let rows = RecordBatch::try_new(Arc::clone(&self.plan.schema), columns.collect())?;
        let mut noted = NotedRows::new(rows, failed);
        if start == 0 {
            let (rows, coinciding) = (self.spine.num_rows() as u64, self.past.coinciding());
            let Reads { requests, bytes, copied_bytes } = self.past.reads;
            let read = ObjectReads { requests, bytes, copied_bytes };
            noted.notes.add(&TableNotes { rows, coinciding, read, ..TableNotes::default() });
        }
        self.pinning.take(&noted.rows);
        if end == self.spine.num_rows() {
            noted.notes.pin = Some(Box::new(self.pinning.finish(&self.plan.schema)?));
        }
        Ok(noted)
    }
}

impl Iterator for TrainingSet {
    type Item = Result<NotedRows>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.next;
            let rows = self.rows.min(self.spine.num_rows() - start);
            if rows == 0 {
                return None;
            }
            match self.batch(start, rows) {
                // After small rows come large ones, which one batch may not hold.
                Err(error) if rows > 1 && error.kind() == Kind::TooLarge => self.rows = rows / 2,
                batch => {
                    self.next += rows;
                    let bytes = batch.as_ref().map_or(0, |noted| row_bytes(&noted.rows));
                    self.rows = (BATCH_BYTES / (bytes / rows).max(1)).min(rows * GROWTH).clamp(1, BATCH_ROWS);
                    return Some(batch);
                }
            }
        }
    }
}
