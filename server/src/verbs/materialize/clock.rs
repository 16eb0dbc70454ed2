//! What may a time be that is asked for, or that was noted under another clock?

use quern_base::clock::shown;
use quern_engine::ViewPlan;
use quern_wire::MaterializeRequest;

use crate::error::{Error, Result};

/// How far ahead of this clock a watermark may lie, µs: clocks of servers that share a head are not one.
const SKEW_MAX_US: i64 = 60_000_000;

pub(super) fn is_ahead(until_us: i64, now_us: i64) -> bool {
    until_us.saturating_sub(now_us) > SKEW_MAX_US
}

pub(super) fn ahead(view: &ViewPlan, until_us: i64, now_us: i64) -> String {
    format!(
        "feature view `{}` was materialized up to {} by a clock that was ahead of this machine's ({})",
        view.name,
        shown(until_us),
        shown(now_us)
    )
}

/// Refuses times at which nothing can have happened yet.
pub(super) fn check_times(request: &MaterializeRequest, now_us: i64) -> Result<()> {
    for (name, time_us) in [("from", request.from_us), ("to", request.to_us)] {
        if let Some(time_us) = time_us.filter(|time_us| *time_us > now_us) {
            return Err(Error::invalid(format!(
                "`{name}` is {}, and this machine's clock says {}: what is yet to come cannot be materialized; leave \
                 `{name}` out, or name an earlier time",
                shown(time_us),
                shown(now_us)
            )));
        }
    }
    match (request.from_us, request.to_us) {
        (Some(from_us), Some(to_us)) if from_us > to_us => Err(Error::invalid("`from` is after `to`")),
        _ => Ok(()),
    }
}
