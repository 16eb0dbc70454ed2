//! A row is a batch of one: an expression says the same of a row alone, in a batch, and in any part of it, and fails
//! for the same rows.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use feature_defs::DefFile;
use proptest::collection::vec;
use proptest::prelude::*;
use quern_engine::schema::{arrow_type, timestamp};
use quern_engine::{Catalog, EngineError, Failed, Found, RowState, ServicePlan, SourceSchemas};

/// The columns that expressions read: features of one view.
const COLUMNS: [(&str, &str); 12] = [
    ("i", "int64"),
    ("j", "int32"),
    ("x", "float64"),
    ("y", "float64"),
    ("f", "float32"),
    ("s", "string"),
    ("t", "string"),
    ("b", "bool"),
    ("at", "timestamp"),
    ("day", "date"),
    ("w", "list<string>"),
    ("p", "list<bool, 2>"),
];

const EXPRESSIONS: [&str; 66] = [
    "10 / i",
    "i * i - j * j",
    "-i % j",
    "cast(s as bigint) + 1",
    "coalesce(10 / i, cast(s as bigint), -1)",
    "case when i > 0 then 10 / j else cast(t as bigint) end",
    "i > 0 and 10 / j > 1 or cast(s as bigint) = 1",
    "cast(x * 1e300 as float)",
    "sqrt(x) + ln(y)",
    "to_timestamp(s)",
    "chr(i * 100000)",
    "nullif(x, 0) = y or x in (0, 1, 2, 3, 4)",
    "x + y * 2 - f",
    "x / y",
    "i / j",
    "i % nullif(j, 0)",
    "i * j",
    "cast(x as bigint)",
    "cast(i as float) / 3",
    "abs(x) + sqrt(abs(y))",
    "exp(x / 100) + ln(abs(y) + 1)",
    "power(x, 2) - sin(y) * cos(x) + atan2(y, x)",
    "round(x, 2) + floor(y) - ceil(x)",
    "greatest(x, y, f) - least(x, y)",
    "coalesce(x, y, 0)",
    "coalesce(i, j, -1)",
    "nullif(i, 2)",
    "x is null and y is not null",
    "isnan(x) or y > 1",
    "case when j = 0 then null else i / j end",
    "case when x > y then 'x' when x < y then 'y' else s end",
    "case j when 0 then s when 1 then t else 'many' end",
    "j <> 0 and i / j > 1",
    "j = 0 or i / j > 1",
    "not b or x > 0",
    "i between -1 and j",
    "j in (0, 1, null)",
    "s = t",
    "s || '-' || t",
    "upper(s) || lower(t)",
    "length(s) + strpos(s, '2')",
    "substr(s, 2, 3)",
    "replace(trim(s), '1', 'one')",
    "s like '%2%' or t like 'a_long%'",
    "date_part('hour', at) + date_part('dow', day)",
    "date_trunc('hour', at)",
    "(date_part('epoch', event_timestamp) - date_part('epoch', at)) / 3600",
    "date_part('hour', at at time zone 'America/New_York')",
    "array_length(w)",
    "w[1] || w[-1]",
    "array_has(w, s) and not array_has(w, null)",
    "array_has_any(w, make_array('1', t)) or array_has_all(w, make_array(s))",
    "make_array(s, t, w[2])",
    "array_concat(w, make_array(s), string_to_array(t, ' '))",
    "array_to_string(w, ',')",
    "array_position(w, '1')",
    "array_append(array_remove(w, s), t)",
    "array_sort(array_distinct(w))",
    "w[1:2]",
    "coalesce(w, make_array(s))",
    "case when b then w else string_to_array(t, ' ') end",
    "p[1] and not p[2]",
    "array_has(p, b)",
    "make_array(b, p[1], x > 0)",
    "array_resize(w, 3, s)",
    "w = make_array(s) or w is null",
];

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let features: String = COLUMNS.iter().map(|(name, _)| format!("  - {name}\n")).collect();
    let mut text = format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: parquet, path: s.parquet}}\nevent_timestamp: at\n---\n\
         kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures:\n{features}"
    );
    for (number, sql) in EXPRESSIONS.iter().enumerate() {
        text += &format!(
            "---\nkind: FeatureService\nname: e{number:02}\nfeatures: [v]\nderived: [{{name: it, expr: \"{sql}\"}}]\n\
             outputs: [it]\n"
        );
    }
    let definitions = feature_defs::parse(&[DefFile::new("e.yaml", text)]).unwrap();
    let fields = COLUMNS.iter().chain(&[("k", "int64")]);
    let fields: Vec<_> =
        fields.map(|(name, dtype)| Field::new(*name, arrow_type(dtype.parse().unwrap()), true)).collect();
    let sources = SourceSchemas::from([("s".to_owned(), Arc::new(Schema::new(fields)))]);
    quern_engine::compile(definitions, &sources).unwrap()
});

