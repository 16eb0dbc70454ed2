//! Do different keys have different bytes, and numbers their order?
//!
//! Arrow's own row format is the oracle, of which our keys know nothing.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use quern_engine::key::Keys;

use crate::cells::Cells;

const ROWS_MAX: usize = 8;

pub(crate) fn ask(bytes: &[u8]) {
    let mut cells = Cells(bytes);
    let chosen = cells.byte();
    let all = columns(&mut cells);
    let columns: Vec<ArrayRef> = (0..all.len())
        .filter(|place| chosen >> place & 1 == 1)
        .map(|place| Arc::clone(&all[place]))
        .collect();
    let Some(first) = columns.first() else { return };
    let field = |column: &ArrayRef| Field::new("k", column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let keys = Keys::encode(&schema, &columns).unwrap();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
    // What follows text in a key is compared before its end.
    let ordered =
        !columns.iter().any(|column| matches!(column.data_type(), DataType::Utf8 | DataType::Binary));
    for a in 0..first.len() {
        let is_null = columns.iter().any(|column| column.is_null(a));
        assert_eq!(keys.get(a).is_none(), is_null, "row {a}");
        for b in 0..a {
            let (Some(mine), Some(theirs)) = (keys.get(a), keys.get(b)) else { continue };
            assert_eq!(mine == theirs, rows.row(a) == rows.row(b), "rows {a} and {b}");
            assert!(!ordered || mine.cmp(theirs) == rows.row(a).cmp(&rows.row(b)), "rows {a} and {b}");
        }
    }
    let picked: Vec<u32> = (0..first.len() as u32).rev().collect();
    let turned = keys.pick(&picked);
    assert!(picked.iter().enumerate().all(|(place, row)| turned.get(place) == keys.get(*row as usize)));
}

/// A column of each type that a key may have.
fn columns(cells: &mut Cells<'_>) -> [ArrayRef; 7] {
    let (mut truths, mut shorts, mut longs, mut days) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut times, mut texts, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    while !cells.0.is_empty() && truths.len() < ROWS_MAX {
        truths.push(cells.some_or_null(|cells| cells.byte() % 2 == 1));
        shorts.push(cells.some_or_null(|cells| i32::from_le_bytes(cells.fixed())));
        longs.push(cells.some_or_null(|cells| i64::from_le_bytes(cells.fixed())));
        days.push(cells.some_or_null(|cells| i32::from_le_bytes(cells.fixed())));
        times.push(cells.some_or_null(|cells| i64::from_le_bytes(cells.fixed())));
        let piece = |cells: &mut Cells<'_>| {
            let length = cells.byte().into();
            cells.some(length).to_vec()
        };
        texts.push(cells.some_or_null(piece).map(|text| String::from_utf8_lossy(&text).into_owned()));
        bytes.push(cells.some_or_null(piece));
    }
    [
        Arc::new(BooleanArray::from(truths)),
        Arc::new(Int32Array::from(shorts)),
        Arc::new(Int64Array::from(longs)),
        Arc::new(Date32Array::from(days)),
        Arc::new(TimestampMicrosecondArray::from(times)),
        Arc::new(StringArray::from(texts)),
        Arc::new(BinaryArray::from_iter(bytes)),
    ]
}
