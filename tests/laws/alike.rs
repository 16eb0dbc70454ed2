//! Law 1 and 2 over kinds of sources: the same rows as Parquet, CSV, JSON, Arrow, a table of Delta Lake and one of a
//! database are trained and served with the same bits, however they are cut into files and commits.
//!
//! What Kafka brings is compared so in `network/streams`, tables of Iceberg beside three other readers in the store.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use chrono::DateTime;
use datafusion_common::ScalarValue;
use quern_kit::{Random, Repository, runtime};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::warehouses::databases::{Database, NOW_US, START_US, open};

const KINDS: [&str; 6] = ["parquet", "csv", "json", "arrow", "delta", "sql"];
/// The columns besides key and time, their types, and what Delta and SQLite call these.
const COLUMNS: [(&str, &str, &str, &str); 8] = [
    ("b", "bool", "boolean", "boolean"),
    ("i", "int32", "integer", "integer"),
    ("n", "int64", "long", "integer"),
    ("f", "float32", "float", "real"),
    ("x", "float64", "double", "real"),
    ("s", "string", "string", "text"),
    ("t", "timestamp", "timestamp", "text"),
    ("d", "date", "date", "text"),
];
const KEYS: u64 = 6;
const DAY_US: i64 = 86_400_000_000;

/// Key, time, then a value of each column.
type Row = Vec<ScalarValue>;

fn time(us: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))
}

/// A value that every kind can say: an empty text is null in CSV, and SQLite keeps neither NaN nor the sign of zero.
fn draw(random: &mut Random, dtype: &str) -> ScalarValue {
    let bits = random.draw();
    let is_sound = |number: f64| number.is_finite() && number != 0.0;
    match dtype {
        "bool" => ScalarValue::from(bits.is_multiple_of(2)),
        "int32" => ScalarValue::from(bits as i32),
        "int64" => ScalarValue::from(bits as i64 >> random.below(64)),
        "float32" => {
            let number = f32::from_bits(bits as u32);
            ScalarValue::from(if is_sound(number.into()) { number } else { 0.1 })
        }
        "float64" => {
            let number = f64::from_bits(bits);
            ScalarValue::from(if is_sound(number) { number } else { 0.1 })
        }
        "string" => {
            let letters = ['a', 'é', '"', '\'', ',', '\\', '\n', ' ', ';', '😀', '%', '{'];
            let text: String = (0..=random.below(6)).map(|_| random.pick(&letters)).collect();
            ScalarValue::from(text)
        }
        "timestamp" => time((bits % (300 * 365 * DAY_US as u64)) as i64 - 70 * 365 * DAY_US),
        "date" => ScalarValue::Date32(Some((bits % 200_000) as i32 - 30_000)),
        other => panic!("{other}"),
    }
}

/// Rows of which each has a time of its own, since the order of arrival is not the same for all kinds.
fn rows(random: &mut Random) -> Vec<Row> {
    let count = 10 + random.below(60);
    let mut row = |place: u64| {
        let at_us = START_US + (place as i64) * DAY_US / 4 + random.below(DAY_US as u64 / 4) as i64;
        let mut row = vec![ScalarValue::from(random.below(KEYS) as i64), time(at_us)];
        for (_, dtype, ..) in COLUMNS {
            let value = draw(random, dtype);
            let null = ScalarValue::try_new_null(&value.data_type()).unwrap();
            row.push(if random.below(5) == 0 { null } else { value });
        }
        row
    };
    let mut rows: Vec<Row> = (0..count).map(&mut row).collect();
    for place in (1..rows.len()).rev() {
        rows.swap(place, random.below(place as u64 + 1) as usize);
    }
    rows
}

fn columns() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    [("k", "int64", "long", "integer"), ("at", "timestamp", "timestamp", "text")].into_iter().chain(COLUMNS)
}

