//! Functions of DataFusion's of which one value could take hours, or all memory.
//!
//! `levenshtein` takes the product of two lengths, `replace` and its like give it, also in lists, and a pattern that a
//! column brings may become a program of any size. A row that asks for too much is null and has failed; the others are
//! computed, so many at a time as take little memory together.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{concat, nullif, or};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use regex::RegexBuilder;

use super::failing::note;
use crate::size::text_ends;

/// Which they are.
pub(super) const FUNCTIONS: [&str; 11] = [
    "array_replace_all",
    "array_replace_n",
    "array_resize",
    "array_to_string",
    "levenshtein",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "replace",
];

/// The longest value of an expression, in bytes.
const VALUE_BYTES_MAX: usize = 16 << 20;
/// The most that `levenshtein` compares: two texts of 2,048 bytes, or others with that product.
const COMPARED_MAX: usize = 1 << 22;
/// What a pattern out of a column may become.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What rows may take that are computed together.
const TOGETHER_BYTES_MAX: usize = 64 << 20;

/// The values without those that are too long: these are null, and have failed.
pub(super) fn not_too_long(values: ArrayRef) -> Result<ArrayRef> {
    fn long(offsets: &[i32], width: usize) -> Option<BooleanArray> {
        let max = VALUE_BYTES_MAX / width;
        let all = offsets.last().zip(offsets.first()).map_or(0, |(end, start)| (end - start) as usize);
        (all > max).then(|| offsets.windows(2).map(|ends| Some((ends[1] - ends[0]) as usize > max)).collect())
    }
    let too_long = match values.data_type() {
        DataType::Utf8 => long(values.as_string::<i32>().value_offsets(), 1),
        DataType::Binary => long(values.as_binary::<i32>().value_offsets(), 1),
        DataType::List(item) => {
            let width = item.data_type().primitive_width().unwrap_or(size_of::<u64>());
            long(values.as_list::<i32>().value_offsets(), width)
        }
        _ => None,
    };
    let too_long = match (too_long, text_ends(values.as_ref()).and_then(|ends| long(&ends, 1))) {
        (Some(items), Some(texts)) => Some(or(&items, &texts)?),
        (items, texts) => items.or(texts),
    };
    match too_long.filter(|too_long| too_long.true_count() > 0) {
        None => Ok(values),
        Some(too_long) => {
            note(too_long.true_count());
            Ok(nullif(&values, &too_long)?)
        }
    }
}

/// Calls `function` on the rows that do not ask for too much.
pub(super) fn invoke(function: &ScalarUDF, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { arguments.number_rows };
    let mut costs = Costs { name: function.name(), arguments: &arguments.args, patterns: HashMap::new() };
    let costs: Vec<Option<usize>> = (0..rows).map(|row| costs.of(row)).collect();
    let too_much: BooleanArray = costs.iter().map(|cost| Some(cost.is_none())).collect();
    let failed = too_much.true_count();
    if constant && failed > 0 {
        return exec_err!("`{}` of these takes too long, or gives too much", function.name());
    }
    if failed > 0 {
        note(failed);
        let first = arguments.args[0].to_array(rows)?;
        arguments.args[0] = ColumnarValue::Array(nullif(&first, &too_much)?);
    }
    let all: usize = costs.iter().flatten().fold(0, |all, cost| all.saturating_add(*cost));
    let values = match all <= TOGETHER_BYTES_MAX {
        true => function.invoke_with_args(arguments)?,
        false => in_parts(function, &arguments, &costs)?,
    };
    if failed == 0 {
        return Ok(values);
    }
    // Some say something of null.
    Ok(ColumnarValue::Array(nullif(&values.to_array(rows)?, &too_much)?))
}

/// The same over so many rows at a time as take little together.
fn in_parts(
    function: &ScalarUDF,
    arguments: &ScalarFunctionArgs,
    costs: &[Option<usize>],
) -> Result<ColumnarValue> {
    let (mut parts, mut start): (Vec<ArrayRef>, usize) = (Vec::new(), 0);
    while start < costs.len() {
        let mut bytes = costs[start].unwrap_or(0);
        let more = costs[start + 1..].iter().take_while(|cost| {
            bytes = bytes.saturating_add(cost.unwrap_or(0));
            bytes <= TOGETHER_BYTES_MAX
        });
        let rows = 1 + more.count();
        let some = arguments.args.iter().map(|argument| match argument {
            ColumnarValue::Array(column) => ColumnarValue::Array(column.slice(start, rows)),
            constant => constant.clone(),
        });
        let some = ScalarFunctionArgs { args: some.collect(), number_rows: rows, ..arguments.clone() };
        parts.push(function.invoke_with_args(some)?.to_array(rows)?);
        start += rows;
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(ColumnarValue::Array(concat(&parts)?))
}

/// What calls of a function take, row by row.
struct Costs<'a> {
    name: &'a str,
    arguments: &'a [ColumnarValue],
    /// Patterns that columns brought, and whether they may be tried.
    patterns: HashMap<&'a str, bool>,
}

