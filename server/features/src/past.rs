//! Which vectors did these entities have at these times? Whatever is asked of the past is asked here: training sets,
//! batch predictions as of a time, and the verification of what was served.
//!
//! A caller's table is fitted to a service once, by its schema ([`Columns`]); its rows are then asked of history
//! ([`Past`]), which keeps the rows that it found, and makes vectors of them as they are taken.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use feature_defs::suggest;
use parking_lot::Mutex;
use quern_base::memory::Lease;
use quern_engine::schema::{EVENT_TIMESTAMP, canonical, conform, conforms, timestamp, type_name};
use quern_engine::size::column_bytes;
use quern_engine::{EngineError, Failed, Found, Inputs, ServicePlan, instant};
use quern_store::history::{History, State};
use quern_store::objects::Reads;

use crate::as_of::{Answer, Question, ask};
use crate::asked::{encode_keys, excluded};
use crate::compiled::Compiled;
use crate::error::{Error, Result, check_strict};

use crate::metrics::metrics;
use crate::vectors::{Vectors, told};

/// Where in a caller's table the columns are that a service or a model takes.
#[derive(Debug)]
pub struct Columns {
    /// What the caller calls the table, for messages.
    table: &'static str,
    /// The columns that are wanted.
    schema: SchemaRef,
    /// For each of them its place.
    pub inputs: Vec<usize>,
    /// The place of the query times, where rows bring their own.
    pub time: Option<usize>,
}

impl Columns {
    /// Fits `schema` to what is wanted; what is missing, of a wrong type or named twice is an error.
    pub fn find(
        wanted: Inputs<'_>,
        table: &'static str,
        schema: &Schema,
        with_times: bool,
    ) -> Result<Columns> {
        let needed = || {
            let time = with_times.then(|| format!("{EVENT_TIMESTAMP} timestamp"));
            let names = wanted.schema.fields().iter();
            let names = names.map(|f| format!("{} {}", f.name(), type_name(f.data_type())));
            let names: Vec<String> = time.into_iter().chain(names).collect();
            format!("{} `{}` needs: {}", wanted.kind, wanted.of, names.join(", "))
        };
        let find = |name: &str, dtype: &DataType| {
            let place = schema.index_of(name).map_err(|_| {
                let help = suggest(name, schema.fields().iter().map(|f| f.name().as_str()));
                Error::invalid(format!("the {table} has no column `{name}` ({help}); {}", needed()))
            })?;
            check_type(table, schema, place, dtype)?;
            Ok::<_, Error>(place)
        };
        let time = if with_times { Some(find(EVENT_TIMESTAMP, &timestamp())?) } else { None };
        let inputs = wanted.schema.fields().iter().map(|field| find(field.name(), field.data_type()));
        let inputs = inputs.collect::<Result<_>>()?;
        for (place, field) in schema.fields().iter().enumerate() {
            if schema.fields()[..place].iter().any(|f| f.name() == field.name()) {
                return Err(Error::invalid(format!("the {table} has two columns `{}`", field.name())));
            }
        }
        Ok(Columns { table, schema: Arc::clone(wanted.schema), inputs, time })
    }

