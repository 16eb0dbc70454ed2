//! Arrow IPC in, canonical rows out.

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use expect_test::expect;
use feature_defs::Epoch;
use feature_defs::ScalarType::*;

use super::*;

/// The bytes of a file with a record batch of so many rows after the other.
pub(super) fn written(
    columns: Vec<(&str, ArrayRef)>,
    rows: usize,
    compression: Option<CompressionType>,
) -> Vec<u8> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    let all = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &all.schema(), options).unwrap();
    for start in (0..all.num_rows()).step_by(rows) {
        writer.write(&all.slice(start, rows.min(all.num_rows() - start))).unwrap();
    }
    writer.into_inner().unwrap()
}

fn repository() -> Repository {
    Repository::new(Format::Arrow, "data")
}

fn times(micros: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

#[test]
fn nothing_stands_below_a_null() {
    let repository = repository();
    let nulls = NullBuffer::from(vec![true, false]);
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "hidden"]));
    let name = Arc::new(Field::new("name", DataType::Utf8, false));
    let inner: ArrayRef = Arc::new(StructArray::new(
        vec![Arc::clone(&name)].into(),
        vec![names],
        Some(NullBuffer::new_valid(2)),
    ));
    let inner_field = Arc::new(Field::new("inner", inner.data_type().clone(), true));
    let outer = StructArray::new(vec![inner_field].into(), vec![inner], Some(nulls.clone()));
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 2]), numbers, Some(nulls));
    let columns: Vec<(&str, ArrayRef)> =
        vec![("at", times([0, 1])), ("outer", Arc::new(outer)), ("list", Arc::new(list))];
    repository.file("data/a.feather", written(columns, 2, None));
    let rows = all(&repository.open().unwrap()).unwrap();
    let outer = rows.column_by_name("outer").unwrap().as_struct();
    let inner = outer.column(0).as_struct();
    let seen = [outer.nulls(), inner.nulls(), inner.column(0).nulls()]
        .map(|nulls| nulls.map(|nulls| nulls.is_null(1)));
    assert_eq!(seen, [Some(true); 3]);
    assert_eq!(rows.column_by_name("list").unwrap().as_list::<i32>().values().len(), 1);
}

