//! What is counted of models?

use std::sync::LazyLock;

use quern_base::metrics::{
    Histogram, HistogramVec, IntCounterVec, counters, distribution, seconds_by, stage_seconds,
};

/// What is counted of models.
#[derive(Debug)]
pub struct Metrics {
    /// Seconds that rows waited for a session of their model.
    pub(crate) queue: Histogram,
    /// Seconds that a run of a model took.
    pub(crate) inference: Histogram,
    /// Rows in a run that was made for those who waited.
    pub(crate) batch_rows: Histogram,
    /// How often worker processes had to be started again, by model and version.
    pub(crate) worker_restarts: IntCounterVec,
    /// Seconds that calls of models on other servers took, by our model and version.
    pub(crate) remote: HistogramVec,
    /// How many of them failed, and why.
    pub(crate) remote_failed: IntCounterVec,
}

/// What was counted in this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        let ends: Vec<f64> = (0..=12).map(|power| f64::from(1 << power)).collect();
        Metrics {
            queue: stage_seconds("queue"),
            inference: stage_seconds("inference"),
            batch_rows: distribution("quern_batch_rows", "Rows in a run that requests share", &ends),
            worker_restarts: counters(
                "quern_model_worker_restarts_total",
                "Worker processes of models that ended and were started again",
                &["model", "version"],
            ),
            remote: seconds_by(
                "quern_model_remote_seconds",
                "Calls of models on other servers, by the version that asks",
                &["model", "version"],
            ),
            remote_failed: counters(
                "quern_model_remote_failed_total",
                "Calls of models on other servers that failed: late, unavailable, overloaded or failed",
                &["model", "version", "cause"],
            ),
        }
    });
    &METRICS
}
