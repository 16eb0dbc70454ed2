//! How does a table of Delta Lake get a new version? Its files are written first; then one commit names all of them.
//!
//! Who reads meanwhile sees the version before, and what is cut short no version names. The commit is made by the
//! protocol's own library, which knows what a table may have that Quern does not.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use delta_kernel::arrow::json::ReaderBuilder;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::{TryFromArrow, TryIntoArrow};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::schema::StructType;
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::transaction::create_table::{CreateTableTransaction, create_table};
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{KernelError, KernelResult, Snapshot, SnapshotRef};
use feature_defs::{Connection, Loc};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use quern_base::clock::now_us;
use quern_base::random;
use quern_engine::schema::type_name;
use serde_json::json;

use super::engine::LogEngine;
use super::log::Table;
use crate::error::{Error, Result};
use crate::objects::{Location, Objects};
use crate::place::{Place, StoreAt, Unfinished};
use crate::roots::Roots;

/// How large files become, about: as large as Spark's and delta-rs's are.
const FILE_BYTES: usize = 128 << 20;
/// The writer holds a whole row group in memory.
const ROW_GROUP_ROWS: usize = 131_072;
/// What the log says of who wrote.
const ENGINE: &str = concat!("quern/", env!("CARGO_PKG_VERSION"));

/// What becomes of a table that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Create,
    /// Rows are added to it.
    Append,
    /// Its rows make room; earlier versions have them still.
    Overwrite,
}

/// Where a table is.
#[derive(Debug, Clone)]
pub enum TableAt {
    /// In this folder, without links.
    Folder(PathBuf),
    /// Below a URL to which this connection leads.
    Bucket(Location, Box<Connection>),
}

/// A table that gets a new version. What is not committed is removed.
pub struct DeltaWriter {
    table: Arc<Table>,
    engine: LogEngine,
    place: Arc<Place>,
    /// None once it is committed.
    commit: Option<Commit>,
    schema: SchemaRef,
    open: Option<OpenFile>,
    added: Vec<Added>,
    /// Tells its files from those of all others.
    unique: u64,
    /// Last: folders go once their files are gone.
    _made: Made,
}

/// Folders that were made for a table. Those that hold nothing in the end are removed.
struct Made(Vec<PathBuf>);

enum Commit {
    Create(Box<CreateTableTransaction>),
    Update(Box<Transaction>),
}

struct OpenFile {
    unfinished: Unfinished,
    writer: ArrowWriter<File>,
    name: String,
    rows: usize,
}

/// A file that is whole.
struct Added {
    name: String,
    bytes: u64,
    rows: usize,
}

impl DeltaWriter {
    /// Begins a version of the table with rows of `schema`, in types that a table can have. `scratch` is a folder where
    /// a file may lie until it is sent. Waits for disks and stores: call it where blocking is allowed.
    ///
    /// # Errors
    /// Where `mode` does not let it, the table has other columns, or a feature that Quern does not write; where the
    /// folder holds something else.
    pub fn begin(at: &TableAt, schema: &SchemaRef, mode: Mode, scratch: &Path) -> Result<DeltaWriter> {
        let schema = writable(schema)?;
        let Opened { made, place, table, engine, path } = Opened::at(at, scratch)?;
        let told = |error: KernelError| told(&table, &path, &error);
        let commit = match (table.is_one().map_err(told)?, mode) {
            (true, Mode::Create) => return Err(is_there(&path)),
            (true, _) => {
                let snapshot = Snapshot::builder_for(table.url()).build(&engine).map_err(told)?;
                check_fits(&snapshot, &schema, &path)?;
                Commit::Update(Box::new(update(snapshot, mode, &engine).map_err(told)?))
            }
            (false, _) => {
                check_holds_nothing(at, &place, &path)?;
                Commit::Create(Box::new(create(&table, &schema, &engine).map_err(told)?))
            }
        };
        let (commit, open, added, unique) = (Some(commit), None, Vec::new(), random::number());
        Ok(DeltaWriter { table, engine, place, commit, schema, open, added, unique, _made: made })
    }

