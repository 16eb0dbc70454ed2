//! What would other versions have said? They get the same instances, and nobody waits for them.
//!
//! Shadows run one rank behind everybody who waits. So many are under way at most; beyond that, requests go unshadowed
//! rather than wait or fill the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{Instrument, Span};

use super::Predict;
use super::answer::{Instances, Patience, Store, Turn};
use super::noted::Noted;
use super::target::{Part, Target};
use crate::error::Result;
use crate::metrics::metrics;
use quern_base::stage;
use quern_inference::{Limits, Priority};

/// Requests whose shadows are under way, at most.
const UNDER_WAY_MAX: usize = 256;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Given back when the shadows are done, however they end.
struct Room;

impl Room {
    fn take() -> Option<Room> {
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) < UNDER_WAY_MAX {
            return Some(Room);
        }
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    /// Has the shadows answer `instances`, after what `parts` answered.
    pub(super) fn shadow(
        &self,
        verb: &Arc<Predict>,
        instances: Instances,
        parts: &[Part],
        noted: Option<Arc<Noted>>,
    ) {
        let name = &self.model.name;
        let Some(room) = Room::take() else {
            metrics()
                .shadows
                .with_label_values(&[name.as_str(), "", "dropped"])
                .inc_by(instances.rows.len() as u64);
            return;
        };
        // The very vectors that were answered, where one version answered all and the shadow has its service.
        let seen = match parts {
            [Part { vectors: Some(vectors), reason: None, .. }] => Some(vectors.clone()),
            _ => None,
        };
        let target = Target {
            live: Arc::clone(&self.live),
            model: Arc::clone(&self.model),
            who: self.who.clone(),
            pinned: None,
            room: self.room.clone(),
            shows: false,
            sees: self.sees,
        };
        let verb = Arc::clone(verb);
        let span = stage!("shadow", quern.model = target.model.name);
        if !span.is_disabled() {
            span.follows_from(Span::current());
        }
        let answered = async move {
            let _room = room;
            for place in &target.model.route.shadow {
                let version = &target.model.versions[*place];
                let limits = Limits { deadline: None, priority: Priority::Batch };
                let patience = Patience { limits, rows: None };
                let said: Result<Vec<Part>> = match &seen {
                    Some(seen) if Arc::ptr_eq(&seen.service, &version.service) => {
                        let said = target.infer(version, &seen.vectors, patience).await;
                        let rows = instances.rows.clone();
                        said.map(|said| vec![target.part(*place, rows, Some(seen.clone()), said)])
                    }
                    _ => {
                        let (place, instances) = (*place, instances.clone());
                        let turn = Turn { place, instances, alone: true, keeps: false };
                        target.answer_all(Store::Head(&verb), turn, patience).await
                    }
                };
                if let (Some(noted), Ok(parts)) = (&noted, &said) {
                    noted.record_shadow(&verb.log, parts);
                }
                let outcome = if said.is_ok() { "answered" } else { "failed" };
                let labels = [target.model.name.as_str(), version.version.as_str(), outcome];
                metrics().shadows.with_label_values(&labels).inc_by(instances.rows.len() as u64);
                if let Err(error) = said {
                    tracing::debug!(model = labels[0], version = labels[1], cause = %error, "a shadow failed");
                }
            }
        };
        tokio::spawn(answered.instrument(span));
    }
}
