//! How are the pulls of this server doing? Noted by who pulls, for whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::metrics::metrics;

/// What was pulled by this process.
#[derive(Debug, Default)]
pub struct Pulls {
    under_way: Mutex<BTreeSet<String>>,
    latest: Mutex<BTreeMap<String, Pulled>>,
}

/// What is known of the pulls of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Rows that came in, of all pulls.
    pub(crate) rows: u64,
    /// When the last one ended well, µs.
    pub(crate) at_us: Option<i64>,
    /// Why the last one did not.
    pub(crate) cause: Option<String>,
}

/// The one pull of a source that is under way here.
pub(super) struct Turn<'a> {
    pulls: &'a Pulls,
    source: String,
}

impl Pulls {
    /// Begins to pull a source.
    ///
    /// # Errors
    /// `Kind::Unavailable` where that is being done.
    pub(super) fn begin(&self, source: &str) -> Result<Turn<'_>> {
        match self.under_way.lock().insert(source.to_owned()) {
            true => Ok(Turn { pulls: self, source: source.to_owned() }),
            false => Err(Error::busy(format!("source `{source}` is being pulled already"))),
        }
    }

    /// Notes how a pull of `source` ended: with so many new rows.
    pub(super) fn note(&self, source: &str, ended: std::result::Result<u64, &Error>, now_us: i64) {
        let mut latest = self.latest.lock();
        let noted = latest.entry(source.to_owned()).or_default();
        match ended {
            Ok(rows) => *noted = Pulled { rows: noted.rows + rows, at_us: Some(now_us), cause: None },
            Err(error) => {
                tracing::warn!(source, cause = error.logged(), "a source could not be pulled");
                noted.cause = Some(error.logged());
            }
        }
        let outcome = if noted.cause.is_none() { "done" } else { "failed" };
        metrics().pulls.with_label_values(&[source, outcome]).inc();
    }

    /// What is known of the pulls of `source`.
    pub(crate) fn of(&self, source: &str) -> Pulled {
        self.latest.lock().get(source).cloned().unwrap_or_default()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pulls.under_way.lock().remove(&self.source);
    }
}
