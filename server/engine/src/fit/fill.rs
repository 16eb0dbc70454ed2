//! How are a tensor's cells filled? Column by column, null by one rule.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};

use super::null::StandIn;
use super::signature::Element;
use super::tensor::{Tensor, TensorData};
use super::{Fit, Slice, TensorPlan};
use crate::EngineError;
use crate::schema::type_name;

impl Fit {
    /// The model's inputs, in its order, for feature vectors with the columns that the fit was made for.
    ///
    /// # Errors
    /// A null that neither NaN nor a declared default stands in for; a column of another type.
    pub fn tensors(&self, vectors: &RecordBatch) -> Result<Vec<Tensor>, EngineError> {
        let data = |plan: &TensorPlan| -> Result<TensorData, EngineError> {
            Ok(match plan.element {
                Element::Float32 => TensorData::Float32(plan.fill(vectors)?),
                Element::Float64 => TensorData::Float64(plan.fill(vectors)?),
                Element::Int32 => TensorData::Int32(plan.fill(vectors)?),
                Element::Int64 => TensorData::Int64(plan.fill(vectors)?),
                Element::Bool => TensorData::Bool(plan.fill(vectors)?),
                // No `Other` passes `castable`; were there one, its columns would be refused as no strings.
                Element::String | Element::Other(_) => TensorData::String(plan.fill(vectors)?),
            })
        };
        self.tensors.iter().map(|plan| Ok(plan.tensor(vectors.num_rows(), data(plan)?))).collect()
    }
}

impl TensorPlan {
    /// Fills the tensor column by column; the type of a column is looked at once, not for each cell.
    fn fill<T: Cell>(&self, vectors: &RecordBatch) -> Result<Vec<T>, EngineError> {
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
struct Strip<'a, T> {
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
trait Cell: StandIn + Clone + Default {
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
    ($cell:ty) => {
        impl Cell for $cell {
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

number_cell!(f32);
number_cell!(f64);
number_cell!(i32);
number_cell!(i64);

impl Cell for bool {
    fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError> {
        match values.as_boolean_opt() {
            Some(values) => strip.write(|i| values.value(i)),
            None => Err(refused(values, &strip, "bool")),
        }
    }
}

impl Cell for String {
    fn place(values: &dyn Array, strip: Strip<'_, Self>) -> Result<(), EngineError> {
        match values.as_string_opt::<i32>() {
            Some(values) => strip.write(|i| values.value(i).to_owned()),
            None => Err(refused(values, &strip, "string")),
        }
    }
}
