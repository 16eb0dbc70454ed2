//! Which columns have one value in all rows of a file, and which one, so that nobody need read it?
//!
//! What a file has not itself its folders say, or its table; else it is null. The value is made by what makes it where
//! rows are read, so that it is the same one.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::FieldRef;

use super::files::HistoryFile;
use super::look::Look;
use super::member::{Found, repeated};
use super::{Part, Reading, Scan, fitted, hive};
use crate::error::Result;

/// What all rows of some files have in common.
#[derive(Debug)]
pub struct Constants {
    /// The units of files that say the same, among those of the scan, ascending.
    pub units: Vec<Range<usize>>,
    /// A row for each of these: what every row there has.
    pub values: RecordBatch,
}

impl Scan {
    /// What is known unread of `columns`, of which there is one at least: of each file that has none of them itself.
    ///
    /// # Errors
    /// A column that was not opened for reading.
    pub fn constants(&self, columns: &[String]) -> Result<Constants> {
        let schema = self.project(columns)?;
        let reading = self.reading(Arc::clone(&schema), None);
        let (mut units, mut rows): (Vec<Range<usize>>, Vec<Vec<ArrayRef>>) = Default::default();
        let (mut start, mut before) = (0, None::<(&Part, bool)>);
        for of_part in self.units.chunk_by(|a, b| a.part == b.part) {
            let (part, end) = (&self.parts[of_part[0].part], start + of_part.len());
            let is_known = match before {
                // There may be very many files, which lie side by side where they say the same.
                Some((before, is_known)) if part.says_as(before) => {
                    if let Some(last) = units.last_mut().filter(|_| is_known) {
                        last.end = end;
                    }
                    is_known
                }
                _ => {
                    let row = part.constants(&reading);
                    let is_known = row.is_some();
                    units.extend(is_known.then_some(start..end));
                    rows.extend(row);
                    is_known
                }
            };
            (start, before) = (end, Some((part, is_known)));
        }
        if rows.is_empty() {
            return Ok(Constants { units, values: RecordBatch::new_empty(schema) });
        }
        let column =
            |place: usize| concat(&rows.iter().map(|row| &*row[place] as &dyn Array).collect::<Vec<_>>());
        let columns = (0..columns.len()).map(column).collect::<std::result::Result<_, _>>()?;
        Ok(Constants { units, values: RecordBatch::try_new(schema, columns)? })
    }
}

impl Part {
    /// The file, and its own columns, where all of these are known: a line of JSON may have any.
    fn known(&self) -> Option<(&HistoryFile, &Arc<Look>)> {
        let (file, own) = match self {
            Part::Typed(file, own) => (file.file(), own),
            Part::Csv(file, own) => (file.file(), own),
            Part::Json(_) | Part::Tail(_) => return None,
        };
        (!own.has_others).then_some((file, own))
    }

    /// Whether it is plain that all that is known of its rows is known of those of `other`, and nothing else.
    fn says_as(&self, other: &Part) -> bool {
        match (self.known(), other.known()) {
            (None, None) => true,
            (Some((file, own)), Some((other, of_other))) => {
                let are_of_tables = file.member.is_some() || other.member.is_some();
                !are_of_tables && hive::path(&file.name) == hive::path(&other.name) && own == of_other
            }
            _ => false,
        }
    }

    /// The value of each of the columns that are asked for, if all rows have the same.
    fn constants(&self, reading: &Reading<'_>) -> Option<Vec<ArrayRef>> {
        let (file, own) = self.known()?;
        let within = file.member.as_ref().map(|member| member.within(&own.fields));
        let constant = |field: &FieldRef| {
            let value = match &within {
                Some(within) => match within.find(field.name()) {
                    Found::There(_) => return None,
                    Found::Constant(value) => {
                        fitted::column(file, &repeated(value, 1).ok()?, field, reading).ok()?
                    }
                    Found::Nowhere => new_null_array(field.data_type(), 1),
                },
                None if own.fields.find(field.name()).is_some() => return None,
                None => hive::column(&file.name, field, reading, 1).ok()?,
            };
            // A value that the type of its column cannot say counts as failed, row by row.
            (value.data_type() == field.data_type()).then_some(value)
        };
        reading.schema.fields().iter().map(constant).collect()
    }
}
