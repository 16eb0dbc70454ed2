//! Does a constant fit a type?

use crate::dtype::LIST_LENGTH_MAX;
use crate::yaml::{Node, Scalar, Value};
use crate::{Literal, ScalarType, Type, epoch};

/// The constant that `node` holds, where it holds one.
pub(crate) fn literal(node: &Node) -> Option<Literal> {
    match &node.value {
        Value::Scalar { text, scalar } => value(text, *scalar),
        Value::List(items) => {
            let item = |node: &Node| match &node.value {
                Value::Scalar { text, scalar } => value(text, *scalar),
                Value::List(_) | Value::Map(_) => None,
            };
            items.iter().map(item).collect::<Option<_>>().map(Literal::List)
        }
        Value::Map(_) => None,
    }
}

fn value(text: &str, scalar: Scalar) -> Option<Literal> {
    match scalar {
        Scalar::Null => None,
        Scalar::Bool(value) => Some(Literal::Bool(value)),
        Scalar::Int(value) => Some(Literal::Int(value)),
        Scalar::Float(value) => Some(Literal::Float(value)),
        Scalar::Text => Some(Literal::String(text.to_owned())),
    }
}

/// `literal` as a value of `dtype`: a whole number becomes a [`Literal::Float`] where floats are declared. An item of
/// a list is never null.
///
/// # Errors
/// Says what `dtype` wants instead, as in "`default` must be …".
pub fn fit(literal: Literal, dtype: Type) -> Result<Literal, String> {
    match dtype {
        Type::Scalar(scalar) => fit_value(literal, scalar),
        Type::List { item, length } => fit_list(literal, item, length),
    }
}

fn fit_list(literal: Literal, item: ScalarType, length: Option<u32>) -> Result<Literal, String> {
    let items = match (literal, length) {
        (Literal::List(items), Some(length)) if items.len() != length as usize => {
            return Err(format!("a list of {length} items, and this has {}", items.len()));
        }
        (Literal::List(items), _) if items.len() > LIST_LENGTH_MAX as usize => {
            return Err(format!("a list of at most {LIST_LENGTH_MAX} items, and this has {}", items.len()));
        }
        (Literal::List(items), _) => items,
        (_, Some(length)) => return Err(format!("a list of {length} items")),
        (_, None) => return Err("a list, as in `[]`".to_owned()),
    };
    let fitted = items.into_iter().enumerate().map(|(index, literal)| {
        let found = literal.to_string();
        fit_value(literal, item).map_err(|wants| {
            format!("a list of which each item is {wants}, and item {} is {found}", index + 1)
        })
    });
    fitted.collect::<Result<_, _>>().map(Literal::List)
}

fn fit_value(literal: Literal, scalar: ScalarType) -> Result<Literal, String> {
    let wants = match (scalar, &literal) {
        (ScalarType::Bool, Literal::Bool(_)) | (ScalarType::String, Literal::String(_)) => {
            return Ok(literal);
        }
        (ScalarType::Int64, Literal::Int(_)) => return Ok(literal),
        (ScalarType::Int32, Literal::Int(value)) if i32::try_from(*value).is_ok() => return Ok(literal),
        (ScalarType::Float64 | ScalarType::Float32, Literal::Int(value)) => {
            return Ok(Literal::Float(*value as f64));
        }
        (ScalarType::Float64, Literal::Float(value)) if value.is_finite() => return Ok(literal),
        (ScalarType::Float32, Literal::Float(value)) if (*value as f32).is_finite() => return Ok(literal),
        (ScalarType::Timestamp, Literal::Int(number)) => {
            let doubted =
                |doubt| format!("a time such as `2013-01-31T08:30:00Z`, or microseconds, and this {doubt}");
            return epoch::micros(*number).map(Literal::Int).map_err(doubted);
        }
        (ScalarType::Timestamp, Literal::String(text)) if is_timestamp(text) => return Ok(literal),
        (ScalarType::Date, Literal::String(text)) if is_date(text) => return Ok(literal),
        (ScalarType::Bool, _) => "`true` or `false`",
        (ScalarType::Int32, _) => "a whole number of 32 bits",
        (ScalarType::Int64, _) => "a whole number of 64 bits",
        (ScalarType::Float32, _) => "a finite number in the range of `float32`",
        (ScalarType::Float64, _) => "a finite number",
        (ScalarType::String, _) => "a text (quote it)",
        (ScalarType::Timestamp, _) => "a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970",
        (ScalarType::Date, _) => "a date such as `2013-01-31`",
        (ScalarType::Bytes, _) => "left out: `bytes` has no default",
    };
    Err(wants.to_owned())
}

/// `YYYY-MM-DD`, a day of the calendar.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let fields = [(4, 0, 9999), (2, 1, 12), (2, 1, 31)];
    parts.len() == fields.len()
        && parts.iter().zip(fields).all(|(part, field)| is_field(part, field))
        && is_day(&parts.iter().filter_map(|part| part.parse().ok()).collect::<Vec<u32>>())
}

