//! How are the streams of sources doing that this server reads? Noted by who reads them, for whoever asks.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use quern_base::metrics::Gauge;

/// The streams by source.
#[derive(Debug, Default)]
pub struct Streams(Mutex<BTreeMap<String, Stream>>);

/// One stream, as this server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// Whether this server reads it, or some of it.
    pub reads: bool,
    /// Which partitions of it; none where the broker has none, or has not told them yet.
    pub partitions: Option<Partitions>,
    /// Why it could not be read when that was tried last.
    pub cause: Option<String>,
    /// Events that waited to be read here, where the broker tells.
    pub waiting_events: Option<u64>,
    /// How far the last event that was read lies behind the stream's last one, where the broker tells.
    pub behind: Option<Duration>,
}

/// The partitions of a topic, which servers that share a log share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// Those that this server reads.
    pub here: Vec<i32>,
    /// How many there are.
    pub all: usize,
}

impl Streams {
    /// What is known of the stream of `source`.
    pub fn of(&self, source: &str) -> Stream {
        self.0.lock().get(source).cloned().unwrap_or_default()
    }

    /// Notes something about the stream of `source`.
    pub fn note(&self, source: &str, change: impl FnOnce(&mut Stream)) {
        change(self.0.lock().entry(source.to_owned()).or_default());
    }

    pub(crate) fn gauges(&self) -> Vec<Gauge> {
        let streams = self.0.lock();
        let waiting = streams.iter().filter_map(|(source, stream)| {
            let help = "Events of a source's stream that wait to be read here, as of some seconds ago";
            let gauge = Gauge::new("quern_stream_waiting_events", help, stream.waiting_events?);
            Some(gauge.of(&[("source", source)]))
        });
        let behind = streams.iter().filter_map(|(source, stream)| {
            let help =
                "Seconds from the last event of a source's stream that was read to the stream's last one";
            let gauge = Gauge::new("quern_stream_behind_seconds", help, 0);
            Some(Gauge { value: stream.behind?.as_secs_f64(), ..gauge }.of(&[("source", source)]))
        });
        waiting.chain(behind).collect()
    }

    /// Nobody here reads the stream of `source` any more.
    pub fn forget(&self, source: &str) {
        self.0.lock().remove(source);
    }
}
