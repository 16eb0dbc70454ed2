//! What time is it? Asked at the edges; whoever computes is told.

use chrono::{DateTime, SecondsFormat};

/// Microseconds since the Unix epoch, UTC.
pub fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// A time (µs since the Unix epoch) as people read it: `2013-01-31T08:30:00Z`.
pub fn shown(time_us: i64) -> String {
    match DateTime::from_timestamp_micros(time_us) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => format!("{time_us} µs"),
    }
}
