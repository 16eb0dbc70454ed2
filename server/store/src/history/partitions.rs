//! Where have builds before the store put what models said?
//!
//! Into Parquet files, each written once, below a folder of the data folder. They are read, and nothing is added: a
//! file that is not whole has another ending.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::RecordBatch;
use quern_engine::in_words;

use crate::error::{Error, Result};

const EXTENSION: &str = "parquet";

/// A folder of files, in folders of any depth.
#[derive(Debug)]
pub struct Partitions {
    root: PathBuf,
}

impl Partitions {
    /// What lies below `root`, which need not be there.
    pub fn of(root: PathBuf) -> Partitions {
        Partitions { root }
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
