//! Which rows does a source's history hold, and how are they read?
//!
//! History is files, Parquet, Arrow, CSV or JSON, alone or as a table of Delta Lake or Iceberg, and what was pushed. A
//! source is opened once ([`History::open`]): its files are listed in the order their rows count as arrived, and every
//! footer is read and checked. What is open is then read in units, by as many threads as the caller likes
//! ([`Scan::read`]). Read it in this order: `files` (which files, here, in a bucket or of a table), `hive` (what their
//! folders say), `member` (what their table says) and `lakes` (whether they are a table of their own), `look` and
//! `looks` (what they say), `columns` and `fits` (which columns, of which types), `typed` with `parquet`, `far` (of a
//! file in a bucket), `ipc`, `stored` and `fitted` (values become others), then `text`, `csv` with `cell` and `json`
//! (text becomes values), `constants` (what is known of all rows of a file unread), `sample` (what the first rows say),
//! `pushed` (what came by itself), `queried` (what a database gave) and `made` (what is gone since, and what is new).
//!
//! Whatever a file holds, rows leave here with the canonical types of [`quern_engine::schema`], as far as these can say
//! the values, and with event and created timestamps in microseconds, UTC.

mod amounts;
mod cell;
mod columns;
mod constants;
mod copied;
mod csv;
mod far;
mod files;
mod fits;
mod fitted;
mod format;
mod hive;
pub mod infer;
mod ipc;
mod json;
mod julian;
mod kept;
mod lakes;
mod look;
mod looks;
mod made;
mod member;
mod parquet;
mod partitions;
mod pushed;
mod queried;
mod quoted;
mod sample;
#[cfg(test)]
mod simulated;
mod stored;
#[cfg(test)]
mod tests;
mod text;
mod typed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use feature_defs::{Dialect, Epoch, Format, Source, Stored};
use parking_lot::Mutex;
use quern_base::digest::hexadecimal;
use quern_engine::asof::Address;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::log::{LocalLog, Log, Logged, Position, SharedLog, labels_of};
use crate::objects::{Objects, Reads};
use crate::roots::ProjectRoots;
use crate::segments::Segments;
pub use amounts::Amounts;
pub use constants::Constants;
use copied::Copied;
use csv::CsvFile;
pub use files::delta::write::{DeltaWriter, Mode, TableAt};
use files::{HistoryFile, Places};
pub use fits::Fits;
pub use format::format_of;
use json::JsonFile;
pub use kept::{InStore, Kept};
use look::Look;
use looks::{Looks, Opened};
pub use made::Compared;
pub use partitions::Partitions;
pub use pushed::{Pushed, PushedRows, canonical};
pub use queried::queried;
use typed::TypedFile;

/// The number that stands for the file of all pushed rows: they count as arrived after all files.
pub const PUSHED: u32 = Address::FILES_MAX;
/// The most rows in one batch.
pub const BATCH_ROWS_MAX: usize = 16_384;
/// Who reads out of a bucket waits for most of the time.
const READERS_PER_CORE: usize = 4;
/// How many mistakes one error lists.
const MISTAKES_SHOWN: usize = 20;

/// The files of a repository's sources, and the rows that were pushed to them.
pub struct History {
    places: Places,
    looks: Looks,
    /// What was pushed, as far as this server knows; [`History::refresh`] brings it up to date.
    pub pushed: Pushed,
    /// Where servers share a log, of which `pushed` is a copy.
    copied: Option<Copied>,
    /// The log of this server alone, of which `pushed` has all but what it did not acknowledge.
    local: Option<Arc<LocalLog>>,
    /// Sources of which segments have rows that this log never had: it was brought back from before.
    beyond_log: BTreeSet<String>,
}

impl History {
    /// The history of repositories; paths lead below `roots`.
    pub fn new(roots: impl Into<ProjectRoots>, pushed: Pushed) -> Self {
        let places = Places::new(roots.into(), Objects::default(), parquet::every_row);
        let (looks, beyond_log) = (Looks::default(), BTreeSet::new());
        History { places, looks, pushed, copied: None, local: None, beyond_log }
    }

    /// The same, with copies in `folder` of what was read of buckets, up to so many bytes.
    ///
    /// # Errors
    /// Where the folder cannot be looked through.
    pub fn caching(self, folder: PathBuf, bytes_max: u64) -> Result<Self> {
        Ok(History { places: self.places.with(Objects::caching(folder, bytes_max)?), ..self })
    }

