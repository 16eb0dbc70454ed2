//! What is counted of look-ups?

use std::sync::LazyLock;

use quern_base::metrics::{Histogram, HistogramVec, IntCounterVec, counters, distributions, stage_seconds};
use quern_engine::Failed;

/// A second, a minute, ten, an hour, six, a day, a week, a month, three, a year.
const AGES: [f64; 10] =
    [1.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 31_536_000.0];

/// What is counted of look-ups.
#[derive(Debug)]
pub struct Metrics {
    /// Seconds that reading the online store took, for all look-ups of a request together.
    pub(crate) look_up: Histogram,
    /// Seconds that the derived expressions of a request took.
    pub(crate) transform: Histogram,
    /// Seconds from the event of the oldest row that a look-up found to its query time, by feature view.
    pub(crate) feature_age: HistogramVec,
    failed: IntCounterVec,
}

impl Metrics {
    /// Counts values that could not be computed, of the feature view or feature service `of`.
    pub fn note_failed(&self, of: &str, failed: &Failed) {
        for (feature, rows) in failed.iter() {
            self.failed.with_label_values(&[of, feature]).inc_by(rows);
        }
    }
}

/// What was counted in this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        look_up: stage_seconds("look_up"),
        transform: stage_seconds("transform"),
        feature_age: distributions(
            "quern_feature_age_seconds",
            "Age of the oldest row of a look-up by feature view",
            &["feature_view"],
            &AGES,
        ),
        failed: counters(
            "quern_failed_values_total",
            "Values that are null because they could not be computed, by feature view or service and feature",
            &["of", "feature"],
        ),
    });
    &METRICS
}
