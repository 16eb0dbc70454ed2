//! Tensors become columns, and columns tensors: each datatype, lists, and what fits nowhere.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, TimestampMicrosecondType};
use feature_defs::DefFile;
use quern_engine::schema::timestamp;
use quern_wire::Rejected;
use serde_json::{Value, json};

use crate::error::Result;
use crate::json::{self, Json};
use crate::print::Values;
use crate::tensor::{Head, Tensor};

fn from_json(datatype: &str, shape: &[i64], data: &str) -> Result<Tensor> {
    let data: Json<'_> = serde_json::from_str(data).unwrap();
    Head::new("x", datatype, shape)?.with_json(&data)
}

fn from_raw(datatype: &str, shape: &[i64], bytes: &[u8]) -> Result<Tensor> {
    Head::new("x", datatype, shape)?.with_raw(bytes)
}

/// The column as a reply would show it, or why there is none.
fn shown(tensor: Result<Tensor>, dtype: &DataType) -> Value {
    match tensor.and_then(|tensor| tensor.column(dtype)) {
        Ok(column) => serde_json::to_value(Values(column.as_ref())).unwrap(),
        Err(error) => error.to_string().into(),
    }
}

fn item(dtype: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", dtype, true))
}

#[test]
fn raw_cells_are_little_endian() {
    let two = &[1, 0, 0, 0, 255, 255, 255, 255];
    assert_eq!(shown(from_raw("INT32", &[2], two), &DataType::Int64), json!([1, -1]));
    assert_eq!(shown(from_raw("UINT32", &[2], two), &DataType::Int64), json!([1, 4_294_967_295_i64]));
    assert_eq!(shown(from_raw("INT16", &[2], &two[2..6]), &DataType::Int32), json!([0, -1]));
    assert_eq!(shown(from_raw("UINT16", &[2], &two[2..6]), &DataType::Float32), json!([0.0, 65535.0]));
    assert_eq!(shown(from_raw("INT8", &[2, 1], &two[3..5]), &DataType::Float64), json!([0.0, -1.0]));
    assert_eq!(shown(from_raw("UINT8", &[2], &two[3..5]), &DataType::Int64), json!([0, 255]));
    assert_eq!(shown(from_raw("BOOL", &[2], &two[..2]), &DataType::Boolean), json!([true, false]));
    assert_eq!(shown(from_raw("UINT64", &[1], &1_u64.to_le_bytes()), &DataType::Int64), json!([1]));
    assert_eq!(
        shown(from_raw("UINT64", &[1], &u64::MAX.to_le_bytes()), &DataType::Int64),
        "input `x`: 18446744073709551615 is too large, even for INT64"
    );
    assert_eq!(
        shown(from_raw("INT64", &[1], &two[..7]), &DataType::Int64),
        "input `x`: 7 bytes are not values of 8 bytes each"
    );
    assert_eq!(
        shown(from_raw("UINT64", &[1], &two[..7]), &DataType::Int64),
        "input `x`: 7 bytes are not values of 8 bytes each"
    );
    assert_eq!(
        shown(from_raw("BYTES", &[1], &[2, 0, 0, 0, b'a']), &DataType::Utf8),
        "input `x`: the bytes break off; each value is its length in four bytes, then itself"
    );
}