    /// The same, and what was pushed: what lies in `segments`, and what `log` alone has. `data` is the folder where a
    /// log of this server's own would lie.
    pub fn open_with(roots: ProjectRoots, log: &Log, segments: &Arc<Segments>, data: &Path) -> Result<Self> {
        let kept = Arc::new(InStore { segments: Arc::clone(segments), log: log.id().to_owned() });
        let Some(shared) = log.shared() else {
            let local = log.local().map(|local| Arc::clone(&local.log));
            let logged = local.as_ref().map(|log| log.rows()).transpose()?.unwrap_or_default();
            let mut ends = local.as_ref().map(|log| log.in_files()).unwrap_or_default();
            for (source, first, rows) in &logged {
                let end = ends.entry(source.clone()).or_default();
                *end = (*end).max(first + rows.num_rows() as u64);
            }
            let pushed = Pushed::open(kept, logged)?;
            pushed.check_files(&local.as_ref().map(|log| log.in_files()).unwrap_or_default())?;
            let known = |source: &String| ends.get(source).copied().unwrap_or_default();
            let sources = pushed.ends().into_iter().map(|(source, _)| source);
            let beyond_log = sources.filter(|source| pushed.of(source).sealed() > known(source)).collect();
            return Ok(History { local, beyond_log, ..History::new(roots, pushed) });
        };
        if data.join("log").exists() {
            tracing::warn!(
                "rows that were pushed while this server had an online store of its own are no history of the servers that \
                 share one; push them again"
            );
        }
        let pushed = Pushed::open(kept, Vec::new())?;
        Ok(History {
            copied: Some(Copied::of(Arc::<SharedLog>::clone(&shared.log))),
            ..History::new(roots, pushed)
        })
    }

    /// The sources of which segments have rows that the log of this server never had: what was seen with them it does
    /// not know.
    pub fn beyond_log(&self) -> &BTreeSet<String> {
        &self.beyond_log
    }

    /// Adds what other servers took of `source` to the copy here. Nothing is written to disk.
    pub fn refresh(&self, source: &Source) -> Result<()> {
        match &self.copied {
            Some(copied) if source.push => copied.refresh(&self.pushed, Some(&source.name)),
            _ => self.read_on(),
        }
    }

    /// Takes in what this server's own log has, though its disk failed when that was written.
    fn read_on(&self) -> Result<()> {
        let Some(log) = &self.local else { return Ok(()) };
        log.unread(&mut |logged| self.pushed.append_at(&logged.source, logged.first, logged.history))
    }

    /// The same of the labels of `model`.
    pub fn refresh_labels(&self, model: &str) -> Result<()> {
        let copied = self.copied.as_ref();
        copied.map_or_else(|| self.read_on(), |copied| copied.refresh(&self.pushed, Some(&labels_of(model))))
    }

    /// Adds what other servers took to the copy here. A log of this server's own is opened again where its disk failed.
    pub fn refresh_all(&self) -> Result<()> {
        if let Some(log) = &self.local {
            log.heal()?;
        }
        self.copied.as_ref().map_or_else(|| self.read_on(), |copied| copied.refresh(&self.pushed, None))
    }

    /// The same of sources that nobody takes further than `lasts` now.
    pub fn refresh_to(&self, lasts: &BTreeMap<String, Position>) -> Result<()> {
        let copied = self.copied.as_ref();
        copied.map_or_else(|| self.read_on(), |copied| copied.refresh_to(&self.pushed, lasts))
    }

    /// The number of the row of `source` that comes after commit `last`.
    ///
    /// # Errors
    /// `Kind::Unavailable` where there are others by now.
    pub fn end_at(&self, source: &str, last: Position) -> Result<u64> {
        match &self.copied {
            Some(copied) => copied.end_at(&self.pushed, source, last),
            None => Ok(self.pushed.of(source).end()),
        }
    }

    /// Adds rows that this server has just written into the log, after the commits `lasts`.
    pub fn committed(&self, lasts: &BTreeMap<String, Position>, rows: Vec<Logged>) -> Result<()> {
        match &self.copied {
            Some(copied) => copied.committed(&self.pushed, lasts, rows),
            None => {
                rows.into_iter().try_for_each(|logged| self.pushed.append(&logged.source, logged.history))
            }
        }
    }

