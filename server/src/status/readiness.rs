//! Does this server answer look-ups, and what does it not do besides? As far as is known without asking.

use std::time::Instant;

use quern_base::clock::now_us;
use quern_wire::Degraded;

use crate::Node;
use crate::error::Error;

/// What a server answers.
pub struct Readiness {
    /// Why it answers no look-ups; none where it does.
    pub not_ready: Option<Error>,
    /// What it does not do meanwhile: what keeps a newer apply from being live, a view that a clock that was ahead has
    /// materialized, a store that takes no writes. That is no reason to send look-ups elsewhere.
    pub degraded: Vec<Degraded>,
}

impl Node {
    /// What it answers now.
    pub fn readiness(&self) -> Readiness {
        let live = self.live();
        let behind = self.live.following().trouble();
        let behind = behind.or_else(|| self.materialize.trouble(&live, now_us()));
        let not_ready = if live.number == 0 {
            let cause = behind.clone().unwrap_or_else(|| "`quern apply` the definitions".to_owned());
            Some(Error::unavailable(format!("nothing is live yet: {cause}")))
        } else if self.looks_up() {
            self.catching_up.trouble()
        } else {
            let cause =
                "the online store does not answer, so no look-up is answered; it is asked until it does";
            Some(Error::busy(cause))
        };
        let behind = behind.map(|cause| ("definitions", format!("apply {} is live: {cause}", live.number)));
        let parts = self.degraded.parts(Instant::now()).into_iter().chain(behind);
        let degraded = parts.map(|(part, cause)| Degraded { part: part.to_owned(), cause }).collect();
        Readiness { not_ready, degraded }
    }
}
