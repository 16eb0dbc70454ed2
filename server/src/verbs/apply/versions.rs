//! Which versions of models can go live, and what were they tried on?

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use bytes::Bytes;
use feature_defs::{
    Action, Artifact, DefError, Definitions, ModelVersion, Registered, RegisteredModel, Remote,
};
use quern_base::digest::sha256;
use quern_engine::{ServicePlan, examples};
use quern_features::Compiled;
use quern_features::sample::sample;
use quern_inference::{Made, Model, paths};
use quern_store::roots::ProjectRoots;
use quern_wire::ModelFit;
use tokio::runtime::Handle;

use super::Apply;
use super::fits::{fits, on_history};
use super::model_file::{self, Mistake};
use super::registered::{self, Kept, Registry};
use super::told::{Told, told};
use crate::error::{Error, Result};
use crate::live::loader::Wanted;
use crate::live::{Deployment, LiveFile, LiveModel, LiveVersion, Weights};
use crate::pin::{declared, digest};

const KEEP_AS_IT_IS: &str = "this version is live: leave its feature service as it is, add a new service and a new \
                             model version beside them, and remove the old ones once nobody asks for them";

/// The model on another server that a step asks.
fn remote_of<'a>(artifact: &'a Artifact, step: &str) -> Option<&'a Remote> {
    let Artifact::Steps { steps, .. } = artifact else { return None };
    steps.iter().find(|known| known.name == step).and_then(|known| match &known.action {
        Action::Ask(remote) => Some(remote),
        _ => None,
    })
}

/// A file of a version, and the path that it was read from.
struct ReadFile {
    bytes: Bytes,
    path: String,
}

/// A source may be of a thousand files, and a model be tried for seconds: nobody should begin on one for nobody.
pub(super) fn waited_for(waits: &Weak<()>) -> Result<()> {
    match waits.strong_count() {
        0 => Err(Error::late("nobody waits for these definitions any more")),
        _ => Ok(()),
    }
}

/// The models of a candidate, while they are loaded.
pub(super) struct Models<'a> {
    pub(super) apply: &'a Apply,
    pub(super) roots: &'a ProjectRoots,
    pub(super) live: &'a Deployment,
    pub(super) compiled: &'a Compiled,
    pub(super) mistakes: Vec<DefError>,
    pub(super) files: Vec<Bytes>,
    /// How the files of all versions are fed.
    pub(super) fits: Vec<ModelFit>,
    /// The aliases that lead to other versions than those that are live.
    pub(super) moved: Vec<DefError>,
    pub(super) waits: &'a Weak<()>,
}

