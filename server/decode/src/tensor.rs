//! What is a tensor of the Open Inference Protocol? A name, a datatype, a shape, and cells in row-major order.
//!
//! Cells come as JSON or as raw bytes (little-endian; a text is its length in four bytes, then itself), and go the same
//! two ways. In between they are an Arrow array.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, StringArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt64Type,
};
use feature_defs::epoch;
use quern_engine::fit::as_type;
use quern_engine::schema::{timestamp, type_name};

use crate::datatype::{Datatype, shape, shown};
use crate::error::{Error, Result};
use crate::json::{self, Json};
use crate::print::Value;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// A tensor. Its shape holds as many cells as it has.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its cells.
    pub datatype: Datatype,
    /// Length of each dimension; the first one counts the instances.
    pub shape: Vec<usize>,
    /// Row-major. Texts from JSON are `Utf8`, from bytes `Binary`; FP16 is `Float32`, which holds the same numbers.
    pub cells: ArrayRef,
}

/// What a request says of a tensor, beside its cells.
#[derive(Debug)]
pub struct Head {
    /// Its name.
    pub name: String,
    /// The type of its cells.
    pub datatype: Datatype,
    /// Length of each dimension.
    pub shape: Vec<usize>,
}

impl Head {
    /// Reads what is said of the tensor `name`.
    pub fn new(name: &str, datatype: &str, shape: &[i64]) -> Result<Head> {
        let datatype = Datatype::named(name, datatype)?;
        let dims = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<Vec<_>>>();
        let shape = dims.filter(|dims| !dims.is_empty()).ok_or_else(|| {
            Error::invalid(format!(
                "input `{name}`: the shape {shape:?} is none; its first number counts the instances"
            ))
        })?;
        Ok(Head { name: name.to_owned(), datatype, shape })
    }

    fn wrong(&self, cause: impl std::fmt::Display) -> Error {
        Error::invalid(format!("input `{}`: {cause}", self.name))
    }

    /// The tensor with these cells.
    ///
    /// # Errors
    /// Another number of cells than the shape has.
    pub fn with(self, cells: ArrayRef) -> Result<Tensor> {
        let wanted = self.shape.iter().try_fold(1_usize, |cells, dim| cells.checked_mul(*dim));
        if wanted != Some(cells.len()) {
            return Err(self.wrong(format!(
                "the shape {:?} does not hold {} values",
                self.shape,
                cells.len()
            )));
        }
        Ok(Tensor { name: self.name, datatype: self.datatype, shape: self.shape, cells })
    }

    /// The tensor with cells in JSON, nested or flat.
    pub fn with_json(self, data: &Json<'_>) -> Result<Tensor> {
        let mut flat = Vec::new();
        flatten(data, &mut flat);
        let cells = json::cells(&self.name, &self.datatype.held_as(), &flat)?;
        let cells = match cells.as_primitive_opt::<Float16Type>() {
            Some(halves) => Arc::new(halves.unary::<_, Float32Type>(Half::to_f32)),
            None => cells,
        };
        self.with(cells)
    }

    /// The tensor with cells in raw bytes.
    pub fn with_raw(self, bytes: &[u8]) -> Result<Tensor> {
        macro_rules! numbers {
            ($number:ty, $array:ident) => {{
                let (cells, rest) = bytes.as_chunks::<{ size_of::<$number>() }>();
                if !rest.is_empty() {
                    let (found, each) = (bytes.len(), size_of::<$number>());
                    return Err(self.wrong(format!("{found} bytes are not values of {each} bytes each")));
                }
                let cells = cells.iter().map(|cell| <$number>::from_le_bytes(*cell).into());
                Arc::new($array::from_iter_values(cells)) as ArrayRef
            }};
        }
        let cells = match self.datatype {
            Datatype::Bool => Arc::new(bytes.iter().map(|byte| Some(*byte != 0)).collect::<BooleanArray>()),
            Datatype::Int8 => numbers!(i8, Int32Array),
            Datatype::Int16 => numbers!(i16, Int32Array),
            Datatype::Int32 => numbers!(i32, Int32Array),
            Datatype::Int64 => numbers!(i64, Int64Array),
            Datatype::Uint8 => numbers!(u8, Int32Array),
            Datatype::Uint16 => numbers!(u16, Int32Array),
            Datatype::Uint32 => numbers!(u32, Int64Array),
            Datatype::Uint64 => {
                let (cells, rest) = bytes.as_chunks();
                if !rest.is_empty() {
                    return Err(self.wrong(format!("{} bytes are not values of 8 bytes each", bytes.len())));
                }
                let cells: Vec<u64> = cells.iter().map(|cell| u64::from_le_bytes(*cell)).collect();
                self.unsigned(&cells)?
            }
            Datatype::Fp16 => numbers!(Half, Float32Array),
            Datatype::Fp32 => numbers!(f32, Float32Array),
            Datatype::Fp64 => numbers!(f64, Float64Array),
            Datatype::Bytes => {
                let texts = texts(bytes).ok_or_else(|| {
                    self.wrong("the bytes break off; each value is its length in four bytes, then itself")
                })?;
                Arc::new(BinaryArray::from_vec(texts))
            }
        };
        self.with(cells)
    }

