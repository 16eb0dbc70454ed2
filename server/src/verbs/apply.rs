//! Do these definitions hold, what would they change, and how do they go live?
//!
//! Three steps, each standing on the one before: [`Apply::check`] finds every mistake and makes a [`Candidate`],
//! [`Apply::plan`] says what the candidate would change, and [`Apply::apply`] makes it live, or refuses where a model
//! in use would break.

mod begin;
mod changes;
mod check;
mod fits;
mod judge;
mod kept;
mod model_file;
mod notes;
mod owned;
mod plan;
mod ramp;
mod record;
mod registered;
mod reused;
mod route;
mod told;
mod versions;
mod weights;

use std::sync::Arc;

use quern_access::Caller;
use quern_base::clock::now_us;
use quern_base::points::pass;
use quern_base::tasks::{blocking, detached, long};
use quern_store::history::History;
use quern_store::online::Online;
use quern_store::registry::Registry;
use quern_wire::{Break, Plan};

pub use self::check::Candidate;
use self::check::OfProject;
use self::kept::notes_of_ramps;
use self::model_file::Fetched;
use self::notes::of_services;
use self::plan::Stored;
pub(crate) use self::ramp::Ramping;
use self::record::record_of;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::live::{Live, Loader};
use crate::repository;
use crate::settings::Settings;

/// Checks definitions, plans what they would change, and makes them live.
pub struct Apply {
    /// Where the repositories are, and where the paths of definitions lead.
    pub(crate) settings: Arc<Settings>,
    pub(crate) live: Live,
    pub(crate) loader: Arc<Loader>,
    pub(crate) registry: Registry,
    /// Asked for schemas and sizes.
    pub(crate) history: Arc<History>,
    /// Asked for what it keeps of windows.
    pub(crate) head: Online,
    /// What was read of object stores.
    pub(crate) fetched: Fetched,
    /// Names it to others that run ramps.
    pub(crate) ramping: Ramping,
}

impl Apply {
    /// For `who`, compiles the files of a project as its repository has them now, beside those of others that are live,
    /// against the sources and models they name, as they lie there now, in the repository or in an object store.
    /// Whoever drops the future ends it before the next file.
    ///
    /// # Errors
    /// `Kind::Definitions` with the mistakes of every stage that could be reached; `Kind::Forbidden` for who may not
    /// change any definition, who is not told either whether there is such a project; what [`repository::read`] says.
    pub async fn check(self: &Arc<Self>, who: Caller, project: String) -> Result<Candidate> {
        self.live.now().seen_by(&who).apply_in(&project, "check definitions")?;
        let (apply, caller) = (Arc::clone(self), Arc::new(()));
        let waits = Arc::downgrade(&caller);
        // Footers are read, expressions compiled and models loaded: nothing that an async thread could wait for.
        let checking = move || {
            let files = repository::read(&apply.settings, &project)?.files;
            check::check(&apply, who, &OfProject { project, files }, &waits)
        };
        long("checking definitions", checking).await
    }

    /// What `candidate` would change of what is live now, for whom it was checked.
    ///
    /// # Errors
    /// `Kind::Forbidden` for who may not change any definition by now.
    pub fn plan(&self, candidate: &Candidate) -> Result<Plan> {
        let live = self.live.now();
        let number = candidate.deployment.number;
        live.seen_by(&candidate.who).apply_in(candidate.project(), format_args!("plan apply {number}"))?;
        let plan = self.planned(candidate);
        let judged = judge::judge(&candidate.who, (&live, &candidate.deployment), &plan.changes);
        Ok(Plan { forbidden: judged.err().map(|refused| refused.said()), ..plan })
    }

