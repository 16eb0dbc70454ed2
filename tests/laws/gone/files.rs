//! How do the files of a source come, go and change, and which rows do they hold?

use std::fmt::Write;
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use chrono::{DateTime, SecondsFormat};
use datafusion_common::ScalarValue;
use quern_kit::Repository;

use crate::laws::oracle::Row;

/// The files of a source, in a repository.
pub(super) struct Files<'a> {
    pub(super) repository: &'a Repository,
    pub(super) format: &'static str,
    pub(super) has_created: bool,
    /// In the order in which they count as arrived.
    pub(super) live: Vec<Live>,
    commits: usize,
    next: usize,
}

/// A file.
pub(super) struct Live {
    name: String,
    rows: Vec<Row>,
    deleted: Vec<usize>,
    /// Where that stands, in a table's log.
    vector: String,
}

pub(super) fn number(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int64(number) => *number,
        other => panic!("{other:?}"),
    }
}

/// Rows as the columns of the source.
pub(super) fn batch(rows: &[Row], has_created: bool) -> RecordBatch {
    let times = |time: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(time).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let numbers = |value: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(value).collect::<Int64Array>())
    };
    let mut columns = vec![
        ("k", numbers(|row| number(&row.key[0])), true),
        ("at", times(|row| row.ts_us), true),
        ("v", numbers(|row| number(&row.values[0])), true),
    ];
    if has_created {
        columns.push(("created", times(|row| row.created_us), true));
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

impl Files<'_> {
    pub(super) fn of<'a>(repository: &'a Repository, format: &'static str, has_created: bool) -> Files<'a> {
        let mut files = Files { repository, format, has_created, live: Vec::new(), commits: 0, next: 0 };
        if format == "delta" {
            files.begin_table();
        }
        files
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let of_file = |live: &Live| {
            let left = live.rows.iter().enumerate().filter(|(row, _)| !live.deleted.contains(row));
            left.map(|(_, row)| row.clone()).collect::<Vec<_>>()
        };
        self.live.iter().flat_map(of_file).collect()
    }

    pub(super) fn add(&mut self, rows: Vec<Row>) {
        let extension = if self.format == "delta" { "parquet" } else { self.format };
        let name = format!("{:03}.{extension}", self.next);
        self.next += 1;
        let live = Live { name, rows, deleted: Vec::new(), vector: String::new() };
        self.write(&live);
        self.commit(&self.action("add", &live));
        self.live.push(live);
    }

    pub(super) fn remove(&mut self, file: usize) {
        let live = self.live.remove(file);
        match self.format {
            "delta" => self.commit(&self.action("remove", &live)),
            _ => fs::remove_file(self.repository.path().join("rows").join(&live.name)).unwrap(),
        }
    }

    /// Gives the file other rows.
    pub(super) fn rewrite(&mut self, file: usize, rows: Vec<Row>) {
        if self.format == "delta" {
            self.remove(file);
            return self.add(rows);
        }
        self.live[file].rows = rows;
        self.write(&self.live[file]);
    }

    /// Adds rows at the end of a file of text.
    pub(super) fn grow(&mut self, file: usize, rows: Vec<Row>) {
        match self.format {
            "csv" | "json" => {
                self.live[file].rows.extend(rows);
                self.write(&self.live[file]);
            }
            _ => self.add(rows),
        }
    }

    /// Deletes a row of a table's file, as far as there is a table.
    pub(super) fn delete(&mut self, file: usize, row: usize) {
        let live = &self.live[file];
        if self.format != "delta" || row >= live.rows.len() || live.deleted.contains(&row) {
            return;
        }
        let removed = self.action("remove", live);
        let mut deleted = [&live.deleted[..], &[row]].concat();
        deleted.sort_unstable();
        let vector = self.vector(&live.name, &deleted);
        let live = &mut self.live[file];
        (live.deleted, live.vector) = (deleted, vector);
        let added = self.action("add", &self.live[file]);
        self.commit(&(removed + &added));
    }

    fn write(&self, live: &Live) {
        let name = format!("rows/{}", live.name);
        let shown = |us: Option<i64>| {
            let time = us.and_then(DateTime::from_timestamp_micros);
            time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
        };
        match self.format {
            "csv" => {
                let mut text = "k,at,v,created\n".to_owned();
                for row in &live.rows {
                    let [k, v] =
                        [&row.key[0], &row.values[0]].map(|value| number(value).map(|v| v.to_string()));
                    let cells =
                        [k, shown(row.ts_us), v, shown(row.created_us)].map(Option::unwrap_or_default);
                    writeln!(text, "{}", cells.join(",")).unwrap();
                }
                self.repository.write(name, text);
            }
            "json" => {
                let mut text = String::new();
                for row in &live.rows {
                    let (k, v) = (number(&row.key[0]), number(&row.values[0]));
                    let (at, created) = (shown(row.ts_us), shown(row.created_us));
                    writeln!(text, "{}", serde_json::json!({"k": k, "at": at, "v": v, "created": created}))
                        .unwrap();
                }
                self.repository.write(name, text);
            }
            _ => {
                let (rows, group_rows) = (batch(&live.rows, self.has_created), 3.max(live.rows.len() / 4));
                self.repository.write_parquet_in_groups(&name, &rows, group_rows);
            }
        }
    }

    fn begin_table(&mut self) {
        let created = self.has_created.then_some(("created", "timestamp"));
        let fields = [("k", "long"), ("at", "timestamp"), ("v", "long")].into_iter().chain(created);
        let field = |(name, dtype)| serde_json::json!({"name": name, "type": dtype, "nullable": true, "metadata": {}});
        let schema = serde_json::json!({"type": "struct", "fields": fields.map(field).collect::<Vec<_>>()});
        let protocol = serde_json::json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}});
        let table = serde_json::json!({"metaData": {"id": "t", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": [], "configuration": {}, "createdTime": 0}});
        self.commit(&format!("{protocol}\n{table}\n"));
    }

    fn commit(&mut self, actions: &str) {
        if self.format == "delta" {
            let name = format!("rows/_delta_log/{:020}.json", self.commits);
            self.repository.write(name, format!("{{\"commitInfo\":{{}}}}\n{actions}"));
            self.commits += 1;
        }
    }

    fn action(&self, kind: &str, live: &Live) -> String {
        let time = if kind == "add" { "\"modificationTime\":5" } else { "\"deletionTimestamp\":5" };
        let (name, vector) = (&live.name, &live.vector);
        format!(
            "{{\"{kind}\":{{\"path\":\"{name}\",\"partitionValues\":{{}},\"size\":1,{time},\"dataChange\":true{vector}}}}}\n"
        )
    }

    /// Writes which rows of a file are deleted, and says where.
    fn vector(&self, name: &str, deleted: &[usize]) -> String {
        let mut bitmap = 1_681_511_377u32.to_le_bytes().to_vec();
        bitmap.extend(1u64.to_le_bytes());
        bitmap.extend([0u32, 12_346, 1].into_iter().flat_map(u32::to_le_bytes));
        bitmap.extend(0u16.to_le_bytes());
        bitmap.extend((deleted.len() as u16 - 1).to_le_bytes());
        bitmap.extend(16u32.to_le_bytes());
        deleted.iter().for_each(|row| bitmap.extend((*row as u16).to_le_bytes()));
        let mut file = vec![1];
        file.extend((bitmap.len() as u32).to_be_bytes());
        file.extend(&bitmap);
        file.extend(crc32(&bitmap).to_be_bytes());
        let name = format!("rows/dv-{name}-{}-{}.bin", self.commits, deleted.len());
        self.repository.write(&name, file);
        let url = format!("file://{}", self.repository.path().canonicalize().unwrap().join(name).display());
        format!(
            ",\"deletionVector\":{{\"storageType\":\"p\",\"pathOrInlineDv\":\"{url}\",\"offset\":1,\
             \"sizeInBytes\":{},\"cardinality\":{}}}",
            bitmap.len(),
            deleted.len()
        )
    }
}

/// That of zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}
