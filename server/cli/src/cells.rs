//! Which cell of a CSV file is not of its column's type, and which line has too few or too many?
//!
//! Arrow's reader says it in words for those who know its types. Once it has failed, the file is read again, cell by
//! cell, for the place and the value.

use std::fs::File;
use std::io::{BufReader, Read, Result as IoResult};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use csv::{ByteRecord, ErrorKind, ReaderBuilder, StringRecord};
use quern_engine::schema::type_name;

/// Records that are looked at together.
const RECORDS: usize = 8_192;
/// How much of a cell is shown.
const CHARS_SHOWN: usize = 60;

/// The first cell of the file at `path` that is not of the type that `schema` has for its column, by position.
pub(super) fn bad_cell(path: &Path, schema: &Schema) -> Option<String> {
    let mut reader = ReaderBuilder::new().flexible(true).from_path(path).ok()?;
    let mut records = reader.records();
    loop {
        let chunk: Vec<StringRecord> = records.by_ref().take(RECORDS).map_while(Result::ok).collect();
        if chunk.is_empty() {
            return None;
        }
        let columns = 0..schema.fields().len();
        let bad =
            columns.filter_map(|column| Some((first_bad(&chunk, column, schema.field(column))?, column)));
        if let Some((row, column)) = bad.min() {
            let field = schema.field(column);
            let cell: String = chunk[row].get(column).unwrap_or_default().chars().take(CHARS_SHOWN).collect();
            let line = chunk[row].position().and_then(|place| line(path, place.byte()).ok())?;
            let (name, dtype) = (field.name(), type_name(field.data_type()));
            return Some(format!("line {line}, column `{name}`: `{cell}` is not of type {dtype}"));
        }
    }
}

/// The first line of the file at `path` that has not as many cells as the header.
pub(super) fn uneven(path: &Path) -> Option<String> {
    let mut reader = ReaderBuilder::new().from_path(path).ok()?;
    let mut record = ByteRecord::new();
    let error = loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => break error,
        }
    };
    let ErrorKind::UnequalLengths { pos, expected_len, len } = error.kind() else { return None };
    let line = line(path, pos.as_ref()?.byte()).ok()?;
    Some(format!("line {line} has {len} cells and the header {expected_len}"))
}

/// The first of `records` whose cell says nothing of the field's type.
fn first_bad(records: &[StringRecord], column: usize, field: &Field) -> Option<usize> {
    let cells = || records.iter().map(|record| record.get(column).filter(|cell| !cell.is_empty()));
    if *field.data_type() == DataType::Boolean {
        let is_bool = |cell: &str| cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false");
        return cells().position(|cell| cell.is_some_and(|cell| !is_bool(cell)));
    }
    let texts: ArrayRef = Arc::new(StringArray::from_iter(cells()));
    let values = cast(&texts, field.data_type()).ok()?;
    (0..records.len()).find(|row| texts.is_valid(*row) && values.is_null(*row))
}

/// The line, from 1, that the record at `byte` begins on.
fn line(path: &Path, byte: u64) -> IoResult<u64> {
    let mut lines = 1;
    for (place, read) in BufReader::new(File::open(path)?).bytes().enumerate() {
        let read = read?;
        // A record begins after the ends of the lines before it.
        if place as u64 >= byte && !matches!(read, b'\r' | b'\n') {
            break;
        }
        lines += u64::from(read == b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spine.csv");
        std::fs::write(&path, text).unwrap();
        let columns = [
            ("n", DataType::Int64),
            ("x", DataType::Float64),
            ("ok", DataType::Boolean),
            ("s", DataType::Utf8),
        ];
        let schema = Schema::new(columns.map(|(name, dtype)| Field::new(name, dtype, true)).to_vec());
        assert_eq!(bad_cell(&path, &schema).as_deref(), expected, "{text}");
    }

    #[test]
    fn a_line_of_another_length_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spine.csv");
        for (text, expected) in [
            ("a,b\n1,2\n", None),
            ("a,b\r\n1,\"2\r\n3\"\r\n\r\n4\r\n", Some("line 5 has 1 cells and the header 2")),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(uneven(&path).as_deref(), expected);
        }
    }

    #[test]
    fn the_first_cell_that_is_none_is_told_with_its_line() {
        check("n,x,ok,s\n1,1.5,true,a\n,,,\n", None);
        check(
            "n,x,ok,s\n1,1.5,true,a\n2,much,true,b\n3,2,yes,c\n",
            Some("line 3, column `x`: `much` is not of type float64"),
        );
        check(
            "n,x,ok,s\r\n1,1.5,true,\"a\r\nb\"\r\n\r\n2.5,1,true,b\r\n",
            Some("line 5, column `n`: `2.5` is not of type int64"),
        );
        check("n,x,ok,s\n1,1,t,a\n", Some("line 2, column `ok`: `t` is not of type bool"));
    }
}
