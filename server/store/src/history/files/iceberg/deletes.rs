//! Which rows of a table of Iceberg were deleted?
//!
//! By their places in a file, as a bitmap or as rows of a file of places; or by their values (*equality deletes*), for
//! which the rows that came before are read.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use crc::{CRC_32_ISO_HDLC, Crc};
use roaring::RoaringTreemap;
use std::sync::Arc;
use url::Url;

use super::manifest::{Content, Entry, Partition};
use super::metadata::Field;
use super::{Columns, Member, Missed, Planning, exactly};
use crate::history::files::Visit;
use crate::history::member::Lacks;

/// The columns of a file of places, by their numbers.
const PATH: (i64, &str) = (2_147_483_546, "file_path");
const PLACE: (i64, &str) = (2_147_483_545, "pos");
/// What a bitmap begins with, after its length.
const MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];
/// The length before it, and the checksum after it.
const AROUND: usize = 4;

/// What was deleted of a snapshot.
pub(super) struct Deletes {
    /// The bitmap of a file, by its path.
    bitmaps: HashMap<String, Bitmap>,
    /// The places of a file, by its path: each list with what it applies to.
    places: HashMap<String, Vec<(Scope, Vec<u64>)>>,
    values: Vec<Values>,
}

struct Bitmap {
    sequence: i64,
    rows: Vec<u64>,
}

/// What a file of deletes applies to.
#[derive(Clone)]
struct Scope {
    /// Rows that came with this commit, or before.
    sequence: i64,
    /// Files of this partition; none where the file is named.
    partition: Option<Partition>,
}

/// Values of rows that were deleted, in these columns.
struct Values {
    columns: Vec<i64>,
    /// Of files of this partition; none where it is of all.
    partition: Option<Partition>,
    converter: RowConverter,
    /// Before which commit rows of such values must have come.
    before: HashMap<OwnedRow, i64>,
    /// The last of these commits.
    last: i64,
}

impl Deletes {
    /// What `deletes` say of `rows`.
    pub(super) fn read(
        planning: &Planning<'_>,
        deletes: Vec<Entry>,
        rows: &[Entry],
    ) -> Result<Deletes, Missed> {
        let mut found = Deletes { bitmaps: HashMap::new(), places: HashMap::new(), values: Vec::new() };
        let live: BTreeSet<&str> = rows.iter().map(|entry| entry.path.as_str()).collect();
        for entry in &deletes {
            match (entry.content, entry.format.as_str()) {
                (Content::Positions, "puffin") => found.bitmap(planning, entry, &live)?,
                (Content::Positions, "parquet") => found.places(planning, entry, &live)?,
                (Content::Values, "parquet") => found.values(planning, entry)?,
                (_, format) => {
                    let cause = format!("it says what was deleted in the format {}", format.to_uppercase());
                    let help = "have the table's deletes written as Parquet, or its files rewritten";
                    return Err(planning.table.wrong(&planning.url(&entry.path)?, (cause, help.to_owned())));
                }
            }
        }
        Ok(found)
    }

    fn bitmap(
        &mut self,
        planning: &Planning<'_>,
        entry: &Entry,
        live: &BTreeSet<&str>,
    ) -> Result<(), Missed> {
        let Some(of) = &entry.referenced else {
            let why = "nothing says of which file a bitmap in it is".to_owned();
            return Err(planning.table.wrong(&planning.url(&entry.path)?, (why, String::new())));
        };
        if !live.contains(of.as_str()) {
            return Ok(());
        }
        let url = planning.url(&entry.path)?;
        let wrong = |why: &str| planning.table.wrong(&url, (why.to_owned(), String::new()));
        let (start, length) = entry.range.ok_or_else(|| wrong("nothing says where in it a bitmap lies"))?;
        let end = start.checked_add(length).ok_or_else(|| wrong("it is shorter than its table says"))?;
        let bytes =
            planning.table.folder.read(&url, Some(start..end))?.ok_or_else(|| planning.table.gone(&url))?;
        let rows = bitmap(&bytes).map_err(wrong)?;
        if rows.len() != entry.rows {
            let why = format!("a bitmap in it is of {} rows, and by its table of {}", rows.len(), entry.rows);
            return Err(wrong(&why));
        }
        let rows = rows.iter().collect();
        if self.bitmaps.insert(of.clone(), Bitmap { sequence: entry.sequence, rows }).is_some() {
            return Err(planning.table.refused((
                format!("two bitmaps say which rows of `{of}` were deleted"),
                "one of them is from before; is its metadata whole?".to_owned(),
            )));
        }
        Ok(())
    }

