//! Which column do values make?

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, FixedSizeListArray, Float16Array, Float32Array,
    Float64Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use base64::Engine;
use feature_defs::{Epoch, epoch};

use super::Json;
use super::value::{BASE64, boolean, bytes_of, date, double, half, micros, single, text, whole};
use crate::schema::type_name;

/// A value that does not have the type of its column.
#[derive(Debug)]
pub struct Mistyped {
    /// Its place among the values.
    pub row: usize,
    /// The type, for people.
    pub expected: String,
    /// The value, for people.
    pub found: String,
}

/// That `found`, in the place `row`, is not of the type.
pub fn mistyped(row: usize, dtype: &DataType, found: &Json<'_>) -> Mistyped {
    let how = match dtype {
        DataType::Timestamp(_, _) => " (RFC 3339, or whole microseconds)",
        DataType::Date32 => " (`YYYY-MM-DD`)",
        DataType::Binary => " (base64)",
        _ => "",
    };
    let doubt = match (dtype, found) {
        (DataType::Timestamp(_, _), Json::Int(number)) => epoch::micros(*number).err(),
        (DataType::Timestamp(_, _), Json::Float(number)) => epoch::micros(*number as i64).err(),
        _ => None,
    };
    let doubt = doubt.map_or_else(String::new, |doubt| format!(", which {doubt}"));
    Mistyped { row, expected: format!("{}{how}", type_name(dtype)), found: format!("{found}{doubt}") }
}

/// A column of values of one type; null is one of them. `format` says what the numbers of a time count.
///
/// # Errors
/// The first value of another type.
pub fn column<'a>(
    dtype: &DataType,
    format: Option<Epoch>,
    cells: &[&'a Json<'a>],
) -> std::result::Result<ArrayRef, Mistyped> {
    macro_rules! read {
        ($array:ty, $of:expr) => {{
            let read = |(row, cell): (usize, &&'a Json<'a>)| match cell {
                Json::Null => Ok(None),
                cell => $of(cell).map(Some).ok_or_else(|| mistyped(row, dtype, cell)),
            };
            cells.iter().enumerate().map(read).collect::<std::result::Result<$array, Mistyped>>()?
        }};
    }
    Ok(match dtype {
        DataType::Boolean => Arc::new(read!(BooleanArray, boolean)),
        DataType::Int32 => {
            Arc::new(read!(Int32Array, |cell| whole(cell).and_then(|n| i32::try_from(n).ok())))
        }
        DataType::Int64 => Arc::new(read!(Int64Array, whole)),
        DataType::Float16 => Arc::new(read!(Float16Array, half)),
        DataType::Float32 => Arc::new(read!(Float32Array, single)),
        DataType::Float64 => Arc::new(read!(Float64Array, double)),
        DataType::Utf8 => {
            let decoded =
                |cell| bytes_of(cell).and_then(|bytes| String::from_utf8(bytes).ok()).map(Cow::Owned);
            Arc::new(read!(StringArray, |cell: &&'a Json<'a>| text(cell)
                .map(Cow::Borrowed)
                .or_else(|| decoded(cell))))
        }
        DataType::Binary => Arc::new(read!(BinaryArray, |cell: &&'a Json<'a>| {
            text(cell).and_then(|text| BASE64.decode(text).ok()).or_else(|| bytes_of(cell))
        })),
        DataType::Timestamp(_, zone) => {
            let micros = |cell| micros(cell, format);
            Arc::new(read!(TimestampMicrosecondArray, micros).with_timezone_opt(zone.clone()))
        }
        DataType::Date32 => Arc::new(read!(Date32Array, date)),
        DataType::List(item) => {
            let lists = Lists::of(dtype, cells, None)?;
            let values =
                column(item.data_type(), None, &lists.items).map_err(|mistyped| lists.blame(mistyped))?;
            let offsets = OffsetBuffer::from_lengths(lists.lengths);
            Arc::new(ListArray::new(Arc::clone(item), offsets, values, lists.nulls))
        }
        DataType::FixedSizeList(item, length) => {
            let lists = Lists::of(dtype, cells, usize::try_from(*length).ok())?;
            let values =
                column(item.data_type(), None, &lists.items).map_err(|mistyped| lists.blame(mistyped))?;
            Arc::new(FixedSizeListArray::new(Arc::clone(item), *length, values, lists.nulls))
        }
        other => {
            let found = "a request that cannot bring it".to_owned();
            return Err(Mistyped { row: 0, expected: type_name(other), found });
        }
    })
}

/// The items of lists, one after the other.
struct Lists<'a> {
    items: Vec<&'a Json<'a>>,
    lengths: Vec<usize>,
    nulls: Option<NullBuffer>,
}

impl<'a> Lists<'a> {
    /// `length` is that of every list, where it is fixed: null then stands for as many nulls.
    fn of(
        dtype: &DataType,
        cells: &[&'a Json<'a>],
        length: Option<usize>,
    ) -> std::result::Result<Lists<'a>, Mistyped> {
        let mut lists = Lists { items: Vec::new(), lengths: Vec::with_capacity(cells.len()), nulls: None };
        for (row, cell) in cells.iter().enumerate() {
            let before = lists.items.len();
            match cell {
                Json::Null => lists.items.extend(std::iter::repeat_n(&Json::Null, length.unwrap_or(0))),
                Json::Array(items) if length.is_none_or(|length| items.len() == length) => {
                    lists.items.extend(items)
                }
                other => return Err(mistyped(row, dtype, other)),
            }
            lists.lengths.push(lists.items.len() - before);
        }
        let present: Vec<bool> = cells.iter().map(|cell| **cell != Json::Null).collect();
        lists.nulls = present.contains(&false).then(|| NullBuffer::from(present));
        Ok(lists)
    }

    /// The mistyped of an item is one of its list.
    fn blame(&self, mistyped: Mistyped) -> Mistyped {
        let mut end = 0;
        let ends = self.lengths.iter().map(|length| {
            end += length;
            end
        });
        let row = ends.take_while(|end| *end <= mistyped.row).count();
        Mistyped {
            row,
            found: format!("{} in the list", mistyped.found),
            expected: format!("{} items", mistyped.expected),
        }
    }
}
