//! How does a table go to where it is wanted: into a file, an object of a bucket, or a table of Delta Lake?
//!
//! What is not whole is never seen there: a file is written aside and named at the end, an object is sent at the end,
//! and a table's files count once a commit names them.

mod csv;
mod follow;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use quern_base::random;
use quern_engine::schema::type_name;
use quern_server::Settings;
use quern_server::destination::{Delta, DeltaWriter, Destination, Mode, Object};
use quern_wire::{FAILED, TRAINING_SET, TableNotes};
use serde::Serialize;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use self::csv::CsvFile;
use self::follow::Noted;
pub(super) use self::follow::Stretch;
use super::failure::{Failure, Result};
use super::materialize::rate;
use super::output::counted;
use crate::error::Error;

/// The writer holds a whole row group in memory.
const ROW_GROUP_ROWS: usize = 131_072;

/// How a table is written.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Writing {
    /// `delta` for a table of Delta Lake in that folder; a file is `parquet` or `csv` by its name.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// What becomes of what is there: `error`, `overwrite`, or `append` to a table.
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<WriteMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Parquet,
    Csv,
    Delta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WriteMode {
    Error,
    Append,
    Overwrite,
}

/// How a file holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Parquet,
    Csv,
}

impl Form {
    /// As its name says.
    fn of(name: &str) -> Option<Form> {
        match name.rsplit_once('.')?.1 {
            "parquet" => Some(Form::Parquet),
            "csv" => Some(Form::Csv),
            _ => None,
        }
    }
}

/// Where a table goes; cloned for who writes it on another thread.
#[derive(Clone)]
pub(super) struct Target {
    /// As it was said.
    to: String,
    at: At,
    /// When it was asked for.
    since: Instant,
    /// What a table is to remember of it.
    noted: Option<Noted>,
}

#[derive(Clone)]
enum At {
    File(PathBuf, Form),
    Object(Arc<Object>, Form),
    Delta(Arc<Delta>, Mode),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to)
    }
}

impl Target {
    /// A file of this machine, which makes room for another.
    ///
    /// # Errors
    /// A name that says no form.
    pub(super) fn file(path: &Path) -> Result<Target> {
        let to = path.display().to_string();
        let form = Form::of(&to)
            .ok_or_else(|| Error::invalid(format!("{to}: its name must end in .parquet or .csv")))?;
        Ok(Target { to, at: At::File(path.to_owned(), form), since: Instant::now(), noted: None })
    }

    /// What `to` says, a path or a URL; `files` says what becomes of a file unless `writing` does.
    ///
    /// # Errors
    /// Where it says no form, no connection leads there, or there is something already that is to stay.
    pub(super) async fn open(
        to: &str,
        writing: Writing,
        files: WriteMode,
        settings: &Settings,
    ) -> Result<Target> {
        let (named, since) = (Form::of(to), Instant::now());
        let at = match writing.format {
            Some(Format::Delta) => match Destination::delta(settings, to)? {
                Destination::Delta(delta) => {
                    check_is_not_ours(to, settings)?;
                    At::Delta(Arc::new(delta), writing.of_table())
                }
                _ => return Err(Error::broken("a table that is none").into()),
            },
            format => {
                let said = match format {
                    Some(Format::Csv) => Some(Form::Csv),
                    Some(_) => Some(Form::Parquet),
                    None => named,
                };
                let form = said.filter(|form| named == Some(*form)).ok_or_else(|| no_form(to, said))?;
                check_is_not_ours(to, settings)?;
                match Destination::file(settings, to)? {
                    Destination::Object(object) => At::Object(Arc::from(object), form),
                    _ => At::File(PathBuf::from(to), form),
                }
            }
        };
        let target = Target { to: to.to_owned(), at, since, noted: None };
        target.check(writing.mode.unwrap_or(files)).await?;
        Ok(target)
    }

    /// Refuses a file that is to stay.
    async fn check(&self, mode: WriteMode) -> Result<()> {
        let is_there = match &self.at {
            // It is looked at when it is opened.
            At::Delta(..) => return Ok(()),
            _ if mode == WriteMode::Append => {
                return Err(Failure::Usage(format!(
                    "{}: nothing is appended to a file; write another one, or a table (`--format delta`)",
                    self.to
                )));
            }
            _ if mode == WriteMode::Overwrite => return Ok(()),
            At::File(path, _) => path.exists(),
            At::Object(object, _) => object.exists().await?,
        };
        match is_there {
            false => Ok(()),
            true => {
                let cause =
                    format!("{} is there already; write another file, or add `--mode overwrite`", self.to);
                Err(Error::refused(cause).into())
            }
        }
    }
}

