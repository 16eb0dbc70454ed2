//! Which files does a table of Apache Iceberg have, and what of them counts?
//!
//! The table's metadata ([`metadata`]) names a snapshot's manifests ([`manifest`]), which name the files that hold its
//! rows, and those that say which of them were deleted ([`deletes`]). Nothing of it is ever written. The files
//! themselves are read as any others, each through what the table says of it ([`Member`]).
//!
//! Rows count as arrived in the order of the commits that they are of (*data sequence numbers*, which the first version
//! of the format has not), then of the snapshots that added their files, then of the names of these.

mod avro;
mod catalog;
mod deletes;
mod manifest;
mod metadata;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use bytes::Bytes;
use feature_defs::{BatchSource, Cataloged, DefError};
use flate2::read::GzDecoder;
use parking_lot::Mutex;
use quern_base::digest::hexadecimal;
use sha2::{Digest, Sha256};
use url::Url;

use self::catalog::Sessions;
use self::deletes::Deletes;
use self::manifest::{Content, Entry, Manifest, Partition};
use self::metadata::{At, Field, Metadata, State, Wrong};
use super::super::member::{Column, Columns, Member};
use super::table::{At as Where, Folder};
use super::{EveryRow, HistoryFile, Missed, Places, Version, too_many};

const METADATA: &str = "metadata";
const GONE_HELP: &str = "files of snapshots that have expired are removed: read one that the table still has, or bring the file back";
/// More than this no metadata is.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// So many plans are remembered; those of other snapshots and tables are made anew.
const PLANS_MAX: usize = 64;

/// What tables have been found to hold, and catalogs to say. A snapshot never changes, and what its files hold neither.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: Mutex<HashMap<(String, At), Known>>,
    sessions: Sessions,
}

#[derive(Debug, Clone)]
struct Known {
    /// Of the metadata, where their name does not say it.
    version: Option<Version>,
    plan: Arc<Plan>,
}

/// What a table holds at a state.
#[derive(Debug)]
struct Plan {
    columns: Arc<Columns>,
    files: Vec<Planned>,
}

/// A file of a snapshot, and what of it counts.
#[derive(Debug)]
struct Planned {
    url: Url,
    member: Member,
}

/// What a table says of itself.
enum Said {
    /// In this file.
    There(Url),
    /// In words of its catalog, which say this.
    Told(Bytes, Box<Metadata>),
}

/// Every file of the table that `batch` names, in order of arrival.
pub(super) fn named(places: &Places, batch: &BatchSource) -> Result<Vec<HistoryFile>, Missed> {
    let (table, plan) = planned(places, batch)?;
    if plan.files.len() > super::FILES_MAX {
        return Err(too_many(batch).into());
    }
    plan.files.iter().map(|planned| table.file(planned)).collect()
}

/// The columns of the table, which it has where it has no files, too.
pub(super) fn columns(places: &Places, batch: &BatchSource) -> Result<Arc<Columns>, Missed> {
    planned(places, batch).map(|(_, plan)| Arc::clone(&plan.columns))
}

fn planned(places: &Places, batch: &BatchSource) -> Result<(Table, Arc<Plan>), Missed> {
    let (table, said) = match &batch.catalog {
        Some(catalog) => Table::cataloged(places, batch, catalog)?,
        None => Table::named(places, batch)?,
    };
    let at = match (&batch.reference, batch.version) {
        (Some(reference), _) => At::Reference(reference.clone()),
        (None, Some(version)) => At::Snapshot(version),
        (None, None) => At::Latest,
    };
    let plan = places.plans.of(&table, (&said, at))?;
    Ok((table, plan))
}

impl Plans {
    /// What the table holds at a state.
    fn of(&self, table: &Table, (said, at): (&Said, At)) -> Result<Arc<Plan>, Missed> {
        let folder = table.folder.asked();
        let (name, version) = match said {
            Said::There(url) => {
                let file = table.folder.file(url, "name a file that is there, as its catalog says it")?;
                let version = file.identity().map(|(_, version)| version.clone());
                (format!("{folder} {url}"), version)
            }
            // Whoever says it may say anything: what was found is of this text.
            Said::Told(text, _) => (format!("{folder} {}", hexadecimal(&Sha256::digest(text))), None),
        };
        let key = (name, at);
        let known = self.known.lock().get(&key).filter(|known| known.version == version).cloned();
        if let Some(known) = known {
            return Ok(known.plan);
        }
        let plan = Arc::new(table.plan(said, &key.1)?);
        let mut known = self.known.lock();
        if known.len() >= PLANS_MAX {
            known.clear();
        }
        known.insert(key, Known { version, plan: Arc::clone(&plan) });
        Ok(plan)
    }
}

