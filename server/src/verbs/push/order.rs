//! When may pushed history and the head be changed? In turn, and by definitions that are the latest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_store::turns::{Order, Turns};

use crate::error::{Error, Result};
use crate::live::{Deployment, Live};

/// How long an apply of another server may take to go live here while pushes wait, and how often it is looked for.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);
const APPLY_PAUSE: Duration = Duration::from_millis(20);

/// The turn to commit for some sources, at a time when what is live here is what was applied last.
pub(super) struct InOrder<'t> {
    pub(super) live: Arc<Deployment>,
    pub(super) order: Order<'t>,
}

/// Waits for the turn to commit for `sources`.
pub(super) fn in_order<'t>(turns: &'t Turns, live: &Live, sources: &BTreeSet<String>) -> Result<InOrder<'t>> {
    let give_up = Instant::now() + APPLY_PATIENCE;
    loop {
        let order = turns.order(sources)?;
        let live = live.now();
        if order.is_latest(live.number) {
            return Ok(InOrder { live, order });
        }
        if Instant::now() > give_up {
            return Err(Error::busy("other definitions were applied and are not live here yet"));
        }
        drop(order);
        std::thread::sleep(APPLY_PAUSE);
    }
}
