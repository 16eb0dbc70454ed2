//! Numbers that are times: in CSV files, in Parquet columns, and without a word about what they count.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use expect_test::expect;
use feature_defs::{Epoch, ScalarType};

use super::*;

/// Noon of the first day of 2024, and a half microsecond before 1970.
const NOON_S: i64 = 1_704_110_400;

impl Repository {
    fn count(&mut self, column: &str, format: Epoch) {
        let column = self.source.columns.iter_mut().find(|declared| declared.name == column).unwrap();
        column.format = Some(format);
    }
}

fn moments(rows: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    let column = rows.column_by_name(column).unwrap();
    column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().iter().collect()
}

#[test]
fn numbers_in_a_csv_file_count_what_the_format_says() {
    for format in Epoch::ALL {
        let mut repository = Repository::csv(&[("until", scalar(ScalarType::Timestamp))]);
        repository.count("at", format);
        let noon = NOON_S * format.per_second();
        // Text is read as ever, and so is a column of which nothing is said.
        repository.file(
            "data/a.csv",
            format!(
                "at,until\n{noon},\n {noon}.0 ,2024-01-01T12:00:00Z\n2024-01-01 12:00:00,{NOON_S}000000\n"
            ),
        );
        let rows = all(&repository.open().unwrap()).unwrap();
        assert_eq!(moments(&rows, "at"), [Some(NOON_S * 1_000_000); 3], "{format:?}");
        assert_eq!(moments(&rows, "until"), [None, Some(NOON_S * 1_000_000), Some(NOON_S * 1_000_000)]);
    }
}

#[test]
fn numbers_in_a_parquet_file_count_what_the_format_says() {
    for format in Epoch::ALL {
        let noon: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(NOON_S * format.per_second()), None, Some(0)]));
        let dtypes = [DataType::Int64, DataType::UInt64, DataType::Float64, DataType::Decimal128(38, 0)];
        for dtype in dtypes {
            let mut repository = Repository::parquet();
            repository.declare("at", scalar(ScalarType::Timestamp));
            repository.count("at", format);
            repository.write("data/a.parquet", vec![("at", cast(&noon, &dtype).unwrap())]);
            // Beside it a file whose times are times.
            let times = TimestampMillisecondArray::from(vec![NOON_S * 1_000]);
            repository.write("data/b.parquet", vec![("at", Arc::new(times))]);
            let scan = repository.open().unwrap();
            let noon = NOON_S * 1_000_000;
            assert_eq!(
                moments(&all(&scan).unwrap(), "at"),
                [Some(noon), None, Some(0), Some(noon)],
                "{dtype}"
            );
            // Row groups are passed over by their times, as ever.
            let is_known = dtype == DataType::Int64;
            assert_eq!(scan.units[0].times, is_known.then_some((0, noon)), "{dtype} {format:?}");
        }
    }
}

#[test]
fn numbers_of_which_nothing_is_said_are_no_times() {
    let mut repository = Repository::parquet();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![NOON_S]));
    repository.write("data/a.parquet", vec![("at", Arc::clone(&numbers)), ("until", Arc::clone(&numbers))]);
    expect![[r#"
        events.yaml:1:5: source `events`: event_timestamp `at` should be timestamp or date, but is int64 in `data/a.parquet`
          help: say what its numbers count since 1970, as in `{name: at, type: timestamp, format: epoch_ms}`; known: epoch_s, epoch_ms, epoch_us, epoch_ns
    "#]].assert_eq(&repository.mistakes());
    repository.declare("at", scalar(ScalarType::Timestamp));
    repository.declare("until", scalar(ScalarType::Timestamp));
    expect![[r#"
        events.yaml:10:5: source `events`: event_timestamp `at` should be timestamp or date, but is int64 in `data/a.parquet`
          help: say what its numbers count since 1970, as in `{name: at, type: timestamp, format: epoch_ms}`; known: epoch_s, epoch_ms, epoch_us, epoch_ns
        events.yaml:11:5: source `events`: column `until` should be timestamp, but is int64 in `data/a.parquet`
          help: say what its numbers count since 1970, as in `{name: until, type: timestamp, format: epoch_ms}`; known: epoch_s, epoch_ms, epoch_us, epoch_ns
    "#]].assert_eq(&repository.mistakes());
    repository.count("at", Epoch::Seconds);
    repository.count("until", Epoch::Millis);
    assert_eq!(moments(&all(&repository.open().unwrap()).unwrap(), "until"), [Some(NOON_S * 1_000)]);
    repository.write(
        "data/a.parquet",
        vec![("at", Arc::new(Int64Array::from(vec![i64::MAX]))), ("until", numbers)],
    );
    expect!["`data/a.parquet` cannot be read: its column `at` (int64) does not fit timestamp: it holds a value that is none; a log at `debug` quotes it"].assert_eq(&repository.error());
}
