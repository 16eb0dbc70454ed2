//! What does a model say of a whole table? Its rows go in, and come out with the model's outputs appended, in order.
//!
//! *Now*: every row is looked up in the head, chunk by chunk, and the next rows are read when these are wanted; memory
//! holds a few chunks. *As of*: each row has its vector from history as of its `event_timestamp`, as a training set has
//! it, and the model says what it would have said then. History wants all keys and times at once, so that the whole
//! table is held, and of each view the distinct rows that it found.
//!
//! Either way a row is answered by whom it would be answered alone: the version that is named, or the one whose turn it
//! is by the model's route, or what stands in for that; and where it may be one or another, a column says who it was.
//! Shadows get only what comes now. Nothing goes into the prediction log: the rows that come out are the record.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::Predict;
use super::answer::{Instances, Store};
use super::target::{Part, Target};
use super::then::Then;
use crate::error::{Error, Kind, Result};
use crate::noted_rows::NotedRows;
use quern_base::clock::now_us;
use quern_base::tasks::blocking;
use quern_engine::size::row_bytes;
use quern_features::past::Columns;

/// Rows that are looked up and predicted together.
const CHUNK_ROWS: usize = 2_048;
/// What they bring may hold at the most, unless a row alone does.
const CHUNK_BYTES: usize = 16 << 20;
/// Chunks under way: one is looked up or written while another one is with the model.
const CHUNKS_AHEAD: usize = 4;

/// A model and the table that it is to be asked about.
#[derive(Debug)]
pub struct Batch {
    target: Arc<Target>,
    columns: Columns,
    /// Of what comes out: the table's columns as they are, then the model's outputs, then who answered.
    schema: SchemaRef,
    outputs: SchemaRef,
    /// How many columns say who answered.
    who: usize,
    /// How many rows are being answered.
    under_way: Arc<AtomicUsize>,
}

