//! How far is the head behind the log of pushed rows, and does it come nearer?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quern_base::metrics::Gauge;
use quern_base::tasks::Task;
use quern_store::log::{Log, Position};
use quern_store::online::Online;

use crate::runs::Runs;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the online store may take to say how far it is.
const ANSWER: Duration = Duration::from_secs(1);

/// How far the head is, as it was looked at last.
pub struct Lag {
    pub(crate) head: Online,
    pub(crate) log: Log,
    pub(crate) stands: Stands,
}

/// By source.
#[derive(Debug, Default)]
pub(crate) struct Stands(Mutex<BTreeMap<String, Stand>>);

#[derive(Debug, Clone, Copy)]
struct Stand {
    applied: i64,
    behind: u64,
    /// Since when it has been at this commit and lacked others.
    since: Option<Instant>,
}

/// What a head lacks of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Commits that it lacks.
    pub(crate) commits: u64,
    /// For how long it has not come nearer; zero where it has all, or goes on.
    pub(crate) stuck: Duration,
}

impl Lag {
    /// Looks time and again while the result lives.
    pub fn start(self: &Arc<Self>, runs: Arc<Runs>) -> Task {
        let lag = Arc::clone(self);
        Task::spawn(async move {
            loop {
                if let Ok(applied) = lag.head.probe(ANSWER).await {
                    lag.look(&applied, runs.known().commits.as_ref());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Looks now, at how far the head follows each source, and of a log that is `shared` at the last commits.
    pub(crate) fn look(&self, applied: &BTreeMap<String, Position>, shared: Option<&BTreeMap<String, i64>>) {
        let now = Instant::now();
        let here = self.log.local().map(|local| local.log.lasts());
        let here = here.into_iter().flatten().map(|(source, last)| (source, last.number));
        let there = shared.filter(|_| self.log.shared().is_some());
        let there = there.into_iter().flatten().map(|(source, last)| (source.clone(), *last));
        for (source, last) in here.chain(there) {
            let applied = applied.get(&source).map_or(0, |applied| applied.number);
            self.stands.note(&source, (applied, last), now);
        }
    }

    pub(crate) fn gauges(&self) -> [Gauge; 2] {
        let Behind { commits, stuck } = self.stands.all(Instant::now());
        let help = "Commits of the log of pushed rows that the online store lacks";
        let seconds =
            "Seconds for which it has lacked commits and not come nearer; 0 where it has all or goes on";
        let seconds = Gauge::new("quern_head_lag_seconds", seconds, 0);
        [Gauge::new("quern_head_lag_commits", help, commits), Gauge { value: stuck.as_secs_f64(), ..seconds }]
    }
}

impl Stands {
    /// Notes that the head has everything up to commit `applied` of a log that ends at commit `last`.
    fn note(&self, name: &str, (applied, last): (i64, i64), now: Instant) {
        let behind = u64::try_from(last - applied).unwrap_or(0);
        let mut stands = self.0.lock();
        let before = stands.get(name).filter(|before| before.applied == applied);
        let since = (behind > 0).then(|| before.and_then(|before| before.since).unwrap_or(now));
        stands.insert(name.to_owned(), Stand { applied, behind, since });
    }

    /// What is lacking of all that was noted.
    pub(crate) fn all(&self, now: Instant) -> Behind {
        let stands = self.0.lock();
        let since = stands.values().filter_map(|stand| stand.since).min();
        Behind {
            commits: stands.values().map(|stand| stand.behind).sum(),
            stuck: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        }
    }

    /// The commits that are lacking of what was noted under `name`.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.lock().get(name).map_or(0, |stand| stand.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_is_not_stuck() {
        let (stands, start) = (Stands::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = |now| {
            let Behind { commits, stuck } = stands.all(now);
            (commits, stuck.as_secs())
        };
        assert_eq!(told(at(0)), (0, 0));
        stands.note("a", (5, 5), at(0));
        stands.note("b", (5, 7), at(0));
        assert_eq!(told(at(3)), (2, 3));
        stands.note("b", (6, 9), at(4));
        assert_eq!(told(at(4)), (3, 0), "it has come nearer");
        stands.note("b", (6, 20), at(9));
        assert_eq!((told(at(9)), stands.of("a"), stands.of("b")), ((14, 5), 0, 14));
        stands.note("b", (20, 20), at(10));
        assert_eq!(told(at(10)), (0, 0));
        // A head that is ahead of a log that was brought back has nothing to wait for.
        stands.note("b", (30, 20), at(11));
        assert_eq!(told(at(11)), (0, 0));
    }
}
