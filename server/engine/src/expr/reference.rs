//! What does an expression mean where dialects of SQL differ?
//!
//! This is Quern's *reference evaluation*. An expression is rewritten here, in two steps, until DataFusion's operators
//! and functions say what `docs/definitions.md` promises; where they say it already, they stay. [`as_written`] sees the
//! types that a user wrote; [`as_typed`] sees both sides of a comparison in one type.

#[cfg(test)]
mod tests;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, plan_err};
use datafusion_expr::expr::{Between, BinaryExpr, Case, Cast, InList, Like, ScalarFunction, TryCast};
use datafusion_expr::type_coercion::binary::comparison_coercion;
use datafusion_expr::{Expr, ExprSchemable, Operator, lit};

use super::known;
use super::operators::{What, call};

/// Whole numbers are reckoned with in 64 bits, casts give null for what they cannot say, instants are in microseconds,
/// and a comparison is made in the type of the column, never of a text beside it.
///
/// # Errors
/// A column of text that is compared with a number or a time.
pub(super) fn as_written(expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let meant = expression.transform_up(|node| Ok(Transformed::yes(written(node, schema)?)))?;
    Ok(meant.data)
}

fn written(node: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => binary(*left, op, *right, schema)?,
        Expr::Negative(number) if is_whole(&number, schema)? => {
            call(What::Arithmetic(Operator::Minus), vec![lit(0_i64), *number])
        }
        Expr::Cast(Cast { expr, field }) => {
            is_zone(field.data_type())?;
            let is_time = matches!(field.data_type(), DataType::Timestamp(..));
            // Whole numbers are seconds, whatever their width: DataFusion says so of 64 bits alone.
            let expr = if is_time && is_whole(&expr, schema)? && expr.get_type(schema)? != DataType::Int64 {
                let seconds = DataType::Timestamp(TimeUnit::Second, None);
                Box::new(call(What::Convert(seconds), vec![widened(*expr)]))
            } else {
                expr
            };
            call(What::Convert(in_micros(field.data_type().clone())), vec![*expr])
        }
        Expr::TryCast(TryCast { expr, field }) => {
            call(What::TryConvert(in_micros(field.data_type().clone())), vec![*expr])
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (expr, low) = alike(*expr, *low, schema)?;
            let (expr, high) = alike(expr, *high, schema)?;
            Expr::Between(Between::new(Box::new(expr), negated, Box::new(low), Box::new(high)))
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            for item in &mut list {
                let (aligned, other) = alike(*expr, item.clone(), schema)?;
                (expr, *item) = (Box::new(aligned), other);
            }
            Expr::InList(InList { expr, list, negated })
        }
        Expr::Case(Case { expr: Some(mut expr), mut when_then_expr, else_expr }) => {
            for (when, _) in &mut when_then_expr {
                let (aligned, other) = alike(*expr, when.as_ref().clone(), schema)?;
                (expr, *when) = (Box::new(aligned), Box::new(other));
            }
            Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr })
        }
        Expr::ScalarFunction(function) => named(function, schema)?,
        Expr::SimilarTo(Like { negated, expr, pattern, case_insensitive, escape_char: _ })
            if pattern.any_column_refs() =>
        {
            matching(*expr, *pattern, case_insensitive, negated)?
        }
        other => other,
    })
}

/// A pattern that a column brings is tried where its size is limited.
fn matching(text: Expr, pattern: Expr, case_insensitive: bool, negated: bool) -> Result<Expr> {
    let flags = case_insensitive.then(|| lit("i"));
    let like = known::function("regexp_like")?.call([text, pattern].into_iter().chain(flags).collect());
    Ok(if negated { !like } else { like })
}

fn binary(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
    use Operator::{
        BitwiseAnd, BitwiseOr, BitwiseShiftLeft, BitwiseShiftRight, BitwiseXor, Divide, Minus, Modulo,
        Multiply, Plus, RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch,
    };
    if compares(op) {
        let (left, right) = alike(left, right, schema)?;
        return Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))));
    }
    let whole = is_whole(&left, schema)? && is_whole(&right, schema)?;
    Ok(match op {
        Plus | Minus | Multiply | Divide | Modulo if whole => {
            // A constant beyond 64 bits is a mistake, and not a failure of every row.
            let side = |side: Expr| if side.any_column_refs() { side } else { widened(side) };
            call(What::Arithmetic(op), vec![side(left), side(right)])
        }
        BitwiseAnd | BitwiseOr | BitwiseXor | BitwiseShiftLeft | BitwiseShiftRight if whole => {
            let (left, right) = (widened(left), widened(right));
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch if right.any_column_refs() => {
            let case_insensitive = matches!(op, RegexIMatch | RegexNotIMatch);
            matching(left, right, case_insensitive, matches!(op, RegexNotMatch | RegexNotIMatch))?
        }
        _ => Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))),
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_whole(expression: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(expression.get_type(schema)?.is_integer())
}

