//! What tells the values of a column from others?
//!
//! Neither the batches in which they come change it, nor the widths in which a client keeps numbers and texts: they
//! are taken in the types of the language.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use xxhash_rust::xxh3::Xxh3;

use crate::schema::{canonical, conform, quern_type, type_name};

/// The digest of a column, batch by batch.
pub struct ColumnDigest {
    dtype: DataType,
    rows: u64,
    /// Of the places of nulls ...
    nulls: Xxh3,
    /// ... and of the bytes of values, or of their lengths.
    values: Xxh3,
    items: Option<Box<ColumnDigest>>,
}

impl ColumnDigest {
    /// Of a column of `dtype`; none where the language has no such type.
    pub fn new(dtype: &DataType) -> Option<ColumnDigest> {
        let dtype = canonical(dtype);
        quern_type(&dtype)?;
        let items = match &dtype {
            DataType::List(item) | DataType::FixedSizeList(item, _) => {
                Some(Box::new(ColumnDigest::new(item.data_type())?))
            }
            _ => None,
        };
        Some(ColumnDigest { dtype, rows: 0, nulls: Xxh3::new(), values: Xxh3::new(), items })
    }

    /// Adds the next rows.
    ///
    /// # Errors
    /// A value that the language's type does not hold.
    pub fn take(&mut self, column: &ArrayRef) -> Result<(), ArrowError> {
        let conformed = conform(column, &self.dtype)?;
        // A part of a microsecond would not show.
        if matches!(column.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _))
            && conform(&conformed, column.data_type())?.as_ref() != column.as_ref()
        {
            return Err(ArrowError::CastError("a time is finer than a microsecond".to_owned()));
        }
        self.feed(&conformed);
        Ok(())
    }

    fn feed(&mut self, column: &dyn Array) {
        if column.null_count() > 0 {
            let places = (self.rows..).zip(0..column.len()).filter(|(_, row)| column.is_null(*row));
            places.for_each(|(place, _)| self.nulls.update(&place.to_le_bytes()));
        }
        self.rows += column.len() as u64;
        match column.data_type() {
            DataType::Boolean => {
                let bytes = column.as_boolean().iter().map(|value| u8::from(value == Some(true)));
                self.values.update(&bytes.collect::<Vec<_>>());
            }
            DataType::Utf8 => {
                column.as_string::<i32>().iter().flatten().for_each(|text| self.feed_bytes(text.as_bytes()));
            }
            DataType::Binary => {
                column.as_binary::<i32>().iter().flatten().for_each(|bytes| self.feed_bytes(bytes));
            }
            DataType::List(_) => {
                column.as_list::<i32>().iter().flatten().for_each(|items| self.feed_items(&items));
            }
            DataType::FixedSizeList(..) => {
                column.as_fixed_size_list().iter().flatten().for_each(|items| self.feed_items(&items));
            }
            _ => self.feed_numbers(column),
        }
    }

    fn feed_bytes(&mut self, bytes: &[u8]) {
        self.values.update(&(bytes.len() as u64).to_le_bytes());
        self.values.update(bytes);
    }

    fn feed_items(&mut self, items: &ArrayRef) {
        self.values.update(&(items.len() as u64).to_le_bytes());
        if let Some(digest) = &mut self.items {
            digest.feed(items);
        }
    }

    /// Numbers and times, to the bit; what lies where a null is says nothing.
    fn feed_numbers(&mut self, column: &dyn Array) {
        let data = column.to_data();
        let width = column.data_type().primitive_width().unwrap_or_default();
        let bytes = &data.buffers()[0].as_slice()[data.offset() * width..][..column.len() * width];
        if column.null_count() == 0 {
            return self.values.update(bytes);
        }
        let mut bytes = bytes.to_vec();
        for row in (0..column.len()).filter(|row| column.is_null(*row)) {
            bytes[row * width..][..width].fill(0);
        }
        self.values.update(&bytes);
    }

    /// The digest of all rows so far.
    pub fn finish(&self) -> u128 {
        let mut all = Xxh3::new();
        all.update(type_name(&self.dtype).as_bytes());
        let items = self.items.as_ref().map_or(0, |items| items.finish());
        for part in [u128::from(self.rows), self.nulls.digest128(), self.values.digest128(), items] {
            all.update(&part.to_le_bytes());
        }
        all.digest128()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, StringArray,
        StringViewArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::{Float32Type, Float64Type};
    use proptest::prelude::*;

    use super::*;

    fn digest(batches: &[ArrayRef]) -> u128 {
        let mut digest = ColumnDigest::new(batches[0].data_type()).expect("a type of the language");
        batches.iter().for_each(|batch| digest.take(batch).expect("values of the language"));
        digest.finish()
    }

    fn columns(rows: &[Option<i16>]) -> Vec<ArrayRef> {
        let texts = rows.iter().map(|row| row.map(|row| "x".repeat(row.unsigned_abs() as usize % 5)));
        let lists = rows.iter().map(|row| {
            row.map(|row| (0..row.unsigned_abs() % 4).map(move |item| (item != 2).then_some(f32::from(row))))
        });
        vec![
            Arc::new(rows.iter().map(|row| row.map(f64::from)).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.map(i64::from)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.map(|row| row > 0)).collect::<BooleanArray>()),
            Arc::new(texts.collect::<StringArray>()),
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists)),
        ]
    }

    proptest! {
        /// Cut anywhere, it is the same; another value, another place of a null, one row less is another one.
        #[test]
        fn batches_do_not_show_and_values_do(
            rows in prop::collection::vec(prop::option::of(-3i16..4), 1..20), cut in 0usize..20, at in 0usize..20,
        ) {
            let (cut, at) = (cut.min(rows.len()), at % rows.len());
            let mut other = rows.clone();
            other[at] = other[at].map_or(Some(1), |_| None);
            for ((whole, other), less) in columns(&rows).iter().zip(columns(&other)).zip(columns(&rows[1..])) {
                let parts = [whole.slice(0, cut), whole.slice(cut, rows.len() - cut)];
                prop_assert_eq!(digest(&parts), digest(&[Arc::clone(whole)]));
                prop_assert_ne!(digest(&[Arc::clone(whole)]), digest(&[other]));
                prop_assert_ne!(digest(&[Arc::clone(whole)]), digest(&[less]));
            }
        }
    }

    #[test]
    fn widths_do_not_show_and_types_do() {
        let texts: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec!["a", "bc"])),
            Arc::new(LargeStringArray::from(vec!["a", "bc"])),
            Arc::new(StringViewArray::from(vec!["a", "bc"])),
        ];
        let [first, rest @ ..] = texts.map(|text| digest(&[text]));
        assert_eq!(rest, [first, first]);
        // The same letters, cut elsewhere.
        assert_ne!(digest(&[Arc::new(StringArray::from(vec!["ab", "c"]))]), first);
        let zero: ArrayRef = Arc::new(Float64Array::from(vec![0.0]));
        let minus: ArrayRef = Arc::new(Float64Array::from(vec![-0.0]));
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![0]));
        let all = [zero, minus, whole, narrow].map(|column| digest(&[column]));
        assert!((1..4).all(|i| !all[..i].contains(&all[i])), "{all:?}");
        assert!(ColumnDigest::new(&DataType::Decimal128(9, 2)).is_none());
        let nan = |bits: u64| -> ArrayRef { Arc::new(Float64Array::from(vec![f64::from_bits(bits)])) };
        assert_ne!(digest(&[nan(0x7ff8_0000_0000_0001)]), digest(&[nan(0x7ff8_0000_0000_0002)]));
        // What a microsecond cannot say has no digest.
        let fine = |nanos: i64| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![nanos])) };
        assert_ne!(digest(&[fine(1_000)]), digest(&[fine(2_000)]));
        let mut of_times = ColumnDigest::new(fine(0).data_type()).expect("a type of the language");
        assert!(of_times.take(&fine(1_001)).is_err());
        // What lies where a null is does not show.
        let hidden = |value: f64| -> ArrayRef {
            Arc::new(arrow::array::PrimitiveArray::<Float64Type>::new(
                vec![value].into(),
                Some(vec![false].into()),
            ))
        };
        assert_eq!(digest(&[hidden(1.0)]), digest(&[hidden(2.0)]));
    }
}
