//! The reference evaluation, against the simplest code that could be right.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, Float32Array, Float64Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Schema, i256};
use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::expr::{Evaluated, Expression, Mistake, Written};
use crate::schema::type_name;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn compile(sql: &str, schema: &Schema) -> Result<Expression, Mistake> {
    Written::parse(sql, schema).and_then(|written| written.compile(schema, None))
}

fn evaluate(sql: &str, rows: &RecordBatch) -> Evaluated {
    let expression = compile(sql, &rows.schema()).unwrap_or_else(|mistake| panic!("{sql}: {mistake:?}"));
    expression.evaluate(rows, &|| sql.to_owned()).unwrap()
}

/// Columns `a`, `b`, `i` and `j` of a row.
type Numbers = (Option<i64>, Option<i64>, Option<i32>, Option<i32>);

/// Numbers at which something happens, and others.
fn whole() -> impl Strategy<Value = Option<i64>> {
    let special = vec![0, 1, -1, 2, 7, i64::MAX, i64::MIN, i64::MAX - 1, i32::MAX.into(), i32::MIN.into()];
    prop_oneof![5 => prop::sample::select(special).prop_map(Some), 3 => any::<i64>().prop_map(Some), 1 => Just(None)]
}

fn narrow() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![3 => prop::sample::select(vec![0, 1, -1, i32::MAX, i32::MIN]).prop_map(Some), 2 => any::<i32>().prop_map(Some), 1 => Just(None)]
}

fn float() -> impl Strategy<Value = Option<f64>> {
    let special = vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e300,
        f64::MIN_POSITIVE,
    ];
    prop_oneof![6 => prop::sample::select(special).prop_map(Some), 2 => any::<f64>().prop_map(Some), 1 => Just(None)]
}

/// What a sum in numbers without an end says, where 64 bits hold it.
fn reckon(operator: &str, a: i128, b: i128) -> Option<i64> {
    let exact = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" if b != 0 => a / b,
        "%" if b != 0 => a % b,
        _ => return None,
    };
    i64::try_from(exact).ok()
}

