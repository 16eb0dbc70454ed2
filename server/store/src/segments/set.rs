//! What is a segment, what does it hold, and where does it lie?

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::DateTime;

use crate::error::{Error, Result};

/// What every file of a segment ends with.
pub(super) const EXTENSION: &str = "parquet";
/// The longest path of a segment; the longest name of a definition is far shorter.
const PATH_BYTES_MAX: usize = 900;

/// What kind of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Rows that were pushed to a source.
    Pushed,
    /// What came true of predictions.
    Labels,
    /// What models said.
    Predictions,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 3] = [Family::Pushed, Family::Labels, Family::Predictions];

    /// Its name in paths, in the registry and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Family::Pushed => "pushed",
            Family::Labels => "labels",
            Family::Predictions => "predictions",
        }
    }

    pub(super) fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Whether a segment of these rows may have so many. Labels that do not count any more leave their numbers behind.
    pub(super) fn may_be(self, range: &Range, rows: u64) -> bool {
        let numbers = range.end.saturating_sub(range.first);
        match self {
            Family::Pushed => rows == numbers,
            Family::Labels => rows <= numbers,
            Family::Predictions => true,
        }
    }

    /// Whether a log has numbered the rows, so that each of them lies in one segment only.
    pub(super) fn is_numbered(self) -> bool {
        !matches!(self, Family::Predictions)
    }
}

/// Rows that belong together: what reads one of its segments reads them all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// What kind of rows.
    pub family: Family,
    /// The log that numbered them; empty where none did.
    pub log: String,
    /// Whose rows, as `events`, or `delay/delay_v1-1f3a5c7e`.
    pub name: String,
}

impl Set {
    /// The rows of `name`, as `log` has numbered them.
    pub fn of(family: Family, log: &str, name: &str) -> Set {
        Set { family, log: log.to_owned(), name: name.to_owned() }
    }

    /// Where a segment of it lies that holds `range`; `unique` tells it from any other.
    pub(super) fn path(&self, range: &Range, unique: u64) -> Result<String> {
        let day = match self.family {
            Family::Predictions => format!("date={}", day(range.from_us)),
            Family::Pushed | Family::Labels => String::new(),
        };
        let file = format!("{:020}-{:020}-{unique:016x}.{EXTENSION}", range.first, range.end);
        let folders = [self.family.name(), &self.log, &self.name, &day];
        let parts = folders.into_iter().flat_map(|part| part.split('/')).filter(|part| !part.is_empty());
        let path = parts.chain([file.as_str()]).collect::<Vec<_>>().join("/");
        let is_plain = |part: &str| !matches!(part, "." | "..") && !part.contains(['\\', '\0']);
        if path.len() > PATH_BYTES_MAX || !path.split('/').all(is_plain) {
            return Err(Error::broken(format!("`{path}` cannot be the path of a segment")));
        }
        Ok(path)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}`", self.family.name(), self.name)
    }
}

/// The day of a time (µs), UTC, as `2013-01-31`.
pub fn day(at_us: i64) -> String {
    DateTime::from_timestamp_micros(at_us).unwrap_or_default().format("%Y-%m-%d").to_string()
}

/// Which rows a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Number of the first one; 0 where nobody numbers them.
    pub first: u64,
    /// And of the one after the last.
    pub end: u64,
    /// The least time of a row (µs).
    pub from_us: i64,
    /// And the greatest.
    pub to_us: i64,
}

impl Range {
    /// Rows that nobody numbers, with their times in `column`.
    ///
    /// # Errors
    /// Where there is no row, or no such column of times.
    pub fn of_times(rows: &[&RecordBatch], column: &str) -> Result<Range> {
        let mut range = Range { first: 0, end: 0, from_us: i64::MAX, to_us: i64::MIN };
        for rows in rows {
            let times = rows.column_by_name(column).and_then(|column| {
                arrow::array::AsArray::as_primitive_opt::<TimestampMicrosecondType>(column)
            });
            let times = times.ok_or_else(|| Error::broken(format!("rows have no times in `{column}`")))?;
            range.end += rows.num_rows() as u64;
            range.from_us = range.from_us.min(arrow::compute::min(times).unwrap_or(i64::MAX));
            range.to_us = range.to_us.max(arrow::compute::max(times).unwrap_or(i64::MIN));
        }
        match range.from_us <= range.to_us {
            true => Ok(range),
            false => Err(Error::broken(format!("rows have no time in `{column}`"))),
        }
    }
}

/// A file in the store that nobody names yet: what holds it is durable, and what makes it count is
/// [`Segments::commit`](super::Segments::commit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Whose rows.
    pub set: Set,
    /// Where it lies in the store.
    pub path: String,
    /// Which rows.
    pub range: Range,
    /// How many.
    pub rows: u64,
    /// How large the file is.
    pub bytes: u64,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
}

/// A segment that counts: its file is in the store, and the registry names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What is in the file.
    pub file: Prepared,
    /// When it was named, by the registry's clock (µs).
    pub created_us: i64,
}

impl std::ops::Deref for Segment {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        &self.file
    }
}
