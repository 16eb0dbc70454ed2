//! Which columns are a model's outputs?
//!
//! Whatever ONNX calls it, an output becomes an Arrow column with a row for each row that went in: `[N]` and `[N, 1]`
//! plain values, `[N, K]` lists of length K, and so on; a ZipMap (`sequence<map<key, float32>>`) a map in each row; a
//! sequence of tensors, one for each target of a model, a list with a place for each. The model says which it is, not a
//! run: where K is left open, a run with a K of 1 gives lists of one. Where a model takes one row at a time, an output
//! that does not count rows is that row's.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float32Builder, Float64Array,
    Int32Array, Int64Array, Int64Builder, MapBuilder, StringArray, StringBuilder, UInt64Array,
};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use half::{bf16, f16};
use ort::session::Session;
use ort::value::{DynValue, DynValueTypeMarker, TensorElementType, ValueType};
use quern_engine::fit::{Element, Port, Signature};

/// The type and shape of an input or output, as the engine knows them.
pub(crate) fn element_and_shape(dtype: &ValueType) -> (Element, Vec<Option<usize>>) {
    match dtype {
        ValueType::Tensor { ty, shape, .. } => {
            (element(*ty), shape.iter().map(|dim| usize::try_from(*dim).ok()).collect())
        }
        ValueType::Optional(inner) => element_and_shape(inner),
        other => (Element::Other(other.to_string()), Vec::new()),
    }
}

fn element(dtype: TensorElementType) -> Element {
    match dtype {
        TensorElementType::Float16 => Element::Float16,
        TensorElementType::Bfloat16 => Element::BFloat16,
        TensorElementType::Float32 => Element::Float32,
        TensorElementType::Float64 => Element::Float64,
        TensorElementType::Int8 => Element::Int8,
        TensorElementType::Int16 => Element::Int16,
        TensorElementType::Int32 => Element::Int32,
        TensorElementType::Int64 => Element::Int64,
        TensorElementType::Uint8 => Element::UInt8,
        TensorElementType::Uint16 => Element::UInt16,
        TensorElementType::Uint32 => Element::UInt32,
        TensorElementType::Uint64 => Element::UInt64,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::String => Element::String,
        other => Element::Other(other.to_string()),
    }
}

/// How many rows a session takes at a time, where its file fixes that.
pub(crate) fn rows_at_a_time(session: &Session) -> Option<usize> {
    let shapes = session.inputs().iter().filter_map(|input| input.dtype().tensor_shape());
    let mut firsts = shapes.filter_map(|shape| usize::try_from(*shape.first()?).ok());
    // None at all, and several numbers, were refused.
    firsts.find(|rows| *rows > 0)
}

/// More of them are no answer.
const LISTS_OF_NOTHING_MAX: usize = 1 << 20;

/// How many rows went in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    /// Whether the model never takes more than this one.
    pub(crate) is_alone: bool,
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

/// The columns that a session gives, as far as its file says; none where it leaves anything open.
pub(crate) fn declared(session: &Session) -> Option<SchemaRef> {
    let is_alone = rows_at_a_time(session) == Some(1);
    let field = |output: &ort::value::Outlet| {
        Some(Field::new(output.name(), declared_type(output.dtype(), is_alone)?, true))
    };
    let fields = session.outputs().iter().map(field).collect::<Option<Vec<_>>>()?;
    Some(Arc::new(Schema::new(fields)))
}

fn declared_type(declared: &ValueType, is_alone: bool) -> Option<DataType> {
    match declared {
        ValueType::Tensor { ty, shape, .. } => {
            let says = Says::of(declared);
            // Nothing said of the shape is no shape either.
            let counts_rows = says.counts_rows? || !is_alone;
            let dims = &shape[usize::from(counts_rows)..];
            let dims = if says.is_plain && dims == [1] { &[] } else { dims };
            let item = element(*ty).given_as()?;
            dims.iter().rev().try_fold(item, |item, dim| {
                let length = i32::try_from(*dim).ok().filter(|length| *length >= 0)?;
                Some(DataType::FixedSizeList(Arc::new(Field::new("item", item, true)), length))
            })
        }
        ValueType::Sequence(item) => match **item {
            ValueType::Map { key, value: TensorElementType::Float32 } => empty_maps(key),
            _ => None,
        },
        ValueType::Optional(inner) => declared_type(inner, is_alone),
        ValueType::Map { .. } => None,
    }
}

/// What a model calls an output, as far as it decides what a run's output is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Says {
    /// One value for each row.
    pub(crate) is_plain: bool,
    /// Whether its first dimension is the row, which it is where its length is open; where there is no shape, a run
    /// tells.
    pub(crate) counts_rows: Option<bool>,
}

impl Says {
    pub(crate) fn of(declared: &ValueType) -> Says {
        Says::of_shape(declared.tensor_shape().map(|shape| &shape[..]).unwrap_or_default())
    }

