//! What does a user read whose files are not what they seem?

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use expect_test::{Expect, expect};
use quern_kit::{Repository, fixture, run};

use super::commands::{check, rows, say, words};

/// A source of `files`, with one feature of it, and whatever else a test says of the source.
fn repository(files: &str, feature: &str, more: &str) -> Repository {
    let repository = Repository::new(&format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{{files}}}\nevent_timestamp: seen\n{more}\n---\n\
         kind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [{feature}]\n---\n\
         kind: FeatureService\nname: svc\nfeatures: [v]\n"
    ));
    fs::create_dir(repository.path().join("data")).unwrap();
    repository
}

fn csv(more: &str) -> Repository {
    let columns = format!(
        "columns: [{{name: k, type: int64}}, {{name: seen, type: timestamp{more}}}, {{name: note, type: string}}]"
    );
    repository("format: csv, path: data", "note", &columns)
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

const TRAIN: &str = "train svc --spine spine.csv --out set.parquet --json";

#[test]
fn a_quote_that_is_never_closed_is_named_wherever_it_is() {
    let repository = csv("");
    let folder = repository.path();
    write(folder, "data/a.csv", "k,seen,note\n1,2024-01-01,\"one\nof two\"\n");
    write(folder, "spine.csv", "k,event_timestamp,text\n1,2024-06-01,a\n2,2024-06-01,\"b\n3,2024-06-01,c\n");
    run(folder, &["apply"]).answer();
    check(
        folder,
        TRAIN,
        expect![[r#"
        exit 1
        {
          "error": "spine spine.csv: the quote that opens on line 3 is never closed",
          "code": "invalid_argument"
        }
    "#]],
    );
    check(
        folder,
        "predict --model none --entities spine.csv --out set.parquet",
        expect![[r#"
        exit 1
        error: table spine.csv: the quote that opens on line 3 is never closed
    "#]],
    );
    write(folder, "spine.csv", "k,event_timestamp\n1,2024-06-01\n");
    write(
        folder,
        "data/a.csv",
        "k,seen,note\n1,2024-01-01,\"one\nof two\"\n2,2024-01-01,\"open\n3,2024-01-01,x\n",
    );
    check(
        folder,
        TRAIN,
        expect![[r#"
        exit 1
        {
          "error": "`data/a.csv` cannot be read: the quote that opens on line 4 is never closed",
          "code": "invalid_argument"
        }
    "#]],
    );
    check(
        folder,
        "materialize",
        expect![[r#"
        exit 1
        error: `data/a.csv` cannot be read: the quote that opens on line 4 is never closed
    "#]],
    );
    check(
        folder,
        "check",
        expect![[r#"
        exit 1
        definitions.yaml:7:28: source `s`: `data/a.csv` cannot be read: the quote that opens on line 4 is never closed
          help: mend the file, or declare the column as what it holds
        1 mistake
    "#]],
    );
}

#[test]
fn numbers_in_the_place_of_times_are_told_what_they_look_like() {
    let repository = csv("");
    let folder = repository.path();
    let spine = |time: &str| {
        write(folder, "spine.csv", &format!("k,event_timestamp\n1,2024-06-01T00:00:00Z\n1,{time}\n"));
        say(folder, TRAIN)
    };
    write(folder, "data/a.csv", "k,seen,note\n1,2024-01-01,a\n");
    run(folder, &["apply"]).answer();
    write(folder, "data/a.csv", "k,seen,note\n1,1704067200,a\n");
    let is = |found: String, expected: Expect| expected.assert_eq(&found);
    is(
        spine("1717200000"),
        expect![[r#"
        exit 1
        {
          "error": "spine spine.csv: row 2, column `event_timestamp`: `1717200000` looks like seconds (in microseconds it is 1717200000000000)",
          "code": "invalid_argument"
        }
    "#]],
    );
    is(
        spine("1717200000000"),
        expect![[r#"
        exit 1
        {
          "error": "spine spine.csv: row 2, column `event_timestamp`: `1717200000000` looks like milliseconds (in microseconds it is 1717200000000000)",
          "code": "invalid_argument"
        }
    "#]],
    );
    is(
        spine("01/02/2024"),
        expect![[r#"
        exit 1
        {
          "error": "spine spine.csv: row 2, column `event_timestamp`: `01/02/2024` is no timestamp, such as 2013-01-31T09:26:56.5Z",
          "code": "invalid_argument"
        }
    "#]],
    );
    is(
        spine("2024-01-01"),
        expect![[r#"
        exit 1
        {
          "error": "`data/a.csv`, line 2, column `seen`: `1704067200` is not of type timestamp, such as 2013-01-31T09:26:56.5Z; it looks like seconds (in microseconds it is 1704067200000000); a column's `format` says what its numbers count, as in `format: epoch_s`",
          "code": "invalid_argument"
        }
    "#]],
    );
    is(
        say(folder, "get svc k=1 event_timestamp=1717200000"),
        expect![[r#"
        exit 1
        error: entity 0: column `event_timestamp`: expected timestamp (RFC 3339, or whole microseconds), found number 1717200000, which looks like seconds (in microseconds it is 1717200000000000)
    "#]],
    );
}

#[test]
fn a_format_settles_what_numbers_count() {
    let repository = csv(", format: epoch_s");
    let folder = repository.path();
    write(folder, "data/a.csv", "k,seen,note\n1,1704067200,a\n1,1704067200.25,b\n2,2024-01-01T00:00:01Z,c\n");
    run(folder, &["apply"]).answer();
    write(
        folder,
        "spine.csv",
        "k,event_timestamp\n1,1704067200000000\n1,1704067200249999\n1,2024-01-01T00:00:00.25Z\n2,1704067201000000\n",
    );
    run(folder, &words(TRAIN)).answer();
    expect![[r#"
        +---+-----------------------------+------+
        | k | event_timestamp             | note |
        +---+-----------------------------+------+
        | 1 | 2024-01-01T00:00:00Z        | a    |
        | 1 | 2024-01-01T00:00:00.249999Z | a    |
        | 1 | 2024-01-01T00:00:00.250Z    | b    |
        | 2 | 2024-01-01T00:00:01Z        | c    |
        +---+-----------------------------+------+
    "#]]
    .assert_eq(&rows(&folder.join("set.parquet")));
    // Another format makes other rows of the same files.
    let definitions = fs::read_to_string(folder.join("definitions.yaml")).unwrap();
    write(folder, "definitions.yaml", &definitions.replace("epoch_s", "epoch_ms"));
    check(
        folder,
        "plan",
        expect![[r#"
            ~ source s
                ~ declared columns: seen timestamp (epoch_s) → seen timestamp (epoch_ms)

            to materialize:
                v: changed, so nothing is found of it until then; reads 1 file, 70 B

            0 to add, 1 to change, 0 to remove
        "#]],
    );
}

#[test]
fn what_a_spine_carries_stays_as_it_is() {
    let repository = csv("");
    let folder = repository.path();
    write(folder, "data/a.csv", "k,seen,note\n1,2024-01-01,a\n");
    run(folder, &["apply"]).answer();
    write(
        folder,
        "spine.csv",
        "k,event_timestamp,code,number\n1,2024-06-01,01234,7\n1,2024-06-01,99999,-10\n",
    );
    run(folder, &words(TRAIN)).answer();
    expect![[r#"
        +---+----------------------+-------+--------+------+
        | k | event_timestamp      | code  | number | note |
        +---+----------------------+-------+--------+------+
        | 1 | 2024-06-01T00:00:00Z | 01234 | 7      | a    |
        | 1 | 2024-06-01T00:00:00Z | 99999 | -10    | a    |
        +---+----------------------+-------+--------+------+
    "#]]
    .assert_eq(&rows(&folder.join("set.parquet")));
}

#[test]
fn every_file_is_looked_at_when_definitions_are_checked() {
    let repository = repository("format: parquet, path: data", "{name: first, expr: k}", "");
    let folder = repository.path();
    for (name, file) in [("a", "spark_int96"), ("b", "brotli")] {
        repository.write(format!("data/{name}.parquet"), fixture(&format!("types/{file}.parquet")));
    }
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let other = [("k", Arc::clone(&text)), ("other", text)];
    repository.write_parquet("data/c.parquet", &RecordBatch::try_from_iter(other).unwrap());
    check(
        folder,
        "check",
        expect![[r#"
            exit 1
            definitions.yaml:7:32: source `s`: `data/c.parquet` has no event_timestamp `seen`
              help: known: k, other
            definitions.yaml:7:32: source `s`: column `k` should be int64, but is string in `data/c.parquet`
              help: say what it is stored as, `{name: k, type: int64, from: string}`, or declare it as string
            2 mistakes
        "#]],
    );
    write(folder, "data/d.parquet", "");
    check(
        folder,
        "check",
        expect![[r#"
        exit 1
        definitions.yaml:7:32: source `s`: `data/d.parquet` cannot be read: it is empty; was it not written to its end?
          help: rewrite the file, or leave it out of the path
        1 mistake
    "#]],
    );
}

#[test]
fn what_nobody_reads_keeps_nobody_from_reading() {
    let repository = repository("format: parquet, path: data", "x", "");
    let folder = repository.path();
    repository.write("data/a.parquet", fixture("types/int128.parquet"));
    run(folder, &["apply"]).answer();
    write(folder, "spine.csv", "k,event_timestamp\n1,2024-06-01\n");
    run(folder, &words(TRAIN)).answer();
    expect![[r#"
        +---+----------------------+---+
        | k | event_timestamp      | x |
        +---+----------------------+---+
        | 1 | 2024-06-01T00:00:00Z | 1 |
        +---+----------------------+---+
    "#]]
    .assert_eq(&rows(&folder.join("set.parquet")));
}

#[test]
fn bytes_that_are_not_those_that_were_written_are_no_values() {
    let repository = repository("format: parquet, path: data", "{name: first, expr: k}", "");
    let folder = repository.path();
    repository.write("data/a.parquet", fixture("types/checksum.parquet"));
    run(folder, &["apply"]).answer();
    write(folder, "spine.csv", "k,event_timestamp\n1,2024-06-01\n");
    check(
        folder,
        TRAIN,
        expect![[r#"
        exit 1
        {
          "error": "`data/a.parquet` cannot be read: its bytes are not those that were written: the checksum of a page does not match. Bring the file back from where it came",
          "code": "invalid_argument"
        }
    "#]],
    );
}
