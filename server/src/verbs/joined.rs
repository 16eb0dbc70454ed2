//! What did the model say, what did it see, and what came true? Logged predictions with their labels, as one table that
//! a training run can take: the columns of a training set, and beside them what was said and what came of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema, SchemaRef};
use quern_engine::schema::type_name;

use crate::error::{Error, Result};
use crate::logged::read::{Rows, column};
use crate::logged::{Between, LoggedFile, PredictionLog};
use crate::verbs::labels::{Known, Labels};

/// What every logged prediction has.
const OF_EVERY_ROW: [&str; 7] =
    ["request_id", "row", "arrived_at", "event_timestamp", "version", "reason", "latency_us"];

/// Logged predictions with their labels, batch by batch.
pub struct Joined {
    log: Arc<PredictionLog>,
    schema: SchemaRef,
    columns: Vec<Column>,
    files: std::vec::IntoIter<LoggedFile>,
    between: Between,
    labels: Known,
    /// Whether rows without a label are left out.
    labelled: bool,
    /// The rows of the file that is read now.
    ready: Option<Rows>,
}

/// Where a column comes from.
enum Column {
    Row(String),
    /// A field of a struct, or of a second one where the first lacks it.
    Of(&'static [&'static str], String),
    Label(String),
}

impl Joined {
    /// The predictions of `model` that were asked for `between` these times. Reads files: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// Feature services of which one column has several types; files that cannot be read.
    pub fn open(
        (log, labels): (&Arc<PredictionLog>, &Labels),
        model: &str,
        between: Between,
        labelled: bool,
    ) -> Result<Joined> {
        let files = log.files(model, between)?;
        let labels = labels.of(model)?;
        let mut shape = Shape::default();
        let mut first = None;
        for files in files.chunk_by(|a, b| a.folder == b.folder) {
            // All files of a folder have the same columns, and none is without rows.
            for file in files {
                if let Some(rows) = log.read(file, Between::default())?.next().transpose()? {
                    shape.add(&rows)?;
                    first.get_or_insert_with(|| rows.schema());
                    break;
                }
            }
        }
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut columns = Vec::new();
        if let Some(first) = &first {
            for name in OF_EVERY_ROW {
                fields.push(Arc::new(first.field_with_name(name)?.clone()));
                columns.push(Column::Row(name.to_owned()));
            }
        }
        for (field, column) in shape.features.into_iter().chain(shape.outputs) {
            fields.push(field);
            columns.push(column);
        }
        for field in labels.columns() {
            let name = match fields.iter().any(|known| known.name() == field.name()) {
                true => format!("label.{}", field.name()),
                false => field.name().clone(),
            };
            columns.push(Column::Label(field.name().clone()));
            fields.push(Arc::new(Field::clone(&field).with_name(name)));
        }
        Ok(Joined {
            log: Arc::clone(log),
            schema: Arc::new(Schema::new(fields)),
            columns,
            files: files.into_iter(),
            between,
            labels,
            labelled,
            ready: None,
        })
    }

    /// Its schema, known before the first batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn join(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let ids = column(rows, "request_id")?.as_string::<i32>();
        let numbers = column(rows, "row")?.as_primitive::<Int64Type>();
        let label = |row: usize| self.labels.find(ids.value(row), numbers.value(row));
        let places: UInt32Array = (0..rows.num_rows()).map(label).collect();
        let columns = self.columns.iter().zip(self.schema.fields()).map(|(from, field)| {
            let found = match from {
                Column::Row(name) => rows.column_by_name(name).cloned(),
                Column::Of(structs, name) => structs.iter().find_map(|of| of_struct(rows, of, name)),
                Column::Label(name) => self.labels.values(name, &places)?,
            };
            Ok(found.unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows())))
        });
        let joined = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?;
        if !self.labelled {
            return Ok(joined);
        }
        let keep: BooleanArray = (0..places.len()).map(|row| Some(places.is_valid(row))).collect();
        Ok(filter_record_batch(&joined, &keep)?)
    }
}

fn of_struct(rows: &RecordBatch, name: &str, field: &str) -> Option<ArrayRef> {
    rows.column_by_name(name)?.as_struct_opt()?.column_by_name(field).cloned()
}

/// The columns of all folders together.
#[derive(Default)]
struct Shape {
    features: Vec<(FieldRef, Column)>,
    outputs: Vec<(FieldRef, Column)>,
}

impl Shape {
    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        for of in ["inputs", "features"] {
            for field in fields(rows, of) {
                // A name that every row has already is told apart.
                let name = match OF_EVERY_ROW.contains(&field.name().as_str()) {
                    true => format!("feature.{}", field.name()),
                    false => field.name().clone(),
                };
                // A feature that is an input too is the same value.
                let from = Column::Of(&["features", "inputs"], field.name().clone());
                add(&mut self.features, &field, name, from)?;
            }
        }
        for field in fields(rows, "outputs") {
            let from = Column::Of(&["outputs"], field.name().clone());
            add(&mut self.outputs, &field, format!("prediction.{}", field.name()), from)?;
        }
        Ok(())
    }
}

fn fields(rows: &RecordBatch, name: &str) -> Vec<FieldRef> {
    let found = rows.column_by_name(name).and_then(|column| column.as_struct_opt());
    found.map(|found| found.fields().to_vec()).unwrap_or_default()
}

fn add(known: &mut Vec<(FieldRef, Column)>, field: &FieldRef, name: String, from: Column) -> Result<()> {
    match known.iter().find(|(known, _)| *known.name() == name) {
        Some((known, _)) if known.data_type() == field.data_type() => Ok(()),
        Some((known, _)) => Err(Error::refused(format!(
            "the feature services that fed the model disagree: column `{name}` is {} and {}; ask for times in which \
             one of them did",
            type_name(known.data_type()),
            type_name(field.data_type())
        ))),
        None => {
            known.push((Arc::new(Field::clone(field).with_name(name)), from));
            Ok(())
        }
    }
}

impl Iterator for Joined {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(rows) = self.ready.as_mut().and_then(Iterator::next) {
                match rows.and_then(|rows| self.join(&rows)) {
                    Ok(joined) if joined.num_rows() == 0 => continue,
                    joined => return Some(joined),
                }
            }
            let file = self.files.next()?;
            match self.log.read(&file, self.between) {
                Ok(rows) => self.ready = Some(rows),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
