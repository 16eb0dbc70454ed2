//! What is known of feature vectors, value by value?

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use quern_base::memory::{Lease, Part};
use quern_engine::size::{column_bytes, row_bytes};
use quern_engine::{EngineError, Failed, Found, Origin, RowState, ServicePlan, Status};

use crate::error::{Error, Result};

/// Feature vectors and what is known of each value.
#[derive(Debug, Clone)]
pub struct Vectors {
    /// A row for each instance; columns are the service's outputs.
    pub vectors: RecordBatch,
    /// What each look-up found, without the values.
    pub found: Vec<Found>,
    /// The service they belong to.
    pub service: Arc<ServicePlan>,
    /// Which of the values could not be computed for this answer; what is stored as null is not among them.
    pub failed: Failed,
    /// What the values take of the memory of requests, for as long as they are there; none where nobody counts.
    pub held: Option<Arc<Part>>,
}

impl Vectors {
    /// How the value of `output` in `row` is to be understood.
    pub fn status(&self, output: usize, row: usize) -> Status {
        Status::of(self.state(output, row), self.vectors.column(output).is_null(row))
    }

    /// Whether there is nothing of what `output` is about: no row that counts, or no event that a window ever saw. A
    /// stored null is something, and so is a window in which nothing happened.
    pub fn is_missing(&self, output: usize, row: usize) -> bool {
        self.state(output, row) != RowState::Present
    }

    fn state(&self, output: usize, row: usize) -> RowState {
        match self.service.origins[output] {
            Origin::Feature { lookup, feature } => match self.found[lookup].absent.get(feature) {
                Some(true) => RowState::NotFound,
                _ => self.found[lookup].states[row],
            },
            Origin::Input(_) | Origin::Derived => RowState::Present,
        }
    }

    /// Event timestamp (µs) of the stored row that the value comes from; none for what was not stored or not found.
    pub fn event_timestamp(&self, output: usize, row: usize) -> Option<i64> {
        match self.service.origins[output] {
            Origin::Feature { lookup, .. } => {
                let found = &self.found[lookup];
                let has_row = found.states[row].has_row();
                has_row.then(|| found.event_timestamps.get(row).copied()).flatten()
            }
            Origin::Input(_) | Origin::Derived => None,
        }
    }

    /// The same without the values, for who wants to know no more than what became of each.
    pub fn without_values(self) -> Result<Vectors> {
        let (fields, rows) = (self.vectors.schema_ref().fields(), self.vectors.num_rows());
        let said = |column: &ArrayRef| -> ArrayRef {
            Arc::new(BooleanArray::new(BooleanBuffer::new_unset(rows), column.nulls().cloned()))
        };
        let columns = self.vectors.columns().iter().map(said).collect();
        let fields = fields.iter().map(|field| Field::clone(field).with_data_type(DataType::Boolean));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let vectors = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Vectors { vectors, held: None, ..self })
    }

    /// Whether the values are there.
    pub fn has_values(&self) -> bool {
        Arc::ptr_eq(self.vectors.schema_ref(), &self.service.outputs)
    }

    /// Some of the rows.
    pub fn pick(&self, rows: &UInt32Array) -> Result<Vectors> {
        let found = self.found.iter().map(|found| found.pick(rows)).collect::<std::result::Result<_, _>>()?;
        let vectors = take_record_batch(&self.vectors, rows)?;
        let failed = self.failed.pick(rows.values());
        let (service, held) = (Arc::clone(&self.service), self.held.clone());
        Ok(Vectors { vectors, found, service, failed, held })
    }
}

/// One after the other, as the vectors of all rows.
///
/// # Errors
/// `Kind::TooLarge` where a column cannot hold what they have together, or `room` does not.
pub(crate) fn together(parts: &[Vectors], room: &Arc<Lease>) -> Result<Vectors> {
    let rows: usize = parts.iter().map(|part| part.vectors.num_rows()).sum();
    let [first, ..] = parts else { return Err(Error::broken("vectors of no rows")) };
    for column in 0..first.vectors.num_columns() {
        let bytes: usize = parts.iter().map(|part| column_bytes(part.vectors.column(column))).sum();
        if i32::try_from(bytes).is_err() {
            return Err(EngineError::TooLarge { rows }.into());
        }
    }
    let held = Arc::new(room.part(parts.iter().map(|part| row_bytes(&part.vectors)).sum())?);
    let vectors = concat_batches(first.vectors.schema_ref(), parts.iter().map(|part| &part.vectors))?;
    let (mut failed, mut before) = (Failed::default(), 0);
    for part in parts {
        failed.join(&part.failed.placed(|row| [row + before]));
        failed.add(&part.failed.elsewhere());
        before += part.vectors.num_rows() as u32;
    }
    let found = (0..first.found.len()).map(|lookup| {
        let of = || parts.iter().map(|part| &part.found[lookup]);
        let absent = first.found[lookup].absent.iter().enumerate();
        Found {
            columns: Vec::new(),
            states: of().flat_map(|found| found.states.iter().copied()).collect(),
            event_timestamps: of().flat_map(|found| found.event_timestamps.iter().copied()).collect(),
            // What was materialized meanwhile is there in some of the rows.
            absent: absent.map(|(feature, _)| of().all(|found| found.absent[feature])).collect(),
            failed: Failed::default(),
        }
    });
    let (found, service) = (found.collect(), Arc::clone(&first.service));
    Ok(Vectors { vectors, found, service, failed, held: Some(held) })
}

/// What was found without its values, which are in the vectors as far as they are wanted.
pub(crate) fn told(found: Vec<Found>) -> Vec<Found> {
    found.into_iter().map(|found| Found { columns: Vec::new(), ..found }).collect()
}
