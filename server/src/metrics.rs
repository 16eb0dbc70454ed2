//! How is the server doing? Counted in the process, shown to Prometheus.
//!
//! The handles are made once, for the process: counting touches no registry and no lock that is held for long.

mod gauges;

use std::fmt::Write as _;
use std::sync::LazyLock;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use quern_engine::Status;

pub use gauges::Gauge;

/// The labels of a metric that has none.
const UNLABELLED: &[&str] = &[];

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    /// Requests by route, method and status.
    pub requests: IntCounterVec,
    /// Seconds from a request's head to its reply's head, by route.
    pub request_seconds: HistogramVec,
    /// Requests that are being answered.
    pub in_flight: IntGauge,
    /// Seconds that reading the online store took, for all look-ups of a request together.
    pub look_up: Histogram,
    /// Seconds that the derived expressions of a request took.
    pub transform: Histogram,
    /// Seconds that a run of a model took.
    pub inference: Histogram,
    /// Instances by model, by what answered and by way: `route`, `pinned` or `fallback`.
    pub predictions: IntCounterVec,
    /// Instances by model, by why its version did not answer, and by what did.
    pub fallbacks: IntCounterVec,
    /// Instances that shadows got, by model, version and outcome: `answered`, `failed` or `dropped`.
    pub shadows: IntCounterVec,
    /// Seconds that rows waited for a session of their model.
    pub queue: Histogram,
    /// Rows in a run that was made for those who waited.
    pub batch_rows: Histogram,
    /// Seconds from a push to its acknowledgement.
    pub push_seconds: Histogram,
    /// Pushed rows that wait to be written.
    pub push_queue_rows: IntGauge,
    /// Pushed rows by source that are in no file yet.
    pub pushed_tail_rows: IntGaugeVec,
    /// How often the stream of a source could not be read.
    pub stream_errors: IntCounterVec,
    push_rows: IntCounterVec,
    /// Whether the online store answers: 0 while the breaker is open.
    pub online_store_up: IntGauge,
    /// What went wrong in asking the online store, by kind.
    pub online_store_errors: IntCounterVec,
    /// How often the online store was given up for some time.
    pub online_store_breaker_opened: IntCounter,
    /// Replicas that look-ups may be asked of.
    pub online_store_replicas: IntGauge,
    /// Look-ups that a replica was asked for, by result.
    pub online_store_replica_reads: IntCounterVec,
    /// Look-ups that were slow and asked of a second copy, by result.
    pub online_store_hedges: IntCounterVec,
    feature_values: IntCounterVec,
    /// Seconds from the event of the oldest row that a look-up found to its query time, by feature view.
    pub feature_age: HistogramVec,
    /// Predictions by model that went into the log's files.
    pub predictions_written: IntCounterVec,
    /// Predictions by model that should have been logged, and were not: more came than could be written.
    pub predictions_dropped: IntCounterVec,
}

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> =
        LazyLock::new(|| Metrics::new().expect("every metric is named once, and well"));
    &METRICS
}

