//! Where did a request spend its time? Each stage is a span, which an exporter may send on.
//!
//! They are spans of `tracing` at a target of their own, which no log shows: where nothing exports them, one costs as
//! much as a log line that is filtered away.

use std::sync::OnceLock;

pub use tracing::info_span;

/// The target of all spans for tracers.
pub const TARGET: &str = "quern::trace";

/// The span of a stage, as `stage!("look_up", rows = 1)`.
#[macro_export]
macro_rules! stage {
    ($($field:tt)+) => { $crate::trace::info_span!(target: $crate::trace::TARGET, $($field)+) };
}

/// Says in which trace the current span is, as `traceparent` has it.
type Tell = fn(&tracing::Span) -> Option<String>;

static TELL: OnceLock<Tell> = OnceLock::new();

/// Makes `tell` answer for [`traceparent`]: whoever exports spans knows their ids.
pub fn told_by(tell: Tell) {
    // The first one holds: a process has one exporter.
    let _ = TELL.set(tell);
}

/// The `traceparent` of the current span, to hand on to whoever is asked; none where nobody exports it.
pub fn traceparent() -> Option<String> {
    TELL.get().and_then(|tell| tell(&tracing::Span::current()))
}
