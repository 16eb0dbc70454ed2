//! Which columns does a file hold, as a source would declare them?
//!
//! A Parquet or Arrow file says so itself. Of CSV and JSON it is a guess by the first rows: the narrowest type that all
//! of their cells have.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema};
use feature_defs::{BatchSource, DefError, Dialect, Epoch, Format, Loc, ScalarType, Source, Type};
use quern_base::quotes::is_code;
use quern_engine::instant;
use quern_engine::json::{Json, column as json_column};
use quern_engine::schema::{arrow_type, canonical, conforms, quern_type, type_name};

use super::Formats;
use super::cell::Cells;
use super::csv;
use super::files::{self, HistoryFile};
use super::format::{NOT_SHOWN, format_of, is_called_a_table};
use super::hive;
use super::json;
pub use super::quoted::quoted;
use super::typed::TypedFile;
use crate::error::{Error, Result};
use crate::roots::Roots;

/// How many records of a CSV file are looked at.
const RECORDS_SEEN: usize = 10_000;

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// Its name.
    pub name: String,
    /// The type to declare it by; none where it cannot be.
    pub dtype: Option<Type>,
    /// What its numbers seem to count since 1970, if they may be times.
    pub epoch: Option<Epoch>,
    /// What keeps it from being declared, where something does.
    pub why_not: String,
}

impl Inferred {
    fn of(name: &str, dtype: Type, epoch: Option<Epoch>) -> Inferred {
        Inferred { name: name.to_owned(), dtype: Some(dtype), epoch, why_not: String::new() }
    }

    fn not(name: &str, why_not: impl Into<String>) -> Inferred {
        Inferred { name: name.to_owned(), dtype: None, epoch: None, why_not: why_not.into() }
    }

    /// Whether its type says when something was.
    pub fn is_time(&self) -> bool {
        matches!(self.dtype, Some(Type::Scalar(ScalarType::Timestamp | ScalarType::Date)))
    }
}

/// A file, and what it shows.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Its name.
    pub file: String,
    /// How it is written, where it is CSV: with which delimiter.
    pub dialect: Dialect,
    /// Its columns.
    pub columns: Vec<Inferred>,
}

/// The first of the files that `path` names from the folder `root` on.
///
/// # Errors
/// `Kind::InvalidArgument` where there is no such file, or it cannot be read.
pub fn infer(root: &Path, format: Format, path: &str) -> Result<Shown> {
    let mut batch = batch(format, path);
    // Whoever asks reads with rights of their own.
    let found =
        files::local::named(&Roots::anywhere(root), &batch).map_err(|DefError { cause, help, .. }| {
            Error::invalid(help.map_or(cause.clone(), |help| format!("{cause}; {help}")))
        })?;
    let Some(first) = found.first().cloned() else { return Ok(Default::default()) };
    if format == Format::Csv {
        batch.dialect.delimiter = csv::delimiter(&first)?;
    }
    let mut columns = columns(&batch, first.clone())?;
    columns.extend(of_folders(&found, &columns));
    Ok(Shown { file: first.name, dialect: batch.dialect, columns })
}

/// The format of the files that a folder or a glob names from the folder `root` on, as their names say it.
pub fn format_within(root: &Path, path: &str) -> Option<Format> {
    let is_of = |format: &Format| {
        let found = files::local::named(&Roots::anywhere(root), &batch(*format, path)).unwrap_or_default();
        found.first().and_then(|file| format_of(&file.name)) == Some(*format)
    };
    Format::ALL.into_iter().filter(|format| !format.is_table()).find(is_of)
}

fn batch(format: Format, path: &str) -> BatchSource {
    BatchSource {
        format,
        path: path.to_owned(),
        dialect: Dialect::default(),
        connection: None,
        version: None,
        reference: None,
        catalog: None,
        loc: Loc::start(path),
    }
}

/// That `source` must declare its columns, and how, as far as `file` shows.
pub(super) fn undeclared(
    source: &Source,
    batch: &BatchSource,
    file: HistoryFile,
    why: &str,
) -> Result<DefError> {
    let name = file.name.clone();
    let cause = format!("source `{}` must declare its `columns`: {why}", source.name);
    if !is_called_a_table(&name) {
        return Ok(DefError::new(&source.loc, cause).with_help(NOT_SHOWN));
    }
    let columns = columns(batch, file)?;
    let times = [Some(&source.event_timestamp), source.created_timestamp.as_ref()];
    let times: Vec<&str> = times.into_iter().flatten().map(String::as_str).collect();
    let block = block(&columns, &times);
    Ok(DefError::new(&source.loc, cause).with_help(format!("as far as `{name}` shows, they are\n{block}")))
}

