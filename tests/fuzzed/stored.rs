//! Can any bytes be taken for a stored row, and is what they say stored and read as the same?

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Schema};
use quern_engine::row::{self, RowCodec};
use quern_engine::schema::arrow_type;

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

static CODEC: LazyLock<RowCodec> = LazyLock::new(|| {
    let field = |dtype: &&str| Field::new(*dtype, arrow_type(dtype.parse().unwrap()), true);
    RowCodec::new(&Arc::new(Schema::new(TYPES.iter().map(field).collect::<Vec<_>>()))).unwrap()
});

pub(crate) fn ask(bytes: &[u8]) {
    let every: Vec<usize> = (0..TYPES.len()).collect();
    // Each feature by itself: what is wrong with one must not hide the others.
    let apart: Vec<Option<ArrayRef>> = every.iter().map(|feature| one(bytes, *feature)).collect();
    let Ok(columns) = CODEC.decode(&[Some(bytes), None], &every) else {
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
        CODEC.encoder(columns).encode(times, 0, &mut out);
        out
    };
    let written = encode(&columns);
    assert_eq!(row::times(&written).unwrap(), times);
    let again = CODEC.decode(&[Some(&written), None], &every).unwrap();
    for (again, column) in again.iter().zip(&columns) {
        assert_eq!(again.to_data(), column.to_data());
    }
    assert_eq!(encode(&again), written);
}

fn one(bytes: &[u8], feature: usize) -> Option<ArrayRef> {
    CODEC.decode(&[Some(bytes), None], &[feature]).ok().map(|columns| Arc::clone(&columns[0]))
}
