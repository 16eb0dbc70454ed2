//! How does history become the head?
//!
//! View by view. Of a view of rows, the latest row of each key ([`rows`]); of a view with windows, the tiles of its
//! events ([`windows`]). What could not be computed of either is noted in [`failures`]. Where files are gone or have
//! changed, what history does not say any more goes out again ([`sweep`]).

pub mod failures;
pub mod rows;
pub mod sweep;
pub mod windows;
pub(crate) mod winners;

use arrow::array::RecordBatch;
use feature_defs::Source;
use quern_engine::time::visible_from;
use quern_engine::{Stamps, ViewPlan};
use quern_store::history::History;
use quern_store::online::Online;

pub use self::failures::Failures;
pub use self::rows::{LatestRows, newest};
pub use self::sweep::{Said, Sweep};
pub use self::windows::{Stretch, TakeOrder};
use crate::error::Result;

/// One view, the history that it is made from, and the head that it is written to.
#[derive(Clone, Copy)]
pub struct ViewWriter<'a> {
    /// Where the rows come from.
    pub history: &'a History,
    /// Where they go.
    pub head: &'a Online,
    /// The source of the view.
    pub source: &'a Source,
    /// The view.
    pub view: &'a ViewPlan,
}

/// Rows of history that were passed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// Those that were read.
    pub read: u64,
    /// Those that the view's `where` leaves out, also those of files that were not read for that.
    pub filtered: u64,
    /// Those whose join key is null.
    pub null_keys: u64,
    /// Those whose event timestamp is null.
    pub null_times: u64,
    /// Those that the view's `where` leaves out because it could not be computed.
    pub failed: u64,
    /// The newest event timestamp, µs, of rows that exist for the view.
    pub newest_us: Option<i64>,
}

impl Passed {
    /// Counts `rows` more rows, of which `stamps` are known.
    pub fn note(&mut self, stamps: &Stamps, rows: usize) {
        self.read += rows as u64;
        self.filtered += stamps.filtered;
        self.null_keys += stamps.null_keys;
        self.null_times += stamps.null_times;
        self.failed += stamps.failed;
        self.newest_us = stamps.kept().map(|row| stamps.times_us[row]).max().max(self.newest_us);
    }
}

/// The key of each of the rows, whose columns are the source's, and when it is visible (µs).
pub fn keys_of(view: &ViewPlan, rows: &RecordBatch, found: &mut dyn FnMut(&[u8], i64)) -> Result<()> {
    let stamps = view.stamps(&project(rows, view.stamp_columns())?)?;
    for row in stamps.kept() {
        if let Some(key) = stamps.keys.get(row) {
            found(key, visible_from(stamps.times_us[row], view.lag_us));
        }
    }
    Ok(())
}

/// The columns called `names`.
pub fn project(rows: &RecordBatch, names: &[String]) -> Result<RecordBatch> {
    let indices = names.iter().map(|name| rows.schema_ref().index_of(name));
    Ok(rows.project(&indices.collect::<std::result::Result<Vec<_>, _>>()?)?)
}
