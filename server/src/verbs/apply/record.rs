//! What does the registry keep of an apply?

use feature_defs::Artifact;
use quern_inference::paths;
use quern_store::registry::{AppliedModel, Apply};

use crate::live::loader::row_of;
use crate::live::ramp::Ramp;
use crate::live::{Deployment, describe};

pub(super) fn record_of(deployment: &Deployment) -> Apply {
    let definitions = &deployment.compiled.catalog.definitions;
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
            // Where the version is one file, the row is the file's: how it is fed stands in the definitions.
            rows.push(match (&version.artifact, live.files.as_slice()) {
                (Artifact::File(_), [file]) => row(version.version.clone(), &file.digest, &file.path),
                _ => row(version.version.clone(), &live.model.digest, ""),
            });
            let steps = paths.iter().zip(&live.files).filter(|((step, _), _)| !step.is_empty());
            rows.extend(steps.map(|((step, _), file)| row(row_of(version, step), &file.digest, &file.path)));
        }
        rows
    });
    Apply {
        number: deployment.number,
        applied_at_us: deployment.applied_at_us,
        fingerprint: describe::fingerprint(deployment),
        files: deployment.files.clone(),
        source_schemas: deployment.compiled.source_schemas.clone(),
        models: models.collect(),
        weights: deployment.weights.clone(),
        ramps: deployment.ramps.iter().map(|(model, ramp)| (model.clone(), written(ramp))).collect(),
    }
}

fn written(ramp: &Ramp) -> String {
    serde_json::to_string(ramp).expect("texts and numbers are JSON")
}
