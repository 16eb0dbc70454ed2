//! What does a value of Avro say, as the columns of a source are read?

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use quern_engine::json::{Json, bytes};

use super::{Bytes, Counts, Field, Schema, Value};

impl Schema {
    /// What all of `bytes` say, which are one value.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn json(&self, bytes: &[u8]) -> Result<Json<'static>, String> {
        let mut bytes = Bytes::new(bytes);
        let value = self.value(&mut bytes)?;
        match bytes.is_empty() {
            true => Ok(value.into()),
            false => Err("it goes on after its value".to_owned()),
        }
    }
}

impl From<Value> for Json<'static> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Long(number, counts) => long(number, counts),
            Value::Double(value) => Json::Float(value),
            Value::Decimal(number, 0) => i64::try_from(number).map_or(Json::Float(number as f64), Json::Int),
            // The nearest number to what its digits say.
            Value::Decimal(number, scale) => {
                Json::Float(format!("{number}e-{scale}").parse().unwrap_or(f64::NAN))
            }
            Value::Bytes(value) => bytes(&value),
            Value::Uuid(bytes) => Json::String(Cow::Owned(uuid(&bytes))),
            Value::Text(text) => Json::String(Cow::Owned(text)),
            Value::List(items) => Json::Array(items.into_iter().map(Json::from).collect()),
            Value::Record(fields) => {
                let entry =
                    |(field, value): (Arc<Field>, Value)| (Cow::Owned(field.name.clone()), Json::from(value));
                Json::Object(fields.into_iter().map(entry).collect())
            }
        }
    }
}

fn long(number: i64, counts: Counts) -> Json<'static> {
    let time = match counts {
        Counts::Itself => return Json::Int(number),
        Counts::Days => {
            let days =
                TimeDelta::try_days(number).and_then(|days| DateTime::UNIX_EPOCH.checked_add_signed(days));
            let date = days.map(|date| date.date_naive().to_string());
            return Json::String(Cow::Owned(date.unwrap_or_else(|| format!("{number} days since 1970"))));
        }
        Counts::Millis => DateTime::from_timestamp_millis(number),
        Counts::Micros => DateTime::from_timestamp_micros(number),
        Counts::Nanos => Some(DateTime::from_timestamp_nanos(number)),
    };
    let Some(time) = time else { return Json::String(Cow::Owned(format!("{number} {counts:?} since 1970"))) };
    instant(time)
}

/// An instant as a column of times takes it; what is finer than microseconds is cut off.
pub(crate) fn instant(time: DateTime<Utc>) -> Json<'static> {
    Json::String(Cow::Owned(time.to_rfc3339_opts(SecondsFormat::Nanos, true)))
}

/// As people write it.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| digits[part].concat()).join("-")
}
