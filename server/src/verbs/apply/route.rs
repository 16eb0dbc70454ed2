//! Which version answers whom, changed in flight?
//!
//! New weights are an apply of their own, of the same definitions: it has a number, goes live at once for every request
//! that comes after it, and reaches other servers as any apply does. They hold until the model's route is declared in
//! another way.

use std::sync::Arc;

use feature_defs::suggest;
use quern_base::tasks::detached;
use quern_wire::{RouteRequest, Routed};

use super::Apply;
use super::record::record_of;
use crate::error::{Error, Result};
use crate::live::{Deployment, LiveModel};

impl Apply {
    /// Sets the weights of the versions of `model`; versions that are not named get none. No weights at all give those
    /// that are declared.
    ///
    /// # Errors
    /// `Kind::NotFound` for an unknown model or version, `Kind::Refused` for a model without a `route`.
    pub async fn route(self: &Arc<Self>, model: &str, request: RouteRequest) -> Result<Routed> {
        let (apply, model) = (Arc::clone(self), model.to_owned());
        // A task of its own: a caller who goes away must not stop it between the registry and what is live.
        detached("changing a route", async move { apply.route_one(&model, request).await }).await
    }

    async fn route_one(&self, model: &str, request: RouteRequest) -> Result<Routed> {
        let _one_at_a_time = self.live.turn().await;
        if let Some(trouble) = self.live.following().unreadable() {
            return Err(Error::refused(format!("{trouble}; nothing can be changed here on top of it")));
        }
        let live = self.live.now();
        let Some(old) = live.models.get(model) else {
            let known = suggest(model, live.models.keys().map(String::as_str));
            return Err(Error::not_found(format!("unknown model `{model}`; {known}")));
        };
        let declared = &live.compiled.catalog.definitions.models[model];
        if declared.route.is_none() {
            return Err(Error::refused(format!(
                "model `{model}` has no route; declare its `route` with `weights` ({}:{}) and apply",
                declared.loc.file, declared.loc.line
            )));
        }
        let mut set = live.weights.clone();
        set.remove(model);
        if !request.weights.is_empty() {
            for version in request.weights.keys() {
                if old.place(version).is_none() {
                    let known = suggest(version, old.versions.iter().map(|known| known.version.as_str()));
                    return Err(Error::not_found(format!(
                        "model `{model}` has no version `{version}`; {known}"
                    )));
                }
            }
            if request.weights.values().all(|weight| *weight == 0) {
                return Err(Error::invalid(
                    "every weight is 0, so no version would answer; give one a weight",
                ));
            }
            set.insert(model.to_owned(), request.weights.into_iter().collect());
        }
        let weights = set.get(model).map(Vec::as_slice);
        let new = LiveModel::new(declared, old.versions.clone(), weights).map_err(Error::definitions)?;
        let shares = new
            .versions
            .iter()
            .enumerate()
            .map(|(place, version)| (version.version.clone(), new.route.weight(place)));
        let shares = shares.collect();
        if set == live.weights {
            return Ok(Routed { number: live.number, weights: shares });
        }
        let mut models = live.models.clone();
        models.insert(model.to_owned(), Arc::new(new));
        let deployment = Deployment {
            number: live.number + 1,
            files: live.files.clone(),
            compiled: Arc::clone(&live.compiled),
            models,
            weights: set,
        };
        self.registry.record(&record_of(&deployment)).await?;
        let number = deployment.number;
        tracing::info!(number, model, weights = ?shares, "a route is live");
        self.live.replace(deployment);
        Ok(Routed { number, weights: shares })
    }
}
