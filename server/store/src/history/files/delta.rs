//! Which files does a table of Delta Lake have, and what of them counts?
//!
//! The table's log is read by the protocol's own library, which is told how to list and read files ([`engine`], over
//! [`log`]), and writes commits alone, of what is written here ([`write`]). The files themselves are read as any
//! others, each through what the log says of it ([`Member`]).
//!
//! Rows count as arrived in the order of the commits that added their files first: one of which rows are deleted is
//! added again, and stays where it was. Files of which no commit is left come before these, by the time at which they
//! were written, then by name.

mod engine;
mod log;
pub(crate) mod write;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Field as ArrowField, Int32Type, Int64Type};
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::{PartitionValuesOptions, StatsOptions};
use delta_kernel::table_features::{ColumnMappingMode, TableFeature};
use delta_kernel::{Engine, KernelError, KernelResult, Snapshot, SnapshotRef};
use feature_defs::{BatchSource, DefError, Loc};

use self::engine::LogEngine;
use self::log::Table;
use super::super::member::{Column, Columns, Member};
use super::{HistoryFile, Missed, Places, too_many};
use crate::error::Error;

/// Every file of the table that `batch` names, in order of arrival.
pub(super) fn named(places: &Places, batch: &BatchSource) -> Result<Vec<HistoryFile>, Missed> {
    let table = Arc::new(Table::open(places.at(batch)?, batch)?);
    let engine = LogEngine::new(&table);
    let added = snapshot(&table, &engine, batch).and_then(|snapshot| files(&snapshot, &engine, &table));
    let added = added.map_err(|error| table.failed().unwrap_or_else(|| told(&error, batch)))?;
    if added.len() > super::FILES_MAX {
        return Err(too_many(batch).into());
    }
    added.into_iter().map(|added| table.file(&added.path, added.member)).collect()
}

/// The columns of the table, which it has where it has no files, too.
pub(super) fn columns(places: &Places, batch: &BatchSource) -> Result<Arc<Columns>, Missed> {
    let table = Arc::new(Table::open(places.at(batch)?, batch)?);
    let engine = LogEngine::new(&table);
    let columns = snapshot(&table, &engine, batch).and_then(|snapshot| columns_of(&snapshot));
    columns.map(Arc::new).map_err(|error| table.failed().unwrap_or_else(|| told(&error, batch)))
}

fn snapshot(table: &Table, engine: &LogEngine, batch: &BatchSource) -> KernelResult<SnapshotRef> {
    let builder = Snapshot::builder_for(table.url());
    let builder = match batch.version {
        Some(version) => builder.at_version(version),
        None => builder,
    };
    let snapshot = builder.build(engine)?;
    let features = snapshot.table_configuration().protocol().reader_features().unwrap_or_default();
    if features.contains(&TableFeature::CatalogManaged) {
        return Err(KernelError::unsupported("its commits are kept by a catalog (`catalogManaged`)"));
    }
    Ok(snapshot)
}

/// A file that counts.
struct Added {
    path: String,
    /// The commit that added it first, where that is known.
    version: Option<i64>,
    modified_ms: i64,
    member: Member,
}

fn files(snapshot: &SnapshotRef, engine: &LogEngine, table: &Table) -> KernelResult<Vec<Added>> {
    let columns = Arc::new(columns_of(snapshot)?);
    let scan = Arc::clone(snapshot)
        .scan_builder()
        .with_stats(StatsOptions::none())
        .with_partition_values(PartitionValuesOptions::with_struct())
        .without_row_transforms()
        .build()?;
    let mut all = Vec::new();
    for part in scan.scan_metadata(engine)? {
        let (data, chosen) = part?.scan_files.into_parts();
        let batch: RecordBatch = (*ArrowEngineData::try_from_engine_data(data)?).into();
        for row in (0..batch.num_rows()).filter(|row| chosen.get(*row).copied().unwrap_or(true)) {
            all.push(added((&batch, row), &columns, (engine, snapshot))?);
        }
    }
    if all.iter().any(|added| added.version.is_none()) {
        let first = table.first_added(snapshot.version())?;
        for added in all.iter_mut().filter(|added| added.version.is_none()) {
            added.version = first.get(&added.path).copied();
        }
    }
    all.sort_by(|a, b| (a.version, a.modified_ms, &a.path).cmp(&(b.version, b.modified_ms, &b.path)));
    Ok(all)
}

fn columns_of(snapshot: &SnapshotRef) -> KernelResult<Columns> {
    let mode = snapshot.table_configuration().column_mapping_mode();
    let schema = snapshot.schema();
    let columns = schema.fields().map(|field| {
        let arrow: ArrowField = field.try_into_arrow()?;
        Ok(Column {
            name: field.name().to_owned(),
            physical: vec![field.physical_name(mode).to_owned()],
            id: field.column_mapping_id().filter(|_| mode == ColumnMappingMode::Id),
            dtype: arrow.data_type().clone(),
        })
    });
    columns.collect::<KernelResult<_>>().map(Columns)
}