impl Models<'_> {
    /// Loads every version whose service compiled. Of the others only the file is looked for: what else is wrong with
    /// them has been said where it is wrong.
    pub(super) fn load(
        &mut self,
        definitions: &Definitions,
        weights: &Weights,
    ) -> Result<BTreeMap<String, Arc<LiveModel>>> {
        let mut models = BTreeMap::new();
        for model in definitions.models.values() {
            let mut versions = Vec::new();
            for version in &model.versions {
                waited_for(self.waits)?;
                let found = self.read(model, version, definitions);
                if let (Some(files), Some(service)) =
                    (found, self.compiled.catalog.services.get(&version.service))
                {
                    versions.extend(self.load_version(model, version, service, files)?);
                }
            }
            // What the versions have to agree on shows when all are there.
            if versions.len() == model.versions.len() {
                match LiveModel::new(model, versions, weights.get(&model.name).map(Vec::as_slice)) {
                    Ok(live) => {
                        models.insert(model.name.clone(), Arc::new(live));
                    }
                    Err(found) => self.mistakes.extend(found),
                }
            }
        }
        Ok(models)
    }

    /// The files of a version, in the order of its steps.
    fn read(
        &mut self,
        model: &feature_defs::Model,
        version: &ModelVersion,
        definitions: &Definitions,
    ) -> Option<Vec<ReadFile>> {
        let Apply { fetched, registry, .. } = self.apply;
        let leads = |url: &str| Some(definitions.connection(version.loc.project(), url)?.storage.clone());
        let roots = self.roots.at(&version.loc).map_err(|mistake| self.mistakes.push(mistake)).ok()?;
        let registered = Registry { fetched, artifacts: &registry.artifacts, roots, leads: &leads };
        let files = paths(&version.artifact).into_iter().map(|(step, path)| {
            let what = if step.is_empty() { String::new() } else { format!("step `{step}`: ") };
            // This thread may block: definitions are checked away from those that answer.
            let file = match (remote_of(&version.artifact, step), RegisteredModel::parse(path)) {
                (Some(remote), _) => {
                    let kept = kept_of(self.live, model, version, (step, remote));
                    let told = Handle::current().block_on(told(remote, kept, &registry.artifacts));
                    told.map(|Told { bytes, away }| {
                        self.moved.extend(away.map(|cause| stays(&model.name, version, &what, &cause)));
                        ReadFile { bytes, path: format!("{}/{path}", remote.server) }
                    })
                }
                (None, Ok(named)) => {
                    let kept = kept(self.live, model, version, (step, path));
                    let read = Handle::current().block_on(registered.read(&named, kept));
                    read.map(|it| {
                        let at = (model.name.as_str(), version, what.as_str());
                        self.moved.extend(moved(at, path, &it));
                        ReadFile { bytes: it.bytes, path: named.at(it.number).to_string() }
                    })
                }
                (None, Err(_)) if path.contains("://") => {
                    let read = fetched.read(path, &registry.artifacts, &leads);
                    Handle::current().block_on(read).map(|bytes| ReadFile { bytes, path: path.to_owned() })
                }
                (None, Err(_)) => model_file::of_repository(roots, path)
                    .map(|bytes| ReadFile { bytes, path: path.to_owned() }),
            };
            let mistake = |Mistake { cause, help }| {
                DefError::new(&version.loc, format!("{what}{cause}")).with_help(help)
            };
            file.map_err(|cause| self.mistakes.push(mistake(cause))).ok()
        });
        files.collect::<Vec<_>>().into_iter().collect()
    }

    fn load_version(
        &mut self,
        model: &feature_defs::Model,
        version: &ModelVersion,
        service: &Arc<ServicePlan>,
        files: Vec<ReadFile>,
    ) -> Result<Option<Arc<LiveVersion>>> {
        let named =
            files.iter().map(|file| LiveFile { digest: sha256(&file.bytes), path: file.path.clone() });
        let wanted = Wanted { model, version, service, files: named.collect() };
        let files = files.into_iter().map(|file| file.bytes).collect();
        let examples = match examples::vectors(service, &version.examples) {
            Ok(examples) => examples,
            Err(mistake) => {
                self.mistakes.push(mistake);
                return Ok(None);
            }
        };
        if let Some(trained_on) = &version.trained_on {
            let pin = declared(trained_on);
            if digest(&pin)? != pin.digest {
                let cause = "`trained_on`: its digest is not that of the rest, so it was changed by hand";
                let help = "take all of it anew, as `quern.training_set` in the metadata of the training set says it";
                self.mistakes.push(DefError::new(&version.loc, cause).with_help(help));
            }
        }
        let known = wanted.reusable(self.live);
        let is_new = known.is_none();
        let loaded = match known {
            Some(loaded) => self.tried_again(&wanted, loaded, examples.as_ref()),
            None => self.load_new(&wanted, files, examples.as_ref())?,
        };
        let Some(loaded) = loaded else { return Ok(None) };
        let mut fits = fits((&model.name, &version.version), &loaded);
        if examples.is_none() && is_new {
            match self.on_history(&wanted, &loaded) {
                Ok(false) => {}
                Ok(true) => fits.iter_mut().for_each(|fit| fit.tried = on_history()),
                Err(mistake) => self.mistakes.push(mistake),
            }
        }
        self.fits.extend(fits);
        Ok(Some(wanted.live(loaded)))
    }

    /// What is live already, where it has an answer for what may be other examples.
    fn tried_again(
        &mut self,
        wanted: &Wanted<'_>,
        loaded: Arc<Model>,
        examples: Option<&RecordBatch>,
    ) -> Option<Arc<Model>> {
        match examples.map(|examples| loaded.predict(examples)) {
            Some(Err(error)) => {
                let cause = format!("tried on its `examples`, the model fails: {error}");
                self.mistakes.push(DefError::new(&wanted.version.loc, cause));
                None
            }
            _ => Some(loaded),
        }
    }

    fn load_new(
        &mut self,
        wanted: &Wanted<'_>,
        files: Vec<Bytes>,
        examples: Option<&RecordBatch>,
    ) -> Result<Option<Arc<Model>>> {
        let runtime = match self.apply.loader.runtime() {
            Ok(runtime) => runtime,
            // Mistakes are the user's business first.
            Err(_) if !self.mistakes.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Wanted { model, version, service, .. } = wanted;
        let made = Made::new(version, &files, service, examples);
        match Model::load(runtime, &made, &wanted.rules()) {
            Ok(loaded) => {
                self.files.extend(files);
                Ok(Some(Arc::new(loaded)))
            }
            Err(mistake) => {
                let live = self.live.version(&model.name, Some(&version.version));
                // Of another file it is not the service that is to stay.
                let is_same = live.is_some_and(|live| live.model.digest == wanted.digest());
                self.mistakes.push(if is_same { mistake.with_help(KEEP_AS_IT_IS) } else { mistake });
                Ok(None)
            }
        }
    }

    /// Whether it was tried on vectors that its feature service had.
    fn on_history(&self, wanted: &Wanted<'_>, loaded: &Model) -> std::result::Result<bool, DefError> {
        // Where definitions do not hold, history cannot be asked.
        if !self.mistakes.is_empty() {
            return Ok(false);
        }
        let sample = match sample(&self.apply.history, self.compiled, wanted.service) {
            Ok(Some(sample)) => sample,
            Ok(None) => return Ok(false),
            Err(error) => {
                tracing::debug!(model = wanted.model.name, cause = %error, "no vectors of history to try it on");
                return Ok(false);
            }
        };
        match loaded.try_on(&sample.vectors) {
            Ok(_) => Ok(true),
            // What was made up may be what it says no to.
            Err(_) if sample.made_up => Ok(false),
            Err(error) => {
                let rows = sample.vectors.num_rows();
                // What it met may be for other eyes.
                let cause = error.logged();
                let cause = format!("tried on {rows} row(s) of its history, the model fails: {cause}");
                let help = "mend what it is fed; or, where it is right to refuse some of these, give it `examples:` \
                            that it must have an answer for instead";
                Err(DefError::new(&wanted.version.loc, cause).with_help(help))
            }
        }
    }
}

