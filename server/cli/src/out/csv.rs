//! How do rows stand in a CSV file? As RFC 4180 has it; an empty cell is null, and an empty text stands in quotes, as
//! PostgreSQL reads and writes both.

use std::fs::File;
use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Error;

/// A text that is there, and has no character.
const EMPTY: &str = "\"\"";

/// A file that gets rows.
pub(super) struct CsvFile(File);

impl CsvFile {
    /// Begins with the names of the columns, which are there even if no row is.
    pub(super) fn create(mut file: File, schema: &Schema) -> Result<CsvFile, Error> {
        let mut line = String::new();
        for (place, field) in schema.fields().iter().enumerate() {
            separate(&mut line, place);
            add(&mut line, field.name());
        }
        line.push('\n');
        file.write_all(line.as_bytes())?;
        Ok(CsvFile(file))
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let options = FormatOptions::new();
        let columns = rows.columns().iter().map(|column| {
            let values = ArrayFormatter::try_new(column.as_ref(), &options);
            values.map(|values| (values, column.logical_nulls()))
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let (mut lines, mut cell) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            for (place, (values, nulls)) in columns.iter().enumerate() {
                separate(&mut lines, place);
                match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    // A line with nothing on it is no row.
                    true if columns.len() == 1 => lines.push_str(EMPTY),
                    true => {}
                    false => {
                        cell.clear();
                        match end_of_time(&rows.columns()[place], row) {
                            Some(end) => cell.push_str(end),
                            None => values.value(row).write(&mut cell)?,
                        }
                        add(&mut lines, &cell);
                    }
                }
            }
            lines.push('\n');
        }
        Ok(self.0.write_all(lines.as_bytes())?)
    }

    pub(super) fn into_inner(self) -> File {
        self.0
    }
}

/// What is said of a time beyond all others, which has no date.
fn end_of_time(column: &ArrayRef, row: usize) -> Option<&'static str> {
    match column.as_primitive_opt::<TimestampMicrosecondType>()?.value(row) {
        i64::MAX => Some("infinity"),
        us if us == -i64::MAX => Some("-infinity"),
        _ => None,
    }
}

fn separate(line: &mut String, place: usize) {
    if place > 0 {
        line.push(',');
    }
}

fn add(line: &mut String, cell: &str) {
    if cell.is_empty() {
        line.push_str(EMPTY);
    } else if cell.contains(['"', ',', '\n', '\r']) {
        line.push('"');
        line.push_str(&cell.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(cell);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Float64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int8Type;
    use expect_test::expect;

    use super::*;

    fn written(columns: Vec<(&str, ArrayRef)>) -> String {
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut file = CsvFile::create(path.reopen().unwrap(), rows.schema_ref()).unwrap();
        file.write(&rows).unwrap();
        file.write(&rows.slice(0, 0)).unwrap();
        drop(file.into_inner());
        fs::read_to_string(path.path()).unwrap()
    }

    #[test]
    fn an_empty_text_is_no_null() {
        let texts = StringArray::from(vec![Some(""), None, Some("a \"b\",\r\nc"), Some(" d ")]);
        let kinds: DictionaryArray<Int8Type> = [Some("x"), None, Some(""), Some("x")].into_iter().collect();
        let at = TimestampMicrosecondArray::from(vec![Some(0), None, Some(-1), Some(1_000_000)]);
        let numbers = Float64Array::from(vec![Some(-0.0), None, Some(f64::NAN), Some(1.5)]);
        expect![[r#"
            "te,xt",kind,at,number
            "",x,1970-01-01T00:00:00Z,-0.0
            ,,,
            "a ""b"",
            c","",1969-12-31T23:59:59.999999Z,NaN
             d ,x,1970-01-01T00:00:01Z,1.5
        "#]]
        .assert_eq(
            &written(vec![
                ("te,xt", Arc::new(texts)),
                ("kind", Arc::new(kinds)),
                ("at", Arc::new(at.with_timezone("UTC"))),
                ("number", Arc::new(numbers)),
            ])
            .replace('\r', ""),
        );
        // One column alone: a line with nothing on it would be passed over.
        let alone = StringArray::from(vec![Some("a"), None, Some("b")]);
        assert_eq!(written(vec![("only", Arc::new(alone))]), "only\na\n\"\"\nb\n");
    }
}