    /// Writes what was pushed to `source` into segments, with the times in column `time`; gives the number up to which
    /// the log need not keep rows any more. Rows may be pushed meanwhile.
    ///
    /// # Errors
    /// Where store or registry take nothing.
    pub fn seal(&self, source: &str, time: Option<&str>) -> Result<u64> {
        match &self.copied {
            Some(copied) => copied.seal(&self.pushed, source, time),
            None => self.pushed.seal(source, time, (self.pushed.of(source), None)),
        }
    }

    /// How many files a source has now, and how many bytes they are. What cannot be listed is nothing.
    pub fn size(&self, source: &Source) -> (usize, u64) {
        let found = source.batch.as_ref().and_then(|batch| files::find(&self.places, source, batch).ok());
        let mut found = found.unwrap_or_default();
        found.extend(self.pushed.of(&source.name).files.iter().map(|pushed| pushed.file.clone()));
        (found.len(), found.iter().map(HistoryFile::bytes).sum())
    }

    /// Opens every file of a source for reading `schema`'s columns: what [`History::schema`] gave, or some of it; and
    /// what was pushed, as of now, at any server. Reads the footers of Parquet and Arrow; reads CSV and JSON files
    /// once, to count their rows. A source without files has no units.
    ///
    /// # Errors
    ///
    /// `Kind::InvalidArgument` with every file that cannot be read, and every column that a file lacks or holds in
    /// another type.
    pub fn open(&self, source: &Source, schema: &SchemaRef) -> Result<Scan> {
        self.refresh(source)?;
        let mut opening = Opening {
            source,
            schema,
            looks: &self.looks,
            sound: None,
            lacking: schema.fields().iter().map(|field| field.name().clone()).collect(),
            digest: Sha256::new(),
            state: State::default(),
            units: Vec::new(),
            parts: Vec::new(),
            mistakes: Vec::new(),
            reads: None,
        };
        if let Some(batch) = &source.batch {
            let found = files::find(&self.places, source, batch)?;
            opening.reads = found.first().and_then(HistoryFile::reads).cloned();
            for (number, file) in (0u32..).zip(found) {
                file.digest(&mut opening.digest);
                opening.state.count += 1;
                opening.state.bytes += file.bytes();
                match batch.format {
                    format @ (Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg) => {
                        opening.typed(Start { file: number, row: 0 }, TypedFile::unopened(file, format));
                    }
                    Format::Csv => opening.csv(number, file, &batch.dialect),
                    Format::Json => opening.json(number, file),
                }
            }
        }
        opening.lost();
        let pushed = self.pushed.of(&source.name);
        opening.state.pushed_end = pushed.end();
        for pushed in &pushed.files {
            // What is wrong with it is nothing that who asks can mend.
            pushed.file.open()?;
            let file = TypedFile::unopened(pushed.file.clone(), Format::Parquet);
            opening.typed(Start { file: PUSHED, row: pushed.first }, file);
        }
        for segment in &pushed.tail {
            opening.units.push(Unit {
                file: PUSHED,
                first_row: segment.first,
                rows: segment.rows.num_rows() as u64,
                times: pushed::times(&segment.rows, &source.event_timestamp),
                part: opening.parts.len(),
                row_group: 0,
            });
            opening.parts.push(Part::Tail(segment.rows.clone()));
        }
        opening.finish()
    }
}

/// What has been learnt while the parts of a source are opened one after the other.
struct Opening<'a> {
    source: &'a Source,
    schema: &'a SchemaRef,
    looks: &'a Looks,
    /// What the last file said, which lacks nothing: most say the same.
    sound: Option<Arc<Look>>,
    /// The columns that no file has so far.
    lacking: Vec<String>,
    digest: Sha256,
    state: State,
    units: Vec<Unit>,
    parts: Vec<Part>,
    mistakes: Vec<Error>,
    reads: Option<Arc<Mutex<Reads>>>,
}

/// Number of a file, and of its first row.
#[derive(Clone, Copy)]
struct Start {
    file: u32,
    row: u64,
}

