//! How are a tensor's cells filled? Column by column, null by one rule.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use half::{bf16, f16};

use super::null::{StandIn, items};
use super::signature::Element;
use super::tensor::{Tensor, TensorData};
use super::{Fit, Slice, TensorPlan};
use crate::schema::type_name;
use crate::{EngineError, Misfit, each_number_kind};

impl Fit {
    /// The model's inputs, in its order, for feature vectors with the columns that the fit was made for.
    ///
    /// # Errors
    /// A null that neither NaN nor a declared default stands in for; a column of another type.
    pub fn tensors(&self, vectors: &RecordBatch) -> Result<Vec<Tensor>, EngineError> {
        let data = |plan: &TensorPlan| -> Result<TensorData, EngineError> {
            macro_rules! filled {
                ($($kind:ident: $cell:ty),*) => {
                    match plan.element {
                        $(Element::$kind => TensorData::$kind(plan.fill::<$cell>(vectors)?),)*
                        // No `Other` passes `castable`; were there one, its columns would be refused as no strings.
                        Element::String | Element::Other(_) => TensorData::String(plan.fill(vectors)?),
                    }
                };
            }
            Ok(each_number_kind!(filled))
        };
        self.tensors.iter().map(|plan| Ok(plan.tensor(vectors.num_rows(), data(plan)?))).collect()
    }
}

impl TensorPlan {
    /// Fills the tensor column by column; the type of a column is looked at once, not for each cell.
    fn fill<T: Cell>(&self, vectors: &RecordBatch) -> Result<Vec<T>, EngineError> {
        let mut cells = vec![T::default(); vectors.num_rows() * self.width];
        for slice in &self.slices {
            let (values, rows_null, lists_null) = leaves(vectors.column(slice.column));
            let values_null = NullBuffer::union(lists_null.as_ref(), values.nulls());
            let strip = Strip {
                cells: &mut cells,
                stride: self.width,
                slice,
                rows_null,
                values_null: values_null.as_ref(),
                null: nulls(slice),
                element: &self.element,
            };
            place(values, strip)?;
        }
        Ok(cells)
    }
}

/// What a row of a slice becomes where it is null: its default, or NaN in every cell.
fn nulls<T: Cell>(slice: &Slice) -> Option<Vec<T>> {
    let default = slice.default.as_ref().map(|default| items(default).iter().map(T::literal).collect());
    default.flatten().or_else(|| Some(vec![T::NAN?; slice.width]))
}

/// The values of a column, out of lists within lists; which rows are null, and which values for a list in a row that
/// is.
fn leaves(column: &ArrayRef) -> (&ArrayRef, Option<&NullBuffer>, Option<NullBuffer>) {
    let Some(lists) = column.as_fixed_size_list_opt() else { return (column, None, None) };
    let (rows_null, mut values, mut lists_null) = (lists.nulls(), lists.values(), None);
    while let Some(lists) = values.as_fixed_size_list_opt() {
        let null = NullBuffer::union(lists_null.as_ref(), lists.nulls());
        lists_null = null.map(|null| null.expand(lists.value_length().unsigned_abs() as usize));
        values = lists.values();
    }
    (values, rows_null, lists_null)
}

/// The cells of a row-major tensor that one column fills.
struct Strip<'a, T> {
    cells: &'a mut [T],
    stride: usize,
    slice: &'a Slice,
    rows_null: Option<&'a NullBuffer>,
    values_null: Option<&'a NullBuffer>,
    /// What stands in for a row that is null.
    null: Option<Vec<T>>,
    element: &'a Element,
}

