//! Is an apply what it was when it was written?

use std::io::{self, Write};

use feature_defs::{DEFAULT_PROJECT, DefFile};
use quern_base::digest::Hashing;

use super::{AppliedModel, Apply, encode_schema};
use crate::error::Result;

impl Apply {
    /// The schemas of its sources as they are stored, by source.
    pub(super) fn stored_schemas(&self) -> Result<Vec<(String, String)>> {
        let schemas = self.source_schemas.iter();
        schemas.map(|(source, schema)| Ok((source.clone(), encode_schema(schema)?))).collect()
    }

    /// What tells that it is as it was written: the SHA-256 of each text behind its length, in order; of schemas as
    /// they are stored, by source.
    pub(super) fn sha256(&self, schemas: &[(String, String)]) -> Result<String> {
        let Apply { number, applied_at_us, fingerprint, files, source_schemas: _, models, weights, ramps } =
            self;
        let mut hashing = Hashing::into(io::sink());
        let mut take = |texts: &[&str]| {
            texts.iter().try_for_each(|text| {
                hashing.write_all(&(text.len() as u64).to_le_bytes())?;
                hashing.write_all(text.as_bytes())
            })
        };
        take(&[&number.to_string(), &applied_at_us.to_string(), fingerprint])?;
        files.iter().try_for_each(|DefFile { project, path, text }| match project.as_str() {
            DEFAULT_PROJECT => take(&["file", path, text]),
            project => take(&["file of", project, path, text]),
        })?;
        schemas.iter().try_for_each(|(source, schema)| take(&["schema", source, schema]))?;
        let model = |model: &AppliedModel| {
            let AppliedModel { model, version, digest, path, service } = model;
            [model, version, digest, path, service].map(String::clone)
        };
        let mut models: Vec<[String; 5]> = models.iter().map(model).collect();
        models.sort();
        models.iter().try_for_each(|row| take(&row.each_ref().map(String::as_str)))?;
        for (model, weights) in weights {
            let mut weights: Vec<String> =
                weights.iter().map(|(version, weight)| format!("{version} {weight}")).collect();
            weights.sort();
            take(&["weights", model, &weights.join(",")])?;
        }
        ramps.iter().try_for_each(|(model, ramp)| take(&["ramp", model, ramp]))?;
        Ok(hashing.finish().1.sha256)
    }
}
