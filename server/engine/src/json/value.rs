//! Which value is one of JSON, as a column of some type has it? None where it is no such value.

use arrow::datatypes::{ArrowPrimitiveType, Date32Type, Float16Type};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use feature_defs::{Epoch, epoch};

use super::Json;
use crate::instant;

/// Bytes as text. Padded when written; read with and without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Half = <Float16Type as ArrowPrimitiveType>::Native;

pub(super) fn boolean(json: &Json<'_>) -> Option<bool> {
    match json {
        Json::Bool(value) => Some(*value),
        _ => None,
    }
}

/// Whole numbers; a client that has only floats may write them as such.
pub(super) fn whole(json: &Json<'_>) -> Option<i64> {
    // From 2^53 on a double stands for more than one whole number.
    const EXACT_END: f64 = 9_007_199_254_740_992.0;
    match json {
        Json::Int(value) => Some(*value),
        Json::Float(value) if value.fract() == 0.0 && value.abs() < EXACT_END => Some(*value as i64),
        _ => None,
    }
}

/// Numbers, and the three that JSON has no numbers for, by the names that protobuf's JSON gives them.
pub(super) fn double(json: &Json<'_>) -> Option<f64> {
    match json {
        Json::Int(value) => Some(*value as f64),
        Json::Float(value) => Some(*value),
        Json::String(name) => match name.as_ref() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn single(json: &Json<'_>) -> Option<f32> {
    let value = double(json)?;
    let single = value as f32;
    // A number beyond the type is none; infinity is one.
    (single.is_finite() || !value.is_finite()).then_some(single)
}

pub(super) fn half(json: &Json<'_>) -> Option<Half> {
    let value = double(json)?;
    let half = if value.is_finite() { nearest_half(value) } else { Half::from_f64(value) };
    (half.is_finite() || !value.is_finite()).then_some(half)
}

/// The nearest number of half the length; of two as near, that whose last bit is 0, as IEEE 754 has it. What the
/// library rounds to hangs on the processor.
fn nearest_half(value: f64) -> Half {
    const INFINITE: u16 = 0x7c00;
    // The bits of what is positive are in order; infinity stands where the next number would.
    let size_of = |bits| if bits == INFINITE { 65_536.0 } else { Half::from_bits(bits).to_f64() };
    let (size, mut below, mut above) = (value.abs(), 0, INFINITE);
    while above - below > 1 {
        let middle = (below + above) / 2;
        *(if size_of(middle) <= size { &mut below } else { &mut above }) = middle;
    }
    let (twice, both) = (2.0 * size, size_of(below) + size_of(above));
    let is_below = twice < both || twice == both && below % 2 == 0;
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    Half::from_bits(sign | if is_below { below } else { above })
}

/// How TensorFlow Serving's clients write bytes: `{"b64": "…"}`.
const BYTES: &str = "b64";

/// Bytes as JSON has them, for a column of bytes, or of text.
pub fn bytes(bytes: &[u8]) -> Json<'static> {
    Json::Object(vec![(BYTES.into(), Json::String(BASE64.encode(bytes).into()))])
}

pub(super) fn bytes_of(json: &Json<'_>) -> Option<Vec<u8>> {
    match json {
        Json::Object(entries) => match entries.as_slice() {
            [(key, Json::String(text))] if key == BYTES => BASE64.decode(text.as_ref()).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether an instance is the value of the only column, which is called `name`.
pub fn is_bare(json: &Json<'_>, name: &str) -> bool {
    match json {
        Json::Null => false,
        Json::Object(entries) => {
            name != BYTES && matches!(entries.as_slice(), [(key, Json::String(_))] if key == BYTES)
        }
        _ => true,
    }
}

pub(super) fn text<'a>(json: &'a Json<'_>) -> Option<&'a str> {
    match json {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// An instant: RFC 3339 (without a zone it is UTC; a date is its midnight; an offset may be `+01`), or a number, which
/// counts what `format` says, else whole microseconds. A finer fraction of a text is cut off.
pub fn micros(json: &Json<'_>, format: Option<Epoch>) -> Option<i64> {
    let text = match (json, format) {
        (Json::String(text), _) => text,
        (Json::Int(number), Some(format)) => return format.micros(*number),
        (Json::Float(number), Some(format)) => return format.nearest_micros(*number),
        (json, _) => return epoch::micros(whole(json)?).ok(),
    };
    if let Some(end) = epoch::end_of_time(text) {
        return Some(end);
    }
    // RFC 3339 has no years beyond 9999 or before 0; as a reply shows them, they begin with a sign.
    let instant = match text.starts_with(['+', '-']) {
        true => DateTime::parse_from_str(text, "%+"),
        false => DateTime::parse_from_rfc3339(text),
    };
    if let Ok(instant) = instant {
        return Some(instant.timestamp_micros());
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    match naive {
        Some(naive) => Some(naive.and_utc().timestamp_micros()),
        // A zone in other forms, such as PostgreSQL's and DuckDB's `+01`.
        None => instant::of_zoned(text),
    }
}

pub(super) fn date(json: &Json<'_>) -> Option<i32> {
    NaiveDate::parse_from_str(text(json)?, "%Y-%m-%d").ok().map(Date32Type::from_naive_date)
}
