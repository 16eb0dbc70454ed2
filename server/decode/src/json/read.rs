//! What do the instances bring? Rows or columns of JSON in, typed Arrow columns out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use feature_defs::suggest;
use quern_engine::Inputs;
use quern_engine::json::{Json, Mistyped, column, is_bare, micros, mistyped};
use quern_engine::schema::{EVENT_TIMESTAMP, type_name};

use crate::error::{Error, Result};

/// The most instances that one request may bring.
pub const INSTANCES_MAX: usize = 10_000;

/// What a request asks about: a row for each instance.
#[derive(Debug)]
pub struct Asked {
    /// Columns as in [`Inputs`].
    pub inputs: RecordBatch,
    /// Query time of each row, µs: its `event_timestamp`, else the request's arrival.
    pub query_times_us: Vec<i64>,
    /// Whether the request says one of them.
    pub timed: bool,
}

/// Reads instances: an array of objects, each with the wanted inputs and perhaps an `event_timestamp`; or of bare
/// values where one input is wanted, as TensorFlow Serving has it.
///
/// # Errors
/// The first instance that is not so, by its index, the column, what was expected and what was found.
pub fn instances(wanted: &Inputs<'_>, instances: &Json<'_>, arrival_us: i64) -> Result<Asked> {
    let Json::Array(rows) = instances else {
        return Err(Error::invalid(format!("`instances`: expected an array of objects, found {instances}")));
    };
    limit(rows.len())?;
    let fields = wanted.schema.fields();
    // Column after column; the query times are the last one.
    let mut cells: Vec<Option<&Json<'_>>> = vec![None; rows.len() * (fields.len() + 1)];
    for (row, instance) in rows.iter().enumerate() {
        let entries = match (instance, fields.as_ref()) {
            (value, [only]) if is_bare(value, only.name()) => {
                cells[row] = Some(value);
                continue;
            }
            (Json::Object(entries), _) => entries,
            _ => {
                let needed = needed(wanted);
                return Err(Error::invalid(format!(
                    "instance {row}: expected an object with {needed}, found {instance}"
                )));
            }
        };
        for (i, (name, value)) in entries.iter().enumerate() {
            // Clients tend to keep to the declared order.
            let place = match fields.get(i) {
                Some(field) if field.name() == name => i,
                _ => place(wanted, name).ok_or_else(|| unknown(wanted, &format!("instance {row}"), name))?,
            };
            let cell = &mut cells[place * rows.len() + row];
            if cell.replace(value).is_some() {
                return Err(Error::invalid(format!("instance {row}: column `{name}` is given twice")));
            }
        }
    }
    let mut columns = Vec::with_capacity(fields.len());
    for (field, cells) in fields.iter().zip(cells.chunks(rows.len().max(1))) {
        let cells: Vec<&Json<'_>> = cells
            .iter()
            .enumerate()
            .map(|(row, cell)| {
                cell.ok_or_else(|| missing(wanted, &format!("instance {row}: "), field.name()))
            })
            .collect::<Result<_>>()?;
        columns.push(
            column(field.data_type(), None, &cells)
                .map_err(|misfit| misplaced(misfit, "instance", field.name()))?,
        );
    }
    if rows.is_empty() {
        return asked(wanted, Vec::new(), (Vec::new(), false));
    }
    let times: Vec<&Json<'_>> =
        cells[fields.len() * rows.len()..].iter().map(|cell| cell.unwrap_or(&Json::Null)).collect();
    asked(wanted, columns, query_times(&times, "instance", arrival_us)?)
}

/// Reads columns, which the body calls `what`: an object of arrays of one length, the wanted inputs and perhaps
/// `event_timestamp`.
///
/// # Errors
/// As [`instances`]; columns of different lengths.
pub fn columns(wanted: &Inputs<'_>, what: &str, entities: &Json<'_>, arrival_us: i64) -> Result<Asked> {
    of_arrays(wanted, what, arrays(what, entities)?, arrival_us)
}

/// Reads the entities of a look-up as [`columns`]; where nothing is missing, what else there is is left out, as Feast's
/// server does.
///
/// # Errors
/// As [`columns`].
pub fn entities(wanted: &Inputs<'_>, entities: &Json<'_>, arrival_us: i64) -> Result<Asked> {
    let what = "entities";
    let (mut entries, rows) = arrays(what, entities)?;
    let is_given = |name: &str| entries.iter().any(|(given, _)| *given == name);
    if wanted.schema.fields().iter().all(|field| is_given(field.name())) {
        entries.retain(|(name, _)| place(wanted, name).is_some());
    }
    of_arrays(wanted, what, (entries, rows), arrival_us)
}