    /// Up to when a table has the rows of `of`, as [`DeltaWriter::note`] had it remember; none where it does not know,
    /// or there is no table. Waits for disks and stores: call it where blocking is allowed.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn noted(at: &TableAt, of: &str, scratch: &Path) -> Result<Option<i64>> {
        let Opened { table, engine, path, .. } = Opened::at(at, scratch)?;
        let known = || -> KernelResult<Option<i64>> {
            if !table.is_one()? {
                return Ok(None);
            }
            Snapshot::builder_for(table.url()).build(&engine)?.get_app_id_version(&application(of), &engine)
        };
        known().map_err(|error| told(&table, &path, &error))
    }

    /// Has the table remember that it has the rows of `of` before `to_us` by this version. Nothing else reads it: the
    /// log has it as the last version of an application, `quern-export/OF`.
    pub fn note(&mut self, of: &str, to_us: i64) {
        self.commit = self.commit.take().map(|commit| match commit {
            Commit::Create(new) => Commit::Create(Box::new(new.with_transaction_id(application(of), to_us))),
            Commit::Update(update) => {
                Commit::Update(Box::new(update.with_transaction_id(application(of), to_us)))
            }
        });
    }

    /// Adds rows, whose columns are those that it was begun with.
    ///
    /// # Errors
    /// Where a value is beyond its type in the table; those of disk and store.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = rows.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let columns = columns.collect::<std::result::Result<_, _>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin_file()?,
        };
        open.writer.write(&rows)?;
        open.rows += rows.num_rows();
        let is_large = open.writer.bytes_written() + open.writer.in_progress_size() >= FILE_BYTES;
        self.open = Some(open);
        if is_large { self.end_file() } else { Ok(()) }
    }

    /// Makes all of that the table's next version, and gives its number.
    ///
    /// # Errors
    /// `Kind::Unavailable` where another writer came first; those of disk and store.
    pub fn finish(mut self) -> Result<u64> {
        self.end_file()?;
        let path = self.table.path().to_owned();
        let (table, engine) = (Arc::clone(&self.table), &self.engine);
        let told = |error: KernelError| told(&table, &path, &error);
        let commit = self.commit.take().ok_or_else(|| Error::broken("a version that was committed"))?;
        // From here on they may be the table's, whatever is heard of it.
        let added = std::mem::take(&mut self.added);
        let outcome = match commit {
            Commit::Create(mut new) => {
                if !added.is_empty() {
                    new.add_files(metadata(&added, new.add_files_schema()).map_err(told)?);
                }
                outcome(new.commit(engine).map_err(told)?)
            }
            Commit::Update(mut update) => {
                if !added.is_empty() {
                    update.add_files(metadata(&added, update.add_files_schema()).map_err(told)?);
                }
                outcome(update.commit(engine).map_err(told)?)
            }
        };
        match outcome {
            Outcome::Version(version) => Ok(version),
            Outcome::Unknown(error) => Err(told(error)),
            Outcome::Late(version) => {
                self.added = added;
                Err(Error::busy(format!(
                    "the table `{path}` got version {version} from another writer meanwhile; run again"
                )))
            }
        }
    }

    fn begin_file(&self) -> Result<OpenFile> {
        let name = format!("part-{:05}-{:016x}.zstd.parquet", self.added.len(), self.unique);
        let (unfinished, file) = self.place.begin(&name)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&self.schema), Some(properties))?;
        Ok(OpenFile { unfinished, writer, name, rows: 0 })
    }

    fn end_file(&mut self) -> Result<()> {
        let Some(OpenFile { unfinished, writer, name, rows }) = self.open.take() else { return Ok(()) };
        let file = writer.into_inner()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        self.place.finish(&unfinished, bytes)?;
        self.added.push(Added { name, bytes, rows });
        Ok(())
    }
}

impl Drop for DeltaWriter {
    fn drop(&mut self) {
        // No version names them; where that fails too, VACUUM finds them.
        for added in &self.added {
            let _ = self.place.remove(&added.name);
        }
    }
}

/// By what a table remembers whose rows it has.
fn application(of: &str) -> String {
    format!("quern-export/{of}")
}

/// A place that is a table, or is to be one.
struct Opened {
    made: Made,
    place: Arc<Place>,
    table: Arc<Table>,
    engine: LogEngine,
    /// For people.
    path: String,
}

impl Opened {
    fn at(at: &TableAt, scratch: &Path) -> Result<Opened> {
        let (made, store, path, connection) = match at {
            TableAt::Folder(path) => {
                let store = StoreAt::Folder { path: path.clone(), shared: false };
                (Made::folder(path)?, store, path.display().to_string(), None)
            }
            TableAt::Bucket(location, connection) => {
                let store = StoreAt::Bucket(location.clone());
                (Made(Vec::new()), store, location.to_string(), Some(&**connection))
            }
        };
        let place = Arc::new(Place::open(&store, scratch)?);
        let (roots, objects) = (Roots::anywhere(Path::new("/")), Arc::new(Objects::default()));
        let loc = (&Loc::start(path.as_str()), path.as_str(), connection);
        let table = Arc::new(Table::to_write((&roots, &objects), loc, &place)?);
        let engine = LogEngine::new(&table);
        Ok(Opened { made, place, table, engine, path })
    }
}

