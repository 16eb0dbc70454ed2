//! How is the node doing? What the verbs count.

mod gauges;
mod models;

pub use models::{Statistics, Total};

use std::sync::LazyLock;

use quern_base::metrics::{
    Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, counters, gauge, gauges, seconds,
    seconds_by,
};

/// Everything that is counted.
pub struct Metrics {
    /// Instances by model, by what answered and by way: `route`, `pinned` or `fallback`.
    pub predictions: IntCounterVec,
    /// What versions of models were asked, by outcome: `answered`, or why not.
    pub model_requests: IntCounterVec,
    /// How long they took to answer.
    pub model_seconds: HistogramVec,
    /// How long they took to fail.
    pub model_failed_seconds: HistogramVec,
    /// Instances by model, by why its version did not answer, and by what did.
    pub fallbacks: IntCounterVec,
    /// Instances that shadows got, by model, version and outcome: `answered`, `failed` or `dropped`.
    pub shadows: IntCounterVec,
    /// Seconds from a push to its acknowledgement.
    pub push_seconds: Histogram,
    /// Pushed rows that wait to be written.
    pub push_queue_rows: IntGauge,
    /// Pushed rows by source that are in no file yet.
    pub pushed_tail_rows: IntGaugeVec,
    push_rows: IntCounterVec,
    /// Pulls of sources out of databases, by outcome: `done` or `failed`.
    pub pulls: IntCounterVec,
    /// Predictions by model that went into the log's files.
    pub predictions_written: IntCounterVec,
    /// Predictions by model that should have been logged, and were not: more came than could be written.
    pub predictions_dropped: IntCounterVec,
    /// Labels by model that belonged to no logged request, and were more of these than are kept.
    pub labels_dropped: IntCounterVec,
}

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        predictions: counters(
            "quern_predictions_total",
            "Instances by model, by what answered and by way",
            &["model", "served_by", "way"],
        ),
        model_requests: counters(
            "quern_model_requests_total",
            "Requests that reached a version of a model, by outcome: answered, or why not",
            &["model", "version", "outcome"],
        ),
        model_seconds: seconds_by(
            "quern_model_seconds",
            "Seconds from feature vectors to predictions by model and version, the wait for a session among them",
            &["model", "version"],
        ),
        model_failed_seconds: seconds_by(
            "quern_model_failed_seconds",
            "Seconds from feature vectors to failures by model and version, the wait for a session among them",
            &["model", "version"],
        ),
        fallbacks: counters(
            "quern_fallbacks_total",
            "Instances by model, by why its version did not answer, and by what did",
            &["model", "cause", "served_by"],
        ),
        shadows: counters(
            "quern_shadow_predictions_total",
            "Instances that shadows got by model, version and outcome",
            &["model", "version", "outcome"],
        ),
        push_seconds: seconds("quern_push_seconds", "Seconds from a push to its acknowledgement"),
        push_queue_rows: gauge("quern_push_queue_rows", "Pushed rows that wait to be written"),
        pushed_tail_rows: gauges(
            "quern_pushed_tail_rows",
            "Pushed rows by source that are in no file yet",
            &["source"],
        ),
        push_rows: counters(
            "quern_push_rows_total",
            "Pushed rows by source and outcome",
            &["source", "outcome"],
        ),
        pulls: counters(
            "quern_pulls_total",
            "Pulls of sources out of databases by outcome: done or failed",
            &["source", "outcome"],
        ),
        predictions_written: counters(
            "quern_prediction_log_written_total",
            "Predictions by model that went into the log's files",
            &["model"],
        ),
        predictions_dropped: counters(
            "quern_prediction_log_dropped_total",
            "Predictions by model that were to be logged and could not be",
            &["model"],
        ),
        labels_dropped: counters(
            "quern_labels_dropped_total",
            "Labels by model that belonged to no logged request, and were more of these than are kept",
            &["model"],
        ),
    });
    &METRICS
}

impl Metrics {
    /// How many rows were pushed to `source` with this outcome.
    pub fn pushed(&self, source: &str, outcome: &str) -> u64 {
        self.push_rows.with_label_values(&[source, outcome]).get()
    }

    /// Counts rows that were pushed to `source`; `outcome` is `accepted`, `repeated` or `rejected`.
    pub fn count_pushed(&self, source: &str, outcome: &str, rows: usize) {
        if rows > 0 {
            self.push_rows.with_label_values(&[source, outcome]).inc_by(rows as u64);
        }
    }
}
