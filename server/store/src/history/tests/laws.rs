//! A selection of rows is the full read, filtered; and no bytes whatever make a reader panic.

use std::fs;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::take;
use arrow::ipc::CompressionType;
use feature_defs::ScalarType;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// One row: event timestamp in nanoseconds, a number, a word, a list.
type Row = (Option<i64>, Option<i64>, Option<String>, Option<Vec<Option<f32>>>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        proptest::option::weighted(0.9, -5_000_000_i64..5_000_000),
        any::<Option<i64>>(),
        proptest::option::of("[a-c\",\n é]{0,4}"),
        proptest::option::of(vec(proptest::option::of(-9_i16..9).prop_map(|n| n.map(f32::from)), 0..3)),
    );
    vec(row, 1..120)
}

/// Which of `count` rows: none, few, most or all of them.
fn chosen(count: u64, seed: u64, share: u8) -> Vec<u32> {
    let mut state = seed | 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count as u32).filter(|_| draw() <= share).collect()
}

fn write_rows(repository: &Repository, rows: &[Row], group: usize, is_view: bool) {
    let times = TimestampNanosecondArray::from_iter(rows.iter().map(|row| row.0));
    let numbers = Int64Array::from_iter(rows.iter().map(|row| row.1));
    let words = rows.iter().map(|row| row.2.as_deref());
    let words: ArrayRef = if is_view {
        Arc::new(StringViewArray::from_iter(words))
    } else {
        Arc::new(DictionaryArray::<arrow::datatypes::Int32Type>::from_iter(words))
    };
    let lists = ListArray::from_iter_primitive::<arrow::datatypes::Float32Type, _, _>(
        rows.iter().map(|row| row.3.clone()),
    );
    let columns: Vec<(&str, ArrayRef)> =
        vec![("at", Arc::new(times)), ("n", Arc::new(numbers)), ("word", words), ("list", Arc::new(lists))];
    write_parquet(&repository.folder.path().join("data/a.parquet"), columns.clone(), groups_of(group));
    let compression = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)][rows.len() % 3];
    repository.file("data/a.arrow", super::ipc::written(columns, group, compression));
}

fn write_text(repository: &Repository, rows: &[Row]) {
    let cell = |text: Option<String>| {
        text.map_or(String::new(), |text| format!("\"{}\"", text.replace('"', "\"\"")))
    };
    let mut text = "list,word,n,at\n".to_owned();
    for (at, n, word, list) in rows {
        let item = |item: &Option<f32>| item.map_or("null".to_owned(), |x| x.to_string());
        let list = list.as_ref().map(|l| format!("[{}]", l.iter().map(item).collect::<Vec<_>>().join(",")));
        let at = at.map(|ns| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339());
        let cells = [cell(list), cell(word.clone()), cell(n.map(|n| n.to_string())), cell(at)];
        text += &(cells.join(",") + "\n");
    }
    repository.file("data/a.csv", text);
}

fn write_json(repository: &Repository, rows: &[Row]) {
    let line = |(at, n, word, list): &Row| {
        let at = at.map(|ns| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339());
        let row = serde_json::json!({"list": list, "n": n, "more": {"n": [7]}, "word": word, "at": at});
        // What is null may be left out as well.
        let mut row = row.as_object().unwrap().clone();
        if n.is_none() && word.is_none() {
            row.retain(|_, value| !value.is_null());
        }
        serde_json::to_string(&row).unwrap() + "\n"
    };
    repository.file("data/a.json", rows.iter().map(line).collect::<String>());
}

/// What every reader must give for `rows`, written down without one.
fn oracle(rows: &[Row], is_text: bool) -> Vec<ArrayRef> {
    let times = rows.iter().map(|row| row.0.map(|ns| ns.div_euclid(1_000)));
    let words = rows.iter().map(|row| row.2.clone().filter(|word| !(is_text && word.is_empty())));
    let lists = rows.iter().map(|row| row.3.clone());
    vec![
        Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter(words)),
        Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Float32Type, _, _>(lists)),
    ]
}

