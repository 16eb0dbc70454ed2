//! How much work has one file been, since it was loaded?

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// What is counted while requests run and wait.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    runs: AtomicU64,
    rows: AtomicU64,
    run_ns: AtomicU64,
    last_run_us: AtomicI64,
    waits: AtomicU64,
    queue_ns: AtomicU64,
}

/// What was counted until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Runs of ONNX Runtime.
    pub runs: u64,
    /// Rows in them, together.
    pub rows: u64,
    /// What they took, together.
    pub run_time: Duration,
    /// When the last one ended, µs since the Unix epoch; 0 before the first.
    pub last_run_us: i64,
    /// Requests that got a session after waiting for it.
    pub waits: u64,
    /// How long requests waited for a session, together.
    pub queue_time: Duration,
}

impl Counts {
    /// Counts a run that ends now.
    pub(crate) fn ran(&self, rows: usize, took: Duration, now_us: i64) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.run_ns.fetch_add(nanos(took), Ordering::Relaxed);
        self.last_run_us.fetch_max(now_us, Ordering::Relaxed);
    }

    /// Counts the wait of a request.
    pub(crate) fn waited(&self, time: Duration) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.queue_ns.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// Forgets all of it.
    pub(crate) fn forget(&self) {
        let Counts { runs, rows, run_ns, last_run_us, waits, queue_ns } = self;
        [runs, rows, run_ns, waits, queue_ns].iter().for_each(|count| count.store(0, Ordering::Relaxed));
        last_run_us.store(0, Ordering::Relaxed);
    }

    pub(crate) fn work(&self) -> Work {
        Work {
            runs: self.runs.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            run_time: Duration::from_nanos(self.run_ns.load(Ordering::Relaxed)),
            last_run_us: self.last_run_us.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            queue_time: Duration::from_nanos(self.queue_ns.load(Ordering::Relaxed)),
        }
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.runs += other.runs;
        self.rows += other.rows;
        self.run_time += other.run_time;
        self.last_run_us = self.last_run_us.max(other.last_run_us);
        self.waits += other.waits;
        self.queue_time += other.queue_time;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