fn widened(expression: Expr) -> Expr {
    call(What::Convert(DataType::Int64), vec![expression])
}

/// Functions whose DataFusion has another rule.
fn named(mut function: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let first = function.args.first().map(|argument| argument.get_type(schema)).transpose()?;
    match function.name() {
        "nullif" if function.args.len() == 2 => {
            let (compared, value) = (function.args.remove(1), function.args.remove(0));
            let (_, compared) = alike(value.clone(), compared, schema)?;
            let types = (value.get_type(schema)?, compared.get_type(schema)?);
            let Some(common) = comparison_coercion(&types.0, &types.1) else {
                return plan_err!("`{value}` and `{compared}` in `nullif` cannot be compared");
            };
            return Ok(call(What::NullIf(common), vec![value, compared]));
        }
        // The least number has no absolute value; in 32 bits it would have one in 64.
        "abs" if first.as_ref().is_some_and(DataType::is_integer) => {
            function.args = function.args.into_iter().map(widened).collect();
        }
        // Nanoseconds end in 2262.
        "to_timestamp" => match first {
            Some(first) if is_text(&first) && function.args.len() == 1 => {
                return Ok(call(
                    What::Convert(DataType::Timestamp(TimeUnit::Microsecond, None)),
                    function.args,
                ));
            }
            Some(first) if is_text(&first) => function.func = known::function("to_timestamp_micros")?,
            Some(first) if first.is_integer() => {
                function.func = known::function("to_timestamp_seconds")?;
                let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
                return Ok(call(What::Convert(micros), vec![Expr::ScalarFunction(function)]));
            }
            // DataFusion's stops at the first and last instant that there is.
            Some(first) if first.is_floating() && function.args.len() == 1 => {
                let micros = function.args.remove(0) * lit(1e6);
                let whole = known::function("floor")?.call(vec![micros]);
                let whole = call(What::Convert(DataType::Int64), vec![whole]);
                return Ok(call(
                    What::Convert(DataType::Timestamp(TimeUnit::Microsecond, None)),
                    vec![whole],
                ));
            }
            _ => {}
        },
        _ => {}
    }
    bound(&mut function, schema)?;
    Ok(Expr::ScalarFunction(function))
}

/// Functions that make something as long as a number says, which would otherwise say how much memory is taken.
fn bound(function: &mut ScalarFunction, schema: &DFSchema) -> Result<()> {
    let first = function.args.first().map(|argument| argument.get_type(schema)).transpose()?;
    match function.name() {
        "lpad" | "rpad" | "array_resize" if function.args.len() > 1 => {
            let length = function.args[1].clone();
            function.args[1] = call(What::Length, vec![length, lit(1_i64)]);
        }
        "repeat" | "array_repeat" if function.args.len() == 2 => {
            let size = match &first {
                Some(text) if is_text(text) => {
                    known::function("octet_length")?.call(vec![function.args[0].clone()])
                }
                Some(list) if list.is_nested() => {
                    known::function("cardinality")?.call(vec![function.args[0].clone()])
                }
                _ => lit(1_i64),
            };
            function.args[1] = call(What::Length, vec![function.args[1].clone(), size]);
        }
        "range" | "generate_series" => {
            if first.as_ref().is_some_and(|first| !first.is_integer() && *first != DataType::Null) {
                return plan_err!("`{}` makes lists of whole numbers, and not of times", function.name());
            }
            let series = match function.args.as_slice() {
                [end] => vec![lit(0_i64), end.clone(), lit(1_i64)],
                [start, end] => vec![start.clone(), end.clone(), lit(1_i64)],
                all => all.to_vec(),
            };
            let end = usize::from(function.args.len() > 1);
            function.args[end] = call(What::SeriesEnd, series);
        }
        _ => {}
    }
    Ok(())
}

