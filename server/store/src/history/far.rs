//! How is a Parquet file read that lies elsewhere, part by part?

use std::ops::Range;
use std::slice;

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::{Buf, Bytes};
use quern_engine::in_words;

use super::files::{Content, HistoryFile};
use crate::error::{Error, Result};
use crate::objects::Fetched;

/// What is asked for first: the end of the file, which holds most footers whole.
const FOOTER_BYTES: u64 = 64 << 10;

/// What its footer says.
pub(super) fn metadata(file: &HistoryFile) -> Result<ParquetMetaData> {
    let bytes = file.bytes();
    let mut wanted = FOOTER_BYTES;
    loop {
        let range = bytes.saturating_sub(wanted)..bytes;
        let Content::Fetched(fetched, _) = file.content_at(slice::from_ref(&range))? else {
            return Err(Error::broken(format!("`{}` is read part by part, and is here", file.name)));
        };
        let end = fetched.parts.first().map(|(_, end)| end.clone()).unwrap_or_default();
        let mut reader = ParquetMetaDataReader::new();
        let parsed = file.guarded(|| {
            match reader.try_parse_sized(&end, bytes) {
                Ok(()) => reader.finish().map(Ok),
                Err(ParquetError::NeedMoreData(more)) if more as u64 > wanted && wanted < bytes => {
                    Ok(Err(more as u64))
                }
                Err(error) => Err(error),
            }
            .map_err(|error| in_words(&error))
        })?;
        match parsed {
            Ok(metadata) => return Ok(metadata),
            Err(more) => wanted = more,
        }
    }
}

/// Where the columns of a row group lie.
pub(super) fn ranges(metadata: &ArrowReaderMetadata, row_group: usize, roots: &[usize]) -> Vec<Range<u64>> {
    let Some(group) = metadata.metadata().row_groups().get(row_group) else { return Vec::new() };
    let schema = metadata.parquet_schema();
    let columns = group.columns().iter().enumerate();
    let wanted = columns.filter(|(leaf, _)| roots.contains(&schema.get_column_root_idx(*leaf)));
    let ranges = wanted.map(|(_, column)| {
        let (start, bytes) = column.byte_range();
        start..start + bytes
    });
    ranges.filter(|range| !range.is_empty()).collect()
}

/// What was fetched of a file, for a decoder that looks for it where it lies in the file.
pub(super) struct Chunks {
    pub(super) fetched: Fetched,
    /// How many the file has.
    pub(super) bytes: u64,
}

impl Chunks {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let parts = &self.fetched.parts;
        let found = parts.iter().find(|(first, part)| (*first..first + part.len() as u64).contains(&start));
        let lacking =
            || ParquetError::General(format!("it names a page at byte {start}, where none of its column is"));
        found.map(|(first, part)| part.slice((start - first) as usize..)).ok_or_else(lacking)
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Chunks {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.from(start).map(Buf::reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => {
                Err(ParquetError::EOF(format!("{length} bytes at {start} are more than its column has")))
            }
        }
    }
}
