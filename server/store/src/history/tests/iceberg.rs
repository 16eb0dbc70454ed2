//! Does a table of Iceberg have the rows that its snapshots say, whoever wrote it, whatever was deleted and renamed?
//!
//! By tables that PyIceberg wrote, and others that it cannot write, each with the rows that it must have.

use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow::datatypes::{Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Days, NaiveDate, NaiveTime};
use expect_test::expect;
use feature_defs::Epoch;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;

/// What a table must have.
#[derive(Debug, Deserialize)]
struct Case {
    metadata: Option<String>,
    snapshot: Option<u64>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    at: Option<String>,
    rows: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Expected {
    Cases(Vec<Case>),
    Refused { metadata: Option<String> },
}

/// Where tables lie: ours, or those that `tests/fixtures/make_iceberg.py --random` made in this folder.
fn golden() -> PathBuf {
    let ours = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/iceberg").canonicalize().unwrap()
    };
    std::env::var_os("QUERN_ICEBERG_TABLES").map_or_else(ours, PathBuf::from)
}

/// The tables, by name.
fn tables() -> Vec<(String, Expected)> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let folders = fs::read_dir(golden()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(name).collect();
    names.sort();
    let read = |name: String| {
        let text = fs::read_to_string(golden().join(&name).join("expected.json")).unwrap();
        let expected = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, expected)
    };
    names.into_iter().map(read).collect()
}

/// A source over a table, whose times are its `id`s.
fn source(table: &str, metadata: Option<&str>) -> Repository {
    let path = golden().join(table).join("table").join(metadata.unwrap_or_default());
    let mut repository = Repository::new(Format::Iceberg, path.to_str().unwrap().trim_end_matches('/'));
    repository.source.event_timestamp = "id".to_owned();
    let (name, dtype, loc) = ("id".to_owned(), scalar(ScalarType::Timestamp), loc(10));
    let format = Some(Epoch::Micros);
    repository.source.columns.push(Column { name, dtype, default: None, format, from: None, loc });
    repository
}

/// Every row, in order of arrival, as it stands among what is expected; what lies within others is left out.
fn rows(repository: &Repository) -> std::result::Result<Vec<Map<String, Value>>, String> {
    let history = History::new(Roots::anywhere(repository.folder.path()), Pushed::default());
    let schema = history.schema(&repository.source).map_err(|mistakes| lines(&mistakes))?;
    let plain = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    let schema: SchemaRef = Arc::new(Schema::new(plain.cloned().collect::<Vec<_>>()));
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let scan = history.open(&repository.source, &schema).map_err(|error| error.said())?;
    let mut all = Vec::new();
    for unit in 0..scan.units.len() {
        scan.read(unit, &names, None, &mut |_, batch| -> Result<()> {
            for row in 0..batch.num_rows() {
                let value = |(name, column): (&String, &ArrayRef)| (name.clone(), value(column, row));
                all.push(names.iter().zip(batch.columns()).map(value).collect());
            }
            Ok(())
        })
        .map_err(|error| error.said())?;
    }
    Ok(all)
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let real = |real: f64| match real {
        real if real.is_nan() => json!("NaN"),
        real if real.is_infinite() => json!(if real > 0.0 { "inf" } else { "-inf" }),
        real => json!(real),
    };
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => real(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Binary => json!(BASE64_STANDARD.encode(column.as_binary::<i32>().value(row))),
        DataType::FixedSizeBinary(_) => {
            json!(BASE64_STANDARD.encode(column.as_fixed_size_binary().value(row)))
        }
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let day = NaiveDate::default();
            let days = if days < 0 {
                day - Days::new(-i64::from(days) as u64)
            } else {
                day + Days::new(days as u64)
            };
            json!(days.to_string())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            json!(DateTime::from_timestamp_micros(us).unwrap().format("%Y-%m-%dT%H:%M:%S%.6f").to_string())
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let us = column.as_primitive::<Time64MicrosecondType>().value(row);
            let time = NaiveTime::from_num_seconds_from_midnight_opt(
                (us / 1_000_000) as u32,
                (us % 1_000_000 * 1000) as u32,
            );
            json!(time.unwrap().format("%H:%M:%S%.6f").to_string())
        }
        other => panic!("{other}"),
    }
}

