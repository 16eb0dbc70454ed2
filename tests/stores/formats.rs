//! Can today's build read what older ones wrote? The fixtures are never edited: a new format gets new ones beside them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use quern_engine::key::Keys;
use quern_engine::row::{RowCodec, RowTimes, times};
use quern_engine::schema::arrow_type;
use quern_kit::Repository;
use quern_kit::registry::{Location, Registry};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

fn schema(types: &[&str]) -> SchemaRef {
    let field =
        |(i, name): (usize, &&str)| Field::new(format!("c{i}"), arrow_type(name.parse().unwrap()), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

fn columns(schema: &Schema, row: &[ScalarValue]) -> Vec<ArrayRef> {
    let column = |(field, value): (&Arc<Field>, &ScalarValue)| {
        value.cast_to(field.data_type()).unwrap().to_array().unwrap()
    };
    schema.fields().iter().zip(row).map(column).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The lines `NAME HEX` of a fixture; `#` begins a comment.
fn lines(fixture: &'static str) -> Vec<(&'static str, Vec<u8>)> {
    let lines = fixture.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, hex)| (name, bytes(hex))).collect()
}

const ROW_TYPES: [&str; 14] = [
    "bool",
    "int32",
    "int64",
    "float32",
    "float64",
    "string",
    "bytes",
    "timestamp",
    "date",
    "list<int32>",
    "list<int64>",
    "list<float32>",
    "list<float64, 2>",
    "string",
];

fn time(us: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
}

fn list<T: Into<ScalarValue> + Clone>(items: &[Option<T>], null: ScalarValue) -> ScalarValue {
    let items: Vec<ScalarValue> =
        items.iter().map(|item| item.clone().map_or(null.clone(), Into::into)).collect();
    ScalarValue::List(ScalarValue::new_list(&items, &null.data_type(), true))
}

/// The rows of `rows_v1.txt`, as they were written.
fn rows() -> [(&'static str, RowTimes, Vec<ScalarValue>); 3] {
    let full = vec![
        ScalarValue::from(true),
        ScalarValue::from(-2i32),
        ScalarValue::from(1i64 << 40),
        ScalarValue::from(1.5f32),
        ScalarValue::from(-0.0f64),
        ScalarValue::from("é\0"),
        ScalarValue::Binary(Some(vec![0xff, 0x00])),
        time(1_357_171_200_000_001),
        ScalarValue::Date32(Some(-1)),
        list(&[Some(1i32), None], ScalarValue::Int32(None)),
        list::<i64>(&[], ScalarValue::Int64(None)),
        list(&[Some(0.5f32)], ScalarValue::Float32(None)),
        list(&[Some(1.0f64), None], ScalarValue::Float64(None)),
        ScalarValue::from(""),
    ];
    let edges = vec![
        ScalarValue::from(false),
        ScalarValue::from(i32::MIN),
        ScalarValue::from(i64::MAX),
        ScalarValue::from(f32::NAN),
        ScalarValue::from(f64::NEG_INFINITY),
        ScalarValue::Utf8(None),
        ScalarValue::Binary(Some(vec![])),
        time(-1),
        ScalarValue::Date32(None),
        list(&[Some(7i32)], ScalarValue::Int32(None)),
        list(&[None::<i64>], ScalarValue::Int64(None)),
        ScalarValue::try_new_null(&arrow_type("list<float32>".parse().unwrap())).unwrap(),
        list(&[Some(0.25f64), Some(4.0)], ScalarValue::Float64(None)),
        ScalarValue::from("last"),
    ];
    let nulls = ROW_TYPES.map(|name| ScalarValue::try_new_null(&arrow_type(name.parse().unwrap())).unwrap());
    let at = |ts_us, created_us| RowTimes { ts_us, created_us };
    [
        ("full", at(1_357_171_200_000_000, 1_357_171_200_000_007), full),
        ("edges", at(-1, i64::MIN), edges),
        ("nulls", at(0, 0), nulls.to_vec()),
    ]
}

const LIST_TYPES: [&str; 4] = ["list<string>", "list<bool>", "list<string, 2>", "list<bool, 1>"];

/// The rows of `rows_v1_lists.txt`, as they were written.
fn rows_of_lists() -> [(&'static str, RowTimes, Vec<ScalarValue>); 3] {
    let texts = |items: &[Option<&str>]| list(items, ScalarValue::Utf8(None));
    let truths = |items: &[Option<bool>]| list(items, ScalarValue::Boolean(None));
    let full = vec![
        texts(&[Some("é\0"), None, Some(""), Some("z")]),
        truths(&[Some(true), Some(false), None]),
        texts(&[Some("ab"), Some("c")]),
        truths(&[Some(true)]),
    ];
    let edges = vec![texts(&[]), truths(&[]), texts(&[None, None]), truths(&[None])];
    let nulls = LIST_TYPES.map(|name| ScalarValue::try_new_null(&arrow_type(name.parse().unwrap())).unwrap());
    let at = |ts_us, created_us| RowTimes { ts_us, created_us };
    [("full", at(1, 2), full), ("edges", at(-1, -1), edges), ("nulls", at(0, 0), nulls.to_vec())]
}

#[test]
fn stored_rows_of_version_1() {
    reads_and_writes(&ROW_TYPES, include_str!("../fixtures/rows_v1.txt"), &rows());
    reads_and_writes(&LIST_TYPES, include_str!("../fixtures/rows_v1_lists.txt"), &rows_of_lists());
}

fn reads_and_writes(types: &[&str], fixture: &'static str, rows: &[(&str, RowTimes, Vec<ScalarValue>)]) {
    let schema = schema(types);
    let codec = RowCodec::new(&schema).unwrap();
    let stored = lines(fixture);
    assert_eq!(stored.len(), rows.len());
    for ((name, stored), (wanted_name, wanted_times, wanted)) in stored.iter().zip(rows) {
        assert_eq!(name, wanted_name);
        let wanted = columns(&schema, wanted);
        let mut written = Vec::new();
        codec.encoder(&wanted).encode(*wanted_times, 0, &mut written);
        assert_eq!(hex(&written), hex(stored), "{name}: version 1 is written differently now");
        assert_eq!(times(stored).unwrap(), *wanted_times);
        let all: Vec<usize> = (0..types.len()).collect();
        let found = codec.decode(&[Some(stored), None], &all).unwrap();
        for ((found, wanted), dtype) in found.iter().zip(&wanted).zip(types) {
            assert_eq!(found.slice(0, 1).to_data(), wanted.to_data(), "{name}, {dtype}");
            assert!(found.is_null(1));
        }
    }
}

#[test]
fn a_damaged_row_is_an_error() {
    is_read_whole_or_not(&ROW_TYPES, include_str!("../fixtures/rows_v1.txt"));
    is_read_whole_or_not(&LIST_TYPES, include_str!("../fixtures/rows_v1_lists.txt"));
}

fn is_read_whole_or_not(types: &[&str], fixture: &'static str) {
    let codec = RowCodec::new(&schema(types)).unwrap();
    let all: Vec<usize> = (0..types.len()).collect();
    for (name, stored) in lines(fixture) {
        for length in 0..stored.len() {
            // The last feature ends where the row does, or before, where it is empty.
            let cut = codec.decode(&[Some(&stored[..length])], &all);
            assert!(cut.is_err(), "{name}, {length} of {} bytes", stored.len());
        }
        let mut newer = stored;
        newer[0] = 2;
        let error = codec.decode(&[Some(&newer)], &all).unwrap_err().to_string();
        assert!(error.contains("version 2, and this build reads version 1"), "{error}");
    }
}

#[test]
fn keys_of_version_1() {
    let keys: [(&str, &[&str], Vec<ScalarValue>); 5] = [
        ("numbers", &["int32", "int64"], vec![ScalarValue::from(-1i32), ScalarValue::from(258i64)]),
        ("text", &["string", "string"], vec![ScalarValue::from("1"), ScalarValue::from("23")]),
        ("mixed", &["bool", "bytes"], vec![ScalarValue::from(true), ScalarValue::Binary(Some(vec![0, 1]))]),
        ("times", &["timestamp", "date"], vec![time(-1), ScalarValue::Date32(Some(15_706))]),
        ("long", &["string"], vec![ScalarValue::from("x".repeat(130))]),
    ];
    let stored = lines(include_str!("../fixtures/keys_v1.txt"));
    assert_eq!(stored.len(), keys.len());
    for ((name, stored), (wanted_name, types, values)) in stored.iter().zip(keys) {
        assert_eq!(*name, wanted_name);
        let schema = schema(types);
        let keys = Keys::encode(&schema, &columns(&schema, &values)).unwrap();
        assert_eq!(hex(keys.get(0).unwrap()), hex(stored), "{name}");
    }
}

/// `registry_v1.sql` is the dump of a registry that migration 0001 made: apply 1 has a model, apply 2 has none.
#[tokio::test]
async fn a_registry_of_migration_1() {
    let repository = Repository::new("");
    std::fs::create_dir(repository.path().join(".quern")).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(repository.path().join(".quern/registry.sqlite"))
        .create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(include_str!("../fixtures/registry_v1.sql")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let registry = Registry::open(&Location::Sqlite, &repository.path().join(".quern")).await.unwrap();
    let first = registry.apply(1).await.unwrap();
    let model = &first.models[0];
    assert_eq!((&*model.model, &*model.version, &*model.service), ("delay", "1", "delay_v1"));
    assert_eq!(registry.history().await.unwrap().len(), 2);
    drop(registry);

    let node = repository.open().await;
    assert_eq!(node.live().number, 2);
    // Rows in the head are found by this id: where it changes without need, everything must be materialized again.
    assert_eq!(format!("{:016x}", node.view("plane_history").0), "f05e1a480223ab5a");
    let service = node.service("delay_v1");
    let outputs = service.outputs().fields().iter().map(|field| field.name().as_str());
    assert_eq!(outputs.collect::<Vec<_>>(), ["distance", "last_delay", "far"]);
}