/// As documented: one zero, and one NaN above all other numbers.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Greater,
        (false, true) => std::cmp::Ordering::Less,
        (false, false) => a.partial_cmp(&b).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// A decimal as a float is the float of its text.
    #[test]
    fn decimals_as_floats(digits in vec(any::<i128>(), 1..40), small in vec(any::<i32>(), 1..40), scale in 0_i8..38) {
        let digits = digits.into_iter().map(|d| d % 10_i128.pow(38)).chain(small.into_iter().map(i128::from));
        let decimals = Decimal128Array::from_iter_values(digits).with_precision_and_scale(38, scale).unwrap();
        let texts: Vec<f64> = (0..decimals.len()).map(|row| decimals.value_as_string(row).parse().unwrap()).collect();
        let table = batch(vec![("d", Arc::new(decimals))]);
        let found = evaluate("CAST(d AS DOUBLE)", &table);
        let expected: ArrayRef = Arc::new(Float64Array::from(texts));
        prop_assert_eq!(&found.values, &expected);
    }

    /// Whole numbers of any width: in 64 bits, null and counted beyond.
    #[test]
    fn whole_numbers(rows in vec((whole(), whole(), narrow(), narrow()), 1..30)) {
        let big = |pick: fn(&Numbers) -> Option<i64>| -> ArrayRef {
            Arc::new(rows.iter().map(pick).collect::<Int64Array>())
        };
        let small = |pick: fn(&Numbers) -> Option<i32>| -> ArrayRef {
            Arc::new(rows.iter().map(pick).collect::<Int32Array>())
        };
        let table = batch(vec![("a", big(|r| r.0)), ("b", big(|r| r.1)), ("i", small(|r| r.2)), ("j", small(|r| r.3))]);
        for operator in ["+", "-", "*", "/", "%"] {
            for (left, right) in [("a", "b"), ("i", "j"), ("a", "j"), ("i", "b")] {
                let sql = format!("{left} {operator} {right}");
                let number = |name: &str, row: &Numbers| match name {
                    "a" => row.0.map(i128::from),
                    "b" => row.1.map(i128::from),
                    "i" => row.2.map(i128::from),
                    _ => row.3.map(i128::from),
                };
                let (mut values, mut failed) = (Vec::new(), Vec::new());
                for (place, row) in rows.iter().enumerate() {
                    let both = number(left, row).zip(number(right, row));
                    let value = both.and_then(|(a, b)| reckon(operator, a, b));
                    if both.is_some() && value.is_none() {
                        failed.push(place as u32);
                    }
                    values.push(value);
                }
                let found = evaluate(&sql, &table);
                let expected: ArrayRef = Arc::new(Int64Array::from(values));
                prop_assert_eq!(&found.values, &expected, "{}", sql);
                prop_assert_eq!(&found.failed, &failed, "{}", sql);
            }
        }
        let found = evaluate("-a", &table);
        let expected: ArrayRef = Arc::new(rows.iter().map(|row| row.0.and_then(i64::checked_neg)).collect::<Int64Array>());
        prop_assert_eq!(&found.values, &expected);
        let found = evaluate("-i", &table);
        let expected: ArrayRef = Arc::new(rows.iter().map(|row| row.2.map(|i| -i64::from(i))).collect::<Int64Array>());
        prop_assert_eq!(&found.values, &expected);
    }

    /// Floats: one rule of equality and order, wherever two are compared.
    #[test]
    fn floats_are_compared_by_one_rule(rows in vec((float(), float()), 1..30)) {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let x: Float64Array = rows.iter().map(|row| row.0).collect();
        let y: Float64Array = rows.iter().map(|row| row.1).collect();
        let table = batch(vec![("x", Arc::new(x)), ("y", Arc::new(y))]);
        let compared = |truth: &dyn Fn(std::cmp::Ordering) -> bool| -> ArrayRef {
            let each = rows.iter().map(|row| row.0.zip(row.1).map(|(x, y)| truth(order(x, y))));
            Arc::new(each.collect::<BooleanArray>())
        };
        for (sql, truth) in [
            ("x = y", (&|o| o == Equal) as &dyn Fn(std::cmp::Ordering) -> bool),
            ("x <> y", &|o| o != Equal),
            ("x < y", &|o| o == Less),
            ("x <= y", &|o| o != Greater),
            ("x > y", &|o| o == Greater),
            ("x >= y", &|o| o != Less),
            ("NOT (x = y)", &|o| o != Equal),
            ("CASE WHEN x IS NULL OR y IS NULL THEN NULL ELSE x BETWEEN y AND y END", &|o| o == Equal),
        ] {
            prop_assert_eq!(&evaluate(sql, &table).values, &compared(truth), "{}", sql);
        }
        let each = |truth: &dyn Fn(Option<f64>, Option<f64>) -> Option<bool>| -> ArrayRef {
            Arc::new(rows.iter().map(|row| truth(row.0, row.1)).collect::<BooleanArray>())
        };
        let zero = |x: f64| x == 0.0;
        let listed = |x: f64| [0.0, 1.0, 2.5, 1e300].contains(&x) || x.is_nan();
        for (sql, truth) in [
            ("x IN (0)", (&|x: Option<f64>, _| x.map(zero)) as &dyn Fn(Option<f64>, Option<f64>) -> Option<bool>),
            ("x IN (0.0, 1.0, 2.5, 1e300, CAST('NaN' AS DOUBLE))", &|x, _| x.map(listed)),
            ("x NOT IN (-0.0, 1.0, 2.5, 1e300, CAST('NaN' AS DOUBLE))", &|x, _| x.map(|x| !listed(x))),
            ("CASE x WHEN 0 THEN true ELSE false END", &|x, _| Some(x.is_some_and(zero))),
            ("nullif(x, 0) IS NULL", &|x, _| Some(x.is_none_or(zero))),
            ("nullif(x, y) IS NULL", &|x, y| {
                Some(x.is_none_or(|x| y.is_some_and(|y| order(x, y) == Equal)))
            }),
            ("x IS DISTINCT FROM y", &|x, y| {
                Some(match (x, y) {
                    (Some(x), Some(y)) => order(x, y) != Equal,
                    (x, y) => x.is_some() != y.is_some(),
                })
            }),
            ("array_has(make_array(x), 0.0)", &|x, _| Some(x.is_some_and(zero))),
        ] {
            prop_assert_eq!(&evaluate(sql, &table).values, &each(truth), "{}", sql);
        }
        let greatest = evaluate("greatest(x, y)", &table).values;
        for (row, (x, y)) in rows.iter().enumerate() {
            let said = array_value_to_string(&greatest, row).unwrap();
            if x.is_some_and(f64::is_nan) || y.is_some_and(f64::is_nan) {
                prop_assert_eq!(said, "NaN");
            }
        }
    }

    /// Casts: what the type cannot say is null, and counted; a fraction is cut off.
    #[test]
    fn casts(rows in vec((float(), whole()), 1..30)) {
        let x: Float64Array = rows.iter().map(|row| row.0).collect();
        let a: Int64Array = rows.iter().map(|row| row.1).collect();
        let table = batch(vec![("x", Arc::new(x)), ("a", Arc::new(a))]);
        let check = |sql: &str, expected: ArrayRef, lost: &dyn Fn(usize) -> bool| -> Result<(), TestCaseError> {
            let found = evaluate(sql, &table);
            prop_assert_eq!(&found.values, &expected, "{}", sql);
            let failed: Vec<u32> = (0..rows.len()).filter(|row| lost(*row)).map(|row| row as u32).collect();
            prop_assert_eq!(&found.failed, &failed, "{}", sql);
            Ok(())
        };
        let to_whole = |x: f64| (x.trunc() >= -(2f64.powi(63)) && x.trunc() < 2f64.powi(63)).then_some(x as i64);
        let numbers: Int64Array = rows.iter().map(|row| row.0.and_then(to_whole)).collect();
        let is_lost = |row: usize| rows[row].0.is_some_and(|x| to_whole(x).is_none());
        check("CAST(x AS BIGINT)", Arc::new(numbers.clone()), &is_lost)?;
        check("TRY_CAST(x AS BIGINT)", Arc::new(numbers), &|_| false)?;
        let to_float = |x: f64| ((x as f32).is_finite() || !x.is_finite()).then_some(x as f32);
        let floats: Float32Array = rows.iter().map(|row| row.0.and_then(to_float)).collect();
        let is_lost = |row: usize| rows[row].0.is_some_and(|x| to_float(x).is_none());
        let found = evaluate("CAST(x AS FLOAT)", &table);
        let bits = |column: &ArrayRef| format!("{column:?}");
        prop_assert_eq!(bits(&found.values), bits(&(Arc::new(floats) as ArrayRef)));
        prop_assert_eq!(found.failed, (0..rows.len() as u32).filter(|row| is_lost(*row as usize)).collect::<Vec<_>>());
        let ints: Int32Array = rows.iter().map(|row| row.1.and_then(|a| i32::try_from(a).ok())).collect();
        check("CAST(a AS INT)", Arc::new(ints), &|row| rows[row].1.is_some_and(|a| i32::try_from(a).is_err()))?;
    }
}

