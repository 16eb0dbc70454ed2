//! Which cells has a tensor of an answer? Raw bytes, or typed contents, as an Arrow array: whole numbers and floats of
//! fewer bits as those that features have, which hold the same numbers.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray, UInt64Array,
};
use bytes::Bytes;
use half::{bf16, f16};

use crate::messages::InferTensorContents;

/// All cells of a tensor, row-major.
///
/// # Errors
/// An unknown datatype, bytes that are no whole number of cells, a text that is no UTF-8.
pub fn cells(
    datatype: &str,
    raw: Option<&Bytes>,
    contents: Option<InferTensorContents>,
) -> Result<ArrayRef, String> {
    match (raw, contents) {
        (Some(raw), _) => of_raw(datatype, raw),
        (None, Some(contents)) => of_contents(datatype, contents),
        (None, None) => of_raw(datatype, &Bytes::new()),
    }
}

fn of_raw(datatype: &str, raw: &Bytes) -> Result<ArrayRef, String> {
    macro_rules! numbers {
        ($number:ty, $array:ident) => {{
            let (cells, rest) = raw.as_chunks::<{ size_of::<$number>() }>();
            if !rest.is_empty() {
                return Err(format!("brings {} bytes, which are no values of {datatype}", raw.len()));
            }
            let cells = cells.iter().map(|cell| <$number>::from_le_bytes(*cell).into());
            Arc::new($array::from_iter_values(cells)) as ArrayRef
        }};
    }
    Ok(match datatype {
        "BOOL" => Arc::new(raw.iter().map(|byte| Some(*byte != 0)).collect::<BooleanArray>()),
        "INT8" => numbers!(i8, Int32Array),
        "INT16" => numbers!(i16, Int32Array),
        "INT32" => numbers!(i32, Int32Array),
        "INT64" => numbers!(i64, Int64Array),
        "UINT8" => numbers!(u8, Int32Array),
        "UINT16" => numbers!(u16, Int32Array),
        "UINT32" => numbers!(u32, Int64Array),
        "UINT64" => numbers!(u64, UInt64Array),
        "FP16" => numbers!(f16, Float32Array),
        "BF16" => numbers!(bf16, Float32Array),
        "FP32" => numbers!(f32, Float32Array),
        "FP64" => numbers!(f64, Float64Array),
        "BYTES" => texts(split(raw).ok_or("brings texts that break off")?)?,
        _ => return Err(unknown(datatype)),
    })
}

fn of_contents(datatype: &str, contents: InferTensorContents) -> Result<ArrayRef, String> {
    Ok(match datatype {
        "BOOL" => Arc::new(BooleanArray::from(contents.bool_contents)),
        "INT8" | "INT16" | "INT32" => Arc::new(Int32Array::from(contents.int_contents)),
        "INT64" => Arc::new(Int64Array::from(contents.int64_contents)),
        "UINT8" | "UINT16" => {
            let cells = contents.uint_contents.into_iter().map(|cell| i32::try_from(cell).ok());
            Arc::new(cells.collect::<Int32Array>())
        }
        "UINT32" => Arc::new(Int64Array::from_iter_values(contents.uint_contents.into_iter().map(i64::from))),
        "UINT64" => Arc::new(UInt64Array::from(contents.uint64_contents)),
        "FP32" => Arc::new(Float32Array::from(contents.fp32_contents)),
        "FP64" => Arc::new(Float64Array::from(contents.fp64_contents)),
        "BYTES" => texts(contents.bytes_contents.iter().map(AsRef::as_ref).collect())?,
        "FP16" | "BF16" => return Err(format!("is {datatype}, which comes in raw bytes alone")),
        _ => return Err(unknown(datatype)),
    })
}

fn unknown(datatype: &str) -> String {
    format!("is of the datatype `{datatype}`, which is none of the protocol's")
}

/// Values that each follow their length.
fn split(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        values.push(value);
        bytes = rest;
    }
    Some(values)
}

fn texts(values: Vec<&[u8]>) -> Result<ArrayRef, String> {
    let texts = values.into_iter().map(|value| std::str::from_utf8(value).ok());
    let texts: Option<Vec<&str>> = texts.collect();
    Ok(Arc::new(StringArray::from(texts.ok_or("brings bytes that are no text")?)))
}
