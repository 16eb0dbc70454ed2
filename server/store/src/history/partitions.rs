//! How do rows that nobody pushed lie on disk: what models said, and what came true?
//!
//! In Parquet files, each written once, below a folder of their own. A file has its name only when it is whole and on
//! disk; what an interrupted write left behind has another ending, and goes at the next start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::arrow::{ArrowWriter, ProjectionMask};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use parking_lot::Mutex;
use quern_engine::in_words;

use crate::error::{Error, Result};

const EXTENSION: &str = "parquet";
const UNFINISHED: &str = "part";

/// A folder of files, in folders of any depth.
#[derive(Debug)]
pub struct Partitions {
    root: PathBuf,
    /// The least number that the next file may have: that of the last one and one.
    next: Mutex<u64>,
}

impl Partitions {
    /// What lies below `root`, which need not be there yet.
    pub fn open(root: PathBuf) -> Result<Partitions> {
        let mut next = 0;
        for path in below(&root)? {
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            next = next.max(number.map_or(0, |number: u64| number.saturating_add(1)));
        }
        Ok(Partitions { root, next: Mutex::new(next) })
    }

    /// Writes rows into a new file in `folder`, after all that are there; it is on disk when this returns.
    pub fn write(&self, folder: &Path, now_us: i64, rows: &RecordBatch) -> Result<PathBuf> {
        let folder = self.root.join(folder);
        fs::create_dir_all(&folder)?;
        let number = {
            let mut next = self.next.lock();
            // Two in one microsecond, or a clock that was set back, must not give one name to two files.
            let number = next.max(now_us.unsigned_abs());
            *next = number + 1;
            number
        };
        let path = folder.join(format!("{number:020}.{EXTENSION}"));
        let unfinished = path.with_extension(UNFINISHED);
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
        let file = File::create_new(&unfinished)?;
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties.build()))?;
        writer.write(rows)?;
        writer.into_inner()?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        // The names, too, must survive a loss of power: of the file, and of folders that are new.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            File::open(folder)?.sync_all()?;
        }
        Ok(path)
    }

    /// The whole files below `folder`, in the order of their folders, and in a folder as they were written.
    pub fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut files = below(&self.root.join(folder))?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        files.sort_unstable();
        Ok(files)
    }

    /// The rows of a file. One that was removed meanwhile has none.
    pub fn read(&self, path: &Path) -> Result<Vec<RecordBatch>> {
        read(path, None)
    }

    /// The same, of one column.
    pub fn read_column(&self, path: &Path, name: &str) -> Result<Vec<RecordBatch>> {
        read(path, Some(name))
    }
}

fn read(path: &Path, column: Option<&str>) -> Result<Vec<RecordBatch>> {
    let wrong = |cause: String| {
        let name = path.file_name().unwrap_or_default().display();
        Error::internal(
            format!("reading `{name}` of the data folder"),
            format!("{}: {cause}", path.display()),
        )
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| {
        let mask = column.map(|name| ProjectionMask::columns(reader.parquet_schema(), [name]));
        mask.into_iter().fold(reader, |reader, mask| reader.with_projection(mask)).build()
    });
    let batches = reader.map_err(|error| wrong(in_words(&error)))?;
    batches.map(|batch| batch.map_err(|error| wrong(in_words(&error)))).collect()
}

/// All files below `folder`; none where there is no such folder.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