impl Made {
    /// Makes a folder for a table, and those around it.
    fn folder(path: &Path) -> Result<Made> {
        let wrong = |cause: &dyn Display| Error::invalid(format!("`{}` {cause}", path.display()));
        if path.exists() && !path.is_dir() {
            return Err(wrong(&"is a file, and a table of Delta Lake is a folder; name another one"));
        }
        let log = path.join("_delta_log");
        let made = Made(log.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect());
        fs::create_dir_all(path).map_err(|error| wrong(&format_args!("cannot be made: {error}")))?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // It stays where it holds something.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Refuses a place that is no table and holds something: it is another's.
fn check_holds_nothing(at: &TableAt, place: &Place, path: &str) -> Result<()> {
    let first = match at {
        TableAt::Folder(folder) => {
            let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
            entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).min()
        }
        TableAt::Bucket(..) => place.list()?.into_iter().map(|file| file.path).min(),
    };
    let Some(first) = first else { return Ok(()) };
    let why = match first.starts_with("part-") {
        true => ", of an export that is under way, or was cut short",
        false => "",
    };
    Err(Error::refused(format!(
        "`{path}` is no table of Delta Lake, and holds `{first}`{why}; name a folder that is empty, or not there yet"
    )))
}

fn create(table: &Table, schema: &SchemaRef, engine: &LogEngine) -> KernelResult<CreateTableTransaction> {
    let schema = Arc::new(StructType::try_from_arrow(schema.as_ref())?);
    create_table(table.url(), schema, ENGINE, true).build(engine, Box::new(FileSystemCommitter::new()))
}

fn update(snapshot: SnapshotRef, mode: Mode, engine: &LogEngine) -> KernelResult<Transaction> {
    let named = if mode == Mode::Append { "Append" } else { "Overwrite" };
    let builder = Arc::clone(&snapshot)
        .update_table(UpdateTableOperation::Write, ENGINE, true)
        .with_operation_parameters([("mode", Some(named))]);
    let mut update = builder.build(engine, Box::new(FileSystemCommitter::new()))?;
    if mode == Mode::Overwrite {
        for part in snapshot.scan_builder().build()?.scan_metadata(engine)? {
            update.remove_files(part?.scan_files);
        }
    }
    Ok(update)
}

enum Outcome {
    Version(u64),
    /// Another writer made this version.
    Late(u64),
    Unknown(KernelError),
}

fn outcome<S>(result: CommitResult<S>) -> Outcome {
    match result {
        CommitResult::Committed(committed) => Outcome::Version(committed.commit_version()),
        CommitResult::Conflicted(other) => Outcome::Late(other.conflict_version()),
        CommitResult::Retryable(failed) => Outcome::Unknown(failed.error),
    }
}

/// What a commit says of files.
fn metadata(
    added: &[Added],
    schema: &delta_kernel::schema::SchemaRef,
) -> KernelResult<Box<dyn delta_kernel::EngineData>> {
    let schema: Schema = schema.as_ref().try_into_arrow()?;
    // Of the statistics that a file may have, how many rows there are is all that is told.
    let told = |field: &FieldRef| match field.name().as_str() {
        "stats" => {
            let counts = Fields::from(vec![Field::new("numRecords", DataType::Int64, true)]);
            Arc::new(Field::new("stats", DataType::Struct(counts), true))
        }
        _ => Arc::clone(field),
    };
    let schema = Arc::new(Schema::new(schema.fields().iter().map(told).collect::<Fields>()));
    let now_ms = now_us() / 1_000;
    let line = |Added { name, bytes, rows }: &Added| {
        let stats = json!({"numRecords": rows});
        json!({"path": name, "partitionValues": {}, "size": bytes, "modificationTime": now_ms, "stats": stats})
    };
    let lines: Vec<_> = added.iter().map(line).collect();
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(lines.len()).build_decoder()?;
    decoder.serialize(&lines)?;
    let rows = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema));
    Ok(Box::new(ArrowEngineData::new(rows)))
}