    fn places(
        &mut self,
        planning: &Planning<'_>,
        entry: &Entry,
        live: &BTreeSet<&str>,
    ) -> Result<(), Missed> {
        let columns = [(PATH, DataType::Utf8), (PLACE, DataType::Int64)];
        let columns = columns.map(|((id, name), dtype)| super::Column {
            name: id.to_string(),
            physical: vec![name.to_owned()],
            id: Some(id),
            dtype,
        });
        let member = member(columns.into(), Vec::new());
        let mut found: HashMap<String, Vec<u64>> = HashMap::new();
        let odd = "it does not say of each deleted row its file and its place";
        read(planning, (&planning.url(&entry.path)?, &member), Lacks::Nothing, &mut |batch| {
            let paths = batch.column(0).as_string_opt::<i32>().ok_or(odd)?;
            let places = batch.column(1).as_primitive_opt::<Int64Type>().ok_or(odd)?;
            for (path, place) in paths.iter().zip(places) {
                let (path, place) = path.zip(place).ok_or(odd)?;
                let place = u64::try_from(place).map_err(|_| odd)?;
                if live.contains(path) {
                    found.entry(path.to_owned()).or_default().push(place);
                }
            }
            Ok(())
        })?;
        let partition = entry.referenced.is_none().then(|| entry.partition.clone());
        let scope = Scope { sequence: entry.sequence, partition };
        found.retain(|path, _| entry.referenced.as_ref().is_none_or(|referenced| referenced == path));
        for (path, places) in found {
            self.places.entry(path).or_default().push((scope.clone(), places));
        }
        Ok(())
    }

    fn values(&mut self, planning: &Planning<'_>, entry: &Entry) -> Result<(), Missed> {
        let url = planning.url(&entry.path)?;
        let mut columns = entry.equality.clone();
        columns.sort_unstable();
        columns.dedup();
        // One that is of no partition holds for all files.
        let is_whole = planning.metadata.is_whole(entry.partition.spec);
        let partition = (!is_whole).then(|| entry.partition.clone());
        if columns.is_empty() {
            let why = "nothing says by which columns rows were deleted".to_owned();
            return Err(planning.table.wrong(&url, (why, String::new())));
        }
        let is_same = |known: &Values| {
            let is_there = match (&known.partition, &partition) {
                (Some(known), Some(partition)) => known.is(partition),
                (known, partition) => known.is_none() && partition.is_none(),
            };
            known.columns == columns && is_there
        };
        let place = match self.values.iter().position(is_same) {
            Some(place) => place,
            None => {
                let types = columns
                    .iter()
                    .map(|id| field(planning, *id)?.dtype().map_err(|it| planning.table.refused(it)));
                let fields = types.map(|dtype| Ok(SortField::new(dtype?))).collect::<Result<_, Missed>>()?;
                let converter = RowConverter::new(fields);
                let converter = converter
                    .map_err(|error| planning.table.wrong(&url, (error.to_string(), String::new())))?;
                self.values.push(Values {
                    columns: columns.clone(),
                    partition,
                    converter,
                    before: HashMap::new(),
                    last: 0,
                });
                self.values.len() - 1
            }
        };
        let values = &mut self.values[place];
        values.last = entry.sequence.max(values.last);
        let (member, dtypes) = valued(planning, &columns, &entry.partition)?;
        read(planning, (&url, &member), Lacks::Nothing, &mut |batch| {
            for row in values.rows(batch, &dtypes)? {
                let before = values.before.entry(row).or_insert(entry.sequence);
                *before = entry.sequence.max(*before);
            }
            Ok(())
        })
    }

    /// The rows of a file that were deleted, ascending.
    pub(super) fn of(&self, planning: &Planning<'_>, entry: &Entry, url: &Url) -> Result<Vec<u64>, Missed> {
        let mut removed = BTreeSet::new();
        match self.bitmaps.get(&entry.path).filter(|bitmap| entry.sequence <= bitmap.sequence) {
            Some(bitmap) => removed.extend(&bitmap.rows),
            None => {
                let applies = |scope: &Scope| {
                    let is_there = scope.partition.as_ref().is_none_or(|of| of.is(&entry.partition));
                    is_there && entry.sequence <= scope.sequence
                };
                let all = self.places.get(&entry.path).into_iter().flatten();
                removed.extend(all.filter(|(scope, _)| applies(scope)).flat_map(|(_, places)| places));
            }
        }
        let applies = |values: &&Values| {
            let is_there = values.partition.as_ref().is_none_or(|of| of.is(&entry.partition));
            is_there && entry.sequence < values.last
        };
        for values in self.values.iter().filter(applies) {
            let (member, dtypes) = valued(planning, &values.columns, &entry.partition)?;
            let mut row = 0;
            read(planning, (url, &member), Lacks::Some, &mut |batch| {
                for value in values.rows(batch, &dtypes)? {
                    if values.before.get(&value).is_some_and(|before| entry.sequence < *before) {
                        removed.insert(row);
                    }
                    row += 1;
                }
                Ok(())
            })?;
        }
        Ok(removed.into_iter().collect())
    }
}