fn value(dtype: &'static str) -> BoxedStrategy<ScalarValue> {
    let null = ScalarValue::try_new_null(&arrow_type(dtype.parse().unwrap())).unwrap();
    let float = || prop_oneof![4 => -1e3..1e3f64, 1 => prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, 1e300])];
    let some = match dtype {
        "int64" => prop_oneof![4 => -5i64..5, 1 => any::<i64>()].prop_map(ScalarValue::from).boxed(),
        "int32" => (-2i32..4).prop_map(ScalarValue::from).boxed(),
        "float64" => float().prop_map(ScalarValue::from).boxed(),
        "float32" => float().prop_map(|x| ScalarValue::from(x as f32)).boxed(),
        "bool" => any::<bool>().prop_map(ScalarValue::from).boxed(),
        "string" => prop::sample::select(vec!["", "1", "23", " pad ", "é\0x", "a long piece of text"])
            .prop_map(ScalarValue::from)
            .boxed(),
        "timestamp" => (-4_000_000_000_000_000i64..4_000_000_000_000_000)
            .prop_map(|us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
            .boxed(),
        "list<string>" => vec(value("string"), 0..4)
            .prop_map(|items| ScalarValue::List(ScalarValue::new_list(&items, &DataType::Utf8, true)))
            .boxed(),
        "list<bool, 2>" => {
            let fixed = |items: Vec<ScalarValue>| {
                let list = ScalarValue::List(ScalarValue::new_list(&items, &DataType::Boolean, true));
                list.cast_to(&arrow_type("list<bool, 2>".parse().unwrap())).unwrap()
            };
            vec(value("bool"), 2).prop_map(fixed).boxed()
        }
        _ => (-40_000i32..40_000).prop_map(|days| ScalarValue::Date32(Some(days))).boxed(),
    };
    prop_oneof![5 => some, 1 => Just(null)].boxed()
}

/// Rows of the view's features, all of them found.
fn rows() -> impl Strategy<Value = Vec<Vec<ScalarValue>>> {
    vec(COLUMNS.map(|(_, dtype)| value(dtype)).to_vec(), 1..40)
}

fn columns(rows: &[Vec<ScalarValue>]) -> Vec<ArrayRef> {
    let column =
        |place: usize| ScalarValue::iter_to_array(rows.iter().map(|row| row[place].clone())).unwrap();
    (0..COLUMNS.len()).map(column).collect()
}

/// What the expression says of `rows` from `start` on, and how many of them failed.
fn evaluate(
    service: &ServicePlan,
    columns: &[ArrayRef],
    start: usize,
    rows: usize,
) -> Result<(ArrayRef, u64), EngineError> {
    let keys: ArrayRef = arrow::array::new_null_array(&DataType::Int64, rows);
    let inputs = RecordBatch::try_new(Arc::clone(&service.inputs), vec![keys]).unwrap();
    let times =
        TimestampMicrosecondArray::from_iter_values((start..start + rows).map(|row| row as i64 * 1_500_000));
    let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
    assert_eq!(*times.data_type(), timestamp());
    let found = Found {
        columns: columns.iter().map(|column| column.slice(start, rows)).collect(),
        states: vec![RowState::Present; rows],
        event_timestamps: vec![0; rows],
        absent: Vec::new(),
        failed: Failed::default(),
    };
    let mut failed = Failed::default();
    let vectors = service.finish(&inputs, &times, &[found], &mut failed)?;
    Ok((Arc::clone(vectors.column(0)), failed.iter().map(|(_, rows)| rows).sum()))
}

fn check(rows: &[Vec<ScalarValue>], part: usize) -> Result<(), TestCaseError> {
    let columns = columns(rows);
    for (sql, service) in EXPRESSIONS.iter().zip(CATALOG.services.values()) {
        let (whole, failed) = evaluate(service, &columns, 0, rows.len()).unwrap();
        for size in [1, part] {
            let mut failed_apart = 0;
            for start in (0..rows.len()).step_by(size) {
                let size = size.min(rows.len() - start);
                let (found, lost) = evaluate(service, &columns, start, size).unwrap();
                let expected = whole.slice(start, size);
                prop_assert_eq!(found.to_data(), expected.to_data(), "{}, row {}", sql, start);
                failed_apart += lost;
            }
            prop_assert_eq!(failed, failed_apart, "{}, in parts of {}", sql, size);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: quern_kit::cases(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_row_alone_has_the_value_that_it_has_in_a_batch(rows in rows(), part in 2usize..20) {
        check(&rows, part)?;
    }
}