#[test]
fn what_arrow_has_becomes_what_it_is_here() {
    let repository = repository();
    let words = DictionaryArray::<Int8Type>::from_iter([Some("a"), None, Some("a")]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1_999, -1, 3_000]))),
        ("word", Arc::new(words)),
        ("view", Arc::new(StringViewArray::from(vec![Some("a view that is long enough"), None, Some("x")]))),
        ("small", Arc::new(UInt8Array::from(vec![Some(7), None, Some(0)]))),
        ("sum", Arc::new(Decimal128Array::from(vec![125, -1, 0]).with_precision_and_scale(9, 2).unwrap())),
        (
            "list",
            Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>([
                Some([Some(1), None]),
                None,
                None,
            ])),
        ),
        ("nothing", Arc::new(NullArray::new(3))),
    ];
    let said = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)].map(|compression| {
        repository.file("data/a.feather", written(columns.clone(), 2, compression));
        let scan = repository.open().unwrap();
        let units: Vec<_> = scan.units.iter().map(|unit| (unit.first_row, unit.rows)).collect();
        assert_eq!(units, [(0, 2), (2, 1)]);
        let chosen = read(&scan, 0, &["view", "word"], Some(&[0])).unwrap();
        format!("{}\n{}", table(&all(&scan).unwrap()), table(&chosen))
    });
    assert!(said[0] == said[1] && said[0] == said[2]);
    expect![[r#"
        +-----------------------------+------+----------------------------+-------+-------+-------+---------+
        | at                          | word | view                       | small | sum   | list  | nothing |
        +-----------------------------+------+----------------------------+-------+-------+-------+---------+
        | 1970-01-01T00:00:00.000001Z | a    | a view that is long enough | 7     | 1.25  | [1, ] |         |
        | 1969-12-31T23:59:59.999999Z |      |                            |       | -0.01 |       |         |
        | 1970-01-01T00:00:00.000003Z | a    | x                          | 0     | 0.0   |       |         |
        +-----------------------------+------+----------------------------+-------+-------+-------+---------+
        +----------------------------+------+
        | view                       | word |
        +----------------------------+------+
        | a view that is long enough | a    |
        +----------------------------+------+"#]]
    .assert_eq(&said[0]);
}

#[test]
fn declared_types_formats_and_folders_hold_as_for_parquet() {
    let mut repository = repository();
    repository.declare("at", scalar(Timestamp));
    repository.declare("n", scalar(Int64));
    repository.source.columns[0].format = Some(Epoch::Seconds);
    let columns =
        |n: ArrayRef| vec![("at", Arc::new(Int64Array::from(vec![1_704_067_200])) as ArrayRef), ("n", n)];
    let file = written(columns(Arc::new(Float64Array::from(vec![7.0]))), 10, None);
    repository.file("data/zone=eu/a.arrow", file);
    expect![[r#"
        events.yaml:11:5: source `events`: column `n` should be int64, but is float64 in `data/zone=eu/a.arrow`
          help: declare it as float64, or rewrite the file
    "#]].assert_eq(&repository.mistakes());
    repository.file("data/zone=eu/a.arrow", written(columns(Arc::new(Int32Array::from(vec![7]))), 10, None));
    repository.file(
        "data/zone=us/b.arrow",
        written(columns(Arc::new(UInt64Array::from(vec![u64::MAX]))), 10, None),
    );
    expect![[r#"
        +----------------------+---+------+
        | at                   | n | zone |
        +----------------------+---+------+
        | 2024-01-01T00:00:00Z | 7 | eu   |
        +----------------------+---+------+
        +----------------------+----------------------+------+
        | at                   | n                    | zone |
        +----------------------+----------------------+------+
        | 2024-01-01T00:00:00Z | 18446744073709551615 | us   |
        +----------------------+----------------------+------+"#]]
    .assert_eq(&read_all(&repository).join("\n"));
}

fn read_all(repository: &Repository) -> Vec<std::string::String> {
    let scan = repository.open().unwrap();
    let names: Vec<&str> = scan.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut said = Vec::new();
    for unit in 0..scan.units.len() {
        let columns: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let visit = &mut |_, batch: RecordBatch| {
            said.push(table(&batch));
            Ok::<_, Error>(())
        };
        scan.read(unit, &columns, None, visit).unwrap();
    }
    said
}

#[test]
fn what_is_no_such_file_is_told_with_its_way_out() {
    let repository = repository();
    let good = written(vec![("at", times([1, 2]))], 10, None);
    let batch = RecordBatch::try_from_iter([("at", times([1]))]).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    let mut said = std::string::String::new();
    for bytes in [
        Vec::new(),
        good[..good.len() - 20].to_vec(),
        stream.into_inner().unwrap(),
        b"FEA1    FEA1".to_vec(),
        b"a,b\n1,2\n3,4\n".to_vec(),
        [&[0xff; 4], MAGIC].concat(),
    ] {
        repository.file("data/a.arrow", bytes);
        said += &repository.mistakes();
    }
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: it is empty; was it not written to its end?
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: it lacks its footer; was it not written to its end?
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: it is a stream of Arrow IPC, without a footer; write a file, as pyarrow does with ipc.new_file and Polars with write_ipc
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: it is Feather of version 1, which is not read; write it anew, as pandas does with to_feather(path)
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: it is no Arrow IPC file
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.arrow` cannot be read: Invalid footer length: -1
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&said);
}

const MAGIC: &[u8] = b"ARROW1";

#[test]
fn a_buffer_that_lies_about_its_length_does_not_fill_the_memory() {
    let repository = repository();
    let at = times(std::iter::repeat_n(7, 10_000));
    let mut bytes = written(vec![("at", at)], 10_000, Some(CompressionType::ZSTD));
    let place = bytes.windows(8).position(|eight| eight == 80_000_i64.to_le_bytes()).unwrap();
    bytes[place..place + 8].copy_from_slice(&(1_i64 << 60).to_le_bytes());
    repository.file("data/a.arrow", bytes);
    expect!["`data/a.arrow` cannot be read: a record batch becomes 1152921504606866976 bytes, at most 4294967296 are read: write smaller ones"].assert_eq(&repository.error());
}
