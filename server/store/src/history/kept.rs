//! Where do pushed rows lie that are in no memory?
//!
//! In segments, as whoever holds the tail asks for them: each call is one step, before and after which anything may
//! happen to anybody else.

use std::fmt::Debug;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::log::{labelled_model, labels_of};
use crate::position::Position;
use crate::segments::{Family, Range, Segment, Segments, Set, Wanted, Writer};

/// The segments of the rows that a log has numbered.
pub trait Kept: Debug + Send + Sync {
    /// Those of all sources, of each in the order of their rows.
    ///
    /// # Errors
    /// Where the registry does not answer.
    fn all(&self) -> Result<Vec<Segment>>;

    /// Those of `source`, in the order of their rows.
    ///
    /// # Errors
    /// Where the registry does not answer.
    fn list(&self, source: &str) -> Result<Vec<Segment>>;

    /// Writes rows into a new one; of a log that servers share, as long as that has the commit `of`.
    ///
    /// # Errors
    /// `Kind::Refused` where another one has rows of these numbers, or the log has that commit no more.
    fn write(
        &self,
        source: &str,
        range: Range,
        of: Option<Position>,
        rows: &[&RecordBatch],
    ) -> Result<Segment>;

    /// Lets segments count no more.
    ///
    /// # Errors
    /// Where the registry does not answer.
    fn remove(&self, old: &[Segment]) -> Result<()>;

    /// Opens a file whose bytes are those that were written.
    ///
    /// # Errors
    /// Where they are not.
    fn open(&self, segment: &Segment) -> Result<File>;

    /// Names the store.
    ///
    /// # Errors
    /// Where it does not answer, and never has.
    fn store(&self) -> Result<String>;

    /// Whether what one server writes is there for every other one.
    fn is_shared(&self) -> bool;

    /// Whether a job that servers take turns in is this one's, for so long.
    ///
    /// # Errors
    /// Where the registry does not answer.
    fn lease(&self, job: &str, time: Duration) -> Result<bool>;
}

/// The segments of a log in a store.
#[derive(Debug, Clone)]
pub struct InStore {
    /// Where they are.
    pub segments: Arc<Segments>,
    /// The log that has numbered the rows.
    pub log: String,
}

impl InStore {
    fn set(&self, source: &str) -> Set {
        match labelled_model(source) {
            Some(model) => Set::of(Family::Labels, &self.log, model),
            None => Set::of(Family::Pushed, &self.log, source),
        }
    }
}

impl Kept for InStore {
    fn all(&self) -> Result<Vec<Segment>> {
        let of = |family| Wanted { family, log: &self.log, name_begins: "", from_us: None, to_us: None };
        let mut all = self.segments.find(of(Family::Pushed))?;
        all.extend(self.segments.find(of(Family::Labels))?);
        Ok(all)
    }

    fn list(&self, source: &str) -> Result<Vec<Segment>> {
        self.segments.list(&self.set(source))
    }

    fn write(
        &self,
        source: &str,
        range: Range,
        of: Option<Position>,
        rows: &[&RecordBatch],
    ) -> Result<Segment> {
        let write = |writer: &mut Writer| rows.iter().try_for_each(|rows| writer.write(rows));
        let file = self.segments.prepare(&self.set(source), range, write)?;
        self.segments.commit_of(&file, of)
    }

    fn remove(&self, old: &[Segment]) -> Result<()> {
        self.segments.remove(old)
    }

    fn open(&self, segment: &Segment) -> Result<File> {
        self.segments.local(segment)
    }

    fn store(&self) -> Result<String> {
        self.segments.id()
    }

    fn is_shared(&self) -> bool {
        self.segments.shared().holds()
    }

    fn lease(&self, job: &str, time: Duration) -> Result<bool> {
        self.segments.lease(job, time)
    }
}

/// Under which name a log has the rows of a segment.
pub(super) fn source_of(segment: &Segment) -> String {
    match segment.set.family {
        Family::Labels => labels_of(&segment.set.name),
        Family::Pushed | Family::Predictions => segment.set.name.clone(),
    }
}
