//! What does a Parquet file say about itself, and how are rows of one row group read?

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowSelection,
};
use ::parquet::arrow::{ARROW_SCHEMA_META_KEY, ProjectionMask};
use ::parquet::basic::{Compression, Type as PhysicalType};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::reader::ChunkReader;
use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::{Field as WrittenField, Type as WrittenType, root_as_message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use feature_defs::Epoch;
use quern_engine::in_words;

use super::files::{Content, HistoryFile, Visit};
use super::julian::{self, Julian};
use super::look::Look;
use super::member::{Column, Found, Lacks, repeated};
use super::{BATCH_ROWS_MAX, Formats, Reading, Unit, far, fitted, hive};
use crate::error::{Error, Result};

/// A selection with shorter runs than this, on average, is cheaper as one bit for each row.
const MASK_RUN_ROWS: usize = 32;
const DAY_US: i64 = 86_400_000_000;

/// Rows of a row group, and bounds of its event timestamps in microseconds where they are known.
pub(super) type RowGroup = (u64, Option<(i64, i64)>);

/// A Parquet file, of which the footer is read when somebody needs it, once.
#[derive(Debug)]
pub(super) struct ParquetFile {
    pub(super) file: HistoryFile,
    footer: OnceLock<Footer>,
}

#[derive(Debug)]
struct Footer {
    metadata: ArrowReaderMetadata,
    /// The columns whose values had a type in memory that Arrow does not know.
    unknown: Vec<String>,
    /// Which days of the Julian calendar it has, where any.
    julian: Julian,
}

impl ParquetFile {
    /// A file whose footer is read when it is needed.
    pub(super) fn unopened(file: HistoryFile) -> Self {
        ParquetFile { file, footer: OnceLock::new() }
    }

    fn footer(&self) -> Result<&Footer> {
        if let Some(footer) = self.footer.get() {
            return Ok(footer);
        }
        let file = &self.file;
        if file.bytes() == 0 {
            return Err(file.unreadable(&"it is empty; was it not written to its end?"));
        }
        let metadata = if file.is_far() { far::metadata(file)? } else { self.near_metadata()? };
        let footer = file.guarded(|| footer(metadata).map_err(|error| in_words(&error)))?;
        Ok(self.footer.get_or_init(|| footer))
    }

    fn near_metadata(&self) -> Result<ParquetMetaData> {
        let handle = self.file.open()?;
        self.file.guarded(|| {
            ParquetMetaDataReader::new().parse_and_finish(&handle).map_err(|error| in_words(&error))
        })
    }

    /// What the file says of its columns.
    pub(super) fn look(&self) -> Result<Look> {
        let footer = self.footer()?;
        let is_known = |field: &&Arc<Field>| !footer.unknown.contains(field.name());
        let fields = footer.metadata.schema().fields().iter().filter(is_known).cloned().collect();
        let has_others = !footer.unknown.is_empty();
        Ok(Look { fields, foreign_codecs: footer.foreign_codecs(), has_others })
    }

    /// The row groups in file order; `format` says what the event timestamps count, where they are numbers.
    pub(super) fn row_groups(&self, event_timestamp: &str, format: Option<Epoch>) -> Result<Vec<RowGroup>> {
        let metadata = &self.footer()?.metadata;
        let within = self.file.member.as_ref().map(|member| member.within(metadata.schema().fields()));
        let column = match &within {
            Some(within) => within.physical(event_timestamp),
            None => Some(event_timestamp),
        };
        let groups = metadata.metadata().row_groups();
        let times = match column {
            Some(column) => self
                .file
                .guarded(|| time_bounds(metadata, column, format).map_err(|error| in_words(&error)))?,
            None => vec![None; groups.len()],
        };
        groups
            .iter()
            .zip(times)
            .map(|(group, times)| match u32::try_from(group.num_rows()) {
                Ok(rows) => Ok((u64::from(rows), times)),
                Err(_) => Err(self.file.unreadable(&format!("a row group of {} rows", group.num_rows()))),
            })
            .collect()
    }

    /// Reads no more than the first rows, in the columns of a schema.
    pub(super) fn first_rows(
        &self,
        (count, schema): (usize, SchemaRef),
        formats: &Formats,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let groups = self.footer()?.metadata.metadata().row_groups().iter().enumerate();
        let metadata = &self.footer()?.metadata;
        let left = |row_group: usize| {
            let rows = self.rows_of(metadata, row_group);
            self.file.member.as_ref().map_or(rows.end - rows.start, |member| member.left(rows))
        };
        let groups = groups.map(|(row_group, _)| (row_group, left(row_group)));
        let Some((row_group, rows)) = groups.into_iter().find(|(_, rows)| *rows > 0) else {
            return Ok(());
        };
        if schema.fields().is_empty() {
            return Ok(());
        }
        let unit = Unit { file: 0, first_row: 0, rows, times: None, part: 0, row_group };
        let first: Vec<u32> = (0..rows.min(count as u64) as u32).collect();
        self.read(&unit, &Reading { rows: Some(&first), ..Reading::of(schema, formats) }, visit)
    }

    /// The rows of a row group, by their places in the file.
    fn rows_of(&self, metadata: &ArrowReaderMetadata, row_group: usize) -> Range<u64> {
        let before: u64 = (0..row_group).map(|group| rows_in(metadata, group)).sum();
        before..before + rows_in(metadata, row_group)
    }

    /// Reads one row group; batches come in row order.
    pub(super) fn read(
        &self,
        unit: &Unit,
        reading: &Reading<'_>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        // A column that a source did not have yet when its rows were written is in no file, or in the names of folders.
        let footer = self.footer()?;
        let metadata = &footer.metadata;
        let found = metadata.schema().fields();
        let member = self.file.member.as_deref();
        let within = member.map(|member| member.within(found));
        let place = |field: &Arc<Field>| match &within {
            Some(within) => within.find(field.name()),
            None => found.find(field.name()).map_or(Found::Nowhere, |(root, _)| Found::There(root)),
        };
        let places: Vec<Found<'_>> = reading.schema.fields().iter().map(place).collect();
        let roots =
            places.iter().filter_map(|place| if let Found::There(root) = place { Some(*root) } else { None });
        let mut distinct: Vec<usize> = roots.collect();
        distinct.sort_unstable();
        distinct.dedup();
        let kept = member.and_then(|member| member.kept(self.rows_of(metadata, unit.row_group)));
        let rows = match (kept, reading.rows) {
            (Some(kept), Some(rows)) => {
                Some(Cow::Owned(rows.iter().map(|row| kept[*row as usize]).collect()))
            }
            (Some(kept), None) => Some(Cow::Owned(kept)),
            (None, rows) => rows.map(Cow::Borrowed),
        };
        let ranges = || Ok::<_, String>(far::ranges(metadata, unit.row_group, &distinct));
        let ranges = if self.file.is_far() { self.file.guarded(ranges)? } else { Vec::new() };
        let content = self.file.content_at(&ranges)?;
        let mut reader = self.file.guarded(|| {
            let what = (unit.row_group, distinct.as_slice());
            match content {
                Content::Whole(file) => reader(metadata, file, what, rows.as_deref()),
                Content::Fetched(fetched, bytes) => {
                    reader(metadata, far::Chunks { fetched, bytes }, what, rows.as_deref())
                }
            }
            .map_err(|error| in_words(&error))
        })?;
        while let Some(batch) =
            self.file.guarded(|| reader.next().transpose().map_err(|error| damage(&error)))?
        {
            let mut columns = Vec::with_capacity(places.len());
            for (place, field) in places.iter().zip(reading.schema.fields()) {
                columns.push(match place {
                    Found::There(root) => {
                        let column = batch.column(distinct.partition_point(|other| other < root));
                        if footer.julian.has_some(metadata, *root, column)? {
                            return Err(self.file.unreadable(&julian::why(field.name())));
                        }
                        fitted::column(&self.file, column, field, reading)?
                    }
                    Found::Constant(value) => {
                        fitted::column(&self.file, &repeated(value, batch.num_rows())?, field, reading)?
                    }
                    Found::Nowhere if member.is_some() => new_null_array(field.data_type(), batch.num_rows()),
                    Found::Nowhere => hive::column(&self.file.name, field, reading, batch.num_rows())?,
                });
            }
            visit(fitted::batch(&reading.schema, columns)?)?;
        }
        Ok(())
    }
}

/// Reads all rows of a file of a table, in that one's columns.
///
/// # Errors
/// What is wrong with it.
pub(super) fn every_row(
    file: HistoryFile,
    lacks: Lacks,
    visit: &mut Visit<'_>,
) -> std::result::Result<(), String> {
    let said = |error: Error| error.said();
    let file = ParquetFile::unopened(file);
    let Some(member) = &file.file.member else { return Err("it is of no table".to_owned()) };
    let look = file.look().map_err(said)?;
    member.look(&look)?;
    let within = member.within(&look.fields);
    let columns = &member.columns.0;
    let is_there = |column: &Column| matches!(within.find(&column.name), Found::There(_));
    if lacks == Lacks::Nothing && !columns.iter().all(is_there) {
        return Err("it says what was deleted, and lacks a column of that".to_owned());
    }
    let fields = columns.iter().map(|column| Field::new(&column.name, column.dtype.clone(), true));
    let (schema, formats) = (Arc::new(Schema::new(fields.collect::<Fields>())), Formats::default());
    let groups = file.row_groups("", None).map_err(said)?;
    for (row_group, (rows, times)) in groups.into_iter().enumerate() {
        let unit = Unit { file: 0, first_row: 0, rows, times, part: 0, row_group };
        let mut failed = None;
        let read = file.read(&unit, &Reading::of(Arc::clone(&schema), &formats), &mut |batch| {
            if failed.is_none() {
                failed = visit(&batch).err();
            }
            Ok(())
        });
        read.map_err(said)?;
        failed.map_or(Ok(()), Err)?;
    }
    Ok(())
}

fn rows_in(metadata: &ArrowReaderMetadata, row_group: usize) -> u64 {
    metadata.metadata().row_groups().get(row_group).map_or(0, |group| group.num_rows().unsigned_abs())
}

fn reader<R: ChunkReader + 'static>(
    metadata: &ArrowReaderMetadata,
    handle: R,
    (row_group, roots): (usize, &[usize]),
    rows: Option<&[u32]>,
) -> ParquetResult<ParquetRecordBatchReader> {
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots.iter().copied());
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata.clone())
        .with_row_groups(vec![row_group])
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS_MAX);
    match rows {
        Some(rows) => {
            builder.with_row_selection(selection(rows, rows_in(metadata, row_group) as usize)).build()
        }
        None => builder.build(),
    }
}

