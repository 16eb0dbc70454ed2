//! Objects in, typed rows out.

use expect_test::expect;
use feature_defs::Epoch;
use feature_defs::ScalarType::*;

use super::*;

fn list(item: ScalarType, length: Option<u32>) -> Type {
    Type::List { item, length }
}

fn repository(columns: &[(&str, Type)]) -> Repository {
    let mut repository = Repository::new(Format::Json, "data");
    repository.declare("at", scalar(Timestamp));
    columns.iter().for_each(|(name, dtype)| repository.declare(name, *dtype));
    repository
}

fn rows(repository: &Repository) -> std::string::String {
    table(&all(&repository.open().unwrap()).unwrap())
}

#[test]
fn every_type_is_read() {
    let scalars = [Bool, Int32, Int64, Float32, Float64, String, Bytes, Timestamp, Date];
    let mut columns: Vec<_> = scalars.into_iter().map(|t| (t.name(), scalar(t))).collect();
    columns.push(("floats", list(Float32, None)));
    columns.push(("pair", list(Int64, Some(2))));
    columns.push(("texts", list(String, None)));
    let repository = repository(&columns);
    repository.file(
        "data/a.jsonl",
        "\u{feff}{\"at\": \"2013-01-01\", \"bool\": true, \"int32\": -7, \"int64\": 9223372036854775807, \"float32\": 0.1, \"float64\": 1e-3, \"string\": \"a \\\"b\\\" \\u00e9\", \"bytes\": \"3q2+7w\", \"timestamp\": \"2013-01-31T09:26:56.1234569Z\", \"date\": \"2013-01-31\", \"floats\": [1, 2.5, null], \"pair\": [1, 2], \"texts\": [\"a, b\", null], \"other\": {\"at\": [{}]}}\r\n\
         \n\
         {\"date\": null, \"at\": 1359624416000000, \"int64\": 7.0, \"float64\": \"NaN\", \"string\": \"\", \"floats\": []}\n\
         \t{\"at\": \"2013-01-02T00:00:00+02:00\"} ",
    );
    expect![[r#"
        +----------------------+------+-------+---------------------+---------+---------+---------+----------+-----------------------------+------------+--------------+--------+----------+
        | at                   | bool | int32 | int64               | float32 | float64 | string  | bytes    | timestamp                   | date       | floats       | pair   | texts    |
        +----------------------+------+-------+---------------------+---------+---------+---------+----------+-----------------------------+------------+--------------+--------+----------+
        | 2013-01-01T00:00:00Z | true | -7    | 9223372036854775807 | 0.1     | 0.001   | a "b" é | deadbeef | 2013-01-31T09:26:56.123456Z | 2013-01-31 | [1.0, 2.5, ] | [1, 2] | [a, b, ] |
        | 2013-01-31T09:26:56Z |      |       | 7                   |         | NaN     |         |          |                             |            | []           |        |          |
        | 2013-01-01T22:00:00Z |      |       |                     |         |         |         |          |                             |            |              |        |          |
        +----------------------+------+-------+---------------------+---------+---------+---------+----------+-----------------------------+------------+--------------+--------+----------+"#]].assert_eq(&rows(&repository));
    assert_eq!(repository.open().unwrap().units[0].rows, 3);
}

#[test]
fn numbers_count_what_their_format_says() {
    let mut repository = repository(&[("seen", scalar(Timestamp))]);
    repository.source.columns[0].format = Some(Epoch::Millis);
    repository.source.columns[1].format = Some(Epoch::Seconds);
    repository.file(
        "data/a.ndjson",
        "{\"at\": 1704067200001, \"seen\": 1704067200.5}\n{\"at\": \"2024-01-01\", \"seen\": null}\n",
    );
    expect![[r#"
        +--------------------------+--------------------------+
        | at                       | seen                     |
        +--------------------------+--------------------------+
        | 2024-01-01T00:00:00.001Z | 2024-01-01T00:00:00.500Z |
        | 2024-01-01T00:00:00Z     |                          |
        +--------------------------+--------------------------+"#]]
    .assert_eq(&rows(&repository));
}

#[test]
fn what_is_no_row_is_named_with_its_line() {
    let repository = repository(&[
        ("n", scalar(Int64)),
        ("small", scalar(Int32)),
        ("x", scalar(Float32)),
        ("word", scalar(String)),
        ("pair", list(Int64, Some(2))),
    ]);
    let mut said = std::string::String::new();
    for line in [
        "{\"at\": \"2013-01-02\", \"n\": \"7\"}",
        "{\"at\": \"2013-01-02\", \"n\": 1.5}",
        "{\"at\": \"2013-01-02\", \"n\": 9223372036854775808}",
        "{\"at\": \"2013-01-02\", \"n\": 9007199254740993.0}",
        "{\"at\": \"2013-01-02\", \"small\": 2147483648}",
        "{\"at\": \"2013-01-02\", \"x\": 1e39}",
        "{\"at\": \"2013-01-02\", \"x\": 1e400}",
        "{\"at\": \"2013-01-02\", \"word\": 7}",
        "{\"at\": \"2013-01-02\", \"pair\": [1]}",
        "{\"at\": 1704067200}",
        "{\"at\": \"2013-01-02\", \"n\": 1, \"n\": 2}",
        "{\"at\": \"2013-01-02\", \"n\": 1",
        "{\"at\": \"2013-01-02\", \"n\": 1} {}",
        "{at: 1}",
        "[1]",
        "null",
    ] {
        repository.file("data/a.json", format!("{{\"at\": \"2013-01-01\"}}\n\n{line}\n"));
        said += &match repository.history().schema(&repository.source) {
            Ok(_) => repository.error() + "\n",
            Err(mistakes) => lines(&mistakes),
        };
    }
    repository.file("data/a.json", "[\n  {\"at\": \"2013-01-01\"}\n]\n");
    said += &repository.mistakes();
    repository.file("data/a.json", "{\n  \"at\": \"2013-01-01\"\n}\n");
    said += &repository.mistakes();
    repository.file("data/a.json", "{\"n\": 1}\n");
    said += &repository.mistakes();
    expect![[r#"
        `data/a.json`, line 3, column `n`: its value is not of type int64
        `data/a.json`, line 3, column `n`: its value is not of type int64
        `data/a.json`, line 3, column `n`: its value is not of type int64
        `data/a.json`, line 3, column `n`: its value is not of type int64
        `data/a.json`, line 3, column `small`: its value is not of type int32
        `data/a.json`, line 3, column `x`: its value is not of type float32
        `data/a.json`, line 3: number out of range, at its byte 31; each line of a JSON file is an object, with the columns of a row
        `data/a.json`, line 3, column `word`: its value is not of type string
        `data/a.json`, line 3, column `pair`: its value is not of type list<int64, 2>
        `data/a.json`, line 3, column `at`: its value is not of type timestamp; a column's `format` says what its numbers count
        `data/a.json`, line 3: it has `n` twice, at its byte 32; each line of a JSON file is an object, with the columns of a row
        events.yaml:3:5: source `events`: `data/a.json`, line 3: EOF while parsing an object, at its byte 27; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 3: trailing characters, at its byte 30; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 3: key must be a string, at its byte 2; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 3: it holds no JSON object; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 3: it holds no JSON object; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 1: it begins an array; each line of a JSON file is an object, with the columns of a row, as pandas writes them with to_json(path, orient="records", lines=True)
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.json`, line 1: EOF while parsing an object, at its byte 1; each line of a JSON file is an object, with the columns of a row
          help: rewrite the file, or leave it out of the path
        events.yaml:10:5: source `events`: `data/a.json` has no event_timestamp `at`
          help: its columns are not shown, since its name does not end as a table's does, as in `.csv`
    "#]].assert_eq(&said);
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let repository = repository(&[]);
    let mut text = b"{\"at\": \"2013-01-01\"}\n{\"at\": \"".to_vec();
    text.resize(17 << 20, b'x');
    repository.file("data/a.json", text);
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.json` cannot be read: line 2 is longer than 16777216 bytes
          help: rewrite the file, or leave it out of the path
    "#]]
    .assert_eq(&repository.mistakes());
}

#[test]
fn what_an_object_lacks_its_folder_says() {
    let repository = repository(&[("zone", scalar(String)), ("n", scalar(Int64))]);
    repository.file(
        "data/zone=eu/a.json",
        "{\"at\": \"2013-01-01\"}\n{\"at\": \"2013-01-02\", \"zone\": null, \"n\": 1}\n{\"at\": \"2013-01-03\", \"zone\": \"us\"}\n",
    );
    let packed = zstd::encode_all(b"{\"at\": \"2013-01-04\", \"n\": 4}\n".as_slice(), 0).unwrap();
    repository.file("data/zone=uk/a.jsonl.zst", packed);
    expect![[r#"
        +----------------------+------+---+
        | at                   | zone | n |
        +----------------------+------+---+
        | 2013-01-01T00:00:00Z | eu   |   |
        | 2013-01-02T00:00:00Z |      | 1 |
        | 2013-01-03T00:00:00Z | us   |   |
        | 2013-01-04T00:00:00Z | uk   | 4 |
        +----------------------+------+---+"#]]
    .assert_eq(&rows(&repository));
}

#[test]
fn its_columns_are_told_as_far_as_lines_show_them() {
    let repository = Repository::new(Format::Json, "data");
    repository.file(
        "data/a.jsonl",
        "{\"at\": \"2013-01-01T00:00:00Z\", \"n\": 1, \"x\": 1, \"ts\": 1704067200, \"ok\": true, \"tags\": [\"a\"], \"o\": {}}\n\
         {\"at\": \"2013-01-01\", \"n\": null, \"x\": 1.5, \"day\": \"2013-01-01\", \"mixed\": 1, \"none\": null, \"l\": [1]}\n\
         {\"mixed\": \"a\", \"l\": [1.5, null], \"word\": \"7\"}\n",
    );
    expect![[r#"
        events.yaml:1:5: source `events` must declare its `columns`: JSON files do not say the types of their columns
          help: as far as `data/a.jsonl` shows, they are
        columns:
          - {name: at, type: timestamp}
          - {name: "n", type: int64}
          - {name: x, type: float64}
          - {name: ts, type: int64}
          - {name: ok, type: bool}
          - {name: tags, type: list<string>}
          # o is an object, which is no type of a column
          - {name: day, type: date}
          # mixed has values of several types
          - {name: none, type: string}
          - {name: l, type: list<float64>}
          - {name: word, type: string}
    "#]].assert_eq(&repository.mistakes());

    // Keys and settings are called so.
    repository.file("data/a.jsonl", "");
    std::fs::rename(
        repository.folder.path().join("data/a.jsonl"),
        repository.folder.path().join("data/a.json"),
    )
    .unwrap();
    expect![[r#"
        events.yaml:1:5: source `events` must declare its `columns`: JSON files do not say the types of their columns
          help: its columns are not shown, since its name does not end as a table's does, as in `.csv`
    "#]].assert_eq(&repository.mistakes());
}