/// Both sides of a comparison, in types that DataFusion compares as they are.
fn alike(left: Expr, right: Expr, schema: &DFSchema) -> Result<(Expr, Expr)> {
    let (of_left, of_right) = (left.get_type(schema)?, right.get_type(schema)?);
    Ok((beside(left, &of_left, &of_right)?, beside(right, &of_right, &of_left)?))
}

/// `side`, which is compared with something of another type.
fn beside(side: Expr, of_side: &DataType, of_other: &DataType) -> Result<Expr> {
    let is_time = matches!(of_other, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    if is_text(of_side) && (is_time || of_other.is_numeric()) {
        if side.any_column_refs() {
            let (kind, wanted) = if is_time { ("a time", "TIMESTAMP") } else { ("a number", "DOUBLE") };
            return plan_err!(
                "`{side}` is text, and is compared with {kind}; write `CAST({side} AS {wanted})`, or compare it with text"
            );
        }
        // A column says which type is meant; between constants the number or time does.
        return Ok(call(What::Convert(in_micros(of_other.clone())), vec![side]));
    }
    // As a decimal, NaN and infinity would be null.
    if of_side.is_decimal() && of_other.is_floating() {
        return Ok(call(What::Convert(DataType::Float64), vec![side]));
    }
    if matches!(of_side, DataType::Date32) && matches!(of_other, DataType::Timestamp(..)) {
        return Ok(call(What::Convert(in_micros(of_other.clone())), vec![side]));
    }
    Ok(side)
}

fn is_text(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type with instants in microseconds, as columns have them: nanoseconds end in 2262.
fn in_micros(dtype: DataType) -> DataType {
    match dtype {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone),
        other => other,
    }
}

/// # Errors
/// A time zone that does not exist.
fn is_zone(dtype: &DataType) -> Result<()> {
    match dtype {
        DataType::Timestamp(_, Some(zone)) if zone.parse::<Tz>().is_err() => plan_err!(
            "there is no time zone `{zone}`; they are called as in the IANA database, such as `Europe/Berlin`, or `+02:00`"
        ),
        _ => Ok(()),
    }
}

/// One zero and one NaN, the greatest number, wherever floats are compared.
pub(super) fn as_typed(expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let meant = expression.transform_up(|node| Ok(Transformed::yes(typed(node, schema)?)))?;
    Ok(meant.data)
}

fn typed(node: Expr, schema: &DFSchema) -> Result<Expr> {
    let one = |expression: Expr| compared(What::Compared, expression, schema);
    let boxed = |expression: Box<Expr>| one(*expression).map(Box::new);
    Ok(match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            Expr::BinaryExpr(BinaryExpr::new(boxed(left)?, op, boxed(right)?))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            Expr::Between(Between::new(boxed(expr)?, negated, boxed(low)?, boxed(high)?))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list = list.into_iter().map(one).collect::<Result<_>>()?;
            Expr::InList(InList::new(boxed(expr)?, list, negated))
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
            let branches = when_then_expr.into_iter().map(|(when, then)| Ok((boxed(when)?, then)));
            let branches = branches.collect::<Result<_>>()?;
            Expr::Case(Case::new(Some(boxed(expr)?), branches, else_expr))
        }
        // One text for both zeros, also where text is asked for without a word, as in `x || ''`.
        Expr::Cast(Cast { expr, field })
            if is_text(field.data_type()) && expr.get_type(schema)?.is_floating() =>
        {
            call(What::Convert(field.data_type().clone()), vec![*expr])
        }
        Expr::Cast(Cast { expr, field })
            if field.data_type().is_floating() && expr.get_type(schema)?.is_decimal() =>
        {
            call(What::Convert(field.data_type().clone()), vec![*expr])
        }
        Expr::ScalarFunction(mut function) => {
            let what = match function.name() {
                "greatest" | "least" => Some(What::OneNan),
                name if COMPARING.contains(&name) => Some(What::Compared),
                _ => None,
            };
            if let Some(what) = what {
                let arguments = function.args.into_iter();
                let arguments = arguments.map(|argument| compared(what.clone(), argument, schema));
                function.args = arguments.collect::<Result<_>>()?;
            }
            Expr::ScalarFunction(function)
        }
        other => other,
    })
}

/// Functions that ask of items of lists whether they are equal.
const COMPARING: [&str; 14] = [
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_union",
];

/// Floats, and lists of them, as they are compared.
fn compared(what: What, expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let dtype = expression.get_type(schema)?;
    let item = match &dtype {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type()
        }
        other => other,
    };
    Ok(if item.is_floating() { call(what, vec![expression]) } else { expression })
}