    /// What a shape says, in which -1 is open.
    pub(crate) fn of_shape(shape: &[i64]) -> Says {
        let counts_rows = shape.first().map(|first| matches!(first, 1 | -1));
        Says { is_plain: matches!(shape, [] | [_] | [_, 1]), counts_rows }
    }
}

/// One output of a run, which the model `says` to be so.
pub(crate) fn column(value: &DynValue, went_in: Shape, says: Says) -> Result<ArrayRef, String> {
    match value.dtype() {
        ValueType::Tensor { ty, shape, .. } => folded(cells(value, *ty)?, shape, went_in, says),
        ValueType::Sequence(item) => match **item {
            ValueType::Map { key, value: TensorElementType::Float32 } => maps(value, key, went_in.rows),
            ValueType::Tensor { .. } => targets(value, went_in),
            _ => Err(unknown(value)),
        },
        _ => Err(unknown(value)),
    }
}

/// Row-major cells of this shape as a column; lists of one are plain values where the model says so. Of a model that
/// takes one row alone, an output counts rows where it says so, whatever comes of a run.
pub(crate) fn folded(cells: ArrayRef, shape: &[i64], went_in: Shape, says: Says) -> Result<ArrayRef, String> {
    let Shape { rows, is_alone } = went_in;
    let has_row = shape.first() == i64::try_from(rows).ok().as_ref();
    let counts_rows = has_row && !(is_alone && says.counts_rows == Some(false));
    if !counts_rows && (!is_alone || says.counts_rows == Some(true)) {
        return Err(format!(
            "has the shape {shape:?}, which is not one row for each of the {rows} that went in"
        ));
    }
    let dims = &shape[usize::from(counts_rows)..];
    let dims = if says.is_plain && dims == [1] { &[] } else { dims };
    // Of lists of nothing there may be any number, and each takes room when it is shown.
    let lists = dims.iter().filter(|dim| **dim != 0).try_fold(rows, |lists, dim| {
        lists.checked_mul(usize::try_from(*dim).ok()?).filter(|lists| *lists <= LISTS_OF_NOTHING_MAX)
    });
    if dims.contains(&0) && lists.is_none() {
        return Err(format!("has the shape {shape:?}, which holds nothing"));
    }
    let wanted = dims.iter().try_fold(rows, |cells, dim| cells.checked_mul(usize::try_from(*dim).ok()?));
    if wanted != Some(cells.len()) {
        return Err(format!("has the shape {shape:?} and {} values", cells.len()));
    }
    nested(cells, rows, dims)
}

fn unknown(value: &DynValue) -> String {
    format!(
        "is a {}, which no reply can hold; name the others under `outputs`, or export the model with tensors or a ZipMap \
         as its outputs",
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
        TensorElementType::Float16 => cells!(f16, Float32Array),
        TensorElementType::Bfloat16 => cells!(bf16, Float32Array),
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

/// A tensor for each target of a model: in each row a list of them.
fn targets(value: &DynValue, went_in: Shape) -> Result<ArrayRef, String> {
    let tensors =
        value.try_extract_sequence::<DynValueTypeMarker>().map_err(|error| error.message().to_owned())?;
    let says = Says { is_plain: false, counts_rows: None };
    let columns = tensors.iter().map(|tensor| column(tensor, went_in, says));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let Some(first) = columns.first() else { return Err("is an empty sequence".to_owned()) };
    let said = |error: ArrowError| error.to_string();
    // Targets may have different numbers of classes.
    let dtype = match (first.data_type(), columns.iter().all(|one| one.data_type() == first.data_type())) {
        (DataType::FixedSizeList(item, _), false) => DataType::List(Arc::clone(item)),
        (dtype, _) => dtype.clone(),
    };
    let columns = columns.iter().map(|column| cast(column, &dtype));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(said)?;
    let places: Vec<(usize, usize)> =
        (0..went_in.rows).flat_map(|row| (0..columns.len()).map(move |target| (target, row))).collect();
    let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    let items = interleave(&columns, &places).map_err(said)?;
    let count = i32::try_from(columns.len()).map_err(|error| error.to_string())?;
    let item = Arc::new(Field::new("item", dtype, true));
    let lists = FixedSizeListArray::try_new(item, count, items, None);
    lists.map(|lists| Arc::new(lists) as ArrayRef).map_err(said)
}

/// The type of maps with such keys.
fn empty_maps(key: TensorElementType) -> Option<DataType> {
    let values = Float32Builder::new();
    match key {
        TensorElementType::Int64 => {
            Some(MapBuilder::new(None, Int64Builder::new(), values).finish().data_type().clone())
        }
        TensorElementType::String => {
            Some(MapBuilder::new(None, StringBuilder::new(), values).finish().data_type().clone())
        }
        _ => None,
    }
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