/// Every unit, whole and by selection, against the oracle's rows.
fn check(scan: &Scan, oracle: &[ArrayRef], seed: u64, share: u8) {
    let names = ["at", "n", "word", "list"];
    for (i, unit) in scan.units.iter().enumerate() {
        let part = |column: &ArrayRef| column.slice(unit.first_row as usize, unit.rows as usize);
        let want: Vec<ArrayRef> = oracle.iter().map(part).collect();
        assert_eq!(read(scan, i, &names, None).unwrap().columns(), want);
        let rows = chosen(unit.rows, seed, share);
        let indices = UInt32Array::from(rows.clone());
        let want: Vec<ArrayRef> = want.iter().map(|column| take(column, &indices, None).unwrap()).collect();
        assert_eq!(read(scan, i, &names, Some(&rows)).unwrap().columns(), want);
        if let Some((first, last)) = unit.times {
            let times = part(&oracle[0]);
            let times: Vec<i64> =
                times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().iter().flatten().collect();
            assert_eq!((Some(&first), Some(&last)), (times.iter().min(), times.iter().max()));
        }
    }
}

/// Reads every row of every unit, in whatever types: a flipped bit may make a column of signed numbers one of unsigned
/// ones, some of which its type cannot say.
fn every(scan: &Scan) -> Result<()> {
    let columns: Vec<String> = scan.schema.fields().iter().map(|field| field.name().clone()).collect();
    (0..scan.units.len()).try_for_each(|unit| batches(scan, unit, &columns, None).map(drop))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_selection_is_the_full_read_filtered(
        rows in rows(), group in 1usize..130, is_view: bool, seed: u64, share: u8,
    ) {
        let repository = Repository::parquet();
        write_rows(&repository, &rows, group, is_view);
        check(&repository.open().unwrap(), &oracle(&rows, false), seed, share);
        let mut arrow = repository;
        arrow.source.batch.as_mut().unwrap().format = Format::Arrow;
        check(&arrow.open().unwrap(), &oracle(&rows, false), seed, share);

        let float = Type::List { item: ScalarType::Float32, length: None };
        let text = Repository::csv(&[("n", scalar(ScalarType::Int64)), ("word", scalar(ScalarType::String)), ("list", float)]);
        write_text(&text, &rows);
        check(&text.open().unwrap(), &oracle(&rows, true), seed, share);

        // Of objects without a time nobody knows that they have one.
        prop_assume!(rows.iter().any(|row| row.0.is_some()));
        let mut json = text;
        json.source.batch.as_mut().unwrap().format = Format::Json;
        write_json(&json, &rows);
        check(&json.open().unwrap(), &oracle(&rows, false), seed, share);
    }

    #[test]
    fn damaged_files_give_errors_and_no_panics(
        rows in rows(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let repository = Repository::parquet();
        write_rows(&repository, &rows, 50, true);
        let float = Type::List { item: ScalarType::Float32, length: None };
        let text = Repository::csv(&[("n", scalar(ScalarType::Int64)), ("word", scalar(ScalarType::String)), ("list", float)]);
        write_text(&text, &rows);
        let mut json = Repository::new(Format::Json, "data");
        json.source.columns.clone_from(&text.source.columns);
        write_json(&json, &rows);
        let arrow = Repository::new(Format::Arrow, "data");
        write_rows(&arrow, &rows, 50, false);
        let all_of = [(repository, "data/a.parquet"), (text, "data/a.csv"), (json, "data/a.json"), (arrow, "data/a.arrow")];
        for (repository, name) in all_of {
            let path = repository.folder.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            for (place, mask) in &flips {
                let place = place.index(bytes.len());
                bytes[place] ^= mask;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&path, bytes).unwrap();
            if let Ok(schema) = repository.history().schema(&repository.source)
                && let Err(error) = repository.history().open(&repository.source, &schema).and_then(|scan| every(&scan))
            {
                prop_assert!(error.to_string().contains(name), "{}", error);
            }
        }
    }
}
