//! When does a ramp stop?
//!
//! Each condition is a part of the requests that must not grow too large: those that failed, that something else
//! answered, or that took longer. The 99th percentile is above 50 ms exactly where more than 1 % took longer than that,
//! so nothing is estimated, and counts of several servers add up.

use std::fmt;
use std::time::Duration;

use feature_defs::{format_duration, parse_duration, suggest};
use serde::{Deserialize, Serialize};

/// Of so many parts, all make a whole.
const PARTS: u64 = 100_000_000;
/// A limit has so many decimals at most: they are parts of [`PARTS`].
const DECIMALS_MAX: usize = 8;
const NAMES: [&str; 5] = ["error_rate", "fallback_rate", "p99", "p95", "p50"];
const FORM: &str =
    "give conditions such as `error_rate > 0.01`, `fallback_rate > 5%` or `p99 > 50ms`, with `or` between";

/// What a ramp stops for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    measure: Measure,
    /// The part of the requests that may be so, of [`PARTS`].
    most: u64,
}

/// What is asked of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Failed,
    FellBack,
    /// Whether it took longer than this (µs).
    Slower(i64),
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Whether the version did not answer, and nobody but the server is to blame.
    pub(crate) failed: bool,
    /// Whether something else answered for it.
    pub(crate) fell_back: bool,
    /// From its look-up to its answer.
    pub(crate) took: Duration,
}

impl Condition {
    /// What a ramp stops for where nobody says so: `error_rate > 0.01`.
    pub(crate) const DEFAULT: Condition = Condition { measure: Measure::Failed, most: PARTS / 100 };

    /// Reads conditions with `or` between them.
    ///
    /// # Errors
    /// What is wrong, and how to write it.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Condition>, String> {
        text.split(" or ").map(str::trim).map(Condition::parse).collect()
    }

    fn parse(text: &str) -> Result<Condition, String> {
        let wrong = |why: String| format!("`{text}` is no condition: {why}");
        let [name, comparison, limit] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(wrong(FORM.to_owned()));
        };
        if !NAMES.contains(&name) {
            return Err(wrong(format!("`{name}` is nothing that is measured; {}", suggest(name, NAMES))));
        }
        if comparison != ">" {
            return Err(wrong(format!("`{comparison}` is not `>`: write `{name} > {limit}`")));
        }
        if let Some(percentile) = name.strip_prefix('p').and_then(|digits| digits.parse::<u64>().ok()) {
            let limit_us = parse_duration(limit).map_err(wrong)?;
            return Ok(Condition {
                measure: Measure::Slower(limit_us),
                most: PARTS / 100 * (100 - percentile),
            });
        }
        let measure = if name == NAMES[0] { Measure::Failed } else { Measure::FellBack };
        let most = rate(limit).ok_or_else(|| {
            wrong(format!(
                "`{limit}` is no rate: give one from 0 to less than 1 with at most {DECIMALS_MAX} decimals, such as \
                 `0.01`, or a percentage such as `1%`"
            ))
        })?;
        Ok(Condition { measure, most })
    }

    /// Whether more than the limit of `requests` were so.
    pub(crate) fn is_met(&self, hits: u64, requests: u64) -> bool {
        u128::from(hits) * u128::from(PARTS) > u128::from(self.most) * u128::from(requests)
    }

    /// Whether a request that ended so is one of those.
    pub(crate) fn is_hit(&self, outcome: Outcome) -> bool {
        match self.measure {
            Measure::Failed => outcome.failed,
            Measure::FellBack => outcome.fell_back,
            Measure::Slower(limit_us) => outcome.took.as_micros() > limit_us.unsigned_abs().into(),
        }
    }

    /// What those are said to have done.
    pub(crate) fn said(&self) -> String {
        match self.measure {
            Measure::Failed => "failed".to_owned(),
            Measure::FellBack => "were answered by something else".to_owned(),
            Measure::Slower(limit_us) => format!("took longer than {}", format_duration(limit_us)),
        }
    }
}

