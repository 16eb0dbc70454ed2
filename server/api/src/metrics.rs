//! What is counted of requests?

use std::sync::LazyLock;

use quern_base::metrics::{HistogramVec, IntCounterVec, IntGauge, counters, gauge, seconds_by};
use quern_engine::Status;

/// What is counted of requests.
pub(crate) struct Metrics {
    /// Requests by route, method and status.
    pub(crate) requests: IntCounterVec,
    /// Seconds from a request's head to the end of its reply, by route.
    pub(crate) request_seconds: HistogramVec,
    /// Requests that are being answered.
    pub(crate) in_flight: IntGauge,
    feature_values: IntCounterVec,
}

/// What was counted in this process.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        requests: counters(
            "quern_requests_total",
            "Requests by route, method and status, which over gRPC is the name of its code",
            &["route", "method", "status"],
        ),
        request_seconds: seconds_by(
            "quern_request_seconds",
            "Seconds to the end of a reply by route",
            &["route"],
        ),
        in_flight: gauge("quern_requests_in_flight", "Requests that are being answered"),
        feature_values: counters(
            "quern_feature_values_total",
            "Feature values served by feature service and status",
            &["feature_service", "status"],
        ),
    });
    &METRICS
}

impl Metrics {
    /// Counts the stored feature values that `feature_service` served, by status.
    pub(crate) fn count_features(&self, feature_service: &str, counts: FeatureCounts) {
        for (status, count) in STATUSES.into_iter().zip(counts.0).filter(|(_, count)| *count > 0) {
            self.feature_values.with_label_values(&[feature_service, status.as_str()]).inc_by(count);
        }
    }
}

const STATUSES: [Status; 5] =
    [Status::Present, Status::NullValue, Status::NotFound, Status::OutsideMaxAge, Status::Unavailable];

/// How many values have which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FeatureCounts([u64; STATUSES.len()]);

impl FeatureCounts {
    /// Counts one value.
    pub(crate) fn add(&mut self, status: Status) {
        self.0[status as usize] += 1;
    }
}