    /// Whole numbers without a sign, as far as those with one reach.
    pub fn unsigned(&self, cells: &[u64]) -> Result<ArrayRef> {
        let signed = |cell: &u64| {
            i64::try_from(*cell).map_err(|_| self.wrong(format!("{cell} is too large, even for INT64")))
        };
        Ok(Arc::new(Int64Array::from(cells.iter().map(signed).collect::<Result<Vec<_>>>()?)))
    }
}

fn flatten<'a>(json: &'a Json<'a>, into: &mut Vec<&'a Json<'a>>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        cell => into.push(cell),
    }
}

/// How long all `lists` are, and their items one after another.
fn of_one_length(lists: &ListArray) -> std::result::Result<(usize, ArrayRef), String> {
    if lists.null_count() > 0 {
        return Err("some of its lists are missing".to_owned());
    }
    let length = if lists.is_empty() { 0 } else { lists.value_length(0) };
    if let Some(other) = (0..lists.len()).map(|row| lists.value_length(row)).find(|other| *other != length) {
        return Err(format!("one of its lists has {length} items and another {other}"));
    }
    let first = lists.value_offsets()[0] as usize;
    Ok((length as usize, lists.values().slice(first, length as usize * lists.len())))
}

/// Values that each follow their length.
fn texts(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        texts.push(text);
        bytes = rest;
    }
    Some(texts)
}

impl Tensor {
    fn wrong(&self, cause: impl std::fmt::Display) -> Error {
        Error::invalid(format!("input `{}`: {cause}", self.name))
    }

    /// The column of type `dtype` that the tensor brings.
    ///
    /// # Errors
    /// A shape or a datatype that is not that of the column, a value that the column cannot have.
    pub fn column(&self, dtype: &DataType) -> Result<ArrayRef> {
        use arrow::array::FixedSizeListArray;
        use arrow::buffer::OffsetBuffer;
        let unlike = || {
            let (datatype, shape) = (Datatype::of(dtype).name(), shown(&shape(dtype)));
            let found = self.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.wrong(format!("{} is {datatype} {shape} here, found the shape [{found}]", type_name(dtype)))
        };
        let made = match (dtype, self.shape.as_slice()) {
            (DataType::List(item), [rows, length]) => {
                let offsets = OffsetBuffer::from_repeated_length(*length, *rows);
                let made =
                    ListArray::try_new(Arc::clone(item), offsets, self.values(item.data_type())?, None);
                made.map(|lists| Arc::new(lists) as ArrayRef)
            }
            (DataType::FixedSizeList(item, length), [_, found]) if usize::try_from(*length) == Ok(*found) => {
                let made = FixedSizeListArray::try_new(
                    Arc::clone(item),
                    *length,
                    self.values(item.data_type())?,
                    None,
                );
                made.map(|lists| Arc::new(lists) as ArrayRef)
            }
            (DataType::List(_) | DataType::FixedSizeList(_, _), _) => return Err(unlike()),
            (dtype, [_] | [_, 1]) => return self.values(dtype),
            _ => return Err(unlike()),
        };
        made.map_err(|error| self.wrong(error))
    }