/// What is live of this step under an alias that was declared as it is now.
fn kept<'a>(
    live: &'a Deployment,
    model: &feature_defs::Model,
    version: &ModelVersion,
    step: (&str, &str),
) -> Option<Kept<'a>> {
    let Ok(RegisteredModel { which: Registered::Alias(_), .. }) = RegisteredModel::parse(step.1) else {
        return None;
    };
    let (_, LiveFile { digest, path }) = live_file(live, model, version, step)?;
    match RegisteredModel::parse(path).ok()?.which {
        Registered::Version(number) => Some(Kept { number, digest }),
        Registered::Alias(_) => None,
    }
}

/// The digest of what the server of this step told, where the very same model is live.
fn kept_of<'a>(
    live: &'a Deployment,
    model: &feature_defs::Model,
    version: &ModelVersion,
    (step, remote): (&str, &Remote),
) -> Option<&'a str> {
    let (declared, file) = live_file(live, model, version, (step, &remote.model))?;
    let Remote { server, version: asked, .. } = remote_of(&declared.artifact, step)?;
    (*server == remote.server && *asked == remote.version).then_some(file.digest.as_str())
}

/// The file of a step, and the version that is live, where that is declared with the same path.
fn live_file<'a>(
    live: &'a Deployment,
    model: &feature_defs::Model,
    version: &ModelVersion,
    step: (&str, &str),
) -> Option<(&'a ModelVersion, &'a LiveFile)> {
    let declared = live.compiled.catalog.definitions.models.get(&model.name)?;
    let declared = declared.versions.iter().find(|it| it.version == version.version)?;
    let files = &live.version(&model.name, Some(&version.version))?.files;
    let mut files = paths(&declared.artifact).into_iter().zip(files);
    files.find(|(declared, _)| *declared == step).map(|(_, file)| (declared, file))
}

/// What a plan says of a step whose server is away.
fn stays(model: &str, version: &ModelVersion, what: &str, cause: &str) -> DefError {
    let of = format!("model `{model}`, version `{}`: {what}", version.version);
    let cause = format!("{of}{cause}; what it told when the version went live stays");
    DefError::new(&version.loc, cause)
        .with_help("apply again once it answers, to hear whether it tells the same")
}

/// What a plan says where an alias leads elsewhere by now.
fn moved(
    (model, version, what): (&str, &ModelVersion, &str),
    path: &str,
    read: &registered::Version,
) -> Option<DefError> {
    let registered::Version { number, meant, .. } = read;
    (number != meant).then(|| {
        let cause = format!(
            "model `{model}`, version `{}`: {what}`{path}` is version {meant} now, and version {number} is live and stays",
            version.version
        );
        DefError::new(&version.loc, cause).with_help("declare a version of another name to take it")
    })
}
