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
use proptest::prelude::*;
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

fn fixtures(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    tests.join(name).canonicalize().unwrap()
}

/// The tables of a folder, by where they lie.
fn tables_in(folder: &Path) -> Vec<(PathBuf, Expected)> {
    let folders = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    let read = |folder: PathBuf| {
        let text = fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        (folder, expected)
    };
    folders.into_iter().map(read).collect()
}

/// All tables, by name and where they lie.
fn tables() -> Vec<(String, PathBuf, Expected)> {
    let odd = fixtures("iceberg_odd");
    let all = match std::env::var_os("QUERN_ICEBERG_TABLES") {
        Some(folder) => tables_in(Path::new(&folder)),
        None => [fixtures("iceberg"), odd].iter().flat_map(|folder| tables_in(folder)).collect(),
    };
    let name = |folder: &Path| folder.file_name().unwrap().to_string_lossy().into_owned();
    all.into_iter().map(|(folder, expected)| (name(&folder), folder, expected)).collect()
}

/// A source over a table, whose times are its `id`s.
fn source(folder: &Path, metadata: Option<&str>) -> Repository {
    let path = folder.join("table").join(metadata.unwrap_or_default());
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
    names.iter().for_each(|name| _ = check_constants(&scan, &[name.as_str()]));
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
    for (table, folder, expected) in tables() {
        let Expected::Cases(cases) = expected else { continue };
        for case in cases.iter().filter(|case| case.at.is_none()) {
            let mut repository = source(&folder, case.metadata.as_deref());
            let batch = repository.source.batch.as_mut().unwrap();
            (batch.version, batch.reference) = (case.snapshot, case.reference.clone());
            let case_name = format!("{table} {:?} {:?}", case.snapshot, case.reference);
            if case.rows.is_empty() {
                // It has no rows, and its columns are known.
                wrong.extend(
                    rows(&repository).map_or_else(Some, |rows| (!rows.is_empty()).then(|| case_name.clone())),
                );
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
    for (table, folder, expected) in tables() {
        let Expected::Refused { metadata } = expected else { continue };
        let repository = source(&folder, metadata.as_deref());
        let Err(error) = rows(&repository) else {
            // Nobody asks for a column of such a type: the others are read.
            let schema = History::new(Roots::anywhere(&folder), Pushed::default()).schema(&repository.source);
            said += &format!("{table}: {}\n", schema.unwrap().field_with_name("odd").unwrap().data_type());
            continue;
        };
        said += &format!("{table}: {}\n", error.trim().replace(folder.to_str().unwrap(), "$TABLE"));
    }
    expect![[r#"
        refused_cut_metadata: events.yaml:3:5: source `events`: `$TABLE/table/metadata/v1.metadata.json` cannot be read: EOF while parsing a string at line 1 column 504
          help: is it whole?
        refused_encrypted_file: events.yaml:3:5: source `events`: `$TABLE/table/metadata/m1.avro` cannot be read: it is encrypted, which is not read
        refused_encrypted_manifest: events.yaml:3:5: source `events`: `$TABLE/table/metadata/m1.avro` cannot be read: it is encrypted, which is not read
        refused_format_v4: events.yaml:3:5: source `events`: `$TABLE/table/metadata/v1.metadata.json` cannot be read: it is of version 4 of Iceberg's format, and up to 3 is read
          help: have its writer write an older version, or a newer build of Quern
        refused_geometry: Struct()
        refused_missing_data: events.yaml:3:5: source `events`: `$TABLE/table/data/a.parquet` is gone, though the log of `$TABLE/table` names it
          help: files of snapshots that have expired are removed: read one that the table still has, or bring the file back
        refused_missing_manifest: events.yaml:3:5: source `events`: `$TABLE/table/metadata/m1.avro` is gone, though `$TABLE/table` names it
          help: files of snapshots that have expired are removed: read one that the table still has, or bring the file back
        refused_orc: events.yaml:3:5: source `events`: `$TABLE/table/data/a.orc` cannot be read: it is of the format ORC
          help: tables of Parquet files are read; have it rewritten so (`write.format.default`)
        refused_variant: Struct()
        refused_vector_cardinality: events.yaml:3:5: source `events`: `$TABLE/table/data/a.puffin` cannot be read: a bitmap in it is of 1 rows, and by its table of 2
        refused_vector_checksum: events.yaml:3:5: source `events`: `$TABLE/table/data/a.puffin` cannot be read: the checksum of a bitmap in it is another one
        block_of_no_rows: events.yaml:3:5: source `events`: `$TABLE/table/metadata/snap-1001.avro` cannot be read: a block of it is damaged
        delete_lacks_column2: events.yaml:3:5: source `events`: `$TABLE/table/data/d.parquet` cannot be read: it says what was deleted, and lacks a column of that
        equality_ids_none: events.yaml:3:5: source `events`: `$TABLE/table/data/d.parquet` cannot be read: nothing says by which columns rows were deleted
        existing_unnumbered: events.yaml:3:5: source `events`: `$TABLE/table/metadata/m3.avro` cannot be read: it does not say of which commit a file is
        format_0: events.yaml:3:5: source `events`: `$TABLE/table/metadata/v1.metadata.json` cannot be read: it is of version 0 of Iceberg's format, and up to 3 is read
          help: have its writer write an older version, or a newer build of Quern
        path_missing: events.yaml:3:5: source `events`: `$TABLE/table/data/d.parquet` cannot be read: it says what was deleted, and lacks a column of that
        position_half: events.yaml:3:5: source `events`: `$TABLE/table/data/d.parquet` cannot be read: it does not say of each deleted row its file and its place
        position_negative: events.yaml:3:5: source `events`: `$TABLE/table/data/d.parquet` cannot be read: it does not say of each deleted row its file and its place
        same_id_twice: events.yaml:3:5: source `events`: `$TABLE/table/data/a.parquet` cannot be read: two of its columns have one number (`field_id`)
          help: rewrite the file, or leave it out of the path
        schema_missing: events.yaml:3:5: source `events`: table `$TABLE/table` cannot be read: it lacks the columns of that state
          help: is its metadata whole?
        snappy_short_block: events.yaml:3:5: source `events`: `$TABLE/table/metadata/snap-1001.avro` cannot be read: it ends in the middle of a block
        snapshot_without_manifests: events.yaml:3:5: source `events`: table `$TABLE/table` cannot be read: nothing says which files snapshot 1001 has
          help: is its metadata whole?
        status_7: events.yaml:3:5: source `events`: `$TABLE/table/metadata/m1.avro` cannot be read: it names a file of status 7, which is not known
        vector_of_nothing: events.yaml:3:5: source `events`: `$TABLE/table/data/v.puffin` cannot be read: nothing says of which file a bitmap in it is
    "#]].assert_eq(&said);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// A manifest that ends too early names fewer files than there are; one that is damaged ends nothing.
    #[test]
    fn a_manifest_that_is_cut_is_refused(
        manifest in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        damage in proptest::option::of(any::<u8>()),
    ) {
        let from = fixtures("iceberg").join("position_deletes_v2/table");
        let repository = Repository::new(Format::Iceberg, "table");
        let mut manifests = Vec::new();
        for file in glob::glob(&format!("{}/**/*", from.display())).unwrap().map(|path| path.unwrap()) {
            if file.is_file() {
                let name = format!("table/{}", file.strip_prefix(&from).unwrap().display());
                let last = name.rsplit('/').next().unwrap();
                let is_read = last == "snap-1004.avro" || last.starts_with('m') && last.ends_with(".avro");
                repository.file(&name, fs::read(file).unwrap());
                manifests.extend(is_read.then_some(name));
            }
        }
        let name = manifest.get(&manifests);
        let mut bytes = fs::read(repository.folder.path().join(name)).unwrap();
        let at = at.index(bytes.len());
        match damage {
            Some(byte) => bytes[at] ^= byte | 1,
            None => bytes.truncate(at),
        }
        repository.file(name, &bytes);
        let source = source(&repository.folder.path().join("nowhere"), None);
        let history = History::new(Roots::anywhere(repository.folder.path()), Pushed::default());
        let batch = BatchSource { path: "table".to_owned(), ..source.source.batch.clone().unwrap() };
        let source = Source { batch: Some(batch), ..source.source.clone() };
        let opened = history.schema(&source).ok().and_then(|schema| history.open(&source, &schema).ok());
        prop_assert!(damage.is_some() || opened.is_none(), "{} at {}", name, at);
    }
}
