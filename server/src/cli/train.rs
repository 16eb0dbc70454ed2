//! `quern train`: a spine file goes in, a training set comes out.

use std::fs::{self, File};
use std::io::{IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clap::Args;
use futures::StreamExt;
use indicatif::ProgressBar;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use quern::wire::{ColumnInfo, TrainingSetCommand};
use quern_engine::schema::{EVENT_TIMESTAMP, timestamp};
use serde::Serialize;

use super::Options;
use super::backend::Backend;
use super::failure::{Failure, Result};
use super::materialize::{rate, rows_bar};
use super::output::{print, print_json, thousands};
use super::read::{directory_and, inputs};
use crate::Quern;
use crate::error::Error;
use crate::training::training_set;

const BATCH_ROWS: usize = 65_536;
/// The writer holds a whole row group in memory.
const ROW_GROUP_ROWS: usize = 131_072;
/// Batches made while one is written.
const BATCHES_AHEAD: usize = 2;

#[derive(Debug, Args)]
#[command(override_usage = "quern train [OPTIONS] --spine <FILE> --out <FILE> [DIR] SERVICE")]
pub(super) struct Arguments {
    /// The repository (default: the current folder), then the feature service.
    #[arg(required = true, num_args = 1..=2, value_name = "[DIR] SERVICE")]
    words: Vec<String>,
    /// The spine, Parquet or CSV: join keys, `event_timestamp`, request columns, and any others, which are carried
    /// through.
    #[arg(long, value_name = "FILE")]
    spine: PathBuf,
    /// Where the training set goes, as Parquet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Leave rows out that became known after the query time.
    #[arg(long)]
    as_known: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Trained {
    rows: u64,
    columns: usize,
    seconds: f64,
    out: PathBuf,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let start = Instant::now();
    let (directory, service) = directory_and(&arguments.words, "the feature service")?;
    let backend = Backend::open(&directory, options).await?;
    let known = inputs(&backend.catalogue().await?, &service);
    let (schema, spine) = read_spine(&arguments.spine, &known)?;
    let spine_rows: usize = spine.iter().map(RecordBatch::num_rows).sum();
    let bar = std::io::stderr().is_terminal().then(rows_bar);
    if let Some(bar) = &bar {
        bar.set_length(spine_rows as u64);
    }
    let request = TrainingSetCommand { feature_service: service, as_known: arguments.as_known };
    let (rows, columns) = match backend {
        Backend::Here { quern, .. } => {
            let (out, bar) = (arguments.out.clone(), bar.clone());
            let work = move || train_here(&quern, &request, &schema, &spine, &out, bar);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| Error::internal("training set", error))??
        }
        Backend::There(client) => {
            let spine = futures::stream::iter(spine);
            let mut set =
                client.training_set(&request.feature_service, schema, spine, request.as_known).await?;
            let mut out = Output::create(&arguments.out, set.schema(), bar.clone())?;
            while let Some(batch) = set.next().await {
                out.write(&batch?)?;
            }
            out.finish()?
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let trained =
        Trained { rows, columns, seconds: start.elapsed().as_secs_f64(), out: arguments.out.clone() };
    if arguments.json {
        print_json(&trained);
        return Ok(());
    }
    print(format!(
        "{} rows × {columns} columns in {:.1} s, {} rows/s: {}",
        thousands(rows),
        trained.seconds,
        rate(rows, trained.seconds),
        trained.out.display()
    ));
    Ok(())
}

fn train_here(
    quern: &Quern,
    request: &TrainingSetCommand,
    schema: &SchemaRef,
    spine: &[RecordBatch],
    out: &Path,
    bar: Option<ProgressBar>,
) -> Result<(u64, usize)> {
    let live = quern.live();
    let set = training_set(quern, &live, request, schema, spine)?;
    let mut out = Output::create(out, set.schema(), bar)?;
    // One thread makes the rows, this one writes them.
    let (sender, batches) = std::sync::mpsc::sync_channel(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || set.into_iter().try_for_each(|batch| sender.send(batch)));
        batches.into_iter().try_for_each(|batch| out.write(&batch?))
    })?;
    out.finish()
}

/// A Parquet file that has its name only once it is whole.
struct Output {
    writer: ArrowWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    bar: Option<ProgressBar>,
    rows: u64,
    columns: usize,
}

impl Output {
    fn create(path: &Path, schema: &SchemaRef, bar: Option<ProgressBar>) -> Result<Output> {
        let temporary = path.with_added_extension("part");
        let file = File::create(&temporary)
            .map_err(|error| Error::Invalid(format!("{} cannot be written: {error}", temporary.display())))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
        // Fractions hardly ever repeat: looking each up in a dictionary costs more than writing it.
        for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
            properties =
                properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
        let properties = properties.build();
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties)).map_err(Error::from)?;
        Ok(Output { writer, temporary, path: path.to_owned(), bar, rows: 0, columns: schema.fields().len() })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(Error::from)?;
        self.rows += batch.num_rows() as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(self.rows);
        }
        Ok(())
    }

    fn finish(self) -> Result<(u64, usize)> {
        let file = self.writer.into_inner().map_err(Error::from)?;
        let kept = file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        kept.map_err(|error| Error::Invalid(format!("{} cannot be written: {error}", self.path.display())))?;
        Ok((self.rows, self.columns))
    }
}

fn read_spine(path: &Path, known: &[ColumnInfo]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wrong = |cause: String| Failure::Here(Error::Invalid(format!("spine {}: {cause}", path.display())));
    let mut file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => {
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(error.to_string()))?;
            let schema = Arc::clone(reader.schema());
            let batches =
                reader.with_batch_size(BATCH_ROWS).build().map_err(|error| wrong(error.to_string()))?;
            let batches =
                batches.collect::<std::result::Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
            Ok((schema, batches))
        }
        Some("csv") => {
            let format = Format::default().with_header(true);
            let (inferred, _) =
                format.infer_schema(&mut file, None).map_err(|error| wrong(error.to_string()))?;
            file.rewind().map_err(|error| wrong(error.to_string()))?;
            let schema = Arc::new(spine_schema(&inferred, known));
            let reader =
                ReaderBuilder::new(Arc::clone(&schema)).with_header(true).with_batch_size(BATCH_ROWS);
            let batches = reader.build(file).map_err(|error| wrong(error.to_string()))?;
            let batches =
                batches.collect::<std::result::Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
            Ok((schema, batches))
        }
        _ => Err(wrong("its name must end in .parquet or .csv".to_owned())),
    }
}

/// A CSV file says nothing about types: what the feature service takes is of its type, the rest as it looks.
fn spine_schema(inferred: &Schema, known: &[ColumnInfo]) -> Schema {
    let field = |field: &Field| {
        let dtype = match known.iter().find(|column| column.name == *field.name()) {
            _ if field.name() == EVENT_TIMESTAMP => timestamp(),
            Some(column) => csv_type(&column.dtype),
            None => field.data_type().clone(),
        };
        Field::new(field.name(), dtype, true)
    };
    Schema::new(inferred.fields().iter().map(|f| field(f)).collect::<Vec<_>>())
}

/// What is text in a CSV file, such as a list, stays text, and the feature service says what it wants instead.
fn csv_type(dtype: &str) -> DataType {
    match dtype {
        "bool" => DataType::Boolean,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "timestamp" => timestamp(),
        "date" => DataType::Date32,
        _ => DataType::Utf8,
    }
}