    /// All cells, as values of type `to`.
    pub fn values(&self, to: &DataType) -> Result<ArrayRef> {
        let unlike = || {
            let (wanted, found) = (Datatype::of(to).name(), self.datatype.name());
            self.wrong(format!("{} is {wanted} here, found {found}", type_name(to)))
        };
        match (self.cells.data_type(), to) {
            (DataType::Utf8, to) => {
                let texts = self.cells.as_string::<i32>().iter();
                let texts: Vec<_> =
                    texts.map(|text| text.map_or(Json::Null, |text| Json::String(text.into()))).collect();
                self.texts(&texts, to).ok_or_else(unlike)?
            }
            (DataType::Binary, DataType::Binary) => Ok(Arc::clone(&self.cells)),
            (DataType::Binary, to) => {
                let utf8 = |text: Option<&'_ [u8]>| {
                    let text = std::str::from_utf8(text.unwrap_or_default());
                    text.map(|text| Json::String(text.to_owned().into()))
                };
                let texts =
                    self.cells.as_binary::<i32>().iter().map(utf8).collect::<std::result::Result<_, _>>();
                let texts: Vec<_> = texts.map_err(|error| self.wrong(error))?;
                self.texts(&texts, to).ok_or_else(unlike)?
            }
            (DataType::Int64, to) if *to == timestamp() => {
                let micros = self.cells.as_primitive::<Int64Type>();
                if let Some(doubt) = micros.iter().flatten().find_map(|number| epoch::micros(number).err()) {
                    let wanted = format!("{} is RFC 3339 or whole microseconds here", type_name(to));
                    return Err(self.wrong(format!("{wanted}, and {} {doubt}", doubt.number)));
                }
                let instants = micros.reinterpret_cast::<TimestampMicrosecondType>();
                Ok(Arc::new(instants.with_timezone("UTC")))
            }
            // A number that was sent with more digits than its column has was meant for another column.
            (DataType::Float64, DataType::Float32) => Err(unlike()),
            (_, to) if to.is_primitive() && !to.is_temporal() || *to == DataType::Boolean => {
                as_type(&self.cells, to).map_err(|cause| self.wrong(cause))
            }
            _ => Err(unlike()),
        }
    }

    /// Texts as what texts can mean; nothing where that is not `to`.
    fn texts(&self, texts: &[Json<'_>], to: &DataType) -> Option<Result<ArrayRef>> {
        let texts: Vec<&Json<'_>> = texts.iter().collect();
        match to {
            DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(_, _) => {
                Some(json::cells(&self.name, to, &texts))
            }
            _ => None,
        }
    }

    /// The tensor that shows an output of a model.
    ///
    /// # Errors
    /// Lists of which some are missing, or of several lengths: no tensor has holes.
    pub fn of(name: &str, column: &ArrayRef) -> Result<Tensor> {
        let (mut shape, mut cells) = (vec![column.len()], Arc::clone(column));
        if let DataType::List(_) = cells.data_type() {
            let (length, items) = of_one_length(cells.as_list()).map_err(|cause| {
                Error::broken(format!(
                    "output `{name}`: {cause}, which no tensor holds: ask in `instances` instead"
                ))
            })?;
            shape.push(length);
            cells = items;
        }
        while let DataType::FixedSizeList(_, length) = cells.data_type() {
            if cells.null_count() > 0 {
                return Err(Error::broken(format!("output `{name}`: some of its lists are missing")));
            }
            shape.push(usize::try_from(*length).unwrap_or_default());
            let values = Arc::clone(cells.as_fixed_size_list().values());
            cells = values;
        }
        let datatype = Datatype::of(cells.data_type());
        if datatype == Datatype::Bytes && *cells.data_type() != DataType::Utf8 {
            // A map of classes and chances, for one, has no datatype here.
            let texts = (0..cells.len()).map(|row| serde_json::to_string(&Value(&cells, row)));
            let texts = texts.collect::<std::result::Result<Vec<_>, _>>();
            cells = Arc::new(StringArray::from(texts.map_err(|error| Error::internal(name, error))?));
        }
        Ok(Tensor { name: name.to_owned(), datatype, shape, cells })
    }

    /// The cells in raw bytes; what is missing of floats is NaN.
    ///
    /// # Errors
    /// Other cells that are missing.
    pub fn raw(&self) -> Result<Vec<u8>> {
        macro_rules! numbers {
            ($dtype:ty) => {
                self.cells.as_primitive::<$dtype>().values().iter().flat_map(|n| n.to_le_bytes()).collect()
            };
        }
        macro_rules! floats {
            ($dtype:ty, $nan:expr) => {{
                let cells = self.cells.as_primitive::<$dtype>().iter();
                cells.flat_map(|x| x.unwrap_or($nan).to_le_bytes()).collect()
            }};
        }
        let dtype = self.cells.data_type();
        if self.cells.null_count() > 0 && !dtype.is_floating() {
            return Err(Error::broken(format!("output `{}`: some of its values are missing", self.name)));
        }
        Ok(match dtype {
            DataType::Boolean => self.cells.as_boolean().values().iter().map(u8::from).collect(),
            DataType::Int32 => numbers!(Int32Type),
            DataType::Int64 => numbers!(Int64Type),
            DataType::UInt64 => numbers!(UInt64Type),
            DataType::Float32 => floats!(Float32Type, f32::NAN),
            DataType::Float64 => floats!(Float64Type, f64::NAN),
            _ => {
                let mut bytes = Vec::new();
                for text in self.cells.as_string::<i32>().iter().flatten() {
                    let length =
                        u32::try_from(text.len()).map_err(|e| Error::internal(self.name.clone(), e))?;
                    bytes.extend_from_slice(&length.to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                bytes
            }
        })
    }
}
