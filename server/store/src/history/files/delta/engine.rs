//! How does the library of Delta Lake list and read files? As it is told here; of a table that is only read it writes
//! nothing, and of another one commits alone.
//!
//! It lays down how its own formats are read: JSON and Parquet in the shapes that it asks for.

use std::io::Cursor;
use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use delta_kernel::arrow::json::ReaderBuilder;
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::engine::arrow_expression::ArrowEvaluationHandler;
use delta_kernel::engine::arrow_utils::{
    RowIndexBuilder, build_json_reorder_indices, fixup_json_read, fixup_parquet_read, json_arrow_schema,
    ordering_needs_row_indexes, parquet_read_plan, parse_json, to_json_bytes,
};
use delta_kernel::engine::reader_options;
use delta_kernel::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use delta_kernel::schema::{SchemaRef, StructType};
use delta_kernel::{
    Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FileSlice,
    FilteredEngineData, JsonHandler, KernelError, KernelResult, KernelResultIterator,
    KernelResultIteratorStatic, ParquetFooter, ParquetHandler, PredicateRef, StorageHandler,
};
use url::Url;

use super::log::Table;

/// What the library asks.
pub(super) struct LogEngine {
    reads: Arc<Reads>,
}

/// What reads the table's log.
struct Reads(Arc<Table>);

type Batches = Box<dyn Iterator<Item = KernelResult<Box<dyn EngineData>>> + Send>;

impl LogEngine {
    pub(super) fn new(table: &Arc<Table>) -> LogEngine {
        LogEngine { reads: Arc::new(Reads(Arc::clone(table))) }
    }
}

impl Engine for LogEngine {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        Arc::new(ArrowEvaluationHandler)
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        Arc::<Reads>::clone(&self.reads)
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        Arc::<Reads>::clone(&self.reads)
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        Arc::<Reads>::clone(&self.reads)
    }
}

fn read_only<T>() -> KernelResult<T> {
    Err(KernelError::unsupported("tables are only read"))
}

impl StorageHandler for Reads {
    fn list_from(&self, path: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
        Ok(Box::new(self.0.list_after(path)?.into_iter().map(Ok)))
    }

    fn read_files(&self, files: Vec<FileSlice>) -> KernelResult<KernelResultIteratorStatic<Bytes>> {
        let table = Arc::clone(&self.0);
        Ok(Box::new(files.into_iter().map(move |(url, range)| table.read(&url, range))))
    }

    fn head(&self, path: &Url) -> KernelResult<FileMeta> {
        self.0.head(path)
    }

    fn copy_atomic(&self, _: &Url, _: &Url) -> KernelResult<()> {
        read_only()
    }

    fn put(&self, _: &Url, _: Bytes, _: bool) -> KernelResult<()> {
        read_only()
    }

    fn delete(&self, _: &Url) -> KernelResult<()> {
        read_only()
    }
}

/// One file after the other, each read when it is its turn.
fn each(
    table: &Arc<Table>,
    files: &[FileMeta],
    read: impl Fn(Bytes, &FileMeta) -> KernelResult<Batches> + Send + 'static,
) -> FileDataReadResultIterator {
    let (table, files) = (Arc::clone(table), files.to_vec());
    Box::new(files.into_iter().flat_map(move |file| -> Batches {
        match table.read(&file.location, None).and_then(|bytes| read(bytes, &file)) {
            Ok(batches) => batches,
            Err(error) => Box::new(iter::once(Err(error))),
        }
    }))
}

impl JsonHandler for Reads {
    fn parse_json(&self, texts: Box<dyn EngineData>, schema: SchemaRef) -> KernelResult<Box<dyn EngineData>> {
        parse_json(texts, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        _: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        let arrow = Arc::new(json_arrow_schema(&schema)?);
        let order = Arc::new(build_json_reorder_indices(&schema)?);
        Ok(each(&self.0, files, move |bytes, file| {
            let (order, at) = (Arc::clone(&order), file.location.to_string());
            let reader = ReaderBuilder::new(Arc::clone(&arrow)).with_coerce_primitive(true);
            let batches = reader.build(Cursor::new(bytes))?;
            Ok(Box::new(batches.map(move |batch| {
                let data: Box<dyn EngineData> = Box::new(fixup_json_read(batch?, &order, &at)?);
                Ok(data)
            })))
        }))
    }

    fn write_json_file(
        &self,
        path: &Url,
        lines: KernelResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> KernelResult<FileSize> {
        if overwrite {
            return read_only();
        }
        let text = String::from_utf8(to_json_bytes(lines)?).map_err(KernelError::generic)?;
        match self.0.create(path, &text)? {
            true => Ok(text.len() as FileSize),
            false => Err(KernelError::FileAlreadyExists(path.to_string())),
        }
    }
}

impl ParquetHandler for Reads {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        _: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        Ok(each(&self.0, files, move |bytes, file| {
            let metadata = ArrowReaderMetadata::load(&bytes, reader_options())?;
            let (order, mask) = parquet_read_plan(&schema, &metadata)?;
            let needs_rows = ordering_needs_row_indexes(&order);
            let rows = needs_rows.then(|| RowIndexBuilder::new(metadata.metadata().row_groups()).build());
            let mut rows = rows.transpose()?;
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
            if let Some(mask) = mask {
                builder = builder.with_projection(mask);
            }
            let (at, schema) = (file.location.to_string(), Arc::clone(&schema));
            Ok(Box::new(builder.build()?.map(move |batch| {
                let read = fixup_parquet_read(batch?, &order, rows.as_mut(), Some(&at), Some(&schema))?;
                let data: Box<dyn EngineData> = Box::new(read);
                Ok(data)
            })))
        }))
    }

    fn write_parquet_file(
        &self,
        _: Url,
        _: KernelResultIteratorStatic<Box<dyn EngineData>>,
    ) -> KernelResult<FileSize> {
        read_only()
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> KernelResult<ParquetFooter> {
        let bytes = self.0.read(&file.location, None)?;
        let metadata = ArrowReaderMetadata::load(&bytes, reader_options())?;
        Ok(ParquetFooter { schema: Arc::new(StructType::try_from_arrow(metadata.schema().as_ref())?) })
    }
}
