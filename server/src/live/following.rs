//! What did other servers apply, as far as this one has heard, and why is it not live here?

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Error;

/// How long to wait after the first failure to make an apply live; then twice as long each time ...
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// ... and at last so long.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What this server knows of the other servers' applies.
#[derive(Debug, Default)]
pub struct Following(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The latest number in the registry, as far as it has been heard of.
    latest: u64,
    /// Since when a newer apply than the live one is known of.
    behind: Option<Instant>,
    /// Why the registry did not answer when it was asked last.
    away: Option<String>,
    /// Why the latest apply is not live here.
    unreadable: Option<Unreadable>,
}

#[derive(Debug)]
struct Unreadable {
    number: u64,
    cause: String,
    pause: Duration,
    again: Instant,
}

/// How this server stands beside the registry that it shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Whether the registry answered when it was asked last.
    pub up: bool,
    /// Number of the latest apply in the registry, as far as it has been heard of.
    pub latest: u64,
    /// Seconds for which a newer apply than the live one has been known of; 0 where there is none.
    pub lag_seconds: f64,
}

impl Following {
    /// Why something newer than what is live is not live here, or may not be; none where all is well.
    pub fn trouble(&self) -> Option<String> {
        let known = self.0.lock();
        known.away.clone().or_else(|| known.unreadable.as_ref().map(Unreadable::to_string))
    }

    /// Why the latest apply cannot go live here, where it was tried.
    pub(crate) fn unreadable(&self) -> Option<String> {
        self.0.lock().unreadable.as_ref().map(Unreadable::to_string)
    }

    /// How this server, on which apply `live` answers, stands beside its registry.
    pub(crate) fn standing(&self, live: u64, now: Instant) -> Standing {
        let known = self.0.lock();
        let behind = known.behind.filter(|_| known.latest > live);
        Standing {
            up: known.away.is_none(),
            // Its own apply is live here before it is heard of.
            latest: known.latest.max(live),
            lag_seconds: behind.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64()),
        }
    }

    /// The registry does not answer.
    pub(crate) fn lost(&self, error: &Error) {
        let away = self.0.lock().away.replace(error.to_string());
        if away.is_none() {
            tracing::warn!(error = error.logged(), "what is live stays live");
        }
    }

    /// The registry answers that `latest` is its latest apply; says whether to load it now.
    pub(crate) fn heard(&self, latest: u64, live: u64, now: Instant) -> bool {
        let mut known = self.0.lock();
        known.latest = latest;
        let back = known.away.take().is_some();
        if back {
            tracing::info!(latest, "the registry answers again");
        }
        if latest <= live {
            (known.behind, known.unreadable) = (None, None);
            return false;
        }
        known.behind.get_or_insert(now);
        match &known.unreadable {
            Some(unreadable) if unreadable.number == latest && !back => unreadable.again <= now,
            _ => true,
        }
    }

    /// The apply with this number cannot go live.
    pub(crate) fn failed(&self, number: u64, error: &Error, now: Instant) {
        let mut known = self.0.lock();
        let before = known.unreadable.take().filter(|before| before.number == number);
        let pause = before.map_or(PAUSE, |before| (before.pause * 2).min(PAUSE_MAX));
        let unreadable = Unreadable { number, cause: error.to_string(), pause, again: now + pause };
        tracing::warn!(pause_seconds = pause.as_secs(), "{unreadable}");
        known.unreadable = Some(unreadable);
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "apply {} is in the registry and cannot go live here: {}", self.number, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_later_and_later_and_at_once_where_something_changed() {
        let (following, error) = (Following::default(), Error::broken("no"));
        let mut now = Instant::now();
        assert!(following.heard(2, 1, now));
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                following.failed(2, &error, now);
                let due = |seconds: &u64| following.heard(2, 1, now + Duration::from_secs(*seconds));
                let pause = (0..100).find(due).unwrap();
                now += Duration::from_secs(pause);
                pause
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        following.failed(2, &error, now);
        assert!(following.heard(3, 1, now), "another apply is another chance");
        following.failed(3, &error, now);
        assert!(!following.heard(3, 1, now));
        assert_eq!(following.trouble().unwrap(), "apply 3 is in the registry and cannot go live here: no");

        following.lost(&Error::unavailable("the registry does not answer").because("gone"));
        assert_eq!(following.trouble().unwrap(), "the registry does not answer: gone");
        assert!(following.heard(3, 1, now), "the registry may be what it failed for");
        assert!(!following.heard(3, 3, now));
        assert_eq!(following.trouble(), None);
    }
}
