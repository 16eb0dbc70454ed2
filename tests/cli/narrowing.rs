//! What becomes of a stored value that its column's type cannot say? It is null and counted where a feature reads it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::Float64Type;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use quern_kit::run;
use tempfile::TempDir;

use super::commands::{rows, say, words};
use super::failing::{check, materialized};

const DEFINITIONS: &str = "kind: Entity\nname: e\njoin_keys: [{name: k, type: KEY}]\n---\n\
    kind: Source\nname: s\nbatch: {format: parquet, path: rows}\nevent_timestamp: at\n\
    columns: [{name: money, type: int64}, {name: small, type: float32}, {name: many, type: \"list<float32>\"}]\n---\n\
    kind: FeatureView\nname: latest\nentities: [e]\nsource: s\nfeatures:\n  - big\n  - {name: money, STRICT}\n  - small\n  \
    - many\n  - {name: twice, expr: big * 2}\n  - {name: shielded, expr: \"coalesce(big, -1)\"}\n  - {name: n, expr: k}\n---\n\
    kind: FeatureView\nname: wheres\nentities: [e]\nsource: s\nwhere: big > 5\nfeatures: [{name: there, expr: k}]\n---\n\
    kind: FeatureView\nname: sums\nentities: [e]\nsource: s\naggregations:\n  \
    - {name: total, function: sum, of: big, windows: [lifetime]}\n  - {name: rows, function: count, windows: [lifetime]}\n---\n\
    kind: FeatureService\nname: svc\nfeatures: [latest, wheres, sums]\n";

/// 2026-01-01.
const AT_US: i64 = 1_767_225_600_000_000;

/// Of key 1 all is well, of each other key one column is beyond its type.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let keys = Int64Array::from_iter_values(1..=5);
    let big = UInt64Array::from(vec![7, u64::MAX, 7, 7, 7]);
    let money =
        Decimal128Array::from(vec![3, 3, 10_i128.pow(30), 3, 3]).with_precision_and_scale(38, 0).unwrap();
    let small = Float64Array::from(vec![0.5, 0.5, 0.5, 1e300, 0.5]);
    let many = |x: f64| Some(vec![Some(1.5), None, Some(x)]);
    let many = [1.0, 1.0, 1.0, 1.0, 1e300].map(many);
    let many = ListArray::from_iter_primitive::<Float64Type, _, _>(many);
    vec![
        ("k", Arc::new(keys)),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![AT_US; 5]).with_timezone("UTC"))),
        ("big", Arc::new(big)),
        ("money", Arc::new(money)),
        ("small", Arc::new(small)),
        ("many", Arc::new(many)),
    ]
}

fn folder(definitions: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("quern.yaml", "");
    write("definitions.yaml", definitions);
    let spine: String = (1..=5).map(|key| format!("{key},2026-02-01\n")).collect();
    write("spine.csv", &format!("k,event_timestamp\n{spine}"));
    fs::create_dir(folder.path().join("rows")).unwrap();
    // In one file all is well: its columns have the types of the source.
    let all = RecordBatch::try_from_iter(columns()).unwrap();
    write_parquet(folder.path(), "rows/a.parquet", &all.slice(0, 1));
    write_parquet(folder.path(), "rows/b.parquet", &all.slice(1, 4));
    run(folder.path(), &["apply"]).answer();
    folder
}

