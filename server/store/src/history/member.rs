//! What of a file does the table say that it belongs to?
//!
//! The log of a table gives columns names and types of their own, values that no file has, and rows that were deleted.
//! So a file of a table is read through what its table says: columns by their names there, and rows that are left.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use super::look::Look;

/// Where a Parquet field says by which number a table knows it.
const FIELD_ID: &str = "PARQUET:field_id";

/// The columns of a table at one version.
#[derive(Debug)]
pub(super) struct Columns(pub(super) Vec<Column>);

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// What its files call it.
    pub(super) physical: String,
    /// The number by which its files know it, where that counts before the name.
    pub(super) id: Option<i64>,
    /// What its values are where a file lacks them.
    pub(super) dtype: DataType,
}

/// A file as one of a table's.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) columns: Arc<Columns>,
    /// The columns of which all rows have one value, by name, each with that value.
    pub(super) constants: Arc<Vec<(String, ArrayRef)>>,
    /// The rows that were deleted, ascending.
    pub(super) removed: Arc<Vec<u64>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file of a table, without {} rows", self.removed.len())
    }
}

/// Where the values of a column are.
pub(super) enum Found<'a> {
    /// In this column of the file.
    There(usize),
    /// It is the same value for all rows.
    Constant(&'a ArrayRef),
    /// The file has none.
    Nowhere,
}

impl Member {
    /// Where a column of the table is, in a file of these.
    pub(super) fn find(&self, name: &str, fields: &Fields) -> Found<'_> {
        if let Some((_, value)) = self.constants.iter().find(|(constant, _)| constant == name) {
            return Found::Constant(value);
        }
        let column = self.columns.0.iter().find(|column| column.name == name);
        column.and_then(|column| column.place(fields)).map_or(Found::Nowhere, Found::There)
    }

    /// What the file calls a column of the table.
    pub(super) fn physical<'a>(&'a self, name: &'a str) -> &'a str {
        let column = self.columns.0.iter().find(|column| column.name == name);
        column.map_or(name, |column| &column.physical)
    }

    /// What the file says, in the table's words: all columns of the table, and no other one.
    pub(super) fn look(&self, look: &Look) -> Look {
        let field = |column: &Column| {
            let dtype = match self.find(&column.name, &look.fields) {
                // What lies within lists and structs has the names of the file.
                Found::There(place) if column.dtype.is_nested() => look.fields[place].data_type().clone(),
                // A file that is older than the table's type is read in that.
                Found::There(_) | Found::Constant(_) | Found::Nowhere => column.dtype.clone(),
            };
            Field::new(&column.name, dtype, true)
        };
        let named = |(physical, codec): &(String, &'static str)| {
            let column = self.columns.0.iter().find(|column| column.physical == *physical)?;
            Some((column.name.clone(), *codec))
        };
        Look {
            fields: self.columns.0.iter().map(field).collect(),
            foreign_codecs: look.foreign_codecs.iter().filter_map(named).collect(),
        }
    }

    /// How many of these rows are left.
    pub(super) fn left(&self, rows: Range<u64>) -> u64 {
        rows.end - rows.start - self.removed_of(rows).len() as u64
    }

    /// The rows of a row group that are left, each by its place there; none where all are.
    pub(super) fn kept(&self, rows: Range<u64>) -> Option<Vec<u32>> {
        let removed = self.removed_of(rows.clone());
        if removed.is_empty() {
            return None;
        }
        let mut next = removed.iter().peekable();
        let kept = rows.clone().filter(|row| next.next_if_eq(&row).is_none());
        Some(kept.map(|row| (row - rows.start) as u32).collect())
    }

    fn removed_of(&self, rows: Range<u64>) -> &[u64] {
        let place = |row: u64| self.removed.partition_point(|removed| *removed < row);
        &self.removed[place(rows.start)..place(rows.end)]
    }
}

impl Column {
    fn place(&self, fields: &Fields) -> Option<usize> {
        let is_it = |field: &Arc<Field>, id: i64| field.metadata().get(FIELD_ID) == Some(&id.to_string());
        let by_id = self.id.and_then(|id| fields.iter().position(|field| is_it(field, id)));
        by_id.or_else(|| fields.find(&self.physical).map(|(place, _)| place))
    }
}

/// So many rows of one value.
pub(super) fn repeated(value: &ArrayRef, rows: usize) -> Result<ArrayRef, ArrowError> {
    match value.is_null(0) {
        true => Ok(new_null_array(value.data_type(), rows)),
        false => take(value, &UInt32Array::from(vec![0; rows]), None),
    }
}
