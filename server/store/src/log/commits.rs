//! What is a log that servers share asked?
//!
//! Each call is one step: it happens or it does not, whoever asks may not hear which, and between two of them anything
//! may happen to anybody else.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::logged::{Logged, Seen, SeenKey};
use crate::error::Result;
use crate::position::Position;

/// How far the log of a source is.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// Its last commit.
    pub last: Position,
    /// The last commit whose rows the log has no more.
    pub forgotten: Position,
    /// The number of the row after the last that lies in a segment which every server reads.
    pub sealed: u64,
}

/// A log of commits, numbered source by source.
pub trait Commits: Debug + Send + Sync {
    /// How far the log of `source` is, or of each.
    ///
    /// # Errors
    /// Where it does not answer; so with all others.
    fn states(&self, source: Option<&str>) -> Result<BTreeMap<String, State>>;

    /// Whether the log of `source` went through `position`, as far as it still knows.
    fn went_through(&self, source: &str, position: Position) -> Result<bool>;

    /// Shows every group of `source` after a commit, by its number, that does not end before a row, in order.
    fn after(&self, source: &str, from: (i64, u64), see: &mut dyn FnMut(Logged) -> Result<()>) -> Result<()>;

    /// Writes the commits that come after `lasts`, and what was seen: all of it or nothing. It is on disk when this
    /// returns.
    ///
    /// # Errors
    /// `Kind::Unavailable` where another came in between, and where nobody knows whether it was written.
    fn commit(
        &self,
        lasts: &BTreeMap<String, Position>,
        rows: &[Logged],
        seen: &[(SeenKey, Seen)],
    ) -> Result<()>;

    /// Notes that rows of `source` up to number `end` lie in segments that every server reads.
    fn sealed(&self, source: &str, end: u64) -> Result<()>;

    /// Forgets the commits of `source` up to number `number` whose rows come before number `end`, as far as segments of
    /// `store` have them: whoever asks may have seen those before the database came back older.
    fn forget_rows(&self, source: &str, number: i64, end: u64, store: &str) -> Result<()>;
}
