//! What do the first rows of a source say, and what is told of it?

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array};
use expect_test::expect;
use feature_defs::Epoch;
use feature_defs::ScalarType::*;

use super::*;
use crate::history::infer::infer;

const YEAR_2024: i64 = 1_704_067_200;

fn sampled(repository: &Repository) -> std::string::String {
    let history = repository.history();
    lines(&history.sampled(&repository.source, &repository.schema()))
}

#[test]
fn a_cell_of_another_type_is_told_in_the_first_and_in_the_last_file() {
    let repository = Repository::csv(&[("n", scalar(Int64)), ("unused", scalar(Date))]);
    let rows = |cell: &str| format!("at,n,unused\n2024-01-01,1,2024-01-01\n\n2024-01-01,2,{cell}\n");
    repository.file("data/a.csv", rows("soon"));
    repository.file("data/b.csv", rows("never"));
    repository.file("data/c.csv", rows("later"));
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv`, line 4, column `unused`: its cell is not of type date, such as 2013-01-31
          help: mend the file, or declare the column as what it holds
        events.yaml:3:5: source `events`: `data/c.csv`, line 4, column `unused`: its cell is not of type date, such as 2013-01-31
          help: mend the file, or declare the column as what it holds
    "#]].assert_eq(&sampled(&repository));
    // What lies further down shows when it is read.
    let many = "2024-01-01,1,\n".repeat(1_000);
    for file in ["a", "b", "c"] {
        repository.file(&format!("data/{file}.csv"), format!("at,n,unused\n{many}2024-01-01,x,\n"));
    }
    assert_eq!(sampled(&repository), "");
}

#[test]
fn numbers_in_a_parquet_file_are_what_their_format_says() {
    let mut repository = Repository::parquet();
    for (name, format) in [("at", Epoch::Seconds), ("until", Epoch::Millis), ("born", Epoch::Seconds)] {
        repository.declare(name, scalar(Timestamp));
        repository.source.columns.last_mut().unwrap().format = Some(format);
    }
    let write = |at: i64, until: [i64; 2]| {
        let columns = [
            ("at", Arc::new(Int64Array::from(vec![at, at])) as ArrayRef),
            ("until", Arc::new(Int64Array::from(until.to_vec()))),
            ("born", Arc::new(Float64Array::from(vec![-300_000_000.5, 0.0]))),
        ];
        repository.write("data/a.parquet", columns.to_vec());
        sampled(&repository)
    };
    let year_9999 = 253_402_214_400;
    assert_eq!(write(YEAR_2024, [YEAR_2024 * 1_000, year_9999 * 1_000]), "");
    // One value for all rows may stand for none.
    assert_eq!(write(YEAR_2024, [YEAR_2024; 2]), "");
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.parquet` cannot be read: its column `at` (int64) does not fit timestamp: it holds a value that is none; a log at `debug` quotes it
          help: mend the file, or declare the column as what it holds
    "#]].assert_eq(&write(YEAR_2024 * 1_000_000, [YEAR_2024, YEAR_2024 + 60]));
}

#[test]
fn numbers_that_may_be_times_are_told_with_their_unit() {
    let repository = Repository::parquet();
    let columns = [
        ("ms", Arc::new(Int64Array::from(vec![Some(YEAR_2024 * 1_000), None])) as ArrayRef),
        ("s", Arc::new(Float64Array::from(vec![YEAR_2024 as f64 + 0.5, YEAR_2024 as f64]))),
        ("n", Arc::new(Int64Array::from(vec![YEAR_2024, 7]))),
    ];
    repository.write("data/a.parquet", columns.to_vec());
    let columns = infer(repository.folder.path(), Format::Parquet, "data").unwrap().columns;
    let epochs: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.epoch)).collect();
    assert_eq!(epochs, [("ms", Some(Epoch::Millis)), ("s", Some(Epoch::Seconds)), ("n", None)]);
}
