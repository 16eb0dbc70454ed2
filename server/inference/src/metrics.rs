//! What is counted of models?

use std::sync::LazyLock;

use quern_base::metrics::{Histogram, IntCounterVec, counters, distribution, stage_seconds};

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
        }
    });
    &METRICS
}
