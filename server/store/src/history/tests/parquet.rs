//! Parquet in, canonical rows out.

use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::EnabledStatistics;
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::util::display::array_value_to_string;
use expect_test::expect;
use feature_defs::ScalarType;
use quern_engine::schema::timestamp;

use super::*;

/// Times around the epoch, in microseconds; the last ones go below what a second and a millisecond can say.
const TIMES_US: [i64; 6] = [-86_400_000_001, -1_500_000, -1, 0, 1, 1_357_034_400_000_000];

fn micros(values: &[i64]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
}

fn count(rows: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..rows))
}

#[test]
fn every_unit_and_zone_of_time_becomes_microseconds() {
    for (unit, us) in [
        (TimeUnit::Second, 1_000_000),
        (TimeUnit::Millisecond, 1_000),
        (TimeUnit::Microsecond, 1),
        (TimeUnit::Nanosecond, 1),
    ] {
        for zone in [None, Some("UTC"), Some("+05:30"), Some("America/New_York")] {
            let whole: Vec<i64> = TIMES_US.iter().map(|t| t.div_euclid(us)).collect();
            let scale = if unit == TimeUnit::Nanosecond { 1_000 } else { 1 };
            // A nanosecond above the microsecond, which is dropped towards the past.
            let raw: ArrayRef =
                Arc::new(Int64Array::from_iter_values(whole.iter().map(|t| t * scale + scale / 1_000)));
            let repository = Repository::parquet();
            let column = cast(&raw, &DataType::Timestamp(unit, zone.map(Arc::from))).unwrap();
            repository.write("data/a.parquet", vec![("at", column)]);
            let scan = repository.open().unwrap();
            let want: Vec<i64> = whole.iter().map(|t| t * us).collect();
            assert_eq!(all(&scan).unwrap().column(0), &micros(&want), "{unit:?} {zone:?}");
            assert_eq!(scan.units[0].times, Some((want[0], want[5])), "{unit:?} {zone:?}");
        }
    }
}

#[test]
fn dates_serve_as_event_timestamps() {
    let repository = Repository::parquet();
    repository.write(
        "data/a.parquet",
        vec![("at", Arc::new(Date32Array::from(vec![Some(-1), None, Some(15_706)])))],
    );
    let scan = repository.open().unwrap();
    let day = 86_400_000_000;
    assert_eq!(scan.units[0].times, Some((-day, 15_706 * day)));
    let want =
        TimestampMicrosecondArray::from(vec![Some(-day), None, Some(15_706 * day)]).with_timezone("UTC");
    assert_eq!(all(&scan).unwrap().column(0).as_ref(), &want as &dyn Array);
}

