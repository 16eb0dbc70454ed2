//! Which bytes hold a feature row in the head?
//!
//! Version 1, all numbers little-endian:
//!
//! ```text
//! u8 version = 1 | i64 event timestamp µs | i64 created timestamp µs | null bitmap, a bit for each feature
//! | slots: 1, 4 or 8 bytes for each feature | bytes of the variable-length features
//! ```
//!
//! A fixed-width value lies in its slot. Text, bytes and lists lie behind the slots; their slot is a u32, the end of
//! their bytes counted from the first slot's end, and they begin where the previous such feature ends. So one feature
//! of many is read without reading the others. How a list lies there stands in `row/lists.rs`.

mod encode;
mod lists;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanArray, PrimitiveArray, StringBuilder,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};

pub use self::encode::RowEncoder;
use crate::EngineError;
use crate::schema::type_name;

const VERSION: u8 = 1;
const HEADER: usize = 17;

/// Encodes and decodes the rows of one view.
#[derive(Debug, Clone)]
pub struct RowCodec {
    features: SchemaRef,
    /// Where each slot begins, counted from the row's first byte.
    slots: Vec<usize>,
    /// For a variable-length feature, the slot of the previous one.
    previous: Vec<Option<usize>>,
    slots_end: usize,
}

/// The two timestamps that every stored row begins with, µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowTimes {
    /// Event timestamp.
    pub ts_us: i64,
    /// Created timestamp.
    pub created_us: i64,
}

fn slot_width(dtype: &DataType) -> Option<usize> {
    match dtype {
        DataType::Boolean => Some(1),
        DataType::Int32 | DataType::Float32 | DataType::Date32 => Some(4),
        DataType::Int64 | DataType::Float64 | DataType::Timestamp(_, _) => Some(8),
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::FixedSizeList(_, _) => Some(4),
        _ => None,
    }
}

fn is_variable(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::FixedSizeList(_, _))
}

fn corrupt(row: &[u8], cause: impl Into<String>) -> EngineError {
    EngineError::Codec { bytes: row.len(), cause: cause.into() }
}

/// The timestamps of a stored row.
pub fn times(row: &[u8]) -> Result<RowTimes, EngineError> {
    if row.len() < HEADER {
        return Err(corrupt(row, "shorter than its header"));
    }
    if row[0] != VERSION {
        let cause = format!("version {}, and this build reads version {VERSION}", row[0]);
        return Err(corrupt(row, cause));
    }
    Ok(RowTimes { ts_us: i64::from_le_bytes(eight(row, 1)), created_us: i64::from_le_bytes(eight(row, 9)) })
}

fn is_null(row: &[u8], feature: usize) -> bool {
    row[HEADER + feature / 8] >> (feature % 8) & 1 == 1
}

/// The row, where it holds a value of `feature`.
fn present<'a>(row: &Option<&'a [u8]>, feature: usize) -> Option<&'a [u8]> {
    row.filter(|row| !is_null(row, feature))
}

fn eight(row: &[u8], at: usize) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&row[at..at + 8]);
    bytes
}

fn four(row: &[u8], at: usize) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&row[at..at + 4]);
    bytes
}

impl RowCodec {
    /// A codec for rows of `features`; a type that cannot be stored is an error.
    pub fn new(features: &SchemaRef) -> Result<RowCodec, EngineError> {
        let mut at = HEADER + features.fields().len().div_ceil(8);
        let (mut slots, mut previous, mut last_variable) = (Vec::new(), Vec::new(), None);
        for field in features.fields() {
            let width = slot_width(field.data_type()).ok_or_else(|| EngineError::Type {
                column: field.name().clone(),
                expected: "a type of the language".into(),
                found: type_name(field.data_type()),
            })?;
            slots.push(at);
            previous.push(last_variable);
            if is_variable(field.data_type()) {
                last_variable = Some(at);
            }
            at += width;
        }
        Ok(RowCodec { features: Arc::clone(features), slots, previous, slots_end: at })
    }

    /// Decodes the features numbered `wanted` of `rows`, as columns; a missing row gives nulls.
    pub fn decode(&self, rows: &[Option<&[u8]>], wanted: &[usize]) -> Result<Vec<ArrayRef>, EngineError> {
        for row in rows.iter().flatten() {
            times(row)?;
            if row.len() < self.slots_end {
                return Err(corrupt(row, "shorter than its slots"));
            }
        }
        let (slots, places) = self.copy_slots(rows, wanted);
        let decode = |(feature, place): (&usize, usize)| self.decode_feature(rows, *feature, &slots, place);
        wanted.iter().zip(places).map(decode).collect()
    }

