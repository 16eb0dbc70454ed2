//! How does each version of a model do? Under our names, and under those by which dashboards know Triton's.

use std::time::Duration;

use quern_base::metrics::{Gauge, Histogram};
use quern_inference::{Pressure, Work};

use super::{Metrics, metrics};
use crate::error::Kind;
use crate::live::{Deployment, LiveVersion};

/// How a request ended that reached a version of a model.
const OUTCOMES: [&str; 7] =
    [ANSWERED, "invalid_argument", "too_large", "overloaded", "late", "unavailable", "internal"];
const ANSWERED: &str = "answered";

impl Metrics {
    /// Counts what a version of a model was asked, and how it ended after this time.
    pub(crate) fn count_asked(&self, [model, version]: [&str; 2], took: Duration, failed: Option<Kind>) {
        let outcome = match failed {
            None => ANSWERED,
            Some(
                Kind::InvalidArgument
                | Kind::Unauthenticated
                | Kind::Forbidden
                | Kind::NotFound
                | Kind::Refused
                | Kind::Definitions,
            ) => "invalid_argument",
            Some(Kind::TooLarge) => "too_large",
            Some(Kind::Overloaded) => "overloaded",
            Some(Kind::Late) => "late",
            Some(Kind::Unavailable) => "unavailable",
            Some(Kind::Internal) => "internal",
        };
        self.model_requests.with_label_values(&[model, version, outcome]).inc();
        let seconds = if failed.is_none() { &self.model_seconds } else { &self.model_failed_seconds };
        seconds.with_label_values(&[model, version]).observe(took.as_secs_f64());
    }
}

/// How often something happened, and how long it took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long, together.
    pub time: Duration,
}

impl Total {
    fn of(seconds: &Histogram) -> Total {
        let time = Duration::try_from_secs_f64(seconds.get_sample_sum()).unwrap_or_default();
        Total { count: seconds.get_sample_count(), time }
    }
}

/// What a version of a model has been asked, as Triton's clients read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that were answered, since the process started.
    pub answered: Total,
    /// Requests that were not.
    pub failed: Total,
    /// Requests that waited for a session, since its files were loaded.
    pub queue: Total,
    /// Runs of ONNX Runtime.
    pub runs: Total,
    /// Rows in them.
    pub rows: u64,
    /// When the last one ended, µs since the Unix epoch; 0 before the first.
    pub last_run_us: i64,
}

impl Statistics {
    /// Reads what is counted of this version of the model called `model`.
    pub fn of(model: &str, version: &LiveVersion) -> Statistics {
        let (labels, work) = ([model, &version.version], version.model.work());
        Statistics {
            answered: Total::of(&metrics().model_seconds.with_label_values(&labels)),
            failed: Total::of(&metrics().model_failed_seconds.with_label_values(&labels)),
            queue: Total { count: work.waits, time: work.queue_time },
            runs: Total { count: work.runs, time: work.run_time },
            rows: work.rows,
            last_run_us: work.last_run_us,
        }
    }
}

/// A version, and what is known of it now.
struct Version<'a> {
    model: &'a str,
    version: &'a str,
    digest: &'a str,
    pressure: Pressure,
    work: Work,
}

impl Version<'_> {
    fn asked(&self, outcomes: &[&str]) -> f64 {
        let count = |outcome: &&str| {
            metrics().model_requests.with_label_values(&[self.model, self.version, *outcome]).get() as f64
        };
        outcomes.iter().map(count).sum()
    }

    fn seconds(&self) -> f64 {
        metrics().model_seconds.with_label_values(&[self.model, self.version]).get_sample_sum()
    }
}

/// The name of a series, what it says, and its value.
type Series = (&'static str, &'static str, fn(&Version<'_>) -> f64);

/// What stands at some value now.
const STATES: [Series; 4] = [
    ("quern_model_sessions", "Sessions of ONNX Runtime by model and version", |of| {
        of.pressure.sessions as f64
    }),
    ("quern_model_sessions_busy", "Sessions that run, by model and version", |of| of.pressure.busy as f64),
    ("quern_model_waiting_rows", "Rows that wait for a session, by model and version", |of| {
        of.pressure.waiting_rows as f64
    }),
    ("nv_inference_pending_request_count", "Requests that wait for a session, as Triton names it", |of| {
        of.pressure.waiting as f64
    }),
];

/// What only grows. What a file did is counted from its loading on.
const COUNTERS: [Series; 11] = [
    ("quern_model_runs_total", "Runs of ONNX Runtime by model and version", |of| of.work.runs as f64),
    ("quern_model_rows_total", "Rows in them, by model and version", |of| of.work.rows as f64),
    ("quern_model_run_seconds_total", "Seconds that they took, by model and version", |of| {
        of.work.run_time.as_secs_f64()
    }),
    (
        "quern_model_queue_seconds_total",
        "Seconds that requests waited for a session, by model and version",
        |of| of.work.queue_time.as_secs_f64(),
    ),
    ("nv_inference_request_success", "Requests that were answered, as Triton names it", |of| {
        of.asked(&[ANSWERED])
    }),
    ("nv_inference_request_failure", "Requests that were not, as Triton names it", |of| {
        of.asked(&OUTCOMES[1..])
    }),
    ("nv_inference_count", "quern_model_rows_total, as Triton names it", |of| of.work.rows as f64),
    ("nv_inference_exec_count", "quern_model_runs_total, as Triton names it", |of| of.work.runs as f64),
    ("nv_inference_request_duration_us", "Microseconds to answers, as Triton names it", |of| {
        (of.seconds() * 1e6).round()
    }),
    ("nv_inference_queue_duration_us", "quern_model_queue_seconds_total, as Triton names it", |of| {
        of.work.queue_time.as_micros() as f64
    }),
    ("nv_inference_compute_infer_duration_us", "quern_model_run_seconds_total, as Triton names it", |of| {
        of.work.run_time.as_micros() as f64
    }),
];

/// All of it, for what is live.
pub(super) fn gauges(live: &Deployment) -> Vec<Gauge> {
    let versions = live.models.iter().flat_map(|(model, of)| {
        of.versions.iter().map(move |version| Version {
            model,
            version: &version.version,
            digest: &version.model.digest,
            pressure: version.model.pressure(),
            work: version.model.work(),
        })
    });
    let versions: Vec<Version<'_>> = versions.collect();
    let info = versions.iter().map(|Version { model, version, digest, .. }| {
        let labels = [("model", *model), ("version", *version), ("digest", *digest)];
        Gauge::new("quern_model_info", "Always 1, with the digest of the files that a version is made of", 1)
            .of(&labels)
    });
    let series =
        STATES.iter().map(|series| (series, false)).chain(COUNTERS.iter().map(|series| (series, true)));
    let series = series.flat_map(|((name, help, value), grows)| {
        versions.iter().map(move |of| {
            let labels = [("model", of.model), ("version", of.version)];
            Gauge { grows, ..Gauge::counter(name, help, value(of)).of(&labels) }
        })
    });
    info.chain(series).collect()
}
