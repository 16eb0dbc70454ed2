//! How does a reply show the values of a column?
//!
//! Numbers are written in the shortest form that reads back as the same number (a `float32` as the double it is, so
//! that every client sees the very same value), what is not finite as null, instants as RFC 3339 in UTC, bytes as
//! base64.

use arrow::array::{Array, AsArray, OffsetSizeTrait};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use arrow::temporal_conversions::date32_to_datetime;
use base64::Engine;
use chrono::{DateTime, Datelike, SecondsFormat, Timelike};
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};

use crate::BASE64;

/// A whole column, as an array.
pub struct Values<'a>(pub &'a dyn Array);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let array = self.0;
        match array.data_type() {
            DataType::Int32 => serializer.collect_seq(array.as_primitive::<Int32Type>()),
            DataType::Int64 => serializer.collect_seq(array.as_primitive::<Int64Type>()),
            DataType::Float32 => {
                serializer.collect_seq(array.as_primitive::<Float32Type>().iter().map(|x| x.map(f64::from)))
            }
            DataType::Float64 => serializer.collect_seq(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => serializer.collect_seq(array.as_string::<i32>()),
            _ => serializer.collect_seq((0..array.len()).map(|row| Value(array, row))),
        }
    }
}

/// The value of a column in one row.
pub struct Value<'a>(pub &'a dyn Array, pub usize);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value(array, row) = *self;
        if array.is_null(row) {
            return serializer.serialize_unit();
        }
        match array.data_type() {
            DataType::Null => serializer.serialize_unit(),
            DataType::Boolean => serializer.serialize_bool(array.as_boolean().value(row)),
            DataType::Int32 => serializer.serialize_i32(array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => serializer.serialize_i64(array.as_primitive::<Int64Type>().value(row)),
            DataType::UInt64 => serializer.serialize_u64(array.as_primitive::<UInt64Type>().value(row)),
            DataType::Float32 => {
                serializer.serialize_f64(array.as_primitive::<Float32Type>().value(row).into())
            }
            DataType::Float64 => serializer.serialize_f64(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => serializer.serialize_str(array.as_string::<i32>().value(row)),
            DataType::Binary => serializer.serialize_str(&BASE64.encode(array.as_binary::<i32>().value(row))),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Instant(array.as_primitive::<TimestampMicrosecondType>().value(row)).serialize(serializer)
            }
            DataType::Date32 => match date32_to_datetime(array.as_primitive::<Date32Type>().value(row)) {
                Some(date) => serializer.collect_str(&date.format("%Y-%m-%d")),
                None => serializer.serialize_unit(),
            },
            DataType::List(_) => list::<i32, S>(array, row, serializer),
            DataType::FixedSizeList(_, _) => {
                Values(&array.as_fixed_size_list().value(row)).serialize(serializer)
            }
            DataType::Map(_, _) => map(array, row, serializer),
            other => Err(S::Error::custom(format!("no reply shows a value of type {other}"))),
        }
    }
}

fn list<O: OffsetSizeTrait, S: Serializer>(
    array: &dyn Array,
    row: usize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Values(&array.as_list::<O>().value(row)).serialize(serializer)
}

fn map<S: Serializer>(array: &dyn Array, row: usize, serializer: S) -> Result<S::Ok, S::Error> {
    let entries = array.as_map().value(row);
    let (keys, values) = (entries.column(0).as_ref(), entries.column(1).as_ref());
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for entry in 0..entries.len() {
        map.serialize_entry(&Value(keys, entry), &Value(values, entry))?;
    }
    map.end()
}

/// Microseconds since the Unix epoch, shown as RFC 3339 in UTC with as many digits as it takes: 0, 3 or 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(pub i64);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(instant) = DateTime::from_timestamp_micros(self.0) else {
            // The calendar ends before 64 bits do, and behind it lie the ends of time that databases know.
            return serializer.serialize_str(if self.0 > 0 { "infinity" } else { "-infinity" });
        };
        let Ok(year @ 0..=9999) = u32::try_from(instant.year()) else {
            return serializer.serialize_str(&instant.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        };
        // A reply holds one of these for each value: chrono's formatting would cost more than the look-up.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, digits: usize, mut value: u32| {
            for place in (at..at + digits).rev() {
                text[place] = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, instant.month());
        put(8, 2, instant.day());
        put(11, 2, instant.hour());
        put(14, 2, instant.minute());
        put(17, 2, instant.second());
        let micros = instant.timestamp_subsec_micros();
        let end = match micros {
            0 => 19,
            _ if micros % 1_000 == 0 => 23,
            _ => 26,
        };
        put(20, 6, micros);
        text[end] = b'Z';
        serializer.serialize_str(std::str::from_utf8(&text[..=end]).map_err(S::Error::custom)?)
    }
}
