//! How are rows of a file of JSON read?
//!
//! One object on each line, as NDJSON and JSON Lines have it, in UTF-8. Keys that nobody asks for are passed over, with
//! whatever stands under them; what an object lacks is null. Values are read as those of pushed rows are
//! ([`quern_engine::json`]), so that a row has the same bits wherever it comes from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use feature_defs::Encoding;
use quern_engine::json::{Json, Mistyped, column};
use quern_engine::schema::type_name;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::files::HistoryFile;
use super::{BATCH_ROWS_MAX, Formats, Reading, hive, text};
use crate::error::{Error, Result};

/// A longer line is no row of a table.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// A batch ends early when its text grows beyond this.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// How many lines say which columns a file has.
const LINES_LOOKED_AT: usize = 1_000;
/// What some programs begin a text of UTF-8 with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A file of JSON whose lines have been counted.
#[derive(Debug)]
pub(super) struct JsonFile {
    file: HistoryFile,
    rows: u64,
}

/// The columns of a file, as far as its first lines show, with `schema`'s types where it knows them.
pub(super) fn keys(file: &HistoryFile, schema: &Schema) -> Result<Fields> {
    let mut lines = Lines::of(file)?;
    let mut names = BTreeSet::new();
    for _ in 0..LINES_LOOKED_AT {
        let Some((number, line)) = lines.next()? else { break };
        let keys = |text| serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(text);
        names.extend(object(file, number, line, &mut { keys })?.into_keys());
    }
    let dtype = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    Ok(names
        .into_iter()
        .map(|name| Field::new(&name, dtype(&name).unwrap_or(DataType::Null), true))
        .collect())
}

/// The first `count` objects, each with its keys and values.
pub(super) fn first(file: &HistoryFile, count: usize) -> Result<Vec<Vec<(String, Json<'static>)>>> {
    let mut lines = Lines::of(file)?;
    let mut objects = Vec::new();
    while objects.len() < count
        && let Some((number, line)) = lines.next()?
    {
        let Json::Object(entries) = object(file, number, line, &mut |text| serde_json::from_slice(text))?
        else {
            return Err(Error::broken("an object is one"));
        };
        objects.push(entries.into_iter().map(|(key, value)| (key.into_owned(), owned(value))).collect());
    }
    Ok(objects)
}