/// The folder of the table of which this is metadata, and what the file is called below it.
fn folder_of(path: &str) -> (&str, Option<&str>) {
    let folder = path.rfind('/').map_or("", |slash| &path[..slash]);
    match folder.strip_suffix(METADATA) {
        Some(above) if above.is_empty() || above.ends_with('/') => {
            let above = above.trim_end_matches('/');
            (if above.is_empty() { "." } else { above }, Some(&path[folder.len() - METADATA.len()..]))
        }
        _ => (
            if folder.is_empty() { "." } else { folder },
            Some(&path[path.rfind('/').map_or(0, |slash| slash + 1)..]),
        ),
    }
}

/// A table of which nothing has been read.
struct Table {
    folder: Folder,
    rows: EveryRow,
}

impl Table {
    /// The one that a path names.
    fn named(places: &Places, batch: &BatchSource) -> Result<(Table, Said), Missed> {
        let plain = batch.path.trim_end_matches('/');
        let (path, file) = match BatchSource::is_metadata(plain) {
            true => folder_of(plain),
            // Whoever names the folder of the log means the table.
            false => (plain.strip_suffix("/metadata").unwrap_or(plain), None),
        };
        let table = Table {
            folder: Folder::open(places.at(batch)?, Where::of(batch, path, METADATA))?,
            rows: places.rows,
        };
        let url = match file {
            Some(file) => table.folder.below_url(file),
            None => table.latest()?,
        };
        Ok((table, Said::There(url)))
    }

    /// The one that a catalog knows.
    fn cataloged(places: &Places, batch: &BatchSource, catalog: &Cataloged) -> Result<(Table, Said), Missed> {
        let asked = (catalog, batch.path.as_str(), &batch.loc);
        let loaded = catalog::load((&places.objects, &places.plans.sessions), asked)?;
        let mistake = |cause: String| DefError::new(&batch.loc, cause);
        let metadata = Metadata::parse(&loaded.metadata)
            .map_err(|(cause, help)| mistake(format!("table `{}`: {cause}", batch.path)).with_help(help))?;
        let location = metadata.location.as_str();
        let path = match location.split_once("://") {
            Some(("file", path)) => path.to_owned(),
            // What Hadoop's clients call it.
            Some(("s3a" | "s3n", rest)) => format!("s3://{rest}"),
            _ => location.strip_prefix("file:").unwrap_or(location).to_owned(),
        };
        let connection = catalog.to(&path);
        if path.contains("://") && connection.is_none() {
            let cause = format!(
                "table `{}` lies at `{path}`, and no connection of its project leads there",
                batch.path
            );
            let help = format!("an administrator says: `{{kind: Connection, name: lake, url: {path:?}}}`");
            return Err(mistake(cause).with_help(help).into());
        }
        let (lent, loc) = (loaded.lent(location), &batch.loc);
        let folder = Where { loc, path: &path, log: METADATA, connection, lent };
        let table = Table { folder: Folder::open(places.at(batch)?, folder)?, rows: places.rows };
        Ok((table, Said::Told(loaded.metadata, Box::new(metadata))))
    }

    /// The metadata of now of a table that keeps its own count, as those of Hadoop's catalog do. Of any other table
    /// only its catalog knows: the file with the highest number may be of a commit that never was.
    fn latest(&self) -> Result<Url, Missed> {
        let hint = self.folder.read(&self.folder.below_url("metadata/version-hint.text"), None)?;
        let hint = hint.map(|hint| String::from_utf8_lossy(&hint).trim().to_owned());
        let found = self.folder.below(&self.folder.below_url("metadata/"))?;
        let names = found.iter().filter_map(|found| {
            let name = found.url.path_segments()?.next_back()?;
            BatchSource::is_metadata(name).then(|| (name.to_owned(), found.url.clone()))
        });
        let names: Vec<(String, Url)> = names.collect();
        // It says a number, or the name of a file, as PyIceberg reads it.
        let is_hinted = |name: &str| {
            hint.as_ref()
                .is_some_and(|hint| name == hint || name.strip_suffix(".metadata.json") == Some(hint))
        };
        if let Some((_, url)) = names.iter().find(|(name, _)| is_hinted(name)) {
            return Ok(url.clone());
        }
        let hint = hint.and_then(|hint| hint.parse::<u64>().ok());
        let counted = |name: &str| name.strip_prefix('v')?.split('.').next()?.parse::<u64>().ok();
        let counted = names.iter().filter_map(|(name, url)| Some((counted(name)?, url)));
        let latest = counted.filter(|(count, _)| hint.is_none_or(|hint| *count >= hint)).max();
        if let Some((_, url)) = latest {
            return Ok(url.clone());
        }
        let path = self.folder.path();
        let Some((last, _)) = names.iter().max() else {
            let cause =
                format!("`{path}` is no table of Iceberg: there is no `.metadata.json` in its `{METADATA}`");
            let help = format!("name the folder in which `{METADATA}` lies, or a file of that");
            return Err(self.folder.mistake(cause).with_help(help).into());
        };
        let cause =
            format!("`{path}` does not say which file of its `{METADATA}` is the latest; its catalog does");
        let help = format!(
            "ask the catalog for the table's metadata location, and name that, as in `path: {path}/{METADATA}/{last}`"
        );
        Err(self.folder.mistake(cause).with_help(help).into())
    }