/// How a value is written in text of this kind; none where it is null.
fn text(value: &ScalarValue, kind: &str) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let quoted = |text: String| match kind {
        "csv" => format!("\"{}\"", text.replace('"', "\"\"")),
        "json" => serde_json::to_string(&text).unwrap(),
        _ => text,
    };
    Some(match value {
        ScalarValue::Boolean(Some(value)) => value.to_string(),
        ScalarValue::Float32(Some(value)) => format!("{value:?}"),
        ScalarValue::Float64(Some(value)) => format!("{value:?}"),
        ScalarValue::Utf8(Some(value)) => quoted(value.clone()),
        ScalarValue::TimestampMicrosecond(Some(us), _) => {
            let time = DateTime::from_timestamp_micros(*us).unwrap();
            quoted(time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
        ScalarValue::Date32(Some(days)) => {
            let time = DateTime::from_timestamp_micros(i64::from(*days) * DAY_US).unwrap();
            quoted(time.format("%Y-%m-%d").to_string())
        }
        number => number.to_string(),
    })
}

fn batch(rows: &[Row]) -> RecordBatch {
    let column = |(place, (name, ..)): (usize, (&'static str, &str, &str, &str))| {
        let values = rows.iter().map(|row| row[place].clone());
        (name, ScalarValue::iter_to_array(values).unwrap(), true)
    };
    RecordBatch::try_from_iter_with_nullable(columns().enumerate().map(column)).unwrap()
}

fn csv(rows: &[Row]) -> String {
    let header: Vec<&str> = columns().map(|(name, ..)| name).collect();
    let line = |row: &Row| {
        let cells: Vec<String> = row.iter().map(|value| text(value, "csv").unwrap_or_default()).collect();
        cells.join(",") + "\n"
    };
    header.join(",") + "\n" + &rows.iter().map(line).collect::<String>()
}

/// Null is left out or said.
fn json(random: &mut Random, rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        let entry = |((name, ..), value): ((&str, &str, &str, &str), &ScalarValue)| match text(value, "json")
        {
            Some(text) => Some(format!("\"{name}\": {text}")),
            None => (random.below(2) == 0).then(|| format!("\"{name}\": null")),
        };
        let entries: Vec<String> = columns().zip(row).filter_map(entry).collect();
        writeln!(lines, "{{{}}}", entries.join(", ")).unwrap();
    }
    lines
}

/// Writes the rows cut into parts anew, for each kind of files.
fn write_files(random: &mut Random, repository: &Repository, kind: &str, rows: &[Row]) {
    let mut rest = rows;
    let mut part = 0;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
        (rest, part) = (others, part + 1);
        let group_rows = 1 + random.below(20) as usize;
        match kind {
            "csv" => repository.write(format!("csv/{part}.csv"), csv(some)),
            "json" => repository.write(format!("json/{part}.json"), json(random, some)),
            "arrow" => {
                repository.write_arrow_in_batches(&format!("arrow/{part}.arrow"), &batch(some), group_rows)
            }
            kind => {
                repository.write_parquet_in_groups(
                    &format!("{kind}/{part}.parquet"),
                    &batch(some),
                    group_rows,
                );
                if kind == "delta" {
                    commit(repository, part);
                }
            }
        }
    }
}

/// What a table of Delta Lake says of its first commit, and of the file of each.
fn commit(repository: &Repository, part: usize) {
    let mut actions = format!(
        "{}\n",
        serde_json::json!({"add": {"path": format!("{part}.parquet"), "partitionValues": {}, "size": 1,
            "modificationTime": 5, "dataChange": true}})
    );
    if part == 1 {
        let field = |(name, _, dtype, _)| serde_json::json!({"name": name, "type": dtype, "nullable": true, "metadata": {}});
        let schema =
            serde_json::json!({"type": "struct", "fields": columns().map(field).collect::<Vec<_>>()});
        let protocol = serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
        let table = serde_json::json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": [], "configuration": {}, "createdTime": 0}});
        actions = format!("{protocol}\n{table}\n{actions}");
    }
    repository.write(format!("delta/_delta_log/{:020}.json", part - 1), actions);
}