impl Values {
    /// The rows of a batch, to be compared.
    fn rows(&self, batch: &RecordBatch, dtypes: &[DataType]) -> Result<Vec<OwnedRow>, String> {
        let columns = batch.columns().iter().zip(dtypes);
        let columns = columns.map(|(values, dtype)| Ok(same_nan(&exactly(values, dtype)?)));
        let columns =
            columns.collect::<arrow::error::Result<Vec<ArrayRef>>>().map_err(|error| error.to_string())?;
        let rows = self.converter.convert_columns(&columns).map_err(|error| error.to_string())?;
        Ok(rows.iter().map(|row| row.owned()).collect())
    }
}

fn field<'a>(planning: &Planning<'a>, id: i64) -> Result<&'a Field, Missed> {
    planning.metadata.field(id).ok_or_else(|| {
        let cause = format!("rows were deleted by a column of number {id}, which it does not know");
        planning.table.refused((cause, "is its metadata whole?".to_owned()))
    })
}

/// A file of which these columns are read, called by their numbers, and their types.
fn valued(
    planning: &Planning<'_>,
    ids: &[i64],
    partition: &Partition,
) -> Result<(Member, Vec<DataType>), Missed> {
    let fields = ids.iter().map(|id| field(planning, *id)).collect::<Result<Vec<_>, _>>()?;
    let columns = fields.iter().map(|field| planning.column(field, field.id.to_string()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let dtypes = columns.iter().map(|column| column.dtype.clone()).collect();
    let defaults = planning.defaults(&fields, partition)?;
    let defaults = defaults.into_iter().map(|(id, value)| (id.to_string(), value)).collect();
    Ok((member(columns, defaults), dtypes))
}

fn member(columns: Vec<super::Column>, defaults: Vec<(String, ArrayRef)>) -> Member {
    let (columns, defaults) = (Arc::new(Columns(columns)), Arc::new(defaults));
    Member { columns, constants: Arc::default(), defaults, removed: Arc::default() }
}

/// The same values, of which those that are no number are one.
fn same_nan(values: &ArrayRef) -> ArrayRef {
    let double = |value: f64| if value.is_nan() { f64::NAN } else { value };
    let single = |value: f32| if value.is_nan() { f32::NAN } else { value };
    match values.data_type() {
        DataType::Float64 => Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(double)),
        DataType::Float32 => Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(single)),
        _ => Arc::clone(values),
    }
}

/// Reads all rows of a file, in the columns of `member`.
fn read(
    planning: &Planning<'_>,
    (url, member): (&Url, &Member),
    lacks: Lacks,
    visit: &mut Visit<'_>,
) -> Result<(), Missed> {
    let file = planning.table.folder.file(url, super::GONE_HELP)?;
    let file = super::HistoryFile { member: Some(Box::new(member.clone())), ..file };
    (planning.table.rows)(file, lacks, visit).map_err(|why| planning.table.wrong(url, (why, String::new())))
}

/// The rows that a bitmap has: its length and a magic, the bitmap itself, a checksum.
fn bitmap(bytes: &[u8]) -> Result<RoaringTreemap, &'static str> {
    let short = "a bitmap in it is shorter than its table says";
    let (length, rest) = bytes.split_first_chunk::<AROUND>().ok_or(short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (body, sum) = rest.split_at_checked(length).ok_or(short)?;
    let sum = sum.first_chunk::<AROUND>().ok_or(short)?;
    if Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(body) != u32::from_be_bytes(*sum) {
        return Err("the checksum of a bitmap in it is another one");
    }
    let body = body.strip_prefix(&MAGIC).ok_or("a bitmap in it begins with other bytes than one does")?;
    RoaringTreemap::deserialize_from(body).map_err(|_| "a bitmap in it is malformed")
}
