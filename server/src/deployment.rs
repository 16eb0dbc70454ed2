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

use feature_defs::{Batching, DefError, DefFile};
use parking_lot::{Mutex, RwLock};
use quern_engine::{Catalog, ServicePlan, SourceSchemas};

use crate::apply::{Fetched, row_of};
use crate::blocking::blocking;
use crate::error::{Error, Mistakes, Result};
use crate::follow::Following;
use crate::labels::Labels;
use crate::metrics::metrics;
use crate::predict::log::PredictionLog;
use crate::predict::{LiveModel, LiveVersion};
use crate::push::{Log, Pushing};
use crate::settings::{OnlineStore, Settings};
use crate::store::history::History;
use crate::store::online::Online;
use crate::store::redis::Redis;
use crate::store::registry::{Apply, Registry};
use crate::store::rocks::Head;
use quern_inference::{Model, Runtime, digest, paths};

/// Lies in every data folder; whoever holds its lock owns the folder.
pub const LOCK_FILE: &str = "quern.lock";

const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The weights of versions, by model.
pub type Weights = BTreeMap<String, Vec<(String, u32)>>;

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
    /// The models by name.
    pub models: BTreeMap<String, Arc<LiveModel>>,
    /// The weights of versions, by model, where they were set since the model's route was declared.
    pub weights: Weights,
}

impl Deployment {
    /// One version of a model; the newest where none is named.
    pub fn version(&self, model: &str, version: Option<&str>) -> Option<&Arc<LiveVersion>> {
        let LiveModel { versions, .. } = self.models.get(model)?.as_ref();
        match version {
            Some(version) => versions.iter().find(|live| live.version == version),
            None => versions.last(),
        }
    }

