//! CSV in, typed rows out.

use expect_test::expect;
use feature_defs::ScalarType::*;

use super::*;

fn list(item: ScalarType, length: Option<u32>) -> Type {
    Type::List { item, length }
}

fn everything() -> Vec<(&'static str, Type)> {
    let scalars = [Bool, Int32, Int64, Float32, Float64, String, Bytes, Timestamp, Date];
    let mut columns: Vec<_> = scalars.into_iter().map(|t| (t.name(), scalar(t))).collect();
    columns.push(("floats", list(Float32, None)));
    columns.push(("pair", list(Int64, Some(2))));
    columns.push(("texts", list(String, None)));
    columns.push(("truths", list(Bool, Some(2))));
    columns
}

#[test]
fn every_type_is_read_from_text() {
    let repository = Repository::csv(&everything());
    repository.file(
        "data/a.csv",
        "bool,int32,int64,float32,float64,string,bytes,timestamp,date,floats,pair,texts,truths,at\n\
         true,-7,9223372036854775807,0.1,1e-3,\"a, \"\"b\"\"\",3q2+7w==,2013-01-31T09:26:56.123456Z,2013-01-31,\"[1, 2.5, null]\",\"[1,2]\",\"[\"\"a, b\"\", null, \"\"\"\", \"\"\\u00e9\"\"]\",\"[true, null]\",2013-01-01\n\
         F, 7.0 ,+1,NaN,-inf, kept ,3q2+7w,1969-12-31 23:59:59.9999999,1900-02-28,[],\"[ 3 , 4 ]\",[ ],\"[f,1]\",2013-01-01 05:00:00-05:00\n\
         ,,,,,,,,,,,,,2013-07-01 00:00:00 America/New_York\n",
    );
    expect![[r#"
        at: Timestamp(µs, "UTC")
        bool: Boolean
        int32: Int32
        int64: Int64
        float32: Float32
        float64: Float64
        string: Utf8
        bytes: Binary
        timestamp: Timestamp(µs, "UTC")
        date: Date32
        floats: List(Float32)
        pair: FixedSizeList(2 x Int64)
        texts: List(Utf8)
        truths: FixedSizeList(2 x Boolean)
    "#]]
    .assert_eq(&describe(&repository.schema()));
    expect![[r#"
        +----------------------+-------+-------+---------------------+---------+---------+--------+----------+-----------------------------+------------+--------------+--------+---------------+---------------+
        | at                   | bool  | int32 | int64               | float32 | float64 | string | bytes    | timestamp                   | date       | floats       | pair   | texts         | truths        |
        +----------------------+-------+-------+---------------------+---------+---------+--------+----------+-----------------------------+------------+--------------+--------+---------------+---------------+
        | 2013-01-01T00:00:00Z | true  | -7    | 9223372036854775807 | 0.1     | 0.001   | a, "b" | deadbeef | 2013-01-31T09:26:56.123456Z | 2013-01-31 | [1.0, 2.5, ] | [1, 2] | [a, b, , , é] | [true, ]      |
        | 2013-01-01T10:00:00Z | false | 7     | 1                   | NaN     | -inf    |  kept  | deadbeef | 1969-12-31T23:59:59.999999Z | 1900-02-28 | []           | [3, 4] | []            | [false, true] |
        | 2013-07-01T04:00:00Z |       |       |                     |         |         |        |          |                             |            |              |        |               |               |
        +----------------------+-------+-------+---------------------+---------+---------+--------+----------+-----------------------------+------------+--------------+--------+---------------+---------------+"#]].assert_eq(&table(&all(&repository.open().unwrap()).unwrap()));
}

#[test]
fn columns_go_by_name_and_what_is_not_declared_is_skipped() {
    let repository = Repository::csv(&[("n", scalar(Int64)), ("word", scalar(String))]);
    repository.file(
        "data/a.csv",
        "\u{feff}word,extra, n ,at\r\n\"one\nline\",\"not, \"\"read\"\"\",1,2013-01-01\r\n",
    );
    repository.file("data/b.csv", "at,n,word\n\n2013-01-02,2,two\n\n2013-01-03,3,\"\"");
    let scan = repository.open().unwrap();
    assert_eq!(scan.units.iter().map(|unit| unit.rows).collect::<Vec<_>>(), [1, 2]);
    expect![[r#"
        +------+---+
        | word | n |
        +------+---+
        | one  | 1 |
        | line |   |
        +------+---+"#]]
    .assert_eq(&table(&read(&scan, 0, &["word", "n"], None).unwrap()));
    expect![[r#"
        +---+------+----------------------+
        | n | word | at                   |
        +---+------+----------------------+
        | 2 | two  | 2013-01-02T00:00:00Z |
        | 3 |      | 2013-01-03T00:00:00Z |
        +---+------+----------------------+"#]]
    .assert_eq(&table(&read(&scan, 1, &["n", "word", "at"], None).unwrap()));
    expect![[r#"
        +---+
        | n |
        +---+
        | 3 |
        +---+"#]]
    .assert_eq(&table(&read(&scan, 1, &["n"], Some(&[1])).unwrap()));
}

#[test]
fn what_only_some_files_have_is_null_in_the_others() {
    let repository = Repository::csv(&[("n", scalar(Int64)), ("word", scalar(String))]);
    repository.file("data/a.csv", "at,n\n2013-01-01,1\n");
    repository.file("data/b.csv", "word,at\none,2013-01-02\n");
    let rows = all(&repository.open().unwrap()).unwrap();
    expect![[r#"
        +----------------------+---+------+
        | at                   | n | word |
        +----------------------+---+------+
        | 2013-01-01T00:00:00Z | 1 |      |
        | 2013-01-02T00:00:00Z |   | one  |
        +----------------------+---+------+"#]]
    .assert_eq(&table(&rows));
    repository.file("data/c.csv", "n,word\n1,one\n");
    let found = repository.history().fits(&repository.source, &repository.schema()).mistakes;
    expect![[r#"
        events.yaml:3:5: source `events`: `data/c.csv` has no event_timestamp `at`
          help: known: n, word
    "#]]
    .assert_eq(&lines(&found));
}

#[test]
fn folders_say_columns_that_no_file_has() {
    let repository = Repository::csv(&[("n", scalar(Int64)), ("day", scalar(Date)), ("zone", scalar(Int64))]);
    repository.file("data/day=2024-01-01/zone=7/a.csv", "at,n\n2013-01-01,1\n2013-01-02,2\n");
    repository.file("data/day=2024-01-02/b.csv", "at,n\n2013-01-03,3\n");
    expect![[r#"
        +----------------------+---+------------+------+
        | at                   | n | day        | zone |
        +----------------------+---+------------+------+
        | 2013-01-01T00:00:00Z | 1 | 2024-01-01 | 7    |
        | 2013-01-02T00:00:00Z | 2 | 2024-01-01 | 7    |
        | 2013-01-03T00:00:00Z | 3 | 2024-01-02 |      |
        +----------------------+---+------------+------+"#]]
    .assert_eq(&table(&all(&repository.open().unwrap()).unwrap()));
}

#[test]
fn a_bad_cell_is_named_with_its_place() {
    let bad = [
        ("bool", "yes"),
        ("int32", "2147483648"),
        ("int64", "1.5"),
        ("float32", "1e39"),
        ("float64", "1,5"),
        ("bytes", "a b"),
        ("timestamp", "1357034400"),
        ("timestamp", "1357034400000"),
        ("timestamp", "1357034400.5"),
        ("timestamp", "20130101"),
        ("timestamp", "1.357e9"),
        ("timestamp", "2013-02-29T00:00:00Z"),
        ("timestamp", "2013-03-10 02:30:00 America/New_York"),
        ("date", "2013-1-5"),
        ("date", "2013-01-31T00:00:00"),
        ("floats", "1, 2"),
        ("floats", "[1,,2]"),
        ("pair", "[1, 2, 3]"),
        ("texts", "[a, b]"),
        ("texts", "['a']"),
        ("truths", "[true]"),
    ];
    let mut seen = std::string::String::new();
    for (column, text) in bad {
        let dtype = everything().into_iter().find(|(name, _)| *name == column).unwrap().1;
        let repository = Repository::csv(&[(column, dtype)]);
        // Blank lines, and line ends inside quotes, count as lines all the same.
        repository
            .file("data/a.csv", format!("at,note,{column}\r\n\r\n,\"two\nlines\",\r\n,,\"{text}\"\r\n"));
        seen += &(repository.error() + "\n");
    }
    expect![[r#"
        `data/a.csv`, line 5, column `bool`: its cell is not of type bool, such as true
        `data/a.csv`, line 5, column `int32`: its cell is not of type int32, such as -7
        `data/a.csv`, line 5, column `int64`: its cell is not of type int64, such as -7
        `data/a.csv`, line 5, column `float32`: its cell is not of type float32, such as -1.5e3
        `data/a.csv`, line 5, column `float64`: its cell is not of type float64, such as -1.5e3
        `data/a.csv`, line 5, column `bytes`: its cell is not of type bytes, such as 3q2+7w== (base64)
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z; it looks like seconds; a column's `format` says what its numbers count, as in `format: epoch_s`
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z; it looks like milliseconds; a column's `format` says what its numbers count, as in `format: epoch_ms`
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z; it looks like seconds; a column's `format` says what its numbers count, as in `format: epoch_s`
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z; it is too near to 1970 to be taken for microseconds: write it as RFC 3339; a column's `format` says what its numbers count, as in `format: epoch_s`
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z
        `data/a.csv`, line 5, column `timestamp`: its cell is not of type timestamp, such as 2013-01-31T09:26:56.5Z
        `data/a.csv`, line 5, column `date`: its cell is not of type date, such as 2013-01-31
        `data/a.csv`, line 5, column `date`: its cell is not of type date, such as 2013-01-31
        `data/a.csv`, line 5, column `floats`: its cell is not of type list<float32>, such as [1, 2, null]
        `data/a.csv`, line 5, column `floats`: its cell is not of type list<float32>, such as [1, 2, null]
        `data/a.csv`, line 5, column `pair`: its cell is not of type list<int64, 2>, such as [1, 2, null]
        `data/a.csv`, line 5, column `texts`: its cell is not of type list<string>, such as ["a", "b", null]
        `data/a.csv`, line 5, column `texts`: its cell is not of type list<string>, such as ["a", "b", null]
        `data/a.csv`, line 5, column `truths`: its cell is not of type list<bool, 2>, such as [true, false, null]
    "#]].assert_eq(&seen);
}

#[test]
fn files_that_are_no_such_table_are_refused() {
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("short", b"at,n\n2013-01-01,1\n\n2013-01-01\n"),
        ("twice", b"at,n,n\n2013-01-01,1,2\n"),
        ("latin", b"at,n\n2013-01-01,Zo\xeb\n"),
        ("header", b"at,n,Zo\xeb\n"),
        ("lacks", b"at,m\n"),
    ];
    let mut seen = std::string::String::new();
    for (name, bytes) in cases {
        let repository = Repository::csv(&[("n", scalar(String))]);
        repository.file(&format!("data/{name}.csv"), bytes);
        seen += &match repository.history().schema(&repository.source) {
            Ok(_) => repository.error() + "\n",
            Err(_) => repository.mistakes(),
        };
    }
    expect![[r#"
        events.yaml:3:5: source `events`: `data/empty.csv` cannot be read: it is empty; a CSV file begins with a line of column names
          help: rewrite the file, or leave it out of the path
        `data/short.csv` cannot be read: line 4 has 1 cells and the header 2
        events.yaml:3:5: source `events`: `data/twice.csv` cannot be read: its header names column `n` twice
          help: rewrite the file, or leave it out of the path
        `data/latin.csv`, line 2, column `n`: its cell is not of type string: it is not UTF-8; say under `batch` how it is written, as in `encoding: windows-1252`
        events.yaml:3:5: source `events`: `data/header.csv` cannot be read: its header is not UTF-8; say under `batch` how it is written, as in `encoding: windows-1252`
          help: rewrite the file, or leave it out of the path
        events.yaml:11:5: source `events`: `data/lacks.csv` has no column `n`
          help: known: at, m
    "#]].assert_eq(&seen);
}

#[test]
fn a_quote_that_is_never_closed_swallows_no_rows() {
    let repository = Repository::csv(&[("n", scalar(String)), ("m", scalar(String))]);
    let said = |text: &str| {
        repository.file("data/a.csv", text);
        // What stands in the first piece of a file shows when its header is read.
        if repository.history().schema(&repository.source).is_ok() {
            repository.error()
        } else {
            repository.mistakes()
        }
    };
    let rows = "2013-01-02,b,c\n".repeat(3);
    expect!["`data/a.csv` cannot be read: the quote that opens on line 2 is never closed"]
        .assert_eq(&said(&format!("at,n,m\r\n2013-01-01,a,\"b\r\n{rows}")));
    expect!["`data/a.csv` cannot be read: the quote that opens on line 3 is never closed"]
        .assert_eq(&said(&format!("at,n,m\n\n2013-01-01,\"a,b\n{rows}")));
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: the quote that opens on line 2 is closed on line 6, where the cell goes on; a quote within a cell is written twice (""), or stands after what `escape` under `batch` says, as in `escape: "\\"` for Spark's files
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&said(&format!("at,n,m\n2013-01-01,a,\"b\n{rows}2013-01-01,\"a\",b\n")));
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: the quote that opens on line 2 is closed on line 2, where the cell goes on; a quote within a cell is written twice (""), or stands after what `escape` under `batch` says, as in `escape: "\\"` for Spark's files
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&said("at,n,m\n2013-01-01,a,\"5\\\" pipe\"\n"));
}

#[test]
fn a_cell_without_end_does_not_fill_the_memory() {
    let repository = Repository::csv(&[("n", scalar(String))]);
    let mut text = b"at,n\n2013-01-01,\"".to_vec();
    text.resize(17 << 20, b'x');
    text.extend(b"\"\n");
    repository.file("data/a.csv", text);
    expect!["`data/a.csv` cannot be read: a record is longer than 16777216 bytes"]
        .assert_eq(&repository.error());
}

#[test]
fn every_column_must_be_declared_and_times_be_times() {
    let mut repository = Repository::new(Format::Csv, "data");
    repository.source.created_timestamp = Some("loaded".to_owned());
    repository.source.event_id = vec!["id".to_owned()];
    repository.declare("loaded", scalar(Int64));
    repository.file("data/a.csv", "at,loaded,id\n");
    expect![[r#"
        events.yaml:10:5: source `events`: its created_timestamp `loaded` is declared int64, but must be timestamp or date
          help: declare it `timestamp`, and store times in it
        events.yaml:1:5: source `events`: its event_timestamp `at` is not among its columns
          help: CSV and JSON files and pushes declare every column; known: loaded
        events.yaml:1:5: source `events`: its event_id `id` is not among its columns
          help: CSV and JSON files and pushes declare every column; known: loaded
    "#]].assert_eq(&repository.mistakes());
}

#[test]
fn long_files_come_in_several_batches() {
    let repository = Repository::csv(&[("n", scalar(Int64))]);
    let rows = super::super::BATCH_ROWS_MAX * 2 + 1;
    let text: std::string::String = (0..rows).map(|n| format!("{n},2013-01-01\n")).collect();
    repository.file("data/a.csv", "n,at\n".to_owned() + &text);
    let scan = repository.open().unwrap();
    let mut sizes = Vec::new();
    let mut visit = |offset, batch: RecordBatch| {
        sizes.push((offset, batch.num_rows()));
        Ok::<_, Error>(())
    };
    scan.read(0, &["n".to_owned()], None, &mut visit).unwrap();
    assert_eq!(sizes, [(0, 16_384), (16_384, 16_384), (32_768, 1)]);
}

#[test]
fn columns_that_some_files_lack_are_noted() {
    let columns = [("n", scalar(Int64)), ("word", scalar(String)), ("day", scalar(Date))];
    let mut repository = Repository::csv(&columns);
    repository.file("data/a.csv", "at,n,word,day\n2013-01-01,1,one,2013-01-01\n");
    repository.file("data/b.csv", "at,n,wrod,day\n2013-01-02,2,two,2013-01-02\n");
    repository.file("data/day=2013-01-03/c.csv", "at,n\n2013-01-03,3\n");
    let gaps = |repository: &Repository| {
        let fits = repository.history().fits(&repository.source, &repository.schema());
        assert!(fits.mistakes.is_empty());
        fits.gaps.join("\n")
    };
    expect!["source `events`: 2 of 3 files lack column `word`, `data/b.csv` is the first: it is null in their rows; if they call it otherwise, rename it there"].assert_eq(&gaps(&repository));
    // Of JSON the first lines are looked at.
    if let Some(batch) = &mut repository.source.batch {
        batch.format = Format::Json;
    }
    repository.file("data/a.jsonl", "{\"at\": \"2013-01-01\", \"n\": 1}\n");
    repository.file("data/b.jsonl", "{\"at\": \"2013-01-02\", \"wrod\": \"two\", \"day\": null}\n");
    expect!["source `events`: no file shows column `word` in its first lines, `data/a.jsonl` is the first; if it is called otherwise there, it is null"].assert_eq(&gaps(&repository));
}
