//! Which version answers whom, changed in flight?
//!
//! New weights are an apply of their own, of the same definitions: it has a number, goes live at once for every request
//! that comes after it, and reaches other servers as any apply does. They hold until the model's route is declared in
//! another way. A request says what becomes of the versions that it names; the others keep their weights, or share the
//! rest as they shared before. It counts from what is live here: where another server was faster, the registry refuses.
//! A request may leave the weights of one version to a [`ramp`](super::ramp) instead; any other one ends that.

use std::sync::Arc;

use feature_defs::suggest;
use quern_access::{Action, Caller};
use quern_base::clock::now_us;
use quern_base::tasks::{blocking, detached};
use quern_wire::{RouteRequest, Routed, percentages};

use super::Apply;
use super::begin::{Before, begin};
use super::record::record_of;
use super::weights::{is_alike, shown, weigh};
use crate::error::{Error, Result};
use crate::live::ramp::{End, Ramps};
use crate::live::{Deployment, LiveModel, Weights};

impl Apply {
    /// Sets the shares of the versions of `model` that `request` names, or has the share of one grow by itself. No
    /// shares at all give back the weights that are declared, and forget the model's ramp.
    ///
    /// # Errors
    /// `Kind::NotFound` for an unknown model or version, `Kind::Refused` for a model without a `route`,
    /// `Kind::InvalidArgument` for shares that no weights are, and for ramps that none is.
    pub async fn route(self: &Arc<Self>, who: Caller, model: &str, request: RouteRequest) -> Result<Routed> {
        let (apply, model) = (Arc::clone(self), model.to_owned());
        let asked = (self.live.now(), who.clone(), model.clone());
        blocking("noting who changes a route", move || {
            asked.0.seen_by(&asked.1).act_on(Action::Route, &asked.2)
        })
        .await?;
        // A task of its own: a caller who goes away must not stop it between the registry and what is live.
        detached("changing a route", async move { apply.route_one(&who, &model, request).await }).await
    }

    async fn route_one(&self, who: &Caller, model: &str, request: RouteRequest) -> Result<Routed> {
        let _one_at_a_time = self.live.turn().await;
        if let Some(trouble) = self.live.following().unreadable() {
            return Err(Error::refused(format!("{trouble}; nothing can be changed here on top of it")));
        }
        let live = self.live.now();
        let old = live.seen_by(who).model(Action::Route, model)?;
        let declared = &live.compiled.catalog.definitions.models[model];
        if declared.route.is_none() {
            // The last one answers until then.
            let last = old.versions.len().saturating_sub(1);
            let weights = old.versions.iter().enumerate().map(|(place, known)| {
                format!("\"{}\": {}", known.version, if place == last { 100 } else { 0 })
            });
            return Err(Error::refused(format!(
                "model `{model}` has no route; declare one ({}:{}) and apply: `route: {{weights: {{{}}}}}` leaves all as it is",
                declared.loc.file,
                declared.loc.line,
                weights.collect::<Vec<_>>().join(", ")
            )));
        }
        let named = request.weights.keys().chain(request.ramp.iter().map(|ramp| &ramp.version));
        if let Some(version) = named.into_iter().find(|version| old.place(version).is_none()) {
            let known = suggest(version, old.versions.iter().map(|known| known.version.as_str()));
            return Err(Error::not_found(format!("model `{model}` has no version `{version}`; {known}")));
        }
        let begins = request.ramp.is_some();
        let now_us = if begins { self.registry.now_us().await? } else { now_us() };
        let change = changed(&live, (model, old), request, now_us)?;
        let ended = live.ramps.get(model).filter(|ramp| ramp.is_running());
        let (before, is_same) = (shown(old), change.weights == live.weights && change.ramps == live.ramps);
        let deployment = rerouted(&live, model, change)?;
        let after = shown(&deployment.models[model]);
        let number = if is_same { live.number } else { deployment.number };
        let ramp = deployment.ramps.get(model).filter(|_| begins);
        let routed = Routed {
            number,
            percent: percentages(&after),
            percent_before: percentages(&before),
            weights: after,
            ramp: ramp.map(|ramp| ramp.status(model, None, now_us)),
            ended_ramp: ended.map(ToString::to_string),
        };
        if !is_same {
            self.record_route(model, deployment).await?;
        }
        Ok(routed)
    }

    /// Makes what [`rerouted`] gave live.
    pub(super) async fn record_route(&self, model: &str, deployment: Deployment) -> Result<()> {
        self.registry.record(&record_of(&deployment)).await?;
        let weights = shown(&deployment.models[model]).into_iter();
        let weights: Vec<String> = weights.map(|(version, weight)| format!("{version}={weight}")).collect();
        tracing::info!(number = deployment.number, model, weights = weights.join(" "), "a route is live");
        self.live.replace(deployment);
        Ok(())
    }
}

/// What is set in flight, of all models.
pub(super) struct Change {
    pub(super) weights: Weights,
    pub(super) ramps: Ramps,
}

/// What is set where `request` is done to a model that is live.
fn changed(
    live: &Deployment,
    (name, model): (&str, &LiveModel),
    request: RouteRequest,
    now_us: i64,
) -> Result<Change> {
    let before = shown(model);
    let (mut weights, mut ramps) = (live.weights.clone(), live.ramps.clone());
    let number = live.number + 1;
    let asked = match request.ramp {
        Some(_) if !request.weights.is_empty() => {
            return Err(Error::invalid(
                "give `weights` or a `ramp`, not both: a ramp sets the weights itself",
            ));
        }
        Some(ramp) => {
            let before_it = Before { weights: before.clone(), set: weights.get(name).cloned() };
            let ramp = begin(ramp, before_it, number, now_us).map_err(Error::invalid)?;
            let first = weigh(&before, &[(ramp.version.clone(), ramp.share().into())].into());
            ramps.insert(name.to_owned(), ramp);
            first.map_err(Error::invalid)?
        }
        None if request.weights.is_empty() => {
            weights.remove(name);
            ramps.remove(name);
            return Ok(Change { weights, ramps });
        }
        None => {
            if let Some(ramp) = ramps.get_mut(name).filter(|ramp| ramp.is_running()) {
                *ramp = ramp.ended(End::Ended(format!("apply {number} set weights")), number, now_us);
            }
            weigh(&before, &request.weights).map_err(Error::invalid)?
        }
    };
    if !is_alike(&before, &asked) {
        weights.insert(name.to_owned(), asked.into_iter().collect());
    }
    Ok(Change { weights, ramps })
}

/// What is live after `live` where the route of `model` is changed so.
pub(super) fn rerouted(live: &Deployment, model: &str, change: Change) -> Result<Deployment> {
    let declared = &live.compiled.catalog.definitions.models[model];
    let set = change.weights.get(model).map(Vec::as_slice);
    let new =
        LiveModel::new(declared, live.models[model].versions.clone(), set).map_err(Error::definitions)?;
    let mut models = live.models.clone();
    models.insert(model.to_owned(), Arc::new(new));
    Ok(Deployment {
        number: live.number + 1,
        files: live.files.clone(),
        compiled: Arc::clone(&live.compiled),
        models,
        weights: change.weights,
        ramps: change.ramps,
        access: Arc::clone(&live.access),
        audit: live.audit.clone(),
        applied_at_us: now_us(),
        ..Deployment::default()
    })
}
