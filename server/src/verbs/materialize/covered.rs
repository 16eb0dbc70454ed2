//! Is there anything that the last run of a view has not brought in?
//!
//! Each run looks back for rows that came late. Where history is as it was when a run of this process read it, to the
//! last file and the last pushed row, and the head is as that run left it, there are none.

use std::collections::HashMap;

use parking_lot::Mutex;
use quern_engine::time::visible_from;
use quern_engine::{ViewId, ViewPlan};
use quern_store::history::{Scan, State};
use quern_wire::MaterializeRequest;

/// What was brought in of each view by the last run that left nothing out.
#[derive(Default)]
pub(crate) struct Covered(Mutex<HashMap<ViewId, Known>>);

struct Known {
    history: State,
    /// Up to which query time.
    until_us: i64,
}

/// Whoever says how far to look back has reasons to read again.
pub(super) fn is_plain(request: &MaterializeRequest) -> bool {
    request.from_us.is_none() && request.look_back_us.is_none()
}

impl Covered {
    /// Notes that all of `scan` is in the head that is visible by `until_us`.
    pub(super) fn note(&self, view: ViewId, scan: &Scan, until_us: i64) {
        self.0.lock().insert(view, Known { history: scan.state.clone(), until_us });
    }

    /// Whether all of `scan` is in the head that is visible by `to_us`, where that has all up to `watermark`.
    pub(super) fn has(&self, view: &ViewPlan, scan: &Scan, watermark: Option<i64>, to_us: i64) -> bool {
        let covered = self.0.lock();
        let Some(known) = covered.get(&view.id) else { return false };
        let until_us = known.until_us;
        // Another watermark was set by somebody else, or by nobody: the head may be another one.
        let is_as_left = watermark == Some(until_us) && to_us >= until_us && known.history == scan.state;
        is_as_left
            && scan.units.iter().all(|unit| {
                let visible = unit.times.map(|(first_us, last_us)| {
                    (visible_from(first_us, view.lag_us), visible_from(last_us, view.lag_us))
                });
                // What was yet to come then may have come since.
                visible.is_some_and(|(first_us, last_us)| last_us <= until_us || first_us > to_us)
            })
    }

    /// Forgets all other views.
    pub(super) fn keep_only(&self, views: &[ViewId]) {
        self.0.lock().retain(|view, _| views.contains(view));
    }
}
