//! What did the model say, what did it see, and what came true? Logged predictions with their labels, as one table that
//! a training run can take: the columns of a training set, and beside them what was said and what came of it.
//!
//! Predictions are taken some at a time, and their labels looked for among all: neither is ever held as a whole.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use quern_engine::schema::type_name;
use quern_engine::size::row_bytes;

use crate::error::{Error, Result};
use crate::logged::read::Rows;
use crate::logged::rows::{ASKED, DIGEST, PRINCIPAL, SERVED_BY};
use crate::logged::{Between, LoggedFile, PredictionLog};
use crate::verbs::labels::{Found, Known, Labels};

/// What every logged prediction has.
const OF_EVERY_ROW: [&str; 10] = [
    "request_id",
    "row",
    "arrived_at",
    "event_timestamp",
    "version",
    DIGEST,
    "reason",
    SERVED_BY,
    "latency_us",
    PRINCIPAL,
];
/// Those of them that what earlier builds have written lacks.
const LATER: [&str; 3] = [DIGEST, SERVED_BY, PRINCIPAL];

/// What is held at a time.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Predictions, whose labels are looked for together: all labels are read for each lot of them.
    pub rows: usize,
    /// What these hold, and as much again that their labels hold.
    pub bytes: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { rows: 1 << 17, bytes: 64 << 20 }
    }
}

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
    room: Room,
    /// The rows of the file that is read now.
    reading: Option<Rows>,
    /// Rows whose labels are not looked for yet.
    waiting: VecDeque<RecordBatch>,
    /// Rows whose labels are found.
    ready: VecDeque<RecordBatch>,
    found: Option<Found>,
    /// The most bytes of rows and of labels that were held at a time.
    most: [usize; 2],
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
                let field = match first.field_with_name(name) {
                    Err(_) if LATER.contains(&name) => Field::new(name, DataType::Utf8, true),
                    field => field?.clone(),
                };
                fields.push(Arc::new(field));
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
            room: Room::default(),
            reading: None,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            found: None,
            most: [0, 0],
        })
    }

    /// The same, which holds as much at a time.
    #[must_use]
    pub fn within(self, room: Room) -> Joined {
        Joined { room, ..self }
    }

    /// The most bytes of predictions and of labels that it has held at a time.
    pub fn most_held(&self) -> [usize; 2] {
        self.most
    }

    /// Its schema, known before the first batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn join(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let found = self.found.as_ref().ok_or_else(|| Error::broken("labels that were not looked for"))?;
        let places = found.of(rows)?;
        let columns = self.columns.iter().zip(self.schema.fields()).map(|(from, field)| {
            let found = match from {
                Column::Row(name) => rows.column_by_name(name).cloned(),
                Column::Of(structs, name) => structs.iter().find_map(|of| of_struct(rows, of, name)),
                Column::Label(name) => found.values(name, &places)?,
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
        for field in fields(rows, ASKED) {
            let from = Column::Of(&[ASKED], field.name().clone());
            let mut name = format!("asked.{}", field.name());
            // Versions may have steps of one name that give other things.
            let differs = |(known, _): &(FieldRef, Column)| {
                *known.name() == name && known.data_type() != field.data_type()
            };
            if self.outputs.iter().any(differs) {
                name = format!("{name} ({})", type_name(field.data_type()));
            }
            add(&mut self.outputs, &field, name, from)?;
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

impl Joined {
    /// Reads rows as far as there is room; whether there are any.
    fn read(&mut self) -> Result<bool> {
        let mut count: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
        let mut bytes: usize = self.waiting.iter().map(row_bytes).sum();
        while count < self.room.rows && bytes < self.room.bytes {
            if let Some(rows) = self.reading.as_mut().and_then(Iterator::next) {
                let rows = rows?;
                (count, bytes) = (count + rows.num_rows(), bytes + row_bytes(&rows));
                self.waiting.push_back(rows);
            } else if let Some(file) = self.files.next() {
                self.reading = Some(self.log.read(&file, self.between)?);
            } else {
                break;
            }
        }
        self.most[0] = self.most[0].max(bytes);
        Ok(!self.waiting.is_empty())
    }

    /// Finds the labels of as many of the waiting rows as they have room for.
    fn look(&mut self) -> Result<()> {
        let mut some: Vec<RecordBatch> = std::mem::take(&mut self.waiting).into();
        let found = loop {
            match self.labels.find(&some, self.room.bytes)? {
                Some(found) => break found,
                None => self.put_back_half(&mut some),
            }
        };
        self.most[1] = self.most[1].max(found.bytes);
        (self.ready, self.found) = (some.into(), Some(found));
        Ok(())
    }

    fn put_back_half(&mut self, some: &mut Vec<RecordBatch>) {
        let half = some.len() / 2;
        if half > 0 {
            some.drain(half..).rev().for_each(|rows| self.waiting.push_front(rows));
        } else if let Some(rows) = some.pop() {
            let half = rows.num_rows() / 2;
            self.waiting.push_front(rows.slice(half, rows.num_rows() - half));
            some.push(rows.slice(0, half));
        }
    }

    /// Makes the next rows ready; whether there are any.
    fn prepare(&mut self) -> Result<bool> {
        let more = self.read()?;
        if more {
            self.look()?;
        }
        Ok(more)
    }
}

impl Iterator for Joined {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let joined = match self.ready.pop_front() {
                Some(rows) => self.join(&rows),
                None => match self.prepare() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => Err(error),
                },
            };
            if joined.as_ref().map_or(true, |rows| rows.num_rows() > 0) {
                return Some(joined);
            }
        }
    }
}
