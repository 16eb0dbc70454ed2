//! Which columns are a model's outputs?
//!
//! Whatever ONNX calls it, an output becomes an Arrow column with a row for each row that went in: `[N]` and `[N, 1]`
//! plain values, `[N, K]` lists of length K, and so on; a ZipMap (`sequence<map<key, float32>>`) a map in each row. The
//! model says which it is, not a run: where K is left open, a run with a K of 1 gives lists of one.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float32Builder, Float64Array, Int32Array,
    Int64Array, Int64Builder, MapBuilder, StringArray, StringBuilder, UInt64Array,
};
use arrow::datatypes::{ArrowPrimitiveType, Field, Float16Type};
use ort::session::Session;
use ort::value::{DynValue, DynValueTypeMarker, TensorElementType, ValueType};
use quern_engine::fit::{Element, Port, Signature};

/// The type and shape of an input or output, as the engine knows them.
pub(crate) fn element_and_shape(dtype: &ValueType) -> (Element, Vec<Option<usize>>) {
    match dtype {
        ValueType::Tensor { ty, shape, .. } => {
            let element = match ty {
                TensorElementType::Float32 => Element::Float32,
                TensorElementType::Float64 => Element::Float64,
                TensorElementType::Int32 => Element::Int32,
                TensorElementType::Int64 => Element::Int64,
                TensorElementType::Bool => Element::Bool,
                TensorElementType::String => Element::String,
                other => Element::Other(other.to_string()),
            };
            (element, shape.iter().map(|dim| usize::try_from(*dim).ok()).collect())
        }
        other => (Element::Other(other.to_string()), Vec::new()),
    }
}

/// The inputs and outputs of a session.
pub(crate) fn signature(session: &Session) -> Signature {
    let ports = |outlets: &[ort::value::Outlet]| {
        let port = |outlet: &ort::value::Outlet| {
            let (element, shape) = element_and_shape(outlet.dtype());
            Port { name: outlet.name().to_owned(), element, shape }
        };
        outlets.iter().map(port).collect()
    };
    Signature { inputs: ports(session.inputs()), outputs: ports(session.outputs()) }
}

/// Whether what a model calls so is one value for each row.
pub(crate) fn is_plain(declared: &ValueType) -> bool {
    declared.tensor_shape().is_none_or(|shape| matches!(shape[..], [] | [_, 1]))
}

/// One output of a run on `rows` rows; lists of one are plain values where it `is_plain`.
pub(crate) fn column(value: &DynValue, rows: usize, is_plain: bool) -> Result<ArrayRef, String> {
    match value.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            if shape.first() != i64::try_from(rows).ok().as_ref() {
                return Err(format!(
                    "has the shape {shape}, which is not one row for each of the {rows} that went in"
                ));
            }
            let dims = if is_plain && shape[1..] == [1] { &[] } else { &shape[1..] };
            nested(cells(value, *ty)?, rows, dims)
        }
        ValueType::Sequence(item) => match **item {
            ValueType::Map { key, value: TensorElementType::Float32 } => maps(value, key, rows),
            _ => Err(unknown(value)),
        },
        _ => Err(unknown(value)),
    }
}

fn unknown(value: &DynValue) -> String {
    format!(
        "is a {}, which no reply can hold; export the model with tensors or a ZipMap as its outputs",
        value.dtype()
    )
}

/// All cells of a tensor, row-major.
fn cells(value: &DynValue, element: TensorElementType) -> Result<ArrayRef, String> {
    macro_rules! cells {
        ($cell:ty, $array:ident) => {
            Arc::new($array::from_iter_values(slice::<$cell>(value)?.iter().map(|cell| (*cell).into())))
                as ArrayRef
        };
    }
    Ok(match element {
        // Wider types hold the same numbers, and whatever shows them need know no more.
        TensorElementType::Float16 => cells!(<Float16Type as ArrowPrimitiveType>::Native, Float32Array),
        TensorElementType::Float32 => cells!(f32, Float32Array),
        TensorElementType::Float64 => cells!(f64, Float64Array),
        TensorElementType::Int8 => cells!(i8, Int32Array),
        TensorElementType::Int16 => cells!(i16, Int32Array),
        TensorElementType::Int32 => cells!(i32, Int32Array),
        TensorElementType::Int64 => cells!(i64, Int64Array),
        TensorElementType::Uint8 => cells!(u8, Int32Array),
        TensorElementType::Uint16 => cells!(u16, Int32Array),
        TensorElementType::Uint32 => cells!(u32, Int64Array),
        TensorElementType::Uint64 => cells!(u64, UInt64Array),
        TensorElementType::Bool => Arc::new(BooleanArray::from(slice::<bool>(value)?.to_vec())),
        TensorElementType::String => {
            let (_, strings) = value.try_extract_strings().map_err(|error| error.to_string())?;
            Arc::new(StringArray::from(strings))
        }
        _ => return Err(unknown(value)),
    })
}

fn slice<T: ort::value::PrimitiveTensorElementType>(value: &DynValue) -> Result<&[T], String> {
    value.try_extract_tensor::<T>().map(|(_, cells)| cells).map_err(|error| error.to_string())
}

/// Folds row-major cells into `rows` rows of shape `dims`.
fn nested(cells: ArrayRef, rows: usize, dims: &[i64]) -> Result<ArrayRef, String> {
    (0..dims.len()).rev().try_fold(cells, |cells, depth| {
        let length = i32::try_from(dims[depth]).map_err(|error| error.to_string())?;
        // Of lists of nothing the items do not tell how many there are.
        let count = dims[..depth].iter().fold(rows, |count, dim| count * dim.unsigned_abs() as usize);
        let item = Arc::new(Field::new("item", cells.data_type().clone(), true));
        let lists = FixedSizeListArray::try_new_with_length(item, length, cells, None, count);
        Ok(Arc::new(lists.map_err(|error| error.to_string())?) as ArrayRef)
    })
}

fn maps(value: &DynValue, key: TensorElementType, rows: usize) -> Result<ArrayRef, String> {
    let said = |error: ort::Error| error.to_string();
    let maps = value.try_extract_sequence::<DynValueTypeMarker>().map_err(said)?;
    if maps.len() != rows {
        return Err(format!("has {} maps for the {rows} rows that went in", maps.len()));
    }
    // ONNX Runtime keeps the map sorted by key, so every row has the same keys in the same order.
    macro_rules! build {
        ($keys:expr, $key:ty) => {{
            let mut builder = MapBuilder::new(None, $keys, Float32Builder::new());
            for map in &maps {
                for (key, value) in map.try_extract_key_values::<$key, f32>().map_err(said)? {
                    builder.keys().append_value(key);
                    builder.values().append_value(value);
                }
                builder.append(true).map_err(|error| error.to_string())?;
            }
            Ok(Arc::new(builder.finish()) as ArrayRef)
        }};
    }
    match key {
        TensorElementType::Int64 => build!(Int64Builder::new(), i64),
        TensorElementType::String => build!(StringBuilder::new(), String),
        _ => Err(unknown(value)),
    }
}