    /// What the service takes of `rows`, in its types.
    pub fn inputs(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = &self.schema;
        let columns = self.inputs.iter().zip(schema.fields());
        let columns = columns.map(|(place, field)| self.column(rows, *place, field.data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = columns.collect::<Result<_>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// How many bytes that is.
    pub fn input_bytes(&self, rows: &RecordBatch) -> usize {
        self.inputs.iter().map(|place| column_bytes(rows.column(*place))).sum()
    }

    /// The query times of `rows`: each has one.
    pub fn times(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let place = self.time.ok_or_else(|| Error::broken("query times were not asked for"))?;
        let times = self.column(rows, place, &timestamp())?;
        match (0..times.len()).find(|row| times.is_null(*row)) {
            None => Ok(times),
            Some(row) => Err(Error::invalid(format!(
                "row {row} of the {} has no `{EVENT_TIMESTAMP}`; every row needs a query time",
                self.table
            ))),
        }
    }

    fn column(&self, rows: &RecordBatch, place: usize, to: &DataType) -> Result<ArrayRef> {
        let column = rows.column(place);
        if matches!(to, DataType::Utf8 | DataType::Binary) && i32::try_from(column_bytes(column)).is_err() {
            return Err(EngineError::TooLarge { rows: rows.num_rows() }.into());
        }
        conform(column, to).map_err(|e| {
            let (table, schema) = (self.table, rows.schema_ref());
            let (name, to_name) = (schema.field(place).name(), type_name(to));
            let is_text = canonical(column.data_type()) == DataType::Utf8;
            match (0..column.len()).find(|row| is_text && conform(&column.slice(*row, 1), to).is_err()) {
                Some(row) => {
                    let text = array_value_to_string(column, row).unwrap_or_default();
                    let found = format!("expected {to_name} (RFC 3339), found string {text:?}");
                    Error::invalid(format!("row {row} of the {table}, column `{name}`: {found}"))
                }
                None => {
                    Error::invalid(format!("the {table}'s column `{name}` cannot be read as {to_name}: {e}"))
                }
            }
        })
    }
}

/// Whether a column may be read as `wanted`. Whole numbers that pandas keeps as floats, and times that are text, are
/// let in here and checked value by value later.
fn check_type(table: &str, schema: &Schema, place: usize, wanted: &DataType) -> Result<()> {
    let field = schema.field(place);
    let found = canonical(field.data_type());
    let whole = found.is_floating() && wanted.is_integer();
    let text_time = found == DataType::Utf8 && matches!(wanted, DataType::Timestamp(_, _) | DataType::Date32);
    if conforms(&found, wanted) || whole || text_time {
        return Ok(());
    }
    let is_uncounted = *wanted == timestamp() && instant::is_number(&found);
    let help = if is_uncounted {
        "; make times of its numbers first, as `pd.to_datetime(…, unit=\"ms\")` does"
    } else {
        ""
    };
    let (wanted, found) = (type_name(wanted), type_name(field.data_type()));
    let name = field.name();
    Err(Error::invalid(format!("the {table}'s column `{name}` must be {wanted}, but it is {found}{help}")))
}

/// What is asked of history besides keys and times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rule<'a> {
    /// Rows created after the query time are invisible.
    pub as_known: bool,
    /// An expired row is told from none, which costs the reading of old rows.
    pub expired: bool,
    /// A key of which no event was ever visible is told from one whose windows are empty: all old rows are read.
    pub unseen: bool,
    /// Where the rows that are found are taken from; none where nobody counts.
    pub room: Option<&'a Arc<Lease>>,
}

/// What history said of keys at their query times.
pub struct Past {
    service: Arc<ServicePlan>,
    /// What was asked for, as the service takes it.
    pub inputs: RecordBatch,
    /// The query times.
    pub times: ArrayRef,
    /// In which state each source was found.
    pub sources: BTreeMap<String, State>,
    /// What was read of buckets.
    pub reads: Reads,
    answers: Vec<Answer>,
    /// Events that could not be computed: of no row alone, they are told with the first vectors.
    events_failed: Mutex<Failed>,
}

impl Past {
    /// Asks history about `inputs` (columns as in [`ServicePlan::inputs`]) at `times` (µs, none null). Reads files:
    /// call it where blocking is allowed.
    pub fn ask(
        (history, live): (&History, &Compiled),
        service: &Arc<ServicePlan>,
        (inputs, times): (RecordBatch, ArrayRef),
        rule: Rule<'_>,
    ) -> Result<Past> {
        let query_times_us = times.as_primitive::<TimestampMicrosecondType>().values();
        let (keys, excluded) = (encode_keys(service, &inputs)?, excluded(service, &inputs)?);
        let asked = service.lookups.iter().zip(&keys).zip(&excluded);
        let questions = asked.map(|((lookup, keys), excluded)| Question {
            view: &lookup.view,
            keys,
            query_times_us,
            excluded: excluded.as_deref(),
            features: &lookup.features,
            as_known: rule.as_known,
            expired: rule.expired,
            unseen: rule.unseen,
            room: rule.room,
        });
        let (answers, sources, reads) = ask(history, live, &questions.collect::<Vec<_>>())?;
        let mut events_failed = Failed::default();
        for (lookup, answer) in service.lookups.iter().zip(&answers) {
            events_failed.add(&lookup.named(&answer.failed.elsewhere()));
        }
        let events_failed = Mutex::new(events_failed);
        Ok(Past { service: Arc::clone(service), inputs, times, sources, reads, answers, events_failed })
    }

    /// For each feature view in which rows see a row that became visible at their very query time, how many do.
    pub fn coinciding(&self) -> BTreeMap<String, u64> {
        let views = self.service.lookups.iter().map(|lookup| &lookup.view.name);
        let mut all = BTreeMap::<String, u64>::new();
        for (view, answer) in views.zip(&self.answers).filter(|(_, answer)| answer.coinciding > 0) {
            // A view may be joined by several keys.
            let count = all.entry(view.clone()).or_default();
            *count = answer.coinciding.max(*count);
        }
        all
    }

    /// What each look-up found for these rows.
    pub fn found(&self, rows: Range<usize>) -> Result<Vec<Found>> {
        let lookups = self.service.lookups.iter().zip(&self.answers);
        let found = lookups.map(|(lookup, answer)| {
            let found = answer.found(rows.clone())?;
            Ok(Found { failed: lookup.named(&found.failed), ..found })
        });
        found.collect()
    }

    /// The vectors of these rows, and which of their values could not be computed.
    pub fn vectors(&self, rows: Range<usize>) -> Result<(RecordBatch, Failed)> {
        let found = self.found(rows.clone())?;
        self.finish(rows, &found)
    }

    /// The vectors of some rows, and what is known of each value: `places`, which ascend, count from `first`.
    pub fn look_up(&self, first: usize, places: &[usize]) -> Result<Vectors> {
        let start = places.first().copied().unwrap_or_default();
        let count = places.last().map_or(0, |last| last + 1 - start);
        let found = self.found(first + start..first + start + count)?;
        let (inputs, times) =
            (self.inputs.slice(first + start, count), self.times.slice(first + start, count));
        let (found, inputs, times) = if places.len() == count {
            (found, inputs, times)
        } else {
            let rows: UInt32Array = places.iter().map(|place| (place - start) as u32).collect();
            let found = found.iter().map(|found| found.pick(&rows));
            let found = found.collect::<std::result::Result<Vec<_>, _>>()?;
            (found, take_record_batch(&inputs, &rows)?, take(&times, &rows, None)?)
        };
        let (vectors, failed) = self.computed(&inputs, &times, &found, |row| first + places[row])?;
        Ok(Vectors { vectors, found: told(found), service: Arc::clone(&self.service), failed, held: None })
    }

    /// The vectors of these rows, of what [`Past::found`] gave for them.
    pub fn finish(&self, rows: Range<usize>, found: &[Found]) -> Result<(RecordBatch, Failed)> {
        let (start, count) = (rows.start, rows.len());
        let (inputs, times) = (self.inputs.slice(start, count), self.times.slice(start, count));
        self.computed(&inputs, &times, found, |row| start + row)
    }

    /// The vectors, and what of them could not be computed; `place` says where a row is in what was asked.
    fn computed(
        &self,
        inputs: &RecordBatch,
        times: &ArrayRef,
        found: &[Found],
        place: impl Fn(usize) -> usize,
    ) -> Result<(RecordBatch, Failed)> {
        let mut failed = Failed::default();
        found.iter().for_each(|found| failed.join(&found.failed));
        let vectors = self.service.finish(inputs, times, found, &mut failed)?;
        let service = format!("feature service `{}`", self.service.name);
        check_strict(&failed, &service, |row| format!("row {} of what was asked", place(row)))?;
        failed.add(&std::mem::take(&mut *self.events_failed.lock()));
        metrics().note_failed(&self.service.name, &failed);
        Ok((vectors, failed))
    }
}