impl Footer {
    fn foreign_codecs(&self) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for column in self.metadata.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let Some(root) = column.column_path().parts().first() else { continue };
            if column.compression() == Compression::LZO && !found.iter().any(|(name, _)| name == root) {
                found.push((root.clone(), "LZO"));
            }
        }
        found
    }
}

/// The footer, and the Arrow types to decode into. Strings come as plain strings even where they were written from
/// dictionaries or views, and Spark's 96-bit times as microseconds, which unlike nanoseconds hold every year.
fn footer(metadata: ParquetMetaData) -> ParquetResult<Footer> {
    let metadata = Arc::new(metadata);
    let (unknown, julian) = (unknown(&metadata), Julian::of(metadata.file_metadata()));
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(!unknown.is_empty());
    let written = ArrowReaderMetadata::try_new(metadata, options)?;
    let roots = written.parquet_schema().root_schema().get_fields();
    let plain: Fields = written
        .schema()
        .fields()
        .iter()
        .zip(roots)
        .map(|(field, root)| {
            let is_int96 = root.is_primitive() && root.get_physical_type() == PhysicalType::INT96;
            field.as_ref().clone().with_data_type(plain(field.data_type(), is_int96))
        })
        .collect();
    if plain == *written.schema().fields() {
        return Ok(Footer { metadata: written, unknown, julian });
    }
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(plain)));
    let plain = ArrowReaderMetadata::try_new(Arc::clone(written.metadata()), options);
    Ok(Footer { metadata: plain.unwrap_or(written), unknown, julian })
}

