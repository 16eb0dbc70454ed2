//! Which columns a view reads, under which id its rows are stored, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use expect_test::{Expect, expect};
use feature_defs::{DefError, DefFile, Literal};

use crate::schema::{timestamp, type_name};
use crate::{Catalog, Condition, SourceSchemas};

/// Views of entity `e` over source `s`, whose columns are those of [`source`].
const BASE: &str = "
kind: Entity
name: e
join_keys: [{name: k, type: int64}]
---
kind: Source
name: s
batch: {format: parquet, path: s.parquet}
event_timestamp: at
created_timestamp: known_at
event_id: [n]
---
kind: FeatureView
name: v
entities: [e]
source: s
";

fn source() -> Schema {
    let columns = [
        ("zone", DataType::Utf8),
        ("k", DataType::Int64),
        ("at", timestamp()),
        ("known_at", timestamp()),
        ("n", DataType::Int64),
        ("x", DataType::Float64),
        ("y", DataType::Float64),
        ("i", DataType::Int32),
        ("s", DataType::Utf8),
        ("l", DataType::new_list(DataType::Float32, true)),
    ];
    Schema::new(columns.map(|(name, dtype)| Field::new(name, dtype, true)).to_vec())
}

fn compile(text: &str) -> Result<Catalog, Vec<DefError>> {
    let files = [DefFile::new("v.yaml", format!("{BASE}{text}"))];
    let definitions = feature_defs::parse(&files).expect("only the engine finds what is wrong");
    let sources = SourceSchemas::from([("s".to_owned(), Arc::new(source()))]);
    crate::compile(definitions, &sources)
}

