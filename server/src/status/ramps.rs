//! How far are ramps, and how did the last ones end?

use std::collections::BTreeMap;

use quern_store::registry::RampCounts;
use quern_wire::RampStatus;

use super::PATIENCE;
use crate::{Deployment, Node};

/// What the versions of ramps answered in their steps, by model, as far as the registry said so.
pub(super) type Counted = BTreeMap<String, RampCounts>;

impl Node {
    /// Asks the registry for a moment what was counted for ramps that go on.
    pub(super) async fn ask_ramps(&self, live: &Deployment) -> Counted {
        let asking = async {
            let mut counted = Counted::new();
            for (model, ramp) in live.ramps.iter().filter(|(_, ramp)| ramp.is_running()) {
                counted.insert(model.clone(), self.registry.ramp_counts(model, ramp.since).await?);
            }
            Ok::<_, quern_store::Error>(counted)
        };
        tokio::time::timeout(PATIENCE, asking).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// How all ramps are, by model.
pub(super) fn statuses(live: &Deployment, counted: &Counted, now_us: i64) -> Vec<RampStatus> {
    let status =
        |(model, ramp): (&String, &crate::live::ramp::Ramp)| ramp.status(model, counted.get(model), now_us);
    live.ramps.iter().map(status).collect()
}
