//! What does the text of one CSV cell say?
//!
//! | type | text |
//! |---|---|
//! | any | an empty cell is null, for strings too, and so is what the source names as null; around other types blanks do not count |
//! | bool | `true`, `false`, `t`, `f`, `1`, `0`, in any case |
//! | int32, int64 | `-7`; `7.0` as well, which is how pandas writes whole numbers beside nulls |
//! | float32, float64 | `-1.5e3`, `NaN`, `inf` |
//! | string | the text as it stands |
//! | bytes | base64, with or without padding |
//! | timestamp | `2013-01-31T09:26:56.5Z`; a space for the `T`, an offset (`-05:00`) or a zone (` America/New_York`) for the `Z`; without any it is UTC, without a time it is midnight; what is finer than a microsecond is dropped. A number counts what the column's `format` says, else microseconds |
//! | date | `2013-01-31` |
//! | list | `[1.5, 2, null]`, `[true, false]`; of texts as JSON has it: `["a, b", null]` |

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, FixedSizeListArray, Float32Builder,
    Float64Builder, Int32Builder, Int64Builder, ListArray, NullBufferBuilder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use base64::Engine;
use feature_defs::Epoch;
use quern_engine::instant::of_text;
use quern_engine::json::BASE64;

const DAY_US: i64 = 86_400_000_000;

/// The cells of one column of a batch, as they become values.
pub(super) enum Cells {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Timestamp(TimestampMicrosecondBuilder, Option<Epoch>),
    Date(Date32Builder),
    List(Box<Lists>),
}

/// Lists: all items one after the other, and where each list ends.
pub(super) struct Lists {
    field: FieldRef,
    /// Length of every list; absent: any.
    length: Option<i32>,
    items: Cells,
    ends: Vec<i32>,
    valid: NullBufferBuilder,
}

impl Cells {
    /// An empty column; `None` for a type that no text stands for. `format` says what the numbers of a time count.
    pub(super) fn new(dtype: &DataType, format: Option<Epoch>) -> Option<Cells> {
        Some(match dtype {
            DataType::Boolean => Cells::Bool(BooleanBuilder::new()),
            DataType::Int32 => Cells::Int32(Int32Builder::new()),
            DataType::Int64 => Cells::Int64(Int64Builder::new()),
            DataType::Float32 => Cells::Float32(Float32Builder::new()),
            DataType::Float64 => Cells::Float64(Float64Builder::new()),
            DataType::Utf8 => Cells::String(StringBuilder::new()),
            DataType::Binary => Cells::Bytes(BinaryBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                Cells::Timestamp(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()), format)
            }
            DataType::Date32 => Cells::Date(Date32Builder::new()),
            DataType::List(field) => Cells::List(Box::new(Lists::new(field, None)?)),
            DataType::FixedSizeList(field, length) => {
                Cells::List(Box::new(Lists::new(field, Some(*length))?))
            }
            _ => return None,
        })
    }

    /// The same as [`Cells::push`], and null where the text is one of `nulls`.
    pub(super) fn push_unless(&mut self, text: &str, nulls: &[String]) -> Option<()> {
        let said = if let Cells::String(_) = self { text } else { text.trim_ascii() };
        if nulls.iter().any(|null| null == said) {
            self.push_null();
            return Some(());
        }
        self.push(text)
    }

    /// Adds what the text says; `None` where it says nothing of the column's type.
    pub(super) fn push(&mut self, text: &str) -> Option<()> {
        let said = if let Cells::String(_) = self { text } else { text.trim_ascii() };
        if said.is_empty() {
            self.push_null();
            return Some(());
        }
        match self {
            Cells::Bool(cells) => cells.append_value(boolean(said)?),
            Cells::Int32(cells) => cells.append_value(whole(said)?),
            Cells::Int64(cells) => cells.append_value(whole(said)?),
            Cells::Float32(cells) => cells.append_value(float(said, f32::is_infinite)?),
            Cells::Float64(cells) => cells.append_value(float(said, f64::is_infinite)?),
            Cells::String(cells) => cells.append_value(said),
            Cells::Bytes(cells) => cells.append_value(BASE64.decode(said).ok()?),
            Cells::Timestamp(cells, format) => cells.append_value(of_text(said, *format).ok()?),
            Cells::Date(cells) => cells.append_value(date(said)?),
            Cells::List(lists) => lists.push(said)?,
        }
        Some(())
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Cells::Bool(cells) => cells.append_null(),
            Cells::Int32(cells) => cells.append_null(),
            Cells::Int64(cells) => cells.append_null(),
            Cells::Float32(cells) => cells.append_null(),
            Cells::Float64(cells) => cells.append_null(),
            Cells::String(cells) => cells.append_null(),
            Cells::Bytes(cells) => cells.append_null(),
            Cells::Timestamp(cells, _) => cells.append_null(),
            Cells::Date(cells) => cells.append_null(),
            Cells::List(lists) => lists.push_null(),
        }
    }

    /// The column so far; what is pushed from now on begins the next one.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Cells::Bool(cells) => Arc::new(cells.finish()),
            Cells::Int32(cells) => Arc::new(cells.finish()),
            Cells::Int64(cells) => Arc::new(cells.finish()),
            Cells::Float32(cells) => Arc::new(cells.finish()),
            Cells::Float64(cells) => Arc::new(cells.finish()),
            Cells::String(cells) => Arc::new(cells.finish()),
            Cells::Bytes(cells) => Arc::new(cells.finish()),
            Cells::Timestamp(cells, _) => Arc::new(cells.finish()),
            Cells::Date(cells) => Arc::new(cells.finish()),
            Cells::List(lists) => lists.finish()?,
        })
    }
}