impl<'a> Costs<'a> {
    /// Bytes at the most; none where it is too much.
    fn of(&mut self, row: usize) -> Option<usize> {
        let text =
            |place: usize| self.arguments.get(place).and_then(|argument| text(argument, row)).unwrap_or("");
        let of = text(0).len();
        match self.name {
            "levenshtein" => {
                of.checked_mul(text(1).len()).filter(|compared| *compared <= COMPARED_MAX).map(|_| 0)
            }
            "replace" => replaced(text(0), text(1), text(2)).filter(|bytes| *bytes <= VALUE_BYTES_MAX),
            "array_to_string" => {
                // Between items stands one text, and another one for each null.
                let each = text(1).len() + text(2).len();
                self.items(row).checked_mul(each).filter(|bytes| *bytes <= VALUE_BYTES_MAX)
            }
            "array_replace_all" | "array_replace_n" => {
                self.items(row).checked_mul(text(2).len()).filter(|bytes| *bytes <= VALUE_BYTES_MAX)
            }
            "array_resize" => {
                let length = self.arguments.get(1).and_then(|length| whole(length, row)).unwrap_or(0);
                length.checked_mul(text(2).len()).filter(|bytes| *bytes <= VALUE_BYTES_MAX)
            }
            name => {
                // Each group that stands in it brings no more than what was matched.
                let replaced = if name == "regexp_replace" { text(2).len() } else { 0 };
                let bytes = (of + 1).checked_mul(replaced).filter(|bytes| *bytes <= TOGETHER_BYTES_MAX)?;
                Some(bytes + self.pattern(row)?)
            }
        }
    }

    fn items(&self, row: usize) -> usize {
        self.arguments.first().map_or(0, |list| items(list, row))
    }

    /// What the row's own pattern takes; none where it is too large.
    fn pattern(&mut self, row: usize) -> Option<usize> {
        let of_row = self.arguments.get(1).filter(|pattern| matches!(pattern, ColumnarValue::Array(_)));
        let Some(pattern) = of_row.and_then(|pattern| text(pattern, row)) else { return Some(0) };
        let may_be_tried = self.patterns.entry(pattern).or_insert_with(|| {
            let tried = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
            // What is no pattern says so itself.
            !matches!(tried, Err(regex::Error::CompiledTooBig(_)))
        });
        may_be_tried.then_some(PATTERN_BYTES_MAX)
    }
}

fn text(argument: &ColumnarValue, row: usize) -> Option<&str> {
    match argument {
        ColumnarValue::Scalar(constant) => constant.try_as_str().flatten(),
        ColumnarValue::Array(column) if column.is_null(row) => None,
        ColumnarValue::Array(column) => match column.data_type() {
            DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
            DataType::Utf8View => Some(column.as_string_view().value(row)),
            _ => None,
        },
    }
}

/// A number of items; none where it is below zero.
fn whole(argument: &ColumnarValue, row: usize) -> Option<usize> {
    let of = |column: &ArrayRef, row: usize| {
        let numbers = column.as_primitive_opt::<Int64Type>()?;
        usize::try_from(numbers.value(row)).ok().filter(|_| numbers.is_valid(row))
    };
    match argument {
        ColumnarValue::Array(column) => of(column, row),
        ColumnarValue::Scalar(constant) => constant.to_array().ok().and_then(|column| of(&column, 0)),
    }
}

/// How many items a list has.
fn items(list: &ColumnarValue, row: usize) -> usize {
    let of = |column: &ArrayRef, row: usize| match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value_length(row) as usize,
        DataType::LargeList(_) => column.as_list::<i64>().value_length(row) as usize,
        DataType::FixedSizeList(_, length) => *length as usize,
        _ => 0,
    };
    match list {
        ColumnarValue::Array(column) => of(column, row),
        ColumnarValue::Scalar(constant) => constant.to_array().map_or(0, |column| of(&column, 0)),
    }
}

