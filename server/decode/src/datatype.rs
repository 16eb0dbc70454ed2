//! Which datatype and shape has a column, and by which names does the protocol know them?

use arrow::datatypes::DataType;
use feature_defs::suggest;

use crate::error::{Error, Result};

/// The type of a tensor's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// Each with its name here, and its name and number in Triton's model configuration.
    const ALL: [(Datatype, &'static str, &'static str, i32); 13] = [
        (Datatype::Bool, "BOOL", "TYPE_BOOL", 1),
        (Datatype::Int8, "INT8", "TYPE_INT8", 6),
        (Datatype::Int16, "INT16", "TYPE_INT16", 7),
        (Datatype::Int32, "INT32", "TYPE_INT32", 8),
        (Datatype::Int64, "INT64", "TYPE_INT64", 9),
        (Datatype::Uint8, "UINT8", "TYPE_UINT8", 2),
        (Datatype::Uint16, "UINT16", "TYPE_UINT16", 3),
        (Datatype::Uint32, "UINT32", "TYPE_UINT32", 4),
        (Datatype::Uint64, "UINT64", "TYPE_UINT64", 5),
        (Datatype::Fp16, "FP16", "TYPE_FP16", 10),
        (Datatype::Fp32, "FP32", "TYPE_FP32", 11),
        (Datatype::Fp64, "FP64", "TYPE_FP64", 12),
        (Datatype::Bytes, "BYTES", "TYPE_STRING", 13),
    ];

    fn entry(self) -> (&'static str, &'static str, i32) {
        let found = Self::ALL.into_iter().find(|(datatype, ..)| *datatype == self);
        let (_, name, config, number) = found.expect("every datatype is listed");
        (name, config, number)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Its name and number in Triton's model configuration.
    pub fn in_config(self) -> (&'static str, i32) {
        let (_, config, number) = self.entry();
        (config, number)
    }

    /// The datatype called `datatype`, of the tensor `name`.
    pub fn named(name: &str, datatype: &str) -> Result<Datatype> {
        let found = Self::ALL.into_iter().find(|(_, known, ..)| *known == datatype);
        found.map(|(found, ..)| found).ok_or_else(|| {
            let known = suggest(datatype, Self::ALL.into_iter().map(|(_, known, ..)| known));
            Error::invalid(format!("input `{name}`: unknown datatype `{datatype}`; {known}"))
        })
    }

    /// The datatype that a column of `dtype` has in replies, and best has in requests. A list has that of its items.
    pub fn of(dtype: &DataType) -> Datatype {
        match dtype {
            DataType::Boolean => Datatype::Bool,
            DataType::Int32 => Datatype::Int32,
            DataType::Int64 => Datatype::Int64,
            DataType::UInt64 => Datatype::Uint64,
            DataType::Float32 => Datatype::Fp32,
            DataType::Float64 => Datatype::Fp64,
            DataType::List(item) | DataType::FixedSizeList(item, _) => Datatype::of(item.data_type()),
            _ => Datatype::Bytes,
        }
    }

    /// The type that its cells are read as; raw bytes come as they are.
    pub fn held_as(self) -> DataType {
        match self {
            Datatype::Bool => DataType::Boolean,
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Uint8 | Datatype::Uint16 => {
                DataType::Int32
            }
            Datatype::Int64 | Datatype::Uint32 | Datatype::Uint64 => DataType::Int64,
            Datatype::Fp16 => DataType::Float16,
            Datatype::Fp32 => DataType::Float32,
            Datatype::Fp64 => DataType::Float64,
            Datatype::Bytes => DataType::Utf8,
        }
    }
}

/// The shape of a column of `dtype`; -1 where a length is free.
pub fn shape(dtype: &DataType) -> Vec<i64> {
    let mut shape = vec![-1];
    let mut rest = dtype;
    while let DataType::FixedSizeList(item, length) = rest {
        shape.push((*length).into());
        rest = item.data_type();
    }
    if let DataType::List(_) = rest {
        shape.push(-1);
    }
    shape
}

/// A shape, for people.
pub fn shown(shape: &[i64]) -> String {
    format!("[{}]", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
