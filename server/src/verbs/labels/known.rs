//! Which label counts of each of some rows of requests?
//!
//! The last one that is by who asked for it, or by who may label for all. So the newest labels are looked through
//! first, until all are found that were asked for: what is held are these, however many labels there are. Times leave
//! none out: a label may be older than its prediction, which is in a file only later, and servers have clocks of their
//! own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{FieldRef, Int64Type, SchemaRef};
use quern_engine::size::row_bytes;
use quern_store::segments::{Segment, Segments};

use super::columns::{PRINCIPAL, Principals, REQUEST_ID, ROW, counts_for, required, widened};
use crate::error::Result;

/// The labels of one model, as of one moment.
pub struct Known {
    pub(super) segments: Arc<Segments>,
    /// In the order of the log.
    pub(super) files: Vec<Segment>,
    /// What comes after.
    pub(super) tail: Vec<RecordBatch>,
    pub(super) columns: SchemaRef,
}

/// Labels that follow one another.
#[derive(Clone, Copy)]
enum Part<'a> {
    File(&'a Segment),
    Tail(&'a RecordBatch),
}

type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>;

impl Known {
    /// The columns that labels bring besides request and row.
    pub fn columns(&self) -> Vec<FieldRef> {
        let is_theirs = |field: &&FieldRef| ![REQUEST_ID, ROW, PRINCIPAL].contains(&field.name().as_str());
        self.columns.fields().iter().filter(is_theirs).cloned().collect()
    }

    /// Finds the labels of these rows, which have a request and a place in it. None where they are more than
    /// `bytes_max`, unless it is one row alone.
    ///
    /// # Errors
    /// Where a segment cannot be read.
    pub fn find(&self, asked: &[RecordBatch], bytes_max: usize) -> Result<Option<Found>> {
        let is_one = asked.iter().map(RecordBatch::num_rows).sum::<usize>() <= 1;
        let asked = Asked::of(asked)?;
        // Where the label of each place is among those that are found.
        let mut found: Vec<Option<u32>> = vec![None; asked.count];
        let (mut rows, mut count, mut bytes, mut open) = (Vec::new(), 0, 0, asked.count);
        let parts = self.files.iter().map(Part::File).chain(self.tail.iter().map(Part::Tail));
        for part in parts.collect::<Vec<_>>().into_iter().rev() {
            if open == 0 {
                break;
            }
            let here = self.last_of(part, &asked, &found)?;
            open -= here.len();
            // One label may be that of the same row as two have asked for it.
            let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            here.into_iter().for_each(|(place, row)| wanted.entry(row).or_default().push(place));
            for labels in self.rows_of(part, &wanted)? {
                let labels = labels?;
                bytes += row_bytes(&labels);
                if bytes > bytes_max && !is_one {
                    return Ok(None);
                }
                rows.push(labels);
            }
            for places in wanted.values() {
                places.iter().for_each(|place| found[*place] = Some(count));
                count += 1;
            }
        }
        let rows = concat_batches(&self.columns, &rows)?;
        Ok(Some(Found { rows, bytes, asked, found }))
    }

    /// Where in a part the last label lies of each place that is not found yet.
    fn last_of(&self, part: Part<'_>, asked: &Asked, found: &[Option<u32>]) -> Result<HashMap<usize, usize>> {
        let (mut last, mut first, mut key) = (HashMap::new(), 0, Vec::new());
        for labels in self.batches(part, Some(&[REQUEST_ID, ROW, PRINCIPAL]))? {
            let labels = labels?;
            let keys = Keys::of(&labels)?;
            for row in 0..labels.num_rows() {
                keys.write(row, &mut key);
                for (asked_by, place) in asked.of_row(&key) {
                    let counts = counts_for(keys.principals.get(row), asked_by.as_deref());
                    if counts && found[*place].is_none() {
                        last.insert(*place, first + row);
                    }
                }
            }
            first += labels.num_rows();
        }
        Ok(last)
    }

    /// The labels of a part at these places, in its order.
    fn rows_of<'a>(&'a self, part: Part<'a>, wanted: &'a BTreeMap<usize, Vec<usize>>) -> Result<Batches<'a>> {
        if wanted.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let mut first = 0;
        let some = self.batches(part, None)?.map(move |labels| {
            let labels = labels?;
            let start = first;
            first += labels.num_rows();
            let rows = wanted.range(start..first).map(|(row, _)| (row - start) as u32);
            let taken = take_record_batch(&labels, &UInt32Array::from_iter_values(rows))?;
            widened(&taken, &self.columns)
        });
        Ok(Box::new(some.filter(|labels| labels.as_ref().map_or(true, |labels| labels.num_rows() > 0))))
    }

    fn batches<'a>(&'a self, part: Part<'a>, columns: Option<&[&str]>) -> Result<Batches<'a>> {
        Ok(match part {
            Part::File(file) => Box::new(self.segments.read(file, columns)?.map(|rows| Ok(rows?))),
            Part::Tail(rows) => Box::new(std::iter::once(Ok(rows.clone()))),
        })
    }
}

