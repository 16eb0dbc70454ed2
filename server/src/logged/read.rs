//! What was logged of a model's predictions, between these times of arrival?

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, NaiveDate};

use super::PredictionLog;
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
    /// The folder of all files with the same columns.
    pub folder: String,
    path: PathBuf,
}

impl PredictionLog {
    /// The models of which anything was logged.
    pub fn models(&self) -> Result<Vec<String>> {
        let files = self.files.list("".as_ref())?;
        let model = |path: &PathBuf| {
            Some(path.strip_prefix(&self.folder).ok()?.components().next()?.as_os_str().to_str()?.to_owned())
        };
        let mut models: Vec<String> = files.iter().filter_map(model).collect();
        models.dedup();
        Ok(models)
    }

    /// The files that may hold predictions of `model` between these times; of one folder after the other.
    pub fn files(&self, model: &str, between: Between) -> Result<Vec<LoggedFile>> {
        let files = self.files.list(model.as_ref())?;
        let file = |path: PathBuf| {
            let day = path.parent()?.file_name()?.to_str()?.strip_prefix("date=")?;
            let day = day.parse::<NaiveDate>().ok()?;
            let folder = path.parent()?.parent()?.file_name()?.to_str()?.to_owned();
            between.may_hold(day).then_some(LoggedFile { folder, path })
        };
        Ok(files.into_iter().filter_map(file).collect())
    }

    /// Shows `see` the id of each request in `file`, once or more often.
    pub(crate) fn request_ids(&self, file: &LoggedFile, mut see: impl FnMut(&str)) -> Result<()> {
        for rows in self.files.read_column(&file.path, "request_id")? {
            column(&rows, "request_id")?.as_string::<i32>().iter().flatten().for_each(&mut see);
        }
        Ok(())
    }

    /// The predictions in `file` between these times.
    pub fn read(&self, file: &LoggedFile, between: Between) -> Result<Vec<RecordBatch>> {
        let mut batches = self.files.read(&file.path)?;
        for rows in &mut batches {
            let arrived = rows
                .column_by_name("arrived_at")
                .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
                .ok_or_else(|| {
                    let name = file.path.file_name().unwrap_or_default().display();
                    Error::invalid(format!("`{name}` is no file of predictions"))
                })?;
            let keep: BooleanArray =
                arrived.values().iter().map(|at_us| Some(between.holds(*at_us))).collect();
            if keep.true_count() < rows.num_rows() {
                *rows = filter_record_batch(rows, &keep)?;
            }
        }
        batches.retain(|rows| rows.num_rows() > 0);
        Ok(batches)
    }
}

/// A column of logged rows, by its name.
pub(crate) fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Arc<dyn arrow::array::Array>> {
    rows.column_by_name(name)
        .ok_or_else(|| Error::invalid(format!("a file of predictions has no column `{name}`")))
}
