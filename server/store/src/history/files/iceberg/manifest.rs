//! Which files does a snapshot of a table of Iceberg name? Its list of manifests, and the manifests, which are Avro.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow_avro::reader::{ReaderBuilder, read_header_info};
use arrow_avro::schema::AvroSchema;
use serde_json::Value;

/// The deleted ones of what manifests name are of snapshots before.
const DELETED: i64 = 2;
const ADDED: i64 = 1;

const OF_LISTS: [&str; 6] =
    ["manifest_path", "partition_spec_id", "content", "sequence_number", "added_snapshot_id", "key_metadata"];
const OF_ENTRIES: [&str; 4] = ["status", "snapshot_id", "sequence_number", "data_file"];
const OF_FILES: [&str; 10] = [
    "content",
    "file_path",
    "file_format",
    "partition",
    "record_count",
    "equality_ids",
    "referenced_data_file",
    "content_offset",
    "content_size_in_bytes",
    "key_metadata",
];

/// A manifest, as the list of a snapshot names it.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) path: String,
    spec: Option<i64>,
    /// The number of the commit that added it.
    sequence: i64,
    snapshot: Option<i64>,
    is_encrypted: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Rows,
    /// The places of rows that were deleted.
    Positions,
    /// Values of rows that were deleted.
    Values,
}

/// A file that counts.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    pub(super) path: String,
    /// In small letters.
    pub(super) format: String,
    pub(super) partition: Partition,
    pub(super) rows: u64,
    /// The number of the commit of which its rows are, or deletes what came before.
    pub(super) sequence: i64,
    pub(super) snapshot: Option<i64>,
    /// The columns whose values are told, by number.
    pub(super) equality: Vec<i64>,
    /// The only file whose rows it deletes, where it is said.
    pub(super) referenced: Option<String>,
    /// Where in the file it lies, where it is a part of it.
    pub(super) range: Option<(u64, u64)>,
}

/// Which of the table's partitions a file is of.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub(super) spec: i64,
    /// Tells one tuple of values from another.
    pub(super) tuple: Vec<u8>,
    /// Each value by the number of what it is; one row.
    pub(super) values: Vec<(i64, ArrayRef)>,
}

impl Manifest {
    /// A manifest that no list names.
    pub(super) fn bare(path: &str, snapshot: i64) -> Manifest {
        Manifest {
            path: path.to_owned(),
            spec: None,
            sequence: 0,
            snapshot: Some(snapshot),
            is_encrypted: false,
        }
    }

    /// The manifests that a list names.
    pub(super) fn listed(bytes: &[u8]) -> Result<Vec<Manifest>, String> {
        let mut all = Vec::new();
        for batch in read(bytes, &mut |list| keep(list, &OF_LISTS))?.batches {
            let rows = StructArray::from(batch);
            for row in (0..rows.len()).map(|row| Row { of: &rows, row }) {
                all.push(Manifest {
                    path: row.text("manifest_path").ok_or("it lacks `manifest_path`")?.to_owned(),
                    spec: row.number("partition_spec_id"),
                    sequence: row.number("sequence_number").unwrap_or_default(),
                    snapshot: row.number("added_snapshot_id"),
                    is_encrypted: row.has("key_metadata"),
                });
            }
        }
        Ok(all)
    }

    /// The files that count of those that it names.
    pub(super) fn entries(&self, bytes: &[u8]) -> Result<Vec<Entry>, String> {
        if self.is_encrypted {
            return Err(ENCRYPTED.to_owned());
        }
        let mut numbers = HashMap::new();
        let read = read(bytes, &mut |entry| {
            keep(entry, &OF_ENTRIES);
            each_record(entry, "data_file", &mut |file| {
                keep(file, &OF_FILES);
                each_record(file, "partition", &mut |tuple| numbers.extend(numbered(tuple)));
                // A record without fields is no column.
                drop_empty(file, "partition");
            });
        })?;
        let spec = self.spec.or(read.spec).unwrap_or_default();
        let mut all = Vec::new();
        for batch in read.batches {
            let entries = StructArray::from(batch);
            let files = entries.column_by_name("data_file").and_then(|files| files.as_struct_opt());
            let files = files.ok_or("it lacks `data_file`")?;
            let partitions = partitions(files, (spec, &numbers)).map_err(|error| error.to_string())?;
            for (row, partition) in (0..entries.len()).zip(partitions) {
                let (entry, file) = (Row { of: &entries, row }, Row { of: files, row });
                let status = entry.number("status").unwrap_or_default();
                if status != DELETED {
                    all.push(self.entry((entry, status), file, partition)?);
                }
            }
        }
        Ok(all)
    }

