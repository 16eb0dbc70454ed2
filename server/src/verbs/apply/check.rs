//! Which mistakes do these definitions have, in all stages that can be reached?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use feature_defs::{DefError, DefFile, Definition, Definitions, Kind, ModelVersion};
use quern_access::Caller;
use quern_engine::{Catalog, ServicePlan, SourceSchemas};
use quern_features::Compiled;
use tokio::runtime::Handle;

use super::Apply;
use super::model_file::{self, Mistake};
use super::owned;
use crate::error::{Error, Result};
use crate::live::loader::Wanted;
use crate::live::{Deployment, LiveModel, LiveVersion, Weights};
use quern_base::digest::sha256;
use quern_inference::{Model, digest, paths};
use quern_store::roots::ProjectRoots;
use quern_wire::Checked;

const KEEP_AS_IT_IS: &str = "this version is live: leave its feature service as it is, add a new service and a new \
                             model version beside them, and remove the old ones once nobody asks for them";

/// Definitions that hold: a deployment that is not live yet.
#[derive(Debug)]
pub struct Candidate {
    /// What would be live.
    pub deployment: Deployment,
    /// Number of what was live when it was checked.
    pub base: u64,
    /// Whose files were checked.
    project: String,
    /// For whom.
    pub(super) who: Caller,
    /// The model files that are not live yet.
    pub(super) files: Vec<Bytes>,
}

impl Candidate {
    /// Whose files were checked.
    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// How many definitions the project has.
    pub fn counts(&self) -> Checked {
        let definitions = &self.deployment.compiled.catalog.definitions;
        let count = |kind| {
            let own = |it: &&dyn Definition| it.kind() == kind && it.loc().project() == self.project;
            definitions.all().filter(own).count()
        };
        Checked {
            entities: count(Kind::Entity),
            sources: count(Kind::Source),
            feature_views: count(Kind::FeatureView),
            feature_services: count(Kind::FeatureService),
            models: count(Kind::Model),
            roles: count(Kind::Role),
            connections: count(Kind::Connection),
        }
    }
}

/// What a project is to be.
#[derive(Debug)]
pub(super) struct OfProject {
    /// Which one.
    pub(super) project: String,
    /// All its definition files.
    pub(super) files: Vec<DefFile>,
}

impl OfProject {
    /// Its files, and those of the other projects that are `live`, in order.
    fn beside(&self, live: &Deployment) -> Vec<DefFile> {
        let others = live.files.iter().filter(|file| file.project != self.project);
        let mut files: Vec<DefFile> = others.chain(&self.files).cloned().collect();
        files.sort();
        files
    }

    /// What is wrong, as it is told to who applies it: places of its own as they are, those of others by their project.
    fn refuse(&self, mut mistakes: Vec<DefError>) -> Error {
        mistakes.sort();
        mistakes.dedup();
        for mistake in &mut mistakes {
            let project = mistake.loc.project().to_owned();
            mistake.loc.project = (project != self.project).then(|| Arc::from(project.as_str()));
            if mistake.loc.project.is_some() {
                let help = mistake.help.take().map(|help| format!("; {help}")).unwrap_or_default();
                mistake.help = Some(format!(
                    "project `{project}` is live and needs what it uses to stay as it is: its owners move away first{help}"
                ));
            }
        }
        Error::definitions(mistakes)
    }
}

/// Checks a project for `who`, while somebody `waits`.
pub(super) fn check(apply: &Apply, who: Caller, of: &OfProject, waits: &Weak<()>) -> Result<Candidate> {
    let live = apply.live.now();
    let files = of.beside(&live);
    let definitions = feature_defs::parse(&files).map_err(|mistakes| of.refuse(mistakes))?;
    let mut mistakes = Vec::new();
    let mut schemas = SourceSchemas::new();
    for source in definitions.sources.values() {
        waited_for(waits)?;
        match apply.history.schema(source) {
            Ok(schema) => {
                mistakes.extend(apply.history.sampled(source, &schema));
                schemas.insert(source.name.clone(), schema);
            }
            Err(found) => mistakes.extend(found),
        }
    }
    let catalog = match quern_engine::compile(definitions.clone(), &schemas) {
        Ok(catalog) => catalog,
        Err(found) => {
            mistakes.extend(found);
            // What does compile still feeds models, and these may have mistakes of their own.
            Catalog { services: services_that_compile(&definitions, &schemas), ..Catalog::default() }
        }
    };
    let compiled = Compiled { catalog, source_schemas: schemas };
    for (name, source) in
        definitions.sources.iter().filter(|(name, _)| compiled.source_schemas.contains_key(*name))
    {
        mistakes.extend(apply.history.mismatches(source, &compiled.used(name)));
    }
    let services = &compiled.catalog.services;
    let roots = &apply.settings.roots();
    let mut models = Models { apply, roots, live: &live, services, mistakes, files: Vec::new(), waits };
    let weights = kept_weights(&live, &definitions);
    let loaded = models.load(&definitions, &weights)?;
    let Models { mut mistakes, files: model_files, .. } = models;
    let (access, audit) = apply.loader.access(&definitions);
    for (name, live) in &loaded {
        mistakes.extend(owned::check(&definitions.models[name], live, &access));
    }
    if !mistakes.is_empty() {
        return Err(of.refuse(mistakes));
    }
    let number = live.number + 1;
    let (compiled, models) = (Arc::new(compiled), loaded);
    let deployment =
        Deployment { number, files, compiled, models, weights, access, audit, ..Deployment::default() };
    let project = of.project.clone();
    Ok(Candidate { deployment, base: live.number, project, who, files: model_files })
}

