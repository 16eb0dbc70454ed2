//! How does the share of a version go through steps by itself, and how far is it?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::percent::Percent;

/// Has the share of a version go through steps by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RampRequest {
    /// The version.
    pub version: String,
    /// Its shares, one after the other, ascending: `["10%", "50%", "100%"]`. The other versions share the rest as they
    /// shared before.
    pub steps: Vec<Percent>,
    /// How long each of them lasts at least, as in `10m`; no less than `10s`.
    pub every: String,
    /// What stops it and gives back the weights from before: `error_rate > 0.01`, `fallback_rate > 5%`, `p99 > 50ms`
    /// (`p95`, `p50`), several in one text with `or`. `error_rate > 0.01` unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_if: Vec<String>,
}

/// The ramp of a model: one that goes on, or how the last one ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RampStatus {
    /// The model.
    pub model: String,
    /// The version whose share it is.
    pub version: String,
    /// How it is.
    pub state: RampState,
    /// The step that it is in, or ended in; 1 is the first.
    pub step: usize,
    /// The shares of all steps.
    pub steps: Vec<Percent>,
    /// How long each lasts at least.
    pub every: String,
    /// When the step began; of a ramp that is over, when it ended. RFC 3339.
    pub since: String,
    /// Requests that the version had in this step, on all servers, as far as these have said so; null where the
    /// registry does not answer.
    pub requests: Option<u64>,
    /// So many it must have before anything is decided.
    pub requests_min: u64,
    /// What stops it, and how it stands.
    pub stop_if: Vec<StopIf>,
    /// Why it ended before its last step was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What stops a ramp, and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StopIf {
    /// As in `p99 > 50ms`.
    pub condition: String,
    /// The part of the requests that failed, that something else answered, or that took longer: from 0 to 1; null
    /// before the first request.
    pub share: Option<f64>,
}

/// How a ramp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RampState {
    /// It goes on.
    Running,
    /// It would go on, and its version had too few requests in this step to judge by.
    Waiting,
    /// It went through all steps.
    Done,
    /// It stopped by itself, and the weights are those from before it.
    Stopped,
    /// Somebody set weights, or declared the route in another way, and these hold.
    Ended,
}

impl RampState {
    /// As it stands in replies and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RampState::Running => "running",
            RampState::Waiting => "waiting",
            RampState::Done => "done",
            RampState::Stopped => "stopped",
            RampState::Ended => "ended",
        }
    }
}
