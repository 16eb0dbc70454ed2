//! Which columns must the files of a source hold, and does a file hold them?

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use feature_defs::{DefError, Loc, Source, suggest};
use quern_engine::schema::{arrow_type, canonical, conforms, timestamp, type_name};

/// A column that a source cannot do without.
struct Needed<'a> {
    name: &'a str,
    role: Role,
    /// Where it is declared, and the type its cells become.
    declared: Option<(&'a Loc, DataType)>,
}

/// What a column is to its source.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Column,
    EventTimestamp,
    CreatedTimestamp,
    EventId,
}

impl Role {
    fn of(source: &Source, name: &str) -> Role {
        if name == source.event_timestamp {
            Role::EventTimestamp
        } else if source.created_timestamp.as_deref() == Some(name) {
            Role::CreatedTimestamp
        } else if source.event_id.iter().any(|id| id == name) {
            Role::EventId
        } else {
            Role::Column
        }
    }

    /// Event and created timestamps are timestamps in every row that leaves here; a date is its midnight, UTC.
    fn is_time(self) -> bool {
        matches!(self, Role::EventTimestamp | Role::CreatedTimestamp)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Column => "column",
            Role::EventTimestamp => "event_timestamp",
            Role::CreatedTimestamp => "created_timestamp",
            Role::EventId => "event_id",
        })
    }
}

/// The rows of a source whose columns are all declared: CSV files and pushes.
pub(super) fn declared_schema(source: &Source) -> Result<SchemaRef, Vec<DefError>> {
    let mut mistakes = untimely(source);
    let mut fields = Vec::new();
    for need in needed(source) {
        match need.declared {
            Some((_, dtype)) => fields.push(Field::new(need.name, dtype, true)),
            None => mistakes.push(undeclared(source, &need)),
        }
    }
    if mistakes.is_empty() { Ok(Arc::new(Schema::new(fields))) } else { Err(mistakes) }
}

/// The rows of a source whose files say their own types; what is declared wins over what the first file says.
pub(super) fn file_schema(source: &Source, file: &str, found: &Fields) -> Result<SchemaRef, Vec<DefError>> {
    let needed = needed(source);
    let mut mistakes = untimely(source);
    for need in &needed {
        let (loc, dtype) = match &need.declared {
            Some((loc, dtype)) => (*loc, Some(dtype)),
            None => (&source.loc, None),
        };
        if mistakes.iter().any(|mistake| mistake.loc == *loc && need.role.is_time()) {
            continue;
        }
        if let Some((cause, help)) = mismatch(need.name, need.role, dtype, file, found) {
            mistakes.push(DefError::new(loc, format!("source `{}`: {cause}", source.name)).with_help(help));
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let fields = found.iter().map(|field| {
        let need = needed.iter().find(|need| need.name == field.name());
        let declared = need.and_then(|need| need.declared.as_ref()).map(|(_, dtype)| dtype.clone());
        let is_time = need.is_some_and(|need| need.role.is_time());
        let found = || if is_time { timestamp() } else { canonical(field.data_type()) };
        Field::new(field.name(), declared.unwrap_or_else(found), true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// How the columns of one file fall short of the source's schema; empty where they do not.
pub(super) fn mismatches(source: &Source, schema: &Schema, file: &str, found: &Fields) -> Vec<String> {
    let check = |want: &Arc<Field>| {
        let role = Role::of(source, want.name());
        let (cause, help) = mismatch(want.name(), role, Some(want.data_type()), file, found)?;
        Some(format!("source `{}`: {cause}; {help}", source.name))
    };
    schema.fields().iter().filter_map(check).collect()
}

/// The declared columns that a CSV file's header lacks, each with its place.
pub(super) fn missing(source: &Source, file: &str, header: &Fields) -> Vec<DefError> {
    let check = |need: Needed<'_>| {
        let (loc, dtype) = need.declared?;
        let (cause, help) = mismatch(need.name, need.role, Some(&dtype), file, header)?;
        Some(DefError::new(loc, format!("source `{}`: {cause}", source.name)).with_help(help))
    };
    needed(source).into_iter().filter_map(check).collect()
}

/// Everything the definition mentions: declared columns, then what only a role names.
fn needed(source: &Source) -> Vec<Needed<'_>> {
    let declared = source.columns.iter().map(|column| {
        let role = Role::of(source, &column.name);
        let dtype = if role.is_time() { timestamp() } else { arrow_type(column.dtype) };
        Needed { name: &column.name, role, declared: Some((&column.loc, dtype)) }
    });
    let mut needed: Vec<Needed<'_>> = declared.collect();
    let roles =
        [&source.event_timestamp].into_iter().chain(&source.created_timestamp).chain(&source.event_id);
    for name in roles {
        if needed.iter().all(|need| need.name != name) {
            needed.push(Needed { name, role: Role::of(source, name), declared: None });
        }
    }
    needed
}

/// Event and created timestamps that are declared as something other than a time.
fn untimely(source: &Source) -> Vec<DefError> {
    let mut mistakes = Vec::new();
    for column in &source.columns {
        let role = Role::of(source, &column.name);
        if role.is_time() && !is_time(&arrow_type(column.dtype)) {
            let cause = format!(
                "source `{}`: its {role} `{}` is declared {}, but must be timestamp or date",
                source.name, column.name, column.dtype
            );
            mistakes.push(
                DefError::new(&column.loc, cause).with_help("declare it `timestamp`, and store times in it"),
            );
        }
    }
    mistakes
}

fn undeclared(source: &Source, need: &Needed<'_>) -> DefError {
    let cause =
        format!("source `{}`: its {} `{}` is not among its columns", source.name, need.role, need.name);
    let known = suggest(need.name, source.columns.iter().map(|column| column.name.as_str()));
    DefError::new(&source.loc, cause).with_help(format!("CSV files and pushes declare every column; {known}"))
}

/// What is wrong with one column of a file, and the way out.
fn mismatch(
    name: &str,
    role: Role,
    want: Option<&DataType>,
    file: &str,
    found: &Fields,
) -> Option<(String, String)> {
    let Some((_, field)) = found.find(name) else {
        let known = suggest(name, found.iter().map(|field| field.name().as_str()));
        return Some((format!("`{file}` has no {role} `{name}`"), known));
    };
    let got = canonical(field.data_type());
    let (want, help) = if role.is_time() {
        if is_time(&got) {
            return None;
        }
        ("timestamp or date".to_owned(), "rewrite the file with times in it".to_owned())
    } else {
        let want = want.filter(|want| !conforms(&got, want))?;
        (type_name(want), format!("declare it as {}, or rewrite the file", type_name(&got)))
    };
    Some((format!("{role} `{name}` should be {want}, but is {} in `{file}`", type_name(&got)), help))
}

fn is_time(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Timestamp(_, _) | DataType::Date32)
}
