//! What is counted of stores?

use std::sync::LazyLock;

use quern_base::metrics::{IntCounter, IntCounterVec, IntGauge, counter, counters, gauge};

/// What is counted of stores.
#[derive(Debug)]
pub struct Metrics {
    /// Whether the online store answers: 0 while the breaker is open.
    pub online_store_up: IntGauge,
    /// What went wrong in asking the online store, by kind.
    pub(crate) online_store_errors: IntCounterVec,
    /// How often the online store was given up for some time.
    pub(crate) online_store_breaker_opened: IntCounter,
    /// Replicas that look-ups may be asked of.
    pub(crate) online_store_replicas: IntGauge,
    /// Look-ups that a replica was asked for, by result.
    pub(crate) online_store_replica_reads: IntCounterVec,
    /// Look-ups that were slow and asked of a second copy, by result.
    pub(crate) online_store_hedges: IntCounterVec,
    /// Files of history that were opened.
    pub(crate) history_files_opened: IntCounter,
    /// Requests for parts of files of sources in buckets.
    pub(crate) history_object_requests: IntCounter,
    /// What came of them.
    pub(crate) history_object_bytes: IntCounter,
    /// Parts of such files that were taken from copies here.
    pub(crate) history_object_copies_read: IntCounter,
    /// Segments that are damaged or missing, as far as is known.
    pub(crate) segments_damaged: IntGauge,
}

/// What was counted in this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
        online_store_up: gauge(
            "quern_online_store_up",
            "Whether the online store answers; 0 while the breaker is open",
        ),
        online_store_errors: counters(
            "quern_online_store_errors_total",
            "Failures in asking the online store, by kind",
            &["kind"],
        ),
        online_store_breaker_opened: counter(
            "quern_online_store_breaker_opened_total",
            "How often the online store was given up until it answered again",
        ),
        online_store_replicas: gauge(
            "quern_online_store_replicas",
            "Replicas of the online store that answer and are not too far behind",
        ),
        online_store_replica_reads: counters(
            "quern_online_store_replica_reads_total",
            "Look-ups that a replica was asked for, by result: answered, behind, failed",
            &["result"],
        ),
        online_store_hedges: counters(
            "quern_online_store_hedges_total",
            "Look-ups that were slow, by what became of asking a second copy: won, lost, denied",
            &["result"],
        ),
        history_files_opened: counter(
            "quern_history_files_opened_total",
            "How often a file of a source was opened, to see what it says of itself or to read rows",
        ),
        history_object_requests: counter(
            "quern_history_object_requests_total",
            "Requests for parts of the files of sources in object stores, without those that are sent again",
        ),
        history_object_bytes: counter(
            "quern_history_object_bytes_total",
            "Bytes that were read of the files of sources in object stores",
        ),
        history_object_copies_read: counter(
            "quern_history_object_copies_read_total",
            "Parts of the files of sources in object stores that were taken from copies in the data folder",
        ),
        segments_damaged: gauge(
            "quern_segments_damaged",
            "Files of the store that are damaged or missing, as they were read last",
        ),
    });
    &METRICS
}