/// A row for each case: what guards a division, and what fails.
fn table() -> RecordBatch {
    batch(vec![
        ("i", Arc::new(Int64Array::from(vec![Some(7), Some(0), None]))),
        ("j", Arc::new(Int32Array::from(vec![i32::MAX, i32::MIN, 5]))),
        ("x", Arc::new(Float64Array::from(vec![-0.0, f64::NAN, -4.0]))),
        ("s", Arc::new(StringArray::from(vec![Some("12"), Some("abc"), None]))),
        (
            "t",
            Arc::new(
                TimestampMicrosecondArray::from(vec![253_402_214_400_000_000, -1, 0]).with_timezone("UTC"),
            ),
        ),
        ("b", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"abc"), Some(b"\xff"), Some(b"zz")]))),
        ("d", Arc::new(big_decimals())),
        ("n", new_null_array(&DataType::Int64, 3)),
    ])
}

/// The second is beyond 64 bits.
fn big_decimals() -> Decimal256Array {
    let values = ["175", "9999999999999999999900", "200"].map(|digits| i256::from_string(digits).unwrap());
    Decimal256Array::from_iter_values(values).with_precision_and_scale(50, 2).unwrap()
}

/// The values, the rows that failed, and the type; or what is wrong.
fn check(sql: &str, expected: Expect) {
    let table = table();
    let said = match compile(sql, &table.schema()) {
        Ok(expression) => {
            let found = expression.evaluate(&table, &|| sql.to_owned()).unwrap();
            let value = |row| match array_value_to_string(&found.values, row).unwrap() {
                text if text.is_empty() => "null".to_owned(),
                text => text,
            };
            let values: Vec<String> = (0..3).map(value).collect();
            format!("{} {}, failed {:?}", type_name(expression.dtype()), values.join(" "), found.failed)
        }
        Err(Mistake { cause, .. }) => cause,
    };
    expected.assert_eq(&said);
}