/// Refuses a table that has other columns, or files of another form.
fn check_fits(snapshot: &SnapshotRef, schema: &Schema, path: &str) -> Result<()> {
    let wrong = |cause: String| {
        let help = "write what there is here into another table";
        Error::invalid(format!("the table `{path}` {cause}; {help}"))
    };
    let configuration = snapshot.table_configuration();
    if configuration.column_mapping_mode() != ColumnMappingMode::None {
        return Err(wrong(
            "maps its columns (`delta.columnMapping.mode`), and such tables are only read".to_owned(),
        ));
    }
    if !configuration.metadata().partition_columns().is_empty() {
        return Err(wrong("is cut into partitions, and such tables are only read".to_owned()));
    }
    let theirs: Schema = snapshot.schema().as_ref().try_into_arrow().map_err(|error| {
        Error::invalid(format!("the columns of the table `{path}` cannot be read: {error}"))
    })?;
    for field in theirs.fields() {
        if schema.field_with_name(field.name()).is_err() {
            return Err(wrong(format!("has a column `{}`, which there is not here", field.name())));
        }
    }
    for field in schema.fields() {
        let (name, ours) = (field.name(), type_name(field.data_type()));
        match theirs.field_with_name(name).map(|field| type_name(field.data_type())) {
            Err(_) => return Err(wrong(format!("has no column `{name}`"))),
            Ok(its) if its != ours => {
                return Err(wrong(format!("has a column `{name}` of {its}, and here it is {ours}")));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The same columns in types that a table can have, which say the same values.
fn writable(schema: &SchemaRef) -> Result<SchemaRef> {
    let field = |field: &FieldRef| match lossless(field.data_type()) {
        Some(dtype) => Ok(Arc::new(Field::new(field.name(), dtype, true))),
        None => {
            let (dtype, way_out) = match field.data_type() {
                DataType::Timestamp(_, None) => ("a timestamp without a time zone".to_owned(), "give it one"),
                DataType::Timestamp(..) => {
                    ("a timestamp in nanoseconds".to_owned(), "round it to microseconds")
                }
                other => (type_name(other), "cast it"),
            };
            Err(Error::invalid(format!(
                "column `{}` is {dtype}, which no table of Delta Lake holds; {way_out} first, or write Parquet",
                field.name()
            )))
        }
    };
    let mut named = HashMap::new();
    for name in schema.fields().iter().map(|field| field.name()) {
        if let Some(other) = named.insert(name.to_lowercase(), name) {
            return Err(Error::invalid(format!(
                "columns `{other}` and `{name}` differ in no more than upper and lower case, and to a table of Delta Lake \
                 they are one; leave one out, rename it, or write Parquet"
            )));
        }
    }
    Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Result<Fields>>()?)))
}

/// The type of a table's column that says all values of this one.
fn lossless(dtype: &DataType) -> Option<DataType> {
    use DataType::*;
    let inner =
        |field: &FieldRef| Some(Arc::new(Field::new(field.name(), lossless(field.data_type())?, true)));
    Some(match dtype {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Utf8 | Binary => dtype.clone(),
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        Float16 => Float32,
        LargeUtf8 | Utf8View => Utf8,
        LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        Dictionary(_, value) => lossless(value)?,
        Timestamp(TimeUnit::Nanosecond, _) | Timestamp(_, None) => return None,
        Timestamp(_, Some(_)) => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Decimal32(digits, scale) | Decimal64(digits, scale) | Decimal128(digits, scale) if *scale >= 0 => {
            Decimal128(*digits, *scale)
        }
        List(item) | LargeList(item) | FixedSizeList(item, _) => List(inner(item)?),
        Struct(fields) => Struct(fields.iter().map(inner).collect::<Option<_>>()?),
        _ => return None,
    })
}

fn is_there(path: &str) -> Error {
    Error::refused(format!(
        "there is a table of Delta Lake in `{path}`; add to it with `--mode append`, or let its rows make room with \
         `--mode overwrite` (earlier versions keep them)"
    ))
}

/// What the library says, in our words.
fn told(table: &Table, path: &str, error: &KernelError) -> Error {
    match (table.failed(), error) {
        (Some(missed), _) => missed.into(),
        (None, KernelError::Backtraced { source, .. }) => told(table, path, source),
        (None, KernelError::TableAlreadyExistsAtPath(_)) => is_there(path),
        (None, error) => Error::invalid(format!("the table `{path}` cannot be written: {error}")),
    }
}
