//! Windowed aggregates as simply as they can be said: look at every event, keep those in the window, aggregate them.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;

/// A row of the source as the test made it, in arrival order with its fellows.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) key: Option<i64>,
    pub(crate) ts_us: Option<i64>,
    pub(crate) created_us: Option<i64>,
    pub(crate) id: Option<i64>,
    pub(crate) x: Option<f64>,
    pub(crate) i: Option<i64>,
    pub(crate) t: Option<&'static str>,
    pub(crate) b: Option<bool>,
}

impl Event {
    /// Event and created timestamp; a row without its own creation was created when it happened.
    fn order(&self) -> (i64, i64) {
        let ts_us = self.ts_us.expect("only events with a time are asked");
        (ts_us, self.created_us.unwrap_or(ts_us))
    }
}

/// The rules of one view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) lag_us: i64,
    /// Rows of equal key, time and `id` are one.
    pub(crate) has_id: bool,
    pub(crate) as_known: bool,
    /// What became visible at the very query time does not count.
    pub(crate) before: bool,
    /// Events of this `id` do not count.
    pub(crate) excluded: Option<i64>,
}

/// A window's length (none: over all time) and hop, µs.
pub(crate) type Window = (Option<i64>, i64);

/// What the window holds, in the order of time.
pub(crate) fn window(
    events: &[Event],
    rules: Rules,
    key: i64,
    q_us: i64,
    (length, hop): Window,
) -> Vec<&Event> {
    let start = length.map(|length| (q_us - length).div_euclid(hop) * hop);
    let sees = |us: i64| if rules.before { us < q_us } else { us <= q_us };
    let mut held: Vec<&Event> = Vec::new();
    for event in events {
        let Some(ts_us) = event.ts_us else { continue };
        let v = ts_us + rules.lag_us;
        if event.key != Some(key)
            || !sees(v)
            || start.is_some_and(|start| v < start)
            || rules.as_known && !sees(event.order().1)
            || rules.excluded.is_some() && event.id == rules.excluded
        {
            continue;
        }
        if rules.has_id
            && let Some(same) =
                held.iter_mut().find(|other| other.ts_us == event.ts_us && other.id == event.id)
        {
            if event.order() >= same.order() {
                *same = event;
            }
            continue;
        }
        held.push(event);
    }
    // Of equal times the later to arrive stays the later: the sort is stable; a repetition takes its own place.
    let place = |event: &Event| events.iter().position(|other| std::ptr::eq(other, event));
    held.sort_by_key(|event| (event.order(), place(event)));
    held
}

/// Doubles by the order that `min` and `max` go by.
pub(crate) fn rank(x: f64) -> (bool, i64) {
    let bits = x.to_bits() as i64;
    (x.is_nan(), if x.is_nan() { 0 } else { bits ^ ((bits >> 63) as u64 >> 1) as i64 })
}

/// A double exactly, times 2^1074.
fn whole(x: f64) -> BigInt {
    let bits = x.to_bits();
    let exponent = (bits >> 52) & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    let magnitude = match exponent {
        0 => BigInt::from(fraction),
        _ => BigInt::from(fraction | 1 << 52) << (exponent - 1),
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// The double nearest to `n * 2^-shift`, by trying its neighbours: `n` has few bits more than a double.
fn nearest(n: &BigInt, shift: u64) -> f64 {
    if *n == BigInt::from(0) {
        return 0.0;
    }
    let (mut low, mut high) = (0u64, f64::INFINITY.to_bits());
    let magnitude = if n.sign() == num_bigint::Sign::Minus { -n } else { n.clone() };
    // The greatest double not above: bisection over bit patterns, which order as their numbers do.
    let scaled = |bits: u64| whole(f64::from_bits(bits)) << (shift - 1074);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if scaled(middle) <= magnitude { low = middle } else { high = middle }
    }
    if high == f64::INFINITY.to_bits() {
        return f64::INFINITY;
    }
    let (below, above) = (&magnitude - scaled(low), scaled(high) - &magnitude);
    let bits = if below < above || below == above && low & 1 == 0 { low } else { high };
    let x = f64::from_bits(bits);
    if n.sign() == num_bigint::Sign::Minus { -x } else { x }
}

/// The sum, rounded once.
pub(crate) fn sum(numbers: &[f64]) -> f64 {
    let infinite = |x: f64| numbers.contains(&x);
    if numbers.iter().any(|x| x.is_nan()) || infinite(f64::INFINITY) && infinite(f64::NEG_INFINITY) {
        return f64::NAN;
    }
    if let Some(x) = numbers.iter().find(|x| x.is_infinite()) {
        return *x;
    }
    nearest(&numbers.iter().map(|x| whole(*x)).sum(), 1074)
}

/// The variance of a sample: its numerator exact and rounded once.
pub(crate) fn variance(numbers: &[f64]) -> Option<f64> {
    let n = numbers.len();
    if n < 2 {
        return None;
    }
    if !numbers.iter().all(|x| x.is_finite()) {
        return Some(f64::NAN);
    }
    let sum: BigInt = numbers.iter().map(|x| whole(*x)).sum();
    let squares: BigInt = numbers.iter().map(|x| whole(*x) * whole(*x)).sum();
    let numerator = squares * BigInt::from(n) - &sum * &sum;
    Some(nearest(&numerator, 2148) / (n as f64 * (n - 1) as f64))
}

/// For each category how many, at most `limit` of them.
pub(crate) fn histogram(events: &[&Event], limit: usize) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    events.iter().filter_map(|event| event.t).for_each(|t| *counts.entry(t).or_default() += 1);
    counts.into_iter().take(limit).collect()
}

/// How many distinct values.
pub(crate) fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<BTreeSet<_>>().len()
}