impl Writing {
    fn of_table(self) -> Mode {
        match self.mode {
            None | Some(WriteMode::Error) => Mode::Create,
            Some(WriteMode::Append) => Mode::Append,
            Some(WriteMode::Overwrite) => Mode::Overwrite,
        }
    }
}

/// Refuses a folder in which Quern keeps what is its own, or looks for definitions.
fn check_is_not_ours(to: &str, settings: &Settings) -> Result<()> {
    if to.contains("://") {
        return Ok(());
    }
    let folder = without_links(&absolute(to).map_err(Error::from)?);
    let definitions = settings.projects().flat_map(|project| {
        let folders = project.definitions.iter();
        folders.map(move |folder| (project.repository.join(folder), "the folder of definitions"))
    });
    let mut ours = std::iter::once((settings.data.clone(), "the data folder")).chain(definitions);
    match ours.find(|(own, _)| folder.starts_with(without_links(own))) {
        None => Ok(()),
        Some((own, what)) => {
            let cause = format!("{to} is in {what}, {}; name another folder", own.display());
            Err(Error::refused(cause).into())
        }
    }
}

/// The same path, without links as far as it is there.
fn without_links(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|there| Some((there.canonicalize().ok()?, there)));
    let rest = found.and_then(|(real, there)| Some(real.join(path.strip_prefix(there).ok()?)));
    rest.unwrap_or_else(|| path.to_owned())
}

fn no_form(to: &str, said: Option<Form>) -> Error {
    let end = match said {
        Some(Form::Parquet) => ".parquet",
        Some(Form::Csv) => ".csv",
        None => ".parquet or .csv",
    };
    Error::invalid(format!(
        "{to}: its name must end in {end}; a table of Delta Lake is a folder (`--format delta`)"
    ))
}

/// Rows on their way out. What is not whole is removed.
pub(super) struct Output {
    target: Target,
    /// None once it is whole.
    writer: Option<Writer>,
    aside: Aside,
    bar: Option<ProgressBar>,
    rows: u64,
    columns: usize,
}

/// Where rows lie until they are where they belong.
enum Aside {
    /// In a file beside the one that is wanted.
    Beside(PathBuf),
    /// In a folder of its own.
    Folder(TempDir),
}

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(CsvFile),
    Delta(Box<DeltaWriter>),
}

/// What was written, as programs read it; to a person it is one line.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    rows: u64,
    columns: usize,
    seconds: f64,
    out: String,
    /// The one that a table of Delta Lake has by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = (counted(self.rows, "row"), counted(self.columns as u64, "column"));
        let rate = rate(self.rows, self.seconds);
        write!(f, "{rows} × {columns} in {:.1} s, {rate} rows/s: {}", self.seconds, self.out)
    }
}

impl Aside {
    /// The file that becomes the one that is wanted.
    fn file(&self) -> PathBuf {
        match self {
            Aside::Beside(path) => path.clone(),
            Aside::Folder(folder) => folder.path().join("table"),
        }
    }
}

