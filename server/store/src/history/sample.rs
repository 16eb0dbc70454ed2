//! Do the first rows of a source say what is declared?
//!
//! Schemas say nothing about values. So whoever checks definitions reads some rows, too: a cell of a CSV file that is
//! not of its type, and numbers that count something else than their `format` says, should not show when the head is
//! wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef, TimestampMicrosecondType};
use feature_defs::{BatchSource, Column, DefError, Epoch, Format, Source};
use quern_engine::instant;

use super::csv::{self, CsvFile};
use super::files::{self, HistoryFile};
use super::json::JsonFile;
use super::typed::TypedFile;
use super::{Formats, History};
use crate::error::Result;

/// How many rows of a file are read.
const ROWS_SAMPLED: usize = 1_000;

/// The numbers of columns that have a `format`, in its unit.
type Numbers = BTreeMap<String, Vec<f64>>;

impl History {
    /// What is wrong with the first rows of a source's first and last file, as far as its schema holds: the first cell
    /// of a CSV file that is not of its column's type, and each column whose numbers count something else than its
    /// `format` says.
    pub fn sampled(&self, source: &Source, schema: &SchemaRef) -> Vec<DefError> {
        let Some(batch) = &source.batch else { return Vec::new() };
        let Ok(found) = files::find(&self.places, source, batch) else { return Vec::new() };
        let formats = Formats::of(source);
        let last = found.get(1..).and_then(<[HistoryFile]>::last);
        let mut mistakes = Vec::new();
        for file in found.first().into_iter().chain(last) {
            match numbers(file, batch, schema, &formats) {
                Ok(numbers) => {
                    let columns = source.columns.iter();
                    mistakes.extend(columns.filter_map(|column| misread(source, column, file, &numbers)));
                }
                Err(error) => {
                    let help = "mend the file, or declare the column as what it holds";
                    let cause = format!("source `{}`: {}", source.name, error.said());
                    mistakes.push(DefError::new(&batch.loc, cause).with_help(help));
                }
            }
        }
        mistakes
    }
}

/// Reads the first rows of a file: all columns of a CSV file, and of a file that knows its types those whose
/// numbers have a `format`, and those that are stored as something else.
fn numbers(
    file: &HistoryFile,
    batch: &BatchSource,
    schema: &SchemaRef,
    formats: &Formats,
) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    let mut note = |rows: RecordBatch| {
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            if let Some(epoch) = formats.epoch(field.name()) {
                let in_unit = |micros: i64| micros as f64 / (1_000_000.0 / epoch.per_second() as f64);
                let moments = column.as_primitive::<TimestampMicrosecondType>().iter().flatten().map(in_unit);
                numbers.entry(field.name().clone()).or_default().extend(moments);
            }
        }
        Ok(())
    };
    // What a file lacks has been reported.
    let among = |found: &Fields, is_wanted: &dyn Fn(&Field) -> bool| {
        let fields = schema
            .fields()
            .iter()
            .filter(|field| found.find(field.name()).is_some_and(|(_, found)| is_wanted(found)));
        Arc::new(Schema::new(fields.cloned().collect::<Fields>()))
    };
    match batch.format {
        Format::Csv => {
            let wanted = among(&csv::header(file, &batch.dialect, schema)?, &|_| true);
            let file = CsvFile::unopened(file.clone(), &batch.dialect);
            file.first_rows((ROWS_SAMPLED, wanted), formats, &mut note)?;
        }
        Format::Json => {
            let wanted = Arc::clone(schema);
            JsonFile::first_rows(file.clone(), (ROWS_SAMPLED, wanted), formats, &mut note)?;
        }
        format @ (Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg) => {
            let file = TypedFile::unopened(file.clone(), format);
            let counts = |field: &Field| {
                let is_epoch =
                    formats.epochs.contains_key(field.name()) && instant::is_number(field.data_type());
                is_epoch || formats.stored.contains_key(field.name())
            };
            let wanted = among(&file.look()?.fields, &counts);
            file.first_rows((ROWS_SAMPLED, wanted), formats, &mut note)?;
        }
    }
    Ok(numbers)
}

/// That the numbers of `column` count something else than its `format` says: in that unit none of them says a moment
/// from 1971 to 2199, and in another one all do.
fn misread(source: &Source, column: &Column, file: &HistoryFile, numbers: &Numbers) -> Option<DefError> {
    let (declared, numbers) = (column.format?, numbers.get(&column.name)?);
    let meant = Epoch::of_all(numbers.iter().copied()).filter(|meant| *meant != declared)?;
    // One value over and over may stand for none, as the end of the year 9999 does.
    let is_time =
        column.name == source.event_timestamp || source.created_timestamp.as_ref() == Some(&column.name);
    let differ = numbers.iter().map(|number| number.to_bits()).collect::<HashSet<_>>().len() > 1;
    if !is_time && !differ {
        return None;
    }
    let cause = format!(
        "source `{}`: the numbers of column `{}` in `{}` are no {} since 1970: none of them lies in the years \
         from 1971 to 2199",
        source.name,
        column.name,
        file.name,
        declared.noun()
    );
    let help = format!(
        "they look like {}: write `format: {}`; moments that are that far away are written as timestamps, not as numbers",
        meant.noun(),
        meant.name()
    );
    Some(DefError::new(&column.loc, cause).with_help(help))
}