/// How long a text becomes where `to` stands for `from`.
fn replaced(text: &str, from: &str, to: &str) -> Option<usize> {
    let growth = to.len().saturating_sub(from.len());
    let most = (text.len() / from.len().max(1) + 1).checked_mul(growth)?.checked_add(text.len())?;
    if most <= VALUE_BYTES_MAX / 1_024 {
        return Some(most);
    }
    text.matches(from).count().checked_mul(growth)?.checked_add(text.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{RecordBatch, StringArray};
    use arrow::util::display::array_value_to_string;

    use super::*;
    use crate::expr::Written;

    /// What `sql` says of rows of two texts, and which of them failed.
    fn said(sql: &str, rows: &[(&str, &str)]) -> (Vec<String>, Vec<u32>) {
        let text = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let (a, b) = rows.iter().copied().unzip();
        let rows =
            RecordBatch::try_from_iter_with_nullable([("a", text(a), true), ("b", text(b), true)]).unwrap();
        let schema = rows.schema();
        let expression =
            Written::parse(sql, &schema).and_then(|written| written.compile(&schema, None)).unwrap();
        let evaluated = expression.evaluate(&rows, &|| sql.to_owned()).unwrap();
        let shown = (0..rows.num_rows()).map(|row| array_value_to_string(&evaluated.values, row).unwrap());
        (shown.collect(), evaluated.failed)
    }

    #[test]
    fn a_value_that_takes_too_much_fails_and_its_neighbours_do_not() {
        let long = "ab".repeat(1 << 20);
        let (rows, pattern) = ([("abc", "b"), (&long, &long), ("b", "")], "(?:a{1000}){1000}");
        for (sql, first, last) in [
            ("levenshtein(a, b)", "2", "1"),
            ("length(replace(a, 'a', b))", "3", "1"),
            ("length(regexp_replace(a, 'a', b, 'g'))", "3", "1"),
            ("length(array_to_string(string_to_array(a, 'b'), b))", "3", "0"),
            ("length(array_to_string(string_to_array(a, 'b', 'a'), '', b))", "2", "0"),
            ("length(array_to_string(array_resize(make_array(a), 50, b), ''))", "52", "1"),
            ("length(array_to_string(array_replace_all(string_to_array(a, 'b'), 'a', b), ''))", "2", "0"),
            ("CASE WHEN length(a) > 10 THEN length(b || replace(b, 'a', a)) ELSE length(a) END", "3", "1"),
        ] {
            assert_eq!(
                said(sql, &rows),
                (vec![first.to_owned(), String::new(), last.to_owned()], vec![1]),
                "{sql}"
            );
        }
        for (sql, first) in [
            ("regexp_like(a, b)", "true"),
            ("a ~ b", "true"),
            ("a !~* b", "false"),
            ("a SIMILAR TO b", "true"),
            ("regexp_count(a, b)", "1"),
            ("regexp_instr(a, b)", "2"),
            ("(regexp_match(a, b))[1]", "b"),
            ("regexp_replace(a, b, '')", "ac"),
        ] {
            let (values, failed) = said(sql, &[("abc", "b"), ("aaa", pattern), ("abc", "b")]);
            assert_eq!(
                (values, failed),
                (vec![first.to_owned(), String::new(), first.to_owned()], vec![1]),
                "{sql}"
            );
        }
    }

    #[test]
    fn a_value_of_more_than_sixteen_mebibytes_fails() {
        let (short, long) = ("ab".repeat(1 << 22), "ab".repeat(1 << 23));
        let (values, failed) = said("a || b", &[(&short, &short), (&long, "c"), ("d", "e")]);
        assert_eq!(values.iter().map(String::len).collect::<Vec<_>>(), [VALUE_BYTES_MAX, 0, 2]);
        assert_eq!(failed, [1]);
        let (values, failed) = said("make_array(a, b)", &[(&short, "b"), (&long, "c"), ("d", "e")]);
        assert_eq!(values.iter().map(String::len).collect::<Vec<_>>(), [(1 << 23) + 5, 0, 6]);
        assert_eq!(failed, [1]);
    }

    #[test]
    fn many_values_that_take_much_together_are_computed_some_at_a_time() {
        let long = "ab".repeat(1 << 15);
        let rows = vec![(long.as_str(), "cdefghij"); 300];
        // 300 × 295 KB.
        let (values, failed) = said("length(regexp_replace(a, '[a]', b, 'g'))", &rows);
        assert_eq!((values, failed), (vec![((1 << 15) * 9).to_string(); 300], vec![]));
    }

    #[test]
    fn what_is_replaced_is_counted_where_it_may_be_long() {
        for (text, from, to) in [("aXbX", "X", "yyyy"), ("abc", "", "-"), ("", "", "x"), ("aa", "aa", "")] {
            let most = replaced(text, from, to).unwrap();
            assert!(most >= text.replace(from, to).len(), "{text} {from} {to}: {most}");
        }
        let (text, to) = ("x".repeat(1 << 16), "y".repeat(1 << 16));
        assert_eq!(replaced(&text, "x", &to), Some(1 << 32));
        assert_eq!(replaced(&text, "z", &to), Some(1 << 16));
    }
}