/// The declaration of `columns`, to paste into a source; what is among `times` is declared as one.
pub fn block(columns: &[Inferred], times: &[&str]) -> String {
    let mut block = "columns:".to_owned();
    for column in columns {
        let name = quoted(&column.name);
        let written = match column.dtype {
            None => write!(block, "\n  # {name} {}", column.why_not),
            _ if times.contains(&column.name.as_str()) => {
                let format =
                    column.epoch.map(|epoch| format!(", format: {}", epoch.name())).unwrap_or_default();
                write!(block, "\n  - {{name: {name}, type: timestamp{format}}}")
            }
            Some(dtype) => write!(block, "\n  - {{name: {name}, type: {}}}", quoted(&dtype.to_string())),
        };
        debug_assert!(written.is_ok(), "a text takes whatever is written");
    }
    block
}

/// What the folders of files say besides.
fn of_folders(files: &[HistoryFile], columns: &[Inferred]) -> Vec<Inferred> {
    let said = hive::columns(files).into_iter();
    let said = said.filter(|(name, _)| columns.iter().all(|column| column.name != *name));
    said.filter_map(|(name, dtype)| Some(Inferred::of(&name, quern_type(&dtype)?, None))).collect()
}

fn columns(batch: &BatchSource, file: HistoryFile) -> Result<Vec<Inferred>> {
    let mut columns = match batch.format {
        format @ (Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg) => {
            of_typed(&TypedFile::unopened(file, format))?
        }
        Format::Csv => of_csv(&file, &batch.dialect)?,
        Format::Json => of_json(&file)?,
    };
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    for column in &mut columns {
        if column.name.is_empty() {
            *column =
                Inferred::not("", "has no name, as an index that pandas wrote: leave it out, or name it");
        } else if names.iter().filter(|name| **name == column.name).count() > 1 {
            *column = Inferred::not(&column.name, "is there twice: give one of the two another name");
        }
    }
    Ok(columns)
}

fn of_typed(file: &TypedFile) -> Result<Vec<Inferred>> {
    let fields = file.look()?.fields;
    let is_number =
        |field: &&Arc<Field>| instant::is_number(field.data_type()) && is_once(&fields, field.name());
    let numbers =
        fields.iter().filter(is_number).map(|field| Field::new(field.name(), DataType::Float64, true));
    let numbers = Arc::new(Schema::new(numbers.collect::<Vec<_>>()));
    let mut read: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    file.first_rows((RECORDS_SEEN, numbers), &Formats::default(), &mut |rows| {
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            let numbers = column.as_primitive::<Float64Type>().iter().flatten();
            read.entry(field.name().clone()).or_default().extend(numbers);
        }
        Ok(())
    })?;
    let column = |field: &Arc<Field>| {
        let numbers = read.remove(field.name()).unwrap_or_default();
        of_field(field, Epoch::of_all(numbers))
    };
    Ok(fields.iter().map(column).collect())
}

fn is_once(fields: &Fields, name: &str) -> bool {
    fields.iter().filter(|field| field.name() == name).count() == 1
}

fn of_csv(file: &HistoryFile, dialect: &Dialect) -> Result<Vec<Inferred>> {
    let (names, records) = csv::first(file, dialect, RECORDS_SEEN)?;
    let is_null = |text: &str| dialect.null_values.iter().any(|null| null == text.trim_ascii());
    let column = |(place, name): (usize, &String)| {
        let cells = records.iter().map(|record| str::from_utf8(record.get(place).unwrap_or_default()));
        let Ok(cells) = cells.collect::<std::result::Result<Vec<_>, _>>() else {
            return Inferred::not(
                name,
                "is not UTF-8; say how the file is written, as in `encoding: windows-1252`",
            );
        };
        let cells: Vec<&str> = cells.into_iter().map(|cell| if is_null(cell) { "" } else { cell }).collect();
        let dtype = guess(&cells);
        let numbers =
            cells.iter().filter(|cell| !cell.trim_ascii().is_empty()).map(|cell| cell.trim_ascii().parse());
        let numbers: std::result::Result<Vec<f64>, _> = numbers.collect();
        let epoch = numbers.ok().filter(|_| dtype.is_number()).and_then(Epoch::of_all);
        Inferred::of(name, dtype, epoch)
    };
    Ok(names.iter().enumerate().map(column).collect())
}

