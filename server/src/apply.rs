//! Do these definitions hold, what would they change, and how do they go live?
//!
//! Three verbs, each standing on the one before: [`check`] finds every mistake and makes a [`Candidate`], [`plan`] says
//! what the candidate would change, and [`apply`] makes it live, or refuses where a model in use would break.

mod check;
pub(crate) mod describe;
pub(crate) mod mlflow;
mod model_file;
mod plan;
mod route;

use std::sync::Arc;

use feature_defs::{Artifact, DefFile, ModelVersion};

pub use self::check::Candidate;
pub use self::describe::Kind;
pub(crate) use self::model_file::Fetched;
use self::plan::Stored;
pub use self::plan::{Action, Break, Change, KeyChange, Plan, Reason, ViewToMaterialize};
pub use self::route::route;
use crate::deployment::{Deployment, Quern};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::store::registry::{AppliedModel, Apply};
use quern_inference::paths;

/// Compiles `files` against the sources and models they name, as they lie there now, in the repository or in an
/// object store.
///
/// # Errors
/// `Kind::Definitions` with the mistakes of every stage that could be reached.
pub async fn check(quern: &Arc<Quern>, files: Vec<DefFile>) -> Result<Candidate> {
    let quern = Arc::clone(quern);
    // Footers are read, expressions compiled and models loaded: nothing that an async thread could wait for.
    let checking = tokio::task::spawn_blocking(move || check::check(&quern, files));
    checking.await.map_err(|error| Error::internal("checking definitions", error))?
}

/// What `candidate` would change of what is live now.
pub async fn plan(quern: &Quern, candidate: &Candidate) -> Result<Plan> {
    let live = quern.live();
    let sources = &candidate.deployment.catalog.definitions.sources;
    let stored = Stored {
        kept: &|view| quern.head.kept(view),
        history: &|source| sources.get(source).map(|source| quern.history.size(source)).unwrap_or_default(),
    };
    let mut plan = Plan::between(&live, &candidate.deployment, &stored);
    for (model, live) in &candidate.deployment.models {
        for version in &live.versions {
            let digest = &version.model.digest;
            match quern.registry.first_digest(model, &version.version).await? {
                Some((number, first)) if first != *digest => {
                    plan.breaks.push(Break::content(model, &version.version, number));
                }
                _ => {}
            }
        }
    }
    Ok(plan)
}

/// Makes `candidate` live, all at once, and returns what that changed. Where it changes nothing, nothing is written.
///
/// # Errors
/// `Kind::Refused` where it would break a model in use, or where something else went live since it was checked.
pub async fn apply(quern: &Arc<Quern>, candidate: Candidate) -> Result<Plan> {
    let quern = Arc::clone(quern);
    // A task of its own: a caller who goes away must not stop an apply between the registry and what is live.
    let applying = tokio::spawn(async move { apply_one(&quern, candidate).await });
    applying.await.map_err(|error| Error::internal("applying definitions", error))?
}

async fn apply_one(quern: &Arc<Quern>, candidate: Candidate) -> Result<Plan> {
    let _one_at_a_time = quern.applying.lock().await;
    if let Some(trouble) = quern.following.unreadable() {
        return Err(Error::refused(format!("{trouble}; nothing can be applied here on top of it")));
    }
    let plan = plan(quern, &candidate).await?;
    if plan.is_empty() {
        return Ok(plan);
    }
    if candidate.base != quern.live().number {
        return Err(Error::refused(format!(
            "apply {} went live since these definitions were checked; plan again to see what is left to change",
            quern.live().number
        )));
    }
    if !plan.breaks.is_empty() {
        let breaks: Vec<String> = plan.breaks.iter().map(Break::to_string).collect();
        return Err(Error::refused(format!("this would break a model in use\n{}", breaks.join("\n"))));
    }
    let Candidate { deployment, files, .. } = candidate;
    // Files first: a crash in between leaves a file that nobody names, never a name without its file.
    for bytes in files {
        quern.registry.artifacts.store(bytes).await?;
    }
    quern.registry.record(&record_of(&deployment)).await.map_err(|error| match error.kind() {
        ErrorKind::Unavailable => error.told(|what| {
            format!(
                "{what}; if apply {} was written all the same, it goes live once the registry answers again: plan again then",
                deployment.number
            )
        }),
        _ => error,
    })?;
    tracing::info!(number = deployment.number, changes = plan.changes.len(), "definitions are live");
    quern.go_live(deployment);
    Ok(Plan { applied: true, ..plan })
}

fn record_of(deployment: &Deployment) -> Apply {
    let definitions = &deployment.catalog.definitions;
    let versions =
        definitions.models.values().flat_map(|model| model.versions.iter().map(move |v| (model, v)));
    // A row for the version, and where it has steps one for the file of each.
    let models = versions.flat_map(|(model, version)| {
        let live = deployment.version(&model.name, Some(&version.version));
        let row = |version_of: String, digest: &str, path: &str| AppliedModel {
            model: model.name.clone(),
            version: version_of,
            digest: digest.to_owned(),
            path: path.to_owned(),
            service: version.service.clone(),
        };
        let mut rows = Vec::new();
        if let Some(live) = live {
            let paths = paths(&version.artifact);
            let path = if let Artifact::File(path) = &version.artifact { path } else { "" };
            rows.push(row(version.version.clone(), &live.model.digest, path));
            let steps = paths.iter().zip(&live.files).filter(|((step, _), _)| !step.is_empty());
            rows.extend(steps.map(|((step, path), digest)| row(row_of(version, step), digest, path)));
        }
        rows
    });
    Apply {
        number: deployment.number,
        applied_at_us: chrono::Utc::now().timestamp_micros(),
        fingerprint: describe::fingerprint(deployment),
        files: deployment.files.clone(),
        source_schemas: deployment.source_schemas.clone(),
        models: models.collect(),
        weights: deployment.weights.clone(),
    }
}

/// What the registry calls the file of a step, or of a version that is one file.
pub(crate) fn row_of(version: &ModelVersion, step: &str) -> String {
    match step {
        "" => version.version.clone(),
        step => format!("{}/{step}", version.version),
    }
}

#[cfg(test)]
mod tests;
