//! Where did a request spend its time? Each stage is a span, which an exporter may send on.
//!
//! They are spans of `tracing` at a target of their own, which no log shows: where nothing exports them, one costs as
//! much as a log line that is filtered away.

pub use tracing::info_span;

/// The target of all spans for tracers.
pub const TARGET: &str = "quern::trace";

/// The span of a stage, as `stage!("look_up", rows = 1)`.
#[macro_export]
macro_rules! stage {
    ($($field:tt)+) => { $crate::trace::info_span!(target: $crate::trace::TARGET, $($field)+) };
}
