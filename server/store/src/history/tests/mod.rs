//! One repository in a temporary folder; files go in, rows or messages come out.

mod constants;
mod csv;
mod delta;
mod dialects;
mod errors;
mod iceberg;
mod ipc;
mod json;
mod laws;
mod made;
mod parquet;
mod sample;
mod stored;
mod times;
mod types;
mod written;

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use feature_defs::{BatchSource, Column, DefError, Format, Loc, ScalarType, Source, Type};
use tempfile::TempDir;

use super::{History, Pushed, Scan};
use crate::error::{Error, Kind, Result};
use crate::roots::Roots;

/// A repository with one source, `events`.
struct Repository {
    folder: TempDir,
    source: Source,
}

impl Repository {
    fn new(format: Format, path: &str) -> Self {
        let batch = BatchSource {
            format,
            path: path.to_owned(),
            dialect: Default::default(),
            connection: None,
            version: None,
            reference: None,
            catalog: None,
            loc: loc(3),
        };
        let source = Source {
            name: "events".to_owned(),
            description: String::new(),
            batch: Some(batch),
            pull: None,
            push: false,
            stream: None,
            event_timestamp: "at".to_owned(),
            created_timestamp: None,
            event_id: Vec::new(),
            columns: Vec::new(),
            governance: Default::default(),
            loc: loc(1),
        };
        Repository { folder: TempDir::new().unwrap(), source }
    }

    fn parquet() -> Self {
        Repository::new(Format::Parquet, "data")
    }

    fn csv(columns: &[(&str, Type)]) -> Self {
        let mut repository = Repository::new(Format::Csv, "data");
        repository.declare("at", scalar(ScalarType::Timestamp));
        columns.iter().for_each(|(name, dtype)| repository.declare(name, *dtype));
        repository
    }

    fn declare(&mut self, name: &str, dtype: Type) {
        let loc = loc(10 + self.source.columns.len());
        self.source.columns.push(Column {
            name: name.to_owned(),
            dtype,
            default: None,
            format: None,
            from: None,
            loc,
        });
    }

    fn history(&self) -> History {
        History::new(Roots::new(self.folder.path(), &[]), Pushed::default())
    }

    /// Writes text or bytes into a file of the repository.
    fn file(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn schema(&self) -> SchemaRef {
        self.history().schema(&self.source).unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)))
    }

    fn open(&self) -> Result<Scan> {
        self.history().open(&self.source, &self.schema())
    }

    /// All mistakes of `History::schema`, one below the other.
    fn mistakes(&self) -> String {
        let mistakes = self.history().schema(&self.source).expect_err("the source should not be sound");
        lines(&mistakes).replace(&self.folder.path().display().to_string(), "$REPOSITORY")
    }

    /// The error of opening and reading everything.
    fn error(&self) -> String {
        let read = self.open().and_then(|scan| all(&scan));
        let error = read.expect_err("the source should not be readable").said();
        error.replace(&self.folder.path().display().to_string(), "$REPOSITORY")
    }
}

fn loc(line: usize) -> Loc {
    Loc { line, column: 5, ..Loc::start("events.yaml") }
}

fn scalar(dtype: ScalarType) -> Type {
    Type::Scalar(dtype)
}

fn lines(mistakes: &[DefError]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// How a Parquet file is written: row groups of `rows` rows.
fn groups_of(rows: usize) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_data_page_row_count_limit(7)
        .set_write_batch_size(3)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, properties: WriterPropertiesBuilder) {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

impl Repository {
    fn write(&self, path: &str, columns: Vec<(&str, ArrayRef)>) {
        write_parquet(&self.folder.path().join(path), columns, groups_of(10));
    }
}

/// Reads columns of one unit into one batch, and checks the offsets on the way.
fn read(scan: &Scan, unit: usize, columns: &[&str], rows: Option<&[u32]>) -> Result<RecordBatch> {
    let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
    let batches = batches(scan, unit, &columns, rows)?;
    Ok(concat_batches(&scan.project(&columns)?, &batches)?)
}

/// The batches of one unit. A column with values that its type cannot say leaves as it is stored.
fn batches(scan: &Scan, unit: usize, columns: &[String], rows: Option<&[u32]>) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut read = 0;
    scan.read(unit, columns, rows, &mut |offset, batch| {
        assert_eq!(offset, read);
        assert!(batch.num_rows() > 0 && batch.num_rows() <= super::BATCH_ROWS_MAX);
        read += batch.num_rows();
        batches.push(batch);
        Ok::<_, Error>(())
    })?;
    Ok(batches)
}

/// What is known of some columns unread is what their rows have. Gives the units of which it is known.
fn check_constants(scan: &Scan, columns: &[&str]) -> Vec<Range<usize>> {
    let names: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let known = scan.constants(&names).unwrap();
    for (place, units) in known.units.iter().enumerate() {
        for unit in units.clone() {
            let rows = read(scan, unit, columns, None).unwrap();
            (0..rows.num_rows())
                .for_each(|row| assert_eq!(rows.slice(row, 1), known.values.slice(place, 1), "{columns:?}"));
        }
    }
    known.units
}

/// Every row of every unit, every column.
fn all(scan: &Scan) -> Result<RecordBatch> {
    let names: Vec<&str> = scan.schema.fields().iter().map(|f| f.name().as_str()).collect();
    let units =
        (0..scan.units.len()).map(|unit| read(scan, unit, &names, None)).collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(&scan.schema, &units)?)
}

fn table(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}

fn describe(schema: &Schema) -> String {
    schema.fields().iter().map(|f| format!("{}: {}\n", f.name(), f.data_type())).collect()
}

fn invalid(error: &Error) -> bool {
    error.kind() == Kind::InvalidArgument
}