/// Whether a value is what is expected, which says it as the table's type does.
fn same(name: &str, found: &Value, expected: &Value) -> bool {
    let us =
        |text: &str| DateTime::parse_from_rfc3339(&format!("{text}Z")).ok().map(|at| at.timestamp_micros());
    match (found, expected) {
        (Value::String(found), Value::Number(expected)) if name == "id" => us(found) == expected.as_i64(),
        // A decimal is the nearest float here, a zone is UTC.
        (Value::Number(found), Value::String(expected)) => found.as_f64() == expected.parse().ok(),
        (Value::String(found), Value::String(expected)) if expected.len() == 36 => {
            let plain = expected.replace('-', "");
            let bytes =
                (0..plain.len()).step_by(2).map(|at| u8::from_str_radix(&plain[at..at + 2], 16).unwrap());
            *found == BASE64_STANDARD.encode(bytes.collect::<Vec<_>>())
        }
        (Value::String(found), Value::String(expected)) => found == expected.trim_end_matches('Z'),
        (Value::Number(found), Value::Number(expected)) => {
            found.as_f64().map(f64::to_bits) == expected.as_f64().map(f64::to_bits)
        }
        (found, expected) => found == expected,
    }
}

#[test]
fn tables_of_all_writers_read_as_they_must() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (table, expected) in tables() {
        let Expected::Cases(cases) = expected else { continue };
        for case in cases.iter().filter(|case| case.at.is_none()) {
            let mut repository = source(&table, case.metadata.as_deref());
            let batch = repository.source.batch.as_mut().unwrap();
            (batch.version, batch.reference) = (case.snapshot, case.reference.clone());
            let case_name = format!("{table} {:?} {:?}", case.snapshot, case.reference);
            if case.rows.is_empty() {
                continue;
            }
            let found = match rows(&repository) {
                Ok(found) => found,
                Err(error) => {
                    wrong.push(format!("{case_name}: {error}"));
                    continue;
                }
            };
            if found.len() != case.rows.len() {
                wrong.push(format!("{case_name}: {} rows, not {}", found.len(), case.rows.len()));
                continue;
            }
            for (row, (found, expected)) in found.iter().zip(&case.rows).enumerate() {
                let nested = |value: &Value| value.is_array() || value.is_object();
                for (name, expected) in expected.iter().filter(|(_, value)| !nested(value)) {
                    compared += 1;
                    match found.get(name) {
                        Some(found) if same(name, found, expected) => {}
                        None if expected.is_null() => {}
                        found => {
                            wrong.push(format!("{case_name}: row {row} `{name}`: {found:?}, not {expected}"))
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 500, "{compared}");
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    let mut said = String::new();
    for (table, expected) in tables() {
        let Expected::Refused { metadata } = expected else { continue };
        let repository = source(&table, metadata.as_deref());
        let Err(error) = rows(&repository) else {
            // Nobody asks for a column of such a type: the others are read.
            let schema =
                History::new(Roots::anywhere(&golden()), Pushed::default()).schema(&repository.source);
            said += &format!("{table}: {}\n", schema.unwrap().field_with_name("odd").unwrap().data_type());
            continue;
        };
        said += &format!("{table}: {}\n", error.trim().replace(golden().to_str().unwrap(), ""));
    }
    expect![[r#"
        refused_cut_metadata: events.yaml:3:5: source `events`: `/refused_cut_metadata/table/metadata/v1.metadata.json` cannot be read: EOF while parsing a string at line 1 column 504
          help: is it whole?
        refused_encrypted_file: events.yaml:3:5: source `events`: `/refused_encrypted_file/table/metadata/m1.avro` cannot be read: it is encrypted, which is not read
        refused_encrypted_manifest: events.yaml:3:5: source `events`: `/refused_encrypted_manifest/table/metadata/m1.avro` cannot be read: it is encrypted, which is not read
        refused_format_v4: events.yaml:3:5: source `events`: `/refused_format_v4/table/metadata/v1.metadata.json` cannot be read: it is of version 4 of Iceberg's format, and up to 3 is read
          help: have its writer write an older version, or a newer build of Quern
        refused_geometry: Struct()
        refused_missing_data: events.yaml:3:5: source `events`: `/refused_missing_data/table/data/a.parquet` is gone, though the log of `/refused_missing_data/table` names it
          help: files of old snapshots are removed when these expire; leave `version` out, or name one that the table still has
        refused_missing_manifest: events.yaml:3:5: source `events`: `/refused_missing_manifest/table/metadata/m1.avro` is gone, though `/refused_missing_manifest/table` names it
          help: files of old snapshots are removed when these expire; leave `version` out, or name one that the table still has
        refused_orc: events.yaml:3:5: source `events`: `/refused_orc/table/data/a.orc` cannot be read: it is of the format ORC
          help: tables of Parquet files are read; have it rewritten so (`write.format.default`)
        refused_variant: Struct()
        refused_vector_cardinality: events.yaml:3:5: source `events`: `/refused_vector_cardinality/table/data/a.puffin` cannot be read: a bitmap in it is of 1 rows, and by its table of 2
        refused_vector_checksum: events.yaml:3:5: source `events`: `/refused_vector_checksum/table/data/a.puffin` cannot be read: the checksum of a bitmap in it is another one
    "#]].assert_eq(&said);
}
