//! A repository in a temporary folder, and a Quern on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use quern::wire::PushTo;
use quern_kit::{RedisCluster, RedisServer, fresh_database, fresh_prefix};
use quern_server::materialize::{MaterializeRequest, Summary, materialize};
use quern_server::push::{Push, push};
use quern_server::{Quern, Settings, apply, repository};
use tempfile::TempDir;

/// A folder that goes when the test ends.
pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    pub(crate) fn new(definitions: &str) -> Repository {
        let repository = Repository { folder: TempDir::new().unwrap() };
        repository.write("definitions.yaml", definitions);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.make_room(name.as_ref());
        std::fs::write(path, content).unwrap();
    }

    /// Writes rows as Parquet, in row groups so small that every test has several.
    pub(crate) fn write_parquet(&self, name: &str, rows: &RecordBatch, group_rows: usize) {
        let path = self.make_room(Path::new(name));
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    }

    fn make_room(&self, name: &Path) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Opens it, whatever the environment says.
    pub(crate) async fn open(&self) -> Arc<Quern> {
        self.open_data(".quern").await
    }

    /// Opens it with its data in another folder than usual.
    pub(crate) async fn open_data(&self, data: &str) -> Arc<Quern> {
        self.try_open_with(data, &[]).await.unwrap()
    }

    /// The same, with settings of the test's own.
    pub(crate) async fn try_open_with(
        &self,
        data: &str,
        settings: &[(&str, String)],
    ) -> quern_server::Result<Arc<Quern>> {
        let onnxruntime =
            |name: &str| (name == "QUERN_ONNXRUNTIME").then(|| std::env::var(name).ok()).flatten();
        let data = self.path().join(data).to_string_lossy().into_owned();
        let settings = [&[("data", data)], settings].concat();
        Quern::open(Settings::load_from(self.path(), onnxruntime, &settings)?).await
    }

    pub(crate) async fn open_applied(&self) -> Arc<Quern> {
        self.open_applied_on(Store::Rocks).await
    }

    /// Opens it on another online store, with a part of it that is nobody else's.
    pub(crate) async fn open_applied_on(&self, store: Store) -> Arc<Quern> {
        let mut settings = store.settings();
        if matches!(store, Store::Shared) {
            settings.push(("registry", fresh_database().await));
        }
        let quern = self.try_open_with(".quern", &settings).await.unwrap();
        let candidate = apply::check(&quern, repository::read(self.path()).unwrap()).await.unwrap();
        apply::apply(&quern, candidate).await.unwrap();
        quern
    }
}

/// Pushes rows to source `s`, so many at a time; none is turned away for another cause than a null key or time.
async fn push_rows(quern: &Arc<Quern>, rows: &RecordBatch, at_a_time: usize) {
    for start in (0..rows.num_rows()).step_by(at_a_time) {
        let pushed = Push {
            source: "s".to_owned(),
            rows: rows.slice(start, at_a_time.min(rows.num_rows() - start)),
            rejected: Vec::new(),
            to: PushTo::OnlineAndOffline,
            idempotency_key: None,
            positions: Vec::new(),
        };
        let rejected = match push(quern, pushed).await {
            Ok(reply) => reply.rejected,
            Err(quern_server::Error::Rejected(rejected)) => rejected,
            Err(error) => panic!("{error}"),
        };
        assert!(rejected.iter().all(|row| row.cause.contains("null")), "{rejected:?}");
    }
}

/// Pushes the rows as [`push_rows`] does: half of them, and the others once history up to `to_us` is materialized.
pub(crate) async fn push_around(quern: &Arc<Quern>, rows: &RecordBatch, at_a_time: usize, to_us: i64) {
    let half = rows.num_rows() / 2;
    push_rows(quern, &rows.slice(0, half), at_a_time).await;
    materialize_to(quern, to_us);
    push_rows(quern, &rows.slice(half, rows.num_rows() - half), at_a_time).await;
}

/// Which online store a test runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    Rocks,
    Redis,
    Cluster,
    /// Redis, with a registry in PostgreSQL: it takes pushes.
    Shared,
}

impl Store {
    /// Whether rows can be pushed to it.
    pub(crate) fn takes_pushes(self) -> bool {
        matches!(self, Store::Rocks | Store::Shared)
    }

    /// What selects it. Every call names another part of the store.
    pub(crate) fn settings(self) -> Vec<(&'static str, String)> {
        let url = match self {
            Store::Rocks => return Vec::new(),
            Store::Redis | Store::Shared => RedisServer::shared().url(),
            Store::Cluster => RedisCluster::shared().url(),
        };
        let separator = if url.contains('?') { '&' } else { '?' };
        let online = format!("{url}{separator}prefix={}", fresh_prefix());
        // A machine that is busy with tests is no reason to give up.
        vec![("online", online), ("online_timeout", "30s".to_owned())]
    }
}

/// Materializes up to `to_us`, looking back to the beginning.
pub(crate) fn materialize_to(quern: &Quern, to_us: i64) -> Summary {
    try_materialize_to(quern, to_us).unwrap()
}

/// The same, where it may fail.
pub(crate) fn try_materialize_to(quern: &Quern, to_us: i64) -> quern_server::Result<Summary> {
    let request = MaterializeRequest {
        to_us: Some(to_us),
        look_back_us: Some(i64::MAX),
        ..MaterializeRequest::default()
    };
    materialize(quern, &quern.live(), &request, to_us, &|_| ())
}