/// Whether the month has that day.
fn is_day(date: &[u32]) -> bool {
    let [year, month, day] = *date else { return false };
    let leaps = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(leaps),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    day <= days
}

/// RFC 3339, where a space may stand for the `T` and the zone may be left out, which then is UTC.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't', ' ']) else {
        return is_date(text);
    };
    let (clock, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(end) => time.split_at(end),
        None => (time, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let zone_fits = match zone.strip_prefix(['+', '-']) {
        Some(offset) => is_clock(offset, 2),
        None => zone.eq_ignore_ascii_case("Z"),
    };
    let digits = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_date(date) && is_clock(clock, 3) && digits && zone_fits
}

/// `HH:MM` or `HH:MM:SS`.
fn is_clock(text: &str, fields: usize) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let limits = [(2, 0, 23), (2, 0, 59), (2, 0, 59)];
    parts.len() == fields && parts.into_iter().zip(limits).all(|(part, field)| is_field(part, field))
}

fn is_field(text: &str, (digits, min, max): (usize, u32, u32)) -> bool {
    text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse().is_ok_and(|value| (min..=max).contains(&value))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::yaml;

    fn check(dtype: &str, yaml: &str, expected: Expect) {
        let documents = yaml::read(crate::Loc::start("a.yaml"), yaml).documents;
        let literal = literal(&documents[0]).expect("a constant");
        let shown = match fit(literal, Type::parse(dtype).expect("a type")) {
            Ok(literal) => format!("{literal:?}"),
            Err(wants) => format!("must be {wants}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn what_fits() {
        check("bool", "true", expect!["Bool(true)"]);
        check("int32", "-5", expect!["Int(-5)"]);
        check("float32", "0", expect!["Float(0.0)"]);
        check("float64", "1e300", expect!["Float(1e300)"]);
        check("string", "'5'", expect![[r#"String("5")"#]]);
        check("date", "2012-02-29", expect![[r#"String("2012-02-29")"#]]);
        check("date", "2013-01-31", expect![[r#"String("2013-01-31")"#]]);
        check("timestamp", "2013-01-31", expect![[r#"String("2013-01-31")"#]]);
        check("timestamp", "2013-01-31T08:30:00.25Z", expect![[r#"String("2013-01-31T08:30:00.25Z")"#]]);
        check("timestamp", "2013-01-31 08:30:00+01:00", expect![[r#"String("2013-01-31 08:30:00+01:00")"#]]);
        check("timestamp", "1357034401000000", expect!["Int(1357034401000000)"]);
        check("list<float64>", "[]", expect!["List([])"]);
        check("list<float32, 2>", "[0, 1.5]", expect!["List([Float(0.0), Float(1.5)])"]);
        check("list<string>", "[a, '5']", expect![[r#"List([String("a"), String("5")])"#]]);
        check("list<bool, 1>", "[true]", expect!["List([Bool(true)])"]);
    }

    #[test]
    fn what_does_not() {
        check("bool", "yes", expect!["must be `true` or `false`"]);
        check("int32", "2147483648", expect!["must be a whole number of 32 bits"]);
        check("int64", "1.5", expect!["must be a whole number of 64 bits"]);
        check("float32", "1e300", expect!["must be a finite number in the range of `float32`"]);
        check("float64", ".nan", expect!["must be a finite number"]);
        check("string", "5", expect!["must be a text (quote it)"]);
        check("date", "2013-02-29", expect!["must be a date such as `2013-01-31`"]);
        check(
            "timestamp",
            "1900-02-29T00:00:00Z",
            expect!["must be a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970"],
        );
        check("date", "2013-13-01", expect!["must be a date such as `2013-01-31`"]);
        check(
            "timestamp",
            "2013-01-31T8:30",
            expect!["must be a time such as `2013-01-31T08:30:00Z`, or microseconds since 1970"],
        );
        check(
            "timestamp",
            "1357034401",
            expect![
                "must be a time such as `2013-01-31T08:30:00Z`, or microseconds, and this looks like seconds (in microseconds it is 1357034401000000)"
            ],
        );
        check(
            "timestamp",
            "0",
            expect![
                "must be a time such as `2013-01-31T08:30:00Z`, or microseconds, and this is too near to 1970 to be taken for microseconds: write it as RFC 3339"
            ],
        );
        check("bytes", "x", expect!["must be left out: `bytes` has no default"]);
        check("string", "[a]", expect!["must be a text (quote it)"]);
        check("list<float32>", "0", expect!["must be a list, as in `[]`"]);
        check("list<bool, 2>", "true", expect!["must be a list of 2 items"]);
        check("list<bool, 2>", "[true]", expect!["must be a list of 2 items, and this has 1"]);
        check(
            "list<string>",
            "[a, 5]",
            expect!["must be a list of which each item is a text (quote it), and item 2 is 5"],
        );
        check(
            "list<float32>",
            "[0, 1e300]",
            expect![
                "must be a list of which each item is a finite number in the range of `float32`, and item 2 is 1e300"
            ],
        );
    }
}
