//! What is live?
//!
//! A [`Deployment`] is everything that one apply made live: definitions, compiled, and models, loaded. It never changes;
//! the next apply puts another one in its place. Whoever answers a request takes one and keeps it to the end, so that a
//! request is answered wholly from the old definitions or wholly from the new ones.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use feature_defs::DefFile;
use parking_lot::{Mutex, RwLock};
use quern_engine::{Catalog, ServicePlan, SourceSchemas};

use crate::error::{Error, Result};
use crate::inference::{Model, Runtime};
use crate::push::Pushing;
use crate::settings::Settings;
use crate::store::history::{History, Pushed};
use crate::store::registry::{Apply, Artifacts, Registry};
use crate::store::rocks::Head;

/// Lies in every data folder; whoever holds its lock owns the folder.
pub const LOCK_FILE: &str = "quern.lock";

const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What one apply made live.
#[derive(Debug, Default)]
pub struct Deployment {
    /// Number of the apply; 0 before the first one.
    pub number: u64,
    /// The definition files, as they were applied.
    pub files: Vec<DefFile>,
    /// The definitions, compiled.
    pub catalog: Catalog,
    /// The schemas that the sources had when they were applied.
    pub source_schemas: SourceSchemas,
    /// The versions of each model, as listed; the last one answers requests that name none.
    pub models: BTreeMap<String, Vec<LiveModel>>,
}

/// One version of a model, loaded.
#[derive(Debug, Clone)]
pub struct LiveModel {
    /// Unique within the model.
    pub version: String,
    /// What feeds it.
    pub service: Arc<ServicePlan>,
    /// The model.
    pub model: Arc<Model>,
}

impl Deployment {
    /// One version of a model; the newest where none is named.
    pub fn model(&self, model: &str, version: Option<&str>) -> Option<&LiveModel> {
        let versions = self.models.get(model)?;
        match version {
            Some(version) => versions.iter().find(|live| live.version == version),
            None => versions.last(),
        }
    }
}

/// One data folder, open: its stores, and what is live on them.
pub struct Quern {
    /// How this process was set up.
    pub settings: Settings,
    /// Every apply.
    pub registry: Registry,
    /// The files of the sources.
    pub history: History,
    /// The online store.
    pub head: Head,
    /// Held while an apply is under way: they come one after the other.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// The pushes that are under way.
    pub(crate) pushing: Pushing,
    /// Held while history becomes the head: two runs over the same rows would only do the same work twice.
    pub(crate) materializing: Mutex<()>,
    live: RwLock<Arc<Deployment>>,
    runtime: LazyRuntime,
    // Given back last, when everything above is closed.
    _lock: File,
}

/// ONNX Runtime, loaded when the first model needs it: a repository without models does without it.
#[derive(Debug, Default)]
struct LazyRuntime {
    loaded: OnceLock<Runtime>,
    loading: Mutex<()>,
}

impl Quern {
    /// Opens the data folder that `settings` name, or makes it, and brings the latest apply live.
    ///
    /// # Errors
    /// [`Error::Refused`] where another process has it open.
    pub async fn open(settings: Settings) -> Result<Arc<Quern>> {
        let lock = lock(&settings.data).await?;
        let registry = Registry::open(&settings.data).await?;
        let latest = registry.latest().await?;
        // Opening RocksDB and loading models blocks for as long as it takes.
        let opening = tokio::task::spawn_blocking(move || -> Result<Arc<Quern>> {
            let head = Head::open(&settings.data.join("head"))?;
            let pushed = Pushed::open(settings.data.join("pushed"), head.tail()?)?;
            let runtime = LazyRuntime::default();
            let live = match latest {
                Some(apply) => restore(apply, &registry.artifacts, || runtime.get(&settings))?,
                None => Deployment::default(),
            };
            Ok(Arc::new(Quern {
                history: History::new(settings.repository.clone(), pushed),
                settings,
                registry,
                head,
                applying: tokio::sync::Mutex::new(()),
                pushing: Pushing::default(),
                materializing: Mutex::new(()),
                live: RwLock::new(Arc::new(live)),
                runtime,
                _lock: lock,
            }))
        });
        opening.await.map_err(|error| Error::internal("opening the data folder", error))?
    }

    /// What is live now.
    pub fn live(&self) -> Arc<Deployment> {
        Arc::clone(&self.live.read())
    }

    /// Puts `deployment` in the place of what is live. Requests under way end with what they began with.
    pub(crate) fn go_live(&self, deployment: Deployment) {
        *self.live.write() = Arc::new(deployment);
    }

    /// ONNX Runtime.
    pub(crate) fn runtime(&self) -> Result<&Runtime> {
        self.runtime.get(&self.settings)
    }
}

impl LazyRuntime {
    fn get(&self, settings: &Settings) -> Result<&Runtime> {
        let _one_at_a_time = self.loading.lock();
        if let Some(runtime) = self.loaded.get() {
            return Ok(runtime);
        }
        let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
        Ok(self.loaded.get_or_init(|| runtime))
    }
}

/// Makes the folder where there is none, and takes its lock. Waits a little: whoever has it may be about to end.
async fn lock(data: &Path) -> Result<File> {
    let failed =
        |error: std::io::Error| Error::Invalid(format!("the data folder {}: {error}", data.display()));
    fs::create_dir_all(data).map_err(failed)?;
    let path = data.join(LOCK_FILE);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let give_up = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => return Err(in_use(data, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    let holder = format!("process {}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(failed)?;
    Ok(file)
}

fn in_use(data: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let holder = if holder.is_empty() { "another process" } else { holder.trim() };
    let data = data.display();
    Error::Refused(format!("the data folder {data} is in use by {holder}; wait until it is done, or stop it"))
}

/// What `apply` made live, once more: from what the registry kept, not from the repository of today.
fn restore<'a>(
    apply: Apply,
    artifacts: &Artifacts,
    runtime: impl Fn() -> Result<&'a Runtime>,
) -> Result<Deployment> {
    let stale = |mistakes| {
        let mistakes = Error::Definitions(mistakes);
        Error::Internal(format!(
            "apply {} went live and does not compile any more; run the version of Quern that applied it:\n{mistakes}",
            apply.number
        ))
    };
    let definitions = feature_defs::parse(&apply.files).map_err(stale)?;
    let catalog = quern_engine::compile(definitions, &apply.source_schemas).map_err(stale)?;
    let mut models = BTreeMap::new();
    for model in catalog.definitions.models.values() {
        let mut versions = Vec::new();
        for version in &model.versions {
            let what =
                format!("model `{}`, version `{}`, of apply {}", model.name, version.version, apply.number);
            let lost = |what: &str| Error::internal(what, "the registry is damaged");
            let kept =
                apply.models.iter().find(|kept| kept.model == model.name && kept.version == version.version);
            let digest = &kept.ok_or_else(|| lost(&what))?.digest;
            let service = Arc::clone(catalog.services.get(&version.service).ok_or_else(|| lost(&what))?);
            let model = Model::load(runtime()?, &artifacts.load(digest)?, &service)
                .map_err(|cause| Error::internal(&what, cause))?;
            versions.push(LiveModel { version: version.version.clone(), service, model: Arc::new(model) });
        }
        models.insert(model.name.clone(), versions);
    }
    Ok(Deployment {
        number: apply.number,
        files: apply.files,
        catalog,
        source_schemas: apply.source_schemas,
        models,
    })
}
