//! What does an Arrow IPC file say about itself, and how are rows of one of its record batches read?
//!
//! The file format, with a footer; Feather is that since its second version. A batch is decoded whole: its columns lie
//! in it one after the other, and nothing in between says where a row is.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, UInt32Array, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, Message, MetadataVersion, root_as_footer, root_as_message};
use quern_engine::{in_words, weigh};

use super::files::HistoryFile;
use super::look::Look;
use super::{BATCH_ROWS_MAX, Formats, Reading, Unit, fitted, hive};
use crate::error::Result;

/// More than this no record batch becomes; one that says so may lie.
const BATCH_BYTES_MAX: usize = 4 << 30;
/// What an Arrow IPC file begins and ends with.
const MAGIC: &[u8] = b"ARROW1";
/// The length of the footer, and the magic.
const TAIL: usize = 10;
/// What a message begins with, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// An Arrow IPC file, of which the footer is read when somebody needs it, once.
#[derive(Debug)]
pub(super) struct IpcFile {
    pub(super) file: HistoryFile,
    footer: OnceLock<Footer>,
}

#[derive(Debug)]
struct Footer {
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    /// Each record batch, and how many rows it has.
    batches: Vec<(Block, u32)>,
}

impl IpcFile {
    /// A file whose footer is read when it is needed.
    pub(super) fn unopened(file: HistoryFile) -> Self {
        IpcFile { file, footer: OnceLock::new() }
    }

    fn footer(&self) -> Result<&Footer> {
        if let Some(footer) = self.footer.get() {
            return Ok(footer);
        }
        let mut handle = self.file.open()?;
        let footer = self.file.guarded(|| footer(&mut handle, self.file.bytes()))?;
        Ok(self.footer.get_or_init(|| footer))
    }

    /// What the file says of its columns.
    pub(super) fn look(&self) -> Result<Look> {
        Ok(Look::of(self.footer()?.schema.fields().clone()))
    }

    /// How many rows each record batch has.
    pub(super) fn batches(&self) -> Result<Vec<u64>> {
        Ok(self.footer()?.batches.iter().map(|(_, rows)| u64::from(*rows)).collect())
    }

    /// Reads no more than the first rows, in the columns of a schema.
    pub(super) fn first_rows(
        &self,
        (count, schema): (usize, SchemaRef),
        formats: &Formats,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let batches = self.batches()?.into_iter().enumerate();
        let Some((row_group, rows)) = batches.into_iter().find(|(_, rows)| *rows > 0) else { return Ok(()) };
        if schema.fields().is_empty() {
            return Ok(());
        }
        let unit = Unit { file: 0, first_row: 0, rows, times: None, part: 0, row_group };
        let first: Vec<u32> = (0..rows.min(count as u64) as u32).collect();
        self.read(&unit, &Reading { rows: Some(&first), ..Reading::of(schema, formats) }, visit)
    }

    /// Reads one record batch, in batches in row order.
    pub(super) fn read(
        &self,
        unit: &Unit,
        reading: &Reading<'_>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let footer = self.footer()?;
        let root = |field: &Arc<Field>| footer.schema.fields().find(field.name()).map(|(root, _)| root);
        let roots: Vec<Option<usize>> = reading.schema.fields().iter().map(root).collect();
        let mut distinct: Vec<usize> = roots.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let stored = self.decode(footer, unit.row_group, &distinct)?;
        let rows = reading.rows.map_or(unit.rows as usize, <[u32]>::len);
        for start in (0..rows).step_by(BATCH_ROWS_MAX) {
            let count = (rows - start).min(BATCH_ROWS_MAX);
            let chosen = reading.rows.map(|rows| UInt32Array::from(rows[start..start + count].to_vec()));
            let mut columns = Vec::with_capacity(roots.len());
            for (root, field) in roots.iter().zip(reading.schema.fields()) {
                columns.push(match root {
                    Some(root) => {
                        let column = &stored[distinct.partition_point(|other| other < root)];
                        let column = match &chosen {
                            Some(rows) => take(column, rows, None)?,
                            None => column.slice(start, count),
                        };
                        fitted::column(&self.file, &column, field, reading)?
                    }
                    None => hive::column(&self.file.name, field, reading, count)?,
                });
            }
            visit(fitted::batch(&reading.schema, columns)?)?;
        }
        Ok(())
    }

