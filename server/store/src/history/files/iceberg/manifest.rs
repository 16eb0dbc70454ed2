//! Which files does a snapshot of a table of Iceberg name? Its list of manifests, and the manifests.

use quern_decode::avro::Value;

use super::avro::File;

/// The files that a manifest names were there before it, came with it, or went with it.
const EXISTING: i64 = 0;
const ADDED: i64 = 1;
const DELETED: i64 = 2;
const ENCRYPTED: &str = "it is encrypted, which is not read";

/// A manifest, as the list of a snapshot names it.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) path: String,
    spec: Option<i64>,
    /// The number of the commit that added it; 0 before there were such.
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
    /// Where in the file it lies and how long it is, where it is a part of it.
    pub(super) range: Option<(u64, u64)>,
}

/// Which of the table's partitions a file is of.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub(super) spec: i64,
    /// Tells one tuple of values from another, whatever the width of their types was.
    tuple: Vec<u8>,
    /// Each value by the number of what it is.
    pub(super) values: Vec<(i64, Value)>,
}

impl Manifest {
    /// A manifest that no list names.
    pub(super) fn bare(path: &str, snapshot: i64) -> Manifest {
        let (path, snapshot) = (path.to_owned(), Some(snapshot));
        Manifest { path, spec: None, sequence: 0, snapshot, is_encrypted: false }
    }

    /// The manifests that a list names.
    pub(super) fn listed(bytes: &[u8]) -> Result<Vec<Manifest>, String> {
        let manifest = |row: &Value| {
            Ok(Manifest {
                path: row.text("manifest_path")?.ok_or("it lacks `manifest_path`")?.to_owned(),
                spec: row.number("partition_spec_id")?,
                sequence: row.number("sequence_number")?.unwrap_or_default(),
                snapshot: row.number("added_snapshot_id")?,
                is_encrypted: row.at("key_metadata").is_some(),
            })
        };
        File::read(bytes)?.values.iter().map(manifest).collect()
    }

    /// The files that count of those that it names.
    pub(super) fn entries(&self, bytes: &[u8]) -> Result<Vec<Entry>, String> {
        if self.is_encrypted {
            return Err(ENCRYPTED.to_owned());
        }
        let file = File::read(bytes)?;
        let told = || file.told("partition-spec-id").and_then(|id| id.parse().ok());
        let spec = self.spec.or_else(told).unwrap_or_default();
        let entries = file.values.iter().map(|entry| self.entry(entry, spec));
        entries.filter_map(Result::transpose).collect()
    }

    fn entry(&self, entry: &Value, spec: i64) -> Result<Option<Entry>, String> {
        let file = entry.at("data_file").ok_or("it lacks `data_file`")?;
        // What a commit adds has its number, which it does not know before it is made.
        let sequence = match (entry.number("status")?, entry.number("sequence_number")?) {
            (Some(DELETED), _) => return Ok(None),
            (Some(EXISTING | ADDED), Some(sequence)) => sequence,
            (Some(ADDED), None) => self.sequence,
            (Some(EXISTING), None) if self.sequence == 0 => 0,
            (Some(EXISTING), None) => return Err("it does not say of which commit a file is".to_owned()),
            (status, _) => {
                let status = status.map_or("none".to_owned(), |status| status.to_string());
                return Err(format!("it names a file of status {status}, which is not known"));
            }
        };
        if file.at("key_metadata").is_some() {
            return Err(ENCRYPTED.to_owned());
        }
        let content = match file.number("content")?.unwrap_or_default() {
            0 => Content::Rows,
            1 => Content::Positions,
            2 => Content::Values,
            other => return Err(format!("it names a file of content {other}, which is not known")),
        };
        let count = |name: &str| {
            let count = file.number(name)?;
            count
                .map(|count| u64::try_from(count).map_err(|_| format!("`{name}` in it is {count}")))
                .transpose()
        };
        Ok(Some(Entry {
            content,
            path: file.text("file_path")?.ok_or("it lacks `file_path`")?.to_owned(),
            format: file.text("file_format")?.unwrap_or_default().to_lowercase(),
            partition: Partition::of(file.at("partition"), spec),
            rows: count("record_count")?.unwrap_or_default(),
            sequence,
            snapshot: entry.number("snapshot_id")?.or(self.snapshot),
            equality: file.numbers("equality_ids")?,
            referenced: file.text("referenced_data_file")?.map(str::to_owned),
            range: count("content_offset")?.zip(count("content_size_in_bytes")?),
        }))
    }
}

impl Partition {
    fn of(tuple: Option<&Value>, spec: i64) -> Partition {
        let values = tuple.map(|tuple| tuple.numbered().map(|(id, value)| (id, value.clone())).collect());
        let values: Vec<(i64, Value)> = values.unwrap_or_default();
        let mut tuple = Vec::new();
        values.iter().for_each(|(_, value)| write(value, &mut tuple));
        Partition { spec, tuple, values }
    }

    pub(super) fn is(&self, other: &Partition) -> bool {
        self.spec == other.spec && self.tuple == other.tuple
    }
}

/// Writes a value so that only the same one is written so.
fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        Value::Long(value, _) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        Value::Double(value) => {
            out.push(3);
            // What is no number is one.
            out.extend(if value.is_nan() { f64::NAN } else { *value }.to_bits().to_le_bytes());
        }
        Value::Decimal(value, _) => {
            out.push(4);
            out.extend(value.to_le_bytes());
        }
        Value::Bytes(value) => {
            out.push(5);
            out.extend(value.len().to_le_bytes());
            out.extend(value);
        }
        Value::Uuid(value) => {
            out.push(7);
            out.extend(value);
        }
        Value::Text(value) => {
            out.push(8);
            out.extend(value.len().to_le_bytes());
            out.extend(value.as_bytes());
        }
        // No value by which files are told apart has parts.
        Value::List(_) | Value::Record(_) => out.push(6),
    }
}