impl Opening<'_> {
    fn typed(&mut self, start: Start, file: TypedFile) {
        let opened = self.looks.open(file, self.source);
        let Some(Opened { file, own, look, row_groups }) = self.noted(opened) else { return };
        self.has(file.name(), &look);
        if self.sound.as_ref().is_none_or(|sound| !Arc::ptr_eq(sound, &look)) {
            let is_sound = !self.mistaken(file.name(), &look);
            self.sound = is_sound.then(|| Arc::clone(&look));
        }
        let column = &self.source.event_timestamp;
        let in_folder = look.fields.find(column).is_none().then(|| {
            let time_us = hive::time_us(file.name(), column, self.source.format(column))?;
            Some((time_us, time_us))
        });
        let (mut first_row, mut in_file) = (start.row, 0);
        for (row_group, (rows, times)) in row_groups.iter().copied().enumerate() {
            let times = times.or(in_folder.flatten());
            let stored = in_file..in_file + rows;
            in_file += rows;
            let rows = file.file().member.as_ref().map_or(rows, |member| member.left(stored));
            self.units.push(Unit {
                file: start.file,
                first_row,
                rows,
                times,
                part: self.parts.len(),
                row_group,
            });
            first_row += rows;
        }
        self.parts.push(Part::Typed(file, own));
    }

    fn csv(&mut self, number: u32, file: HistoryFile, dialect: &Dialect) {
        let header = csv::header(&file, dialect, self.schema);
        let Some(header) = self.noted(header) else { return };
        let look = Look::of(header);
        self.has(&file.name, &look);
        if self.mistaken(&file.name, &look) {
            return;
        }
        let Some(file) = self.noted(CsvFile::open(file, dialect)) else { return };
        self.text(number, file.rows(), Part::Csv(file, Arc::new(look)));
    }

    fn json(&mut self, number: u32, file: HistoryFile) {
        let Some(fields) = self.noted(json::keys(&file, self.schema)) else { return };
        // Any further line may have what the first ones lack.
        self.lacking.clear();
        if self.mistaken(&file.name, &Look::of(fields)) {
            return;
        }
        let Some(file) = self.noted(JsonFile::open(file)) else { return };
        self.text(number, file.rows(), Part::Json(file));
    }

    /// A file that is read as a whole.
    fn text(&mut self, file: u32, rows: u64, part: Part) {
        self.units.push(Unit { file, first_row: 0, rows, times: None, part: self.parts.len(), row_group: 0 });
        self.parts.push(part);
    }

    /// Notes which columns there are: the folders of files that say the same may say others.
    fn has(&mut self, file: &str, look: &Look) {
        self.lacking.retain(|name| look.fields.find(name).is_none() && !hive::says(file, name));
    }

    /// Notes the columns that no file has any more: what only some lack is null there.
    fn lost(&mut self) {
        let Some(batch) = self.source.batch.as_ref().filter(|_| self.mistakes.is_empty()) else { return };
        // A table may have no rows left; its columns it has.
        if batch.format.is_table() && self.state.count == 0 {
            return;
        }
        let lost = self.lacking.iter().map(|name| {
            Error::invalid(format!(
                "source `{}`: no file of `{}` has column `{name}` any more; bring it back, or apply definitions that do \
                 without it",
                self.source.name, batch.path
            ))
        });
        self.mistakes.extend(lost);
    }

    /// Notes how a file falls short of the columns that are wanted, and whether it does.
    fn mistaken(&mut self, file: &str, look: &Look) -> bool {
        let found = columns::mismatches(self.source, self.schema, file, look);
        let before = self.mistakes.len();
        let found = found.into_iter().map(|(cause, help)| Error::invalid(format!("{cause}; {help}")));
        self.mistakes.extend(found);
        self.mistakes.len() > before
    }

    fn noted<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.mistakes.push(error)).ok()
    }

    fn finish(mut self) -> Result<Scan> {
        if self.mistakes.is_empty() {
            let formats = Formats::of(self.source);
            let (units, schema, parts) = (self.units, Arc::clone(self.schema), self.parts);
            let times = [&self.source.event_timestamp].into_iter().chain(&self.source.created_timestamp);
            let whole = times.chain(&self.source.event_id).cloned().collect();
            let state = State { files: self.digest.finalize().into(), ..self.state };
            return Ok(Scan { units, state, schema, formats, whole, parts, reads: self.reads });
        }
        let more = self.mistakes.len().saturating_sub(MISTAKES_SHOWN);
        self.mistakes.truncate(MISTAKES_SHOWN);
        let more = if more > 0 { format!("\n… and {more} more") } else { String::new() };
        let all = |text: &dyn Fn(&Error) -> String| {
            self.mistakes.iter().map(text).collect::<Vec<_>>().join("\n") + &more
        };
        Err(Error::invalid(all(&|mistake| mistake.said())).quoting(all(&Error::to_string)))
    }
}

