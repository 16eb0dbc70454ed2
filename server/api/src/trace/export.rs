//! How do spans get to a collector? In batches, from a thread of their own, over OTLP: no request ever waits for it.
//!
//! The queue is bounded, and what does not fit is lost. So is what a collector does not take: that costs a line in the
//! log, once a minute, and nothing else.

use std::time::{Duration, Instant};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracerProvider, ShouldSample, SpanData, SpanExporter,
};
use parking_lot::Mutex;
use quern_base::trace::told_by;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::TARGET;
use crate::error::{Error, Result};

/// How long a batch may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take when the server ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the log says that a collector takes nothing.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// OpenTelemetry's own variables.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What sends spans, until it is ended.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to the collector at `url`; to be called where an async runtime is.
    ///
    /// # Errors
    /// `Kind::InvalidArgument` for variables of OpenTelemetry that cannot be read. A collector that is not there is
    /// none.
    pub fn start(url: &str) -> Result<Traces> {
        let ratio = std::env::var(SAMPLER_ARG).ok().filter(|text| !text.is_empty());
        let ratio = ratio.map_or(Ok(1.0), |text| share(&text))?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(url)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| Error::invalid(format!("setting `otlp`: {error}")))?;
        let mut resource = Resource::builder();
        // The builder reads the variable, but what it is told goes before.
        if std::env::var(SERVICE_NAME).map_or(true, |name| name.is_empty()) {
            resource = resource.with_service_name("quern");
        }
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Requests(Sampler::TraceIdRatioBased(ratio)))))
            .with_resource(resource.build())
            .with_batch_exporter(Patient { exporter, complained: Mutex::new(None) })
            .build();
        told_by(traceparent);
        Ok(Traces(provider))
    }

    /// What hands our spans over, and no other's.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync>(
        &self,
    ) -> impl Layer<S> + Send + Sync + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("quern"))
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // Nothing here reads OpenTelemetry's own context: those of `tracing` tell parents from children.
            .with_context_activation(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }

    /// Sends what is left, for a while; to be called on a thread that may block.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(cause = %error, "the last spans were not sent");
        }
    }
}

/// In which trace a span is, as whoever it asks is told.
fn traceparent(span: &Span) -> Option<String> {
    let context = (!span.is_disabled()).then(|| span.context())?;
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    })
}

fn share(text: &str) -> Result<f64> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| {
        Error::invalid(format!(
            "environment variable {SAMPLER_ARG}: `{text}` is not a share of traces from 0 to 1, as `0.1` is"
        ))
    })
}

/// Begins traces with requests only: what the server looks up for itself would be a root of its own.
#[derive(Debug, Clone)]
struct Requests(Sampler);

impl ShouldSample for Requests {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let of = if *kind == SpanKind::Server { &self.0 } else { &Sampler::AlwaysOff };
        of.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// An exporter whose failures are said, but not again and again.
#[derive(Debug)]
struct Patient<E> {
    exporter: E,
    complained: Mutex<Option<Instant>>,
}

impl<E: SpanExporter> SpanExporter for Patient<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        if let Err(error) = &sent {
            let mut complained = self.complained.lock();
            if complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
                *complained = Some(Instant::now());
                tracing::warn!(cause = %error, spans, "the collector of traces does not take spans; they are lost");
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!(share("0.25").unwrap(), 0.25);
        for wrong in ["2", "-0.1", "half", "NaN"] {
            let mistake = share(wrong).unwrap_err().to_string();
            assert!(mistake.contains(SAMPLER_ARG) && mistake.contains(wrong), "{mistake}");
        }
    }
}