#[test]
fn texts_mean_what_their_column_says() {
    let raw = from_raw("BYTES", &[1], &[2, 0, 0, 0, 0, 255]);
    let column = raw.unwrap().column(&DataType::Binary).unwrap();
    assert_eq!(column.as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(shown(from_json("BYTES", &[1], r#"["AP8="]"#), &DataType::Binary), json!(["AP8="]));
    assert_eq!(
        shown(from_json("BYTES", &[1], r#"["2013-01-10"]"#), &DataType::Date32),
        json!(["2013-01-10"])
    );
    let time =
        from_json("BYTES", &[2], r#"["1970-01-01T00:00:01Z", null]"#).unwrap().column(&timestamp()).unwrap();
    assert_eq!(time.as_primitive::<TimestampMicrosecondType>().value(0), 1_000_000);
    assert!(time.is_null(1));
    let ends = json!([
        "infinity",
        "-infinity",
        "9999-12-31T23:59:59.999999Z",
        "+10000-01-01T00:00:00Z",
        "-0001-12-31T23:59:59Z"
    ]);
    assert_eq!(shown(from_json("BYTES", &[5], &ends.to_string()), &timestamp()), ends);
    assert_eq!(
        shown(from_json("INT64", &[1], "[1357034401000005]"), &timestamp()),
        json!(["2013-01-01T10:00:01.000005Z"])
    );
    assert_eq!(
        shown(from_json("INT64", &[2], "[1357034401000005, 1357034401]"), &timestamp()),
        "input `x`: timestamp is RFC 3339 or whole microseconds here, and 1357034401 looks like seconds (in microseconds it \
         is 1357034401000000)"
    );
    assert_eq!(
        shown(from_json("FP64", &[1], "[5]"), &timestamp()),
        "input `x`: timestamp is BYTES here, found FP64"
    );
    assert_eq!(
        shown(from_json("INT64", &[1], "[5]"), &DataType::Utf8),
        "input `x`: string is BYTES here, found INT64"
    );
    let broken = from_raw("BYTES", &[1], &[1, 0, 0, 0, 255]);
    assert_eq!(shown(broken, &DataType::Utf8), "input `x`: invalid utf-8 sequence of 1 bytes from index 0");
}

#[test]
fn lists_are_the_second_dimension() {
    let free = DataType::List(item(DataType::Float32));
    let pair = DataType::FixedSizeList(item(DataType::Int64), 2);
    let data = "[[1, 2], [3, null]]";
    assert_eq!(shown(from_json("FP32", &[2, 2], data), &free), json!([[1.0, 2.0], [3.0, null]]));
    assert_eq!(shown(from_json("INT32", &[2, 2], "[1, 2, 3, 4]"), &pair), json!([[1, 2], [3, 4]]));
    assert_eq!(
        shown(from_json("INT64", &[2, 3], "[1, 2, 3, 4, 5, 6]"), &pair),
        "input `x`: list<int64, 2> is INT64 [-1, 2] here, found the shape [2, 3]"
    );
    assert_eq!(
        shown(from_json("FP32", &[2], "[1, 2]"), &free),
        "input `x`: list<float32> is FP32 [-1, -1] here, found the shape [2]"
    );
    let texts = DataType::List(item(DataType::Utf8));
    let truths = DataType::FixedSizeList(item(DataType::Boolean), 2);
    let data = r#"[["a", null], ["", "é"]]"#;
    assert_eq!(shown(from_json("BYTES", &[2, 2], data), &texts), json!([["a", null], ["", "é"]]));
    let raw = [2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0];
    assert_eq!(shown(from_raw("BYTES", &[1, 2], &raw), &texts), json!([["é", ""]]));
    assert_eq!(shown(from_json("BOOL", &[1, 2], "[true, null]"), &truths), json!([[true, null]]));
    assert_eq!(shown(from_raw("BOOL", &[1, 2], &[0, 1]), &truths), json!([[false, true]]));
    assert_eq!(
        shown(from_json("BYTES", &[1, 3], r#"["a", "b", "c"]"#), &truths),
        "input `x`: list<bool, 2> is BOOL [-1, 2] here, found the shape [1, 3]"
    );
    assert_eq!(
        shown(from_json("INT64", &[1, 1], "[1]"), &texts),
        "input `x`: string is BYTES here, found INT64"
    );
}

#[test]
fn numbers_keep_their_value() {
    assert_eq!(shown(from_json("FP64", &[3], "[1, null, -3]"), &DataType::Int64), json!([1, null, -3]));
    let nan = from_raw("FP32", &[1], &f32::NAN.to_le_bytes());
    assert_eq!(shown(nan, &DataType::Int64), json!([null]));
    assert_eq!(
        shown(from_json("FP64", &[1], "[1.5]"), &DataType::Int64),
        "input `x`: 1.5 is not a whole number"
    );
    assert_eq!(shown(from_json("INT32", &[2], "[0, 1]"), &DataType::Boolean), json!([false, true]));
    assert_eq!(
        shown(from_json("INT64", &[1], "[5000000000]"), &DataType::Int32),
        "input `x`: 5000000000 is beyond int32"
    );
    assert_eq!(
        shown(from_json("FP64", &[1], "[0.1]"), &DataType::Float32),
        "input `x`: float32 is FP32 here, found FP64"
    );
    assert_eq!(
        shown(from_json("FP32", &[i64::MAX, i64::MAX], "[0.1]"), &DataType::Float32),
        "input `x`: the shape [9223372036854775807, 9223372036854775807] does not hold 1 values"
    );
}

#[test]
fn outputs_are_what_they_were() {
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.5), None]));
    let tensor = Tensor::of("y", &floats).unwrap();
    let back = from_raw("FP32", &[2], &tensor.raw().unwrap()).unwrap();
    let back = back.cells.as_primitive::<Float32Type>();
    assert!(back.value(0) == 1.5 && back.value(1).is_nan());

    let lists =
        FixedSizeListArray::new(item(DataType::Int64), 2, Arc::new(Int64Array::from(vec![1, 2, 3, 4])), None);
    let lists: ArrayRef = Arc::new(lists);
    let tensor = Tensor::of("y", &lists.slice(1, 1)).unwrap();
    assert_eq!(tensor.shape, [1, 2]);
    assert_eq!(tensor.raw().unwrap(), [3_i64, 4].map(i64::to_le_bytes).concat());

    let texts: ArrayRef = Arc::new(StringArray::from(vec!["é", ""]));
    let list = |lengths: [usize; 2]| -> ArrayRef {
        let (offsets, items) = (OffsetBuffer::from_lengths(lengths), Arc::clone(&texts));
        Arc::new(ListArray::new(item(DataType::Utf8), offsets, items, None))
    };
    let tensor = Tensor::of("y", &list([1, 1]).slice(1, 1)).unwrap();
    assert_eq!((tensor.datatype.name(), tensor.shape.as_slice()), ("BYTES", &[1, 1][..]));
    assert_eq!(tensor.raw().unwrap(), [0, 0, 0, 0]);
    assert_eq!(
        Tensor::of("y", &list([2, 0])).unwrap_err().to_string(),
        "output `y`: one of its lists has 2 items and another 0, which no tensor holds: ask in `instances` instead"
    );
    assert_eq!(Tensor::of("y", &texts).unwrap().raw().unwrap(), [2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0]);
    let holes: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let said = Tensor::of("y", &holes).unwrap().raw().unwrap_err().to_string();
    assert_eq!(said, "output `y`: some of its values are missing");
}

#[test]
fn a_format_says_what_the_numbers_of_a_push_count() {
    let definitions = "kind: Source\nname: s\npush: true\nevent_timestamp: at\ncolumns:\n  - {name: at, type: timestamp, \
                       format: epoch_s}\n  - {name: until, type: timestamp}\n";
    let file = DefFile::new("s.yaml", definitions.to_owned());
    let source = &feature_defs::parse(&[file]).unwrap().sources["s"];
    let schema = Schema::new(["at", "until"].map(|name| Field::new(name, timestamp(), true)).to_vec());
    let shown = |(rows, rejected): (RecordBatch, Vec<Rejected>)| {
        let columns: Vec<Value> = rows
            .columns()
            .iter()
            .map(|column| serde_json::to_value(Values(column.as_ref())).unwrap())
            .collect();
        (
            json!(columns),
            rejected.into_iter().map(|row| format!("{} {}", row.index, row.cause)).collect::<Vec<_>>(),
        )
    };
    let df = serde_json::from_str(
        r#"{"at": [1704067200, 1704067200.25, "2024-01-01", 0], "until": [1704067200000001, 1704067200, null, null]}"#,
    );
    let refused = "1 expected timestamp (RFC 3339, or whole microseconds), found number 1704067200, which looks like seconds \
                   (in microseconds it is 1704067200000000); `format` says of a source's column what its numbers count";
    assert_eq!(
        shown(json::rows(source, &schema, &df.unwrap()).unwrap()),
        (
            json!([
                [
                    "2024-01-01T00:00:00Z",
                    "2024-01-01T00:00:00.250Z",
                    "2024-01-01T00:00:00Z",
                    "1970-01-01T00:00:00Z"
                ],
                ["2024-01-01T00:00:00.000001Z", null, null, null],
            ]),
            vec![refused.to_owned()]
        )
    );
    let events = [r#"{"at": 1704067200.5}"#, r#"{"at": 1e300}"#].map(|text| json::event(text.as_bytes()));
    assert_eq!(
        shown(json::events(source, &schema, &events).unwrap()),
        (
            json!([["2024-01-01T00:00:00.500Z", null], [null, null]]),
            vec![
                "1 expected timestamp (RFC 3339, or whole microseconds), found number 1e300, which looks \
                  like nanoseconds (in microseconds it is 9223372036854775)"
                    .to_owned()
            ]
        )
    );
}

/// What the bits of a number of half the length say, as IEEE 754 has it.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction / 1024.0 * 2_f64.powi(-14),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

fn doubles(tensor: Result<Tensor>) -> Vec<f64> {
    let column = tensor.unwrap().column(&DataType::Float64).unwrap();
    column.as_primitive::<Float64Type>().values().to_vec()
}

#[test]
fn every_half_is_widened_to_the_same_number() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let widened = doubles(from_raw("FP16", &[65_536], &bytes));
    for (bits, found) in (0..=u16::MAX).zip(widened) {
        let wanted = half(bits);
        assert!(
            found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(),
            "{bits:#x}: {found}"
        );
    }
    assert_eq!(shown(from_raw("FP16", &[1], &[0, 0x3e]), &DataType::Float32), json!([1.5]));
    assert_eq!(shown(from_raw("FP16", &[1], &[0, 0x44]), &DataType::Int64), json!([4]));
    assert_eq!(
        shown(from_raw("FP16", &[1], &[0, 0x44]), &DataType::Utf8),
        "input `x`: string is BYTES here, found FP16"
    );
    assert_eq!(
        shown(from_raw("FP16", &[1], &[0]), &DataType::Float32),
        "input `x`: 1 bytes are not values of 2 bytes each"
    );
}

#[test]
fn a_number_of_an_fp16_tensor_is_the_nearest_half() {
    // Each half, what lies between it and the next, and what lies closest to that.
    let finite: Vec<f64> = (0..0x7c00).map(half).collect();
    let mut numbers = vec![0.1, -0.1, 1e-9, -1e-300, 65_519.999, 65_504.0, 1.0 / 3.0];
    for pair in finite.windows(2).step_by(499) {
        let middle = (pair[0] + pair[1]) / 2.0;
        numbers.extend([pair[0], middle, middle.next_down(), middle.next_up(), -middle]);
    }
    let read = doubles(from_json("FP16", &[numbers.len() as i64], &json!(numbers).to_string()));
    for (number, found) in numbers.iter().zip(read) {
        let far = |candidate: f64| (number.abs() - candidate).abs();
        let nearest = finite.iter().map(|half| far(*half)).fold(f64::INFINITY, f64::min);
        let near: Vec<usize> = (0..finite.len()).filter(|at| far(finite[*at]) == nearest).collect();
        let even = near.iter().find(|at| near.len() == 1 || *at % 2 == 0).unwrap();
        assert_eq!(found.to_bits(), finite[*even].copysign(*number).to_bits(), "{number:e}");
    }
    let too_large = "input `x`, value 1: expected float16, found number 65520";
    assert_eq!(shown(from_json("FP16", &[2], "[1, 65520]"), &DataType::Float32), too_large);
    let infinite = from_json("FP16", &[3], r#"["-Infinity", null, 2]"#).unwrap();
    assert_eq!(infinite.cells.as_primitive::<Float32Type>().value(0), f32::NEG_INFINITY);
    assert_eq!(shown(Ok(infinite), &DataType::Float32), json!([null, null, 2.0]));
}