/// Rows that are read together: a row group of a Parquet file, a record batch of an Arrow file, a whole CSV or JSON
/// file, or a segment of the pushed tail.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Number of its file, in order of arrival; [`PUSHED`] where its rows were pushed.
    pub file: u32,
    /// Number of its first row in the file, or among all rows that were pushed.
    pub first_row: u64,
    /// How many rows it has; always fewer than 2^32.
    pub rows: u64,
    /// Bounds of its event timestamps, in microseconds: none lies outside, none need lie on them. Rows without an
    /// event timestamp are not counted. Absent where the file does not say.
    pub times: Option<(i64, i64)>,
    part: usize,
    row_group: usize,
}

impl Unit {
    /// Whether an event timestamp between `from_us` and `to_us`, both included, may be in it.
    pub fn may_hold(&self, from_us: i64, to_us: i64) -> bool {
        self.times.is_none_or(|(first, last)| first <= to_us && from_us <= last)
    }
}

/// Tells one state of a source's history from another: which files there are, each as it is, and how many rows were
/// pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    files: [u8; 32],
    count: u64,
    bytes: u64,
    pushed_end: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { files, count, bytes, pushed_end } = self;
        let digest = hexadecimal(&files[..8]);
        let s = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "{count} file{} of {bytes} bytes (state {digest}), ", s(*count))?;
        write!(f, "{pushed_end} row{} pushed", s(*pushed_end))
    }
}

/// A source whose files are open for reading: by many threads at once, each opening the file anew.
#[derive(Debug)]
pub struct Scan {
    /// Every unit, in order of arrival.
    pub units: Vec<Unit>,
    /// What was found.
    pub state: State,
    schema: SchemaRef,
    formats: Formats,
    /// The columns of which the type must say each value.
    whole: Vec<String>,
    parts: Vec<Part>,
    reads: Option<Arc<Mutex<Reads>>>,
}

/// What is declared of values beside the types of their columns.
#[derive(Debug, Default)]
struct Formats {
    /// What the numbers of a column count, by its name.
    epochs: BTreeMap<String, Epoch>,
    /// What files hold in place of the type of a column, by its name.
    stored: BTreeMap<String, Stored>,
}

impl Formats {
    fn of(source: &Source) -> Self {
        let columns = || source.columns.iter();
        let epochs = columns().filter_map(|column| Some((column.name.clone(), column.format?)));
        let stored = columns().filter_map(|column| Some((column.name.clone(), column.from?)));
        Formats { epochs: epochs.collect(), stored: stored.collect() }
    }

    fn epoch(&self, name: &str) -> Option<Epoch> {
        self.epochs.get(name).copied()
    }
}

/// What units are read from; of a file that says which columns it has itself, these.
#[derive(Debug)]
enum Part {
    Typed(TypedFile, Arc<Look>),
    Csv(CsvFile, Arc<Look>),
    Json(JsonFile),
    Tail(RecordBatch),
}

/// What is read of one unit.
struct Reading<'a> {
    /// The columns asked for, in that order; perhaps none.
    schema: SchemaRef,
    formats: &'a Formats,
    whole: &'a [String],
    /// The rows asked for, ascending; absent: all.
    rows: Option<&'a [u32]>,
}

impl<'a> Reading<'a> {
    /// All rows, in columns that somebody only looks at.
    fn of(schema: SchemaRef, formats: &'a Formats) -> Self {
        Reading { schema, formats, whole: &[], rows: None }
    }
}