fn write_parquet(folder: &Path, name: &str, rows: &RecordBatch) {
    let file = fs::File::create(folder.join(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn definitions(key: &str, strict: bool) -> String {
    let strict = if strict { "strict: true" } else { "strict: false" };
    DEFINITIONS.replace("KEY", key).replace("STRICT", strict)
}

#[test]
fn a_stored_value_beyond_its_type_is_null_and_counted_where_it_is_read() {
    let folder = folder(&definitions("int64", false));
    let folder = folder.path();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 5 failed {"big":1,"many":1,"money":1,"small":1,"twice":1} refused 0 first {"big":"rows/b.parquet, row 1","many":"rows/b.parquet, row 4","money":"rows/b.parquet, row 2","small":"rows/b.parquet, row 3","twice":"rows/b.parquet, row 1"}
            "sums" written 5 failed {"total_lifetime":1} refused 0
            "wheres" written 4 failed {"where":1} refused 0
        "#]],
    );
    let trained = run(folder, &words("train svc --spine spine.csv --out set.parquet"));
    check(
        &trained.stderr,
        expect![[r#"
        warning: 1 value of `big` could not be computed
        warning: 1 value of `many` could not be computed
        warning: 1 value of `money` could not be computed
        warning: 1 value of `small` could not be computed
        warning: 1 value of `total_lifetime` could not be computed
        warning: 1 value of `twice` could not be computed
    "#]],
    );
    check(
        &rows(&folder.join("set.parquet")),
        expect![[r#"
        +---+----------------------+-----+-------+-------+--------------+-------+----------+---+-------+----------------+---------------+
        | k | event_timestamp      | big | money | small | many         | twice | shielded | n | there | total_lifetime | rows_lifetime |
        +---+----------------------+-----+-------+-------+--------------+-------+----------+---+-------+----------------+---------------+
        | 1 | 2026-02-01T00:00:00Z | 7   | 3     | 0.5   | [1.5, , 1.0] | 14    | 7        | 1 | 1     | 7              | 1             |
        | 2 | 2026-02-01T00:00:00Z |     | 3     | 0.5   | [1.5, , 1.0] |       | -1       | 2 |       |                | 1             |
        | 3 | 2026-02-01T00:00:00Z | 7   |       | 0.5   | [1.5, , 1.0] | 14    | 7        | 3 | 3     | 7              | 1             |
        | 4 | 2026-02-01T00:00:00Z | 7   | 3     |       | [1.5, , 1.0] | 14    | 7        | 4 | 4     | 7              | 1             |
        | 5 | 2026-02-01T00:00:00Z | 7   | 3     | 0.5   |              | 14    | 7        | 5 | 5     | 7              | 1             |
        +---+----------------------+-----+-------+-------+--------------+-------+----------+---+-------+----------------+---------------+
    "#]],
    );
    check(
        &say(folder, "get svc k=2 event_timestamp=2026-03-02T00:00:00Z"),
        expect![[r#"
        feature                  value  status      event timestamp
        k                            2  PRESENT
        big                       null  NULL_VALUE  2026-01-01T00:00:00Z
        money                        3  PRESENT     2026-01-01T00:00:00Z
        small                      0.5  PRESENT     2026-01-01T00:00:00Z
        many            [1.5,null,1.0]  PRESENT     2026-01-01T00:00:00Z
        twice                     null  NULL_VALUE  2026-01-01T00:00:00Z
        shielded                    -1  PRESENT     2026-01-01T00:00:00Z
        n                            2  PRESENT     2026-01-01T00:00:00Z
        there                     null  NOT_FOUND
        total_lifetime            null  NULL_VALUE
        rows_lifetime                1  PRESENT
    "#]],
    );
}

#[test]
fn of_a_strict_feature_it_is_an_error() {
    let folder = folder(&definitions("int64", true));
    let folder = folder.path();
    check(
        &materialized(folder),
        expect![[r#"
            "latest" written 4 failed {"big":1,"many":1,"money":1,"small":1,"twice":1} refused 1 first {"big":"rows/b.parquet, row 1","many":"rows/b.parquet, row 4","money":"rows/b.parquet, row 2","small":"rows/b.parquet, row 3","twice":"rows/b.parquet, row 1"}
            "sums" written 5 failed {"total_lifetime":1} refused 0
            "wheres" written 4 failed {"where":1} refused 0
            rows/b.parquet, row 2: `money` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
            exit 1
        "#]],
    );
    check(
        &say(folder, "train svc --spine spine.csv --out set.parquet"),
        expect![[r#"
        exit 1
        error: rows/b.parquet, row 2: `money` of feature view `latest` cannot be computed, and it is `strict`; mend the value, or shield the expression with `nullif`, `TRY_CAST` or `CASE`
    "#]],
    );
}

#[test]
fn of_a_join_key_it_is_an_error() {
    let folder = folder(&definitions("int32", false));
    let mut columns = columns();
    columns[0].1 = Arc::new(Int64Array::from_iter_values([1, 2, 3, 4, 1 << 40]));
    let all = RecordBatch::try_from_iter(columns).unwrap();
    write_parquet(folder.path(), "rows/b.parquet", &all);
    check(
        &say(folder.path(), "materialize --to 2026-03-01"),
        expect![[r#"
            exit 1
            error: `rows/b.parquet`: feature view `latest`, join key `k`: a value does not fit its type, or cannot be computed with; a log at `debug` quotes it
        "#]],
    );
    check(
        &say(folder.path(), "train svc --spine spine.csv --out set.parquet"),
        expect![[r#"
        exit 1
        error: `rows/b.parquet`: feature view `latest`, join key `k`: 1099511627776 is beyond int32
    "#]],
    );
}