/// The value without what it borrows.
fn owned(json: Json<'_>) -> Json<'static> {
    match json {
        Json::Null => Json::Null,
        Json::Bool(value) => Json::Bool(value),
        Json::Int(value) => Json::Int(value),
        Json::Float(value) => Json::Float(value),
        Json::String(text) => Json::String(text.into_owned().into()),
        Json::Array(items) => Json::Array(items.into_iter().map(owned).collect()),
        // Of an object nobody wants more than that it is one.
        Json::Object(_) => Json::Object(Vec::new()),
    }
}

/// Reads the object on a line.
fn object<'a, T>(
    file: &HistoryFile,
    number: u64,
    line: &'a [u8],
    read: &mut dyn FnMut(&'a [u8]) -> serde_json::Result<T>,
) -> Result<T> {
    let wrong = |why: &dyn fmt::Display| Error::invalid(format!("`{}`, line {number}: {why}", file.name));
    match line.first() {
        Some(b'{') => read(line).map_err(|error| {
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            wrong(&format!("{said}, at its byte {}; {EACH_LINE}", error.column()))
        }),
        Some(b'[') if number == 1 => Err(wrong(&format!("it begins an array; {EACH_LINE}{PANDAS}"))),
        _ => Err(wrong(&format!("it holds no JSON object; {EACH_LINE}"))),
    }
}

const EACH_LINE: &str = "each line of a JSON file is an object, with the columns of a row";
const PANDAS: &str = ", as pandas writes them with to_json(path, orient=\"records\", lines=True)";

impl JsonFile {
    /// Counts the lines that are not blank.
    pub(super) fn open(file: HistoryFile) -> Result<Self> {
        let (mut lines, mut rows) = (Lines::of(&file)?, 0);
        while lines.next()?.is_some() {
            rows += 1;
        }
        if rows > u64::from(u32::MAX) {
            return Err(file.unreadable(&format!("{rows} lines are too many for one file; split it")));
        }
        Ok(JsonFile { file, rows })
    }

    /// Reads no more than the first rows of a file, of which nothing else is known, in the columns of a schema.
    pub(super) fn first_rows(
        file: HistoryFile,
        (count, schema): (usize, SchemaRef),
        formats: &Formats,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        if schema.fields().is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = (0..count as u32).collect();
        let reading = Reading { rows: Some(&rows), ..Reading::of(schema, formats) };
        JsonFile { file, rows: 0 }.read(&reading, visit)
    }

    pub(super) fn file(&self) -> &HistoryFile {
        &self.file
    }

    pub(super) fn name(&self) -> &str {
        &self.file.name
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the whole file or some of its rows; batches come in row order.
    pub(super) fn read(
        &self,
        reading: &Reading<'_>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut lines = Lines::of(&self.file)?;
        let mut batch = Batch::new(&self.file, reading);
        let mut wanted = reading.rows.map(|rows| rows.iter().copied().peekable());
        let mut row = 0u32;
        while let Some((number, line)) = lines.next()? {
            let is_wanted = match &mut wanted {
                None => true,
                Some(rows) => rows.next_if_eq(&row).is_some(),
            };
            row = row.wrapping_add(1);
            if is_wanted {
                batch.push(number, line);
                if batch.is_full() {
                    visit(batch.finish()?)?;
                }
                if wanted.as_mut().is_some_and(|rows| rows.peek().is_none()) {
                    break;
                }
            }
        }
        if batch.lines.is_empty() { Ok(()) } else { visit(batch.finish()?) }
    }
}

/// Lines on their way to a record batch.
struct Batch<'a> {
    file: &'a HistoryFile,
    reading: &'a Reading<'a>,
    wanted: Wanted<'a>,
    text: Vec<u8>,
    /// The number of each line, and where it lies in `text`.
    lines: Vec<(u64, Range<usize>)>,
}

impl<'a> Batch<'a> {
    fn new(file: &'a HistoryFile, reading: &'a Reading<'a>) -> Self {
        let names = reading.schema.fields().iter().enumerate();
        let wanted = Wanted { places: names.map(|(place, field)| (field.name().as_str(), place)).collect() };
        Batch { file, reading, wanted, text: Vec::new(), lines: Vec::new() }
    }

    fn push(&mut self, number: u64, line: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(line);
        self.lines.push((number, start..self.text.len()));
    }

    fn is_full(&self) -> bool {
        self.lines.len() == BATCH_ROWS_MAX || self.text.len() > BATCH_BYTES_MAX
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        let rows = self.lines.iter().map(|(number, place)| {
            let mut read = |text| {
                let mut text = serde_json::Deserializer::from_slice(text);
                let values = self.wanted.deserialize(&mut text)?;
                text.end().map(|()| values)
            };
            object(self.file, *number, &self.text[place.clone()], &mut read)
        });
        let rows: Vec<Vec<Option<Json<'_>>>> = rows.collect::<Result<_>>()?;
        let fields = self.reading.schema.fields().iter().enumerate();
        let columns = fields.map(|(place, field)| self.column(field, &rows, place)).collect::<Result<_>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&self.reading.schema), columns)?;
        drop(rows);
        self.text.clear();
        self.lines.clear();
        Ok(batch)
    }

    fn column(&self, field: &Field, rows: &[Vec<Option<Json<'_>>>], place: usize) -> Result<ArrayRef> {
        let cells: Vec<&Json<'_>> =
            rows.iter().map(|row| row[place].as_ref().unwrap_or(&Json::Null)).collect();
        let format = self.reading.formats.epoch(field.name());
        let values = column(field.data_type(), format, &cells)
            .map_err(|mistyped| self.bad_value(field, mistyped, format.is_some()))?;
        let there = BooleanArray::from_iter(rows.iter().map(|row| Some(row[place].is_some())));
        if there.true_count() == rows.len() || !hive::says(&self.file.name, field.name()) {
            return Ok(values);
        }
        let of_folder = hive::column(&self.file.name, field, self.reading, rows.len())?;
        Ok(zip(&there, &values, &of_folder)?)
    }

    /// Says where a value of another type is, and not what it is: whoever checks definitions need not be who may read
    /// the file.
    fn bad_value(&self, field: &Field, mistyped: Mistyped, has_format: bool) -> Error {
        let Mistyped { row, expected, found } = mistyped;
        let line = self.lines.get(row).map_or(0, |(number, _)| *number);
        let (file, column) = (&self.file.name, field.name());
        let way_out = match field.data_type() {
            DataType::Timestamp(_, _) if !has_format && found.starts_with("number") => {
                "; a column's `format` says what its numbers count"
            }
            _ => "",
        };
        let plain = format!(
            "`{file}`, line {line}, column `{column}`: its value is not of type {}{way_out}",
            type_name(field.data_type())
        );
        let quoting =
            format!("`{file}`, line {line}, column `{column}`: expected {expected}, found {found}{way_out}");
        Error::invalid(plain).quoting(quoting)
    }
}

/// The columns that somebody asks for, by name.
struct Wanted<'a> {
    places: HashMap<&'a str, usize>,
}

impl<'de> DeserializeSeed<'de> for &Wanted<'_> {
    type Value = Vec<Option<Json<'de>>>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Wanted<'_> {
    type Value = Vec<Option<Json<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut values = vec![None; self.places.len()];
        while let Some(key) = map.next_key::<Json<'de>>()? {
            let Json::String(key) = key else { return Err(A::Error::custom("a key must be a string")) };
            match self.places.get(key.as_ref()) {
                Some(place) if values[*place].is_some() => {
                    return Err(A::Error::custom(format!("it has `{key}` twice")));
                }
                Some(place) => values[*place] = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(values)
    }
}

/// The lines of a file that are not blank.
struct Lines<'a> {
    file: &'a HistoryFile,
    text: BufReader<Box<dyn Read>>,
    number: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn of(file: &'a HistoryFile) -> Result<Self> {
        let text = BufReader::new(text::open(file, Encoding::Utf8)?);
        Ok(Lines { file, text, number: 0, line: Vec::new() })
    }

    /// The next one, without blanks around it, and its number from 1.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            let read = self.text.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut self.line);
            let count = read.map_err(|error| self.file.unreadable(&error))?;
            if count == 0 {
                return Ok(None);
            }
            self.number += 1;
            if count as u64 > LINE_BYTES_MAX {
                let why = format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number);
                return Err(self.file.unreadable(&why));
            }
            if self.number == 1 && self.line.starts_with(MARK) {
                self.line.drain(..MARK.len());
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, self.line.trim_ascii())))
    }
}