    fn planned(&self, candidate: &Candidate) -> Plan {
        let live = self.live.now();
        let sources = &candidate.deployment.compiled.catalog.definitions.sources;
        let stored = Stored {
            kept: &|view| self.head.kept(view),
            history: &|source| {
                sources.get(source).map(|source| self.history.size(source)).unwrap_or_default()
            },
        };
        let mut plan = plan::between(&live, &candidate.deployment, &stored);
        // What stays as it is in other projects is nobody's business here.
        let views = &candidate.deployment.compiled.catalog.definitions.views;
        plan.keep.retain(|view| views[view].loc.project() == candidate.project());
        plan.fits = candidate.fits(|model, version| {
            let [now, then] = [&*live, &candidate.deployment].map(|it| it.version(model, Some(version)));
            !matches!((now, then), (Some(now), Some(then)) if Arc::ptr_eq(&now.model, &then.model))
        });
        plan.affected.extend(candidate.gaps.iter().cloned());
        plan.affected.extend(candidate.moved.iter().map(ToString::to_string));
        plan.affected.extend(of_services(&live, &candidate.deployment, candidate.project()));
        if !plan.is_empty() {
            plan.affected.extend(notes_of_ramps(&live, &candidate.deployment, candidate.project()));
        }
        plan
    }

    /// Makes `candidate` live, all at once, and returns what that changed. Where it changes nothing, nothing is
    /// written.
    ///
    /// # Errors
    /// `Kind::Refused` where it would break a model in use, or where something else went live since it was checked;
    /// `Kind::Forbidden` for changes that are not for who asked.
    pub async fn apply(self: &Arc<Self>, candidate: Candidate) -> Result<Plan> {
        let apply = Arc::clone(self);
        // A task of its own: a caller who goes away must not stop an apply between the registry and what is live.
        detached("applying definitions", async move { apply.apply_one(candidate).await }).await
    }

    async fn apply_one(&self, candidate: Candidate) -> Result<Plan> {
        let _one_at_a_time = self.live.turn().await;
        if let Some(trouble) = self.live.following().unreadable() {
            return Err(Error::refused(format!("{trouble}; nothing can be applied here on top of it")));
        }
        let plan = self.planned(&candidate);
        if plan.is_empty() {
            return Ok(plan);
        }
        if candidate.base != self.live.now().number {
            return Err(Error::refused(format!(
                "apply {} went live since these definitions were checked; plan again to see what is left to change",
                self.live.now().number
            )));
        }
        let (live, who) = (self.live.now(), &candidate.who);
        judge::judge(who, (&live, &candidate.deployment), &plan.changes).inspect_err(|_| {
            live.audit.note(who, format_args!("apply {}", candidate.deployment.number), || None);
        })?;
        if !plan.breaks.is_empty() {
            let breaks: Vec<String> = plan.breaks.iter().map(Break::to_string).collect();
            return Err(Error::refused(format!("this would break a model in use\n{}", breaks.join("\n"))));
        }
        let rule = judge::rule(who, (&live, &candidate.deployment), &plan.changes);
        let Candidate { mut deployment, files, who, .. } = candidate;
        let number = deployment.number;
        let noting = move || live.audit.write(&who, format!("apply {number}"), || rule);
        blocking("noting who applies", noting).await?;
        deployment.applied_at_us = now_us();
        // Files first: a crash in between leaves a file that nobody names, never a name without its file.
        for bytes in files {
            self.registry.artifacts.store(bytes).await?;
            pass("apply: a model file is stored");
        }
        pass("apply: before the registry");
        self.registry.record(&record_of(&deployment)).await.map_err(|error| match error.kind() {
        ErrorKind::Unavailable => error.told(|what| {
            format!(
                "{what}; if apply {} was written all the same, it goes live once the registry answers again: plan again then",
                deployment.number
            )
        }),
        _ => error,
    })?;
        pass("apply: in the registry, not live");
        tracing::info!(number = deployment.number, changes = plan.changes.len(), "definitions are live");
        self.live.replace(deployment);
        Ok(Plan { applied: true, ..plan })
    }
}

#[cfg(test)]
mod tests;