/// What a guard keeps from being computed does not fail.
#[test]
fn failures_that_nobody_sees_do_not_count() {
    check("10 / i", expect!["int64 1 null null, failed [1]"]);
    check("CASE WHEN i <> 0 THEN 10 / i ELSE -1 END", expect!["int64 1 -1 -1, failed []"]);
    check("CASE WHEN i <> 0 THEN 10 / i END", expect!["int64 1 null null, failed []"]);
    check("i <> 0 AND 10 / i > 1", expect!["bool false false null, failed []"]);
    check("i = 0 OR 10 / i > 1", expect!["bool false true null, failed []"]);
    check("coalesce(10 / i, -1)", expect!["int64 1 -1 -1, failed []"]);
    check("coalesce(i, 10 / i)", expect!["int64 7 0 null, failed []"]);
    check("10 / nullif(i, 0)", expect!["int64 1 null null, failed []"]);
    check("10 / i IS NULL", expect!["bool false true true, failed []"]);
    check("TRY_CAST(s AS BIGINT)", expect!["int64 12 null null, failed []"]);
    check("CAST(s AS BIGINT)", expect!["int64 12 null null, failed [1]"]);
    check("CAST(s AS BIGINT) + i", expect!["int64 19 null null, failed [1]"]);
    check("to_timestamp(s)", expect!["timestamp null null null, failed [0, 1]"]);
    check("sqrt(x)", expect!["float64 -0.0 NaN NaN, failed []"]);
    check("length(b)", expect!["int32 3 null 2, failed [1]"]);
    check("coalesce(length(b), -1)", expect!["int64 3 -1 2, failed []"]);
    check("lpad(s, i - 1)", expect!["string     12 null null, failed [1]"]);
    check("CAST(d AS BIGINT)", expect!["int64 1 null 2, failed [1]"]);
    check("TRY_CAST(d AS BIGINT)", expect!["int64 1 null 2, failed []"]);
    check(
        "CAST(j AS TIMESTAMP)",
        expect!["timestamp 2038-01-19T03:14:07Z 1901-12-13T20:45:52Z 1970-01-01T00:00:05Z, failed []"],
    );
    check(
        "CAST(i AS TIMESTAMP)",
        expect!["timestamp 1970-01-01T00:00:07Z 1970-01-01T00:00:00Z null, failed []"],
    );
    // Whether a `CASE` may be null DataFusion asks of those around it.
    check("CASE WHEN j > 0 THEN i END * 2", expect!["int64 14 null null, failed []"]);
    check("CASE WHEN j > 0 THEN i ELSE NULL END + j", expect!["int64 2147483654 null null, failed []"]);
    check("TRY_CAST(CASE WHEN j > 0 THEN i ELSE i END AS SMALLINT)", expect!["int32 7 0 null, failed []"]);
    check("abs(CASE WHEN j > 0 THEN i END) > 0", expect!["bool true null null, failed []"]);
    check("upper(CASE WHEN s = '12' THEN NULL ELSE s END)", expect!["string null ABC null, failed []"]);
    check("coalesce(i, CASE WHEN j > 0 THEN i END) * 2", expect!["int64 14 0 null, failed []"]);
    check("abs(j)", expect!["int64 2147483647 2147483648 5, failed []"]);
    check("-9223372036854775807 - i", expect!["int64 null -9223372036854775807 null, failed [0]"]);
}

