//! What is counted in this process, and how is it shown to Prometheus?
//!
//! Each crate owns its metrics: it makes them here once, keeps the handles, and counting touches no registry and no
//! lock that is held for long.

mod process;

use std::fmt::Write as _;
use std::sync::LazyLock;

pub use self::process::{process, resident_bytes};
use prometheus::core::Collector;
use prometheus::{Encoder, HistogramOpts, Opts, Registry, TextEncoder};
pub use prometheus::{
    Histogram, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

/// From the fastest look-up (10 µs) to a request that nobody waits for (10 s), three to a decade.
const SECONDS: [f64; 19] = [
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0, 2.0, 5.0,
    10.0,
];
const NAMED_WELL: &str = "every metric is named once, and well";

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect(NAMED_WELL);
    REGISTRY.register(Box::new(metric.clone())).expect(NAMED_WELL);
    metric
}

/// Something that is counted, by labels.
///
/// # Panics
/// So do all below: where the name is taken or no name for Prometheus.
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

/// Something that is counted.
pub fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

/// Something that goes up and down, by labels.
pub fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(IntGaugeVec::new(Opts::new(name, help), labels))
}

/// Something that goes up and down.
pub fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

/// Seconds, by labels.
pub fn seconds_by(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    distributions(name, help, labels, &SECONDS)
}

/// Seconds.
pub fn seconds(name: &str, help: &str) -> Histogram {
    distribution(name, help, &SECONDS)
}

/// Values in buckets that end at `ends`, by labels.
pub fn distributions(name: &str, help: &str, labels: &[&str], ends: &[f64]) -> HistogramVec {
    registered(HistogramVec::new(HistogramOpts::new(name, help).buckets(ends.to_vec()), labels))
}

/// Values in buckets that end at `ends`.
pub fn distribution(name: &str, help: &str, ends: &[f64]) -> Histogram {
    registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(ends.to_vec())))
}

/// Seconds of a request in one of its stages: `look_up`, `transform`, `queue`, `inference`.
pub fn stage_seconds(stage: &str) -> Histogram {
    static STAGES: LazyLock<HistogramVec> =
        LazyLock::new(|| seconds_by("quern_stage_seconds", "Seconds of a request by stage", &["stage"]));
    STAGES.with_label_values(&[stage])
}

/// A value that goes up and down, read from where it is kept at the moment that it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// What it is now.
    pub value: f64,
    /// Whether it only ever grows, as a counter does.
    pub grows: bool,
}

impl Gauge {
    /// One without labels.
    #[allow(clippy::cast_precision_loss)]
    pub fn new(name: &'static str, help: &'static str, value: u64) -> Gauge {
        Gauge { name, help, labels: Vec::new(), value: value as f64, grows: false }
    }

    /// One that only ever grows.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Gauge {
        Gauge { value, grows: true, ..Gauge::new(name, help, 0) }
    }

    /// The same with other labels.
    #[must_use]
    pub fn of(self, labels: &[(&'static str, &str)]) -> Gauge {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Gauge { labels: labels.collect(), ..self }
    }
}

/// All that was counted in Prometheus' text format, with `gauges`, of which those of one name stand together.
pub fn render(gauges: &[Gauge]) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail, and a metric without a value is one that nobody counted yet.
    let _ = TextEncoder::new().encode(&REGISTRY.gather(), &mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    let mut last = "";
    for Gauge { name, help, labels, value, grows } in gauges {
        let kind = if *grows { "counter" } else { "gauge" };
        if *name != last {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            last = name;
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{name}{labels} {value}");
    }
    text
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
        counters("quern_test_requests_total", "Requests", &["route"]).with_label_values(&["/metrics"]).inc();
        stage_seconds("look_up").observe(0.000_03);
        let _ = gauge("quern_test_in_flight", "As it is");
        let gauge = |name, labels, value| Gauge { name, help: "As it is", labels, value, grows: false };
        let sessions = |version: &str| vec![("model", "a\"b".to_owned()), ("version", version.to_owned())];
        let text = render(&[
            gauge("quern_apply_number", Vec::new(), 0.0),
            gauge("quern_model_sessions", sessions("1"), 2.0),
            gauge("quern_model_sessions", sessions("2"), 0.5),
        ]);
        for line in [
            "quern_test_requests_total{route=\"/metrics\"} 1",
            "quern_stage_seconds_bucket{stage=\"look_up\",le=\"0.00005\"} 1",
            "quern_stage_seconds_bucket{stage=\"look_up\",le=\"0.00002\"} 0",
            "quern_test_in_flight 0",
            "quern_apply_number 0",
            "quern_model_sessions{model=\"a\\\"b\",version=\"2\"} 0.5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE quern_model_sessions gauge").count(), 1);
    }
}