impl Lists {
    fn new(field: &FieldRef, length: Option<i32>) -> Option<Lists> {
        let items = Cells::new(field.data_type(), None)?;
        Some(Lists {
            field: Arc::clone(field),
            length,
            items,
            ends: vec![0],
            valid: NullBufferBuilder::new(0),
        })
    }

    fn push(&mut self, text: &str) -> Option<()> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        let mut count = 0;
        if let Cells::String(items) = &mut self.items {
            let texts: Vec<Option<String>> = serde_json::from_str(text).ok()?;
            count = i32::try_from(texts.len()).ok()?;
            texts.into_iter().for_each(|text| items.append_option(text));
        } else if !inner.trim_ascii().is_empty() {
            for item in inner.split(',') {
                match item.trim_ascii() {
                    "" => return None,
                    "null" => self.items.push_null(),
                    item => self.items.push(item)?,
                }
                count += 1;
            }
        }
        if self.length.is_some_and(|length| length != count) {
            return None;
        }
        self.valid.append_non_null();
        self.ends.push(self.ends.last()? + count);
        Some(())
    }

    fn push_null(&mut self) {
        let count = self.length.unwrap_or(0);
        (0..count).for_each(|_| self.items.push_null());
        self.valid.append_null();
        self.ends.push(self.ends.last().copied().unwrap_or(0) + count);
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let (field, items, valid) = (Arc::clone(&self.field), self.items.finish()?, self.valid.finish());
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        Ok(match self.length {
            Some(length) => Arc::new(FixedSizeListArray::try_new(field, length, items, valid)?),
            None => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(ListArray::try_new(field, offsets, items, valid)?)
            }
        })
    }
}

/// A text of each type, for messages.
pub(super) fn example(dtype: &DataType) -> &'static str {
    match dtype {
        DataType::Boolean => "true",
        DataType::Int32 | DataType::Int64 => "-7",
        DataType::Float32 | DataType::Float64 => "-1.5e3",
        DataType::Binary => "3q2+7w== (base64)",
        DataType::Timestamp(_, _) => "2013-01-31T09:26:56.5Z",
        DataType::Date32 => "2013-01-31",
        DataType::List(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::Utf8 => r#"["a", "b", null]"#,
            DataType::Boolean => "[true, false, null]",
            _ => "[1, 2, null]",
        },
        _ => "text",
    }
}

fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "t", "1"]) { Some(true) } else { is(["false", "f", "0"]).then_some(false) }
}

fn whole<T: FromStr>(text: &str) -> Option<T> {
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => digits,
        _ => text,
    };
    digits.parse().ok()
}

/// A number that is too large for its type parses as infinite; that is refused unless infinity is what was written.
fn float<T: FromStr + Copy>(text: &str, is_infinite: fn(T) -> bool) -> Option<T> {
    let value = text.parse().ok()?;
    let says_so = text.contains(['i', 'I']);
    (says_so || !is_infinite(value)).then_some(value)
}

fn date(text: &str) -> Option<i32> {
    let is_date = text.len() == "2013-01-31".len() && text.as_bytes()[4] == b'-';
    let midnight_us = of_text(text, None).ok().filter(|_| is_date)?;
    i32::try_from(midnight_us.div_euclid(DAY_US)).ok()
}