    /// The columns at `roots` of a record batch.
    fn decode(&self, footer: &Footer, place: usize, roots: &[usize]) -> Result<Vec<ArrayRef>> {
        let Some((block, rows)) = footer.batches.get(place).filter(|_| !roots.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut handle = self.file.open()?;
        let decode = || -> std::result::Result<Vec<ArrayRef>, String> {
            let decoder = FileDecoder::new(Arc::clone(&footer.schema), footer.version);
            let mut decoder = decoder.with_projection(roots.to_vec());
            let is_dictionary = |root: &usize| holds_dictionaries(footer.schema.field(*root).data_type());
            let dictionaries =
                if roots.iter().any(is_dictionary) { footer.dictionaries.as_slice() } else { &[] };
            for block in dictionaries {
                let bytes = whole(&mut handle, block)?;
                decoder.read_dictionary(block, &bytes.into()).map_err(|error| in_words(&error))?;
            }
            let bytes = whole(&mut handle, block)?;
            let batch = decoder.read_record_batch(block, &bytes.into()).map_err(|error| in_words(&error))?;
            let batch = batch.filter(|batch| batch.num_rows() == *rows as usize);
            let batch = batch.ok_or("a record batch has not the rows that it is said to have")?;
            batch
                .columns()
                .iter()
                .map(without_hidden)
                .collect::<std::result::Result<_, _>>()
                .map_err(|e| in_words(&e))
        };
        self.file.guarded(decode)
    }
}

/// A column in which nothing stands below a null: a writer may leave values there, which whoever asks for a field of a
/// struct would be told.
fn without_hidden(column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    let is_whole =
        |dtype: &DataType| matches!(dtype, DataType::List(_) | DataType::LargeList(_) | DataType::Map(..));
    match column.data_type() {
        DataType::Struct(fields) => {
            let of = column.as_struct();
            let below = |child: &ArrayRef| {
                let own = child.to_data();
                let nulls = NullBuffer::union(own.nulls(), of.nulls());
                let masked = match child.data_type() {
                    DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..) => Arc::clone(child),
                    _ => make_array(own.into_builder().nulls(nulls).build()?),
                };
                without_hidden(&masked)
            };
            let children = of.columns().iter().map(below).collect::<std::result::Result<_, _>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                children,
                of.nulls().cloned(),
                of.len(),
            )?))
        }
        // Taken again, a list that is null has no items.
        dtype if is_whole(dtype) && column.null_count() > 0 => {
            take(column, &UInt32Array::from_iter_values(0..column.len() as u32), None)
        }
        _ => Ok(Arc::clone(column)),
    }
}

/// Whether values of the type are kept apart from where they stand.
fn holds_dictionaries(dtype: &DataType) -> bool {
    match dtype {
        DataType::Dictionary(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => holds_dictionaries(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_dictionaries(field.data_type())),
        DataType::RunEndEncoded(_, values) => holds_dictionaries(values.data_type()),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| holds_dictionaries(field.data_type())),
        _ => false,
    }
}