/// A column that folding drops is a column all the same.
#[test]
fn what_folds_away_compiles() {
    check("coalesce(0, i)", expect!["int64 0 0 0, failed []"]);
    check("i IS NULL OR true", expect!["bool true true true, failed []"]);
    check("false AND i > 3", expect!["bool false false false, failed []"]);
    check("CASE WHEN 1 = 1 THEN i ELSE j END", expect!["int64 7 0 null, failed []"]);
    check("i + NULL", expect!["int64 null null null, failed []"]);
    check("CASE WHEN false THEN 1/0 ELSE 5 END", expect!["int64 5 5 5, failed []"]);
}

/// What is wrong for every row is a mistake.
#[test]
fn constants_that_have_no_value_are_mistakes() {
    check("1 / 0", expect!["`1 / 0`: 1 / 0 divides by zero"]);
    check("i + 1 % 0", expect!["`i + 1 % 0`: 1 % 0 divides by zero"]);
    check(
        "9223372036854775807 + 1",
        expect!["`9223372036854775807 + 1`: 9223372036854775807 + 1 is beyond int64"],
    );
    check(
        "CASE WHEN i > 100 THEN 1/0 ELSE 5 END",
        expect!["`CASE WHEN i > 100 THEN 1/0 ELSE 5 END`: 1 / 0 divides by zero"],
    );
    check("CAST('abc' AS BIGINT)", expect!["`CAST('abc' AS BIGINT)`: `abc` cannot be cast to int64"]);
    check("CAST(1e300 AS FLOAT)", expect!["`CAST(1e300 AS FLOAT)`: `1e300` cannot be cast to float32"]);
    check("t > '2024-13-01'", expect!["`t > '2024-13-01'`: `2024-13-01` cannot be cast to timestamp"]);
    check(
        "t AT TIME ZONE 'Europe/Berln'",
        expect![
            "`t AT TIME ZONE 'Europe/Berln'`: there is no time zone `Europe/Berln`; they are called as in the IANA database, such as `Europe/Berlin`, or `+02:00`"
        ],
    );
    check(
        "date_trunc('dya', t)",
        expect![
            "`date_trunc('dya', t)`: Unsupported date_trunc granularity: 'dya'. Supported values are: microsecond, millisecond, second, minute, hour, day, week, month, quarter, year"
        ],
    );
    check("date_part('yaer', t)", expect!["`date_part('yaer', t)`: Date part 'yaer' not supported"]);
    check(
        "date_bin(INTERVAL '0 second', t)",
        expect!["`date_bin(INTERVAL '0 second', t)`: DATE_BIN stride must be non-zero"],
    );
    check(
        "regexp_like(s, '(')",
        expect!["`regexp_like(s, '(')`: the pattern does not parse: unclosed group"],
    );
    check("s ~ '('", expect!["`s ~ '('`: the pattern does not parse: unclosed group"]);
    check(
        "s > 5",
        expect![
            "`s > 5`: `s` is text, and is compared with a number; write `CAST(s AS DOUBLE)`, or compare it with text"
        ],
    );
    check(
        "s IN (1, 2)",
        expect![
            "`s IN (1, 2)`: `s` is text, and is compared with a number; write `CAST(s AS DOUBLE)`, or compare it with text"
        ],
    );
    check(
        "t > s",
        expect![
            "`t > s`: `s` is text, and is compared with a time; write `CAST(s AS TIMESTAMP)`, or compare it with text"
        ],
    );
    check("i = 'seven'", expect!["`i = 'seven'`: `seven` cannot be cast to int64"]);
}

