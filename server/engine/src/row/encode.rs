//! How are rows written? What a column's type says is found out once, not for each row.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use super::lists::{self, bytes};
use super::{HEADER, RowCodec, RowTimes, VERSION};

/// Writes rows of some columns.
pub struct RowEncoder {
    codec: RowCodec,
    columns: Vec<(Values, Option<NullBuffer>)>,
}

/// The values of a column, by what becomes of one.
enum Values {
    Bits(BooleanArray),
    /// Four bytes each, as they are stored.
    Four(Buffer),
    /// Eight bytes each, as they are stored.
    Eight(Buffer),
    Variable(ArrayRef),
}

impl RowCodec {
    /// Writes rows of `columns`, which are the features in order.
    pub fn encoder(&self, columns: &[ArrayRef]) -> RowEncoder {
        let columns = columns.iter().map(|column| (Values::of(column), column.nulls().cloned()));
        RowEncoder { codec: self.clone(), columns: columns.collect() }
    }
}

impl RowEncoder {
    /// Writes `row` behind what `out` holds.
    pub fn encode(&self, times: RowTimes, row: usize, out: &mut Vec<u8>) {
        let RowCodec { slots, slots_end, .. } = &self.codec;
        let start = out.len();
        out.push(VERSION);
        out.extend(times.ts_us.to_le_bytes());
        out.extend(times.created_us.to_le_bytes());
        out.resize(start + slots_end, 0);
        for (feature, (values, nulls)) in self.columns.iter().enumerate() {
            let slot = start + slots[feature];
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            if is_null {
                out[start + HEADER + feature / 8] |= 1 << (feature % 8);
            }
            match values {
                Values::Variable(column) => {
                    if !is_null {
                        write_variable(column, row, out);
                    }
                    let end = (out.len() - start - slots_end) as u32;
                    out[slot..slot + 4].copy_from_slice(&end.to_le_bytes());
                }
                _ if is_null => {}
                Values::Bits(bits) => out[slot] = u8::from(bits.value(row)),
                Values::Four(bytes) => out[slot..slot + 4].copy_from_slice(&bytes[4 * row..4 * row + 4]),
                Values::Eight(bytes) => out[slot..slot + 8].copy_from_slice(&bytes[8 * row..8 * row + 8]),
            }
        }
    }
}

impl Values {
    fn of(column: &ArrayRef) -> Values {
        match column.data_type() {
            DataType::Boolean => Values::Bits(column.as_boolean().clone()),
            DataType::Int32 => Values::Four(bytes::<Int32Type>(column)),
            DataType::Date32 => Values::Four(bytes::<Date32Type>(column)),
            DataType::Float32 => Values::Four(bytes::<Float32Type>(column)),
            DataType::Int64 => Values::Eight(bytes::<Int64Type>(column)),
            DataType::Float64 => Values::Eight(bytes::<Float64Type>(column)),
            DataType::Timestamp(_, _) => Values::Eight(bytes::<TimestampMicrosecondType>(column)),
            _ => Values::Variable(ArrayRef::clone(column)),
        }
    }
}

fn write_variable(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        DataType::List(_) => lists::write(&column.as_list::<i32>().value(row), out),
        DataType::FixedSizeList(_, _) => lists::write(&column.as_fixed_size_list().value(row), out),
        other => unreachable!("{other} was refused when the codec was made"),
    }
}