fn check(text: &str, expected: Expect) {
    let said = match compile(text) {
        Ok(catalog) => {
            let view = &catalog.views["v"];
            let features = view.features.fields().iter();
            let features = features.map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            format!(
                "id {:016x}\nstamps {}\nrows {}\nfeatures {}",
                view.id.0,
                view.stamp_columns().join(" "),
                view.row_columns().join(" "),
                features.collect::<Vec<_>>().join(", ")
            )
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&said);
}

#[test]
fn a_view_reads_the_columns_that_its_expressions_name() {
    check(
        "features: [x]",
        expect![[r#"
            id 07dea76bc5d13d74
            stamps k at known_at
            rows x
            features x float64"#]],
    );
    check(
        "where: y > 0 and i = 1\nfeatures: [{name: a, expr: y + x}, {name: b, expr: i, type: int64}]",
        expect![[r#"
            id 4cb76ab6aef20bf4
            stamps k at known_at y i
            rows x y i
            features a float64, b int64"#]],
    );
    check(
        "where: at is not null\nfeatures: [s, {name: a, expr: \"coalesce(s, zone)\"}]",
        expect![[r#"
            id 2a7341c5cf660e81
            stamps k at known_at
            rows zone s
            features s string, a string"#]],
    );
    check(
        "where: 1 = 1\nfeatures: [{name: one, expr: '1'}]",
        expect![[r#"
            id 65b10be98a1da218
            stamps k at known_at
            rows at
            features one int64"#]],
    );
    check(
        "features: [{name: a, expr: \"l[i] + x\"}, {name: b, expr: zone}]",
        expect![[r#"
            id 7d0e4d45c3a6be3e
            stamps k at known_at
            rows zone x i l
            features a float64, b string"#]],
    );
}

#[test]
fn windows_read_the_columns_that_their_parts_name() {
    check(
        "where: y > 0\naggregations:\n\
         - {name: a, function: sum, of: x * 2, where: i > 1, windows: [1h, 7d]}\n\
         - {name: b, function: last_n, n: 2, of: y, windows: [lifetime]}\n\
         - {name: c, function: avg, of: x, buckets: s, windows: [1h]}",
        expect![[r#"
            id f9447782a0aed6d5
            stamps k at known_at y
            rows n x y i s
            features a_1h float64, a_7d float64, b_lifetime list<float64>, c_1h map<string, float64>"#]],
    );
    check(
        "aggregations: [{name: a, function: count, windows: [1h]}]",
        expect![[r#"
            id 0c8c25febe7f060c
            stamps k at known_at
            rows n
            features a_1h int64"#]],
    );
}

/// Folding constants drops a column that the expression names: it is read all the same.
#[test]
fn a_column_that_cannot_matter_may_be_named() {
    check(
        "where: x > 0 OR 1 = 1\nfeatures: [{name: a, expr: 'coalesce(0, i)'}]",
        expect![[r#"
            id 4db9040c1c2b600a
            stamps k at known_at x
            rows i
            features a int64"#]],
    );
    check(
        "aggregations: [{name: a, function: sum, of: 'coalesce(0, i)', windows: [1h]}]",
        expect![[r#"
            id 7621779214eca52e
            stamps k at known_at
            rows n i
            features a_1h int64"#]],
    );
    expect!["x float64, y float64, s string, a float64, b float64"]
        .assert_eq(&derived("{name: a, expr: 'coalesce(0, x)'}, {name: b, expr: a + 1}"));
}

#[test]
fn all_mistakes_are_found_at_once() {
    check(
        "where: yy > 0\nfeatures: [{name: a, expr: x + s}, {name: b, expr: xx}, {name: c, expr: s, type: int64}]",
        expect![[r#"
            v.yaml:17:8: `yy > 0` names unknown column `yy`
              help: known: at, i, k, known_at, l, n, s, x, y, zone; text stands in single quotes: 'text'
            v.yaml:18:28: `x + s`: Cannot coerce arithmetic expression float64 + string to valid types
              help: cast one side, as in `CAST(s AS DOUBLE)`
            v.yaml:18:52: `xx` names unknown column `xx`
              help: known: at, i, k, known_at, l, n, s, x, y, zone; text stands in single quotes: 'text'
            v.yaml:18:73: declared type int64, but `s` is string
              help: change `type`, or cast in the expression"#]],
    );
    check(
        "where: x\nfeatures: [{name: a, expr: now()}, {name: b, expr: x +}]",
        expect![[r#"
        v.yaml:17:8: a filter must be bool, but `x` is float64
          help: compare something: `column > 0`, `column is not null`
        v.yaml:18:28: `now()` gives another value each time it is asked, so training and serving would differ
          help: time is an input: use `event_timestamp`, or declare a request column for it
        v.yaml:18:52: `x +`: Expected: an expression, found: EOF"#]],
    );
    check(
        "aggregations:\n\
         - {name: a, function: sum, of: s, where: xx > 1, windows: [1h]}\n\
         - {name: b, function: avg, of: l, windows: [1h]}\n\
         - {name: c, function: any, of: x, windows: [1h]}\n\
         - {name: d, function: top_n_by, n: 2, by: s, of: x, windows: [1h]}",
        expect![[r#"
            v.yaml:18:42: `xx > 1` names unknown column `xx`
              help: known: at, i, k, known_at, l, n, s, x, y, zone; text stands in single quotes: 'text'
            v.yaml:19:32: `avg` needs numbers, but `of` is list<float32>
              help: cast it within `of`, or take another function
            v.yaml:20:32: `any` needs true or false, but `of` is float64
              help: cast it within `of`, or take another function
            v.yaml:21:43: `by` must be a number or a time, but it is string
              help: cast it within `by`"#]],
    );
}

/// The outputs of a service with these derived features.
fn derived(list: &str) -> String {
    let text = format!(
        "features: [x, y, s]\n---\nkind: FeatureService\nname: f\nfeatures: [v]\nderived: [{list}]\n"
    );
    match compile(&text) {
        Ok(catalog) => {
            let outputs = catalog.services["f"].outputs.fields().iter();
            let outputs = outputs.map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            outputs.collect::<Vec<_>>().join(", ")
        }
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn derived_features_are_found_in_any_order() {
    expect!["x float64, y float64, s string, a float64, b float64, c float32"].assert_eq(&derived(
        "{name: a, expr: b + c}, {name: b, expr: x + k}, {name: c, expr: b - 1, type: float32}",
    ));
    expect![[r#"
        v.yaml:22:47: derived features form a cycle: b → c → b
          help: compute one of them from other columns"#]]
    .assert_eq(&derived("{name: a, expr: b}, {name: b, expr: c}, {name: c, expr: b}"));
    expect![[r#"
        v.yaml:22:47: `x + s`: Cannot coerce arithmetic expression float64 + string to valid types
          help: cast one side, as in `CAST(s AS DOUBLE)`
        v.yaml:22:71: `z` names unknown column `z`
          help: known: event_timestamp, k, s, x, y; text stands in single quotes: 'text'
        v.yaml:22:91: declared type string, but `x` is float64
          help: change `type`, or cast in the expression"#]]
    .assert_eq(&derived(
        "{name: a, expr: b}, {name: b, expr: x + s}, {name: c, expr: z}, {name: d, expr: x, type: string}",
    ));
}

#[test]
fn a_default_is_a_value_of_the_type_that_was_inferred() {
    check(
        "features: [{name: x, default: abc}, {name: i, default: 1.5}, {name: s, default: 7}, {name: l, default: [0, a]}, \
         {name: at, default: soon}, {name: k, default: 99999999999999999999}]",
        expect![[r#"
            v.yaml:17:19: `default` of `x`, which is float64, must be a finite number; found "abc"
            v.yaml:17:44: `default` of `i`, which is int32, must be a whole number of 32 bits; found 1.5
            v.yaml:17:69: `default` of `s`, which is string, must be a text (quote it); found 7
            v.yaml:17:92: `default` of `l`, which is list<float32>, must be a list of which each item is a finite number in the range of `float32`, and item 2 is "a"; found a list
            v.yaml:17:120: `default` of `at`, which is timestamp, must be a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970; found "soon"
            v.yaml:17:147: `default` of `k`, which is int64, must be a whole number of 64 bits; found 1e20"#]],
    );
    check(
        "features: [{name: b, expr: x > 0, default: 7}, {name: i, default: 2147483648}, {name: d, expr: \
         'CAST(at AS DATE)', default: '2013-02-29'}, {name: z, expr: 'CAST(s AS BYTEA)', default: a}]",
        expect![[r#"
            v.yaml:17:19: `default` of `b`, which is bool, must be `true` or `false`; found 7
            v.yaml:17:55: `default` of `i`, which is int32, must be a whole number of 32 bits; found 2147483648
            v.yaml:17:87: `default` of `d`, which is date, must be a date such as `2013-01-31`; found "2013-02-29"
            v.yaml:17:147: `default` of `z`, which is bytes, must be left out: `bytes` has no default; found "a""#]],
    );
    check(
        "aggregations:\n\
         - {name: a, function: sum, of: i, windows: [1h, 1d], default: none}\n\
         - {name: b, function: any, of: x > 0, windows: [1h], default: 0}\n\
         - {name: c, function: last, of: at, windows: [1h], default: nonsense}\n\
         - {name: d, function: count_distinct, of: s, windows: [1h], default: 1.5}",
        expect![[r#"
            v.yaml:18:10: `default` of `a`, which is int64, must be a whole number of 64 bits; found "none"
            v.yaml:19:10: `default` of `b`, which is bool, must be `true` or `false`; found 0
            v.yaml:20:10: `default` of `c`, which is timestamp, must be a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970; found "nonsense"
            v.yaml:21:10: `default` of `d`, which is int64, must be a whole number of 64 bits; found 1.5"#]],
    );
    let defaults = |text: &str| compile(text).expect("sound").views["v"].defaults.clone();
    // A whole number is a fraction too.
    assert_eq!(
        defaults("features: [{name: x, default: 0}, {name: s, default: a}, y]"),
        [Some(Literal::Float(0.0)), Some(Literal::String("a".to_owned())), None]
    );
    let of_windows = "aggregations: [{name: a, function: avg, of: i, windows: [1h, 1d], default: 1}]";
    assert_eq!(defaults(of_windows), [Some(Literal::Float(1.0)), Some(Literal::Float(1.0))]);
    expect![[r#"
        v.yaml:22:18: `default` of `a`, which is bool, must be `true` or `false`; found 7
        v.yaml:22:54: `default` of `b`, which is int32, must be a whole number of 32 bits; found "abc""#]]
    .assert_eq(&derived("{name: a, expr: x > 0, default: 7}, {name: b, expr: 'length(s)', default: abc}"));
}

#[test]
fn an_event_that_is_left_out_is_named_by_columns_of_its_own_types() {
    const WINDOWS: &str = "aggregations: [{name: a, function: count, windows: [1h]}]";
    let said = |view: &str, request: &str, exclude: &str| {
        let text = format!(
            "{view}\n---\nkind: FeatureService\nname: f\nrequest: [{request}]\n\
             features: [{{view: v, exclude_event: {exclude}}}]\n"
        );
        match compile(&text) {
            Ok(catalog) => format!("{:?}", catalog.services["f"].lookups[0].exclude_event),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    };
    let id = "{name: about, type: int64}";
    assert_eq!(said(WINDOWS, id, "about"), "Some([1])");
    assert_eq!(said(WINDOWS, id, "[k]"), "Some([0])");
    let wrong = [
        said("features: [x]", id, "about"),
        said(WINDOWS, id, "[about, k]"),
        said(WINDOWS, id, "abuot"),
        said(WINDOWS, "{name: about, type: string}", "about"),
    ];
    expect![[r#"
        v.yaml:22:37: `exclude_event` leaves an event out of windows, and feature view `v` has none
          help: `at: before` in the view leaves out the row of the very query time
        v.yaml:22:38: the `event_id` of source `s` is `n`
          help: `exclude_event` names as many columns, in that order; here are 2
        v.yaml:22:37: `exclude_event` names `abuot`, which is neither a request column nor a join key
          help: did you mean `about`? known: about, k
        v.yaml:22:37: column `about` is string, and `n` in the `event_id` of source `s` is int64
          help: declare it as int64"#]]
    .assert_eq(&wrong.join("\n"));
}

/// By the columns of each condition of a `where`, which of three rows it leaves out, as crosses.
fn left_out(filter: &str) -> BTreeMap<String, String> {
    let zones: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), Some("us"), None]));
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(-1.0), None]));
    let rows = [("zone", zones, true), ("y", numbers, true)];
    let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
    let catalog = compile(&format!("where: {filter}\nfeatures: [x]")).unwrap();
    let marks = |condition: &Condition| {
        let columns = condition.columns();
        let places: Vec<usize> = columns.iter().map(|name| rows.schema().index_of(name).unwrap()).collect();
        let left_out = condition.leaves_out(&rows.project(&places).unwrap()).into_iter();
        (columns.join(" "), left_out.map(|is_out| if is_out { 'x' } else { '.' }).collect())
    };
    catalog.views["v"].conditions().iter().map(marks).collect()
}

fn marked(marks: &[(&str, &str)]) -> BTreeMap<String, String> {
    marks.iter().map(|(columns, marks)| ((*columns).to_owned(), (*marks).to_owned())).collect()
}

/// What is false leaves a row out, whatever stands beside it; what is null may stand beside what fails.
#[test]
fn a_condition_leaves_out_rows_of_which_it_alone_is_known() {
    assert_eq!(left_out("zone = '7'"), marked(&[("zone", ".xx")]));
    let both = left_out("zone = '7' AND y > 0");
    assert_eq!(both, marked(&[("zone", ".x."), ("y", ".x."), ("zone y", ".xx")]));
    assert_eq!(left_out("zone = '7' OR y > 0"), marked(&[("zone y", ".xx")]));
    assert_eq!(left_out("zone IS NOT NULL"), marked(&[("zone", "..x")]));
    assert_eq!(left_out("at IS NULL OR 1 = 1"), marked(&[]));
}

/// Whoever reads the rows is told what fails.
#[test]
fn what_fails_leaves_out_nothing() {
    assert_eq!(left_out("CAST(zone AS BIGINT) > 8"), marked(&[("zone", "x.x")]));
    let beside = left_out("y < 0 AND CAST(zone AS BIGINT) > 6");
    assert_eq!(beside, marked(&[("y", "x.."), ("zone", "..."), ("zone y", "x.x")]));
}
