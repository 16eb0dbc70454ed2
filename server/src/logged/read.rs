//! What was logged of a model's predictions, between these times of arrival?

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, NaiveDate};

use quern_store::segments::{Family, Segment, Wanted};

use super::PredictionLog;
use super::rows::{PRINCIPAL, model_of};
use crate::error::{Error, Result};

/// Times of arrival (µs): from the first on, before the second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Between {
    /// Whatever is older is left out.
    pub from_us: Option<i64>,
    /// Whatever is as new is left out.
    pub to_us: Option<i64>,
}

impl Between {
    fn holds(&self, at_us: i64) -> bool {
        self.from_us.is_none_or(|from_us| from_us <= at_us) && self.to_us.is_none_or(|to_us| at_us < to_us)
    }

    /// Whether something of that day may be meant.
    fn may_hold(&self, day: NaiveDate) -> bool {
        let of = |at_us: i64| DateTime::from_timestamp_micros(at_us).map(|time| time.date_naive());
        self.from_us.and_then(of).is_none_or(|from| from <= day)
            && self.to_us.and_then(of).is_none_or(|to| day <= to)
    }
}

/// A file of logged predictions.
#[derive(Debug)]
pub struct LoggedFile {
    /// What all files with the same columns are called.
    pub folder: String,
    lies: Lies,
}

#[derive(Debug)]
enum Lies {
    InStore(Segment),
    /// In the data folder, where an earlier build has put it.
    Before(PathBuf),
}

/// Predictions of a file, batch by batch.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

impl PredictionLog {
    /// The models of which anything was logged.
    pub fn models(&self) -> Result<Vec<String>> {
        let (files, folder) = &self.before;
        let files = files.list("".as_ref())?;
        let before = files.iter().filter_map(|path| {
            Some(path.strip_prefix(folder).ok()?.components().next()?.as_os_str().to_str()?.to_owned())
        });
        let mut models: Vec<String> = before.collect();
        let sets = self.segments.sets(Family::Predictions, "")?;
        models.extend(sets.iter().map(|set| model_of(set).to_owned()));
        models.sort();
        models.dedup();
        Ok(models)
    }

    /// The files that may hold predictions of `model` between these times, of whichever server that has this store; of
    /// one folder after the other.
    pub fn files(&self, model: &str, between: Between) -> Result<Vec<LoggedFile>> {
        let before = self.before.0.list(model.as_ref())?.into_iter().filter_map(|path| {
            let day = path.parent()?.file_name()?.to_str()?.strip_prefix("date=")?;
            let day = day.parse::<NaiveDate>().ok()?;
            let folder = path.parent()?.parent()?.file_name()?.to_str()?.to_owned();
            between.may_hold(day).then_some(LoggedFile { folder, lies: Lies::Before(path) })
        });
        let mut files: Vec<LoggedFile> = before.collect();
        let name_begins = format!("{model}/");
        let Between { from_us, to_us } = between;
        let wanted =
            Wanted { family: Family::Predictions, log: "", name_begins: &name_begins, from_us, to_us };
        files.extend(self.segments.find(wanted)?.into_iter().map(|segment| {
            let folder = segment.set.name.trim_start_matches(&name_begins).to_owned();
            LoggedFile { folder, lies: Lies::InStore(segment) }
        }));
        files.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(files)
    }

    /// Shows `see` the id of each request in `file`, once or more often, and who asked, where that is known.
    pub(crate) fn requests(&self, file: &LoggedFile, mut see: impl FnMut(&str, Option<&str>)) -> Result<()> {
        for rows in self.batches(file, Some(&["request_id", PRINCIPAL]))? {
            let rows = rows?;
            let ids = column(&rows, "request_id")?.as_string::<i32>();
            let asked_by = rows.column_by_name(PRINCIPAL).and_then(|names| names.as_string_opt::<i32>());
            for row in (0..rows.num_rows()).filter(|row| ids.is_valid(*row)) {
                let asked_by = asked_by.filter(|names| names.is_valid(row)).map(|names| names.value(row));
                see(ids.value(row), asked_by);
            }
        }
        Ok(())
    }

    /// The predictions in `file` between these times.
    pub fn read(&self, file: &LoggedFile, between: Between) -> Result<Rows> {
        let some = self.batches(file, None)?.map(move |rows| {
            let rows = rows?;
            let arrived = rows
                .column_by_name("arrived_at")
                .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
                .ok_or_else(|| Error::invalid("a file of predictions says not when they were asked for"))?;
            let keep: BooleanArray =
                arrived.values().iter().map(|at_us| Some(between.holds(*at_us))).collect();
            match keep.true_count() < rows.num_rows() {
                true => Ok(filter_record_batch(&rows, &keep)?),
                false => Ok(rows),
            }
        });
        Ok(Box::new(some.filter(|rows| rows.as_ref().map_or(true, |rows| rows.num_rows() > 0))))
    }

    fn batches(&self, file: &LoggedFile, columns: Option<&[&str]>) -> Result<Rows> {
        match &file.lies {
            Lies::InStore(segment) => {
                let rows = self.segments.read(segment, columns)?;
                Ok(Box::new(rows.map(|rows| Ok(rows?))))
            }
            Lies::Before(path) => {
                let files = &self.before.0;
                let rows = match columns {
                    // Whoever wrote it knew one column of these.
                    Some([column, ..]) => files.read_column(path, column)?,
                    _ => files.read(path)?,
                };
                Ok(Box::new(rows.into_iter().map(Ok)))
            }
        }
    }
}

/// A column of logged rows, by its name.
pub(crate) fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Arc<dyn arrow::array::Array>> {
    rows.column_by_name(name)
        .ok_or_else(|| Error::invalid(format!("a file of predictions has no column `{name}`")))
}