/// The rows of requests that were asked about. Each has a place for everybody who asked for it: two may call their
/// requests the same.
struct Asked {
    rows: HashMap<Vec<u8>, Vec<AskedBy>>,
    count: usize,
}

/// Who asked, and their place.
type AskedBy = (Option<Box<str>>, usize);

impl Asked {
    fn of(all: &[RecordBatch]) -> Result<Asked> {
        let (mut asked, mut key) = (Asked { rows: HashMap::new(), count: 0 }, Vec::new());
        for rows in all {
            let keys = Keys::of(rows)?;
            for row in 0..rows.num_rows() {
                keys.write(row, &mut key);
                let by = keys.principals.get(row);
                if asked.place(&key, by).is_none() {
                    let places = asked.rows.entry(key.clone()).or_default();
                    places.push((by.map(Box::from), asked.count));
                    asked.count += 1;
                }
            }
        }
        Ok(asked)
    }

    fn of_row(&self, key: &[u8]) -> &[AskedBy] {
        self.rows.get(key).map_or(&[], Vec::as_slice)
    }

    fn place(&self, key: &[u8], asked_by: Option<&str>) -> Option<usize> {
        let mut places = self.of_row(key).iter();
        places.find(|(by, _)| by.as_deref() == asked_by).map(|(_, place)| *place)
    }
}

/// Request and row of each of some rows, and who labelled it or asked for it.
struct Keys<'a> {
    ids: &'a arrow::array::StringArray,
    rows: &'a arrow::array::Int64Array,
    principals: Principals<'a>,
}

impl Keys<'_> {
    fn of(rows: &RecordBatch) -> Result<Keys<'_>> {
        Ok(Keys {
            ids: required(rows, REQUEST_ID)?.as_string(),
            rows: required(rows, ROW)?.as_primitive::<Int64Type>(),
            principals: Principals::of(rows),
        })
    }

    /// Writes the key of a row: no two rows of requests have the same.
    fn write(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend(self.rows.value(row).to_be_bytes());
        key.extend(self.ids.value(row).as_bytes());
    }
}

/// The labels of some rows.
pub struct Found {
    rows: RecordBatch,
    /// What they hold.
    pub bytes: usize,
    asked: Asked,
    found: Vec<Option<u32>>,
}

impl Found {
    /// Where the label of each of `rows`, which were asked about, is among these.
    pub fn of(&self, rows: &RecordBatch) -> Result<UInt32Array> {
        let (keys, mut key) = (Keys::of(rows)?, Vec::new());
        let place = |row| {
            keys.write(row, &mut key);
            self.found[self.asked.place(&key, keys.principals.get(row))?]
        };
        Ok((0..rows.num_rows()).map(place).collect())
    }

    /// The values of the column called `name` at these places.
    pub fn values(&self, name: &str, places: &UInt32Array) -> Result<Option<ArrayRef>> {
        let column = self.rows.column_by_name(name);
        Ok(column.map(|column| arrow::compute::take(column, places, None)).transpose()?)
    }
}