impl Output {
    /// Begins it. Waits for disks and stores.
    pub(super) fn create(target: &Target, schema: &SchemaRef, bar: Option<ProgressBar>) -> Result<Output> {
        let folder = || tempfile::tempdir().map(Aside::Folder).map_err(Error::from);
        let (aside, writer) = match &target.at {
            At::File(path, form) => {
                // Nobody else has that name: neither a command beside this one, nor a file that is to stay.
                let name = format!(".quern-{:016x}.part", random::number());
                let aside = Aside::Beside(path.with_file_name(name));
                let writer = begin(*form, &aside.file(), (target, schema))?;
                (aside, writer)
            }
            At::Object(_, form) => {
                let aside = folder()?;
                let writer = begin(*form, &aside.file(), (target, schema))?;
                (aside, writer)
            }
            At::Delta(delta, mode) => {
                let aside = folder()?;
                let scratch = aside.file();
                let mut writer = block_in_place(|| delta.begin(schema, *mode, &scratch))?;
                if let Some(Noted { of, to_us }) = &target.noted {
                    writer.note(of, *to_us);
                }
                (aside, Writer::Delta(Box::new(writer)))
            }
        };
        let (target, columns) = (target.clone(), schema.fields().len());
        Ok(Output { target, writer: Some(writer), aside, bar, rows: 0, columns })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.writer {
            Some(Writer::Parquet(writer)) => writer.write(batch).map_err(Error::from)?,
            Some(Writer::Csv(writer)) => writer.write(batch)?,
            Some(Writer::Delta(writer)) => {
                block_in_place(|| writer.write(batch)).map_err(quern_server::Error::from)?;
            }
            None => {}
        }
        self.rows += batch.num_rows() as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(self.rows);
        }
        Ok(())
    }

    /// Makes it whole. What could not be computed, and what it was made of, stands in the metadata of a Parquet file.
    pub(super) fn finish(mut self, notes: &TableNotes) -> Result<Written> {
        let mut version = None;
        let file = match self.writer.take() {
            Some(Writer::Parquet(mut writer)) => {
                let failed = (!notes.failed.is_empty()).then(|| serde_json::to_string(&notes.failed));
                let pin = notes.pin.as_ref().map(serde_json::to_string);
                for (key, told) in [(FAILED, failed), (TRAINING_SET, pin)] {
                    let told =
                        told.transpose().map_err(|error| Error::internal("saying what was made", error))?;
                    if told.is_some() {
                        writer.append_key_value_metadata(KeyValue::new(key.to_owned(), told));
                    }
                }
                Some(writer.into_inner().map_err(Error::from)?)
            }
            Some(Writer::Csv(writer)) => Some(writer.into_inner()),
            Some(Writer::Delta(writer)) => {
                let made = block_in_place(|| writer.finish()).map_err(quern_server::Error::from)?;
                version = Some(made);
                None
            }
            None => None,
        };
        let unwritten = |error| Error::invalid(format!("{} cannot be written: {error}", self.target));
        file.map_or(Ok(()), |file| file.sync_all()).map_err(unwritten)?;
        match &self.target.at {
            At::File(path, _) => fs::rename(self.aside.file(), path).map_err(unwritten)?,
            At::Object(object, _) => {
                block_in_place(|| Handle::current().block_on(object.send(&self.aside.file())))?;
            }
            At::Delta(..) => {}
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (seconds, out) = (self.target.since.elapsed().as_secs_f64(), self.target.to.clone());
        Ok(Written { rows: self.rows, columns: self.columns, seconds, out, version })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Aside::Beside(path) = self {
            // A whole file has another name by now.
            let _ = fs::remove_file(path);
        }
    }
}

fn begin(form: Form, path: &Path, (target, schema): (&Target, &SchemaRef)) -> Result<Writer> {
    if form == Form::Csv {
        flat(target, schema)?;
    }
    let file = File::create_new(path)
        .map_err(|error| Error::invalid(format!("{target} cannot be written: {error}")))?;
    Ok(match form {
        Form::Parquet => Writer::Parquet(Box::new(parquet(file, schema)?)),
        Form::Csv => Writer::Csv(CsvFile::create(file, schema)?),
    })
}

/// Refuses columns that a cell of a CSV file has no form for.
fn flat(target: &Target, schema: &Schema) -> Result<()> {
    let has_no_form = |dtype: &DataType| {
        dtype.is_nested()
            || matches!(
                dtype,
                DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
            )
    };
    match schema.fields().iter().find(|field| has_no_form(field.data_type())) {
        None => Ok(()),
        Some(field) => Err(Error::invalid(format!(
            "{target}: column `{}` is {}, which is not written as CSV; name a file that ends in .parquet",
            field.name(),
            type_name(field.data_type())
        ))
        .into()),
    }
}

/// What writes a Parquet file. What the schema says besides columns stands in the file's own metadata too, where
/// programs find it that know no Arrow.
fn parquet(file: File, schema: &SchemaRef) -> Result<ArrowWriter<File>> {
    let said = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_key_value_metadata(Some(said.collect()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    // Fractions hardly ever repeat: looking each up in a dictionary costs more than writing it.
    for field in schema.fields().iter().filter(|field| field.data_type().is_floating()) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
    }
    Ok(ArrowWriter::try_new(file, Arc::clone(schema), Some(properties.build())).map_err(Error::from)?)
}
