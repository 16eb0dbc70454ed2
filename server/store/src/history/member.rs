//! What of a file does the table say that it belongs to?
//!
//! The log of a table gives columns names and types of their own, values that no file has, and rows that were deleted.
//! So a file of a table is read through what its table says: columns by their names there, and rows that are left.

use std::collections::HashMap;
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
    /// What files call it that do not number their columns.
    pub(super) physical: Vec<String>,
    /// The number by which its files know it, where they number their columns.
    pub(super) id: Option<i64>,
    /// What its values are, whatever a file has.
    pub(super) dtype: DataType,
}

/// A file as one of a table's.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) columns: Arc<Columns>,
    /// The columns of which all rows have one value, by name, each with that value.
    pub(super) constants: Arc<Vec<(String, ArrayRef)>>,
    /// The same of columns that the file may have itself, which counts before that.
    pub(super) defaults: Arc<Vec<(String, ArrayRef)>>,
    /// The rows that were deleted, ascending.
    pub(super) removed: Arc<Vec<u64>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file of a table, without {} rows", self.removed.len())
    }
}

/// Which columns of its table a file may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacks {
    /// None: what it says would be something else.
    Nothing,
    /// Those that came later.
    Some,
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

/// A file of a table that has these columns.
pub(super) struct Within<'a> {
    member: &'a Member,
    fields: &'a Fields,
    /// Where each is that has a number.
    numbered: HashMap<i64, usize>,
}

impl Within<'_> {
    /// Where a column of the table is.
    pub(super) fn find(&self, name: &str) -> Found<'_> {
        let said = |all: &'_ [(String, ArrayRef)]| all.iter().position(|(said, _)| said == name);
        if let Some(place) = said(&self.member.constants) {
            return Found::Constant(&self.member.constants[place].1);
        }
        let column = self.member.columns.0.iter().find(|column| column.name == name);
        match (column.and_then(|column| self.place(column)), said(&self.member.defaults)) {
            (Some(place), _) => Found::There(place),
            (None, Some(place)) => Found::Constant(&self.member.defaults[place].1),
            (None, None) => Found::Nowhere,
        }
    }

    /// What the file calls a column of the table, where it has it.
    pub(super) fn physical(&self, name: &str) -> Option<&str> {
        match self.find(name) {
            Found::There(place) => Some(self.fields[place].name()),
            Found::Constant(_) | Found::Nowhere => None,
        }
    }

    fn place(&self, column: &Column) -> Option<usize> {
        match column.id {
            Some(id) if !self.numbered.is_empty() => self.numbered.get(&id).copied(),
            _ => column.physical.iter().find_map(|name| Some(self.fields.find(name)?.0)),
        }
    }
}

impl Member {
    /// The file, in which there are these columns.
    pub(super) fn within<'a>(&'a self, fields: &'a Fields) -> Within<'a> {
        let number = |field: &Arc<Field>| field.metadata().get(FIELD_ID)?.parse().ok();
        let numbered = fields.iter().enumerate().filter_map(|(place, field)| Some((number(field)?, place)));
        Within { member: self, fields, numbered: numbered.collect() }
    }

    /// What the file says, in the table's words: all columns of the table, and no other one.
    ///
    /// # Errors
    /// Where nothing tells which of its columns are which of the table's.
    pub(super) fn look(&self, look: &Look) -> Result<Look, String> {
        let within = self.within(&look.fields);
        let numbered = look.fields.iter().filter(|field| field.metadata().contains_key(FIELD_ID)).count();
        if numbered > within.numbered.len() && self.columns.0.iter().any(|column| column.id.is_some()) {
            return Err("two of its columns have one number (`field_id`)".to_owned());
        }
        let is_told = |column: &Column| column.id.is_none() || !column.physical.is_empty();
        if within.numbered.is_empty() && !self.columns.0.is_empty() && !self.columns.0.iter().any(is_told) {
            return Err(
                "it does not number its columns (`field_id`), and its table has no names for such files \
                        (`schema.name-mapping.default`)"
                    .to_owned(),
            );
        }
        let found: Vec<Found<'_>> = self.columns.0.iter().map(|column| within.find(&column.name)).collect();
        let field = |(column, found): (&Column, &Found<'_>)| {
            let dtype = match found {
                // What lies within lists and structs has the names of the file.
                Found::There(place) if column.dtype.is_nested() => look.fields[*place].data_type().clone(),
                // A file that is older than the table's type is read in that.
                Found::There(_) | Found::Constant(_) | Found::Nowhere => column.dtype.clone(),
            };
            Field::new(&column.name, dtype, true)
        };
        let named = |(physical, codec): &(String, &'static str)| {
            let is_it = |found: &Found<'_>| matches!(found, Found::There(place) if look.fields[*place].name() == physical);
            let column = &self.columns.0[found.iter().position(is_it)?];
            Some((column.name.clone(), *codec))
        };
        Ok(Look {
            fields: self.columns.0.iter().zip(&found).map(field).collect(),
            foreign_codecs: look.foreign_codecs.iter().filter_map(named).collect(),
            has_others: look.has_others,
        })
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

/// So many rows of one value.
pub(super) fn repeated(value: &ArrayRef, rows: usize) -> Result<ArrayRef, ArrowError> {
    match value.is_null(0) {
        true => Ok(new_null_array(value.data_type(), rows)),
        false => take(value, &UInt32Array::from(vec![0; rows]), None),
    }
}
