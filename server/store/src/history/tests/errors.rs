//! What does a user read when a file is not what the definitions say?

use std::fs;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field};
use expect_test::expect;
use feature_defs::ScalarType;

use super::*;

fn times(count: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(0..count))
}

#[test]
fn columns_that_are_missing_or_of_a_wrong_type_are_all_named() {
    let mut repository = Repository::parquet();
    repository.source.created_timestamp = Some("loaded".to_owned());
    repository.source.event_id = vec!["id".to_owned()];
    repository.declare("arr_dealy", scalar(ScalarType::Float64));
    repository.declare("carrier", scalar(ScalarType::Int64));
    repository.declare("loaded", scalar(ScalarType::String));
    repository.write(
        "data/a.parquet",
        vec![
            ("at", Arc::new(Int64Array::from(vec![1]))),
            ("arr_delay", Arc::new(Float64Array::from(vec![1.0]))),
            ("carrier", Arc::new(StringArray::from(vec!["UA"]))),
            ("loaded", Arc::new(StringArray::from(vec!["2013-01-01"]))),
        ],
    );
    expect![[r#"
        events.yaml:12:5: source `events`: its created_timestamp `loaded` is declared string, but must be timestamp or date
          help: declare it `timestamp`, and store times in it
        events.yaml:10:5: source `events`: `data/a.parquet` has no column `arr_dealy`
          help: did you mean `arr_delay`? known: arr_delay, at, carrier, loaded
        events.yaml:11:5: source `events`: column `carrier` should be int64, but is string in `data/a.parquet`
          help: declare it as string, or rewrite the file
        events.yaml:1:5: source `events`: event_timestamp `at` should be timestamp or date, but is int64 in `data/a.parquet`
          help: rewrite the file with times in it
        events.yaml:1:5: source `events`: `data/a.parquet` has no event_id `id`
          help: known: arr_delay, at, carrier, loaded
    "#]].assert_eq(&repository.mistakes());
}

#[test]
fn every_further_file_is_checked_when_the_source_is_opened() {
    let repository = Repository::parquet();
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    repository.write(
        "data/a.parquet",
        vec![("at", times(1)), ("n", Arc::clone(&number)), ("m", Arc::clone(&number))],
    );
    repository.write("data/b.parquet", vec![("m", number), ("at", Arc::clone(&word)), ("n", word)]);
    repository.write("data/c.parquet", vec![("at", times(1))]);
    repository.file("data/d.parquet", "PAR1 is how a Parquet file begins and ends, but there is more to it");
    repository.file("data/e.parquet", "");
    expect![[r#"
        source `events`: event_timestamp `at` should be timestamp or date, but is string in `data/b.parquet`; rewrite the file with times in it
        source `events`: column `n` should be int64, but is string in `data/b.parquet`; declare it as string, or rewrite the file
        source `events`: `data/c.parquet` has no column `n`; known: at
        source `events`: `data/c.parquet` has no column `m`; known: at
        `data/d.parquet` cannot be read: Parquet error: Invalid Parquet file. Corrupt footer
        `data/e.parquet` cannot be read: EOF: Parquet file too small. Size is 0 but need 8"#]].assert_eq(&repository.error());
}

#[test]
fn a_path_without_files_says_what_lies_there() {
    let mut repository = Repository::new(Format::Parquet, "data/landings/*.parquet");
    expect![[r#"
        events.yaml:3:5: source `events`: no file matches `data/landings/*.parquet`
          help: looked in `$REPOSITORY`, which holds nothing; a path is relative to the repository's root, and a folder stands for every .parquet file in it
    "#]].assert_eq(&repository.mistakes());
    repository.file("data/landings/2013.csv", "");
    (0..6).for_each(|i| repository.file(&format!("data/{i}.csv"), ""));
    expect![[r#"
        events.yaml:3:5: source `events`: no file matches `data/landings/*.parquet`
          help: looked in `$REPOSITORY/data/landings`, which holds 2013.csv; a path is relative to the repository's root, and a folder stands for every .parquet file in it
    "#]].assert_eq(&repository.mistakes());
    let error = repository.history().open(&repository.source, &Arc::new(Schema::empty())).unwrap_err();
    assert!(
        invalid(&error) && error.to_string().contains("no file matches `data/landings/*.parquet`"),
        "{error}"
    );
    let mut seen = String::new();
    for path in ["landing", "s3://bucket/landings", "data/[.parquet"] {
        if let Some(batch) = &mut repository.source.batch {
            path.clone_into(&mut batch.path);
        }
        seen += &repository.mistakes();
    }
    expect![[r#"
        events.yaml:3:5: source `events`: no file matches `landing`
          help: looked in `$REPOSITORY`, which holds data; a path is relative to the repository's root, and a folder stands for every .parquet file in it
        events.yaml:3:5: source `events`: `s3://bucket/landings` is not a path of this machine
          help: `s3://` is not read yet; copy or mount the files and name a path or glob
        events.yaml:3:5: source `events`: `data/[.parquet` cannot be listed: Pattern syntax error near position 21: invalid range pattern
    "#]].assert_eq(&seen);
}

#[test]
fn files_whose_columns_must_be_declared_say_which_they_are() {
    let mut csv = Repository::new(Format::Csv, "data");
    csv.source.event_timestamp = "day".to_owned();
    csv.file(
        "data/a.csv",
        "day,zip,n,x,ok,\"a, b\",none\n2013-01-31,00501,1,1,t,\"[1, null]\",\n2013-02-01,10001,,2.5,F,[],\n",
    );
    let mut parquet = Repository::parquet();
    parquet.source.push = true;
    let money = Decimal128Array::from(vec![150]).with_precision_and_scale(10, 2).unwrap();
    let field = Arc::new(Field::new("x", DataType::Utf8, true));
    let gone: ArrayRef =
        Arc::new(StructArray::from(vec![(field, Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]));
    let rows = vec![("at", times(1)), ("money", Arc::new(money) as ArrayRef), ("gone", gone)];
    parquet.write("data/a.parquet", rows);
    expect![[r#"
        events.yaml:1:5: source `events` must declare its `columns`: CSV files do not say the types of their columns
          help: as far as `data/a.csv` shows, they are
        columns:
          - {name: day, type: timestamp}
          - {name: zip, type: string}
          - {name: "n", type: int64}
          - {name: x, type: float64}
          - {name: ok, type: bool}
          - {name: "a, b", type: list<float64>}
          - {name: none, type: string}
        events.yaml:1:5: source `events` must declare its `columns`: pushed rows are checked against the declared columns
          help: as far as `data/a.parquet` shows, they are
        columns:
          - {name: at, type: timestamp}
          - {name: money, type: float64}
          # gone is Struct("x": Utf8), which is no type of a column
    "#]].assert_eq(&(csv.mistakes() + &parquet.mistakes()));
}

#[test]
fn a_value_that_does_not_fit_names_its_column() {
    let mut repository = Repository::parquet();
    repository.declare("n", scalar(ScalarType::Int32));
    repository
        .write("data/a.parquet", vec![("at", times(1)), ("n", Arc::new(Int64Array::from(vec![1 << 40])))]);
    expect!["`data/a.parquet` cannot be read: its column `n` (int64) does not fit int32: Cast error: 1099511627776 is beyond int32"].assert_eq(&repository.error());
}

#[test]
fn a_file_that_changes_after_it_was_opened_is_refused() {
    for (mut repository, path) in
        [(Repository::parquet(), "data/a.parquet"), (Repository::csv(&[]), "data/a.csv")]
    {
        let write = |rows| match path {
            "data/a.csv" => repository.file(path, "at\n".to_owned() + &"2013-01-01\n".repeat(rows)),
            _ => repository.write(path, vec![("at", times(rows as i64))]),
        };
        write(30);
        let scan = repository.open().unwrap();
        write(31);
        let error = all(&scan).unwrap_err();
        assert!(invalid(&error) && error.to_string().contains("changed while it was being read"), "{error}");
        fs::remove_file(repository.folder.path().join(path)).unwrap();
        assert!(all(&scan).unwrap_err().to_string().contains(path));
        repository.source.batch = None;
    }
}

#[test]
fn an_error_of_the_visitor_ends_the_reading() {
    let repository = Repository::parquet();
    repository.write("data/a.parquet", vec![("at", times(3))]);
    let scan = repository.open().unwrap();
    let mut stop = |_, _| Err(Error::not_found("enough"));
    assert!(
        matches!(scan.read(0, &["at".to_owned()], None, &mut stop), Err(e) if e.kind() == Kind::NotFound)
    );
    assert!(matches!(scan.read(9, &[], None, &mut stop), Err(e) if e.kind() == Kind::Internal));
    assert!(matches!(scan.read(0, &["x".to_owned()], None, &mut stop), Err(e) if e.kind() == Kind::Internal));
}
