//! Which rows are in a segment?

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use quern_engine::in_words;

use super::{Prepared, Segments};
use crate::error::{Error, Result};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 1 << 12;

/// The rows of a segment, batch by batch.
pub struct Reader {
    parquet: ParquetRecordBatchReader,
    path: String,
}

impl Segments {
    /// Reads the rows of a segment, in all columns or in some.
    ///
    /// # Errors
    /// As [`Segments::local`].
    pub fn read(&self, segment: &Prepared, columns: Option<&[&str]>) -> Result<Reader> {
        let parquet = ParquetRecordBatchReaderBuilder::try_new(self.local(segment)?).and_then(|reader| {
            let names = columns.map(|names| names.iter().copied());
            let mask = names.map(|names| ProjectionMask::columns(reader.parquet_schema(), names));
            let reader = mask.into_iter().fold(reader, |reader, mask| reader.with_projection(mask));
            reader.with_batch_size(BATCH_ROWS).build()
        });
        let parquet = parquet.map_err(|error| wrong(&segment.path, in_words(&error)))?;
        Ok(Reader { parquet, path: segment.path.clone() })
    }
}

impl Reader {
    /// The columns that are read.
    pub fn schema(&self) -> SchemaRef {
        self.parquet.schema()
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.parquet.next()?;
        Some(batch.map_err(|error| wrong(&self.path, in_words(&error))))
    }
}

/// Its bytes are those that were written, so whoever wrote them was wrong, or this build is.
fn wrong(path: &str, cause: String) -> Error {
    Error::internal(format!("reading the segment `{path}`"), cause)
}
