//! Which columns must the files of a source hold, and does a file hold them?

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use feature_defs::{DefError, Epoch, Format, Loc, Source, Stored, suggest};
use quern_engine::instant;
use quern_engine::schema::{arrow_type, canonical, conforms, quern_type, timestamp, type_name};

use super::format::{NOT_SHOWN, is_called_a_table};
use super::look::Look;
use super::quoted::quoted;
use super::{hive, stored};

/// A column that a source cannot do without.
struct Needed<'a> {
    name: &'a str,
    role: Role,
    /// What its numbers count, where it is a time.
    format: Option<Epoch>,
    /// What files hold in place of its type.
    stored: Option<Stored>,
    /// Where it is declared, and the type its cells become.
    declared: Option<(&'a Loc, DataType)>,
}

impl Needed<'_> {
    /// The type its cells become, where that is known before a file is looked at.
    fn dtype(&self) -> Option<&DataType> {
        self.declared.as_ref().map(|(_, dtype)| dtype)
    }
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

/// What files say: those that say different things, each with its name, in order of arrival; and their folders.
pub(super) struct Told<'a> {
    pub(super) files: Vec<(&'a str, &'a Look)>,
    pub(super) folders: Look,
}

/// The rows of a source whose files say their own types; what is declared wins over what they say.
pub(super) fn file_schema(source: &Source, told: &Told) -> Result<SchemaRef, Vec<DefError>> {
    let needed = needed(source);
    let mut mistakes = untimely(source);
    for need in &needed {
        let loc = need.declared.as_ref().map_or(&source.loc, |(loc, _)| *loc);
        if mistakes.iter().any(|mistake| mistake.loc == *loc && need.role.is_time()) {
            continue;
        }
        if let Some((cause, help)) = told.amiss(need) {
            mistakes.push(DefError::new(loc, format!("source `{}`: {cause}", source.name)).with_help(help));
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let looks = told.files.iter().map(|(_, look)| *look).chain([&told.folders]);
    let all = together(looks.map(|look| &look.fields));
    let fields = all.iter().map(|field| {
        let need = needed.iter().find(|need| need.name == field.name());
        let declared = need.and_then(|need| need.declared.as_ref()).map(|(_, dtype)| dtype.clone());
        let is_time = need.is_some_and(|need| need.role.is_time());
        let found = || if is_time { timestamp() } else { own(field.data_type()) };
        Field::new(field.name(), declared.unwrap_or_else(found), true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// What must be in every file: the columns that somebody uses, and those that are declared.
pub(super) fn wanted(source: &Source, used: &Schema) -> Schema {
    let mut fields = used.fields().to_vec();
    for need in needed(source) {
        let dtype = need.dtype().cloned().or_else(|| need.role.is_time().then(timestamp));
        if let (None, Some(dtype)) = (used.fields().find(need.name), dtype) {
            fields.push(Arc::new(Field::new(need.name, dtype, true)));
        }
    }
    Schema::new(fields)
}

/// How a file falls short of the columns in `schema`, each with the way out; empty where it does not.
pub(super) fn mismatches(source: &Source, schema: &Schema, file: &str, look: &Look) -> Vec<(String, String)> {
    let check = |want: &Arc<Field>| {
        let (name, declared) = (want.name(), Some((&source.loc, want.data_type().clone())));
        let (format, stored) = (source.format(name), source.stored(name));
        let need = Needed { name, role: Role::of(source, name), format, stored, declared };
        mismatch(&need, file, &look.fields)
    };
    let in_folders = schema.fields().iter().filter(|field| look.fields.find(field.name()).is_none());
    let in_folders = in_folders.filter_map(|field| {
        let help = "name the folder otherwise, or declare the column as what it says".to_owned();
        Some((hive::amiss(file, field, source.format(field.name()))?, help))
    });
    let found = schema.fields().iter().filter_map(check).chain(in_folders).chain(unbuilt(schema, file, look));
    found.map(|(cause, help)| (format!("source `{}`: {cause}", source.name), help)).collect()
}

/// Whether one of the columns is compressed by a codec that is not built in.
fn unbuilt(schema: &Schema, file: &str, look: &Look) -> Option<(String, String)> {
    let is_wanted = |(column, _): &&(String, &'static str)| schema.fields().find(column).is_some();
    let (column, codec) = look.foreign_codecs.iter().find(is_wanted)?;
    let cause = format!("`{file}` is compressed with {codec} (its column `{column}`), which is not read");
    Some((cause, "rewrite the file with Zstandard, Snappy, LZ4, gzip or Brotli, or uncompressed".to_owned()))
}

/// The columns of all files, each of a type that says every value of them, where there is one: of a column without a
/// value a writer such as pandas knows no type, and one with gaps it makes floats.
fn together<'a>(all: impl Iterator<Item = &'a Fields>) -> Fields {
    let mut fields: Vec<Field> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for field in all.flatten() {
        match places.get(field.name().as_str()) {
            Some(place) => {
                let known = &mut fields[*place];
                let dtype = wider(known.data_type(), field.data_type());
                known.set_data_type(dtype);
            }
            None => {
                places.insert(field.name(), fields.len());
                fields.push(field.as_ref().clone());
            }
        }
    }
    fields.into()
}

/// The columns that folders say and none of `looks` has, as a file would say them, of the types that are declared.
pub(super) fn of_folders(
    source: &Source,
    mut said: BTreeMap<String, DataType>,
    looks: &[(&str, &Look)],
) -> Look {
    said.retain(|column, _| looks.iter().all(|(_, look)| look.fields.find(column).is_none()));
    let fields = said.into_iter().map(|(column, found)| {
        let declared = source.columns.iter().find(|declared| declared.name == column);
        let dtype = match declared {
            _ if Role::of(source, &column).is_time() => timestamp(),
            Some(declared) => arrow_type(declared.dtype),
            None => found,
        };
        Field::new(column, dtype, true)
    });
    Look::of(fields.collect())
}

/// What a column of a file is here where nobody declares it. A decimal is the nearest float; one of whole numbers,
/// which is what warehouses have, is such.
pub(super) fn own(dtype: &DataType) -> DataType {
    match canonical(dtype) {
        DataType::Decimal32(_, 0)
        | DataType::Decimal64(_, 0)
        | DataType::Decimal128(_, 0)
        | DataType::Decimal256(_, 0) => DataType::Int64,
        decimal if decimal.is_decimal() => DataType::Float64,
        other => other,
    }
}

/// The type of the values of both; the first one where only a declaration can say.
fn wider(first: &DataType, other: &DataType) -> DataType {
    use DataType::{Date32, FixedSizeList, Float64, Int32, Int64, List, Null, Timestamp};
    match (own(first), own(other)) {
        (Null, _) => other.clone(),
        (Int32, Int64) | (Int64, Int32) => Int64,
        (a, b) if a.is_numeric() && b.is_numeric() && a != b => Float64,
        (Date32, Timestamp(..)) => other.clone(),
        // Lists of several lengths have none, and neither have their files' types in common.
        (FixedSizeList(item, length), FixedSizeList(_, others)) if length != others => List(item),
        (FixedSizeList(..), List(_)) => other.clone(),
        _ => first.clone(),
    }
}

/// The declared columns that no CSV file's header has, and the event timestamp where one lacks it, each with its place.
/// Of JSON files the first lines show which columns they have, so of these only the event timestamp is missed.
pub(super) fn missing(source: &Source, format: Format, told: &Told) -> Vec<DefError> {
    let check = |need: Needed<'_>| {
        need.declared.as_ref().filter(|_| format == Format::Csv || need.role == Role::EventTimestamp)?;
        let (cause, help) = told.amiss(&need)?;
        let (loc, _) = need.declared?;
        Some(DefError::new(loc, format!("source `{}`: {cause}", source.name)).with_help(help))
    };
    needed(source).into_iter().filter_map(check).collect()
}

/// Everything the definition mentions: declared columns, then what only a role names.
fn needed(source: &Source) -> Vec<Needed<'_>> {
    let declared = source.columns.iter().map(|column| {
        let role = Role::of(source, &column.name);
        let dtype = if role.is_time() { timestamp() } else { arrow_type(column.dtype) };
        let (format, stored) = (column.format, column.from);
        Needed { name: &column.name, role, format, stored, declared: Some((&column.loc, dtype)) }
    });
    let mut needed: Vec<Needed<'_>> = declared.collect();
    let roles =
        [&source.event_timestamp].into_iter().chain(&source.created_timestamp).chain(&source.event_id);
    for name in roles {
        if needed.iter().all(|need| need.name != name) {
            let role = Role::of(source, name);
            needed.push(Needed { name, role, format: None, stored: None, declared: None });
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
    DefError::new(&source.loc, cause)
        .with_help(format!("CSV and JSON files and pushes declare every column; {known}"))
}

impl<'a> Told<'a> {
    /// What a table says that has no files.
    pub(super) fn of_table(name: &'a str, look: &'a Look) -> Self {
        Told { files: vec![(name, look)], folders: Look::of(Fields::empty()) }
    }

    /// What is wrong with one column: no file has it, nor a folder, or the first one has it in another type. What some
    /// lack is null there; of which type the others have it is asked when all are looked at ([`mismatches`]).
    fn amiss(&self, need: &Needed<'_>) -> Option<(String, String)> {
        let lacks = |look: &Look| look.fields.find(need.name).is_none();
        let (name, look) = self.files.first()?;
        if lacks(&self.folders) && self.files.iter().all(|(_, look)| lacks(look)) {
            return Some(absent(need, name, &look.fields));
        }
        mismatch(need, name, &look.fields)
    }
}

fn absent(Needed { name, role, .. }: &Needed<'_>, file: &str, found: &Fields) -> (String, String) {
    let known = match is_called_a_table(file) {
        true => suggest(name, found.iter().map(|field| field.name().as_str())),
        false => NOT_SHOWN.to_owned(),
    };
    (format!("`{file}` has no {role} `{name}`"), known)
}

/// What is wrong with one column of a file, and the way out. Rows have a time: of any other column a file that lacks it
/// has nulls.
fn mismatch(need: &Needed<'_>, file: &str, found: &Fields) -> Option<(String, String)> {
    let Needed { name, role, format, stored, .. } = need;
    let mut same = found.iter().filter(|field| field.name() == name);
    let Some(field) = same.next() else {
        let is_needed = *role == Role::EventTimestamp && !hive::says(file, name);
        return is_needed.then(|| absent(need, file, found));
    };
    if same.next().is_some() {
        let help = "give one of them another name, or leave it out of the file".to_owned();
        return Some((format!("`{file}` has two columns `{name}`"), help));
    }
    let got = canonical(field.data_type());
    let is_number = instant::is_number(&got);
    let is_stored_so = stored.is_some_and(|stored| stored::is(stored, field.data_type()));
    // Of a column that is what it is declared as nothing is asked; a decimal of other digits is another one.
    if let Some(stored) = stored.filter(|_| !is_stored_so && field.data_type().is_decimal()) {
        let its = type_name(field.data_type());
        let cause = format!("column `{name}` is said to be stored as {stored}, but is {its} in `{file}`");
        return Some((cause, "say what all files have, or leave `from` out".to_owned()));
    }
    if is_stored_so || format.is_some() && is_number || role.is_time() && is_time(&got) {
        return None;
    }
    let wants_time = role.is_time() || need.dtype() == Some(&timestamp());
    let want = match need.dtype() {
        _ if role.is_time() => "timestamp or date".to_owned(),
        dtype => type_name(dtype.filter(|want| !conforms(&got, want))?),
    };
    let time = timestamp();
    let wanted = if role.is_time() { Some(&time) } else { need.dtype() };
    let from = wanted.and_then(|want| Some((stored::meant(field.data_type(), want)?, want)));
    let help = match from {
        _ if wants_time && is_number => format!(
            "say what its numbers count since 1970, as in `{{name: {name}, type: timestamp, format: epoch_ms}}`; known: {}",
            Epoch::ALL.map(Epoch::name).join(", ")
        ),
        Some((from, want)) => {
            let (name, dtype) = (quoted(name), quoted(&type_name(want)));
            let own = quern_type(&own(&got)).filter(|_| !role.is_time());
            let or = own.map_or("rewrite the file".to_owned(), |own| format!("declare it as {own}"));
            format!("say what it is stored as, `{{name: {name}, type: {dtype}, from: {from}}}`, or {or}")
        }
        None if role.is_time() => "rewrite the file with times in it".to_owned(),
        None => match quern_type(&own(&got)) {
            Some(dtype) => format!("declare it as {dtype}, or rewrite the file"),
            None => "rewrite the file".to_owned(),
        },
    };
    Some((format!("{role} `{name}` should be {want}, but is {} in `{file}`", type_name(&got)), help))
}

fn is_time(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Timestamp(_, _) | DataType::Date32)
}
