//! Which columns does a file hold, as a source would declare them?
//!
//! A Parquet file says so itself. Of a CSV file it is a guess by its first records: the narrowest type that all of
//! their cells have.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use feature_defs::{BatchSource, DefError, Format, Loc, ScalarType, Source, Type};
use quern_engine::schema::{arrow_type, canonical, conforms, quern_type, type_name};

use super::cell::Cells;
use super::csv;
use super::files::{self, HistoryFile};
use super::parquet::ParquetFile;
use crate::error::{Error, Result};

/// How many records of a CSV file are looked at.
const RECORDS_SEEN: usize = 10_000;

/// A column of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// Its name.
    pub name: String,
    /// The type to declare it by; none where the language has none for it.
    pub dtype: Option<Type>,
    /// What it is in the file.
    pub found: String,
}

impl Inferred {
    /// Whether it can say when something was.
    pub fn is_time(&self) -> bool {
        matches!(self.dtype, Some(Type::Scalar(ScalarType::Timestamp | ScalarType::Date)))
    }
}

/// The first of the files that `path` names from the folder `root` on, and its columns.
///
/// # Errors
/// `Kind::InvalidArgument` where there is no such file, or it cannot be read.
pub fn infer(root: &Path, format: Format, path: &str) -> Result<(String, Vec<Inferred>)> {
    let loc = Loc { file: Arc::from(path), line: 1, column: 1 };
    let batch = BatchSource { format, path: path.to_owned(), loc };
    let found = files::named(root, &batch).map_err(|DefError { cause, help, .. }| {
        Error::invalid(help.map_or(cause.clone(), |help| format!("{cause}; {help}")))
    })?;
    let Some(first) = found.into_iter().next() else { return Ok(Default::default()) };
    Ok((first.name.clone(), columns(format, first)?))
}

/// That `source` must declare its columns, and how, as far as `file` shows.
pub(super) fn undeclared(source: &Source, format: Format, file: HistoryFile, why: &str) -> Result<DefError> {
    let name = file.name.clone();
    let columns = columns(format, file)?;
    let times = [Some(&source.event_timestamp), source.created_timestamp.as_ref()];
    let times: Vec<&str> = times.into_iter().flatten().map(String::as_str).collect();
    let cause = format!("source `{}` must declare its `columns`: {why}", source.name);
    let block = block(&columns, &times);
    Ok(DefError::new(&source.loc, cause).with_help(format!("as far as `{name}` shows, they are\n{block}")))
}

/// The declaration of `columns`, to paste into a source; what is among `times` is declared as one.
pub fn block(columns: &[Inferred], times: &[&str]) -> String {
    let mut block = "columns:".to_owned();
    for column in columns {
        let name = quoted(&column.name);
        let written = match column.dtype {
            _ if times.contains(&column.name.as_str()) => {
                write!(block, "\n  - {{name: {name}, type: timestamp}}")
            }
            Some(dtype) => write!(block, "\n  - {{name: {name}, type: {}}}", quoted(&dtype.to_string())),
            None => write!(block, "\n  # {name} is {}, which is no type of a column", column.found),
        };
        debug_assert!(written.is_ok(), "a text takes whatever is written");
    }
    block
}

/// `text` as YAML reads it back, within braces too.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '<' | '>');
    let is_word = text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(is_plain);
    // These YAML reads as something else, as do readers of older versions.
    let others = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if is_word && !others.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn columns(format: Format, file: HistoryFile) -> Result<Vec<Inferred>> {
    match format {
        Format::Parquet => {
            Ok(ParquetFile::open(file)?.look().fields.iter().map(|field| of_field(field)).collect())
        }
        Format::Csv => {
            let (names, records) = csv::first(&file, RECORDS_SEEN)?;
            let column = |(place, name): (usize, &String)| {
                let cells = records.iter().map(|record| record.get(place).unwrap_or_default());
                let dtype =
                    guess(&cells.map(str::from_utf8).collect::<std::result::Result<Vec<_>, _>>().ok()?);
                Some(Inferred { name: name.clone(), dtype: Some(dtype), found: dtype.to_string() })
            };
            let text =
                |name: &String| Inferred { name: name.clone(), dtype: None, found: "not UTF-8".to_owned() };
            Ok(names.iter().enumerate().map(|named| column(named).unwrap_or_else(|| text(named.1))).collect())
        }
    }
}

fn of_field(field: &Field) -> Inferred {
    let found = canonical(field.data_type());
    // Decimals are read as fractions where they are declared so.
    let float = Type::Scalar(ScalarType::Float64);
    let dtype = quern_type(&found)
        .or_else(|| (found != DataType::Null && conforms(&found, &arrow_type(float))).then_some(float));
    Inferred { name: field.name().clone(), dtype, found: type_name(&found) }
}

/// The narrowest type that all cells have; text where they are all empty.
fn guess(cells: &[&str]) -> Type {
    // `1` is true as well, and a date is a time at midnight, so the order matters.
    const TYPES: [ScalarType; 5] =
        [ScalarType::Int64, ScalarType::Float64, ScalarType::Bool, ScalarType::Date, ScalarType::Timestamp];
    let floats = Type::List { item: ScalarType::Float64, length: None };
    let is_some = cells.iter().any(|cell| !cell.trim_ascii().is_empty());
    let fits = |dtype: &Type| {
        let Some(mut column) = Cells::new(&arrow_type(*dtype), None) else { return false };
        cells.iter().all(|cell| !(dtype.is_number() && is_code(cell)) && column.push(cell).is_some())
    };
    let found = TYPES.into_iter().map(Type::Scalar).chain([floats]).find(fits).filter(|_| is_some);
    found.unwrap_or(Type::Scalar(ScalarType::String))
}

/// A number with a zero before it is rather a name: a postcode, an account.
fn is_code(cell: &str) -> bool {
    let digits = cell.trim_ascii().trim_start_matches('-');
    digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit()
}
