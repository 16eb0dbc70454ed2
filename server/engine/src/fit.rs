//! Which tensors does a model get from a feature vector?
//!
//! A model takes either one tensor of shape `[N, F]`, the service's columns side by side in their order, or one
//! named input for each column (`[N]`, `[N, 1]`, or `[N, L]` for a list of fixed length). Both forms are the same
//! plan here: a tensor is filled column by column, and a named input is a tensor of one column.
//!
//! Architecture invariant: [`castable`] alone decides which types become which. It runs when definitions are
//! applied, so that filling a tensor can only fail on a null that nothing stands in for.

use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use feature_defs::{Literal, suggest};

use crate::schema::type_name;
use crate::{EngineError, Origin, ServicePlan};

/// Type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `bool`
    Bool,
    /// `string`, UTF-8
    String,
    /// Anything else, by the model's own name for it: no feature becomes one.
    Other(String),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::Float32 => "float32",
            Element::Float64 => "float64",
            Element::Int32 => "int32",
            Element::Int64 => "int64",
            Element::Bool => "bool",
            Element::String => "string",
            Element::Other(name) => name,
        })
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The model's name for it.
    pub name: String,
    /// Type of the elements.
    pub element: Element,
    /// Length of each dimension, `None` where it is free; empty where the model does not say.
    pub shape: Vec<Option<usize>>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.name, self.element)?;
        let dims = self.shape.iter().enumerate().map(|(i, dim)| match dim {
            Some(length) => length.to_string(),
            None if i == 0 => "N".to_owned(),
            None => "?".to_owned(),
        });
        if self.shape.is_empty() { Ok(()) } else { write!(f, " [{}]", dims.collect::<Vec<_>>().join(", ")) }
    }
}

/// What goes into a model and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// Inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Port>,
}

/// One input of a model, filled: row-major, the first dimension is the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The model's name for it.
    pub name: String,
    /// `[N]` or `[N, width]`.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TensorData {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

/// How the columns of a feature service become the inputs of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    tensors: Vec<TensorPlan>,
}

#[derive(Debug, Clone, PartialEq)]
struct TensorPlan {
    name: String,
    element: Element,
    /// `[N]` rather than `[N, 1]`.
    flat: bool,
    /// Elements in a row.
    width: usize,
    slices: Vec<Slice>,
}

/// The part of a tensor's row that one column fills.
#[derive(Debug, Clone, PartialEq)]
struct Slice {
    column: usize,
    name: String,
    offset: usize,
    width: usize,
    default: Option<Literal>,
}

impl Fit {
    /// Fits the outputs of `service` to the inputs of a model.
    ///
    /// # Errors
    /// Everything that does not fit, followed by both shapes side by side.
    pub fn new(service: &ServicePlan, signature: &Signature) -> Result<Fit, String> {
        let features: Vec<Feature<'_>> = service
            .outputs
            .fields()
            .iter()
            .zip(&service.origins)
            .zip(&service.defaults)
            .map(|((field, origin), default)| Feature {
                name: field.name(),
                dtype: field.data_type(),
                default: default.as_ref(),
                null: match origin {
                    _ if !field.is_nullable() => Null::Never,
                    // A join key cannot declare a default; a null one fails its request, not the apply.
                    Origin::Input(i) if *i < service.key_count => Null::Refused,
                    _ => Null::Possible,
                },
            })
            .collect();
        fit(&features, signature).map_err(|mistakes| {
            let mistakes: String = mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect();
            let shapes = side_by_side(&service.name, &features, signature);
            format!("the model does not fit feature service `{}`:{mistakes}\n{shapes}", service.name)
        })
    }

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

    /// Inputs of `rows` rows that hold zeros, `false` and empty strings, to try a model with.
    pub fn zeros(&self, rows: usize) -> Vec<Tensor> {
        let zeros = |plan: &TensorPlan| {
            let cells = rows * plan.width;
            match plan.element {
                Element::Float32 => TensorData::Float32(vec![0.0; cells]),
                Element::Float64 => TensorData::Float64(vec![0.0; cells]),
                Element::Int32 => TensorData::Int32(vec![0; cells]),
                Element::Int64 => TensorData::Int64(vec![0; cells]),
                Element::Bool => TensorData::Bool(vec![false; cells]),
                Element::String | Element::Other(_) => TensorData::String(vec![String::new(); cells]),
            }
        };
        self.tensors.iter().map(|plan| plan.tensor(rows, zeros(plan))).collect()
    }
}