fn of_json(file: &HistoryFile) -> Result<Vec<Inferred>> {
    let objects = json::first(file, RECORDS_SEEN)?;
    let mut columns: Vec<(&str, Vec<&Json<'_>>)> = Vec::new();
    for (name, value) in objects.iter().flatten() {
        match columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => columns.push((name, vec![value])),
        }
    }
    let column = |(name, values): (&str, Vec<&Json<'_>>)| {
        if values.iter().any(|value| matches!(value, Json::Object(_))) {
            return Inferred::not(name, "is an object, which is no type of a column");
        }
        let number = |value: &&Json<'_>| match value {
            Json::Int(number) => Some(*number as f64),
            Json::Float(number) => Some(*number),
            _ => None,
        };
        let epoch = || Epoch::of_all(values.iter().filter_map(number));
        match narrowest(&values) {
            Some(dtype) => Inferred::of(name, dtype, epoch().filter(|_| dtype.is_number())),
            None => Inferred::not(name, "has values of several types"),
        }
    };
    Ok(columns.into_iter().map(column).collect())
}

/// The narrowest type that all values have; text where all are null.
fn narrowest(values: &[&Json<'_>]) -> Option<Type> {
    const TYPES: [ScalarType; 6] = [
        ScalarType::Bool,
        ScalarType::Int64,
        ScalarType::Date,
        ScalarType::Timestamp,
        ScalarType::Float64,
        ScalarType::String,
    ];
    let is_some = |value: &&&Json<'_>| !matches!(value, Json::Null);
    if values.iter().find(is_some).is_none() {
        return Some(Type::Scalar(ScalarType::String));
    }
    let is_text = values.iter().filter(is_some).all(|value| matches!(value, Json::String(_)));
    // A number may be a time, and a text such as `NaN` a number; what is written as one is meant. A point says that
    // there are fractions, even where the first numbers have none.
    let has_point = |value: &Json<'_>| matches!(value, Json::Float(_));
    let is_fraction = values.iter().any(|value| match value {
        Json::Array(items) => items.iter().any(has_point),
        value => has_point(value),
    });
    let is_meant = |scalar: &ScalarType| match scalar {
        ScalarType::Int64 => !is_text && !is_fraction,
        ScalarType::Date | ScalarType::Timestamp | ScalarType::String => is_text,
        _ => !is_text,
    };
    let items = [ScalarType::Int64, ScalarType::Float64, ScalarType::Bool, ScalarType::String];
    let items = items.into_iter().filter(|item| *item != ScalarType::Int64 || !is_fraction);
    let lists = items.map(|item| Type::List { item, length: None });
    let scalars = TYPES.into_iter().filter(is_meant).map(Type::Scalar);
    scalars.chain(lists).find(|dtype| json_column(&arrow_type(*dtype), None, values).is_ok())
}

fn of_field(field: &Field, epoch: Option<Epoch>) -> Inferred {
    let found = super::columns::own(&canonical(field.data_type()));
    // Decimals are read as fractions where they are declared so.
    let float = Type::Scalar(ScalarType::Float64);
    let dtype = quern_type(&found)
        .or_else(|| (found != DataType::Null && conforms(&found, &arrow_type(float))).then_some(float));
    match dtype {
        Some(dtype) => Inferred::of(field.name(), dtype, epoch),
        None => {
            Inferred::not(field.name(), format!("is {}, which is no type of a column", type_name(&found)))
        }
    }
}

/// The narrowest type that all cells have; text where they are all empty.
fn guess(cells: &[&str]) -> Type {
    // `1` is true as well, and a date is a time at midnight, so the order matters.
    const TYPES: [ScalarType; 5] =
        [ScalarType::Int64, ScalarType::Float64, ScalarType::Bool, ScalarType::Date, ScalarType::Timestamp];
    let lists = [ScalarType::Float64, ScalarType::Bool, ScalarType::String];
    let lists = lists.map(|item| Type::List { item, length: None });
    let is_some = cells.iter().any(|cell| !cell.trim_ascii().is_empty());
    let fits = |dtype: &Type| {
        let Some(mut column) = Cells::new(&arrow_type(*dtype), None) else { return false };
        cells
            .iter()
            .all(|cell| !(dtype.is_number() && is_code(cell.as_bytes())) && column.push(cell).is_some())
    };
    let found = TYPES.into_iter().map(Type::Scalar).chain(lists).find(fits).filter(|_| is_some);
    found.unwrap_or(Type::Scalar(ScalarType::String))
}