    /// What the table holds at a state.
    fn plan(&self, said: &Said, at: &At) -> Result<Plan, Missed> {
        let read;
        let metadata = match said {
            Said::Told(_, metadata) => metadata.as_ref(),
            Said::There(url) => {
                read = Metadata::parse(&self.text(url)?).map_err(|wrong| self.wrong(url, wrong))?;
                &read
            }
        };
        let state = metadata.at(at).map_err(|wrong| self.refused(wrong))?;
        let names = metadata.names().map_err(|wrong| self.refused(wrong))?;
        let known = Planning { table: self, metadata, names, made_ms: metadata.made_ms() };
        let columns = state.schema.fields.iter().map(|field| known.column(field, field.name.clone()));
        let columns = Arc::new(Columns(columns.collect::<Result<_, _>>()?));
        let mut entries = Vec::new();
        for manifest in known.manifests(&state)? {
            let (url, bytes) = known.read(&manifest.path)?;
            entries.extend(manifest.entries(&bytes).map_err(|why| self.wrong(&url, (why, String::new())))?);
        }
        let (mut rows, deletes): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.content == Content::Rows);
        rows.sort_by(|a, b| known.order(a).cmp(&known.order(b)));
        let mut paths = HashSet::new();
        if let Some(twice) = rows.iter().find(|entry| !paths.insert(&entry.path)) {
            let cause = format!("its snapshot has the file `{}` twice", twice.path);
            return Err(self.refused((cause, "have its manifests rewritten".to_owned())));
        }
        let deletes = Deletes::read(&known, deletes, &rows)?;
        let schema = &state.schema.fields;
        let files = rows.iter().map(|entry| known.planned(entry, (&columns, schema), &deletes));
        Ok(Plan { files: files.collect::<Result<_, _>>()?, columns })
    }

    fn file(&self, planned: &Planned) -> Result<HistoryFile, Missed> {
        let file = self.folder.file(&planned.url, GONE_HELP)?;
        Ok(HistoryFile { member: Some(Box::new(planned.member.clone())), ..file })
    }

    /// What is in a file of text, which may be compressed.
    fn text(&self, url: &Url) -> Result<Bytes, Missed> {
        let bytes = self.folder.read(url, None)?.ok_or_else(|| self.gone(url))?;
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            return Ok(bytes);
        }
        let mut text = Vec::new();
        let unzipped = GzDecoder::new(&bytes[..]).take(TEXT_BYTES_MAX).read_to_end(&mut text);
        unzipped.map_err(|error| self.wrong(url, (error.to_string(), String::new())))?;
        Ok(text.into())
    }

    fn gone(&self, url: &Url) -> Missed {
        let cause =
            format!("`{}` is gone, though `{}` names it", self.folder.name_of(url), self.folder.path());
        self.folder.mistake(cause).with_help(GONE_HELP).into()
    }

    /// What is wrong with a file of it.
    fn wrong(&self, url: &Url, (cause, help): Wrong) -> Missed {
        let cause = format!("`{}` cannot be read: {cause}", self.folder.name_of(url));
        let mistake = self.folder.mistake(cause);
        (if help.is_empty() { mistake } else { mistake.with_help(help) }).into()
    }

    /// What is wrong with all of it.
    fn refused(&self, (cause, help): Wrong) -> Missed {
        let cause = format!("table `{}` cannot be read: {cause}", self.folder.path());
        self.folder.mistake(cause).with_help(help).into()
    }
}

/// What is known while the files of a snapshot are looked for.
struct Planning<'a> {
    table: &'a Table,
    metadata: &'a Metadata,
    /// What columns are called in files that do not number theirs.
    names: BTreeMap<i64, Vec<String>>,
    /// When snapshots were made.
    made_ms: HashMap<i64, i64>,
}

