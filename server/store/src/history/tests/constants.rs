//! Of which files is it known what all rows have in a column, before one is read?

use arrow::array::{StringArray, TimestampMicrosecondArray};
use feature_defs::{Epoch, ScalarType};

use super::*;

const FILES: [&str; 6] = [
    "c",
    "region=eu/day=2024-01-01/a",
    "region=eu/day=2024-01-01/b",
    "region=eu/day=__HIVE_DEFAULT_PARTITION__/a",
    "region=us/day=2024-01-02/own",
    "region=us/day=2024-01-02/z",
];

fn times() -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(0..25).with_timezone("UTC"))
}

/// The files of a format, of which one has its region itself.
fn written(format: Format) -> Repository {
    let mut repository = Repository::new(format, "data");
    repository.declare("at", scalar(ScalarType::Timestamp));
    repository.declare("region", scalar(ScalarType::String));
    repository.declare("day", scalar(ScalarType::Date));
    for name in FILES {
        let has_region = name.ends_with("own");
        let regions: ArrayRef = Arc::new(StringArray::from_iter_values((0..25).map(|row| row.to_string())));
        let columns = [("at", times())].into_iter().chain(has_region.then_some(("region", regions)));
        match format {
            Format::Csv => {
                let (header, cell) = if has_region { (",region", ",eu") } else { ("", "") };
                repository.file(&format!("data/{name}.csv"), format!("at{header}\n2024-01-05{cell}\n"));
            }
            Format::Json => {
                let more = if has_region { "{\"at\":\"2024-01-06\",\"region\":\"eu\"}\n" } else { "" };
                let lines = format!("{{\"at\":\"2024-01-05\"}}\n{more}");
                repository.file(&format!("data/{name}.json"), lines);
            }
            Format::Arrow => {
                let bytes = ipc::written(columns.collect(), 10, None);
                repository.file(&format!("data/{name}.arrow"), bytes);
            }
            _ => repository.write(&format!("data/{name}.parquet"), columns.collect()),
        }
    }
    repository
}

#[test]
fn what_no_file_has_itself_is_known_of_all_its_rows() {
    for format in [Format::Parquet, Format::Arrow, Format::Csv, Format::Json] {
        let repository = written(format);
        let scan = repository.open().unwrap();
        let of_files = |units: Range<usize>| scan.units[units.start].file..scan.units[units.end - 1].file + 1;
        let known = |columns: &[&str]| -> Vec<Range<u32>> {
            check_constants(&scan, columns).into_iter().map(of_files).collect()
        };
        // Any line of JSON may say more.
        let expected =
            |files: &[Range<u32>]| if format == Format::Json { Vec::new() } else { files.to_vec() };
        let without_own = expected(&[0..1, 1..3, 3..4, 5..6]);
        assert_eq!(known(&["region"]), without_own, "{format:?}");
        assert_eq!(known(&["day", "region"]), without_own, "{format:?}");
        assert_eq!(known(&["day"]), expected(&[0..1, 1..3, 3..4, 4..5, 5..6]), "{format:?}");
        assert_eq!(known(&["at", "day"]), expected(&[]), "{format:?}");
        assert!(scan.constants(&["nobody".to_owned()]).is_err());
    }
}

#[test]
fn a_number_in_a_folder_counts_what_its_format_says() {
    let mut repository = Repository::parquet();
    repository.declare("seen", scalar(ScalarType::Timestamp));
    repository.source.columns[0].format = Some(Epoch::Seconds);
    repository.write("data/seen=1700000000/a.parquet", vec![("at", times())]);
    let scan = repository.open().unwrap();
    assert_eq!(check_constants(&scan, &["seen"]).first(), Some(&(0..3)));
    let known = scan.constants(&["seen".to_owned()]).unwrap();
    let seen = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]).with_timezone("UTC");
    assert_eq!(known.values.column(0), &(Arc::new(seen) as ArrayRef));
}

/// It has a column of a type that Arrow does not know, which counts before what the folder says.
#[test]
fn of_a_file_that_does_not_say_all_its_columns_nothing_is_known() {
    let mut repository = Repository::parquet();
    repository.source.event_timestamp = "seen".to_owned();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let bytes = fs::read(fixtures.join("types/int128.parquet")).unwrap();
    repository.file("data/Int128=7/a.parquet", bytes);
    assert!(check_constants(&repository.open().unwrap(), &["Int128"]).is_empty());
}
