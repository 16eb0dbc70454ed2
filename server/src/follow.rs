//! What did other servers apply, and is it live here?
//!
//! Servers that share a registry follow one another: what one applies goes live on all. PostgreSQL tells those who
//! listen, and each also asks once a second, since a word may get lost. Definitions are compiled and models loaded
//! beside what is live, which answers until the new deployment takes its place whole.
//!
//! What cannot be had here, because this build does not read it or the registry is away, changes nothing: what is live
//! stays live, `/v2/health/ready` and `/metrics` say so, and it is tried again.
//!
//! Architecture invariant: a server never goes back to an apply with a smaller number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::Quern;
use crate::error::{Error, Result};
use crate::store::registry::Changes;

/// How long to wait for a word before asking.
const POLL: Duration = Duration::from_secs(1);
/// How long the registry may take to say the latest number, or to let us listen.
const ANSWER: Duration = Duration::from_secs(5);
/// After the first failure an apply is tried again in a second, then in two, in four, ... and at last in a minute.
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
        let away = known.away.as_ref().map(|cause| format!("the registry does not answer: {cause}"));
        away.or_else(|| known.unreadable.as_ref().map(Unreadable::to_string))
    }

    /// Why the latest apply cannot go live here, where it was tried.
    pub(crate) fn unreadable(&self) -> Option<String> {
        self.0.lock().unreadable.as_ref().map(Unreadable::to_string)
    }

    /// The registry does not answer.
    fn lost(&self, error: &Error) {
        let away = self.0.lock().away.replace(error.to_string());
        if away.is_none() {
            tracing::warn!(%error, "the registry does not answer; what is live stays live");
        }
    }

    /// The registry answers that `latest` is its latest apply; says whether to load it now.
    fn heard(&self, latest: u64, live: u64, now: Instant) -> bool {
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
    fn failed(&self, number: u64, error: &Error, now: Instant) {
        let mut known = self.0.lock();
        let before = known.unreadable.take().filter(|before| before.number == number);
        let pause = before.map_or(POLL, |before| (before.pause * 2).min(PAUSE_MAX));
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

/// A task that ends when it is dropped.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Starts `work`.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Quern {
    /// Follows the applies of other servers while the result lives; none where there can be no others.
    pub fn follow(self: &Arc<Self>) -> Option<Task> {
        let quern = Arc::clone(self);
        self.registry.is_shared().then(|| Task::spawn(async move { quern.follow_on().await }))
    }

    /// How this server stands beside its registry, where it shares one.
    pub fn standing(&self) -> Option<Standing> {
        self.registry.is_shared().then(|| {
            let (live, known) = (self.live().number, self.following.0.lock());
            let behind = known.behind.filter(|_| known.latest > live);
            Standing {
                up: known.away.is_none(),
                // Its own apply is live here before it is heard of.
                latest: known.latest.max(live),
                lag_seconds: behind.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            }
        })
    }

    async fn follow_on(self: &Arc<Self>) {
        let mut changes: Option<Changes> = None;
        loop {
            if self.catch_up().await.is_err() {
                // The connection that listens may be as dead as the one that was asked, without a word.
                changes = None;
                tokio::time::sleep(POLL).await;
                continue;
            }
            match &mut changes {
                Some(words) => {
                    if let Ok(Err(_)) = tokio::time::timeout(POLL, words.next()).await {
                        changes = None;
                    }
                }
                None => match in_time(self.registry.changes()).await {
                    // Asks once more at once: something may have been written before it listened.
                    Ok(listening) => changes = listening,
                    Err(_) => tokio::time::sleep(POLL).await,
                },
            }
        }
    }

    /// Makes the latest apply live, where it is not and can be.
    ///
    /// # Errors
    /// Where the registry does not answer.
    async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let latest = match in_time(self.registry.latest_number()).await {
            Ok(latest) => latest,
            Err(error) => {
                self.following.lost(&error);
                return Err(error);
            }
        };
        if !self.following.heard(latest, self.live().number, Instant::now()) {
            return Ok(());
        }
        // An apply of our own that is written and not live yet is no other's.
        let _one_at_a_time = self.applying.lock().await;
        if latest <= self.live().number {
            return Ok(());
        }
        let restored = async { self.restore(self.registry.apply(latest).await?).await };
        match restored.await {
            Ok(deployment) => {
                self.go_live(deployment);
                self.following.heard(latest, latest, Instant::now());
                tracing::info!(number = latest, "definitions that another server applied are live");
            }
            Err(error) => self.following.failed(latest, &error, Instant::now()),
        }
        Ok(())
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::unavailable(format!("no answer within {} seconds", ANSWER.as_secs())));
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(late)
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

        following.lost(&Error::unavailable("gone"));
        assert_eq!(following.trouble().unwrap(), "the registry does not answer: gone");
        assert!(following.heard(3, 1, now), "the registry may be what it failed for");
        assert!(!following.heard(3, 3, now));
        assert_eq!(following.trouble(), None);
    }
}
