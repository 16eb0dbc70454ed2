//! Which mistakes do these definitions have, in all stages that can be reached?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use feature_defs::{DefError, DefFile, Definition, Definitions, Kind, Source};
use quern_access::Caller;
use quern_engine::{Catalog, ServicePlan, SourceSchemas};
use quern_features::Compiled;
use quern_warehouse::Drivers;

use super::Apply;
use super::kept::{Kept, kept};
use super::owned;
use super::versions::{Models, waited_for};
use crate::error::{Error, Result};
use crate::live::Deployment;
use quern_wire::{Checked, ModelFit};

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
    /// How the files of all versions of models are fed.
    fits: Vec<ModelFit>,
    /// The aliases that lead to other versions than those that are live.
    pub(super) moved: Vec<DefError>,
    /// The columns that some files of its sources lack.
    pub(super) gaps: Vec<String>,
}

impl Candidate {
    /// Whose files were checked.
    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// How the files of its versions are fed, of those that are `wanted` by model and version.
    pub(super) fn fits(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<ModelFit> {
        let models = &self.deployment.compiled.catalog.definitions.models;
        let own = |fit: &&ModelFit| models.get(&fit.model).is_some_and(|it| it.loc.project() == self.project);
        self.fits.iter().filter(own).filter(|fit| wanted(&fit.model, &fit.version)).cloned().collect()
    }

    /// How many definitions the project has.
    pub fn counts(&self) -> Checked {
        let definitions = &self.deployment.compiled.catalog.definitions;
        let own = definitions.sources.values().filter(|source| source.loc.project() == self.project);
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
            fits: self.fits(|_, _| true),
            notes: self.gaps.iter().cloned().chain(own.filter_map(untold_ties)).collect(),
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

    /// What is said of its own definitions.
    fn own(&self, mut said: Vec<DefError>) -> Vec<DefError> {
        said.retain(|it| it.loc.project() == self.project);
        said.iter_mut().for_each(|it| it.loc.project = None);
        said
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
    let mut gaps = Vec::new();
    for (name, source) in
        definitions.sources.iter().filter(|(name, _)| compiled.source_schemas.contains_key(*name))
    {
        let fits = apply.history.fits(source, &compiled.used(name));
        mistakes.extend(fits.mistakes);
        if source.loc.project() == of.project {
            gaps.extend(fits.gaps);
            gaps.extend(without_driver(apply, source));
        }
    }
    let (roots, files_of_models, fits) = (&apply.settings.roots(), Vec::new(), Vec::new());
    let mut models = Models {
        apply,
        roots,
        live: &live,
        compiled: &compiled,
        mistakes,
        files: files_of_models,
        fits,
        moved: Vec::new(),
        waits,
    };
    let Kept { weights, ramps } = kept(&live, &definitions);
    let loaded = models.load(&definitions, &weights)?;
    let Models { mut mistakes, files: model_files, fits, moved, .. } = models;
    let (access, audit) = apply.loader.access(&definitions);
    for (name, live) in &loaded {
        mistakes.extend(owned::check(&definitions.models[name], live, &access));
    }
    if !mistakes.is_empty() {
        return Err(of.refuse(mistakes));
    }
    let number = live.number + 1;
    let (compiled, models) = (Arc::new(compiled), loaded);
    let deployment = Deployment {
        number,
        files,
        compiled,
        models,
        weights,
        ramps,
        access,
        audit,
        ..Deployment::default()
    };
    let (project, moved) = (of.project.clone(), of.own(moved));
    Ok(Candidate { deployment, base: live.number, project, who, files: model_files, fits, moved, gaps })
}

/// That a source cannot be pulled here. It is no mistake: definitions are checked in more places than they run at.
fn without_driver(apply: &Apply, source: &Source) -> Option<String> {
    let database = source.pull.as_ref()?.connection.as_ref()?.database.as_ref()?;
    let found = Drivers(apply.settings.adbc_drivers.clone()).find(&database.driver);
    found.err().map(|error| format!("source `{}` cannot be pulled here: {}", source.name, error.said()))
}

/// That of rows with the same key and time any may count.
fn untold_ties(source: &Source) -> Option<String> {
    let why = source.untold_ties()?;
    Some(format!(
        "source `{}`: of rows with the same key and event timestamp the last one counts, and {why}; a `created_timestamp` \
         settles it",
        source.name
    ))
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
