//! Does a table of Delta Lake get the versions that are written, each whole or not at all?

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Float32Array, Int64Array, LargeStringArray,
    RecordBatch, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int8Type, SchemaRef};
use expect_test::expect;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Kind, Result};
use crate::history::{DeltaWriter, Mode, TableAt};

fn begin(folder: &Path, schema: &SchemaRef, mode: Mode) -> Result<DeltaWriter> {
    DeltaWriter::begin(&TableAt::Folder(folder.to_owned()), schema, mode, &folder.join("unused"))
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn numbers(name: &str) -> RecordBatch {
    rows(vec![(name, Arc::new(Int64Array::from(vec![1, 2])))])
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "_delta_log").collect();
    names.sort();
    names
}

#[test]
fn of_two_writers_one_comes_first_and_the_other_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let batch = numbers("x");
    let writers =
        [Mode::Create, Mode::Append].map(|mode| begin(folder.path(), batch.schema_ref(), mode).unwrap());
    let [mut first, mut second] = writers;
    first.write(&batch).unwrap();
    second.write(&batch).unwrap();
    assert_eq!(first.finish().unwrap(), 0);
    let there = files(folder.path());
    let late = second.finish().unwrap_err();
    assert_eq!(late.kind(), Kind::Unavailable, "{late}");
    assert!(late.to_string().contains("got version 0 from another writer meanwhile; run again"), "{late}");
    // Neither the file of the one nor any other of the other's.
    assert_eq!(files(folder.path()).len(), 1);
    assert!(there.contains(&files(folder.path())[0]));
    // One that never ends is not seen either.
    let mut third = begin(folder.path(), batch.schema_ref(), Mode::Append).unwrap();
    third.write(&batch).unwrap();
    drop(third);
    assert_eq!(files(folder.path()).len(), 1);
    // And of no rows there is a version all the same.
    assert_eq!(begin(folder.path(), batch.schema_ref(), Mode::Overwrite).unwrap().finish().unwrap(), 1);
}

