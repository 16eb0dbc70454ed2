//! Who takes the steps of ramps?
//!
//! Every server counts what the version of a ramp answers, and notes that in the registry. One of them, which has the
//! lease, adds it up and does what is next: another step, the end, or the way back to the weights from before. Each is
//! an apply of the same definitions ([`route`](super::route)), whose number the registry gives once; so a step is taken
//! once, whoever believes to have the lease, and how far a ramp is outlives whoever took its last step.

use std::sync::Arc;
use std::time::Duration;

use quern_access::{Action, Caller, Question};
use quern_base::random;
use quern_base::tasks::{Task, blocking};
use quern_store::registry::RampCounts;
use quern_wire::Share;

use super::Apply;
use super::route::{Change, rerouted};
use super::weights::weigh;
use crate::error::{Error, Kind, Result};
use crate::live::Deployment;
use crate::live::ramp::{End, Next, Ramp};

/// How often each server notes what it counted, and the one that has the lease looks.
const ROUND: Duration = Duration::from_secs(2);
/// For how long it has the lease; after so long without a word another one goes on.
const LEASE: Duration = Duration::from_secs(10);
/// Name of the lease.
const JOB: &str = "ramps";

/// Who runs ramps here, to other servers.
pub(crate) struct Ramping {
    server: String,
}

impl Default for Ramping {
    fn default() -> Ramping {
        Ramping { server: format!("{:016x}", random::number()) }
    }
}

impl Apply {
    /// Has ramps go on while the result lives.
    pub fn keep_ramping(self: &Arc<Self>) -> Task {
        let apply = Arc::clone(self);
        Task::spawn(async move {
            loop {
                if let Err(error) = apply.run_ramps(None).await {
                    // Whoever asks how the server is reads that the registry does not answer.
                    tracing::debug!(cause = error.logged(), "ramps stay as they are");
                }
                tokio::time::sleep(ROUND).await;
            }
        })
    }

    /// Notes what was counted here, and does what is next, at `now_us` by the registry's clock; at what that says where
    /// none is given.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the registry does not answer.
    pub async fn run_ramps(&self, now_us: Option<i64>) -> Result<()> {
        let live = self.live.now();
        if !live.ramps.values().any(Ramp::is_running) {
            return Ok(());
        }
        self.note_ramp_counts().await?;
        // A folder that nobody shares is one process's: nobody else takes steps there.
        if self.registry.is_shared() && !self.registry.lease(JOB, &self.ramping.server, LEASE).await? {
            return Ok(());
        }
        let now_us = match now_us {
            Some(now_us) => now_us,
            None => self.registry.now_us().await?,
        };
        let mut done = Ok(());
        for (model, ramp) in live.ramps.iter().filter(|(_, ramp)| ramp.is_running()) {
            // One that cannot go on keeps no other from it.
            done = done.and(self.go_on((model, ramp), now_us).await);
        }
        done
    }

    async fn go_on(&self, (model, ramp): (&str, &Ramp), now_us: i64) -> Result<()> {
        let counts = self.registry.ramp_counts(model, ramp.since).await?;
        match ramp.next(&counts, now_us) {
            Next::Stay => Ok(()),
            next => self.take_step((model, ramp), (next, &counts), now_us).await,
        }
    }

    /// Notes what was counted here for ramps that go on.
    ///
    /// # Errors
    /// `Kind::Unavailable` where the registry does not answer.
    pub async fn note_ramp_counts(&self) -> Result<()> {
        let live = self.live.now();
        for (model, tally) in &live.tallies {
            let step = (model.as_str(), tally.since);
            self.registry.note_ramp_counts(step, &self.ramping.server, &tally.counts()).await?;
        }
        Ok(())
    }

    async fn take_step(
        &self,
        (model, judged): (&str, &Ramp),
        (next, counts): (Next, &RampCounts),
        now_us: i64,
    ) -> Result<()> {
        let _one_at_a_time = self.live.turn().await;
        let live = self.live.now();
        // Somebody may have set weights meanwhile, or have taken the step.
        let Some(ramp) = live.ramps.get(model).filter(|ramp| *ramp == judged) else { return Ok(()) };
        let (change, said) = stepped(&live, (model, ramp), (next, counts), now_us)?;
        let deployment = rerouted(&live, model, change)?;
        let since = deployment.number;
        let what = format!("{} {model}: {said}", Action::Route.name());
        let (noted, owned) = (Arc::clone(&live), model.to_owned());
        blocking("noting what a ramp does", move || {
            let owner = Caller::owner();
            let why = || noted.access.why(&owner, Question::Do(Action::Route, &owned));
            noted.audit.write_or_lose(&owner, what, why);
            Ok::<_, Error>(())
        })
        .await?;
        match self.record_route(model, deployment).await {
            // Another server was faster, with this step or with an apply; the next round knows of it.
            Err(error) if error.kind() == Kind::Refused => return Ok(()),
            recorded => recorded?,
        }
        match next {
            Next::Stop(_) => tracing::warn!(model, number = since, "{said}"),
            _ => tracing::info!(model, number = since, "{said}"),
        }
        Ok(self.registry.forget_ramp_counts(model, since).await?)
    }
}

/// What is set where `next` is done to the ramp of a model, and what is said of it.
fn stepped(
    live: &Deployment,
    (name, ramp): (&str, &Ramp),
    (next, counts): (Next, &RampCounts),
    now_us: i64,
) -> Result<(Change, String)> {
    let (mut weights, mut ramps) = (live.weights.clone(), live.ramps.clone());
    let since = live.number + 1;
    let (ramp, said) = match next {
        Next::Stay => (ramp.clone(), format!("{ramp} goes on")),
        Next::Done => (ramp.ended(End::Done, since, now_us), format!("{ramp} is done")),
        Next::Stop(place) => stopped(ramp, ramp.reason(place, counts), since, now_us),
        Next::Step => {
            let next = Ramp { step: ramp.step + 1, since, since_us: now_us, ..ramp.clone() };
            // Versions that are gone since it began have no part of the rest.
            let model = &live.models[name];
            let mut before = ramp.before.clone();
            before.retain(|version, _| model.place(version).is_some());
            let share: Share = next.share().into();
            match weigh(&before, &[(next.version.clone(), share)].into()) {
                Ok(shares) => {
                    weights.insert(name.to_owned(), shares.into_iter().collect());
                    let said = format!("{next} begins");
                    (next, said)
                }
                Err(why) => stopped(ramp, why, since, now_us),
            }
        }
    };
    if let Some(End::Stopped(_)) = ramp.end {
        match &ramp.set_before {
            Some(before) => weights.insert(name.to_owned(), before.clone()),
            None => weights.remove(name),
        };
    }
    ramps.insert(name.to_owned(), ramp);
    Ok((Change { weights, ramps }, said))
}

fn stopped(ramp: &Ramp, why: String, since: u64, since_us: i64) -> (Ramp, String) {
    let said = format!("{ramp} stops, and the weights are those from before it: {why}");
    (ramp.ended(End::Stopped(why), since, since_us), said)
}