/// Who answered each row, where it may be one or another; and why, where it was not the one whose turn it was.
const SERVED_BY: &str = "served_by";
const CAUSE: &str = "fallback_cause";

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
    /// A column that is missing, of a wrong type, named twice, or named as what is appended; `Kind::Forbidden` with
    /// `as_of` for who may not know what goes into the model.
    pub fn new(target: Target, table: &Schema, as_of: bool) -> Result<Batch> {
        if as_of {
            target.check_sees("say as of when")?;
        }
        let columns = Columns::find(target.inputs(), "table", table, as_of)?;
        let outputs = Arc::clone(&target.version().model.outputs);
        let name = &target.model().name;
        for output in outputs.fields() {
            if table.index_of(output.name()).is_ok() {
                return Err(Error::invalid(format!(
                    "the table's column `{}` and an output of model `{name}` share a name; rename or drop the table's \
                     column",
                    output.name(),
                )));
            }
        }
        let who = who(&target);
        for (column, _) in &who {
            let (whose, instead) = match (table.index_of(column).is_ok(), outputs.index_of(column).is_ok()) {
                (true, _) => ("the table's column", "rename or drop the table's column"),
                (_, true) => ("an output of the model", "call the output otherwise"),
                _ => continue,
            };
            return Err(Error::invalid(format!(
                "{whose} is named `{column}`, as is the one that says who of model `{name}` answered a row; {instead}, or \
                 name a version, which answers all rows"
            )));
        }
        let nullable = |field: &FieldRef| Arc::new(Field::clone(field).with_nullable(true));
        let said = who.iter().map(|(column, _)| Arc::new(Field::new(*column, DataType::Utf8, true)));
        let fields: Vec<FieldRef> =
            table.fields().iter().cloned().chain(outputs.fields().iter().map(nullable)).chain(said).collect();
        let metadata = who.iter().map(|(column, key)| ((*key).to_owned(), (*column).to_owned())).collect();
        Ok(Batch {
            target: Arc::new(target),
            columns,
            schema: Arc::new(Schema::new(fields).with_metadata(metadata)),
            outputs,
            who: who.len(),
            under_way: Arc::default(),
        })
    }

    /// The model that it asks.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The schema of what comes out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The answers to `rows`, in their order. What is wrong with a row ends the stream.
    pub fn answers<S>(self, verb: &Arc<Predict>, rows: S, when: When) -> BoxStream<'static, Result<NotedRows>>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let (this, verb) = (Arc::new(self), Arc::clone(verb));
        match when {
            When::Now | When::At(_) => {
                let mut first = 0;
                let chunks = rows.map_ok(move |rows| {
                    let chunks: Vec<_> =
                        chunks(&rows).map(|(at, count)| Ok((first + at, rows.slice(at, count)))).collect();
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

    async fn now(&self, verb: &Arc<Predict>, rows: &RecordBatch, when: When) -> Result<NotedRows> {
        let at_us = match when {
            When::At(at_us) => at_us,
            When::Now | When::AsOf => now_us(),
        };
        let query_times_us = vec![at_us; rows.num_rows()];
        let all = Instances::all(self.columns.inputs(rows)?, query_times_us);
        self.appended(Store::Head(verb), rows, all).await
    }

    /// Takes all rows in, asks history once, and gives the answers chunk by chunk.
    async fn past(
        self: Arc<Self>,
        verb: Arc<Predict>,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<impl Stream<Item = Result<NotedRows>>> {
        let rows: Vec<RecordBatch> = rows.try_collect().await?;
        let this = Arc::clone(&self);
        let (rows, inputs, times) = blocking("batch prediction", move || -> Result<_> {
            let schema = rows.first().map_or_else(|| this.table(), RecordBatch::schema);
            let rows = concat_batches(&schema, &rows)?;
            let room = this.target.room.as_ref();
            room.map_or(Ok(()), |room| room.take(this.columns.input_bytes(&rows)))?;
            let (inputs, times) = (this.columns.inputs(&rows)?, this.columns.times(&rows)?);
            Ok((rows, inputs, times))
        })
        .await?;
        let asked = (inputs.clone(), times);
        let then = Arc::new(Then::ask(&self.target, verb.reader.clone(), asked).await?);
        let chunks: Vec<Result<(usize, usize)>> = chunks(&rows).map(Ok).collect();
        let answer = move |(at, count): (usize, usize)| {
            let (this, then) = (Arc::clone(&self), Arc::clone(&then));
            let (rows, inputs) = (rows.slice(at, count), inputs.slice(at, count));
            async move {
                let all = Instances::all(inputs, then.times_us()[at..at + count].to_vec());
                let answered = this.appended(Store::History(&then, at), &rows, all).await;
                answered.map_err(|error| within(at, &rows, error))
            }
        };
        Ok(stream::iter(chunks).map_ok(answer).try_buffered(CHUNKS_AHEAD))
    }

    /// The columns of the table.
    fn table(&self) -> SchemaRef {
        let columns = self.schema.fields().len() - self.outputs.fields().len() - self.who;
        Arc::new(Schema::new(self.schema.fields()[..columns].to_vec()))
    }

    async fn appended(&self, store: Store<'_>, rows: &RecordBatch, all: Instances) -> Result<NotedRows> {
        let under_way = UnderWay::begin(&self.under_way, rows.num_rows());
        let answer = Box::pin(self.target.predict_rows(store, all, under_way.with_those_before)).await?;
        drop(under_way);
        let (mut served_by, mut causes) = (vec![""; rows.num_rows()], vec![None; rows.num_rows()]);
        for Part { rows, served_by: who, reason, .. } in &answer.parts {
            for row in rows {
                served_by[*row] = who;
                causes[*row] = reason.as_ref().map(|reason| reason.cause.as_str());
            }
        }
        let who: [ArrayRef; 2] =
            [Arc::new(StringArray::from(served_by)), Arc::new(StringArray::from(causes))];
        let columns = rows.columns().iter().chain(answer.outputs.columns()).chain(&who[..self.who]);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = columns.cloned().collect();
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(NotedRows::new(rows, answer.failed()))
    }
}

/// The columns that say who answered, and the keys under which the schema's metadata names them.
fn who(target: &Target) -> Vec<(&'static str, &'static str)> {
    let all = [(SERVED_BY, quern_wire::SERVED_BY), (CAUSE, quern_wire::FALLBACK_CAUSE)];
    let count = match (target.says_who(), &target.model.fallback) {
        (false, _) => 0,
        (true, Some(_)) if target.sees => 2,
        // Why another answered is not for who may not know what goes in.
        (true, _) => 1,
    };
    all[..count].to_vec()
}

/// Rows that are being answered, until this is dropped.
struct UnderWay<'a> {
    all: &'a AtomicUsize,
    rows: usize,
    with_those_before: usize,
}

impl<'a> UnderWay<'a> {
    fn begin(all: &'a AtomicUsize, rows: usize) -> UnderWay<'a> {
        UnderWay { all, rows, with_those_before: all.fetch_add(rows, Ordering::Relaxed) + rows }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.rows, Ordering::Relaxed);
    }
}

/// First row and number of rows of each chunk. What is written once for many rows of a table is as long in each.
fn chunks(rows: &RecordBatch) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut count = CHUNK_ROWS.min(rows.num_rows() - at);
        while count > 1 && row_bytes(&rows.slice(at, count)) > CHUNK_BYTES {
            count /= 2;
        }
        let first = at;
        at += count;
        (count > 0).then_some((first, count))
    })
}

/// Says where in the table an error's `instance 7` is counted from.
fn within(first: usize, rows: &RecordBatch, error: Error) -> Error {
    if first == 0 || error.kind() != Kind::InvalidArgument {
        return error;
    }
    let last = first + rows.num_rows() - 1;
    error.told(|what| format!("rows {first} to {last} of the table, counted from the first of them: {what}"))
}