/// Writes them into a table of SQLite: bound, since it reads a number in a text not always as the nearest.
async fn fill(database: &Database, rows: &[Row]) {
    let declared: Vec<String> = columns().map(|(name, _, _, dtype)| format!("{name} {dtype}")).collect();
    database.execute(&format!("CREATE TABLE t ({})", declared.join(", "))).await;
    let mut connection = SqliteConnection::connect(&database.address()).await.unwrap();
    for row in rows {
        let insert = format!("INSERT INTO t VALUES ({})", vec!["?"; row.len()].join(", "));
        let query = row.iter().fold(sqlx::query(AssertSqlSafe(insert)), |query, value| match value {
            ScalarValue::Boolean(value) => query.bind(*value),
            ScalarValue::Int32(value) => query.bind(*value),
            ScalarValue::Int64(value) => query.bind(*value),
            ScalarValue::Float32(value) => query.bind(value.map(f64::from)),
            ScalarValue::Float64(value) => query.bind(*value),
            other => query.bind(text(other, "sql")),
        });
        query.execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

fn definitions() -> String {
    let declared: Vec<String> =
        columns().map(|(name, dtype, ..)| format!("{{name: {name}, type: {dtype}}}")).collect();
    let features: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let source = |kind: &&str| {
        let batch = match *kind {
            "sql" => "format: sql, connection: shop, table: t, cursor: at".to_owned(),
            "delta" => "format: delta, path: delta".to_owned(),
            kind => format!("format: {kind}, path: {kind}"),
        };
        format!(
            "kind: Source\nname: {kind}\nbatch: {{{batch}}}\nevent_timestamp: at\ncolumns: [{}]\n---\n\
             kind: FeatureView\nname: latest_{kind}\nentities: [e]\nsource: {kind}\nfeatures: [{}]\n---\n\
             kind: FeatureView\nname: windows_{kind}\nentities: [e]\nsource: {kind}\naggregations:\n  \
             - {{name: sum, function: sum, of: x, windows: [3d, lifetime]}}\n  \
             - {{name: words, function: count_distinct, of: s, windows: [lifetime]}}\n---\n\
             kind: FeatureService\nname: {kind}\nfeatures: [latest_{kind}, windows_{kind}]\n---\n",
            declared.join(", "),
            features.join(", "),
        )
    };
    let sources: String = KINDS.iter().map(source).collect();
    format!("{sources}kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n")
}

fn check_is_same(one: &RecordBatch, other: &RecordBatch, kind: &str) {
    assert_eq!(one.schema().fields(), other.schema().fields());
    for (place, field) in one.schema().fields().iter().enumerate() {
        for row in 0..one.num_rows() {
            let value = |rows: &RecordBatch| rows.column(place).slice(row, 1).to_data();
            assert_eq!(
                value(one),
                value(other),
                "`{}` of row {row} as {kind}, beside {}",
                field.name(),
                KINDS[0]
            );
        }
    }
}

async fn check(random: &mut Random) {
    let rows = rows(random);
    let scratch = Repository::new("");
    let database = Database::sqlite(&scratch);
    fill(&database, &rows).await;
    let repository = Repository::new(&(database.connection() + &definitions()));
    for kind in KINDS.iter().filter(|kind| **kind != "sql") {
        write_files(random, &repository, kind, &rows);
    }
    let node = open(&repository).await;
    node.pull(NOW_US).unwrap();

    let asked: Vec<(i64, i64)> = (0..40)
        .map(|_| (random.below(KEYS + 1) as i64, START_US + random.below(30 * DAY_US as u64) as i64))
        .collect();
    let keys: ArrayRef = Arc::new(asked.iter().map(|(key, _)| *key).collect::<Int64Array>());
    let times = asked.iter().map(|(_, at_us)| *at_us);
    let at = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let spine: [(&str, ArrayRef); 2] = [("k", Arc::clone(&keys)), ("event_timestamp", Arc::new(at))];
    let spine = RecordBatch::try_from_iter(spine).unwrap();
    let mut first: Option<[RecordBatch; 2]> = None;
    for kind in KINDS {
        let service = node.service(kind);
        let trained = service.training_set(&spine, false);
        let served = service
            .look_up(service.inputs(vec![Arc::clone(&keys)]), vec![NOW_US; asked.len()])
            .await
            .unwrap();
        let found = [trained, served.vectors];
        let expected = first.get_or_insert_with(|| found.clone());
        for (one, other) in expected.iter().zip(&found) {
            check_is_same(one, other, kind);
        }
    }
}

#[test]
fn every_kind_of_source_has_the_same_bits() {
    let mut random = Random::new("kinds of sources");
    for _ in 0..quern_kit::cases(8) {
        runtime().block_on(check(&mut random));
    }
}
