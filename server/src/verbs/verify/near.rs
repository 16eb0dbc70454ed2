//! Is what a model says again what it said?
//!
//! ONNX Runtime may sum in another order where rows run together that ran alone, and rounds otherwise then.

use arrow::array::{Array, ArrayRef, AsArray, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::error::Result;

/// How far two numbers may lie apart, as a part of the larger; of those below 1, in whole.
const APART_MAX: f64 = 1e-5;

/// Compares a row of one column with one of another.
pub(super) type Near<'a> = Box<dyn Fn(usize, usize) -> bool + 'a>;

/// Whether rows of two columns of one type say the same, but for the last digits of floats.
pub(super) fn near<'a>(a: &'a ArrayRef, b: &'a ArrayRef) -> Result<Near<'a>> {
    let valid: Near<'a> = match a.data_type() {
        DataType::Float32 => {
            let (x, y) = (a.as_primitive::<Float32Type>(), b.as_primitive::<Float32Type>());
            Box::new(move |i, j| are_near(x.value(i).into(), y.value(j).into()))
        }
        DataType::Float64 => {
            let (x, y) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
            Box::new(move |i, j| are_near(x.value(i), y.value(j)))
        }
        DataType::List(_) => {
            let (x, y) = (a.as_list::<i32>(), b.as_list::<i32>());
            let items = near(x.values(), y.values())?;
            let starts = |list: &arrow::array::ListArray, row: usize| list.value_offsets()[row] as usize;
            Box::new(move |i, j| {
                let length = x.value_length(i);
                let (i, j, is_as_long) = (starts(x, i), starts(y, j), length == y.value_length(j));
                is_as_long && (0..length as usize).all(|item| items(i + item, j + item))
            })
        }
        DataType::FixedSizeList(_, length) => {
            let (x, y) = (a.as_fixed_size_list(), b.as_fixed_size_list());
            let (items, length) = (near(x.values(), y.values())?, *length as usize);
            let start = |list: &arrow::array::FixedSizeListArray, row| list.value_offset(row) as usize;
            Box::new(move |i, j| {
                let (i, j) = (start(x, i), start(y, j));
                (0..length).all(|item| items(i + item, j + item))
            })
        }
        _ => {
            let compare = make_comparator(a, b, SortOptions::default())?;
            Box::new(move |i, j| compare(i, j).is_eq())
        }
    };
    Ok(Box::new(move |i, j| match (a.is_null(i), b.is_null(j)) {
        (false, false) => valid(i, j),
        (a, b) => a == b,
    }))
}

fn are_near(x: f64, y: f64) -> bool {
    x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= APART_MAX * x.abs().max(y.abs()).max(1.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, ListArray, StringArray};

    use super::*;

    fn all_near(a: ArrayRef, b: ArrayRef) -> Vec<bool> {
        let near = near(&a, &b).unwrap();
        (0..a.len()).map(|row| near(row, row)).collect()
    }

    #[test]
    fn floats_may_round_otherwise_and_nothing_else_may() {
        let floats = |values: [Option<f32>; 5]| -> ArrayRef { Arc::new(Float32Array::from(values.to_vec())) };
        let a = floats([Some(1.0), Some(1e9), Some(f32::NAN), None, Some(f32::INFINITY)]);
        let b = floats([Some(1.000_001), Some(1.001e9), Some(-f32::NAN), Some(0.0), Some(f32::INFINITY)]);
        assert_eq!(all_near(a, b), [true, false, true, false, true]);
        let lists = |rows: Vec<Option<Vec<Option<f32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows))
        };
        let a = lists(vec![Some(vec![Some(1.0), None]), None, Some(vec![Some(2.0)]), Some(vec![Some(3.0)])]);
        let b = lists(vec![
            Some(vec![Some(1.0), None]),
            None,
            Some(vec![Some(2.0), None]),
            Some(vec![Some(4.0)]),
        ]);
        assert_eq!(all_near(a, b), [true, true, false, false]);
        let texts = |texts: [&str; 2]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        assert_eq!(all_near(texts(["a", "b"]), texts(["a", "c"])), [true, false]);
    }
}