/// Instants beyond 2262, and constants beside columns.
#[test]
fn times_and_texts() {
    check("t > '2024-01-01'", expect!["bool true false false, failed []"]);
    check("t > TIMESTAMP '2024-01-01'", expect!["bool true false false, failed []"]);
    check("t < CAST('9999-12-31' AS TIMESTAMP)", expect!["bool false true true, failed []"]);
    check("t > DATE '2024-01-01'", expect!["bool true false false, failed []"]);
    check("t BETWEEN '2024-01-01' AND '2025-01-01'", expect!["bool false false false, failed []"]);
    check(
        "to_timestamp('3000-01-01')",
        expect!["timestamp 3000-01-01T00:00:00Z 3000-01-01T00:00:00Z 3000-01-01T00:00:00Z, failed []"],
    );
    check("to_timestamp(i)", expect!["timestamp 1970-01-01T00:00:07Z 1970-01-01T00:00:00Z null, failed []"]);
    check("CAST(t AS DATE)", expect!["date 9999-12-31 1969-12-31 1970-01-01, failed []"]);
    check("date_part('hour', t AT TIME ZONE 'Europe/Berlin')", expect!["int32 1 0 1, failed []"]);
    check("i = '7'", expect!["bool true false null, failed []"]);
    check("s = '12'", expect!["bool true false null, failed []"]);
    check("date_part('hour', t) * 1000000000", expect!["int64 0 23000000000 0, failed []"]);
    check("length(s) + array_length(make_array(i))", expect!["int64 3 4 null, failed []"]);
}

