//! How is a segment written, and what is its digest?
//!
//! As Parquet, hashed on its way to the disk: what is checked later is what was to be written, and not what a disk made
//! of it.

use std::fs::File;
use std::io::{self, BufWriter};

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use quern_base::digest::{Digested, Hashing};

use crate::error::{Error, Result};

/// Rows of a row group, of which one thread reads one at a time.
const GROUP_ROWS: usize = 1 << 17;
const BUFFER_BYTES: usize = 1 << 18;

/// Takes the rows of a segment.
pub struct Writer {
    file: Option<Hashing<BufWriter<File>>>,
    parquet: Option<ArrowWriter<Hashing<BufWriter<File>>>>,
    rows: u64,
}

/// What was written.
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) file: Digested,
}

impl Writer {
    pub(super) fn new(file: File) -> Writer {
        let file = Hashing::into(BufWriter::with_capacity(BUFFER_BYTES, file));
        Writer { file: Some(file), parquet: None, rows: 0 }
    }

    /// Writes more rows; all of a segment have the same columns.
    ///
    /// # Errors
    /// Where the disk takes nothing, and where the columns are others than before.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if let Some(file) = self.file.take() {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                .set_max_row_group_row_count(Some(GROUP_ROWS));
            self.parquet = Some(ArrowWriter::try_new(file, rows.schema(), Some(properties.build()))?);
        }
        let parquet =
            self.parquet.as_mut().ok_or_else(|| Error::broken("a segment that is written already"))?;
        parquet.write(rows)?;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Brings it onto the disk.
    pub(super) fn finish(self) -> Result<Written> {
        let parquet = self.parquet.ok_or_else(|| Error::broken("a segment without rows"))?;
        let (file, digested) = parquet.into_inner()?.finish();
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(Written { rows: self.rows, file: digested })
    }
}
