//! Which rows would the model have seen? A spine goes in, its training set comes out, row for row.
//!
//! Held in memory: the spine, and of each view the distinct rows that the spine found. The training set itself is
//! made batch by batch as it is taken.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use feature_defs::suggest;
use quern::wire::TrainingSetCommand;
use quern_engine::schema::{EVENT_TIMESTAMP, canonical, conform, timestamp, type_name};
use quern_engine::{Found, ServicePlan};

use crate::error::{Error, Result};
use crate::point_in_time::{Answer, Question, ask};
use crate::serving::encode_keys;
use crate::{Deployment, Quern};

/// Rows in each batch of a training set.
const BATCH_ROWS: usize = 32_768;

/// A training set, batch by batch: the spine's columns in its order, then the service's outputs.
pub struct TrainingSet {
    plan: Layout,
    spine: RecordBatch,
    inputs: RecordBatch,
    times: ArrayRef,
    answers: Vec<Answer>,
    next: usize,
}

/// How a training set's columns come from a spine and a service; known before the first row is.
pub struct Layout {
    /// The training set's schema.
    pub schema: SchemaRef,
    service: Arc<ServicePlan>,
    /// For each input of the service its place in the spine.
    inputs: Vec<usize>,
    time: usize,
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
    pub fn new(service: &Arc<ServicePlan>, spine: &Schema) -> Result<Layout> {
        let needed = || {
            let names =
                service.inputs.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type())));
            let names: Vec<String> =
                std::iter::once(format!("{EVENT_TIMESTAMP} timestamp")).chain(names).collect();
            format!("feature service `{}` needs: {}", service.name, names.join(", "))
        };
        let find = |name: &str| {
            spine.index_of(name).map_err(|_| {
                let help = suggest(name, spine.fields().iter().map(|f| f.name().as_str()));
                Error::Invalid(format!("the spine has no column `{name}` ({help}); {}", needed()))
            })
        };
        let time = find(EVENT_TIMESTAMP)?;
        check_type(spine, time, &timestamp())?;
        let mut inputs = Vec::new();
        for field in service.inputs.fields() {
            let place = find(field.name())?;
            check_type(spine, place, field.data_type())?;
            inputs.push(place);
        }
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (place, field) in spine.fields().iter().enumerate() {
            if spine.fields()[..place].iter().any(|f| f.name() == field.name()) {
                return Err(Error::Invalid(format!("the spine has two columns `{}`", field.name())));
            }
            if let Some(input) = inputs.iter().position(|input| *input == place) {
                fields.push(service.inputs.fields()[input].clone());
                columns.push(Column::Input(input));
            } else if place == time {
                fields.push(Arc::new(arrow::datatypes::Field::new(EVENT_TIMESTAMP, timestamp(), true)));
                columns.push(Column::Time);
            } else {
                fields.push(field.clone());
                columns.push(Column::Spine(place));
            }
        }
        for (output, field) in service.outputs.fields().iter().enumerate() {
            if matches!(service.origins[output], quern_engine::Origin::Input(_)) {
                continue;
            }
            if spine.index_of(field.name()).is_ok() {
                return Err(Error::Invalid(format!(
                    "the spine's column `{0}` and an output of feature service `{1}` share a name; rename or drop the \
                     spine's column",
                    field.name(),
                    service.name
                )));
            }
            fields.push(field.clone());
            columns.push(Column::Output(output));
        }
        Ok(Layout {
            schema: Arc::new(Schema::new(fields)),
            service: Arc::clone(service),
            inputs,
            time,
            columns,
        })
    }
}

/// Whether a spine column may be read as `wanted`. Whole numbers that pandas keeps as floats are let in here and
/// checked value by value later.
fn check_type(spine: &Schema, place: usize, wanted: &DataType) -> Result<()> {
    let field = spine.field(place);
    let found = canonical(field.data_type());
    let whole = found.is_floating() && wanted.is_integer();
    if quern_engine::schema::conforms(&found, wanted) || whole {
        return Ok(());
    }
    let (wanted, found) = (type_name(wanted), type_name(field.data_type()));
    Err(Error::Invalid(format!("the spine's column `{}` must be {wanted}, but it is {found}", field.name())))
}

/// The service that `request` names.
pub fn service<'a>(live: &'a Deployment, request: &TrainingSetCommand) -> Result<&'a Arc<ServicePlan>> {
    let services = &live.catalog.services;
    services.get(&request.feature_service).ok_or_else(|| {
        let help = suggest(&request.feature_service, services.keys().map(String::as_str));
        Error::NotFound(format!("unknown feature service `{}`; {help}", request.feature_service))
    })
}

/// Makes the training set of a spine. Reads history: call it where blocking is allowed.
pub fn training_set(
    quern: &Quern,
    live: &Deployment,
    request: &TrainingSetCommand,
    spine_schema: &SchemaRef,
    spine: &[RecordBatch],
) -> Result<TrainingSet> {
    let plan = Layout::new(service(live, request)?, spine_schema)?;
    let spine = concat_batches(spine_schema, spine)?;
    let column = |place: usize, to: &DataType| {
        conform(spine.column(place), to).map_err(|e| {
            let name = spine_schema.field(place).name();
            Error::Invalid(format!("the spine's column `{name}` cannot be read as {}: {e}", type_name(to)))
        })
    };
    let times = column(plan.time, &timestamp())?;
    if let Some(row) = (0..times.len()).find(|row| times.is_null(*row)) {
        return Err(Error::Invalid(format!(
            "row {row} of the spine has no `{EVENT_TIMESTAMP}`; every row needs a query time"
        )));
    }
    let service = &plan.service;
    let mut columns = Vec::new();
    for (place, field) in plan.inputs.iter().zip(service.inputs.fields()) {
        columns.push(column(*place, field.data_type())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(spine.num_rows()));
    let inputs = RecordBatch::try_new_with_options(Arc::clone(&service.inputs), columns, &options)?;
    let query_times_us = times.as_primitive::<TimestampMicrosecondType>().values();
    let keys = encode_keys(service, &inputs)?;
    let questions = service.lookups.iter().zip(&keys).map(|(lookup, keys)| Question {
        view: &lookup.view,
        keys,
        query_times_us,
        features: &lookup.features,
        as_known: request.as_known,
        expired: false,
    });
    let answers = ask(quern, live, &questions.collect::<Vec<_>>())?;
    Ok(TrainingSet { plan, spine, inputs, times, answers, next: 0 })
}

impl TrainingSet {
    /// Its schema, known before the first batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    fn batch(&self, start: usize, rows: usize) -> Result<RecordBatch> {
        let inputs = self.inputs.slice(start, rows);
        let times = self.times.slice(start, rows);
        let found: Vec<Found> =
            self.answers.iter().map(|answer| answer.found(start..start + rows)).collect::<Result<_>>()?;
        let outputs = self.plan.service.finish(&inputs, &times, &found)?;
        let columns = self.plan.columns.iter().map(|column| match column {
            Column::Spine(place) => self.spine.column(*place).slice(start, rows),
            Column::Input(place) => inputs.column(*place).clone(),
            Column::Time => times.clone(),
            Column::Output(place) => outputs.column(*place).clone(),
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.plan.schema), columns.collect())?)
    }
}

impl Iterator for TrainingSet {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        let rows = BATCH_ROWS.min(self.spine.num_rows() - start);
        self.next += rows;
        (rows > 0).then(|| self.batch(start, rows))
    }
}