impl Planning<'_> {
    fn manifests(&self, state: &State<'_>) -> Result<Vec<Manifest>, Missed> {
        let Some(snapshot) = state.snapshot else { return Ok(Vec::new()) };
        match (&snapshot.manifest_list, &snapshot.manifests) {
            (Some(list), _) => {
                let (url, bytes) = self.read(list)?;
                Manifest::listed(&bytes).map_err(|why| self.table.wrong(&url, (why, String::new())))
            }
            (None, Some(paths)) => {
                Ok(paths.iter().map(|path| Manifest::bare(path, snapshot.snapshot_id)).collect())
            }
            (None, None) => {
                let cause = format!("nothing says which files snapshot {} has", snapshot.snapshot_id);
                Err(self.table.refused((cause, "is its metadata whole?".to_owned())))
            }
        }
    }

    /// When rows of a file count as arrived.
    fn order<'e>(&self, entry: &'e Entry) -> (i64, i64, &'e str) {
        let made_ms = entry.snapshot.and_then(|snapshot| self.made_ms.get(&snapshot));
        let made_ms = made_ms.copied().unwrap_or(i64::MIN);
        (entry.sequence, made_ms, &entry.path)
    }

    /// What lies where the table says.
    fn read(&self, path: &str) -> Result<(Url, Bytes), Missed> {
        let url = self.url(path)?;
        let bytes = self.table.folder.read(&url, None)?.ok_or_else(|| self.table.gone(&url))?;
        Ok((url, bytes))
    }

    /// Where that is. A table that was moved is where its definition says, not where it was written.
    fn url(&self, path: &str) -> Result<Url, Missed> {
        let folder = &self.table.folder;
        let location = self.metadata.location.trim_end_matches('/');
        let below = path.strip_prefix(location).and_then(|rest| rest.strip_prefix('/'));
        let url = match below {
            _ if path.split('/').any(|part| part == "..") => None,
            Some(below) => Some(folder.below_url(below)),
            None => folder.elsewhere(path),
        };
        url.ok_or_else(|| folder.outside(&path))
    }

    /// A column of the table, as `name`.
    fn column(&self, field: &Field, name: String) -> Result<Column, Missed> {
        let dtype = field.dtype().map_err(|wrong| self.table.refused(wrong))?;
        let physical = self.names.get(&field.id).cloned().unwrap_or_default();
        Ok(Column { name, physical, id: Some(field.id), dtype })
    }

    /// What columns are, by their numbers, in a file that lacks them.
    fn defaults(&self, fields: &[&Field], partition: &Partition) -> Result<Vec<(i64, ArrayRef)>, Missed> {
        let constants = self.metadata.constants(partition.spec);
        let mut found = Vec::new();
        for field in fields {
            let refused = |wrong: Wrong| self.table.refused(wrong);
            let number = constants.iter().find(|(column, _)| *column == field.id).map(|(_, number)| *number);
            let said = partition.values.iter().find(|(value, _)| Some(*value) == number);
            let value = match said {
                Some((_, value)) => Some(field.said(value).map_err(refused)?),
                None => field.default().map_err(refused)?,
            };
            found.extend(value.map(|value| (field.id, value)));
        }
        Ok(found)
    }

    fn planned(
        &self,
        entry: &Entry,
        (columns, schema): (&Arc<Columns>, &[Field]),
        deletes: &Deletes,
    ) -> Result<Planned, Missed> {
        let url = self.url(&entry.path)?;
        if entry.format != "parquet" {
            let cause = format!("it is of the format {}", entry.format.to_uppercase());
            let help = "tables of Parquet files are read; have it rewritten so (`write.format.default`)";
            return Err(self.table.wrong(&url, (cause, help.to_owned())));
        }
        let fields: Vec<&Field> = schema.iter().collect();
        let defaults = self.defaults(&fields, &entry.partition)?;
        let name = |id: i64| schema.iter().find(|field| field.id == id).map(|field| field.name.clone());
        let defaults = defaults.into_iter().filter_map(|(id, value)| Some((name(id)?, value))).collect();
        let removed = deletes.of(self, entry, &url)?;
        let member = Member {
            columns: Arc::clone(columns),
            constants: Arc::default(),
            defaults: Arc::new(defaults),
            removed: Arc::new(removed),
        };
        Ok(Planned { url, member })
    }
}

/// The values in another type, or why one of them is none of that.
fn exactly(values: &ArrayRef, dtype: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, dtype, &CastOptions { safe: false, ..CastOptions::default() })
}
