//! Which version of a model answers whom, and how is that changed in flight?

use std::collections::BTreeMap;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::percent::Percent;
use crate::ramp::{RampRequest, RampStatus};

/// `POST /v1/models/{model}:route`: which version answers whom from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// Version → its share; none gives back the weights that are declared. Weights and percentages do not mix.
    #[serde(default)]
    pub weights: BTreeMap<String, Share>,
    /// Has the share of one version grow by itself, instead of weights. Ends a ramp of the model that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampRequest>,
}

/// A version's share, as a request sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Value", into = "Value")]
pub enum Share {
    /// A weight beside those of the other versions, which keep theirs: `50`.
    Weight(u32),
    /// A part of all, into whose rest the other versions are scaled: `"10%"`.
    Percent(Percent),
}

/// Its reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Routed {
    /// Number of the apply that is live now.
    pub number: u64,
    /// Version → its weight, of all versions.
    pub weights: BTreeMap<String, u64>,
    /// Version → what that is in percent.
    #[serde(default)]
    pub percent: BTreeMap<String, f64>,
    /// Version → what it was before.
    #[serde(default)]
    pub percent_before: BTreeMap<String, f64>,
    /// The ramp that begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampStatus>,
    /// Which ramp it ended, where one went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ramp: Option<String>,
}

/// Weights in percent.
pub fn percentages(weights: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let total = weights.values().sum::<u64>().max(1) as f64;
    weights.iter().map(|(version, weight)| (version.clone(), *weight as f64 * 100.0 / total)).collect()
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        match text.strip_suffix('%') {
            Some(percent) => Ok(Share::Percent(percent.parse()?)),
            None => text.parse().map(Share::Weight).map_err(|_| {
                format!("`{text}` is no share: give a weight, a whole number such as `10`, or a percentage such as `10%`")
            }),
        }
    }
}

impl From<Percent> for Share {
    fn from(percent: Percent) -> Share {
        Share::Percent(percent)
    }
}

impl TryFrom<Value> for Share {
    type Error = String;

    fn try_from(value: Value) -> Result<Share, String> {
        match value {
            Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<Share> for Value {
    fn from(share: Share) -> Value {
        match share {
            Share::Weight(weight) => weight.into(),
            Share::Percent(percent) => percent.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_weight_or_a_percentage() {
        for (text, parts) in
            [("10%", 10_000_000), ("12.5%", 12_500_000), ("0.000001%", 1), ("100%", Percent::PARTS)]
        {
            let share: Share = text.parse().unwrap();
            assert!(matches!(share, Share::Percent(percent) if percent.parts() == parts), "{text}");
            assert_eq!(serde_json::to_string(&share).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Share>(&format!("{text:?}")).unwrap(), share);
        }
        assert_eq!(serde_json::from_str::<Share>("50").unwrap(), Share::Weight(50));
        assert_eq!(serde_json::to_string(&Share::Weight(50)).unwrap(), "50");
        for wrong in [
            "",
            "%",
            "-1",
            "-1%",
            "1.5",
            "100.000001%",
            "0.0000001%",
            "1e2%",
            ".5%",
            "5.%",
            "NaN%",
            "99999999999%",
        ] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert!(
            serde_json::from_str::<Share>("-1").is_err() && serde_json::from_str::<Share>("null").is_err()
        );
    }
}