fn of_arrays(wanted: &Inputs<'_>, what: &str, (entries, rows): Arrays<'_>, arrival_us: i64) -> Result<Asked> {
    let fields = wanted.schema.fields();
    limit(rows)?;
    let mut given: Vec<Option<Vec<&Json<'_>>>> = vec![None; fields.len() + 1];
    for (name, values) in entries {
        let place = place(wanted, name).ok_or_else(|| unknown(wanted, &format!("`{what}`"), name))?;
        if given[place].replace(values.iter().collect()).is_some() {
            return Err(Error::invalid(format!("column `{name}` is given twice")));
        }
    }
    let times = given.pop().flatten().unwrap_or_else(|| vec![&Json::Null; rows]);
    let mut columns = Vec::with_capacity(fields.len());
    for (field, cells) in fields.iter().zip(given) {
        let cells = cells.ok_or_else(|| missing(wanted, "", field.name()))?;
        columns.push(
            column(field.data_type(), None, &cells)
                .map_err(|misfit| misplaced(misfit, "entity", field.name()))?,
        );
    }
    asked(wanted, columns, query_times(&times, "entity", arrival_us)?)
}

/// Columns by name, each an array with a value for each row, and how many rows there are.
pub(super) type Arrays<'j> = (Vec<(&'j str, &'j [Json<'j>])>, usize);

/// Reads `json`, which is called `what`, as columns of one length.
pub(super) fn arrays<'j>(what: &str, json: &'j Json<'j>) -> Result<Arrays<'j>> {
    let Json::Object(entries) = json else {
        return Err(Error::invalid(format!("`{what}`: expected an object of arrays, found {json}")));
    };
    let mut columns: Vec<(&str, &[Json<'_>])> = Vec::with_capacity(entries.len());
    for (name, values) in entries {
        let Json::Array(values) = values else {
            return Err(Error::invalid(format!(
                "column `{name}`: expected an array of values, found {values}"
            )));
        };
        if let Some((first, known)) = columns.first()
            && known.len() != values.len()
        {
            return Err(Error::invalid(format!(
                "column `{name}` has {} values and column `{first}` has {}; all have one for each row",
                values.len(),
                known.len()
            )));
        }
        columns.push((name, values));
    }
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    Ok((columns, rows))
}

fn asked(
    wanted: &Inputs<'_>,
    columns: Vec<ArrayRef>,
    (query_times_us, timed): (Vec<i64>, bool),
) -> Result<Asked> {
    let schema = Arc::clone(wanted.schema);
    let inputs = if query_times_us.is_empty() {
        RecordBatch::new_empty(schema)
    } else {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(query_times_us.len()));
        RecordBatch::try_new_with_options(schema, columns, &options)?
    };
    Ok(Asked { inputs, query_times_us, timed })
}

/// # Errors
/// More rows than one request may bring.
pub fn limit(rows: usize) -> Result<()> {
    if rows <= INSTANCES_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!(
        "the request brings {rows} instances, at most {INSTANCES_MAX} are answered at a time: split it, or pull a \
         training set over Arrow Flight"
    )))
}

/// The place of a column among the wanted inputs; the query time comes after them.
fn place(wanted: &Inputs<'_>, name: &str) -> Option<usize> {
    let fields = wanted.schema.fields();
    let after = (name == EVENT_TIMESTAMP).then_some(fields.len());
    fields.iter().position(|field| field.name() == name).or(after)
}

fn unknown(wanted: &Inputs<'_>, of: &str, name: &str) -> Error {
    let known = wanted.schema.fields().iter().map(|field| field.name().as_str()).chain([EVENT_TIMESTAMP]);
    Error::invalid(format!("{of}: unknown column `{name}`; {}", suggest(name, known)))
}

fn missing(wanted: &Inputs<'_>, of: &str, name: &str) -> Error {
    Error::invalid(format!("{of}column `{name}` is missing; {} needs {}", named(wanted), needed(wanted)))
}

fn named(wanted: &Inputs<'_>) -> String {
    if wanted.of.is_empty() { "the request".to_owned() } else { format!("{} `{}`", wanted.kind, wanted.of) }
}

/// The columns that a request brings, for people.
fn needed(wanted: &Inputs<'_>) -> String {
    let fields = wanted.schema.fields().iter();
    fields
        .map(|field| format!("`{}` ({})", field.name(), type_name(field.data_type())))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The time of each row, and whether one of them is said.
fn query_times(cells: &[&Json<'_>], row_is: &str, arrival_us: i64) -> Result<(Vec<i64>, bool)> {
    let dtype = quern_engine::schema::timestamp();
    let read = |(row, cell): (usize, &&Json<'_>)| match cell {
        Json::Null => Ok(arrival_us),
        cell => {
            micros(cell, None).ok_or_else(|| misplaced(mistyped(row, &dtype, cell), row_is, EVENT_TIMESTAMP))
        }
    };
    let timed = cells.iter().any(|cell| **cell != Json::Null);
    Ok((cells.iter().enumerate().map(read).collect::<Result<_>>()?, timed))
}

/// Says of a value that is not of its column's type where it is.
fn misplaced(Mistyped { row, expected, found }: Mistyped, row_is: &str, column: &str) -> Error {
    Error::invalid(format!("{row_is} {row}: column `{column}`: expected {expected}, found {found}"))
}

/// The values of an input called `name`; null is one of them.
///
/// # Errors
/// The first value of another type, what was expected and what was found.
pub fn cells(name: &str, dtype: &DataType, cells: &[&Json<'_>]) -> Result<ArrayRef> {
    column(dtype, None, cells).map_err(|Mistyped { row, expected, found }| {
        Error::invalid(format!("input `{name}`, value {row}: expected {expected}, found {found}"))
    })
}
