//! Which bytes hold a list?
//!
//! ```text
//! u32 how many items | the items | for each item a byte that is 1 where it is null; no such bytes where none is
//! ```
//!
//! A number is 4 or 8 bytes, a bool is 1. Of texts come the ends first, a u32 each, counted from where the first text
//! begins, then the texts one after another.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, FixedSizeListArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};

use super::{corrupt, slot_width};
use crate::EngineError;

/// Writes a list behind what `out` holds.
pub(super) fn write(items: &ArrayRef, out: &mut Vec<u8>) {
    out.extend((items.len() as u32).to_le_bytes());
    match items.data_type() {
        DataType::Int32 => out.extend_from_slice(&bytes::<Int32Type>(items)),
        DataType::Int64 => out.extend_from_slice(&bytes::<Int64Type>(items)),
        DataType::Float32 => out.extend_from_slice(&bytes::<Float32Type>(items)),
        DataType::Float64 => out.extend_from_slice(&bytes::<Float64Type>(items)),
        DataType::Boolean => out.extend(items.as_boolean().values().iter().map(u8::from)),
        DataType::Utf8 => {
            let texts = || items.as_string::<i32>().iter().map(Option::unwrap_or_default);
            let mut end = 0;
            for text in texts() {
                end += text.len() as u32;
                out.extend(end.to_le_bytes());
            }
            texts().for_each(|text| out.extend_from_slice(text.as_bytes()));
        }
        other => unreachable!("a list of {other} was refused when the codec was made"),
    }
    if items.null_count() > 0 {
        out.extend((0..items.len()).map(|item| u8::from(items.is_null(item))));
    }
}

/// The values in memory, which are little-endian as the format is.
pub(super) fn bytes<T: ArrowPrimitiveType>(column: &ArrayRef) -> Buffer {
    const { assert!(cfg!(target_endian = "little"), "rows are copied out of memory as they lie there") };
    column.as_primitive::<T>().values().inner().clone()
}

/// The lists of `rows` as a column; none is null.
pub(super) fn decode(dtype: &DataType, rows: &[Option<&[u8]>]) -> Result<ArrayRef, EngineError> {
    let (field, fixed_length) = match dtype {
        DataType::List(field) => (field, None),
        DataType::FixedSizeList(field, length) => (field, Some(*length as usize)),
        other => unreachable!("{other} is no list"),
    };
    let mut items = Items::of(field.data_type());
    let mut lengths = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(list) = row else {
            let length = fixed_length.unwrap_or(0);
            items.push_nulls(length);
            lengths.push(length);
            continue;
        };
        let length = items.push(list).map_err(|cause| corrupt(list, cause))?;
        if fixed_length.is_some_and(|fixed| fixed != length) {
            return Err(corrupt(list, format!("a list of {length} items where the type is {dtype}")));
        }
        lengths.push(length);
    }
    let items = items.finish()?;
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    Ok(match fixed_length {
        Some(length) => {
            Arc::new(FixedSizeListArray::try_new(Arc::clone(field), length as i32, items, Some(nulls))?)
        }
        None => {
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, Some(nulls))?)
        }
    })
}

/// The items of lists, one list after another.
struct Items<'a> {
    dtype: &'a DataType,
    width: usize,
    /// As they are stored; of texts where each ends in `texts`.
    values: MutableBuffer,
    texts: Vec<u8>,
    valid: Vec<bool>,
}

impl Items<'_> {
    fn of(dtype: &DataType) -> Items<'_> {
        let width = slot_width(dtype).unwrap_or(8);
        Items { dtype, width, values: MutableBuffer::new(0), texts: Vec::new(), valid: Vec::new() }
    }

    fn push_nulls(&mut self, count: usize) {
        match self.dtype {
            DataType::Utf8 => {
                let end = self.texts.len() as i32;
                (0..count).for_each(|_| self.values.push(end));
            }
            _ => self.values.extend_zeros(count * self.width),
        }
        self.valid.extend(std::iter::repeat_n(false, count));
    }

    /// Adds the items of a stored list; says how many there are, or what is wrong.
    fn push(&mut self, list: &[u8]) -> Result<usize, &'static str> {
        const CUT_SHORT: &str = "a list is cut short";
        let (length, rest) = list.split_first_chunk().ok_or(CUT_SHORT)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (values, mut nulls) = rest.split_at_checked(length * self.width).ok_or(CUT_SHORT)?;
        match self.dtype {
            DataType::Utf8 => {
                let (start, mut previous) = (self.texts.len(), 0);
                for end in values.as_chunks().0 {
                    let end = u32::from_le_bytes(*end) as usize;
                    if end < previous {
                        return Err("a text of a list ends before it begins");
                    }
                    previous = end;
                    self.values.push(i32::try_from(start + end).map_err(|_| CUT_SHORT)?);
                }
                let texts;
                (texts, nulls) = nulls.split_at_checked(previous).ok_or(CUT_SHORT)?;
                self.texts.extend_from_slice(texts);
            }
            _ => self.values.extend_from_slice(values),
        }
        self.valid.extend((0..length).map(|item| nulls.get(item).is_none_or(|is_null| *is_null == 0)));
        Ok(length)
    }

    fn finish(self) -> Result<ArrayRef, EngineError> {
        fn numbers<T: ArrowPrimitiveType>(values: MutableBuffer, nulls: Option<NullBuffer>) -> ArrayRef {
            let length = values.len() / size_of::<T::Native>();
            Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(values.into(), 0, length), nulls))
        }
        let Items { dtype, values, texts, valid, .. } = self;
        let count = valid.len();
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        Ok(match dtype {
            DataType::Int32 => numbers::<Int32Type>(values, nulls),
            DataType::Int64 => numbers::<Int64Type>(values, nulls),
            DataType::Float32 => numbers::<Float32Type>(values, nulls),
            DataType::Float64 => numbers::<Float64Type>(values, nulls),
            DataType::Boolean => {
                let bits = BooleanBuffer::collect_bool(count, |item| values[item] != 0);
                Arc::new(BooleanArray::new(bits, nulls))
            }
            DataType::Utf8 => {
                let mut ends = vec![0];
                ends.extend_from_slice(values.typed_data::<i32>());
                let (bytes, offsets) = (texts.len(), OffsetBuffer::new(ScalarBuffer::from(ends)));
                let texts = StringArray::try_new(offsets, texts.into(), nulls);
                Arc::new(texts.map_err(|error| EngineError::Codec { bytes, cause: error.to_string() })?)
            }
            other => unreachable!("a list of {other} was refused when the codec was made"),
        })
    }
}