impl Metrics {
    fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        // From the fastest look-up (10 µs) to a request that nobody waits for (10 s), three to a decade.
        let buckets: Vec<f64> = (-5..=0)
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)))
            .chain([10.0])
            .collect();
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), labels)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        // A second, a minute, ten, an hour, six, a day, a week, a month, three, a year.
        let ages = [
            1.0,
            60.0,
            600.0,
            3_600.0,
            21_600.0,
            86_400.0,
            604_800.0,
            2_592_000.0,
            7_776_000.0,
            31_536_000.0,
        ];
        let feature_age = HistogramVec::new(
            HistogramOpts::new(
                "quern_feature_age_seconds",
                "Age of the oldest row of a look-up by feature view",
            )
            .buckets(ages.to_vec()),
            &["feature_view"],
        )?;
        registry.register(Box::new(feature_age.clone()))?;
        let stages = histograms("quern_stage_seconds", "Seconds of a request by stage", &["stage"])?;
        let predictions = counters(
            "quern_predictions_total",
            "Instances by model, by what answered and by way",
            &["model", "served_by", "way"],
        )?;
        let fallbacks = counters(
            "quern_fallbacks_total",
            "Instances by model, by why its version did not answer, and by what did",
            &["model", "cause", "served_by"],
        )?;
        let shadows = counters(
            "quern_shadow_predictions_total",
            "Instances that shadows got by model, version and outcome",
            &["model", "version", "outcome"],
        )?;
        let rows = (0..=12).map(|power| f64::from(1 << power)).collect();
        let batch_rows = Histogram::with_opts(
            HistogramOpts::new("quern_batch_rows", "Rows in a run that requests share").buckets(rows),
        )?;
        registry.register(Box::new(batch_rows.clone()))?;
        let requests = counters(
            "quern_requests_total",
            "Requests by route, method and status",
            &["route", "method", "status"],
        )?;
        let request_seconds = histograms("quern_request_seconds", "Seconds to a reply by route", &["route"])?;
        let push_seconds =
            histograms("quern_push_seconds", "Seconds from a push to its acknowledgement", UNLABELLED)?;
        let push_queue_rows =
            gauges("quern_push_queue_rows", "Pushed rows that wait to be written", UNLABELLED)?;
        let pushed_tail_rows =
            gauges("quern_pushed_tail_rows", "Pushed rows by source that are in no file yet", &["source"])?;
        let stream_errors = counters(
            "quern_stream_errors_total",
            "How often the stream of a source could not be read",
            &["source"],
        )?;
        let push_rows =
            counters("quern_push_rows_total", "Pushed rows by source and outcome", &["source", "outcome"])?;
        let in_flight = gauges("quern_requests_in_flight", "Requests that are being answered", UNLABELLED)?;
        let feature_values = counters(
            "quern_feature_values_total",
            "Feature values served by feature service and status",
            &["feature_service", "status"],
        )?;
        let online_store_up = gauges(
            "quern_online_store_up",
            "Whether the online store answers; 0 while the breaker is open",
            UNLABELLED,
        )?;
        let online_store_errors = counters(
            "quern_online_store_errors_total",
            "Failures in asking the online store, by kind",
            &["kind"],
        )?;
        let online_store_breaker_opened = counters(
            "quern_online_store_breaker_opened_total",
            "How often the online store was given up until it answered again",
            UNLABELLED,
        )?;
        let online_store_replicas = gauges(
            "quern_online_store_replicas",
            "Replicas of the online store that answer and are not too far behind",
            UNLABELLED,
        )?;
        let online_store_replica_reads = counters(
            "quern_online_store_replica_reads_total",
            "Look-ups that a replica was asked for, by result: answered, behind, failed",
            &["result"],
        )?;
        let online_store_hedges = counters(
            "quern_online_store_hedges_total",
            "Look-ups that were slow, by what became of asking a second copy: won, lost, denied",
            &["result"],
        )?;
        let predictions_written = counters(
            "quern_prediction_log_written_total",
            "Predictions by model that went into the log's files",
            &["model"],
        )?;
        let predictions_dropped = counters(
            "quern_prediction_log_dropped_total",
            "Predictions by model that were to be logged and could not be",
            &["model"],
        )?;
        Ok(Metrics {
            look_up: stages.with_label_values(&["look_up"]),
            transform: stages.with_label_values(&["transform"]),
            inference: stages.with_label_values(&["inference"]),
            queue: stages.with_label_values(&["queue"]),
            batch_rows,
            predictions,
            fallbacks,
            shadows,
            registry,
            requests,
            request_seconds,
            in_flight: in_flight.with_label_values(UNLABELLED),
            push_seconds: push_seconds.with_label_values(UNLABELLED),
            push_queue_rows: push_queue_rows.with_label_values(UNLABELLED),
            pushed_tail_rows,
            stream_errors,
            push_rows,
            online_store_up: online_store_up.with_label_values(UNLABELLED),
            online_store_errors,
            online_store_breaker_opened: online_store_breaker_opened.with_label_values(UNLABELLED),
            online_store_replicas: online_store_replicas.with_label_values(UNLABELLED),
            online_store_replica_reads,
            online_store_hedges,
            feature_values,
            feature_age,
            predictions_written,
            predictions_dropped,
        })
    }

    /// Counts the stored feature values that `feature_service` served, by status.
    pub fn count_features(&self, feature_service: &str, counts: FeatureCounts) {
        let add = |status: Status, count: u64| {
            let counter: IntCounter =
                self.feature_values.with_label_values(&[feature_service, status.as_str()]);
            counter.inc_by(count);
        };
        for (status, count) in STATUSES.into_iter().zip(counts.0).filter(|(_, count)| *count > 0) {
            add(status, count);
        }
    }

    /// Counts rows that were pushed to `source`; `outcome` is `accepted`, `repeated` or `rejected`.
    pub fn count_pushed(&self, source: &str, outcome: &str, rows: usize) {
        if rows > 0 {
            self.push_rows.with_label_values(&[source, outcome]).inc_by(rows as u64);
        }
    }

    /// All of them in Prometheus' text format, with `gauges`, of which those of one name stand together.
    pub fn render(&self, gauges: &[Gauge]) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail, and a metric without a value is one that nobody counted yet.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        let mut text = String::from_utf8_lossy(&text).into_owned();
        let mut last = "";
        for Gauge { name, help, labels, value } in gauges {
            if *name != last {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
                last = name;
            }
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{name}{labels} {value}");
        }
        text
    }
}

const STATUSES: [Status; 5] =
    [Status::Present, Status::NullValue, Status::NotFound, Status::OutsideMaxAge, Status::Unavailable];

/// How many values have which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureCounts([u64; STATUSES.len()]);

impl FeatureCounts {
    /// Counts one value.
    pub fn add(&mut self, status: Status) {
        self.0[status as usize] += 1;
    }
}

/// A label's value as Prometheus' text format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.requests.with_label_values(&["/metrics", "GET", "200"]).inc();
        metrics.look_up.observe(0.000_03);
        let mut counts = FeatureCounts::default();
        for status in [Status::Present, Status::Present, Status::OutsideMaxAge] {
            counts.add(status);
        }
        metrics.count_features("delay_v1", counts);
        let gauge = |name, labels, value| Gauge { name, help: "As it is", labels, value };
        let sessions = |version: &str| vec![("model", "a\"b".to_owned()), ("version", version.to_owned())];
        let text = metrics.render(&[
            gauge("quern_apply_number", Vec::new(), 0.0),
            gauge("quern_model_sessions", sessions("1"), 2.0),
            gauge("quern_model_sessions", sessions("2"), 0.5),
        ]);
        for line in [
            "quern_requests_total{method=\"GET\",route=\"/metrics\",status=\"200\"} 1",
            "quern_stage_seconds_bucket{stage=\"look_up\",le=\"0.00005\"} 1",
            "quern_stage_seconds_bucket{stage=\"look_up\",le=\"0.00002\"} 0",
            "quern_feature_values_total{feature_service=\"delay_v1\",status=\"PRESENT\"} 2",
            "quern_feature_values_total{feature_service=\"delay_v1\",status=\"OUTSIDE_MAX_AGE\"} 1",
            "quern_requests_in_flight 0",
            "quern_apply_number 0",
            "quern_model_sessions{model=\"a\\\"b\",version=\"2\"} 0.5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE quern_model_sessions gauge").count(), 1);
    }
}