    fn entry(
        &self,
        (entry, status): (Row<'_>, i64),
        file: Row<'_>,
        partition: Partition,
    ) -> Result<Entry, String> {
        if file.has("key_metadata") {
            return Err(ENCRYPTED.to_owned());
        }
        let content = match file.number("content").unwrap_or_default() {
            0 => Content::Rows,
            1 => Content::Positions,
            2 => Content::Values,
            other => return Err(format!("it names a file of content {other}, which is not known")),
        };
        // What a commit adds has its number, which it does not know before it is made.
        let inherited = if status == ADDED { self.sequence } else { 0 };
        let count = |name: &str| file.number(name).map(|count| count.max(0) as u64);
        Ok(Entry {
            content,
            path: file.text("file_path").ok_or("it lacks `file_path`")?.to_owned(),
            format: file.text("file_format").unwrap_or_default().to_lowercase(),
            partition,
            rows: count("record_count").unwrap_or_default(),
            sequence: entry.number("sequence_number").unwrap_or(inherited),
            snapshot: entry.number("snapshot_id").or(self.snapshot),
            equality: file.numbers("equality_ids"),
            referenced: file.text("referenced_data_file").map(str::to_owned),
            range: count("content_offset").zip(count("content_size_in_bytes")),
        })
    }
}

const ENCRYPTED: &str = "it is encrypted, which is not read";

/// Which partition each file is of.
fn partitions(
    files: &StructArray,
    (spec, numbers): (i64, &HashMap<String, i64>),
) -> Result<Vec<Partition>, ArrowError> {
    let Some(tuples) = files.column_by_name("partition").and_then(|tuples| tuples.as_struct_opt()) else {
        let none = Partition { spec, tuple: Vec::new(), values: Vec::new() };
        return Ok(vec![none; files.len()]);
    };
    let columns: Vec<ArrayRef> = tuples.columns().iter().map(same_nan).collect();
    let fields = columns.iter().map(|values| SortField::new(values.data_type().clone()));
    let rows = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
    let values = |row: usize| {
        let each = tuples.column_names().into_iter().zip(tuples.columns());
        each.filter_map(|(name, values)| Some((*numbers.get(name)?, values.slice(row, 1)))).collect()
    };
    let partition =
        |row: usize| Partition { spec, tuple: rows.row(row).data().to_vec(), values: values(row) };
    Ok((0..files.len()).map(partition).collect())
}

/// The same values, of which those that are no number are one.
pub(super) fn same_nan(values: &ArrayRef) -> ArrayRef {
    let double = |value: f64| if value.is_nan() { f64::NAN } else { value };
    let single = |value: f32| if value.is_nan() { f32::NAN } else { value };
    match values.data_type() {
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(double)),
        DataType::Float32 => Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(single)),
        _ => Arc::clone(values),
    }
}

/// What is in a file of Avro, in the columns that are asked for.
struct Read {
    batches: Vec<RecordBatch>,
    /// How the table tells files apart, where the file says it.
    spec: Option<i64>,
}

/// Reads a file of Avro in its own schema, less what `prune` takes out of that.
fn read(bytes: &[u8], prune: &mut dyn FnMut(&mut Value)) -> Result<Read, String> {
    let header = read_header_info(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let written = header.writer_schema().map_err(|error| error.to_string())?;
    let mut schema: Value = serde_json::from_str(&written.json_string).map_err(|error| error.to_string())?;
    prune(&mut schema);
    let reader = ReaderBuilder::new()
        .with_reader_schema(AvroSchema::new(schema.to_string()))
        .build(Cursor::new(bytes))
        .map_err(|error| error.to_string())?;
    let spec = reader
        .avro_header()
        .get("partition-spec-id")
        .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    let batches = reader.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok(Read { batches, spec })
}

/// Leaves only these fields of a record.
fn keep(record: &mut Value, names: &[&str]) {
    if let Some(fields) = record.get_mut("fields").and_then(Value::as_array_mut) {
        fields.retain(|field| {
            field.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name))
        });
    }
}

/// Visits what is a record in the type of the field `name`.
fn each_record(record: &mut Value, name: &str, visit: &mut dyn FnMut(&mut Value)) {
    let fields = record.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten();
    let types = fields.filter(|field| field.get("name").and_then(Value::as_str) == Some(name));
    for dtype in types.filter_map(|field| field.get_mut("type")) {
        match dtype {
            Value::Array(union) => union.iter_mut().filter(|it| it.is_object()).for_each(&mut *visit),
            dtype => visit(dtype),
        }
    }
}

/// The fields of a record that have numbers.
fn numbered(record: &Value) -> Vec<(String, i64)> {
    let fields = record.get("fields").and_then(Value::as_array).into_iter().flatten();
    let number = |field: &Value| {
        Some((field.get("name")?.as_str()?.to_owned(), field.get("field-id").and_then(Value::as_i64)?))
    };
    fields.filter_map(number).collect()
}

/// Takes out a field that is a record of none.
fn drop_empty(record: &mut Value, name: &str) {
    let mut is_empty = false;
    each_record(record, name, &mut |inner| {
        is_empty = inner.get("fields").and_then(Value::as_array).is_some_and(Vec::is_empty);
    });
    if is_empty && let Some(fields) = record.get_mut("fields").and_then(Value::as_array_mut) {
        fields.retain(|field| field.get("name").and_then(Value::as_str) != Some(name));
    }
}

/// A record, and what its fields are.
#[derive(Clone, Copy)]
struct Row<'a> {
    of: &'a StructArray,
    row: usize,
}

impl<'a> Row<'a> {
    fn at(&self, name: &str) -> Option<&'a ArrayRef> {
        self.of.column_by_name(name).filter(|column| column.is_valid(self.row))
    }

    fn has(&self, name: &str) -> bool {
        self.at(name).is_some()
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        Some(self.at(name)?.as_string_opt::<i32>()?.value(self.row))
    }

    fn number(&self, name: &str) -> Option<i64> {
        let column = self.at(name)?;
        let short = column.as_primitive_opt::<Int32Type>().map(|column| i64::from(column.value(self.row)));
        short.or_else(|| column.as_primitive_opt::<Int64Type>().map(|column| column.value(self.row)))
    }

    fn numbers(&self, name: &str) -> Vec<i64> {
        let list =
            self.at(name).and_then(|column| column.as_list_opt::<i32>()).map(|list| list.value(self.row));
        let values = list.as_ref().and_then(|list| list.as_primitive_opt::<Int32Type>());
        values.map(|values| values.iter().flatten().map(i64::from).collect()).unwrap_or_default()
    }
}
