//! Of which rows is it known by some of their columns alone that a view's `where` leaves them out?
//!
//! What is counted must not hang on what is known. Where a part that `where` joins by `AND` is false, a row is left out
//! and has not failed, whatever the other parts say. Beside a part that is null another one may fail, which counts: so
//! null leaves rows out only where it is what all of `where` says, and nothing failed.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{FieldRef, SchemaRef};

use crate::expr::{Evaluated, Expression};

/// What `where` asks of a row: all of it, or a part that it joins by `AND`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    expression: Expression,
    /// What it is compiled over.
    schema: SchemaRef,
    /// The columns that it reads out of these.
    columns: Vec<String>,
    is_all: bool,
}

impl Condition {
    /// What `filter` asks, which is compiled over `schema`. What reads no column is known of no row alone.
    pub(super) fn all(filter: &Expression, schema: &SchemaRef) -> Vec<Condition> {
        let condition = |expression: Expression, is_all: bool| {
            let mut places: Vec<usize> = expression.reads().collect();
            places.sort_unstable();
            let columns = places.into_iter().map(|place| schema.field(place).name().clone()).collect();
            Condition { expression, schema: Arc::clone(schema), columns, is_all }
        };
        let parts = filter.conditions(schema).into_iter().filter(|part| part != filter);
        let all = parts.map(|part| condition(part, false)).chain([condition(filter.clone(), true)]);
        all.filter(|condition| !condition.columns.is_empty()).collect()
    }

    /// The columns that it reads, in order; there is one at least.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// For each row whether it leaves it out, whatever else the row holds; `values` are those of its columns. None
    /// where it cannot be evaluated: whoever reads the rows is told why.
    pub fn leaves_out(&self, values: &RecordBatch) -> Vec<bool> {
        let rows = values.num_rows();
        let column = |field: &FieldRef| match self.columns.iter().position(|name| name == field.name()) {
            Some(place) => Arc::clone(values.column(place)),
            None => new_null_array(field.data_type(), rows),
        };
        let columns = self.schema.fields().iter().map(column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let evaluated = batch.ok().and_then(|batch| self.expression.evaluate(&batch, &String::new).ok());
        let Some(Evaluated { values, failed }) = evaluated else { return vec![false; rows] };
        let said = values.as_boolean();
        let is_out = |row: usize| match said.is_valid(row) {
            true => !said.value(row),
            false => self.is_all && failed.binary_search(&(row as u32)).is_err(),
        };
        (0..rows).map(is_out).collect()
    }
}
