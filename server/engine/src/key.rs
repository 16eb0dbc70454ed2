//! Which bytes name an entity?
//!
//! A key is its columns one after another: numbers as eight or four big-endian bytes with the sign bit turned (so
//! that byte order is number order), text and bytes behind their length. No two different keys share their bytes:
//! ("1", "23") is not ("12", "3"). A null in any column means that there is no entity, and no bytes.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};

use crate::EngineError;
use crate::schema::type_name;

/// The encoded keys of a batch, in row order.
#[derive(Debug, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<bool>,
}

impl Keys {
    /// Encodes the rows of `columns`, whose types are those of `schema`.
    pub fn encode(schema: &SchemaRef, columns: &[ArrayRef]) -> Result<Keys, EngineError> {
        let rows = columns.first().map_or(0, |c| c.len());
        let mut parts = Vec::with_capacity(columns.len());
        for (field, column) in schema.fields().iter().zip(columns) {
            if field.data_type() != column.data_type() {
                return Err(EngineError::Type {
                    column: field.name().clone(),
                    expected: type_name(field.data_type()),
                    found: type_name(column.data_type()),
                });
            }
            parts.push(Part::of(field.name(), column)?);
        }
        let mut keys = Keys {
            bytes: Vec::with_capacity(rows * 12 * parts.len()),
            ends: Vec::with_capacity(rows),
            nulls: Vec::with_capacity(rows),
        };
        for row in 0..rows {
            let is_null = columns.iter().any(|column| column.is_null(row));
            if !is_null {
                for part in &parts {
                    part.write(row, &mut keys.bytes);
                }
            }
            keys.nulls.push(is_null);
            keys.ends.push(u32::try_from(keys.bytes.len()).map_err(|_| EngineError::Evaluate {
                what: "keys".into(),
                cause: "a batch holds more than 4 GiB of keys; send smaller batches".into(),
            })?);
        }
        Ok(keys)
    }

    /// The keys of `rows`.
    pub fn pick(&self, rows: &[u32]) -> Keys {
        let mut picked = Keys::default();
        for row in rows {
            let key = self.get(*row as usize);
            picked.bytes.extend_from_slice(key.unwrap_or_default());
            picked.ends.push(picked.bytes.len() as u32);
            picked.nulls.push(key.is_none());
        }
        picked
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key of `row`; none where a column is null.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if self.nulls[row] {
            return None;
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        Some(&self.bytes[start..self.ends[row] as usize])
    }
}

/// One key column, its type decided once.
enum Part<'a> {
    Bool(&'a arrow::array::BooleanArray),
    I32(&'a [i32]),
    I64(&'a [i64]),
    Utf8(&'a arrow::array::StringArray),
    Binary(&'a arrow::array::BinaryArray),
}

impl<'a> Part<'a> {
    fn of(name: &str, column: &'a ArrayRef) -> Result<Part<'a>, EngineError> {
        Ok(match column.data_type() {
            DataType::Boolean => Part::Bool(column.as_boolean()),
            DataType::Int32 => Part::I32(column.as_primitive::<Int32Type>().values()),
            DataType::Date32 => Part::I32(column.as_primitive::<Date32Type>().values()),
            DataType::Int64 => Part::I64(column.as_primitive::<Int64Type>().values()),
            DataType::Timestamp(_, _) => {
                Part::I64(column.as_primitive::<TimestampMicrosecondType>().values())
            }
            DataType::Utf8 => Part::Utf8(column.as_string()),
            DataType::Binary => Part::Binary(column.as_binary()),
            other => {
                return Err(EngineError::Type {
                    column: name.to_owned(),
                    expected: "a key type (bool, int32, int64, string, bytes, timestamp, date)".into(),
                    found: type_name(other),
                });
            }
        })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Part::Bool(values) => out.push(u8::from(values.value(row))),
            Part::I32(values) => out.extend(((values[row] as u32) ^ (1 << 31)).to_be_bytes()),
            Part::I64(values) => out.extend(((values[row] as u64) ^ (1 << 63)).to_be_bytes()),
            Part::Utf8(values) => write_bytes(values.value(row).as_bytes(), out),
            Part::Binary(values) => write_bytes(values.value(row), out),
        }
    }
}

/// Length as a LEB128 number, then the bytes.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}
