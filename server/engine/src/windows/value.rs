//! How does a value travel from a column into an intermediate result, and from there into a column?
//!
//! Numbers, times and truths travel as one `i64` whose order is theirs: so one comparison serves all types, and NaN,
//! which is made one value, is the greatest number. Text and bytes travel as bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray, ListArray, MapArray,
    PrimitiveArray, StringArray, StructArray, new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use arrow::error::ArrowError;

use super::bytes::{fixed, number, piece, write_piece};
use crate::EngineError;

/// One value, of any type that aggregates know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    /// A number, time or truth, by [`ordered`].
    Number(i64),
    /// Text or bytes.
    Bytes(Box<[u8]>),
}

impl Value {
    /// Appends the bytes that [`Value::read`] reads.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(n) => {
                out.push(0);
                out.extend(n.to_le_bytes());
            }
            Value::Bytes(bytes) => {
                out.push(1);
                write_piece(bytes, out);
            }
        }
    }

    /// Takes a value off the front of `bytes`; none where they are not one.
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Value> {
        Some(match number(bytes)? {
            0 => Value::Number(fixed(bytes)?),
            _ => Value::Bytes(piece(bytes)?.into()),
        })
    }
}

/// What one aggregate gives.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Null,
    /// Beyond its type: null.
    Failed,
    Int(i64),
    Float(f64),
    Value(Value),
    List(Vec<Value>),
    Map(Vec<(Box<[u8]>, Cell)>),
}

/// A double as a number of the same order: -NaN and NaN are one and the greatest, -0 is before 0.
pub(crate) fn ordered(x: f64) -> i64 {
    let bits = if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() } as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The double that [`ordered`] made a number of.
pub(crate) fn unordered(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63) as u64 >> 1) as i64) as u64)
}

/// Whether values of the type travel as numbers.
pub(crate) fn is_number(dtype: &DataType) -> bool {
    !matches!(dtype, DataType::Utf8 | DataType::Binary)
}

/// A column as it travels: `Int64` for numbers, times and truths, `Binary` for text and bytes; nulls stay.
pub(crate) fn travelling(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::Binary => cast(column, &DataType::Binary)?,
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(column, &DataType::Float64)?;
            Arc::new(floats.as_primitive::<Float64Type>().unary::<_, Int64Type>(ordered))
        }
        DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(column, &DataType::Int64)?,
    })
}

/// The type of a map from text to `value`.
pub(crate) fn map_type(value: &DataType) -> DataType {
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(map_fields(value)), false)), true)
}

fn map_fields(value: &DataType) -> Fields {
    Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", value.clone(), true)])
}

/// The cells as a column of `dtype`.
pub(crate) fn column(cells: Vec<Cell>, dtype: &DataType) -> Result<ArrayRef, EngineError> {
    match dtype {
        DataType::List(item) => lists(cells, item),
        DataType::Map(entries, sorted) => maps(cells, entries, *sorted),
        DataType::Utf8 | DataType::Binary => texts(cells, dtype),
        DataType::Float32 | DataType::Float64 => {
            let number = |cell: Cell| match cell {
                Cell::Float(x) => Some(x),
                Cell::Value(Value::Number(key)) => Some(unordered(key)),
                _ => None,
            };
            let floats = primitive::<Float64Type>(cells, number);
            Ok(if *dtype == DataType::Float64 { floats } else { cast(&floats, dtype)? })
        }
        _ => {
            let number = |cell: Cell| match cell {
                Cell::Int(n) | Cell::Value(Value::Number(n)) => Some(n),
                _ => None,
            };
            if *dtype == DataType::Boolean {
                let truths: BooleanArray =
                    cells.into_iter().map(|cell| number(cell).map(|n| n != 0)).collect();
                return Ok(Arc::new(truths));
            }
            let numbers = primitive::<Int64Type>(cells, number);
            if *dtype == DataType::Date32 {
                return Ok(cast(&cast(&numbers, &DataType::Int32)?, dtype)?);
            }
            Ok(if *dtype == DataType::Int64 { numbers } else { cast(&numbers, dtype)? })
        }
    }
}

/// Cells that are lists.
fn lists(cells: Vec<Cell>, item: &Arc<Field>) -> Result<ArrayRef, EngineError> {
    let mut lengths = Vec::with_capacity(cells.len());
    let (mut items, mut valid) = (Vec::new(), Vec::with_capacity(cells.len()));
    for cell in cells {
        let list = if let Cell::List(list) = cell { Some(list) } else { None };
        valid.push(list.is_some());
        let list = list.unwrap_or_default();
        lengths.push(list.len());
        items.extend(list.into_iter().map(Cell::Value));
    }
    let items = column(items, item.data_type())?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls(valid))?))
}

/// Cells that are maps.
fn maps(cells: Vec<Cell>, entries: &Arc<Field>, sorted: bool) -> Result<ArrayRef, EngineError> {
    let DataType::Struct(fields) = entries.data_type() else {
        unreachable!("the entries of a map are a struct")
    };
    let (mut lengths, mut valid) = (Vec::with_capacity(cells.len()), Vec::with_capacity(cells.len()));
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for cell in cells {
        let map = if let Cell::Map(map) = cell { Some(map) } else { None };
        valid.push(map.is_some());
        let map = map.unwrap_or_default();
        lengths.push(map.len());
        for (key, value) in map {
            keys.push(String::from_utf8_lossy(&key).into_owned());
            values.push(value);
        }
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(keys)), column(values, fields[1].data_type())?];
    let structs = StructArray::try_new(fields.clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, structs, nulls(valid), sorted)?))
}

/// Cells that are text or bytes.
fn texts(cells: Vec<Cell>, dtype: &DataType) -> Result<ArrayRef, EngineError> {
    let mut out = BinaryBuilder::new();
    for cell in cells {
        match cell {
            Cell::Value(Value::Bytes(bytes)) => out.append_value(bytes),
            _ => out.append_null(),
        }
    }
    Ok(cast(&(Arc::new(out.finish()) as ArrayRef), dtype)?)
}

/// The numbers, without a mask where none is missing.
fn primitive<T: ArrowPrimitiveType>(
    cells: Vec<Cell>,
    number: impl Fn(Cell) -> Option<T::Native>,
) -> ArrayRef {
    let mut valid = Vec::new();
    let mut numbers = Vec::with_capacity(cells.len());
    for cell in cells {
        let number = number(cell);
        if number.is_none() || !valid.is_empty() {
            valid.resize(numbers.len(), true);
            valid.push(number.is_some());
        }
        numbers.push(number.unwrap_or_default());
    }
    let valid = (!valid.is_empty()).then(|| NullBuffer::from(valid));
    Arc::new(PrimitiveArray::<T>::new(numbers.into(), valid))
}

fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid))
}

/// A column of nothing but nulls, or none at all.
pub(crate) fn nothing(dtype: &DataType, rows: usize) -> ArrayRef {
    if rows == 0 { new_empty_array(dtype) } else { arrow::array::new_null_array(dtype, rows) }
}
