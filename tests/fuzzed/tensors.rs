//! Can any tensor of the Open Inference Protocol be read, and do its raw bytes, as a reply has them, say the same?
//!
//! A line of JSON as an input has it, then the raw cells where it has no `data`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use quern_decode::json::{self, Json};
use quern_decode::print::Values;
use quern_decode::tensor::{Head, Tensor};
use quern_engine::schema::timestamp;

pub(crate) fn ask(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Some(tensor) = read(&bytes[..line], bytes.get(line + 1..).unwrap_or_default()) else { return };
    // As the server does: beyond this no tensor becomes a column.
    if json::limit(tensor.shape[0]).is_err() {
        return;
    }
    for dtype in types() {
        let Ok(column) = tensor.column(&dtype) else { continue };
        assert_eq!((column.data_type(), column.len()), (&dtype, tensor.shape[0]));
        serde_json::to_string(&Values(column.as_ref())).unwrap();
        if has_raw_form(&column) {
            let reply = Tensor::of("x", &column).unwrap();
            let shape: Vec<i64> = reply.shape.iter().map(|dim| *dim as i64).collect();
            let head = Head::new("x", reply.datatype.name(), &shape).unwrap();
            let again = head.with_raw(&reply.raw().unwrap()).unwrap().column(&dtype).unwrap();
            assert_eq!(again.to_data(), column.to_data());
        }
    }
}

fn read(line: &[u8], raw: &[u8]) -> Option<Tensor> {
    let keys = ["name", "datatype", "shape", "data"];
    let [name, datatype, shape, data] = json::body(line, keys, &[]).ok()?;
    let (Json::String(name), Json::String(datatype), Json::Array(shape)) = (name?, datatype?, shape?) else {
        return None;
    };
    let dim = |dim: &Json<'_>| if let Json::Int(dim) = dim { Some(*dim) } else { None };
    let shape = shape.iter().map(dim).collect::<Option<Vec<_>>>()?;
    let head = Head::new(&name, &datatype, &shape).ok()?;
    match data {
        Some(data) => head.with_json(&data).ok(),
        None => head.with_raw(raw).ok(),
    }
}

fn types() -> [DataType; 14] {
    let item = |dtype| Arc::new(Field::new("item", dtype, true));
    [
        DataType::Boolean,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        timestamp(),
        DataType::List(item(DataType::Float32)),
        DataType::FixedSizeList(item(DataType::Int64), 2),
        DataType::FixedSizeList(item(DataType::Float64), 3),
        DataType::List(item(DataType::Utf8)),
        DataType::FixedSizeList(item(DataType::Boolean), 2),
    ]
}

/// Whether a reply has raw bytes for the column that read as the same column: times are texts there, and of a null
/// there is nothing to write.
fn has_raw_form(column: &ArrayRef) -> bool {
    let of_fixed = column.as_fixed_size_list_opt().map_or(0, |lists| lists.values().null_count());
    let items = of_fixed + column.as_list_opt::<i32>().map_or(0, |lists| lists.values().null_count());
    let is_text = matches!(column.data_type(), DataType::Binary | DataType::Date32);
    !is_text && !column.data_type().is_temporal() && column.null_count() + items == 0
}