#[test]
fn other_columns_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path(), numbers("x").schema_ref(), Mode::Create).unwrap().finish().unwrap();
    let refused = |batch: RecordBatch, mode: Mode| {
        let said = begin(folder.path(), batch.schema_ref(), mode).err().unwrap().to_string();
        said.replace(&folder.path().display().to_string(), "DIR")
    };
    let text: ArrayRef = Arc::new(LargeStringArray::from(vec!["a", "b"]));
    let said = [
        refused(numbers("x"), Mode::Create),
        refused(numbers("y"), Mode::Append),
        refused(rows(vec![("x", text)]), Mode::Overwrite),
    ];
    expect![[r#"
        there is a table of Delta Lake in `DIR`; add to it with `--mode append`, or let its rows make room with `--mode overwrite` (earlier versions keep them)
        the table `DIR` has a column `x`, which there is not here; write what there is here into another table
        the table `DIR` has a column `x` of int64, and here it is string; write what there is here into another table"#]].assert_eq(&said.join("\n"));
}

#[test]
fn what_is_another_s_is_refused_and_what_was_made_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path, batch: &RecordBatch| {
        let error = begin(path, batch.schema_ref(), Mode::Append).err().unwrap();
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    let new = folder.path().join("a/b");
    let twins =
        rows(vec![("Size", numbers("x").column(0).clone()), ("size", numbers("x").column(0).clone())]);
    let cased = said(&new, &twins);
    // Whatever breaks off leaves no folder.
    drop(begin(&new, numbers("x").schema_ref(), Mode::Create).unwrap());
    let mut broken = begin(&new, numbers("x").schema_ref(), Mode::Create).unwrap();
    broken.write(&numbers("x")).unwrap();
    let half = said(&new, &numbers("x"));
    drop(broken);
    assert!(!folder.path().join("a").exists());
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    let others = said(folder.path(), &numbers("x"));
    let file = said(&folder.path().join("notes.txt"), &numbers("x"));
    assert!(half.starts_with("`DIR/a/b` is no table of Delta Lake, and holds `part-00000-"), "{half}");
    assert!(half.contains(", of an export that is under way, or was cut short; name a folder"), "{half}");
    expect![[r#"
        columns `Size` and `size` differ in no more than upper and lower case, and to a table of Delta Lake they are one; leave one out, rename it, or write Parquet
        `DIR` is no table of Delta Lake, and holds `notes.txt`; name a folder that is empty, or not there yet
        `DIR/notes.txt` is a file, and a table of Delta Lake is a folder; name another one"#]]
    .assert_eq(&[cased, others, file].join("\n"));
}

#[test]
fn a_table_remembers_which_rows_it_has() {
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = TableAt::Folder(folder.path().to_owned());
    let noted = |of: &str| DeltaWriter::noted(&at, of, scratch.path()).unwrap();
    let note = |mode: Mode, to_us: i64| {
        let mut writer = begin(folder.path(), numbers("x").schema_ref(), mode).unwrap();
        writer.note("view/v", to_us);
        writer.finish().unwrap()
    };
    assert_eq!((noted("view/v"), folder.path().join("_delta_log").exists()), (None, false));
    assert_eq!((note(Mode::Append, 10), noted("view/v")), (0, Some(10)));
    assert_eq!((note(Mode::Append, -20), noted("view/v")), (1, Some(-20)));
    // Of others it knows nothing, and nor do they.
    assert_eq!(noted("view/w"), None);
    let mut other = begin(folder.path(), numbers("x").schema_ref(), Mode::Append).unwrap();
    other.note("view/w", 5);
    assert_eq!((other.finish().unwrap(), noted("view/v"), noted("view/w")), (2, Some(-20), Some(5)));
    assert_eq!((note(Mode::Overwrite, 7), noted("view/v")), (3, Some(7)));
}

#[test]
fn types_that_a_table_lacks_become_those_that_hold_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let zone = TimestampMillisecondArray::from(vec![Some(-1), None]).with_timezone("Europe/Berlin");
    let dictionary: DictionaryArray<Int8Type> = vec!["a", "a"].into_iter().collect();
    let half = cast(&Float32Array::from(vec![1.5, f32::NEG_INFINITY]), &DataType::Float16).unwrap();
    let batch = rows(vec![
        ("u32", Arc::new(UInt32Array::from(vec![u32::MAX, 0]))),
        ("zone", Arc::new(zone)),
        ("large", Arc::new(LargeStringArray::from(vec!["é", ""]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("a longer piece of text"), None]))),
        ("dictionary", Arc::new(dictionary)),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[0u8, 255], [1, 2]].into_iter()).unwrap())),
        ("half", half),
    ]);
    let mut writer = begin(folder.path(), batch.schema_ref(), Mode::Create).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let file = fs::File::open(folder.path().join(&files(folder.path())[0])).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let read = reader.next().unwrap().unwrap();
    let shown =
        batch.schema_ref().fields().iter().zip(read.columns()).map(|(field, column)| {
            format!("{} {}: {:?}", field.name(), column.data_type(), column.slice(0, 1))
        });
    expect![[r#"
        u32 Int64: PrimitiveArray<Int64>
        [
          4294967295,
        ]
        zone Timestamp(µs, "UTC"): PrimitiveArray<Timestamp(µs, "UTC")>
        [
          1969-12-31T23:59:59.999+00:00,
        ]
        large Utf8: StringArray
        [
          "é",
        ]
        view Utf8: StringArray
        [
          "a longer piece of text",
        ]
        dictionary Utf8: StringArray
        [
          "a",
        ]
        fixed Binary: BinaryArray
        [
          [0, 255],
        ]
        half Float32: PrimitiveArray<Float32>
        [
          1.5,
        ]"#]]
    .assert_eq(&shown.collect::<Vec<_>>().join("\n"));
    let refused = |column: ArrayRef| {
        let batch = rows(vec![("x", column)]);
        begin(&folder.path().join("other"), batch.schema_ref(), Mode::Create).err().unwrap().to_string()
    };
    let said = [
        refused(Arc::new(UInt64Array::from(vec![1]))),
        refused(Arc::new(TimestampNanosecondArray::from(vec![1]).with_timezone("UTC"))),
        refused(Arc::new(TimestampMillisecondArray::from(vec![1]))),
    ];
    expect![[r#"
        column `x` is uint64, which no table of Delta Lake holds; cast it first, or write Parquet
        column `x` is a timestamp in nanoseconds, which no table of Delta Lake holds; round it to microseconds first, or write Parquet
        column `x` is a timestamp without a time zone, which no table of Delta Lake holds; give it one first, or write Parquet"#]].assert_eq(&said.join("\n"));
}