    /// The model of this version where it is the file with `digest`, and `service` hands it what it gets now: sessions
    /// are dear to make, and memory would hold them twice.
    pub(crate) fn reusable(
        &self,
        model: &str,
        version: &str,
        service: &ServicePlan,
        (digest, batching): (&str, Batching),
    ) -> Option<Arc<Model>> {
        let live = self.version(model, Some(version))?;
        let same_vector =
            live.service.outputs == service.outputs && live.service.defaults == service.defaults;
        (same_vector && live.model.is(digest, batching)).then(|| Arc::clone(&live.model))
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
    pub head: Online,
    /// Where what was pushed is written down.
    pub log: Log,
    /// The RocksDB of the data folder, which has what was pushed and is in no file yet. It is the online store too,
    /// unless that is shared.
    pub local: Arc<Head>,
    /// What is known of the other servers' applies.
    pub following: Following,
    /// Held while an apply is under way, one of ours or one of another server: they come one after the other.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// What definitions were checked against that lies in object stores.
    pub(crate) fetched: Fetched,
    /// The pushes that are under way.
    pub(crate) pushing: Pushing,
    /// What models said, on its way into files.
    pub predictions: PredictionLog,
    /// What came true of it.
    pub labels: Labels,
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
    /// `Kind::Refused` where another process has it open.
    pub async fn open(settings: Settings) -> Result<Arc<Quern>> {
        let lock = lock(&settings.data).await?;
        let registry = Registry::open(&settings.registry, &settings.data).await?;
        let redis = match &settings.online {
            OnlineStore::RocksDb => None,
            OnlineStore::Redis(address) => Some(Redis::open(address.clone(), settings.online_timeout).await?),
        };
        let predictions = PredictionLog::open(&settings.data)?;
        let labels = Labels::open(&settings.data)?;
        let shared_log = if redis.is_some() { registry.log().await? } else { None };
        // Opening RocksDB blocks for as long as it takes.
        let opening = tokio::task::spawn_blocking(move || -> Result<Arc<Quern>> {
            let local = Arc::new(Head::open(&settings.data.join("head"))?);
            let head = match redis {
                Some(redis) => Online::Redis(redis),
                None => {
                    metrics().online_store_up.set(1);
                    Online::Rocks(Arc::clone(&local))
                }
            };
            let (log, folder) = Log::of(&head, &local, shared_log);
            let pushed = log.open(settings.data.join(folder), &local)?;
            Ok(Arc::new(Quern {
                history: History::new(settings.repository.clone(), pushed),
                settings,
                registry,
                head,
                log,
                following: Following::default(),
                local,
                applying: tokio::sync::Mutex::new(()),
                fetched: Fetched::default(),
                pushing: Pushing::default(),
                predictions,
                labels,
                materializing: Mutex::new(()),
                live: RwLock::default(),
                runtime: LazyRuntime::default(),
                _lock: lock,
            }))
        });
        let quern = opening.await.map_err(|error| Error::internal("opening the data folder", error))??;
        if let Some(apply) = quern.registry.latest().await? {
            let deployment = quern.restore(apply).await?;
            quern.go_live(deployment);
        }
        Ok(quern)
    }

    /// What is live now.
    pub fn live(&self) -> Arc<Deployment> {
        Arc::clone(&self.live.read())
    }

    /// Puts `deployment` in the place of what is live, unless that is newer: it never goes back. Requests under way
    /// end with what they began with.
    pub(crate) fn go_live(&self, deployment: Deployment) {
        let mut live = self.live.write();
        if deployment.number > live.number {
            *live = Arc::new(deployment);
        }
    }

    /// What `apply` made live, once more: from what the registry kept, not from the repository of today. Nothing of it
    /// is live yet, and what is live goes on beside it.
    ///
    /// # Errors
    /// Where this build does not read the definitions, or a model is lost or does not load.
    pub(crate) async fn restore(self: &Arc<Self>, apply: Apply) -> Result<Deployment> {
        let (catalog, apply) = blocking("restoring an apply", move || Ok((compile(&apply)?, apply))).await?;
        let live = self.live();
        let mut models = BTreeMap::new();
        for model in catalog.definitions.models.values() {
            let mut versions = Vec::new();
            for version in &model.versions {
                let what = format!(
                    "model `{}`, version `{}`, of apply {}",
                    model.name, version.version, apply.number
                );
                let lost = || Error::internal(what.clone(), "the registry is damaged");
                let kept = |row: &str| {
                    let mut rows = apply.models.iter();
                    rows.find(|kept| kept.model == model.name && kept.version == row)
                        .map(|kept| kept.digest.clone())
                };
                let steps = paths(&version.artifact).into_iter();
                let files: Vec<String> = steps
                    .map(|(step, _)| kept(&row_of(version, step)).ok_or_else(lost))
                    .collect::<Result<_>>()?;
                let service = Arc::clone(catalog.services.get(&version.service).ok_or_else(lost)?);
                let digest = digest(&version.artifact, &files);
                let live = live.reusable(&model.name, &version.version, &service, (&digest, model.batching));
                let loaded = match live {
                    Some(loaded) => loaded,
                    None => {
                        let mut bytes = Vec::new();
                        for file in &files {
                            bytes.push(self.registry.artifacts.load(file).await?);
                        }
                        let (quern, service) = (Arc::clone(self), Arc::clone(&service));
                        let (declared, batching) = (version.clone(), model.batching);
                        let load = move || {
                            let artifact = (&declared.artifact, &declared.loc);
                            Model::load(quern.runtime()?, artifact, &bytes, &service, batching)
                                .map_err(|mistake| Error::internal(what, mistake.cause))
                        };
                        Arc::new(blocking("restoring an apply", load).await?)
                    }
                };
                let version = version.version.clone();
                versions.push(Arc::new(LiveVersion { version, service, model: loaded, files }));
            }
            let weights = apply.weights.get(&model.name).map(Vec::as_slice);
            let live =
                LiveModel::new(model, versions, weights).map_err(|mistakes| stale(apply.number, mistakes))?;
            models.insert(model.name.clone(), Arc::new(live));
        }
        Ok(Deployment {
            number: apply.number,
            files: apply.files,
            catalog,
            source_schemas: apply.source_schemas,
            models,
            weights: apply.weights,
        })
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
        let runtime = runtime.on(settings.execution_providers.clone());
        Ok(self.loaded.get_or_init(|| runtime))
    }
}

/// Makes the folder where there is none, and takes its lock. Waits a little: whoever has it may be about to end.
async fn lock(data: &Path) -> Result<File> {
    let failed =
        |error: std::io::Error| Error::invalid(format!("the data folder {}: {error}", data.display()));
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
    Error::refused(format!("the data folder {data} is in use by {holder}; wait until it is done, or stop it"))
}

fn compile(apply: &Apply) -> Result<Catalog> {
    let stale = |mistakes| stale(apply.number, mistakes);
    let definitions = feature_defs::parse(&apply.files).map_err(stale)?;
    quern_engine::compile(definitions, &apply.source_schemas).map_err(stale)
}

fn stale(number: u64, mistakes: Vec<DefError>) -> Error {
    let cause = format!(
        "apply {number} went live and does not compile here; run the version of Quern that applied it"
    );
    Error::internal(cause, Mistakes(mistakes))
}
