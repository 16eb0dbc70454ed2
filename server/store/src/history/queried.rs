//! What do the rows say that a database gave, in the types of their source?
//!
//! A driver gives what it has a type for: PostgreSQL's decimals are texts, SQLite's times and booleans are texts and
//! numbers. What becomes of them without loss is taken; a value of which the declared type says nothing ends the
//! reading, since whoever comes by later would not know that there was another one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::datatypes::{
    DataType, Date32Type, Field, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use feature_defs::epoch::end_of_time;
use feature_defs::{Source, Stored};
use quern_engine::schema::{canonical, conform, conforms, type_name};
use quern_engine::{in_words, instant};

use super::stored;
use crate::error::{Error, Result};

/// What the driver of PostgreSQL makes of `infinity` and `-infinity`, since it counts from 1970 without a look at what
/// that overflows: times in µs, dates in days.
const WRAPPED_TIMES: [i64; 2] = [-9_222_425_352_054_775_809, -9_222_425_352_054_775_808];
/// Of these the driver of PostgreSQL gives cents, and what 32 bits with a sign make of 32 bits.
const MISREAD: [&str; 4] = ["money", "oid", "xid", "cid"];
const WRAPPED_DATES: [i32; 2] = [-2_147_472_692, -2_147_472_691];

/// The columns of `rows` in the types of `schema`, which are those of `source`.
///
/// # Errors
/// `Kind::InvalidArgument` with a column that is missing or of a type that does not become the declared one, or that
/// holds a value which does not.
pub fn queried(source: &Source, schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let column = |to: &Arc<Field>| {
        let given = rows
            .schema_ref()
            .fields()
            .iter()
            .zip(rows.columns())
            .find(|(field, _)| field.name() == to.name());
        let Some((field, column)) = given else {
            let (source, name) = (&source.name, to.name());
            return Err(Error::invalid(format!("source `{source}`: its rows have no column `{name}`")));
        };
        typed(source, (field, column), to.data_type())
    };
    Ok(RecordBatch::try_new(
        Arc::clone(schema),
        schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?,
    )?)
}

fn typed(source: &Source, (field, column): (&Field, &ArrayRef), to: &DataType) -> Result<ArrayRef> {
    // Of rows without a value SQLite says any type.
    if column.logical_null_count() == column.len() {
        return Ok(new_null_array(to, column.len()));
    }
    let (name, from) = (field.name(), column.data_type());
    if let Some(misread) = field.metadata().get("POSTGRESQL:type").filter(|of| MISREAD.contains(&of.as_str()))
    {
        return Err(Error::invalid(format!(
            "source `{}`: column `{name}` is of type `{misread}`, of which the driver gives another number than it is; cast it \
             in a `query`, as in `{name}::numeric` or `{name}::bigint`",
            source.name
        )));
    }
    let stored = source.stored(name).filter(|stored| is(*stored, field)).or_else(|| implied(field, to));
    let epoch = source.format(name).filter(|_| instant::is_number(from));
    let is_flag = from.is_integer() && *to == DataType::Boolean;
    let fits = conforms(from, to) || from.is_decimal() && to.is_numeric();
    let read = match (epoch, stored) {
        (_, Some(Stored::Decimal(_))) if is_text(from) => stored::read(column, to, (Stored::String, None)),
        (_, Some(stored)) if !fits => stored::read(column, to, (stored, source.format(name))),
        (Some(epoch), _) => instant::of_numbers(column, epoch),
        _ if is_flag => flags(column),
        _ if fits => ends(field, column).and_then(|column| conform(&column, to)),
        _ => return Err(Error::invalid(misfit(source, field, to))),
    };
    read.map_err(|error| {
        let (source, from, to) = (&source.name, type_name(from), type_name(to));
        let why = format!("source `{source}`: column `{name}` ({from}) does not fit {to}");
        let whole = format!("{why}: {}", in_words(&error));
        let told = format!("{why}: it holds a value that is none; a log at `debug` quotes it");
        Error::invalid(told).quoting(whole)
    })
}

fn misfit(source: &Source, field: &Field, to: &DataType) -> String {
    let (name, from) = (field.name(), field.data_type());
    let help = match stored::meant(from, to) {
        _ if matches!(to, DataType::Timestamp(_, _)) && instant::is_number(from) => {
            "; its `format` says what its numbers count".to_owned()
        }
        Some(stored) => format!("; say `from: {stored}` of it where that is meant"),
        None => "; declare it as that, or cast it in a `query`".to_owned(),
    };
    format!(
        "source `{}`: column `{name}` is {}, and must be {}{help}",
        source.name,
        type_name(from),
        type_name(to)
    )
}

fn is_text(dtype: &DataType) -> bool {
    canonical(dtype) == DataType::Utf8
}

/// Whether a column is stored so: decimals may come as texts.
fn is(stored: Stored, field: &Field) -> bool {
    stored::is(stored, field.data_type())
        || matches!(stored, Stored::Decimal(_)) && is_text(field.data_type())
}

/// As what a column is stored, where the driver says so, or where there is but one way to read it.
fn implied(field: &Field, to: &DataType) -> Option<Stored> {
    let of_postgres = field.metadata().get("ADBC:postgresql:typname").map(String::as_str);
    let extension = field.metadata().get("ARROW:extension:name").map(String::as_str);
    let is_time = matches!(to, DataType::Timestamp(_, _) | DataType::Date32);
    match field.data_type() {
        from if is_text(from) && of_postgres == Some("numeric") && *to != DataType::Utf8 => {
            Some(Stored::Decimal(None))
        }
        from if is_text(from) && is_time => Some(Stored::String),
        DataType::FixedSizeBinary(16) if extension == Some("arrow.uuid") && *to == DataType::Utf8 => {
            Some(Stored::Uuid)
        }
        _ => None,
    }
}

/// Whole numbers that are 0 or 1.
fn flags(column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    let numbers = conform(column, &DataType::Int64)?;
    let flag = |number: Option<i64>| match number {
        None => Ok(None),
        Some(0) => Ok(Some(false)),
        Some(1) => Ok(Some(true)),
        Some(other) => Err(ArrowError::CastError(format!("{other} is neither 0 nor 1"))),
    };
    let flags = numbers.as_primitive::<Int64Type>().iter().map(flag);
    Ok(Arc::new(flags.collect::<std::result::Result<BooleanArray, _>>()?))
}

/// The ends of time as files have them, where PostgreSQL's driver has wrapped them around.
fn ends(field: &Field, column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    if !field.metadata().contains_key("POSTGRESQL:type") {
        return Ok(Arc::clone(column));
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let ends = [end_of_time("infinity"), end_of_time("-infinity")];
            let mended = column
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(|us| {
                    let end = WRAPPED_TIMES.iter().position(|wrapped| *wrapped == us);
                    end.and_then(|end| ends[end]).unwrap_or(us)
                });
            Ok(Arc::new(mended.with_timezone_opt(zone.clone())))
        }
        DataType::Date32 => {
            let dates = column.as_primitive::<Date32Type>();
            match dates.iter().flatten().any(|day| WRAPPED_DATES.contains(&day)) {
                true => Err(ArrowError::CastError("a date that is `infinity`".to_owned())),
                false => Ok(Arc::clone(column)),
            }
        }
        _ => Ok(Arc::clone(column)),
    }
}
