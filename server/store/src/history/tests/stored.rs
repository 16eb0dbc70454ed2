//! Columns that are stored as something else than they are declared as.

use arrow::array::*;
use expect_test::expect;
use feature_defs::ScalarType::*;
use feature_defs::{Epoch, Stored};

use super::*;

const UUID: [u8; 16] = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";

/// A repository in which the columns are declared so, the last ones as stored otherwise.
fn repository(columns: &[(&str, ScalarType, Option<&str>)]) -> Repository {
    let mut repository = Repository::parquet();
    for (place, (name, dtype, from)) in columns.iter().enumerate() {
        repository.declare(name, scalar(*dtype));
        repository.source.columns[place].from = from.map(|from| Stored::parse(from).unwrap());
    }
    repository
}

fn texts(texts: [Option<&str>; 3]) -> ArrayRef {
    Arc::new(StringArray::from_iter(texts))
}

fn decimals(values: [Option<i128>; 3], digits: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from_iter(values).with_precision_and_scale(digits, scale).unwrap())
}

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [Some(UUID), None, Some([0; 16])].into_iter(),
        16,
    );
    let word = DictionaryArray::<arrow::datatypes::Int32Type>::from_iter([Some("t"), None, Some("F")]);
    vec![
        ("at", texts([Some("2024-01-01 01:00:00+01:00"), Some("1704067200"), Some("2024-01-01")])),
        ("n", texts([Some(" 7 "), Some(""), Some("9223372036854775807")])),
        ("x", texts([Some("1e-3"), None, Some("NaN")])),
        ("ok", Arc::new(word)),
        ("day", Arc::new(StringViewArray::from(vec![Some("2024-02-29"), None, None]))),
        ("raw", Arc::new(BinaryArray::from(vec![Some("Zoë".as_bytes()), None, Some(b"")]))),
        ("id", Arc::new(uuids.unwrap())),
        ("units", decimals([Some(300), None, Some(-100)], 10, 2)),
        ("sum", decimals([Some(1_250), None, Some(-1)], 10, 2)),
    ]
}

