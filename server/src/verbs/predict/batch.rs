//! What does a model say of a whole table? Its rows go in, and come out with the model's outputs appended, in order.
//!
//! *Now*: every row is looked up in the head, chunk by chunk, and the next rows are read when these are wanted; memory
//! holds a few chunks. *As of*: each row has its vector from history as of its `event_timestamp`, as a training set has
//! it, and the model says what it would have said then. History wants all keys and times at once, so that the whole
//! table is held, and of each view the distinct rows that it found.
//!
//! Nothing of this goes into the prediction log: the rows that come out are the record.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::Predict;
use super::target::{Ask, Given, Priority, Target};
use crate::error::{Error, Kind, Result};
use quern_base::clock::now_us;
use quern_base::tasks::blocking;
use quern_features::past::{Columns, Past, Rule};

/// Rows that are looked up and predicted together.
const CHUNK_ROWS: usize = 2_048;
/// Chunks under way: one is looked up or written while another one is with the model.
const CHUNKS_AHEAD: usize = 4;

/// A model and the table that it is to be asked about.
#[derive(Debug)]
pub struct Batch {
    target: Arc<Target>,
    columns: Columns,
    /// Of what comes out: the table's columns as they are, then the model's outputs.
    schema: SchemaRef,
    outputs: SchemaRef,
}

/// As of when rows are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When their turn comes. One time for all would soon lie before what was pushed since, and be answered from
    /// history.
    Now,
    /// At one time (µs) for all of them.
    At(i64),
    /// At the `event_timestamp` of each.
    AsOf,
}

impl Batch {
    /// Fits a table to a model. Without `as_of` a column `event_timestamp` is one like any other.
    ///
    /// # Errors
    /// A column that is missing, of a wrong type, named twice, or named as an output of the model.
    pub fn new(target: Target, table: &Schema, as_of: bool) -> Result<Batch> {
        // History is asked about one version: the one that is named, or the one that answers most.
        let wanted = if as_of { target.version().service.as_ref().into() } else { target.inputs() };
        let columns = Columns::find(wanted, "table", table, as_of)?;
        let outputs = Arc::clone(&target.version().model.outputs);
        for output in outputs.fields() {
            if table.index_of(output.name()).is_ok() {
                return Err(Error::invalid(format!(
                    "the table's column `{0}` and an output of model `{1}` share a name; rename or drop the table's \
                     column",
                    output.name(),
                    target.model().name
                )));
            }
        }
        let nullable = |field: &FieldRef| Arc::new(Field::clone(field).with_nullable(true));
        let fields: Vec<FieldRef> =
            table.fields().iter().cloned().chain(outputs.fields().iter().map(nullable)).collect();
        Ok(Batch { target: Arc::new(target), columns, schema: Arc::new(Schema::new(fields)), outputs })
    }

    /// The schema of what comes out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The answers to `rows`, in their order. What is wrong with a row ends the stream.
    pub fn answers<S>(
        self,
        verb: &Arc<Predict>,
        rows: S,
        when: When,
    ) -> BoxStream<'static, Result<RecordBatch>>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let (this, verb) = (Arc::new(self), Arc::clone(verb));
        match when {
            When::Now | When::At(_) => {
                let mut first = 0;
                let chunks = rows.map_ok(move |rows| {
                    let chunks: Vec<_> = chunks(rows.num_rows())
                        .map(|(at, count)| Ok((first + at, rows.slice(at, count))))
                        .collect();
                    first += rows.num_rows();
                    stream::iter(chunks)
                });
                let answer = move |(first, rows): (usize, RecordBatch)| {
                    let (this, verb) = (Arc::clone(&this), Arc::clone(&verb));
                    async move { this.now(&verb, &rows, when).await.map_err(|e| within(first, &rows, e)) }
                };
                chunks.try_flatten().map_ok(answer).try_buffered(CHUNKS_AHEAD).boxed()
            }
            When::AsOf => stream::once(this.past(verb, rows.boxed())).try_flatten().boxed(),
        }
    }

    async fn now(&self, verb: &Arc<Predict>, rows: &RecordBatch, when: When) -> Result<RecordBatch> {
        let at_us = match when {
            When::At(at_us) => at_us,
            When::Now | When::AsOf => now_us(),
        };
        let query_times_us = vec![at_us; rows.num_rows()];
        let given = Given::Entities { inputs: self.columns.inputs(rows)?, query_times_us };
        self.appended(verb, rows, given).await
    }

    /// Takes all rows in, asks history once, and gives the answers chunk by chunk.
    async fn past(
        self: Arc<Self>,
        verb: Arc<Predict>,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<impl Stream<Item = Result<RecordBatch>>> {
        let rows: Vec<RecordBatch> = rows.try_collect().await?;
        let (this, asking) = (Arc::clone(&self), Arc::clone(&verb));
        let (rows, past) = blocking("batch prediction", move || -> Result<_> {
            let schema = rows.first().map_or_else(|| this.table(), RecordBatch::schema);
            let rows = concat_batches(&schema, &rows)?;
            let asked = (this.columns.inputs(&rows)?, this.columns.times(&rows)?);
            let target = &this.target;
            let history = &asking.reader.history;
            let past = Past::ask(
                (history, &target.live.compiled),
                &target.version().service,
                asked,
                Rule::default(),
            )?;
            Ok((rows, Arc::new(past)))
        })
        .await?;
        let chunks: Vec<Result<(usize, usize)>> = chunks(rows.num_rows()).map(Ok).collect();
        let answer = move |(at, count): (usize, usize)| {
            let (this, verb, past) = (Arc::clone(&self), Arc::clone(&verb), Arc::clone(&past));
            let rows = rows.slice(at, count);
            async move {
                let vectors = blocking("batch prediction", move || past.vectors(at..at + count)).await?;
                let answered = this.appended(&verb, &rows, Given::Vectors(vectors)).await;
                answered.map_err(|error| within(at, &rows, error))
            }
        };
        Ok(stream::iter(chunks).map_ok(answer).try_buffered(CHUNKS_AHEAD))
    }

    /// The columns of the table.
    fn table(&self) -> SchemaRef {
        let columns = self.schema.fields().len() - self.outputs.fields().len();
        Arc::new(Schema::new(self.schema.fields()[..columns].to_vec()))
    }

    async fn appended(&self, verb: &Arc<Predict>, rows: &RecordBatch, given: Given) -> Result<RecordBatch> {
        let request_id = String::new();
        let ask = Ask { given, request_id, deadline: None, priority: Priority::Batch };
        let answer = self.target.predict(verb, ask).await?;
        // Versions between which requests are divided may say different things; a table has one set of columns.
        if answer.outputs.schema().fields() != self.outputs.fields() {
            return Err(Error::refused(format!(
                "the versions of model `{}` have different outputs; name one of them",
                self.target.model().name
            )));
        }
        let columns = rows.columns().iter().chain(answer.outputs.columns()).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// First row and number of rows of each chunk.
fn chunks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(CHUNK_ROWS).map(move |at| (at, CHUNK_ROWS.min(rows - at)))
}

/// Says where in the table an error's `instance 7` is counted from.
fn within(first: usize, rows: &RecordBatch, error: Error) -> Error {
    if first == 0 || error.kind() != Kind::InvalidArgument {
        return error;
    }
    let last = first + rows.num_rows() - 1;
    error.told(|what| format!("rows {first} to {last} of the table, counted from the first of them: {what}"))
}
