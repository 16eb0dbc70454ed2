//! Which moments do texts and columns of numbers say?
//!
//! What a number counts says the `format` of its column ([`Epoch`]); where that is silent, a whole number is
//! microseconds, and refused where it hardly is ([`epoch`]).

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use feature_defs::epoch::{self, Doubt};
use feature_defs::{Epoch, ScalarType};

/// The most digits before and after the point that are read as a number.
const DIGITS_MAX: usize = 18;

static UTC: LazyLock<Tz> = LazyLock::new(|| "+00:00".parse().expect("an offset"));

/// Whether a column of this type holds numbers that a `format` may speak of.
pub fn is_number(dtype: &DataType) -> bool {
    dtype.is_numeric()
}

/// A column of numbers as moments. A fraction of a float goes to the nearest microsecond.
///
/// # Errors
/// A number that is too far away to say, or no number.
pub fn of_numbers(column: &ArrayRef, format: Epoch) -> Result<ArrayRef, ArrowError> {
    let beyond = |number: &dyn fmt::Display| {
        ArrowError::CastError(format!("{number} ({}) is no {}", format.name(), ScalarType::Timestamp.name()))
    };
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let has_fractions = match column.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale > 0,
        dtype => dtype.is_floating(),
    };
    let moments: TimestampMicrosecondArray = if has_fractions {
        let numbers = cast_with_options(column, &DataType::Float64, &exact)?;
        numbers.as_primitive::<Float64Type>().try_unary::<_, TimestampMicrosecondType, _>(|number| {
            format.nearest_micros(number).ok_or_else(|| beyond(&number))
        })?
    } else {
        let numbers = cast_with_options(column, &DataType::Int64, &exact)?;
        numbers.as_primitive::<Int64Type>().try_unary::<_, TimestampMicrosecondType, _>(|number| {
            format.micros(number).ok_or_else(|| beyond(&number))
        })?
    };
    Ok(Arc::new(moments.with_timezone("UTC")))
}

/// The moment, µs, that a text says: RFC 3339 (a blank for the `T`, a zone for the offset; without either it is UTC,
/// and without a time midnight), or a number. What is finer is dropped.
///
/// # Errors
/// It is no moment; or a number of which nothing says what it counts, and which looks like something else.
pub fn of_text(text: &str, format: Option<Epoch>) -> Result<i64, Unread> {
    if let Some((whole, fraction)) = decimal(text) {
        let Some(format) = format else { return epoch::micros(whole).map_err(Unread::Doubt) };
        return micros(whole, fraction, format).ok_or(Unread::NoTime);
    }
    if let Some(end) = epoch::end_of_time(text) {
        return Ok(end);
    }
    of_zoned(text).ok_or(Unread::NoTime)
}

/// The moment, µs, that a text says which is no number; a zone is an offset of any form (`+01`, `+0100`, `+01:00`).
pub(crate) fn of_zoned(text: &str) -> Option<i64> {
    string_to_datetime(&*UTC, text).ok().map(|moment| moment.timestamp_micros())
}

/// Why a text says no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is none.
    NoTime,
    /// It is a number that is hardly one of microseconds.
    Doubt(Doubt),
}

/// A number in digits: what stands before the point, and behind it in parts of 10^18, towards the future.
fn decimal(text: &str) -> Option<(i64, i64)> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(DIGITS_MAX)];
    let parts = fraction.parse::<i64>().ok()? * 10_i64.pow((DIGITS_MAX - fraction.len()) as u32);
    Some((whole.parse::<i64>().ok()?.checked_mul(sign)?, sign * parts))
}