/// A source may be of a thousand files, and a model be tried for seconds: nobody should begin on one for nobody.
fn waited_for(waits: &Weak<()>) -> Result<()> {
    match waits.strong_count() {
        0 => Err(Error::late("nobody waits for these definitions any more")),
        _ => Ok(()),
    }
}

/// Weights that were set in flight hold until the model's route is declared in another way.
fn kept_weights(live: &Deployment, definitions: &Definitions) -> Weights {
    let route = |definitions: &Definitions, model: &str| {
        let route = definitions.models.get(model)?.route.clone()?;
        Some((
            route.weights,
            route.sticky.into_iter().map(|column| column.sql).collect::<Vec<_>>(),
            route.salt,
        ))
    };
    let same = |model: &str| {
        let declared = route(&live.compiled.catalog.definitions, model);
        declared.is_some() && declared == route(definitions, model)
    };
    live.weights
        .iter()
        .filter(|(model, _)| same(model))
        .map(|(name, set)| (name.clone(), set.clone()))
        .collect()
}

/// Each service compiled with no more than it needs, so that the mistakes of others do not matter.
fn services_that_compile(
    definitions: &Definitions,
    schemas: &SourceSchemas,
) -> BTreeMap<String, Arc<ServicePlan>> {
    let compile = |name: &String| {
        let mut part = definitions.clone();
        part.services.retain(|other, _| other == name);
        let joined: BTreeSet<&str> =
            definitions.services[name].projections.iter().map(|p| p.view.as_str()).collect();
        part.views.retain(|view, _| joined.contains(view.as_str()));
        let mut catalog = quern_engine::compile(part, schemas).ok()?;
        Some((name.clone(), catalog.services.remove(name)?))
    };
    definitions.services.keys().filter_map(compile).collect()
}

/// The models of a candidate, while they are loaded.
struct Models<'a> {
    apply: &'a Apply,
    roots: &'a ProjectRoots,
    live: &'a Deployment,
    services: &'a BTreeMap<String, Arc<ServicePlan>>,
    mistakes: Vec<DefError>,
    files: Vec<Bytes>,
    waits: &'a Weak<()>,
}

impl Models<'_> {
    /// Loads every version whose service compiled. Of the others only the file is looked for: what else is wrong with
    /// them has been said where it is wrong.
    fn load(
        &mut self,
        definitions: &Definitions,
        weights: &Weights,
    ) -> Result<BTreeMap<String, Arc<LiveModel>>> {
        let mut models = BTreeMap::new();
        for model in definitions.models.values() {
            let mut versions = Vec::new();
            for version in &model.versions {
                waited_for(self.waits)?;
                let found = self.read(version, definitions);
                if let (Some(files), Some(service)) = (found, self.services.get(&version.service)) {
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
    fn read(&mut self, version: &ModelVersion, definitions: &Definitions) -> Option<Vec<Bytes>> {
        let Apply { fetched, registry, .. } = self.apply;
        let leads = |url: &str| definitions.connection(version.loc.project(), url).is_some();
        let folders = self.roots.at(&version.loc).map_err(|mistake| self.mistakes.push(mistake)).ok()?;
        let files = paths(&version.artifact).into_iter().map(|(step, path)| {
            let file = match path.contains("://") {
                false => model_file::of_repository(folders, path),
                // This thread may block: definitions are checked away from those that answer.
                true => Handle::current().block_on(fetched.read(path, &registry.artifacts, &leads)),
            };
            let what = if step.is_empty() { String::new() } else { format!("step `{step}`: ") };
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
        files: Vec<Bytes>,
    ) -> Result<Option<Arc<LiveVersion>>> {
        let files_by_digest = files.iter().map(|file| sha256(file)).collect();
        let wanted = Wanted { model, version, service, files: files_by_digest };
        let loaded = match wanted.reusable(self.live) {
            Some(loaded) => loaded,
            None => match self.load_new(&wanted, files)? {
                Some(loaded) => loaded,
                None => return Ok(None),
            },
        };
        Ok(Some(wanted.live(loaded)))
    }

    fn load_new(&mut self, wanted: &Wanted<'_>, files: Vec<Bytes>) -> Result<Option<Arc<Model>>> {
        let runtime = match self.apply.loader.runtime() {
            Ok(runtime) => runtime,
            // Mistakes are the user's business first.
            Err(_) if !self.mistakes.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Wanted { model, version, service, .. } = wanted;
        match Model::load(runtime, (&version.artifact, &version.loc), &files, service, &wanted.rules()) {
            Ok(loaded) => {
                self.files.extend(files);
                Ok(Some(Arc::new(loaded)))
            }
            Err(mistake) => {
                let live = self.live.version(&model.name, Some(&version.version));
                // Of another file it is not the service that is to stay.
                let is_same =
                    live.is_some_and(|live| live.model.digest == digest(&version.artifact, &wanted.files));
                self.mistakes.push(if is_same { mistake.with_help(KEEP_AS_IT_IS) } else { mistake });
                Ok(None)
            }
        }
    }
}