    /// The fixed-width values of the features `wanted`, feature after feature in one buffer that their columns share,
    /// and where those of each begin: an allocation for each column would cost more than the values. Null is zero.
    fn copy_slots(&self, rows: &[Option<&[u8]>], wanted: &[usize]) -> (Buffer, Vec<usize>) {
        let mut places = Vec::with_capacity(wanted.len());
        let mut end = 0;
        for feature in wanted {
            places.push(end);
            // Every column begins at a multiple of eight bytes.
            end += (rows.len() * self.width(*feature)).next_multiple_of(8);
        }
        let mut slots = MutableBuffer::from_len_zeroed(end);
        for (feature, place) in wanted.iter().zip(&places) {
            match self.width(*feature) {
                4 => self.copy_slot::<4>(rows, *feature, &mut slots[*place..]),
                8 => self.copy_slot::<8>(rows, *feature, &mut slots[*place..]),
                _ => {}
            }
        }
        (slots.into(), places)
    }

    /// The bytes that a value of `feature` takes in a column; 0 where its column is not a copy of its slots.
    fn width(&self, feature: usize) -> usize {
        let dtype = self.features.field(feature).data_type();
        if dtype.is_primitive() { slot_width(dtype).unwrap_or(0) } else { 0 }
    }

    fn copy_slot<const WIDTH: usize>(&self, rows: &[Option<&[u8]>], feature: usize, column: &mut [u8]) {
        let slot = self.slots[feature];
        for (row, value) in rows.iter().zip(column.as_chunks_mut::<WIDTH>().0) {
            if let Some(row) = present(row, feature) {
                value.copy_from_slice(&row[slot..slot + WIDTH]);
            }
        }
    }

    /// `slots` hold the feature's values from the byte `place` on, where they are of fixed width.
    fn decode_feature(
        &self,
        rows: &[Option<&[u8]>],
        feature: usize,
        slots: &Buffer,
        place: usize,
    ) -> Result<ArrayRef, EngineError> {
        fn column<T: ArrowPrimitiveType>(
            slots: &Buffer,
            place: usize,
            nulls: Option<NullBuffer>,
            rows: usize,
        ) -> PrimitiveArray<T> {
            let values = ScalarBuffer::new(slots.clone(), place / size_of::<T::Native>(), rows);
            PrimitiveArray::new(values, nulls)
        }
        let present = |row: usize| present(&rows[row], feature);
        let present_rows = || (0..rows.len()).map(present);
        let nulls = || {
            let all = present_rows().all(|row| row.is_some());
            (!all).then(|| BooleanBuffer::collect_bool(rows.len(), |row| present(row).is_some()).into())
        };
        let dtype = self.features.field(feature).data_type();
        Ok(match dtype {
            DataType::Boolean => {
                let slot = self.slots[feature];
                let is_true = |row| present(row).is_some_and(|row| row[slot] != 0);
                Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows.len(), is_true), nulls()))
            }
            DataType::Int32 => Arc::new(column::<Int32Type>(slots, place, nulls(), rows.len())),
            DataType::Date32 => Arc::new(column::<Date32Type>(slots, place, nulls(), rows.len())),
            DataType::Float32 => Arc::new(column::<Float32Type>(slots, place, nulls(), rows.len())),
            DataType::Int64 => Arc::new(column::<Int64Type>(slots, place, nulls(), rows.len())),
            DataType::Float64 => Arc::new(column::<Float64Type>(slots, place, nulls(), rows.len())),
            DataType::Timestamp(_, _) => {
                let values = column::<TimestampMicrosecondType>(slots, place, nulls(), rows.len());
                Arc::new(values.with_data_type(dtype.clone()))
            }
            DataType::Utf8 => {
                let mut values = StringBuilder::new();
                for row in present_rows() {
                    match row {
                        Some(row) => {
                            let bytes = self.variable(row, feature)?;
                            let text = std::str::from_utf8(bytes).map_err(|e| corrupt(row, e.to_string()))?;
                            values.append_value(text);
                        }
                        None => values.append_null(),
                    }
                }
                Arc::new(values.finish())
            }
            DataType::Binary => {
                let mut values = BinaryBuilder::new();
                for row in present_rows() {
                    match row {
                        Some(row) => values.append_value(self.variable(row, feature)?),
                        None => values.append_null(),
                    }
                }
                Arc::new(values.finish())
            }
            DataType::List(_) | DataType::FixedSizeList(_, _) => {
                let bytes = present_rows().map(|row| row.map(|row| self.variable(row, feature)).transpose());
                lists::decode(dtype, &bytes.collect::<Result<Vec<_>, _>>()?)?
            }
            other => unreachable!("{other} was refused when the codec was made"),
        })
    }

    fn variable<'a>(&self, row: &'a [u8], feature: usize) -> Result<&'a [u8], EngineError> {
        let end_at = |slot: usize| u32::from_le_bytes(four(row, slot)) as usize;
        let start = self.slots_end + self.previous[feature].map_or(0, end_at);
        let end = self.slots_end + end_at(self.slots[feature]);
        row.get(start..end).ok_or_else(|| corrupt(row, "a value lies outside the row"))
    }
}
