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
          help: say what it is stored as, `{name: carrier, type: int64, from: string}`, or declare it as string
        events.yaml:1:5: source `events`: event_timestamp `at` should be timestamp or date, but is int64 in `data/a.parquet`
          help: say what its numbers count since 1970, as in `{name: at, type: timestamp, format: epoch_ms}`; known: epoch_s, epoch_ms, epoch_us, epoch_ns
        events.yaml:1:5: source `events`: `data/a.parquet` has no event_id `id`
          help: known: arr_delay, at, carrier, loaded
    "#]].assert_eq(&repository.mistakes());
}

#[test]
fn every_further_file_is_looked_at_and_checked_again_when_the_source_is_opened() {
    let repository = Repository::parquet();
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    repository.write(
        "data/a.parquet",
        vec![("at", times(1)), ("n", Arc::clone(&number)), ("m", Arc::clone(&number))],
    );
    let history = repository.history();
    let schema = history.schema(&repository.source).unwrap();
    repository.write("data/b.parquet", vec![("m", number), ("at", Arc::clone(&word)), ("n", word)]);
    repository.write("data/c.parquet", vec![("at", times(1))]);
    expect![[r#"
        events.yaml:3:5: source `events`: event_timestamp `at` should be timestamp or date, but is string in `data/b.parquet`
          help: say what it is stored as, `{name: at, type: timestamp, from: string}`, or rewrite the file
        events.yaml:3:5: source `events`: column `n` should be int64, but is string in `data/b.parquet`
          help: say what it is stored as, `{name: "n", type: int64, from: string}`, or declare it as string
    "#]].assert_eq(&lines(&history.fits(&repository.source, &schema).mistakes));
    // What nobody uses may be missing, or of any type.
    let used = Schema::new(vec![schema.field(2).clone()]);
    expect![[r#"
        events.yaml:3:5: source `events`: event_timestamp `at` should be timestamp or date, but is string in `data/b.parquet`
          help: say what it is stored as, `{name: at, type: timestamp, from: string}`, or rewrite the file
    "#]]
    .assert_eq(&lines(&history.fits(&repository.source, &used).mistakes));
    repository.file("data/d.parquet", "PAR1 is how a Parquet file begins and ends, but there is more to it");
    repository.file("data/e.parquet", "");
    expect![[r#"
        events.yaml:3:5: source `events`: `data/d.parquet` cannot be read: Invalid Parquet file. Corrupt footer
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/e.parquet` cannot be read: it is empty; was it not written to its end?
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&lines(&history.schema(&repository.source).unwrap_err()));
    expect![[r#"
        source `events`: event_timestamp `at` should be timestamp or date, but is string in `data/b.parquet`; say what it is stored as, `{name: at, type: timestamp, from: string}`, or rewrite the file
        source `events`: column `n` should be int64, but is string in `data/b.parquet`; say what it is stored as, `{name: "n", type: int64, from: string}`, or declare it as string
        `data/d.parquet` cannot be read: Invalid Parquet file. Corrupt footer
        `data/e.parquet` cannot be read: it is empty; was it not written to its end?"#]].assert_eq(&history.open(&repository.source, &schema).unwrap_err().to_string());
}

#[test]
fn what_a_file_said_is_remembered_until_it_changes() {
    let repository = Repository::parquet();
    let history = repository.history();
    let write = |name: &str| {
        (0..40).for_each(|i| {
            repository.write(&format!("data/{i:02}.parquet"), vec![("at", times(1)), (name, times(1))]);
        });
    };
    write("old");
    let names = |history: &History| {
        let schema = history.schema(&repository.source).unwrap();
        schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&history), ["at", "old"]);
    assert_eq!(names(&history), ["at", "old"]);
    assert_eq!(history.looks.said(), (40, 1), "files that say the same are kept once");
    write("new");
    assert_eq!(names(&history), ["at", "new"]);
}

#[test]
fn a_file_of_equal_size_and_time_is_another_one_all_the_same() {
    let repository = Repository::parquet();
    let at = |us: i64| {
        repository.write("data/a.parquet", vec![("at", Arc::new(TimestampMicrosecondArray::from(vec![us])))]);
        let file = File::options().write(true).open(repository.folder.path().join("data/a.parquet")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
        file.metadata().unwrap().len()
    };
    let bytes = at(1);
    let (schema, history) = (repository.schema(), repository.history());
    let scan = repository.open().unwrap();
    assert_eq!(all(&scan).unwrap().num_rows(), 1);
    // Rewritten in place, then replaced by a file of the same name.
    assert_eq!(at(2), bytes);
    assert!(all(&scan).unwrap_err().to_string().contains("changed while it was being read"));
    let scan = history.open(&repository.source, &schema).unwrap();
    fs::copy(repository.folder.path().join("data/a.parquet"), repository.folder.path().join("copy")).unwrap();
    at(3);
    fs::rename(repository.folder.path().join("copy"), repository.folder.path().join("data/a.parquet"))
        .unwrap();
    assert!(all(&scan).unwrap_err().to_string().contains("changed while it was being read"));
}

#[test]
fn a_table_with_a_log_of_its_own_is_refused() {
    let logs =
        ["_delta_log/00000000000000000000.json", "metadata/v3.metadata.json", ".hoodie/hoodie.properties"];
    let mut seen = String::new();
    for log in logs {
        for path in ["lake/t", "lake/t/**/*.parquet", "lake/t/day=1/a.parquet", "link"] {
            let mut repository = Repository::new(Format::Parquet, path);
            repository.write("lake/t/day=1/a.parquet", vec![("at", times(1))]);
            let folder = repository.folder.path().to_owned();
            std::os::unix::fs::symlink(folder.join("lake/t/day=1"), folder.join("link")).unwrap();
            assert_eq!(repository.open().unwrap().units.len(), 1);
            let schema = repository.schema();
            repository.file(&format!("lake/t/{log}"), "{}");
            let mistakes = repository.mistakes();
            assert!(seen.is_empty() || seen.contains(&mistakes) || path == "lake/t", "{path}: {mistakes}");
            if path == "lake/t" {
                seen += &mistakes;
            }
            assert!(repository.history().open(&repository.source, &schema).is_err());
            // Beside the table, or above the repository, a log says nothing of these files.
            repository.source.batch = Some(BatchSource {
                format: Format::Parquet,
                path: "plain".to_owned(),
                dialect: Default::default(),
                connection: None,
                version: None,
                reference: None,
                catalog: None,
                loc: loc(3),
            });
            repository.write("plain/a.parquet", vec![("at", times(1))]);
            assert_eq!(repository.open().unwrap().units.len(), 1);
        }
    }
    expect![[r#"
        events.yaml:3:5: source `events`: `lake/t` is a Delta table: its `_delta_log` says which files count, and without it deleted rows would come back
          help: read it as a table: `format: delta, path: lake/t`
        events.yaml:3:5: source `events`: `lake/t` is an Iceberg table: its `metadata` says which files count, and without it deleted rows would come back
          help: read it as a table: `format: iceberg, path: lake/t`
        events.yaml:3:5: source `events`: `lake/t` is a Hudi table: its `.hoodie` says which files count, and without it deleted rows would come back
          help: such tables are not read yet; write what it holds now into Parquet files, as in Spark's `spark.read.format("hudi").load(…).write.parquet(…)`, and name those
    "#]].assert_eq(&seen);
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
        events.yaml:3:5: source `events`: no connection of its project leads to `s3://bucket/landings`
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
          # gone is struct, which is no type of a column
    "#]].assert_eq(&(csv.mistakes() + &parquet.mistakes()));
}

/// Of an `event_id`; of any other column it is for whoever computes of it.
#[test]
fn a_value_that_does_not_fit_names_its_column_or_stays_what_it_is() {
    let mut repository = Repository::parquet();
    repository.declare("n", scalar(ScalarType::Int32));
    let rows = |n: i64| vec![("at", times(1)), ("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)];
    repository.write("data/a.parquet", rows(1 << 40));
    repository.write("data/b.parquet", rows(1));
    let scan = repository.open().unwrap();
    let types = (0..2).map(|unit| {
        let mut dtype = None;
        scan.read(unit, &["n".to_owned()], None, &mut |_, rows| {
            dtype = Some(rows.column(0).data_type().clone());
            Ok::<_, Error>(())
        })
        .unwrap();
        dtype.unwrap()
    });
    assert_eq!(types.collect::<Vec<_>>(), [DataType::Int64, DataType::Int32]);
    repository.source.event_id = vec!["n".to_owned()];
    expect!["`data/a.parquet` cannot be read: its column `n` (int64) does not fit int32: it holds a value that is none; a log at `debug` quotes it"].assert_eq(&repository.error());
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
        assert!(error.to_string().contains("changed while it was being read"), "{error}");
        // Who asks again is answered.
        assert!(error.kind() == Kind::Unavailable && error.retry_after().is_some());
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

/// Whoever may apply a source is told where a file is none of a table's, and nothing that is in it.
#[test]
fn what_is_no_table_tells_nothing_of_itself() {
    let secrets =
        ["PASSWORD=hunter2", "PASSWORD;hunter2", "\"hunter2", "hunter2,\nhunter2", "hunter2\nhunter2,x"];
    for declared in [&[("n", scalar(ScalarType::Int64))][..], &[]] {
        for (path, secret) in ["secrets.txt", "id_rsa", "keys/a.pem"].iter().zip(secrets.iter().cycle()) {
            let mut repository = Repository::csv(declared);
            if declared.is_empty() {
                repository.source.columns.clear();
            }
            let batch = BatchSource {
                format: Format::Csv,
                path: (*path).to_owned(),
                dialect: Default::default(),
                connection: None,
                version: None,
                reference: None,
                catalog: None,
                loc: loc(3),
            };
            repository.source.batch = Some(batch);
            for secret in [*secret, secrets[0], secrets[1]] {
                repository.file(path, secret);
                let mistakes = repository.mistakes();
                assert!(mistakes.contains(path) || mistakes.contains("`columns`"), "{mistakes}");
                assert!(!mistakes.contains("hunter2") && !mistakes.contains("PASSWORD"), "{mistakes}");
            }
        }
    }
    let mut repository = Repository::csv(&[]);
    let mut seen = String::new();
    for path in [".env", "keys/.netrc", ".ssh/id_rsa", ".en*", "quern.yaml", "a/../.env", "link.csv"] {
        repository.source.batch = Some(BatchSource {
            format: Format::Csv,
            path: path.to_owned(),
            dialect: Default::default(),
            connection: None,
            version: None,
            reference: None,
            catalog: None,
            loc: loc(3),
        });
        // Whether there is such a file is told nobody.
        let before = (path != "link.csv").then(|| repository.mistakes());
        repository.file(path.replace('*', "v").trim_start_matches("a/../"), "at\n2013-01-01\n");
        if path == "link.csv" {
            fs::remove_file(repository.folder.path().join(path)).unwrap();
            std::os::unix::fs::symlink(".env", repository.folder.path().join(path)).unwrap();
        }
        let mistakes = repository.mistakes();
        assert!(before.is_none_or(|before| before == mistakes), "{mistakes}");
        seen += mistakes.lines().next().unwrap();
        seen.push('\n');
    }
    expect![[r#"
        events.yaml:3:5: source `events`: `.env` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `keys/.netrc` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `.ssh/id_rsa` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `.en*` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `quern.yaml` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `a/../.env` is hidden, or YAML, and so no file of a source
        events.yaml:3:5: source `events`: `link.csv` is hidden, or YAML, and so no file of a source
    "#]]
    .assert_eq(&seen);
}