/// The columns of which the writer says that they had a type in memory that Arrow does not know, such as Polars'
/// integers of 128 bits. Parquet's own types must then do for the others: a column that nobody asks for must not keep
/// them from being read.
fn unknown(metadata: &ParquetMetaData) -> Vec<String> {
    let written = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let mut written = written.filter(|entry| entry.key == ARROW_SCHEMA_META_KEY);
    let bytes =
        written.find_map(|entry| BASE64_STANDARD.decode(entry.value.as_ref()?).ok()).unwrap_or_default();
    // A message may begin with a mark and its length.
    let message = bytes.strip_prefix(&[0xff; 4]).and_then(|rest| rest.get(4..)).unwrap_or(&bytes);
    let message = root_as_message(message).ok();
    let fields = message.and_then(|message| message.header_as_schema()?.fields());
    let unknown = fields.iter().flatten().filter(|field| !is_known(*field));
    unknown.filter_map(|field| field.name().map(str::to_owned)).collect()
}

fn is_known(field: WrittenField<'_>) -> bool {
    let known = match field.type_type() {
        WrittenType::Int => field.type_as_int().is_some_and(|int| matches!(int.bitWidth(), 8 | 16 | 32 | 64)),
        WrittenType::Decimal => {
            let decimal = field.type_as_decimal();
            decimal.is_some_and(|decimal| matches!(decimal.bitWidth(), 32 | 64 | 128 | 256))
        }
        dtype => dtype.0 <= WrittenType::LargeListView.0,
    };
    known && field.children().is_none_or(|children| children.iter().all(is_known))
}

