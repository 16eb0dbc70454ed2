//! How are a tensor's cells filled? Column by column, null by one rule.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use feature_defs::Literal;

use super::{Slice, Tensor, TensorData, TensorPlan};
use crate::EngineError;
use crate::schema::type_name;

impl TensorPlan {
    pub(super) fn tensor(&self, rows: usize, data: TensorData) -> Tensor {
        let shape = if self.flat { vec![rows] } else { vec![rows, self.width] };
        Tensor { name: self.name.clone(), shape, data }
    }

    /// Fills the tensor column by column; the type of a column is looked at once, not for each cell.
    pub(super) fn fill<T: Cell>(&self, vectors: &RecordBatch) -> Result<Vec<T>, EngineError> {
        let mut cells = vec![T::default(); vectors.num_rows() * self.width];
        for slice in &self.slices {
            let column = vectors.column(slice.column);
            let (values, rows_null) = match column.data_type() {
                DataType::FixedSizeList(_, _) => {
                    let lists = column.as_fixed_size_list();
                    (lists.values().as_ref(), lists.nulls())
                }
                _ => (column.as_ref(), None),
            };
            let strip = Strip {
                cells: &mut cells,
                stride: self.width,
                slice,
                rows_null,
                values_null: values.nulls(),
                null: slice.default.as_ref().and_then(T::literal).or(T::NAN),
            };
            T::place(values, strip)?;
        }
        Ok(cells)
    }
}

/// The cells of a row-major tensor that one column fills.
pub(super) struct Strip<'a, T> {
    cells: &'a mut [T],
    stride: usize,
    slice: &'a Slice,
    rows_null: Option<&'a NullBuffer>,
    values_null: Option<&'a NullBuffer>,
    null: Option<T>,
}

impl<T: Clone> Strip<'_, T> {
    fn write(self, value: impl Fn(usize) -> T) -> Result<(), EngineError> {
        let Slice { offset, width, .. } = *self.slice;
        let strips = self.cells.chunks_exact_mut(self.stride).map(|row| &mut row[offset..offset + width]);
        if self.rows_null.is_none() && self.values_null.is_none() {
            for (row, strip) in strips.enumerate() {
                for (i, cell) in strip.iter_mut().enumerate() {
                    *cell = value(row * width + i);
                }
            }
            return Ok(());
        }
        let is_null = |nulls: Option<&NullBuffer>, i| nulls.is_some_and(|nulls| nulls.is_null(i));
        for (row, strip) in strips.enumerate() {
            let row_null = is_null(self.rows_null, row);
            for (i, cell) in strip.iter_mut().enumerate() {
                let at = row * width + i;
                *cell = match &self.null {
                    _ if !row_null && !is_null(self.values_null, at) => value(at),
                    Some(null) => null.clone(),
                    None => {
                        return Err(EngineError::Evaluate {
                            what: format!("instance {row}, column `{}`", self.slice.name),
                            cause: "is null, which the model's input has no value for".to_owned(),
                        });
                    }
                };
            }
        }
        Ok(())
    }
}

/// A type of tensor elements.
pub(super) trait Cell: Clone + Default {
    /// What null becomes where no default is declared.
    const NAN: Option<Self> = None;

    fn literal(literal: &Literal) -> Option<Self>;

    fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError>;
}

fn refused<T>(values: &dyn Array, strip: &Strip<'_, T>, expected: &str) -> EngineError {
    EngineError::Type {
        column: strip.slice.name.clone(),
        expected: expected.to_owned(),
        found: type_name(values.data_type()),
    }
}

macro_rules! number_cell {
    ($cell:ty, nan: $nan:expr, literal: $literal:expr) => {
        impl Cell for $cell {
            const NAN: Option<Self> = $nan;

            fn literal(literal: &Literal) -> Option<Self> {
                let of: fn(&Literal) -> Option<$cell> = $literal;
                of(literal)
            }

            fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError> {
                match values.data_type() {
                    DataType::Boolean => {
                        let values = values.as_boolean();
                        strip.write(|i| u8::from(values.value(i)) as $cell)
                    }
                    DataType::Int32 => {
                        let values = values.as_primitive::<Int32Type>().values();
                        strip.write(|i| values[i] as $cell)
                    }
                    DataType::Int64 => {
                        let values = values.as_primitive::<Int64Type>().values();
                        strip.write(|i| values[i] as $cell)
                    }
                    DataType::Float32 => {
                        let values = values.as_primitive::<Float32Type>().values();
                        strip.write(|i| values[i] as $cell)
                    }
                    DataType::Float64 => {
                        let values = values.as_primitive::<Float64Type>().values();
                        strip.write(|i| values[i] as $cell)
                    }
                    _ => Err(refused(values, &strip, "a number")),
                }
            }
        }
    };
}

// Null is NaN in a float tensor whatever the default says, so that a model sees what it was trained on.
number_cell!(f32, nan: Some(f32::NAN), literal: |_| None);
number_cell!(f64, nan: Some(f64::NAN), literal: |_| None);
number_cell!(i32, nan: None, literal: |literal| whole(literal).and_then(|n| i32::try_from(n).ok()));
number_cell!(i64, nan: None, literal: whole);

fn whole(literal: &Literal) -> Option<i64> {
    match literal {
        Literal::Int(n) => Some(*n),
        Literal::Bool(b) => Some(i64::from(*b)),
        Literal::Float(_) | Literal::String(_) => None,
    }
}

impl Cell for bool {
    fn literal(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::Bool(b) => Some(*b),
            _ => None,
        }
    }

    fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError> {
        match values.as_boolean_opt() {
            Some(values) => strip.write(|i| values.value(i)),
            None => Err(refused(values, &strip, "bool")),
        }
    }
}

impl Cell for String {
    fn literal(literal: &Literal) -> Option<Self> {
        match literal {
            Literal::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError> {
        match values.as_string_opt::<i32>() {
            Some(values) => strip.write(|i| values.value(i).to_owned()),
            None => Err(refused(values, &strip, "string")),
        }
    }
}