impl Scan {
    /// Reads `columns` of one unit, whole or only `rows` (ascending, relative to the unit), as canonical batches of
    /// at most [`BATCH_ROWS_MAX`] rows in row order. A column with values that its type cannot say is as it is stored,
    /// in the batch where they are. `visit` gets the offset of each batch's first row within what
    /// is read; its error ends the reading and is handed on.
    ///
    /// # Errors
    ///
    /// `Kind::InvalidArgument` naming the file where it is malformed, changed since it was opened, or holds a time or
    /// an `event_id` that its column's type cannot say, or a cell of text that is none of its type's.
    pub fn read<E: From<Error>>(
        &self,
        unit: usize,
        columns: &[String],
        rows: Option<&[u32]>,
        visit: &mut dyn FnMut(usize, RecordBatch) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut ended = None;
        let mut visit = |offset: usize, batch: RecordBatch| {
            visit(offset, batch).map_err(|error| {
                ended = Some(error);
                Error::broken("whoever reads has ended it")
            })
        };
        let read = self.read_unit(unit, columns, rows, &mut visit);
        ended.map_or_else(|| read.map_err(E::from), Err)
    }

    fn read_unit(
        &self,
        unit: usize,
        columns: &[String],
        rows: Option<&[u32]>,
        visit: &mut dyn FnMut(usize, RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let unit =
            self.units.get(unit).ok_or_else(|| Error::broken(format!("history has no unit {unit}")))?;
        let (schema, rows) = (self.project(columns)?, ascending(rows, unit.rows)?);
        let reading = self.reading(schema, rows);
        let count = reading.rows.map_or(unit.rows as usize, <[u32]>::len);
        let mut offset = 0;
        let mut pass_on = |batch: RecordBatch| {
            let at = offset;
            offset += batch.num_rows();
            visit(at, batch)
        };
        if count == 0 || columns.is_empty() {
            return counted(count, &reading, &mut pass_on);
        }
        match &self.parts[unit.part] {
            Part::Typed(file, _) => file.read(unit, &reading, &mut pass_on)?,
            Part::Csv(file, _) => file.read(&reading, &mut pass_on)?,
            Part::Json(file) => file.read(&reading, &mut pass_on)?,
            Part::Tail(rows) => pushed::read(rows, &reading, &mut pass_on)?,
        }
        if offset != count {
            let name = self.name(unit);
            return Err(Error::invalid(format!("`{name}` gave {offset} rows of {count}: it is malformed")));
        }
        Ok(())
    }

    fn reading<'a>(&'a self, schema: SchemaRef, rows: Option<&'a [u32]>) -> Reading<'a> {
        Reading { schema, formats: &self.formats, whole: &self.whole, rows }
    }

    /// How many threads read it best: where bytes are waited for, more than there are cores.
    pub fn readers(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        if self.reads.is_some() { cores * READERS_PER_CORE } else { cores }
    }

    /// What has been read of buckets since it was opened, and for that.
    pub fn reads(&self) -> Reads {
        self.reads.as_ref().map(|reads| *reads.lock()).unwrap_or_default()
    }

    /// The columns that it was opened for.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Name of what a unit is read from, for messages: a file's path, relative to the repository where it lies inside.
    pub fn name(&self, unit: &Unit) -> &str {
        match &self.parts[unit.part] {
            Part::Typed(file, _) => file.name(),
            Part::Csv(file, _) => file.name(),
            Part::Json(file) => file.name(),
            Part::Tail(_) => "pushed rows",
        }
    }

    fn project(&self, columns: &[String]) -> Result<SchemaRef> {
        let field = |name: &String| {
            let found = self.schema.fields().find(name).map(|(_, field)| Arc::clone(field));
            found.ok_or_else(|| Error::broken(format!("column `{name}` was not opened for reading")))
        };
        Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Fields>>()?)))
    }
}

/// Batches without columns: only their row counts say something.
fn counted(
    count: usize,
    reading: &Reading<'_>,
    visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let rows = left.min(BATCH_ROWS_MAX);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        visit(RecordBatch::try_new_with_options(Arc::clone(&reading.schema), Vec::new(), &options)?)?;
        left -= rows;
    }
    Ok(())
}

/// Refuses a selection that a decoder would misread.
fn ascending(rows: Option<&[u32]>, count: u64) -> Result<Option<&[u32]>> {
    let selected = rows.unwrap_or_default();
    let is_sorted = selected.is_sorted_by(|a, b| a < b);
    if !is_sorted || selected.last().is_some_and(|last| u64::from(*last) >= count) {
        return Err(Error::broken(format!("rows to read must ascend and lie below {count}")));
    }
    Ok(rows)
}
