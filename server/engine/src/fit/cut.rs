//! Which feature vectors are in the tensors that a model takes? The way back of [`super::fill`].

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, RecordBatch, RecordBatchOptions, UInt64Array,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};

use super::signature::Element;
use super::{Fit, TensorPlan};
use crate::error::{EngineError, in_words};
use crate::schema::type_name;

impl Element {
    /// The Arrow type of its values as a model gives them, a wider one where features have none so narrow; none for
    /// what no feature becomes.
    pub fn given_as(&self) -> Option<DataType> {
        Some(match self {
            Element::Float16 | Element::BFloat16 | Element::Float32 => DataType::Float32,
            Element::Float64 => DataType::Float64,
            Element::Int8 | Element::Int16 | Element::Int32 | Element::UInt8 | Element::UInt16 => {
                DataType::Int32
            }
            Element::Int64 | Element::UInt32 => DataType::Int64,
            Element::UInt64 => DataType::UInt64,
            Element::Bool => DataType::Boolean,
            Element::String => DataType::Utf8,
            Element::Other(_) => return None,
        })
    }

    /// The same as it is taken: features have no whole numbers that are larger.
    pub fn arrow_type(&self) -> Option<DataType> {
        match self {
            Element::UInt64 => Some(DataType::Int64),
            element => element.given_as(),
        }
    }
}

impl Fit {
    /// The feature vectors that become these inputs of the model, with the columns of `features`, which the fit was
    /// made for. `inputs` are in the model's order, each the cells of a tensor of `rows` rows, row-major.
    ///
    /// # Errors
    /// A tensor of another width, a value that its feature cannot have.
    pub fn vectors(
        &self,
        features: &SchemaRef,
        inputs: &[ArrayRef],
        rows: usize,
    ) -> Result<RecordBatch, EngineError> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; features.fields().len()];
        for (plan, cells) in self.tensors.iter().zip(inputs) {
            plan.cut(features, cells, rows, &mut columns)?;
        }
        // What a map leaves out, the model does not read.
        let columns = columns.into_iter().zip(features.fields());
        let columns =
            columns.map(|(column, field)| column.unwrap_or_else(|| new_null_array(field.data_type(), rows)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(features), columns.collect(), &options)?)
    }
}

impl TensorPlan {
    fn cut(
        &self,
        features: &SchemaRef,
        cells: &ArrayRef,
        rows: usize,
        columns: &mut [Option<ArrayRef>],
    ) -> Result<(), EngineError> {
        let wrong = |what: &str, cause| EngineError::Evaluate { what: format!("input {what}"), cause };
        if cells.len() != rows * self.width {
            let (width, found) = (self.width, cells.len());
            let cause = format!("takes {width} value(s) a row, and {rows} row(s) bring {found}");
            return Err(wrong(&format!("`{}`", self.name), cause));
        }
        for slice in &self.slices {
            let starts = (0..rows).map(|row| row * self.width + slice.offset);
            let places: UInt64Array =
                starts.flat_map(|start| start..start + slice.width).map(|at| at as u64).collect();
            let cells = take(cells, &places, None)?;
            let blame = |cause| wrong(&format!("`{}`, feature `{}`", self.name, slice.name), cause);
            let dtype = features.field(slice.column).data_type();
            let column = folded(&cells, dtype).map_err(blame)?;
            if columns[slice.column].as_ref().is_some_and(|known| known.to_data() != column.to_data()) {
                return Err(blame(
                    "fills several places, and these bring different values for it".to_owned(),
                ));
            }
            columns[slice.column] = Some(column);
        }
        Ok(())
    }
}

/// Cells as values of type `to`, in lists where it is one.
fn folded(cells: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let DataType::FixedSizeList(item, length) = to else { return as_type(cells, to) };
    let items = folded(cells, item.data_type())?;
    let lists = FixedSizeListArray::try_new(Arc::clone(item), *length, items, None);
    lists.map(|lists| Arc::new(lists) as ArrayRef).map_err(|error| in_words(&error))
}

/// The cells of a tensor as values of type `to`: numbers as wider numbers, as whole ones where they are whole, as
/// booleans where they are 0 or 1. NaN is null where `to` has none: so a tensor of floats holds nulls, and so does
/// pandas.
///
/// # Errors
/// What cannot become `to`.
pub fn as_type(cells: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    use DataType::{Boolean, Float32, Float64, Int32, Int64};
    let cast = |cells: &ArrayRef, to: &DataType| {
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(cells, to, &exact).map_err(|error| in_words(&error))
    };
    match (cells.data_type(), to) {
        (from, to) if from == to => Ok(Arc::clone(cells)),
        (Boolean, Int32 | Int64 | Float32 | Float64)
        | (Int32, Int64 | Float32 | Float64)
        | (Int64, Int32 | Float32 | Float64)
        | (Float32, Float64) => cast(cells, to),
        (Float32 | Float64, Int32 | Int64) => cast(&whole(cells)?, to),
        (Int32 | Int64 | Float32 | Float64, Boolean) => {
            let truth = |n: i64| match n {
                0 => Ok(false),
                1 => Ok(true),
                other => Err(format!("{other} is neither 0 nor 1, as a bool is")),
            };
            let whole = whole(cells)?;
            let truths = whole.as_primitive::<Int64Type>().iter().map(|n| n.map(truth).transpose());
            Ok(Arc::new(truths.collect::<Result<BooleanArray, String>>()?))
        }
        (from, to) => Err(format!("{} does not become {}", type_name(from), type_name(to))),
    }
}

/// Numbers as whole ones, NaN as null.
fn whole(cells: &ArrayRef) -> Result<ArrayRef, String> {
    // Above 2^53 a double names no single whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if cells.data_type().is_integer() {
        return cast_with_options(cells, &DataType::Int64, &CastOptions::default())
            .map_err(|error| in_words(&error));
    }
    let doubles = as_type(cells, &DataType::Float64)?;
    let whole = doubles.as_primitive::<Float64Type>().iter().map(|x| match x {
        None => Ok(None),
        Some(x) if x.is_nan() => Ok(None),
        Some(x) if x.fract() == 0.0 && x.abs() <= EXACT_MAX => Ok(Some(x as i64)),
        Some(x) => Err(format!("{x} is not a whole number")),
    });
    Ok(Arc::new(whole.collect::<Result<arrow::array::Int64Array, String>>()?))
}
