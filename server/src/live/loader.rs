//! How does an apply become a deployment? One way for definitions that are checked here and for those that the registry
//! kept.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use feature_defs::{DefError, Definitions, Model as Declared, ModelVersion};
use parking_lot::Mutex;
use quern_access::Access;
use quern_base::tasks::blocking;
use quern_engine::{ServicePlan, examples};
use quern_features::Compiled;
use quern_inference::{Made, Model, Rules, Runtime, digest, paths};
use quern_store::registry::{Apply, Registry};

use super::ramp::Ramps;
use super::{Deployment, LiveFile, LiveModel, LiveVersion};
use crate::audit::Audit;
use crate::error::{Error, Kind, Mistakes, Result};
use crate::settings::Settings;

/// Loads models, each by the file that it is.
pub struct Loader {
    settings: Arc<Settings>,
    audit: Audit,
    /// Where the files of applies are.
    registry: Registry,
    /// Loaded when the first model needs it: a repository without models does without it.
    runtime: OnceLock<Runtime>,
    loading: Mutex<()>,
}

/// One version of a model that is to be loaded.
pub(crate) struct Wanted<'a> {
    /// The model, as it is declared.
    pub(crate) model: &'a Declared,
    /// The version, as it is declared.
    pub(crate) version: &'a ModelVersion,
    /// What feeds it.
    pub(crate) service: &'a Arc<ServicePlan>,
    /// Its files, in the order of its steps.
    pub(crate) files: Vec<LiveFile>,
}

impl Wanted<'_> {
    /// The version that is live, where it is made of the same files and is handed what it would be handed now: sessions
    /// are expensive to make, and memory would hold them twice.
    pub(crate) fn reusable(&self, live: &Deployment) -> Option<Arc<Model>> {
        let version = live.version(&self.model.name, Some(&self.version.version))?;
        let same_vector = version.service.outputs == self.service.outputs
            && version.service.defaults == self.service.defaults;
        (same_vector && version.model.is(&self.digest(), &self.rules())).then(|| Arc::clone(&version.model))
    }

    /// What tells it from versions that are made of other files, or fed in another way.
    pub(crate) fn digest(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|file| file.digest.clone()).collect();
        digest(&self.version.artifact, &files)
    }

    /// How it is run.
    pub(crate) fn rules(&self) -> Rules {
        let Declared { name, batching, isolation, .. } = self.model;
        let (model, version) = (name.clone(), self.version.version.clone());
        Rules { model, version, batching: *batching, isolation: *isolation }
    }

    pub(crate) fn live(self, model: Arc<Model>) -> Arc<LiveVersion> {
        let (version, service) = (self.version.version.clone(), Arc::clone(self.service));
        Arc::new(LiveVersion { version, service, model, files: self.files })
    }
}

impl Loader {
    pub(crate) fn new(settings: Arc<Settings>, registry: Registry, audit: Audit) -> Loader {
        Loader { settings, audit, registry, runtime: OnceLock::new(), loading: Mutex::default() }
    }

    /// What the roles in `definitions` allow, and where that is written down.
    pub(crate) fn access(&self, definitions: &Definitions) -> (Arc<Access>, Audit) {
        (Arc::new(Access::new(definitions, self.settings.admins.clone())), self.audit.clone())
    }

    /// What is live before the first apply: nothing, to who may apply.
    pub(crate) fn nothing(&self) -> Deployment {
        let (access, audit) = self.access(&Definitions::default());
        Deployment { access, audit, ..Deployment::default() }
    }

