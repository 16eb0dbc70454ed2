//! How is it? All that somebody wants to know who was woken, in one reply.
//!
//! Nobody waits long for it: the registry and a shared online store are asked for a second at most, at the same time,
//! and what does not answer is said to be so; everything else is known already. No file is read.

mod ramps;
mod readiness;
mod sources;
mod troubles;
mod views;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use feature_defs::Operation;
use quern_access::Caller;
use quern_base::clock::{now_us, shown};
use quern_store::registry::KnownRuns;
use quern_wire::{LogStatus, PastError, PredictionsStatus, ServerInfo, ServerStatus, StoreStatus, Stores};

pub use self::readiness::Readiness;
use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::{Deployment, INSTANCE, Node};

/// How long each store may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the stores said when they were asked just now.
struct Asked {
    runs: KnownRuns,
    /// Why the registry did not answer; `runs` is what is known of it then.
    registry: Option<Error>,
    /// Why the online store did not answer.
    online: Option<quern_store::Error>,
    /// Whether it is known how far the head is.
    knows_lag: bool,
    now_us: i64,
}

impl Asked {
    /// What time it is by the registry's clock, µs, as far as is known.
    fn registry_now_us(&self) -> i64 {
        if self.registry.is_some() { self.now_us } else { self.runs.now_us }
    }

    /// For how long something has been so that is of the registry's clock, in seconds.
    fn age_seconds(&self, time_us: i64) -> f64 {
        self.registry_now_us().saturating_sub(time_us).max(0) as f64 / 1e6
    }
}

impl Node {
    /// How it is, for `who` asks.
    ///
    /// # Errors
    /// `Kind::Forbidden`.
    pub async fn status(&self, who: &Caller) -> Result<ServerStatus> {
        self.live().seen_by(who).operate(Operation::Status)?;
        Ok(self.told().await)
    }

    async fn told(&self) -> ServerStatus {
        let live = self.live();
        let (asked, counted) = tokio::join!(self.ask_stores(), self.ask_ramps(&live));
        let Readiness { not_ready, degraded } = self.readiness();
        let server = ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: INSTANCE.clone(),
            now: shown(asked.now_us),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: not_ready.is_none(),
            not_ready: not_ready.map(|error| error.said()),
            degraded,
            apply: live.number,
            applied_at: (live.number > 0).then(|| shown(live.applied_at_us)),
        };
        let stores = Stores {
            online_store: self.online_store(&asked),
            registry: self.registry_status(&asked),
            log: self.log_status(&asked),
            predictions: self.predictions_status(&live),
        };
        let mut status = ServerStatus {
            healthy: false,
            troubles: Vec::new(),
            server,
            stores,
            feature_views: self.views(&live, &asked),
            sources: self.sources(&live, &asked),
            ramps: ramps::statuses(&live, &counted, asked.registry_now_us()),
        };
        status.troubles = self.troubles(&live, &status);
        status.healthy = status.troubles.is_empty();
        status
    }

    async fn ask_stores(&self) -> Asked {
        let head = &self.reader.head;
        let (runs, applied) = tokio::join!(self.runs.read(PATIENCE), head.probe(PATIENCE));
        let (runs, registry) = match runs {
            Ok(runs) => (runs, None),
            Err(error) => (self.runs.known(), Some(error)),
        };
        let (applied, online) = match applied {
            Ok(applied) => (applied, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let is_local = self.lag.log.local().is_some();
        let knows_lag = online.is_none() && (is_local || registry.is_none() && runs.commits.is_some());
        if knows_lag {
            self.lag.look(&applied, runs.commits.as_ref());
        }
        Asked { knows_lag, runs, registry, online, now_us: now_us() }
    }

    fn online_store(&self, asked: &Asked) -> StoreStatus {
        let head = &self.reader.head;
        let last_error = head.last_failure();
        StoreStatus {
            kind: if head.is_shared() { "redis" } else { "rocksdb" }.to_owned(),
            place: head.place(),
            reachable: asked.online.is_none(),
            cause: asked.online.as_ref().map(|error| error.logged()),
            last_error: last_error.map(|(error, at_us)| PastError { at: shown(at_us), error }),
        }
    }

    fn registry_status(&self, asked: &Asked) -> StoreStatus {
        StoreStatus {
            kind: if self.registry.is_shared() { "postgresql" } else { "sqlite" }.to_owned(),
            place: self.registry.place(),
            reachable: asked.registry.is_none(),
            cause: asked.registry.as_ref().map(|error| error.logged()),
            last_error: None,
        }
    }

    fn log_status(&self, asked: &Asked) -> LogStatus {
        let log = &self.lag.log;
        let behind = self.lag.stands.all(Instant::now());
        let kind = match (log.local(), log.shared()) {
            (Some(_), _) => "local",
            (None, Some(_)) => "shared",
            (None, None) => "nowhere",
        };
        LogStatus {
            kind: kind.to_owned(),
            commits_behind: asked.knows_lag.then_some(behind.commits),
            behind_seconds: behind.stuck.as_secs(),
        }
    }

    fn predictions_status(&self, live: &Deployment) -> PredictionsStatus {
        let counted = |counters: &quern_base::metrics::IntCounterVec| {
            live.models.keys().map(|model| counters.with_label_values(&[model]).get()).sum()
        };
        PredictionsStatus {
            waiting: self.predictions.waiting_rows() as u64,
            written: counted(&metrics().predictions_written),
            dropped: counted(&metrics().predictions_dropped),
        }
    }
}
