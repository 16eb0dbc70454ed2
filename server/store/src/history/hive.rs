//! Which columns do the folders of a file say? `region=eu/dt=2024-01-01/`, as Hive, Spark, DuckDB and pyarrow write
//! tables in parts: what stands there is in no file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, TimestampMicrosecondType};
use feature_defs::Epoch;
use percent_encoding::percent_decode_str;
use quern_engine::schema::{timestamp, type_name};

use super::Reading;
use super::cell::{Cells, example};
use super::files::HistoryFile;
use crate::error::{Error, Result};

/// What stands for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The folders of the file `name`: what all files in them say is the same.
pub(super) fn path(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folders, _)| folders)
}

/// The folders of the file `name` that say a column, outermost first, each with its column and its text.
fn folders(name: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let folders = path(name).split('/');
    // A character that a folder's name cannot have is written as `%3A`; what is no text so is meant as it stands.
    let decoded = |text| percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text));
    let said = folders.filter_map(|folder| folder.split_once('=')).filter(|(column, _)| !column.is_empty());
    said.map(move |(column, text)| (decoded(column), decoded(text)))
}

/// The text that the folders of the file `name` have for `column`; the innermost counts.
fn text<'a>(name: &'a str, column: &str) -> Option<Cow<'a, str>> {
    folders(name).filter(|(known, _)| known == column).map(|(_, text)| text).last()
}

/// Whether the folders of the file `name` say `column`.
pub(super) fn says(name: &str, column: &str) -> bool {
    text(name, column).is_some()
}

/// The columns that folders say: whole numbers, dates or texts, whichever says all.
pub(super) fn columns(files: &[HistoryFile]) -> BTreeMap<String, DataType> {
    let mut columns: BTreeMap<String, DataType> = BTreeMap::new();
    // A table says itself what its folders say.
    for file in files.iter().filter(|file| file.member.is_none()) {
        for (column, text) in folders(&file.name) {
            let dtype = narrowest(&text);
            match columns.get_mut(column.as_ref()) {
                Some(known) if *known == dtype || dtype == DataType::Null => {}
                Some(known) if *known == DataType::Null => *known = dtype,
                Some(known) => *known = DataType::Utf8,
                None => _ = columns.insert(column.into_owned(), dtype),
            }
        }
    }
    columns
}

/// The narrowest type that says the text and gives it back as it stands.
fn narrowest(text: &str) -> DataType {
    if text == NULL {
        return DataType::Null;
    }
    let is_whole = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let is_date = || text.len() == "2024-01-01".len() && constant(text, &DataType::Date32, None, 0).is_some();
    match () {
        () if is_whole => DataType::Int64,
        () if is_date() => DataType::Date32,
        () => DataType::Utf8,
    }
}

/// So many rows of what the text says; none where that is no value of the type.
fn constant(text: &str, dtype: &DataType, format: Option<Epoch>, rows: usize) -> Option<ArrayRef> {
    if text == NULL {
        return Some(new_null_array(dtype, rows));
    }
    let mut cells = Cells::new(dtype, format)?;
    cells.push(text)?;
    let one = cells.finish().ok()?;
    take(&one, &UInt32Array::from(vec![0; rows]), None).ok()
}

/// The column `field` of a file that lacks it: what its folders say, else nulls.
///
/// # Errors
/// A text that is no value of the column's type.
pub(super) fn column(name: &str, field: &Field, reading: &Reading<'_>, rows: usize) -> Result<ArrayRef> {
    let Some(text) = text(name, field.name()) else { return Ok(new_null_array(field.data_type(), rows)) };
    let format = reading.formats.epoch(field.name());
    constant(&text, field.data_type(), format, rows).ok_or_else(|| Error::invalid(mismatch(name, field)))
}

/// What is wrong with the folders of a file that should say `field`.
pub(super) fn amiss(name: &str, field: &Field, format: Option<Epoch>) -> Option<String> {
    let text = text(name, field.name())?;
    constant(&text, field.data_type(), format, 0).is_none().then(|| mismatch(name, field))
}

fn mismatch(name: &str, field: &Field) -> String {
    let (column, dtype) = (field.name(), field.data_type());
    format!("`{name}`: its folder `{column}=…` says no {}, such as {}", type_name(dtype), example(dtype))
}

/// The event timestamp that the folders of a file say, in microseconds.
pub(super) fn time_us(name: &str, column: &str, format: Option<Epoch>) -> Option<i64> {
    let time = constant(&text(name, column)?, &timestamp(), format, 1)?;
    time.as_primitive::<TimestampMicrosecondType>().iter().next().flatten()
}