#[test]
fn what_is_stored_as_something_else_becomes_what_it_is_declared_as() {
    let mut repository = repository(&[
        ("at", Timestamp, Some("string")),
        ("n", Int64, Some("string")),
        ("x", Float64, Some("string")),
        ("ok", Bool, Some("string")),
        ("day", Date, Some("string")),
        ("raw", String, Some("binary")),
        ("id", String, Some("uuid")),
        ("units", Int64, Some("decimal")),
        ("sum", String, Some("decimal(10,2)")),
    ]);
    repository.source.columns[0].format = Some(Epoch::Seconds);
    repository.write("data/a.parquet", columns());
    // A file that holds what is declared, as another one may by now.
    let mut others = columns();
    others[1].1 = Arc::new(Int32Array::from(vec![Some(1), None, Some(2)]));
    others[8].1 = texts([Some("a"), None, None]);
    repository.write("data/b.parquet", others);
    expect![[r#"
        +----------------------+---------------------+-------+-------+------------+-----+--------------------------------------+-------+-------+
        | at                   | n                   | x     | ok    | day        | raw | id                                   | units | sum   |
        +----------------------+---------------------+-------+-------+------------+-----+--------------------------------------+-------+-------+
        | 2024-01-01T00:00:00Z | 7                   | 0.001 | true  | 2024-02-29 | Zoë | 00112233-4455-6677-8899-aabbccddeeff | 3     | 12.50 |
        | 2024-01-01T00:00:00Z |                     |       |       |            |     |                                      |       |       |
        | 2024-01-01T00:00:00Z | 9223372036854775807 | NaN   | false |            |     | 00000000-0000-0000-0000-000000000000 | -1    | -0.01 |
        | 2024-01-01T00:00:00Z | 1                   | 0.001 | true  | 2024-02-29 | Zoë | 00112233-4455-6677-8899-aabbccddeeff | 3     | a     |
        | 2024-01-01T00:00:00Z |                     |       |       |            |     |                                      |       |       |
        | 2024-01-01T00:00:00Z | 2                   | NaN   | false |            |     | 00000000-0000-0000-0000-000000000000 | -1    |       |
        +----------------------+---------------------+-------+-------+------------+-----+--------------------------------------+-------+-------+"#]].assert_eq(&table(&all(&repository.open().unwrap()).unwrap()));
    assert_eq!(lines(&repository.history().sampled(&repository.source, &repository.schema())), "");
}

#[test]
fn what_is_no_such_value_is_an_error() {
    let mut said = std::string::String::new();
    let bad_text: Vec<(&str, ArrayRef)> =
        vec![("at", texts([Some("2024-01-01"); 3])), ("n", texts([None, Some("1,5"), None]))];
    let bad_bytes: Vec<(&str, ArrayRef)> = vec![
        ("at", texts([Some("2024-01-01"); 3])),
        ("n", Arc::new(BinaryArray::from(vec![Some(b"\xff".as_slice()), None, None]))),
    ];
    for (dtype, from, columns) in [(Int64, "string", bad_text), (String, "binary", bad_bytes)] {
        let repository = repository(&[("at", Timestamp, Some("string")), ("n", dtype, Some(from))]);
        repository.write("data/a.parquet", columns);
        said += &(repository.error() + "\n");
        said += &lines(&repository.history().sampled(&repository.source, &repository.schema()));
    }
    // Of other values it is for whoever computes of them to say what they are not.
    let fraction = repository(&[("at", Timestamp, Some("string")), ("n", Int64, Some("decimal"))]);
    let columns =
        vec![("at", texts([Some("2024-01-01"); 3])), ("n", decimals([Some(150), None, Some(200)], 9, 2))];
    fraction.write("data/a.parquet", columns);
    let scan = fraction.open().unwrap();
    let mut stored = Vec::new();
    let visit = &mut |_, batch: RecordBatch| {
        stored.push(batch.schema().field(0).data_type().to_string());
        Ok::<_, Error>(())
    };
    scan.read(0, &["n".to_owned()], None, visit).unwrap();
    assert_eq!(stored, ["Decimal128(9, 2)"]);
    expect![[r#"
        `data/a.parquet` cannot be read: its column `n` (string) does not fit int64: it holds a value that is none; a log at `debug` quotes it
        events.yaml:3:5: source `events`: `data/a.parquet` cannot be read: its column `n` (string) does not fit int64: it holds a value that is none; a log at `debug` quotes it
          help: mend the file, or declare the column as what it holds
        `data/a.parquet` cannot be read: its column `n` (bytes) does not fit string: it holds a value that is none; a log at `debug` quotes it
        events.yaml:3:5: source `events`: `data/a.parquet` cannot be read: its column `n` (bytes) does not fit string: it holds a value that is none; a log at `debug` quotes it
          help: mend the file, or declare the column as what it holds
    "#]].assert_eq(&said);
}

#[test]
fn what_is_refused_says_what_it_is_stored_as() {
    let repository = repository(&[
        ("at", Timestamp, None),
        ("n", Int64, None),
        ("x", Float64, Some("decimal")),
        ("raw", String, None),
        ("id", String, Some("binary")),
        ("units", Int64, None),
        ("sum", String, Some("decimal(38,0)")),
        ("day", Timestamp, None),
    ]);
    repository.write("data/a.parquet", columns());
    expect![[r#"
        events.yaml:10:5: source `events`: event_timestamp `at` should be timestamp or date, but is string in `data/a.parquet`
          help: say what it is stored as, `{name: at, type: timestamp, from: string}`, or rewrite the file
        events.yaml:11:5: source `events`: column `n` should be int64, but is string in `data/a.parquet`
          help: say what it is stored as, `{name: "n", type: int64, from: string}`, or declare it as string
        events.yaml:12:5: source `events`: column `x` should be float64, but is string in `data/a.parquet`
          help: say what it is stored as, `{name: x, type: float64, from: string}`, or declare it as string
        events.yaml:13:5: source `events`: column `raw` should be string, but is bytes in `data/a.parquet`
          help: say what it is stored as, `{name: raw, type: string, from: binary}`, or declare it as bytes
        events.yaml:15:5: source `events`: column `units` should be int64, but is decimal(10, 2) in `data/a.parquet`
          help: say what it is stored as, `{name: units, type: int64, from: decimal}`, or declare it as float64
        events.yaml:16:5: source `events`: column `sum` is said to be stored as decimal(38, 0), but is decimal(10, 2) in `data/a.parquet`
          help: say what all files have, or leave `from` out
        events.yaml:17:5: source `events`: column `day` should be timestamp, but is string in `data/a.parquet`
          help: say what it is stored as, `{name: day, type: timestamp, from: string}`, or declare it as string
    "#]].assert_eq(&repository.mistakes());
}
