//! Can any bytes be taken for a stored row, and is what they say stored and read as the same?

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Schema};
use quern_engine::row::{self, RowCodec};
use quern_engine::schema::arrow_type;

/// What the seeds in `stored` hold.
const TYPES: [&str; 13] = [
    "bool",
    "string",
    "int32",
    "int64",
    "float32",
    "float64",
    "bytes",
    "timestamp",
    "date",
    "list<float32>",
    "list<int64>",
    "list<int32, 2>",
    "list<float64, 1>",
];

/// Lists of what is no number.
const LISTS: [&str; 4] = ["list<string>", "list<bool>", "list<string, 2>", "list<bool, 3>"];

static CODECS: LazyLock<[(usize, RowCodec); 2]> = LazyLock::new(|| [codec(&TYPES), codec(&LISTS)]);

/// How many features there are, and the codec of their rows.
fn codec(types: &[&str]) -> (usize, RowCodec) {
    let field = |dtype: &&str| Field::new(*dtype, arrow_type(dtype.parse().unwrap()), true);
    let schema = Schema::new(types.iter().map(field).collect::<Vec<_>>());
    (types.len(), RowCodec::new(&Arc::new(schema)).unwrap())
}

pub(crate) fn ask(bytes: &[u8]) {
    CODECS.iter().for_each(|(features, codec)| ask_codec(codec, *features, bytes));
}

fn ask_codec(codec: &RowCodec, features: usize, bytes: &[u8]) {
    let every: Vec<usize> = (0..features).collect();
    // Each feature by itself: what is wrong with one must not hide the others.
    let one = |feature: &usize| codec.decode(&[Some(bytes), None], &[*feature]).ok();
    let apart: Vec<Option<ArrayRef>> =
        every.iter().map(|feature| one(feature).map(|columns| Arc::clone(&columns[0]))).collect();
    let Ok(columns) = codec.decode(&[Some(bytes), None], &every) else {
        assert!(apart.iter().any(Option::is_none), "together as apart");
        return;
    };
    for (apart, column) in apart.iter().zip(&columns) {
        assert_eq!(apart.as_ref().map(|apart| apart.to_data()), Some(column.to_data()), "together as apart");
        assert!(column.len() == 2 && column.is_null(1));
    }
    let times = row::times(bytes).unwrap();
    let encode = |columns: &[ArrayRef]| {
        let mut out = Vec::new();
        codec.encoder(columns).encode(times, 0, &mut out);
        out
    };
    let written = encode(&columns);
    assert_eq!(row::times(&written).unwrap(), times);
    let again = codec.decode(&[Some(&written), None], &every).unwrap();
    for (again, column) in again.iter().zip(&columns) {
        assert_eq!(again.to_data(), column.to_data());
    }
    assert_eq!(encode(&again), written);
}