/// What a row of the scan says of a file.
fn added(
    (batch, row): (&RecordBatch, usize),
    columns: &Arc<Columns>,
    (engine, snapshot): (&LogEngine, &SnapshotRef),
) -> KernelResult<Added> {
    let lacking = |name: &str| KernelError::generic(format!("the scan says no `{name}`"));
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacking(name));
    let path = column("path")?.as_string::<i32>().value(row).to_owned();
    let modified_ms = column("modificationTime")?.as_primitive::<Int64Type>().value(row);
    let constants = column("fileConstantValues")?.as_struct();
    let versions = constants.column_by_name("defaultRowCommitVersion");
    let version = versions.map(|versions| versions.as_primitive::<Int64Type>());
    let version = version.and_then(|versions| versions.is_valid(row).then(|| versions.value(row)));
    let values = batch.column_by_name("partitionValues_parsed").and_then(|values| values.as_struct_opt());
    let constant = |column: &Column| -> Option<(String, ArrayRef)> {
        Some((column.name.clone(), values?.column_by_name(column.physical.first()?)?.slice(row, 1)))
    };
    let constants = columns.0.iter().filter_map(constant).collect();
    let removed = match vector(column("deletionVector")?.as_struct(), row)? {
        Some(vector) => vector.row_indexes(engine.storage_handler(), snapshot.table_root())?,
        None => Vec::new(),
    };
    let member = Member {
        columns: Arc::clone(columns),
        constants: Arc::new(constants),
        defaults: Arc::default(),
        removed: Arc::new(removed),
    };
    Ok(Added { path, version, modified_ms, member })
}

/// Where it stands which rows of a file were deleted.
fn vector(vectors: &StructArray, row: usize) -> KernelResult<Option<DeletionVectorDescriptor>> {
    if vectors.is_null(row) {
        return Ok(None);
    }
    let lacking = |name: &str| KernelError::generic(format!("a deletion vector says no `{name}`"));
    let field = |name: &str| vectors.column_by_name(name).ok_or_else(|| lacking(name));
    let storage = field("storageType")?.as_string::<i32>();
    if storage.is_null(row) {
        return Ok(None);
    }
    let offset = field("offset")?.as_primitive::<Int32Type>();
    DeletionVectorDescriptor::try_new(
        storage.value(row).parse()?,
        field("pathOrInlineDv")?.as_string::<i32>().value(row),
        offset.is_valid(row).then(|| offset.value(row)),
        field("sizeInBytes")?.as_primitive::<Int32Type>().value(row),
        field("cardinality")?.as_primitive::<Int64Type>().value(row),
    )
    .map(Some)
}

/// What the library says, in our words.
fn told(error: &KernelError, batch: &BatchSource) -> Missed {
    let path = &batch.path;
    let mistake = |cause: String, help: &str| mistaken(&batch.loc, cause, help);
    let version = batch.version.unwrap_or_default();
    let has = |latest: u64| format!("`{path}` has no version {version}: its latest is {latest}");
    let missed = match error {
        KernelError::Backtraced { source, .. } => return told(source, batch),
        KernelError::EmptyLog | KernelError::FileNotFound(_) if batch.version.is_none() => mistake(
            format!("`{path}` is no table of Delta Lake: there is no log in its `_delta_log`"),
            "name the folder in which `_delta_log` lies",
        ),
        KernelError::MissingVersion(first) if batch.version.is_none() => mistake(
            format!("the log of `{path}` lacks its version {first}, and goes on after it"),
            "bring the commit back, or name a `version` before it",
        ),
        KernelError::MissingVersion(first) if (1..=version).contains(first) => {
            mistake(has(first - 1), "name one of those before, or leave `version` out for the latest")
        }
        KernelError::EmptyLog | KernelError::FileNotFound(_) | KernelError::MissingVersion(_) => mistake(
            format!("`{path}` has no version {version} that can be read: {error}"),
            "name one that is still in its log, or leave `version` out for the latest",
        ),
        KernelError::Unsupported(why) => mistake(
            format!("`{path}` cannot be read: {why}"),
            "a feature of the table is not known here; write what it holds into another one, or into Parquet files",
        ),
        error => mistake(
            format!("the log of `{path}` cannot be read: {error}"),
            "is it whole? what is missing in it no reader can make up",
        ),
    };
    missed.into()
}

fn mistaken(loc: &Loc, cause: String, help: &str) -> DefError {
    DefError::new(loc, cause).with_help(help)
}

/// In which commit each file was added first, by what the log calls it.
type FirstAdded = HashMap<String, i64>;

impl From<Missed> for KernelError {
    fn from(missed: Missed) -> KernelError {
        KernelError::generic(Error::from(missed))
    }
}
