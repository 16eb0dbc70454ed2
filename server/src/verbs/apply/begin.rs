//! Which ramp is asked for?

use std::collections::BTreeMap;

use feature_defs::{format_duration, parse_duration};
use quern_wire::{Percent, RampRequest};

use super::weights::weigh;
use crate::live::ramp::Ramp;
use crate::live::ramp::condition::Condition;

/// How long a step lasts at least: several rounds.
const EVERY_MIN_US: i64 = 10_000_000;
/// More than anybody will look through.
const STEPS_MAX: usize = 100;
const CONDITIONS_MAX: usize = 20;

/// The weights before a ramp.
pub(super) struct Before {
    /// Those of all versions.
    pub(super) weights: BTreeMap<String, u64>,
    /// What of them was set in flight.
    pub(super) set: Option<Vec<(String, u32)>>,
}

/// What a ramp that is asked for becomes, which begins with the apply `since`.
///
/// # Errors
/// What of it is no ramp, and how to write it.
pub(super) fn begin(
    asked: RampRequest,
    Before { weights: before, set: set_before }: Before,
    since: u64,
    since_us: i64,
) -> Result<Ramp, String> {
    let RampRequest { version, steps, every, stop_if } = asked;
    check_steps(&version, &steps, &before)?;
    let every_us = parse_duration(&every).map_err(|why| format!("`every`: {why}"))?;
    if every_us < EVERY_MIN_US {
        let least = format_duration(EVERY_MIN_US);
        return Err(format!(
            "`every` is `{every}`, too short to see how a version does; give `{least}` or more"
        ));
    }
    let mut conditions = Vec::new();
    for (place, text) in stop_if.iter().enumerate() {
        let found =
            Condition::parse_all(text).map_err(|why| format!("`stop_if`, item {}: {why}", place + 1))?;
        conditions.extend(found);
    }
    if conditions.len() > CONDITIONS_MAX {
        return Err(format!("`stop_if` has {} conditions; give at most {CONDITIONS_MAX}", conditions.len()));
    }
    if conditions.is_empty() {
        conditions.push(Condition::DEFAULT);
    }
    // Each share can be had, whatever the other versions have.
    for share in &steps {
        weigh(&before, &[(version.clone(), (*share).into())].into())?;
    }
    Ok(Ramp {
        version,
        steps,
        every_us,
        stop_if: conditions,
        before,
        set_before,
        step: 0,
        since,
        since_us,
        end: None,
    })
}

fn check_steps(version: &str, steps: &[Percent], before: &BTreeMap<String, u64>) -> Result<(), String> {
    let Some(first) = steps.first() else {
        return Err("`steps` is empty; give the shares of the version, as in `10%`, `50%`, `100%`".to_owned());
    };
    if steps.len() > STEPS_MAX {
        return Err(format!("`steps` has {} shares; give at most {STEPS_MAX}", steps.len()));
    }
    if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(format!(
            "`steps`: `{}` does not come after `{}`; give shares that ascend",
            pair[1], pair[0]
        ));
    }
    if first.parts() == 0 {
        return Err("`steps`: nobody can be judged by `0%`; begin with more".to_owned());
    }
    let (now, all) =
        (u128::from(before[version]), before.values().map(|weight| u128::from(*weight)).sum::<u128>());
    if u128::from(first.parts()) * all < now * u128::from(Percent::PARTS) {
        let percent = now as f64 * 100.0 / all as f64;
        return Err(format!(
            "`steps`: version `{version}` has {percent:.1} % now, and `{first}` is less; begin with what it has or more, \
             or set its share first"
        ));
    }
    Ok(())
}
