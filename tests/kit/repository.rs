//! What lies in a repository? Definitions and the files of sources, in a folder that goes with it.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::ipc::writer::FileWriter;
use feature_defs::DefFile;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use quern_server::{Settings, repository};
use tempfile::TempDir;

use crate::{Node, Result, Store};

/// Rows of a row group, unless the test wants fewer.
const GROUP_ROWS: usize = 1 << 20;

/// A repository in a temporary folder.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// Makes one with these definitions, in `definitions.yaml`.
    pub fn new(definitions: &str) -> Repository {
        let repository = Repository { folder: TempDir::new().unwrap() };
        repository.write("definitions.yaml", definitions);
        repository
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        std::fs::write(self.make_folders(name.as_ref()), content).unwrap();
    }

    /// Writes rows as Parquet.
    pub fn write_parquet(&self, name: &str, rows: &RecordBatch) {
        self.write_parquet_in_groups(name, rows, GROUP_ROWS);
    }

    /// Writes rows as Parquet, so many in a row group.
    pub fn write_parquet_in_groups(&self, name: &str, rows: &RecordBatch, group_rows: usize) {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let file = std::fs::File::create(self.make_folders(Path::new(name))).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    }

    /// Writes rows into an Arrow file of its own, in record batches of `batch_rows`.
    pub fn write_arrow_in_batches(&self, name: &str, rows: &RecordBatch, batch_rows: usize) {
        let file = std::fs::File::create(self.make_folders(Path::new(name))).unwrap();
        let mut writer = FileWriter::try_new(file, &rows.schema()).unwrap();
        for start in (0..rows.num_rows()).step_by(batch_rows) {
            writer.write(&rows.slice(start, batch_rows.min(rows.num_rows() - start))).unwrap();
        }
        writer.finish().unwrap();
    }

    fn make_folders(&self, name: &Path) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Reads its definition files, as an apply does.
    pub fn files(&self) -> Vec<DefFile> {
        let settings = Settings::load(self.path(), &[]).unwrap();
        repository::read(&settings, &settings.applies).unwrap().files
    }

    /// Opens it as it stands.
    pub async fn open(&self) -> Node {
        self.open_with(&[]).await.unwrap()
    }

    /// Opens it with settings besides those of its `quern.yaml`.
    ///
    /// # Errors
    /// What keeps a server from starting.
    pub async fn open_with(&self, settings: &[(&str, String)]) -> Result<Node> {
        Node::open(self.path(), settings).await
    }

    /// Opens it and applies its definitions.
    pub async fn open_applied(&self) -> Node {
        self.open_applied_with(&[]).await
    }

    /// Opens it with settings, and applies its definitions.
    pub async fn open_applied_with(&self, settings: &[(&str, String)]) -> Node {
        let node = self.open_with(settings).await.unwrap();
        node.apply().await.unwrap();
        node
    }

    /// Opens it on an online store, with a part of it that is nobody else's, and applies its definitions.
    pub async fn open_applied_on(&self, store: Store) -> Node {
        self.open_applied_with(&store.settings().await).await
    }
}