/// The parts of [`PARTS`] that a rate below 1 is.
fn rate(text: &str) -> Option<u64> {
    let (number, decimals_max) = match text.strip_suffix('%') {
        Some(percent) => (percent, DECIMALS_MAX - 2),
        None => (text, DECIMALS_MAX),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > decimals_max {
        return None;
    }
    format!("{whole}{decimals:0<decimals_max$}").parse().ok().filter(|parts| *parts < PARTS)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.measure {
            Measure::Failed => NAMES[0],
            Measure::FellBack => NAMES[1],
            Measure::Slower(limit_us) => {
                let percentile = 100 - self.most * 100 / PARTS;
                return write!(f, "p{percentile} > {}", format_duration(limit_us));
            }
        };
        let digits = format!("{}.{:08}", self.most / PARTS, self.most % PARTS);
        write!(f, "{name} > {}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Condition, String> {
        Condition::parse(&text)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> String {
        condition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_written() {
        for (text, written) in [
            ("error_rate > 0.01", "error_rate > 0.01"),
            ("error_rate > 1%", "error_rate > 0.01"),
            ("fallback_rate  >  0.00000001", "fallback_rate > 0.00000001"),
            ("error_rate > 0", "error_rate > 0"),
            ("p99 > 50ms", "p99 > 50ms"),
            ("p50 > 1500us", "p50 > 1500us"),
        ] {
            let condition = Condition::parse(text).unwrap();
            assert_eq!(condition.to_string(), written);
            assert_eq!(Condition::parse(written).unwrap(), condition);
        }
        assert_eq!(Condition::DEFAULT.to_string(), "error_rate > 0.01");
        let both = Condition::parse_all("p95 > 1s or fallback_rate > 0.5").unwrap();
        assert_eq!(
            both.iter().map(Condition::to_string).collect::<Vec<_>>(),
            ["p95 > 1s", "fallback_rate > 0.5"]
        );
        for (wrong, why) in [
            ("", "give conditions such as"),
            ("error_rate>0.01", "give conditions such as"),
            ("eror_rate > 0.01", "did you mean `error_rate`?"),
            ("p90 > 5ms", "nothing that is measured"),
            ("error_rate >= 0.01", "write `error_rate > 0.01`"),
            ("error_rate > 1", "no rate"),
            ("error_rate > 100%", "no rate"),
            ("error_rate > -0.1", "no rate"),
            ("error_rate > .1", "no rate"),
            ("error_rate > 0.000000001", "no rate"),
            ("error_rate > 50ms", "no rate"),
            ("p99 > 50", "has no unit"),
            ("error_rate > 0.1 and p99 > 5ms", "give conditions such as"),
            ("error_rate > 0.1 or", "give conditions such as"),
        ] {
            let said = Condition::parse_all(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn a_limit_is_met_where_more_than_that_are_so() {
        let one = |text: &str| Condition::parse(text).unwrap();
        assert!(!one("error_rate > 0.01").is_met(1, 100) && one("error_rate > 0.01").is_met(2, 100));
        assert!(!one("error_rate > 0").is_met(0, 100) && one("error_rate > 0").is_met(1, 1_000_000));
        assert!(!one("p99 > 5ms").is_met(1, 100) && one("p99 > 5ms").is_met(2, 100));
        assert!(!one("p50 > 5ms").is_met(50, 100) && one("p50 > 5ms").is_met(51, 100));
        let took = |us| Outcome { failed: false, fell_back: true, took: Duration::from_micros(us) };
        assert!(!one("p99 > 5ms").is_hit(took(5_000)) && one("p99 > 5ms").is_hit(took(5_001)));
        assert!(one("fallback_rate > 0").is_hit(took(1)) && !Condition::DEFAULT.is_hit(took(1)));
    }
}