/// A table in which each row has something that a function refuses.
fn odd_rows() -> RecordBatch {
    let text = |values: [&str; 3]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    batch(vec![
        ("s", text(["a", "hex", "%Y"])),
        ("t", text(["a", "b", "("])),
        ("n", Arc::new(Int64Array::from(vec![1, -1, 0]))),
        ("d", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
    ])
}

#[test]
fn what_a_function_refuses_is_null_for_its_row() {
    let rows = odd_rows();
    let said = |sql: &str| {
        let Evaluated { values, failed } = evaluate(sql, &rows);
        let values: Vec<_> = (0..3).map(|row| array_value_to_string(&values, row).unwrap()).collect();
        format!("{sql}: {values:?}, failed {failed:?}\n")
    };
    let all = [
        "array_length(array_resize(make_array(1, 2), n))",
        "array_length(array_slice(make_array(1, 2), 1, 2, n))",
        "s SIMILAR TO t",
        "substr(s, 1, n)",
        "split_part(s, 'a', n)",
        "chr(n)",
        "factorial(n)",
        "make_date(n, n, n)",
        "nullif(10 / n, 10)",
        "array_length(nullif(make_array(n, 1), make_array(1, 1)))",
        "to_char(d, s)",
        "to_char(TIMESTAMP '2020-01-01', s)",
    ];
    expect![[r#"
        array_length(array_resize(make_array(1, 2), n)): ["1", "", "0"], failed [1]
        array_length(array_slice(make_array(1, 2), 1, 2, n)): ["2", "0", ""], failed [2]
        s SIMILAR TO t: ["true", "false", ""], failed [2]
        substr(s, 1, n): ["a", "", ""], failed [1]
        split_part(s, 'a', n): ["", "hex", ""], failed [2]
        chr(n): ["\u{1}", "", "\0"], failed [1]
        factorial(n): ["1", "", "1"], failed [1]
        make_date(n, n, n): ["0001-01-01", "", ""], failed [1, 2]
        nullif(10 / n, 10): ["", "-10", ""], failed [2]
        array_length(nullif(make_array(n, 1), make_array(1, 1))): ["", "2", "2"], failed []
        to_char(d, s): ["a", "hex", "1970"], failed []
        to_char(TIMESTAMP '2020-01-01', s): ["a", "hex", "2020"], failed []
    "#]]
    .assert_eq(&all.map(said).concat());
}

#[test]
fn instants_text_and_decimals_of_floats() {
    let floats = vec![Some(-0.0), Some(0.5), Some(-1.5e-6), Some(1e300), Some(f64::NAN), None];
    let decimals = Decimal128Array::from(vec![Some(0), Some(50), Some(0), Some(1), Some(1), Some(1)]);
    let rows = batch(vec![
        ("x", Arc::new(Float64Array::from(floats))),
        ("d", Arc::new(decimals.with_precision_and_scale(10, 2).unwrap())),
    ]);
    let said = |sql: &str| {
        let Evaluated { values, failed } = evaluate(sql, &rows);
        let values: Vec<_> = (0..6).map(|row| array_value_to_string(&values, row).unwrap()).collect();
        format!("{sql}: {values:?}, failed {failed:?}\n")
    };
    let all = ["to_timestamp(x)", "x || 's'", "concat(x, 's')", "d = x", "d < x", "x IN (d, 1)"];
    expect![[r#"
        to_timestamp(x): ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.500Z", "1969-12-31T23:59:59.999998Z", "", "", ""], failed [3, 4]
        x || 's': ["0.0s", "0.5s", "-1.5e-6s", "1e300s", "NaNs", ""], failed []
        concat(x, 's'): ["0.0s", "0.5s", "-1.5e-6s", "1e300s", "NaNs", "s"], failed []
        d = x: ["true", "true", "false", "false", "false", ""], failed []
        d < x: ["false", "false", "false", "true", "true", ""], failed []
        x IN (d, 1): ["true", "true", "false", "false", "false", ""], failed []
    "#]].assert_eq(&all.map(said).concat());
}

/// A number in a row does not say how much memory is taken.
#[test]
fn what_would_be_too_long_fails() {
    let rows = batch(vec![
        ("s", Arc::new(StringArray::from(vec!["a", "ab", "abc"]))),
        ("n", Arc::new(Int64Array::from(vec![2, 1 << 31, i64::MAX]))),
    ]);
    let said = |sql: &str| {
        let Evaluated { values, failed } = evaluate(sql, &rows);
        let values: Vec<_> = (0..3).map(|row| array_value_to_string(&values, row).unwrap()).collect();
        format!("{sql}: {values:?}, failed {failed:?}\n")
    };
    let all = [
        "lpad(s, n)",
        "rpad(s, n, 'x')",
        "repeat(s, n)",
        "length(repeat(s, 20000 + CAST(length(s) AS INT) * 1000))",
        "array_repeat(s, n)[1]",
        "cardinality(array_repeat(make_array(1, 2), n))",
        "cardinality(array_resize(make_array(1), n))",
        "cardinality(range(n))",
        "cardinality(range(1, n))",
        "cardinality(generate_series(n, 0, -1))",
    ];
    expect![[r#"
        lpad(s, n): [" a", "", ""], failed [1, 2]
        rpad(s, n, 'x'): ["ax", "", ""], failed [1, 2]
        repeat(s, n): ["aa", "", ""], failed [1, 2]
        length(repeat(s, 20000 + CAST(length(s) AS INT) * 1000)): ["21000", "44000", ""], failed [2]
        array_repeat(s, n)[1]: ["a", "", ""], failed [1, 2]
        cardinality(array_repeat(make_array(1, 2), n)): ["4", "", ""], failed [1, 2]
        cardinality(array_resize(make_array(1), n)): ["2", "", ""], failed [1, 2]
        cardinality(range(n)): ["2", "", ""], failed [1, 2]
        cardinality(range(1, n)): ["1", "", ""], failed [1, 2]
        cardinality(generate_series(n, 0, -1)): ["3", "", ""], failed [1, 2]
    "#]]
    .assert_eq(&all.map(said).concat());
}

#[test]
fn what_has_no_value_in_any_row_is_a_mistake() {
    let schema = odd_rows().schema();
    let said = |sql: &str| format!("{}\n", compile(sql, &schema).expect_err(sql).cause);
    let all = [
        "repeat(s, n) || repeat('ab', 40000)",
        "n + 9223372036854775808",
        "s SIMILAR TO '('",
        "decode(s, s)",
        "date_part('year', date_bin(CAST(s AS INTERVAL), d))",
    ];
    expect![[r#"
        `repeat(s, n) || repeat('ab', 40000)`: a text or list of more than 65536 is not made
        `n + 9223372036854775808`: `9223372036854775808` cannot be cast to int64
        `s SIMILAR TO '('`: the pattern does not parse: unclosed group
        `decode(s, s)`: Encoding must be a scalar; array specified encoding is not yet supported
        `date_part('year', date_bin(CAST(s AS INTERVAL), d))`: DATE_BIN only supports literal values for the stride argument, not arrays
    "#]].assert_eq(&all.map(said).concat());
}
