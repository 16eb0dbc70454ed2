//! What does this server not do now, while it goes on to answer look-ups?
//!
//! A store that takes no writes is no reason to send look-ups elsewhere, where the store may be the same one. It is a
//! reason for somebody to look: so readiness and a metric name the verbs whose last try met it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quern_base::metrics::Gauge;

use crate::error::{Kind, Result};

/// Who has not tried again for so long says nothing of now.
const NOTED: Duration = Duration::from_secs(300);
/// The verbs that write, as the metric names them.
const PARTS: [&str; 2] = [PUSH, MATERIALIZE];
/// Pushed rows are not taken.
pub(crate) const PUSH: &str = "push";
/// The head is not brought up to date.
pub(crate) const MATERIALIZE: &str = "materialize";

/// What failed, and when it did last.
#[derive(Debug, Default)]
pub struct Degraded(Mutex<BTreeMap<&'static str, (String, Instant)>>);

impl Degraded {
    /// Notes how a verb ended that writes. What its caller did wrong says nothing of the store.
    pub(crate) fn note<T>(&self, part: &'static str, ended: &Result<T>, now: Instant) {
        match ended {
            Ok(_) => _ = self.0.lock().remove(part),
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Internal) => {
                let before = self.0.lock().insert(part, (error.said(), now));
                if before.is_none() {
                    tracing::warn!(
                        part,
                        cause = error.logged(),
                        "this server takes no writes; look-ups go on"
                    );
                }
            }
            Err(_) => {}
        }
    }

    /// The verbs that failed lately, and why.
    pub fn parts(&self, now: Instant) -> Vec<(&'static str, String)> {
        let noted = self.0.lock();
        let lately = noted.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) < NOTED);
        lately.map(|(part, (cause, _))| (*part, cause.clone())).collect()
    }

    pub(crate) fn gauges(&self, now: Instant) -> impl Iterator<Item = Gauge> {
        let parts = self.parts(now);
        PARTS.into_iter().map(move |part| {
            let is = parts.iter().any(|(degraded, _)| *degraded == part);
            let help = "Whether the last try to write failed for want of a store, by what tried";
            Gauge::new("quern_degraded", help, u64::from(is)).of(&[("part", part)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_failed_is_told_until_it_works_or_nobody_tries() {
        let (degraded, now) = (Degraded::default(), Instant::now());
        degraded.note::<()>(PUSH, &Err(Error::invalid("no such column")), now);
        assert_eq!(degraded.parts(now), []);
        degraded.note::<()>(PUSH, &Err(Error::busy("the disk is full")), now);
        degraded.note::<()>(MATERIALIZE, &Err(Error::internal("the online store", "on fire")), now);
        let told = degraded.parts(now);
        assert_eq!(told.iter().map(|(part, _)| *part).collect::<Vec<_>>(), [MATERIALIZE, PUSH]);
        assert_eq!(told[1].1, "the disk is full");
        let values = |now| degraded.gauges(now).map(|gauge| gauge.value as u64).collect::<Vec<_>>();
        assert_eq!(values(now), [1, 1]);
        degraded.note(PUSH, &Ok(()), now);
        assert_eq!(values(now), [0, 1]);
        assert_eq!(values(now + NOTED), [0, 0]);
    }
}