    /// ONNX Runtime.
    pub(crate) fn runtime(&self) -> Result<&Runtime> {
        let _one_at_a_time = self.loading.lock();
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Runtime::load(self.settings.onnxruntime.as_deref())?;
        let runtime = runtime.on(self.settings.execution_providers.clone());
        let runtime = runtime.with_worker(self.settings.worker.clone());
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// What `apply` made live, once more: from what the registry kept, not from the repository of today. Nothing of it
    /// is live yet, and what is live goes on beside it.
    ///
    /// # Errors
    /// Where this build does not read the definitions, or a model is lost or does not load.
    pub(crate) async fn restore(self: &Arc<Self>, live: &Deployment, apply: Apply) -> Result<Deployment> {
        let compiling = move || -> Result<_> { Ok((Arc::new(compile(&apply)?), apply)) };
        let (compiled, apply) = blocking("restoring an apply", compiling).await?;
        let mut models = BTreeMap::new();
        for model in compiled.catalog.definitions.models.values() {
            let mut versions = Vec::new();
            let mut lost = Vec::new();
            for version in &model.versions {
                let kept = Kept { apply: &apply, model: &model.name, version };
                let service = compiled.catalog.services.get(&version.service).ok_or_else(|| kept.lost())?;
                let wanted = Wanted { model, version, service, files: kept.files()? };
                let loaded = match wanted.reusable(live) {
                    Some(loaded) => loaded,
                    None => match self.load_kept(&wanted, kept.name()).await {
                        Ok(loaded) => loaded,
                        // One file must not keep a server from starting; one that serves keeps what it has instead.
                        Err(error) if live.number == 0 && error.kind() != Kind::Unavailable => {
                            tracing::error!(cause = %error, "a version of a model is not loaded, and answers nobody");
                            lost.push((versions.len() + lost.len(), wanted, error.to_string()));
                            continue;
                        }
                        Err(error) => return Err(error),
                    },
                };
                versions.push(wanted.live(loaded));
            }
            with_lost(&mut versions, lost);
            let weights = apply.weights.get(&model.name).map(Vec::as_slice);
            let live =
                LiveModel::new(model, versions, weights).map_err(|mistakes| stale(apply.number, mistakes))?;
            models.insert(model.name.clone(), Arc::new(live));
        }
        let ramps = read_ramps(&apply)?;
        let Apply { number, applied_at_us, files, weights, .. } = apply;
        let (access, audit) = self.access(&compiled.catalog.definitions);
        Ok(Deployment {
            number,
            applied_at_us,
            files,
            compiled,
            models,
            weights,
            ramps,
            access,
            audit,
            ..Deployment::default()
        })
    }

    async fn load_kept(self: &Arc<Self>, wanted: &Wanted<'_>, what: String) -> Result<Arc<Model>> {
        let mut bytes = Vec::new();
        for file in &wanted.files {
            bytes.push(self.registry.artifacts.load(&file.digest).await?);
        }
        let (loader, service) = (Arc::clone(self), Arc::clone(wanted.service));
        let (declared, rules) = (wanted.version.clone(), wanted.rules());
        let load = move || -> Result<Model> {
            let examples = examples::vectors(&service, &declared.examples);
            let load = |examples: Option<RecordBatch>| {
                let made = Made::new(&declared, &bytes, &service, examples.as_ref()).restored();
                Ok::<_, Error>(Model::load(loader.runtime()?, &made, &rules))
            };
            let loaded = match examples {
                Ok(examples) => load(examples)?,
                Err(mistake) => Err(mistake),
            };
            loaded.map_err(|mistake| Error::internal(what, mistake.cause))
        };
        Ok(Arc::new(blocking("restoring an apply", load).await?))
    }
}

/// The ramps that an apply kept.
fn read_ramps(apply: &Apply) -> Result<Ramps> {
    let ramps = apply.ramps.iter().map(|(model, ramp)| {
        let ramp = serde_json::from_str(ramp).map_err(|error| {
            Error::refused(format!(
                "apply {} has a ramp of model `{model}` that this build does not read; run the version of Quern that \
                 wrote it, or a later one",
                apply.number
            ))
            .because(error)
        })?;
        Ok((model.clone(), ramp))
    });
    ramps.collect()
}

/// One version of a model, as an apply kept it.
struct Kept<'a> {
    apply: &'a Apply,
    model: &'a str,
    version: &'a ModelVersion,
}

impl Kept<'_> {
    fn name(&self) -> String {
        let (model, version, number) = (self.model, &self.version.version, self.apply.number);
        format!("model `{model}`, version `{version}`, of apply {number}")
    }

    fn lost(&self) -> Error {
        Error::internal(self.name(), "the registry is damaged")
    }

    fn files(&self) -> Result<Vec<LiveFile>> {
        let kept = |row: &str| {
            let mut rows = self.apply.models.iter();
            let kept = rows.find(|kept| kept.model == self.model && kept.version == row)?;
            Some(LiveFile { digest: kept.digest.clone(), path: kept.path.clone() })
        };
        let steps = paths(&self.version.artifact).into_iter();
        steps.map(|(step, _)| kept(&row_of(self.version, step)).ok_or_else(|| self.lost())).collect()
    }
}

/// What the registry calls the file of a step, or of a version that is one file.
pub(crate) fn row_of(version: &ModelVersion, step: &str) -> String {
    match step {
        "" => version.version.clone(),
        step => format!("{}/{step}", version.version),
    }
}

/// Puts what was lost in its places among `versions`. Versions that answer for one another have the same outputs, so
/// those of a sound one stand for theirs.
fn with_lost(versions: &mut Vec<Arc<LiveVersion>>, lost: Vec<(usize, Wanted<'_>, String)>) {
    let sound = versions.first().map(|version| Arc::clone(&version.model.outputs));
    let outputs = sound.unwrap_or_else(|| Arc::new(Schema::empty()));
    for (place, wanted, cause) in lost {
        let model = Model::lost(wanted.digest(), Arc::clone(&outputs), wanted.rules(), cause);
        versions.insert(place, wanted.live(Arc::new(model)));
    }
}

fn compile(apply: &Apply) -> Result<Compiled> {
    let stale = |mistakes| stale(apply.number, mistakes);
    let definitions = feature_defs::parse(&apply.files).map_err(stale)?;
    let catalog = quern_engine::compile(definitions, &apply.source_schemas).map_err(stale)?;
    Ok(Compiled { catalog, source_schemas: apply.source_schemas.clone() })
}

fn stale(number: u64, mistakes: Vec<DefError>) -> Error {
    let cause = format!(
        "apply {number} went live and does not compile here; run the version of Quern that applied it"
    );
    Error::internal(cause, Mistakes(mistakes))
}
