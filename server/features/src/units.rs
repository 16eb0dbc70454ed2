//! Which units of a source may hold rows of a view?
//!
//! Those of its times, but for files of which so much is known unread that the view's `where` leaves out all of their
//! rows.

use std::ops::RangeInclusive;

use quern_engine::ViewPlan;
use quern_engine::time::visible_from;
use quern_store::history::{Scan, Unit};

use crate::error::Result;

/// Units of a source, told apart by what is known of them unread.
#[derive(Debug)]
pub struct Units {
    /// Those that may hold rows, ascending.
    pub matter: Vec<usize>,
    /// How many rows those have that are of the same times: `where` leaves each of them out, as it would if they were
    /// read, and fails for none.
    pub filtered: u64,
}

impl Units {
    /// Those that may hold rows with these event timestamps, µs.
    pub(crate) fn within(scan: &Scan, view: &ViewPlan, times_us: RangeInclusive<i64>) -> Result<Units> {
        Units::of(scan, view, |unit| unit.may_hold(*times_us.start(), *times_us.end()))
    }

    /// Those that may hold rows which become visible at these query times, µs.
    ///
    /// # Errors
    /// Where the scan was not opened for the view.
    pub fn visible(scan: &Scan, view: &ViewPlan, visible_us: RangeInclusive<i64>) -> Result<Units> {
        let visible_from = |time_us: i64| visible_from(time_us, view.lag_us);
        let is_timely = |(first_us, last_us): (i64, i64)| {
            visible_from(first_us) <= *visible_us.end() && visible_from(last_us) >= *visible_us.start()
        };
        Units::of(scan, view, |unit| unit.times.is_none_or(is_timely))
    }

    fn of(scan: &Scan, view: &ViewPlan, is_timely: impl Fn(&Unit) -> bool) -> Result<Units> {
        let left_out = left_out(scan, view)?;
        let timely = (0..scan.units.len()).filter(|unit| is_timely(&scan.units[*unit]));
        let (others, matter): (Vec<usize>, Vec<usize>) = timely.partition(|unit| left_out[*unit]);
        Ok(Units { matter, filtered: rows(scan, &others) })
    }

    /// How many rows those have that may hold some.
    pub fn rows(&self, scan: &Scan) -> u64 {
        rows(scan, &self.matter)
    }
}

fn rows(scan: &Scan, units: &[usize]) -> u64 {
    units.iter().map(|unit| scan.units[*unit].rows).sum()
}

/// For each unit whether `where` is known to leave out all of its rows.
fn left_out(scan: &Scan, view: &ViewPlan) -> Result<Vec<bool>> {
    let mut left_out = vec![false; scan.units.len()];
    for condition in view.conditions() {
        let known = scan.constants(condition.columns())?;
        if known.units.is_empty() {
            continue;
        }
        let is_out = condition.leaves_out(&known.values);
        for (units, _) in known.units.into_iter().zip(is_out).filter(|(_, is_out)| *is_out) {
            left_out[units].fill(true);
        }
    }
    Ok(left_out)
}
