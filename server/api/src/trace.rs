//! Where did a request spend its time? Spans for tracers: the request's, under its caller's, and one for each stage.
//!
//! ```text
//! POST /v1/models/{call}        the caller's traceparent is its parent
//! ├─ look_up
//! ├─ transform
//! ├─ inference                  model and version
//! │  ├─ queue                   where it waited
//! │  └─ run                     once for each file of the model
//! └─ shadow                     linked: nobody waits for it
//! ```
//!
//! They are spans of `tracing` at a target of their own, which no log shows: where nothing exports them ([`export`]),
//! one costs as much as a log line that is filtered away.

pub mod export;

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use quern_base::stage;
pub(crate) use quern_base::trace::TARGET;

/// The span of a request to `route`, which is empty where none matched, under the one that its headers name.
pub(crate) fn request(method: &Method, route: &str, headers: &HeaderMap, id: &[u8]) -> Span {
    let span = stage!(
        "request",
        otel.name = name(method, route),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = known(method).unwrap_or("_OTHER"),
        http.route = (!route.is_empty()).then_some(route),
        http.response.status_code = Empty,
        rpc.response.status_code = Empty,
        quern.request_id = &*String::from_utf8_lossy(id),
    );
    if !span.is_disabled() {
        let caller = TraceContextPropagator::new().extract(&Headers(headers));
        if caller.span().span_context().is_valid() {
            // It fails only where nobody exports this span.
            let _ = span.set_parent(caller);
        }
    }
    span
}

/// Notes what a request was answered with: the status of its head and, over gRPC, the code at its end.
pub(crate) fn answered(span: &Span, status: StatusCode, code: Option<Code>) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if let Some(code) = code {
        span.record("rpc.response.status_code", code.name);
    }
    if status.is_server_error() || code.is_some_and(|code| code.is_fault) {
        span.record("otel.status_code", "ERROR");
    }
}

/// The trace that the span is in, as tracers show it.
pub(crate) fn trace_id(span: &Span) -> Option<String> {
    let context = (!span.is_disabled()).then(|| span.context())?;
    let id = context.span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// As the semantic conventions have it: the method alone where there is no route.
fn name(method: &Method, route: &str) -> String {
    let method = known(method).unwrap_or("HTTP");
    if route.is_empty() { method.to_owned() } else { format!("{method} {route}") }
}

/// Anyone may invent methods; those that HTTP knows are few.
fn known(method: &Method) -> Option<&str> {
    match method.as_str() {
        name @ ("GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE") => {
            Some(name)
        }
        _ => None,
    }
}

/// How a call over gRPC ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    /// gRPC's name of it.
    pub(crate) name: &'static str,
    /// Whether the semantic conventions count it as the server's fault.
    pub(crate) is_fault: bool,
}

impl Code {
    /// Of a call whose client is gone before its end.
    pub(crate) const CANCELLED: Code = Code { name: "CANCELLED", is_fault: false };

    /// What headers or trailers say of the end.
    pub(crate) fn in_headers(headers: &HeaderMap) -> Option<Code> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        grpc_code(code).map(|(name, is_fault)| Code { name, is_fault })
    }
}

/// The name of gRPC's status `code`, and whether it is a fault.
fn grpc_code(code: usize) -> Option<(&'static str, bool)> {
    const CODES: [(&str, bool); 17] = [
        ("OK", false),
        ("CANCELLED", false),
        ("UNKNOWN", true),
        ("INVALID_ARGUMENT", false),
        ("DEADLINE_EXCEEDED", true),
        ("NOT_FOUND", false),
        ("ALREADY_EXISTS", false),
        ("PERMISSION_DENIED", false),
        ("RESOURCE_EXHAUSTED", false),
        ("FAILED_PRECONDITION", false),
        ("ABORTED", false),
        ("OUT_OF_RANGE", false),
        ("UNIMPLEMENTED", true),
        ("INTERNAL", true),
        ("UNAVAILABLE", true),
        ("DATA_LOSS", true),
        ("UNAUTHENTICATED", false),
    ];
    CODES.get(code).copied()
}

/// Headers, and metadata of gRPC, as propagators read them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