fn micros(whole: i64, fraction: i64, format: Epoch) -> Option<i64> {
    const PARTS: i128 = 10_i128.pow(DIGITS_MAX as u32);
    let number = i128::from(whole) * PARTS + i128::from(fraction);
    // No more than 2^63 · 10^18 · 10^6 by size, which 128 bits do not hold: seconds and their parts apart.
    let per_second = i128::from(format.per_second());
    let seconds = number.div_euclid(PARTS * per_second);
    let rest = number.rem_euclid(PARTS * per_second);
    let micros = seconds.checked_mul(1_000_000)?.checked_add(rest / (PARTS / 1_000_000 * per_second))?;
    i64::try_from(micros).ok()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Decimal128Array, Float64Array, Int32Array, Int64Array, UInt64Array};

    use super::*;

    #[test]
    fn texts_say_moments() {
        let s = 1_704_067_200_000_000;
        for (text, format, expected) in [
            ("2024-01-01", None, Ok(s)),
            ("2024-01-01 01:00:00+01:00", Some(Epoch::Millis), Ok(s)),
            ("2024-01-01T00:00:00.0000019Z", None, Ok(s + 1)),
            ("1704067200", Some(Epoch::Seconds), Ok(s)),
            ("1704067200.25", Some(Epoch::Seconds), Ok(s + 250_000)),
            ("1704067200000.0005", Some(Epoch::Millis), Ok(s)),
            ("-1.5", Some(Epoch::Seconds), Ok(-1_500_000)),
            ("-0.0000001", Some(Epoch::Seconds), Ok(-1)),
            ("1704067200000000999", Some(Epoch::Nanos), Ok(s)),
            ("1704067200000000.0", None, Ok(s)),
            ("0", Some(Epoch::Seconds), Ok(0)),
            ("9223372036854775807", Some(Epoch::Seconds), Err(Unread::NoTime)),
            ("9223372036854775807.999999999999999999", Some(Epoch::Micros), Ok(i64::MAX)),
            ("1.7e9", Some(Epoch::Seconds), Err(Unread::NoTime)),
            ("", None, Err(Unread::NoTime)),
            ("-", None, Err(Unread::NoTime)),
            ("infinity", Some(Epoch::Seconds), Ok(i64::MAX)),
            ("-infinity", None, Ok(-i64::MAX)),
            ("yesterday", None, Err(Unread::NoTime)),
        ] {
            assert_eq!(of_text(text, format), expected, "{text} {format:?}");
        }
        for (text, looks_like) in [
            ("1704067200", Epoch::Seconds),
            ("1704067200.5", Epoch::Seconds),
            ("1704067200000", Epoch::Millis),
            ("20240101", Epoch::Seconds),
            ("1704067200000000000", Epoch::Nanos),
        ] {
            let Err(Unread::Doubt(doubt)) = of_text(text, None) else { panic!("{text} is taken") };
            assert_eq!(doubt.looks_like, looks_like, "{text}");
        }
    }

    #[test]
    fn numbers_of_all_types_say_moments() {
        let day = 1_704_067_200;
        let columns: [ArrayRef; 6] = [
            Arc::new(Int32Array::from(vec![Some(day), None])),
            Arc::new(Int64Array::from(vec![Some(i64::from(day)), None])),
            Arc::new(UInt64Array::from(vec![Some(day as u64), None])),
            Arc::new(Float64Array::from(vec![Some(f64::from(day)), None])),
            Arc::new(
                Decimal128Array::from(vec![Some(i128::from(day)), None])
                    .with_precision_and_scale(38, 0)
                    .unwrap(),
            ),
            Arc::new(
                Decimal128Array::from(vec![Some(i128::from(day) * 1_000), None])
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ];
        let expected = TimestampMicrosecondArray::from(vec![Some(i64::from(day) * 1_000_000), None])
            .with_timezone("UTC");
        for column in columns {
            assert!(is_number(column.data_type()));
            let moments = of_numbers(&column, Epoch::Seconds).unwrap();
            assert_eq!(moments.as_ref(), &expected as &dyn Array, "{}", column.data_type());
        }
        let far: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
        let error = of_numbers(&far, Epoch::Millis).unwrap_err().to_string();
        assert_eq!(error, "Cast error: 9223372036854775807 (epoch_ms) is no timestamp");
    }
}