impl<T: Cell> Strip<'_, T> {
    /// Writes `value`, which is none where the element does not hold it.
    fn write(self, value: impl Fn(usize) -> Option<T>) -> Result<(), EngineError> {
        let Slice { offset, width, .. } = *self.slice;
        let wrong =
            |row, cause: String| EngineError::Misfit(Misfit { row, column: self.slice.name.clone(), cause });
        let too_large =
            |row| wrong(row, format!("lies beyond what {} holds, as the model's input is", self.element));
        let strips = self.cells.chunks_exact_mut(self.stride).map(|row| &mut row[offset..offset + width]);
        if self.rows_null.is_none() && self.values_null.is_none() {
            for (row, strip) in strips.enumerate() {
                for (i, cell) in strip.iter_mut().enumerate() {
                    *cell = value(row * width + i).ok_or_else(|| too_large(row))?;
                }
            }
            return Ok(());
        }
        let is_null = |nulls: Option<&NullBuffer>, i| nulls.is_some_and(|nulls| nulls.is_null(i));
        let is_list = self.rows_null.is_some() || width > 1;
        for (row, strip) in strips.enumerate() {
            let row_null = is_null(self.rows_null, row);
            for (i, cell) in strip.iter_mut().enumerate() {
                let at = row * width + i;
                *cell = if row_null || !is_list && is_null(self.values_null, at) {
                    self.null.as_ref().map(|null| null[i].clone())
                } else if is_null(self.values_null, at) {
                    // A default is for a whole list.
                    T::NAN
                } else {
                    Some(value(at).ok_or_else(|| too_large(row))?)
                }
                .ok_or_else(|| wrong(row, "is null, which the model's input has no value for".to_owned()))?;
            }
        }
        Ok(())
    }
}

fn place<T: Cell>(values: &ArrayRef, strip: Strip<'_, T>) -> Result<(), EngineError> {
    match values.data_type() {
        DataType::Boolean => {
            let values = values.as_boolean();
            strip.write(|i| T::of_bool(values.value(i)))
        }
        DataType::Int32 => {
            let values = values.as_primitive::<Int32Type>().values();
            strip.write(|i| T::of_int32(values[i]))
        }
        DataType::Int64 => {
            let values = values.as_primitive::<Int64Type>().values();
            strip.write(|i| T::of_int64(values[i]))
        }
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>().values();
            strip.write(|i| T::of_float32(values[i]))
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>().values();
            strip.write(|i| T::of_float64(values[i]))
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            strip.write(|i| T::of_text(values.value(i)))
        }
        other => Err(EngineError::Type {
            column: strip.slice.name.clone(),
            expected: strip.element.to_string(),
            found: type_name(other),
        }),
    }
}

/// A type of tensor elements: which values it holds. Whatever `castable` refuses, it holds none of.
#[expect(unused_variables, reason = "the names say what is not held")]
pub(super) trait Cell: StandIn + Clone + Default {
    fn of_bool(value: bool) -> Option<Self> {
        None
    }
    fn of_int32(value: i32) -> Option<Self> {
        Self::of_int64(value.into())
    }
    fn of_int64(value: i64) -> Option<Self> {
        None
    }
    fn of_float32(value: f32) -> Option<Self> {
        None
    }
    fn of_float64(value: f64) -> Option<Self> {
        None
    }
    fn of_text(value: &str) -> Option<Self> {
        None
    }
}

macro_rules! float_cells {
    ($($cell:ty),*) => {$(
        impl Cell for $cell {
            fn of_bool(value: bool) -> Option<Self> {
                Some(u8::from(value).into())
            }
            fn of_int32(value: i32) -> Option<Self> {
                Some(value as $cell)
            }
            fn of_int64(value: i64) -> Option<Self> {
                Some(value as $cell)
            }
            fn of_float32(value: f32) -> Option<Self> {
                Some(value as $cell)
            }
            fn of_float64(value: f64) -> Option<Self> {
                Some(value as $cell)
            }
        }
    )*};
}
float_cells!(f32, f64);

macro_rules! half_cells {
    ($($cell:ty),*) => {$(
        impl Cell for $cell {
            fn of_bool(value: bool) -> Option<Self> {
                Some(Self::from(u8::from(value)))
            }
            fn of_int64(value: i64) -> Option<Self> {
                Self::of_float64(value as f64)
            }
            fn of_float32(value: f32) -> Option<Self> {
                let half = Self::from_f32(value);
                (half.is_finite() || !value.is_finite()).then_some(half)
            }
            fn of_float64(value: f64) -> Option<Self> {
                let half = Self::from_f64(value);
                (half.is_finite() || !value.is_finite()).then_some(half)
            }
        }
    )*};
}
half_cells!(f16, bf16);

macro_rules! whole_cells {
    ($($cell:ty),*) => {$(
        impl Cell for $cell {
            fn of_bool(value: bool) -> Option<Self> {
                Some(value.into())
            }
            fn of_int64(value: i64) -> Option<Self> {
                value.try_into().ok()
            }
        }
    )*};
}
whole_cells!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Cell for bool {
    fn of_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Cell for String {
    fn of_text(value: &str) -> Option<Self> {
        Some(value.to_owned())
    }
}