#[test]
fn foreign_types_become_canonical() {
    let repository = Repository::parquet();
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Zoë"), None, Some("")]));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(127)]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\xff"), None, Some(b"")]));
    let list = ListArray::from_iter_primitive::<Float32Type, _, _>(vec![
        Some(vec![Some(1.5), None]),
        None,
        Some(vec![]),
    ]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        vec![Some(vec![Some(1.0), Some(2.0)]), None, Some(vec![Some(3.0), Some(4.0)])],
        2,
    );
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("Zoë"), None, Some("")]);
    texts.append_null();
    texts.append_value([None::<&str>; 0]);
    let texts = texts.finish();
    let mut truths = FixedSizeListBuilder::new(BooleanBuilder::new(), 1);
    for (truth, is_there) in [(Some(true), true), (None, false), (None, true)] {
        truths.values().append_option(truth);
        truths.append(is_there);
    }
    let item = |dtype| Arc::new(Field::new("item", dtype, true));
    repository.write(
        "data/a.parquet",
        vec![
            ("at", micros(&[1, 2, 3])),
            ("view", cast(&names, &DataType::Utf8View).unwrap()),
            ("large", cast(&names, &DataType::LargeUtf8).unwrap()),
            ("dictionary", cast(&names, &dictionary).unwrap()),
            ("int8", cast(&numbers, &DataType::Int8).unwrap()),
            ("uint32", cast(&numbers, &DataType::UInt32).unwrap()),
            ("float16", cast(&numbers, &DataType::Float16).unwrap()),
            ("date64", cast(&numbers, &DataType::Date64).unwrap()),
            ("binary_view", cast(&bytes, &DataType::BinaryView).unwrap()),
            ("list", Arc::new(list)),
            ("fixed", Arc::new(fixed)),
            ("texts", cast(&texts, &DataType::LargeList(item(DataType::Utf8View))).unwrap()),
            ("coded", cast(&texts, &DataType::List(item(dictionary))).unwrap()),
            ("truths", Arc::new(truths.finish())),
        ],
    );
    expect![[r#"
        at: Timestamp(µs, "UTC")
        view: Utf8
        large: Utf8
        dictionary: Utf8
        int8: Int32
        uint32: Int64
        float16: Float32
        date64: Date32
        binary_view: Binary
        list: List(Float32)
        fixed: FixedSizeList(2 x Float64)
        texts: List(Utf8)
        coded: List(Utf8)
        truths: FixedSizeList(1 x Boolean)
    "#]]
    .assert_eq(&describe(&repository.schema()));
    expect![[r#"
        +-----------------------------+------+-------+------------+------+--------+---------+------------+-------------+---------+------------+-----------+-----------+--------+
        | at                          | view | large | dictionary | int8 | uint32 | float16 | date64     | binary_view | list    | fixed      | texts     | coded     | truths |
        +-----------------------------+------+-------+------------+------+--------+---------+------------+-------------+---------+------------+-----------+-----------+--------+
        | 1970-01-01T00:00:00.000001Z | Zoë  | Zoë   | Zoë        | 1    | 1      | 1.0     | 1970-01-02 | ff          | [1.5, ] | [1.0, 2.0] | [Zoë, , ] | [Zoë, , ] | [true] |
        | 1970-01-01T00:00:00.000002Z |      |       |            |      |        |         |            |             |         |            |           |           |        |
        | 1970-01-01T00:00:00.000003Z |      |       |            | 127  | 127    | 127.0   | 1970-05-08 |             | []      | [3.0, 4.0] | []        | []        | []     |
        +-----------------------------+------+-------+------------+------+--------+---------+------------+-------------+---------+------------+-----------+-----------+--------+"#]].assert_eq(&table(&all(&repository.open().unwrap()).unwrap()));
}

#[test]
fn declared_types_win() {
    let mut repository = Repository::parquet();
    repository.declare("n", scalar(ScalarType::Float64));
    repository.declare("small", scalar(ScalarType::Int32));
    repository.write(
        "data/a.parquet",
        vec![
            ("n", count(3)),
            ("at", micros(&[1, 2, 3])),
            ("small", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ],
    );
    let rows = all(&repository.open().unwrap()).unwrap();
    assert_eq!(rows.column(0).as_ref(), &Float64Array::from(vec![0.0, 1.0, 2.0]) as &dyn Array);
    assert_eq!(rows.column(2).as_ref(), &Int32Array::from(vec![1, 2, 3]) as &dyn Array);
}

#[test]
fn columns_come_as_asked_for() {
    let repository = Repository::parquet();
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..25).map(|i| format!("w{i}"))));
    repository.write("data/a.parquet", vec![("n", count(25)), ("at", micros(&[0; 25])), ("word", words)]);
    let scan = repository.open().unwrap();
    let units: Vec<_> = scan.units.iter().map(|unit| (unit.file, unit.first_row, unit.rows)).collect();
    assert_eq!(units, [(0, 0, 10), (0, 10, 10), (0, 20, 5)]);
    let rows = read(&scan, 1, &["word", "n", "word"], Some(&[0, 1, 9])).unwrap();
    expect![[r#"
        +------+----+------+
        | word | n  | word |
        +------+----+------+
        | w10  | 10 | w10  |
        | w11  | 11 | w11  |
        | w19  | 19 | w19  |
        +------+----+------+"#]]
    .assert_eq(&table(&rows));
    assert_eq!(read(&scan, 2, &[], None).unwrap().num_rows(), 5);
    assert_eq!(read(&scan, 2, &[], Some(&[4])).unwrap().num_rows(), 1);
    assert_eq!(read(&scan, 2, &["n"], Some(&[])).unwrap().num_rows(), 0);
    for rows in [&[5][..], &[1, 1], &[1, 0]] {
        assert!(
            matches!(read(&scan, 2, &["n"], Some(rows)), Err(e) if e.kind() == Kind::Internal),
            "{rows:?}"
        );
    }
    assert_eq!(scan.name(&scan.units[0]), "data/a.parquet");
}

#[test]
fn files_arrive_in_the_order_of_their_names() {
    let repository = Repository::parquet();
    for (path, n) in [("data/b.parquet", 1), ("data/a/z.parquet", 0), ("data/c.PARQUET", 2)] {
        repository.write(path, vec![("at", micros(&[n]))]);
    }
    for path in ["data/_temporary/d.parquet", "data/.hidden.parquet", "data/readme.txt"] {
        repository.file(path, "not for us");
    }
    let scan = repository.open().unwrap();
    assert_eq!(all(&scan).unwrap().column(0), &micros(&[0, 1, 2]));
    let names: Vec<_> = scan.units.iter().map(|unit| scan.name(unit)).collect();
    assert_eq!(names, ["data/a/z.parquet", "data/b.parquet", "data/c.PARQUET"]);
}

#[test]
fn paths_may_be_files_globs_and_absolute() {
    let mut repository = Repository::parquet();
    repository.write("data/[1]/a.parquet", vec![("at", micros(&[0]))]);
    repository.write("data/[1]/b.parquet", vec![("at", micros(&[1]))]);
    repository.file("data/[1]/_SUCCESS", "");
    repository.write("data/[1]/_c.parquet", vec![("at", micros(&[2]))]);
    let absolute = repository.folder.path().join("data").display().to_string();
    for (path, files) in [
        ("data/[1]/a.parquet".to_owned(), 1),
        ("data/*/*.parquet".to_owned(), 2),
        ("data/**/b*".to_owned(), 1),
        ("data/*/*".to_owned(), 2),
        ("data/*/_*.parquet".to_owned(), 1),
        ("./data/*".to_owned(), 2),
        (format!("{absolute}/*/a.parquet"), 1),
        (absolute, 2),
    ] {
        if let Some(batch) = &mut repository.source.batch {
            batch.path.clone_from(&path);
        }
        assert_eq!(repository.open().unwrap().units.len(), files, "{path}");
    }
}

#[test]
fn statistics_prune_and_their_absence_does_not() {
    let repository = Repository::parquet();
    let times = micros(&[-30, -21, -20, -11, 10, 19]);
    let path = repository.folder.path().join("data/a.parquet");
    let written = || vec![("at", Arc::clone(&times))];
    write_parquet(&path, written(), groups_of(2).set_compression(Compression::SNAPPY));
    let scan = repository.open().unwrap();
    let kept = |from, to| scan.units.iter().map(|unit| unit.may_hold(from, to)).collect::<Vec<_>>();
    assert_eq!(kept(i64::MIN, -31), [false, false, false]);
    assert_eq!(kept(-21, -21), [true, false, false]);
    assert_eq!(kept(-21, -20), [true, true, false]);
    assert_eq!(kept(-10, 9), [false, false, false]);
    assert_eq!(kept(19, i64::MAX), [false, false, true]);

    write_parquet(&path, written(), groups_of(2).set_statistics_enabled(EnabledStatistics::None));
    let scan = repository.open().unwrap();
    assert!(scan.units.iter().all(|unit| unit.times.is_none() && unit.may_hold(0, 0)));
}

#[test]
fn row_groups_without_times_have_no_bounds() {
    let repository = Repository::parquet();
    let times = TimestampSecondArray::from(vec![None, None, Some(i64::MAX), Some(5)]);
    let path = repository.folder.path().join("data/a.parquet");
    write_parquet(&path, vec![("at", Arc::new(times))], groups_of(2));
    let bounds: Vec<_> = repository.open().unwrap().units.iter().map(|unit| unit.times).collect();
    assert_eq!(bounds, [None, None]);
    assert!(repository.error().contains("data/a.parquet"), "a time beyond the range is an error");
}

#[test]
fn a_source_without_files_has_its_declared_columns() {
    let mut repository = Repository::parquet();
    repository.source.batch = None;
    repository.declare("at", scalar(ScalarType::Date));
    assert_eq!(repository.schema().field(0).data_type(), &timestamp());
    assert!(repository.open().unwrap().units.is_empty());
}

#[test]
fn the_ends_of_time_are_read_in_every_zone() {
    let ends = [i64::MIN, -i64::MAX, 0, i64::MAX];
    for zone in [None, Some("UTC"), Some("America/New_York")] {
        let repository = Repository::parquet();
        let times = TimestampMicrosecondArray::from(ends.to_vec()).with_timezone_opt(zone);
        repository.write("data/a.parquet", vec![("at", Arc::new(times))]);
        assert_eq!(all(&repository.open().unwrap()).unwrap().column(0), &micros(&ends), "{zone:?}");
    }
}

#[test]
fn a_column_without_values_has_the_type_that_another_file_says() {
    let mut repository = Repository::parquet();
    let nothing: ArrayRef = Arc::new(NullArray::new(1));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    repository
        .write("data/a.parquet", vec![("at", micros(&[1])), ("word", nothing.clone()), ("none", nothing)]);
    repository.write("data/b.parquet", vec![("at", micros(&[2])), ("word", word)]);
    assert_eq!(describe(&repository.schema()), "at: Timestamp(µs, \"UTC\")\nword: Utf8\nnone: Null\n");
    repository.declare("word", scalar(ScalarType::String));
    let used = Schema::new(repository.schema().fields()[..2].to_vec());
    let rows = all(&repository.history().open(&repository.source, &Arc::new(used)).unwrap()).unwrap();
    assert_eq!(rows.column(1).as_ref(), &StringArray::from(vec![None, Some("one")]) as &dyn Array);
}

/// Whichever file is the first one.
#[test]
fn what_only_some_files_have_is_null_in_the_others() {
    for names in [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]] {
        let repository = Repository::parquet();
        let write = |name: &str, at: i64, columns: Vec<(&str, ArrayRef)>| {
            let columns = [("at", micros(&[at]))].into_iter().chain(columns).collect();
            repository.write(&format!("data/{name}.parquet"), columns);
        };
        let decimal = |value: i128, precision, scale| -> ArrayRef {
            let values = Decimal128Array::from(vec![value]);
            Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
        };
        let (halves, words) = (Float64Array::from(vec![0.5]), StringArray::from(vec!["one"]));
        write(names[0], 1, vec![("n", count(1))]);
        write(names[1], 2, vec![("price", decimal(125, 9, 2)), ("n", Arc::new(halves))]);
        write(names[2], 3, vec![("price", decimal(7, 4, 3)), ("word", Arc::new(words))]);
        let scan = repository.open().unwrap();
        let dtype = |name: &str| scan.schema().field_with_name(name).unwrap().data_type().clone();
        assert_eq!(["n", "price", "word"].map(dtype), [DataType::Float64, DataType::Float64, DataType::Utf8]);
        let rows = [
            "1970-01-01T00:00:00.000001Z|0.0||\n",
            "1970-01-01T00:00:00.000002Z|0.5|1.25|\n",
            "1970-01-01T00:00:00.000003Z||0.007|one\n",
        ];
        assert_eq!(cells(&scan, &["at", "n", "price", "word"]), rows.concat());
    }
}

/// As Hive, Spark and DuckDB write them.
#[test]
fn folders_say_columns_that_no_file_has() {
    for path in ["data", "data/**/*.parquet"] {
        let mut repository = Repository::new(Format::Parquet, path);
        let write = |folder: &str, at: i64| {
            let columns = vec![("at", micros(&[at])), ("n", count(1))];
            repository.write(&format!("data/{folder}/a.parquet"), columns);
        };
        write("region=eu/day=2024-01-01/v=1", 1);
        write("region=a%2Fb/day=2024-01-02/v=2", 2);
        write("region=__HIVE_DEFAULT_PARTITION__/day=2024-01-03/v=x", 3);
        write("_temporary/region=none/day=2024-01-03/v=1", 4);
        let scan = repository.open().unwrap();
        let dtype = |name: &str| scan.schema().field_with_name(name).unwrap().data_type().clone();
        let types = [DataType::Int64, DataType::Date32, DataType::Utf8, DataType::Utf8];
        assert_eq!(["n", "day", "region", "v"].map(dtype), types);
        let rows = [
            "1970-01-01T00:00:00.000001Z|2024-01-01|eu|1\n",
            "1970-01-01T00:00:00.000002Z|2024-01-02|a/b|2\n",
            "1970-01-01T00:00:00.000003Z|2024-01-03||x\n",
        ];
        assert_eq!(cells(&scan, &["at", "day", "region", "v"]), rows.concat());
        repository.declare("v", scalar(ScalarType::Int64));
        let found = lines(&repository.history().fits(&repository.source, &repository.schema()).mistakes);
        assert!(found.contains("v=x/a.parquet`: its folder `v=…` says no int64, such as -7"), "{found}");
        // What a file has itself counts.
        repository.write("data/region=eu/n=7/b.parquet", vec![("at", micros(&[5])), ("n", count(1))]);
        let again = repository.history().open(&repository.source, scan.schema());
        let rows = cells(&again.unwrap(), &["at", "n"]);
        assert!(rows.contains("1970-01-01T00:00:00.000005Z|0\n"), "{rows}");
    }
}

#[test]
fn a_file_beside_folders_has_none_of_their_columns() {
    let repository = Repository::parquet();
    for (path, at) in [("data/a.parquet", 1), ("data/region=eu/a.parquet", 2)] {
        repository.write(path, vec![("at", micros(&[at]))]);
    }
    let rows = cells(&repository.open().unwrap(), &["at", "region"]);
    assert_eq!(rows, "1970-01-01T00:00:00.000001Z|\n1970-01-01T00:00:00.000002Z|eu\n");
}

#[test]
fn a_time_may_stand_in_a_folder() {
    let mut repository = Repository::parquet();
    repository.source.event_timestamp = "day".to_owned();
    repository.write("data/day=2024-01-02/a.parquet", vec![("n", count(2))]);
    let scan = repository.open().unwrap();
    let day_us = 1_704_153_600_000_000;
    assert_eq!(scan.units[0].times, Some((day_us, day_us)));
    assert_eq!(all(&scan).unwrap().column_by_name("day").unwrap(), &micros(&[day_us, day_us]));
    repository.write("data/b.parquet", vec![("n", count(2))]);
    expect![[r#"
        events.yaml:1:5: source `events`: `data/b.parquet` has no event_timestamp `day`
          help: known: n
    "#]]
    .assert_eq(&repository.mistakes());
}

/// Rows as texts, sorted.
fn cells(scan: &Scan, columns: &[&str]) -> String {
    let mut rows: Vec<String> = Vec::new();
    for unit in 0..scan.units.len() {
        let batch = read(scan, unit, columns, None).unwrap();
        let cell = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
        rows.extend((0..batch.num_rows()).map(|row| {
            batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|") + "\n"
        }));
    }
    rows.sort();
    rows.concat()
}

#[test]
fn a_name_that_two_columns_have_is_nobodys() {
    let mut repository = Repository::parquet();
    repository.write(
        "data/a.parquet",
        vec![("at", micros(&[1])), ("n", count(1)), ("n", count(1)), ("m", count(1))],
    );
    let schema = Schema::new(vec![repository.schema().field(2).clone()]);
    assert_eq!(lines(&repository.history().fits(&repository.source, &schema).mistakes), "");
    repository.declare("n", scalar(ScalarType::Int64));
    expect![[r#"
        events.yaml:10:5: source `events`: `data/a.parquet` has two columns `n`
          help: give one of them another name, or leave it out of the file
    "#]]
    .assert_eq(&repository.mistakes());
}

/// One writer makes whole numbers of a column, another, with a gap in it, floats.
#[test]
fn a_column_has_a_type_that_says_the_values_of_all_files() {
    let repository = Repository::parquet();
    let int32 = |x| Arc::new(Int32Array::from(vec![x])) as ArrayRef;
    let int64 = |x| Arc::new(Int64Array::from(vec![x])) as ArrayRef;
    let float32 = |x| Arc::new(Float32Array::from(vec![x])) as ArrayRef;
    let float64 = |x| Arc::new(Float64Array::from(vec![x])) as ArrayRef;
    for (file, a, b, c) in [
        ("data/a.parquet", int32(Some(1)), float32(Some(0.5)), int32(Some(7))),
        ("data/b.parquet", int64(Some(1 << 40)), float64(Some(1e300)), float32(Some(0.5))),
        ("data/c.parquet", int32(None), float32(None), float64(Some(1e300))),
    ] {
        let at = micros(&[0]);
        repository.write(file, vec![("at", at), ("a", a), ("b", b), ("c", c)]);
    }
    expect![[r#"
        at: Timestamp(µs, "UTC")
        a: Int64
        b: Float64
        c: Float64
    "#]]
    .assert_eq(&describe(&repository.schema()));
    let rows = all(&repository.open().unwrap()).unwrap();
    assert_eq!(
        rows.column(1).as_primitive::<Int64Type>(),
        &Int64Array::from(vec![Some(1), Some(1 << 40), None])
    );
    let floats = |place: usize| rows.column(place).as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    assert_eq!(floats(2), [Some(0.5), Some(1e300), None]);
    assert_eq!(floats(3), [Some(7.0), Some(0.5), Some(1e300)]);
}

#[test]
fn days_of_the_julian_calendar_are_refused() {
    let said_of = |is_within: bool, key: &str, value: &str, days: Vec<i32>| {
        let repository = Repository::parquet();
        let entry = KeyValue::new(key.to_owned(), value.to_owned());
        let count = days.len();
        let days: ArrayRef = Arc::new(Date32Array::from(days));
        let field = Arc::new(Field::new("of", DataType::Date32, true));
        let within: ArrayRef = Arc::new(StructArray::new(vec![field].into(), vec![Arc::clone(&days)], None));
        let days = if is_within { within } else { days };
        let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0; count]));
        let properties = groups_of(10).set_key_value_metadata(Some(vec![entry]));
        write_parquet(
            &repository.folder.path().join("data/a.parquet"),
            vec![("at", at), ("day", days)],
            properties,
        );
        repository
            .open()
            .and_then(|scan| all(&scan))
            .map(|rows| rows.num_rows())
            .map_err(|error| error.said())
    };
    let said = |key: &str, value: &str, days: Vec<i32>| {
        let both = [false, true].map(|is_within| said_of(is_within, key, value, days.clone()));
        assert_eq!(both[0], both[1]);
        both[0].clone()
    };
    let (legacy, version) = ("org.apache.spark.legacyDateTime", "org.apache.spark.version");
    // 1582-10-15 is the first day after the change.
    for (key, value) in [(legacy, ""), (version, "2.4.8")] {
        assert_eq!(said(key, value, vec![-141_427, 0]), Ok(2));
        let refused = said(key, value, vec![0, -141_428]).unwrap_err();
        assert!(refused.contains("its column `day` has days of before 1582-10-15"), "{refused}");
    }
    for (key, value) in [(version, "3.5.1"), (version, "odd"), ("writer", "2.4.8")] {
        assert_eq!(said(key, value, vec![-200_000, 0]), Ok(2), "{key} {value}");
    }
}
