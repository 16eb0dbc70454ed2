//! Which rows does a file hold that says the types of its columns?

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feature_defs::{Epoch, Format};

use super::files::HistoryFile;
use super::ipc::IpcFile;
use super::look::Look;
use super::parquet::{ParquetFile, RowGroup};
use super::{Formats, Reading, Unit};
use crate::error::Result;

/// Such a file, of either format.
#[derive(Debug)]
pub(super) enum TypedFile {
    Parquet(ParquetFile),
    Arrow(IpcFile),
}

impl TypedFile {
    /// A file of which nothing is read before somebody asks; Parquet unless it is Arrow's.
    pub(super) fn unopened(file: HistoryFile, format: Format) -> Self {
        match format {
            Format::Arrow => TypedFile::Arrow(IpcFile::unopened(file)),
            _ => TypedFile::Parquet(ParquetFile::unopened(file)),
        }
    }

    pub(super) fn file(&self) -> &HistoryFile {
        match self {
            TypedFile::Parquet(file) => &file.file,
            TypedFile::Arrow(file) => &file.file,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.file().name
    }

    /// What the file says of its columns.
    pub(super) fn look(&self) -> Result<Look> {
        match self {
            TypedFile::Parquet(file) => file.look(),
            TypedFile::Arrow(file) => file.look(),
        }
    }

    /// What is read together, in file order; `format` says what the event timestamps count, where they are numbers.
    pub(super) fn row_groups(&self, event_timestamp: &str, format: Option<Epoch>) -> Result<Vec<RowGroup>> {
        match self {
            TypedFile::Parquet(file) => file.row_groups(event_timestamp, format),
            TypedFile::Arrow(file) => Ok(file.batches()?.into_iter().map(|rows| (rows, None)).collect()),
        }
    }

    /// Reads no more than the first rows, in the columns of a schema.
    pub(super) fn first_rows(
        &self,
        first: (usize, SchemaRef),
        formats: &Formats,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        match self {
            TypedFile::Parquet(file) => file.first_rows(first, formats, visit),
            TypedFile::Arrow(file) => file.first_rows(first, formats, visit),
        }
    }

    /// Reads one row group or record batch; batches come in row order.
    pub(super) fn read(
        &self,
        unit: &Unit,
        reading: &Reading<'_>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        match self {
            TypedFile::Parquet(file) => file.read(unit, reading, visit),
            TypedFile::Arrow(file) => file.read(unit, reading, visit),
        }
    }
}
