//! How does a column of a file hold values, and which are in one that comes back?

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};

use super::values::{Value, half};

/// The values as a column of a file.
pub(super) fn array(dtype: &DataType, values: &[Option<Value>]) -> ArrayRef {
    macro_rules! numbers {
        ($($shape:pat => $of:ty: $number:expr),+ $(,)?) => {
            match dtype {
                $($shape => {
                    let numbers = values.iter().map(|value| value.as_ref().map($number));
                    let numbers: PrimitiveArray<$of> = numbers.collect();
                    Arc::new(numbers.with_data_type(dtype.clone())) as ArrayRef
                })+
                _ => others(dtype, values),
            }
        };
    }
    use DataType::*;
    numbers!(
        Int8 => Int8Type: |v| v.whole() as i8,
        Int16 => Int16Type: |v| v.whole() as i16,
        Int32 => Int32Type: |v| v.whole() as i32,
        Int64 => Int64Type: |v| v.whole() as i64,
        UInt8 => UInt8Type: |v| v.whole() as u8,
        UInt16 => UInt16Type: |v| v.whole() as u16,
        UInt32 => UInt32Type: |v| v.whole() as u32,
        UInt64 => UInt64Type: |v| v.whole() as u64,
        Decimal32(..) => Decimal32Type: |v| v.whole() as i32,
        Decimal64(..) => Decimal64Type: |v| v.whole() as i64,
        Decimal128(..) => Decimal128Type: Value::whole,
        Decimal256(..) => Decimal256Type: |v| i256::from_i128(v.whole()),
        Float16 => Float16Type: |v| half(v.float()),
        Float32 => Float32Type: |v| v.float() as f32,
        Float64 => Float64Type: Value::float,
        Date32 => Date32Type: |v| v.whole() as i32,
        Date64 => Date64Type: |v| v.whole() as i64,
        Timestamp(TimeUnit::Second, _) => TimestampSecondType: |v| v.whole() as i64,
        Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType: |v| v.whole() as i64,
        Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType: |v| v.whole() as i64,
        Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType: |v| v.whole() as i64,
    )
}

fn others(dtype: &DataType, values: &[Option<Value>]) -> ArrayRef {
    let bytes = || {
        values.iter().map(|value| match value.as_ref()? {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) => Some(bytes.as_slice()),
            other => panic!("{other:?} has no bytes"),
        })
    };
    match dtype {
        DataType::Dictionary(_, value) => cast(&array(value, values), dtype).unwrap(),
        DataType::Boolean => {
            let bits = values.iter().map(|value| value.as_ref().map(|value| value.whole() != 0));
            Arc::new(bits.collect::<BooleanArray>())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = bytes().map(|bytes| bytes.map(|bytes| str::from_utf8(bytes).unwrap()));
            cast(&texts.collect::<StringArray>(), dtype).unwrap()
        }
        DataType::FixedSizeBinary(size) => {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes(), *size).unwrap())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            cast(&bytes().collect::<BinaryArray>(), dtype).unwrap()
        }
        DataType::FixedSizeList(of, size) => {
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            let items = values.iter().flat_map(|value| match value {
                Some(Value::List(items)) => items.clone(),
                _ => vec![None; *size as usize],
            });
            let items = array(of.data_type(), &items.collect::<Vec<_>>());
            Arc::new(FixedSizeListArray::new(Arc::clone(of), *size, items, Some(nulls)))
        }
        DataType::List(of) | DataType::LargeList(of) => {
            let items = |value: &Option<Value>| match value {
                Some(Value::List(items)) => items.clone(),
                _ => Vec::new(),
            };
            let offsets = OffsetBuffer::from_lengths(values.iter().map(|value| items(value).len()));
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            let items = array(of.data_type(), &values.iter().flat_map(items).collect::<Vec<_>>());
            let lists = ListArray::new(Arc::clone(of), offsets, items, Some(nulls));
            cast(&lists, dtype).unwrap()
        }
        other => panic!("{other} is not among the types"),
    }
}

/// A value of a training set or a vector.
pub(super) fn cell(array: &ArrayRef, row: usize) -> Option<Value> {
    use DataType::*;
    if array.is_null(row) {
        return None;
    }
    let list = |items: ArrayRef| Value::List((0..items.len()).map(|item| cell(&items, item)).collect());
    Some(match array.data_type() {
        Boolean => Value::Whole(array.as_boolean().value(row).into()),
        Int32 => Value::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        Int64 => Value::Whole(array.as_primitive::<Int64Type>().value(row).into()),
        Date32 => Value::Whole(array.as_primitive::<Date32Type>().value(row).into()),
        Timestamp(..) => Value::Whole(array.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        Float32 => Value::Float(array.as_primitive::<Float32Type>().value(row).into()),
        Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        Utf8 => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        List(_) => list(array.as_list::<i32>().value(row)),
        FixedSizeList(..) => list(array.as_fixed_size_list().value(row)),
        other => panic!("{other} is no type of ours"),
    })
}
