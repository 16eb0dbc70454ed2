//! Which requests go into the prediction log? Noted before they are answered, handed in after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quern_access::Principal;
use quern_base::clock::now_us;
use sha2::{Digest, Sha256};

use super::target::{Ask, Part, Priority, Reason, Target};
use crate::live::{Deployment, LiveModel};
use crate::logged::{Entry, Given, PredictionLog};

/// Names requests that nobody named.
static UNNAMED: AtomicU64 = AtomicU64::new(0);

/// A request that is to be logged, before it is answered.
#[derive(Debug)]
pub(super) struct Noted {
    model: Arc<LiveModel>,
    /// Whether the caller named the version, and so brought its columns and not the model's.
    pinned: bool,
    request_id: String,
    principal: Arc<Principal>,
    live: Arc<Deployment>,
    given: Given,
    arrived_us: i64,
    begun: Instant,
}

impl Noted {
    /// What the request brought, as the part's version wants it.
    fn given(&self, part: &Part) -> Given {
        let place = self.model.versions.iter().position(|version| Arc::ptr_eq(version, &part.version));
        match (&self.given, place.and_then(|place| self.model.reads[place].as_ref())) {
            (Given::Entities { inputs, query_times_us, timed }, Some(reads)) if !self.pinned => {
                // The places are of these very columns.
                let inputs = inputs.project(reads).unwrap_or_else(|_| inputs.clone());
                Given::Entities { inputs, query_times_us: query_times_us.clone(), timed: *timed }
            }
            (given, _) => given.clone(),
        }
    }

    /// Notes a request where its model keeps a log and the request is of the sample. Batches are not logged: their rows
    /// come out with the predictions, which is a record already.
    pub(super) fn of(target: &Target, ask: &Ask) -> Option<Noted> {
        let declared = target.live.compiled.catalog.definitions.models.get(&target.model.name)?;
        let sample = declared.log_sample.filter(|_| ask.priority != Priority::Batch)?;
        let request_id = match ask.request_id.as_str() {
            "" => format!("unnamed-{:x}-{}", now_us(), UNNAMED.fetch_add(1, Ordering::Relaxed)),
            named => named.to_owned(),
        };
        if share(&request_id) >= sample {
            return None;
        }
        let given = ask.given.clone();
        Some(Noted {
            model: Arc::clone(&target.model),
            pinned: target.pinned.is_some(),
            request_id,
            principal: Arc::clone(&target.who.principal),
            live: Arc::clone(&target.live),
            given,
            arrived_us: now_us(),
            begun: Instant::now(),
        })
    }

    /// Hands in the answer to the request.
    pub(super) fn record(&self, log: &PredictionLog, parts: &[Part]) {
        self.hand_in(log, parts, |part| match &part.reason {
            None if self.pinned => "pinned",
            None => "route",
            Some(Reason { cause, .. }) => cause.as_str(),
        });
    }

    /// Hands in what a shadow said, which nobody heard.
    pub(super) fn record_shadow(&self, log: &PredictionLog, parts: &[Part]) {
        self.hand_in(log, parts, |_| "shadow");
    }

    /// Hands in all parts together: who reads the log finds a request whole or not at all. What was too large to be
    /// kept until it was answered is not logged.
    fn hand_in(&self, log: &PredictionLog, parts: &[Part], reason: impl Fn(&Part) -> &'static str) {
        if parts.iter().filter_map(|part| part.vectors.as_ref()).any(|vectors| !vectors.has_values()) {
            let rows = parts.iter().map(|part| part.rows.len()).sum();
            return PredictionLog::leave_out(&self.model.name, rows);
        }
        log.hand_in(parts.iter().map(|part| self.entry(part, reason(part))).collect());
    }

    fn entry(&self, part: &Part, reason: &'static str) -> Entry {
        let looked_up = part.vectors.as_ref();
        Entry {
            model: self.model.name.clone(),
            live: Arc::clone(&self.live),
            version: Arc::clone(&part.version),
            request_id: self.request_id.clone(),
            principal: Arc::clone(&self.principal),
            arrived_us: self.arrived_us,
            latency_us: i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX),
            reason,
            served_by: part.served_by.clone(),
            rows: part.rows.clone(),
            given: self.given(part),
            looked_up: looked_up.map(|looked_up| (looked_up.vectors.clone(), looked_up.found.clone())),
            outputs: part.outputs.clone(),
            asked: part.asked.clone(),
        }
    }
}

/// Where a request lies between 0 and 1, by its name alone.
fn share(request_id: &str) -> f64 {
    let digest = Sha256::digest(request_id.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(number) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share_of_the_requests() {
        let logged = (0..10_000).filter(|id| share(&format!("request-{id}")) < 0.1).count();
        assert!((900..1_100).contains(&logged), "{logged} of 10,000");
        assert_eq!(share("a"), share("a"));
    }
}