/// Reads what stands at the end of a file of so many bytes, and the head of each record batch.
fn footer(handle: &mut (impl Read + Seek), bytes: u64) -> std::result::Result<Footer, String> {
    let tail = read(handle, bytes.saturating_sub(TAIL as u64), bytes.min(TAIL as u64) as usize)?;
    let Some(tail) = <[u8; TAIL]>::try_from(tail).ok().filter(|tail| tail.ends_with(MAGIC)) else {
        return Err(otherwise(&read(handle, 0, bytes.min(8) as usize)?).to_owned());
    };
    let length = read_footer_length(tail).map_err(|error| in_words(&error))?;
    let start = bytes.checked_sub((length + TAIL) as u64).ok_or("its footer is longer than the file")?;
    let footer = read(handle, start, length)?;
    let footer = root_as_footer(&footer).map_err(|error| format!("its footer is malformed: {error}"))?;
    let schema = footer.schema().ok_or("its footer lacks the schema")?;
    if !schema.endianness().equals_to_target_endianness() {
        return Err("its numbers begin with the other end than this machine's".to_owned());
    }
    let weight = weigh::schema_weight(&schema);
    if weight > BATCH_BYTES_MAX {
        return Err(format!("its schema becomes {weight} bytes"));
    }
    let is_within = |block: &Block| {
        let length = i64::from(block.metaDataLength()).checked_add(block.bodyLength());
        let end = length.and_then(|length| block.offset().checked_add(length)).map(u64::try_from);
        let parts = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
        parts.iter().all(|part| *part >= 0) && matches!(end, Some(Ok(end)) if end <= bytes)
    };
    let (dictionaries, batches) = (footer.dictionaries(), footer.recordBatches());
    if !dictionaries.iter().flatten().chain(batches.iter().flatten()).all(is_within) {
        return Err("its footer names what lies outside of the file".to_owned());
    }
    let with_rows = |block: &Block| -> std::result::Result<(Block, u32), String> {
        let head =
            read(handle, block.offset().unsigned_abs(), block.metaDataLength().unsigned_abs() as usize)?;
        let batch = message(&head)?.header_as_record_batch().ok_or("a record batch is none")?;
        let rows = u32::try_from(batch.length());
        Ok((*block, rows.map_err(|_| format!("a record batch of {} rows", batch.length()))?))
    };
    let batches = batches.iter().flatten().map(with_rows).collect::<std::result::Result<_, String>>()?;
    Ok(Footer {
        schema: Arc::new(fb_to_schema(schema)),
        version: footer.version(),
        dictionaries: dictionaries.iter().flatten().copied().collect(),
        batches,
    })
}

/// What a file is that does not end as one of Arrow IPC.
fn otherwise(begins: &[u8]) -> &'static str {
    match begins {
        [] => "it is empty; was it not written to its end?",
        [b'F', b'E', b'A', b'1', ..] => {
            "it is Feather of version 1, which is not read; write it anew, as pandas does with to_feather(path)"
        }
        [0xff, 0xff, 0xff, 0xff, ..] => {
            "it is a stream of Arrow IPC, without a footer; write a file, as pyarrow does with ipc.new_file and Polars \
             with write_ipc"
        }
        begins if begins.starts_with(MAGIC) => "it lacks its footer; was it not written to its end?",
        _ => "it is no Arrow IPC file",
    }
}

fn read(handle: &mut (impl Read + Seek), start: u64, count: usize) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = vec![0; count];
    let read = handle.seek(SeekFrom::Start(start)).and_then(|_| handle.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| error.to_string())
}

/// The bytes of a message that becomes no more than a batch may.
fn whole(handle: &mut (impl Read + Seek), block: &Block) -> std::result::Result<Vec<u8>, String> {
    let head = block.metaDataLength().unsigned_abs() as usize;
    let length = head + usize::try_from(block.bodyLength()).unwrap_or(0);
    let bytes = read(handle, block.offset().unsigned_abs(), length)?;
    let weight = weigh::weight(&message(&bytes)?, &bytes[head..]);
    if weight > BATCH_BYTES_MAX {
        return Err(format!(
            "a record batch becomes {weight} bytes, at most {BATCH_BYTES_MAX} are read: write smaller ones"
        ));
    }
    Ok(bytes)
}

/// The message that `bytes` begin with.
fn message(bytes: &[u8]) -> std::result::Result<Message<'_>, String> {
    let length = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    let head = bytes.get(length..).ok_or("a message is cut off")?;
    root_as_message(head).map_err(|error| format!("a message is malformed: {error}"))
}