/// What the decoder says in few words.
fn damage(error: &ArrowError) -> String {
    let said = in_words(error);
    match said.contains("CRC checksum mismatch") {
        true => "its bytes are not those that were written: the checksum of a page does not match. Bring the file back \
                 from where it came"
            .to_owned(),
        false => said,
    }
}

fn plain(dtype: &DataType, is_int96: bool) -> DataType {
    match dtype {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain(value, is_int96),
        DataType::Timestamp(_, zone) if is_int96 => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }
}

/// Bounds of a time column for each row group, from its statistics. A page index is not read: pages that hold no
/// selected row are skipped undecoded without it.
fn time_bounds(
    metadata: &ArrowReaderMetadata,
    column: &str,
    format: Option<Epoch>,
) -> ParquetResult<Vec<Option<(i64, i64)>>> {
    let groups = metadata.metadata().row_groups();
    let unknown = vec![None; groups.len()];
    let Some((_, field)) = metadata.schema().fields().find(column) else { return Ok(unknown) };
    let (unit_us, divisor) = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => (1_000_000, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => (1_000, 1),
        DataType::Timestamp(TimeUnit::Microsecond, _) => (1, 1),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => (1, 1_000),
        DataType::Date32 => (DAY_US, 1),
        DataType::Int32 | DataType::Int64 => match format {
            Some(Epoch::Seconds) => (1_000_000, 1),
            Some(Epoch::Millis) => (1_000, 1),
            Some(Epoch::Micros) => (1, 1),
            Some(Epoch::Nanos) => (1, 1_000),
            None => return Ok(unknown),
        },
        _ => return Ok(unknown),
    };
    let statistics = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema())?;
    let whole = |array: ArrayRef| -> ParquetResult<ArrayRef> {
        // Days are 32 bits wide; Arrow casts them to 64 by way of their number.
        let array =
            if *field.data_type() == DataType::Date32 { cast(&array, &DataType::Int32)? } else { array };
        Ok(cast(&array, &DataType::Int64)?)
    };
    let firsts = whole(statistics.row_group_mins(groups)?)?;
    let lasts = whole(statistics.row_group_maxes(groups)?)?;
    let (firsts, lasts) = (firsts.as_primitive::<Int64Type>(), lasts.as_primitive::<Int64Type>());
    let bounds = |i: usize| {
        if firsts.is_null(i) || lasts.is_null(i) || firsts.value(i) > lasts.value(i) {
            return None;
        }
        // Part of a microsecond is dropped from a value read, towards the past; the bounds go the same way.
        let us = |value: i64| value.checked_mul(unit_us).map(|value| value.div_euclid(divisor));
        Some((us(firsts.value(i))?, us(lasts.value(i))?))
    };
    Ok((0..groups.len()).map(bounds).collect())
}

/// Which rows the decoder keeps; `rows` ascend and lie below `count`.
fn selection(rows: &[u32], count: usize) -> RowSelection {
    let runs = rows.chunk_by(|a, b| a + 1 == *b);
    if runs.clone().count() * MASK_RUN_ROWS * 2 < count {
        let ranges = runs.map(|run| run[0] as usize..run[0] as usize + run.len());
        return RowSelection::from_consecutive_ranges(ranges, count);
    }
    let mut mask = BooleanBufferBuilder::new(count);
    mask.append_n(count, false);
    for row in rows {
        mask.set_bit(*row as usize, true);
    }
    RowSelection::from_boolean_buffer(mask.finish())
}