/// One column of a service, as a model sees it.
struct Feature<'a> {
    name: &'a str,
    dtype: &'a DataType,
    default: Option<&'a Literal>,
    null: Null,
}

#[derive(Clone, Copy, PartialEq)]
enum Null {
    Never,
    Possible,
    Refused,
}

fn fit(features: &[Feature<'_>], signature: &Signature) -> Result<Fit, Vec<String>> {
    let mut mistakes = Vec::new();
    let all: Vec<usize> = (0..features.len()).collect();
    let tensors = match signature.inputs.as_slice() {
        [] => {
            mistakes.push("the model has no input".to_owned());
            Vec::new()
        }
        [input] if !(features.len() == 1 && features[0].name == input.name) => {
            vec![tensor_plan(input, &all, features, &mut mistakes)]
        }
        inputs => {
            let names = || features.iter().map(|feature| feature.name);
            for feature in
                features.iter().filter(|feature| inputs.iter().all(|input| input.name != feature.name))
            {
                let known = suggest(feature.name, inputs.iter().map(|input| input.name.as_str()));
                mistakes.push(format!(
                    "no input of the model is named `{}` ({known}); leave it out of the service's `outputs`",
                    feature.name
                ));
            }
            let mut plans = Vec::new();
            for input in inputs {
                match names().position(|name| name == input.name) {
                    Some(column) => plans.push(tensor_plan(input, &[column], features, &mut mistakes)),
                    None => mistakes.push(format!(
                        "no column of the service is named `{}`, as the model's input is ({})",
                        input.name,
                        suggest(&input.name, names())
                    )),
                }
            }
            plans
        }
    };
    if mistakes.is_empty() { Ok(Fit { tensors }) } else { Err(mistakes) }
}

/// Plans one input from `columns`, side by side.
fn tensor_plan(
    input: &Port,
    columns: &[usize],
    features: &[Feature<'_>],
    mistakes: &mut Vec<String>,
) -> TensorPlan {
    let mut width = 0;
    let mut slices = Vec::with_capacity(columns.len());
    for &column in columns {
        let feature = &features[column];
        let slice = castable(feature.dtype, &input.element)
            .and_then(|()| stands_in(feature, &input.element))
            .and_then(|default| Ok((default, width_of(feature.dtype)?)));
        match slice {
            Ok((default, slice_width)) => {
                slices.push(Slice {
                    column,
                    name: feature.name.to_owned(),
                    offset: width,
                    width: slice_width,
                    default,
                });
                width += slice_width;
            }
            Err(cause) => mistakes.push(format!("`{}`: {cause}", feature.name)),
        }
    }
    // A width that misses a column would only repeat that column's mistake.
    if slices.len() == columns.len() {
        mistakes.extend(shape_mistake(input, width));
    }
    TensorPlan {
        name: input.name.clone(),
        element: input.element.clone(),
        flat: input.shape.len() == 1,
        width,
        slices,
    }
}

/// The one rule of casts: whether values of type `from` may stand in a tensor of `to`, and if not, the way out.
fn castable(from: &DataType, to: &Element) -> Result<(), String> {
    use DataType::{Boolean, FixedSizeList, Float32, Float64, Int32, Int64, List, Utf8};
    let no = |help: &str| Err(format!("{} does not become {to}{help}", type_name(from)));
    match (from, to) {
        (_, Element::Other(_)) => {
            no(": a model takes float32, float64, int32, int64, bool or string; export it anew")
        }
        (FixedSizeList(item, _) | List(item), to) => castable(item.data_type(), to),
        (Boolean | Int32 | Int64 | Float32 | Float64, Element::Float32 | Element::Float64)
        | (Boolean | Int32 | Int64, Element::Int64)
        | (Boolean | Int32, Element::Int32)
        | (Boolean, Element::Bool)
        | (Utf8, Element::String) => Ok(()),
        (Int64, Element::Int32) => no(", it may be too large: declare the feature's `type: int32`"),
        (Float32 | Float64, Element::Int32 | Element::Int64) => {
            no(", it would lose its fraction: declare the feature's type or round it in a derived feature")
        }
        (DataType::Timestamp(_, _) | DataType::Date32, Element::Float32 | Element::Float64) => {
            no(": derive a number from it, as `date_part('hour', ...)` does")
        }
        (Utf8, _) => no(": derive a number from it, or give the model a string input"),
        _ => no(": derive a feature of the model's type from it"),
    }
}

/// What stands in for null: nothing is needed where NaN does or where null cannot be.
fn stands_in(feature: &Feature<'_>, element: &Element) -> Result<Option<Literal>, String> {
    if matches!(element, Element::Float32 | Element::Float64) || feature.null == Null::Never {
        return Ok(None);
    }
    let Some(default) = feature.default else {
        return match feature.null {
            Null::Possible => {
                Err(format!("may be null, and the model's input is {element}: declare `default:`"))
            }
            Null::Never | Null::Refused => Ok(None),
        };
    };
    let fits = match element {
        Element::Int32 => i32::literal(default).is_some(),
        Element::Int64 => i64::literal(default).is_some(),
        Element::Bool => bool::literal(default).is_some(),
        Element::String => String::literal(default).is_some(),
        Element::Float32 | Element::Float64 | Element::Other(_) => true,
    };
    if fits { Ok(Some(default.clone())) } else { Err(format!("its default {default:?} is no {element}")) }
}

fn width_of(dtype: &DataType) -> Result<usize, String> {
    match dtype {
        DataType::FixedSizeList(_, length) => Ok(usize::try_from(*length).unwrap_or_default()),
        DataType::List(_) => Err(format!(
            "{} may have any length, a model's input has one: declare the length, as in `list<float32, 8>`",
            type_name(dtype)
        )),
        _ => Ok(1),
    }
}

fn shape_mistake(input: &Port, width: usize) -> Option<String> {
    let name = &input.name;
    let columns = match input.shape.as_slice() {
        [] => return None,
        [Some(rows), ..] => {
            return Some(format!(
                "input `{name}` takes exactly {rows} row(s) at a time: export the model with a free first dimension"
            ));
        }
        [None] => 1,
        [None, None] => return None,
        [None, Some(columns)] => *columns,
        _ => {
            return Some(format!(
                "input `{name}` has {} dimensions, at most 2 are filled",
                input.shape.len()
            ));
        }
    };
    (columns != width)
        .then(|| format!("input `{name}` takes {columns} value(s) a row, the service has {width}"))
}

/// The columns of the service beside the inputs of the model.
fn side_by_side(service: &str, features: &[Feature<'_>], signature: &Signature) -> String {
    let left: Vec<String> = std::iter::once(format!("feature service `{service}`"))
        .chain(features.iter().map(|feature| format!("  {}  {}", feature.name, type_name(feature.dtype))))
        .collect();
    let right: Vec<String> = std::iter::once("model".to_owned())
        .chain(signature.inputs.iter().map(|input| format!("  {input}")))
        .collect();
    let width = left.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let mut lines = String::new();
    for i in 0..left.len().max(right.len()) {
        let (l, r) = (left.get(i).map_or("", String::as_str), right.get(i).map_or("", String::as_str));
        lines.push_str(format!("{l:width$}  |  {r}").trim_end());
        lines.push('\n');
    }
    lines.pop();
    lines
}

impl TensorPlan {
    fn tensor(&self, rows: usize, data: TensorData) -> Tensor {
        let shape = if self.flat { vec![rows] } else { vec![rows, self.width] };
        Tensor { name: self.name.clone(), shape, data }
    }

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
trait Cell: Clone + Default {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array, StringArray,
    };
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn port(name: &str, element: Element, shape: &[Option<usize>]) -> Port {
        Port { name: name.to_owned(), element, shape: shape.to_vec() }
    }

    fn feature<'a>(name: &'a str, dtype: &'a DataType) -> Feature<'a> {
        Feature { name, dtype, default: None, null: Null::Possible }
    }

    fn model(inputs: &[Port]) -> Signature {
        Signature { inputs: inputs.to_vec(), outputs: Vec::new() }
    }

    fn embedding(length: i32) -> DataType {
        DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), length)
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap()
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        match &tensor.data {
            TensorData::Float32(cells) => cells.clone(),
            other => panic!("expected float32, got {other:?}"),
        }
    }

    #[test]
    fn one_tensor_holds_the_columns_side_by_side() {
        let list = embedding(2);
        let features =
            [feature("late", &DataType::Boolean), feature("n", &DataType::Int64), feature("e", &list)];
        let fit = fit(&features, &model(&[port("input", Element::Float32, &[None, Some(4)])])).unwrap();
        let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some([Some(0.5), None]), None, Some([Some(1.5), Some(2.5)])],
            2,
        );
        let vectors = batch(vec![
            ("late", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("n", Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)]))),
            ("e", Arc::new(lists)),
        ]);
        let tensors = fit.tensors(&vectors).unwrap();
        assert_eq!((tensors[0].name.as_str(), tensors[0].shape.as_slice()), ("input", [3, 4].as_slice()));
        let shown: Vec<String> = floats(&tensors[0]).iter().map(f32::to_string).collect();
        assert_eq!(shown.join(" "), "1 7 0.5 NaN 0 NaN NaN NaN NaN -1 1.5 2.5");
    }

    #[test]
    fn a_slice_of_a_batch_fills_like_the_batch() {
        let list = embedding(2);
        let features = [feature("e", &list)];
        let fit = fit(&features, &model(&[port("input", Element::Float32, &[None, None])])).unwrap();
        let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some([Some(1.0), Some(2.0)]), Some([Some(3.0), Some(4.0)])],
            2,
        );
        let vectors = batch(vec![("e", Arc::new(lists))]).slice(1, 1);
        assert_eq!(floats(&fit.tensors(&vectors).unwrap()[0]), [3.0, 4.0]);
    }

    #[test]
    fn named_inputs_take_strings_and_defaults_in_the_models_order() {
        let carrier_default = Literal::String("?".to_owned());
        let mut carrier = feature("carrier", &DataType::Utf8);
        carrier.default = Some(&carrier_default);
        let mut hour = feature("hour", &DataType::Int32);
        hour.default = Some(&Literal::Int(-1));
        let inputs =
            [port("hour", Element::Int64, &[None]), port("carrier", Element::String, &[None, Some(1)])];
        let fit = fit(&[carrier, hour], &model(&inputs)).unwrap();
        let vectors = batch(vec![
            ("carrier", Arc::new(StringArray::from(vec![Some("UA"), None]))),
            ("hour", Arc::new(Int32Array::from(vec![None, Some(5)]))),
        ]);
        let tensors = fit.tensors(&vectors).unwrap();
        assert_eq!((&tensors[0].shape, &tensors[0].data), (&vec![2], &TensorData::Int64(vec![-1, 5])));
        let carriers = TensorData::String(vec!["UA".to_owned(), "?".to_owned()]);
        assert_eq!((&tensors[1].shape, &tensors[1].data), (&vec![2, 1], &carriers));
        assert_eq!(fit.zeros(1)[0].data, TensorData::Int64(vec![0]));
    }

    #[test]
    fn a_null_join_key_fails_its_request() {
        let mut key = feature("carrier", &DataType::Utf8);
        key.null = Null::Refused;
        let fit = fit(&[key], &model(&[port("carrier", Element::String, &[None, Some(1)])])).unwrap();
        let vectors = batch(vec![("carrier", Arc::new(StringArray::from(vec![Some("UA"), None])))]);
        let error = fit.tensors(&vectors).unwrap_err().to_string();
        assert_eq!(error, "instance 1, column `carrier`: is null, which the model's input has no value for");
    }

    fn mistakes(features: &[Feature<'_>], inputs: &[Port]) -> String {
        fit(features, &model(inputs)).unwrap_err().join("\n")
    }

    #[test]
    fn what_does_not_fit_is_said_before_anything_runs() {
        let timestamp = crate::schema::timestamp();
        let any = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
        let float = |name: &str| port(name, Element::Float32, &[None, Some(1)]);
        let cases = [
            mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[None, Some(2)])]),
            mistakes(
                &[feature("x", &DataType::Float64)],
                &[port("m", Element::Float32, &[Some(1), Some(1)])],
            ),
            mistakes(&[feature("x", &timestamp)], &[float("x")]),
            mistakes(&[feature("x", &any)], &[float("x")]),
            mistakes(&[feature("x", &DataType::Int64)], &[port("x", Element::Int64, &[None, Some(1)])]),
            mistakes(&[feature("x", &DataType::Float64)], &[port("x", Element::Int64, &[None, Some(1)])]),
            mistakes(&[feature("x", &DataType::Int64)], &[port("x", Element::Int32, &[None, Some(1)])]),
            mistakes(&[feature("x", &DataType::Utf8)], &[float("x")]),
            mistakes(
                &[feature("x", &DataType::Float32)],
                &[port("x", Element::Other("float16".into()), &[None])],
            ),
            mistakes(
                &[feature("distance", &DataType::Float64), feature("hour", &DataType::Int32)],
                &[float("distanc"), float("hour")],
            ),
            mistakes(&[], &[]),
        ];
        assert_eq!(
            cases.join("\n"),
            "\
input `m` takes 2 value(s) a row, the service has 1
input `m` takes exactly 1 row(s) at a time: export the model with a free first dimension
`x`: timestamp does not become float32: derive a number from it, as `date_part('hour', ...)` does
`x`: list<float32> may have any length, a model's input has one: declare the length, as in `list<float32, 8>`
`x`: may be null, and the model's input is int64: declare `default:`
`x`: float64 does not become int64, it would lose its fraction: declare the feature's type or round it in a derived feature
`x`: int64 does not become int32, it may be too large: declare the feature's `type: int32`
`x`: string does not become float32: derive a number from it, or give the model a string input
`x`: float32 does not become float16: a model takes float32, float64, int32, int64, bool or string; export it anew
no input of the model is named `distance` (did you mean `distanc`? known: distanc, hour); leave it out of the service's `outputs`
no column of the service is named `distanc`, as the model's input is (did you mean `distance`? known: distance, hour)
the model has no input"
        );
    }

    #[test]
    fn both_shapes_are_shown_side_by_side() {
        let features = [feature("distance", &DataType::Float64), feature("carrier", &DataType::Utf8)];
        let shapes =
            side_by_side("delay_v1", &features, &model(&[port("input", Element::Float32, &[None, Some(3)])]));
        assert_eq!(
            shapes,
            "\
feature service `delay_v1`  |  model
  distance  float64         |    input  float32 [N, 3]
  carrier  string           |"
        );
    }

    fn bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
        let of = |tensor: &Tensor| match &tensor.data {
            TensorData::Float32(cells) => cells.iter().map(|x| u64::from(x.to_bits())).collect(),
            TensorData::Float64(cells) => cells.iter().map(|x| x.to_bits()).collect(),
            other => panic!("no floats: {other:?}"),
        };
        tensors.iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn one_row_at_a_time_equals_the_batch(
            rows in prop::collection::vec(
                (any::<Option<bool>>(), any::<Option<i32>>(), any::<Option<i64>>(), any::<Option<f64>>(),
                 any::<Option<(Option<f32>, Option<f32>)>>()),
                1..40,
            ),
            double in any::<bool>(),
        ) {
            let list = embedding(2);
            let types = [DataType::Boolean, DataType::Int32, DataType::Int64, DataType::Float64, list];
            let names = ["a", "b", "c", "d", "e"];
            let features: Vec<Feature<'_>> = names.iter().zip(&types).map(|(n, t)| feature(n, t)).collect();
            let element = if double { Element::Float64 } else { Element::Float32 };
            let matrix = fit(&features, &model(&[port("m", element.clone(), &[None, Some(6)])])).unwrap();
            let ports: Vec<Port> = names
                .iter()
                .map(|name| port(name, element.clone(), &[None, Some(if *name == "e" { 2 } else { 1 })]))
                .collect();
            let named = fit(&features, &model(&ports)).unwrap();

            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|r| r.0).collect::<BooleanArray>()),
                Arc::new(rows.iter().map(|r| r.1).collect::<Int32Array>()),
                Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|r| r.3).collect::<Float64Array>()),
                Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                    rows.iter().map(|r| r.4.map(|(x, y)| [x, y])), 2,
                )),
            ];
            let fields: Vec<Field> =
                names.iter().zip(&types).map(|(name, dtype)| Field::new(*name, dtype.clone(), true)).collect();
            let vectors = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();

            let all = bits(&matrix.tensors(&vectors).unwrap());
            let by_name = bits(&named.tensors(&vectors).unwrap());
            for row in 0..rows.len() {
                let one = vectors.slice(row, 1);
                let single = bits(&matrix.tensors(&one).unwrap());
                prop_assert_eq!(&single[0][..], &all[0][row * 6..row * 6 + 6]);
                // The named form holds the same cells, cut at the columns.
                let singles: Vec<u64> = bits(&named.tensors(&one).unwrap()).concat();
                prop_assert_eq!(&singles, &single[0]);
                let cut: Vec<u64> = by_name.iter().flat_map(|cells| {
                    let width = cells.len() / rows.len();
                    cells[row * width..(row + 1) * width].to_vec()
                }).collect();
                prop_assert_eq!(&cut, &single[0]);
            }
        }

        #[test]
        fn a_matrix_cell_is_a_plain_cast(values in prop::collection::vec(any::<Option<f64>>(), 1..50)) {
            let features = [feature("x", &DataType::Float64)];
            let fit = fit(&features, &model(&[port("m", Element::Float32, &[None, Some(1)])])).unwrap();
            let vectors = batch(vec![("x", Arc::new(Float64Array::from(values.clone())))]);
            let oracle: Vec<u32> =
                values.iter().map(|x| x.map_or(f32::NAN, |x| x as f32).to_bits()).collect();
            let cells = floats(&fit.tensors(&vectors).unwrap()[0]);
            prop_assert_eq!(cells.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), oracle);
        }
    }
}
