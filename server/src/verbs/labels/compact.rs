//! Which segments of labels become one, and what is left out of it?
//!
//! Each server that has the turn looks from time to time which labels of a model count still ([`counting`]). Then
//! neighbours become one where that makes few of many, and a segment is written anew where much of it counts no more.
//! What is written has the numbers of what it takes the place of, and the rows keep their order: whoever reads finds
//! the old segments or the new one, and each label once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use quern_base::points::pass;
use quern_base::tasks::{Task, long};
use quern_store::segments::{Family, Range, Segment, Set};

use super::Labels;
use super::columns::{unified, widened};
use super::counting::{Counting, Mark};
use crate::error::{Error, Kind, Result};
use crate::metrics::metrics;

/// How often it is looked whether there is something to do.
const ROUND: Duration = Duration::from_secs(60);
/// How long a server has the turn, unless it says so again.
const TURN: Duration = Duration::from_secs(600);
/// What the turn is called.
pub const JOB: &str = "compact labels";

/// What bounds a round.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What labels that belong to no logged request may take in the store, of each model.
    pub strangers_bytes: u64,
    /// Labels of a model are looked at once they have grown by one part in so many.
    pub growth: u64,
    /// Labels that are looked at together.
    pub together: usize,
    /// No segment is made larger than this.
    pub segment_bytes: u64,
    /// Nor of more labels.
    pub segment_rows: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            strangers_bytes: 32 << 20,
            growth: 8,
            together: 1 << 19,
            segment_bytes: 64 << 20,
            segment_rows: 1 << 20,
        }
    }
}

/// What a round has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that became parts of others.
    pub parts: usize,
    /// The segments that they became.
    pub wholes: usize,
    /// Labels that are gone because a later one counts.
    pub superseded: usize,
    /// And because they belong to no logged request.
    pub dropped: usize,
}

/// Neighbours that may become one segment.
struct Run {
    start: usize,
    end: usize,
    rows: u64,
    /// How many of these stay, and about how many bytes they are.
    left: u64,
    bytes: u64,
}

impl Run {
    fn of(place: usize, file: &Segment, marks: &[Mark]) -> Run {
        let left = marks.iter().filter(|mark| mark.stays()).count() as u64;
        let bytes = (u128::from(file.bytes) * u128::from(left) / u128::from(file.rows.max(1))) as u64;
        Run { start: place, end: place + 1, rows: file.rows, left, bytes }
    }

    /// Whether this one and the next one become one: where the second is not much smaller, so that what is large is not
    /// written again and again; and where nothing of the first is left, since no segment is without rows.
    fn joins(&self, next: &Run, bounds: &Bounds) -> bool {
        let fits =
            self.bytes + next.bytes <= bounds.segment_bytes && self.left + next.left <= bounds.segment_rows;
        self.left == 0 || fits && self.bytes <= 2 * next.bytes
    }

    fn with(&self, next: &Run) -> Run {
        let (rows, left) = (self.rows + next.rows, self.left + next.left);
        Run { start: self.start, end: next.end, rows, left, bytes: self.bytes + next.bytes }
    }

    fn is_worth_it(&self) -> bool {
        let gone = self.rows - self.left;
        self.left > 0 && (self.end - self.start > 1 || gone > 0 && gone * 4 >= self.rows)
    }
}

/// What becomes one each.
fn runs(files: &[Segment], marks: &[Vec<Mark>], bounds: &Bounds) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (place, (file, marks)) in files.iter().zip(marks).enumerate() {
        runs.push(Run::of(place, file, marks));
        while let [.., a, b] = &runs[..]
            && a.joins(b, bounds)
        {
            let both = a.with(b);
            runs.truncate(runs.len() - 2);
            runs.push(both);
        }
    }
    runs.retain(Run::is_worth_it);
    runs
}

impl Labels {
    /// Keeps the labels in order as long as the result lives.
    pub fn keep(self: &Arc<Self>) -> Task {
        let labels = Arc::clone(self);
        Task::spawn(async move {
            loop {
                tokio::time::sleep(ROUND).await;
                let one = Arc::clone(&labels);
                let compacted = long("compacting labels", move || one.compact(&Bounds::default()));
                if let Err(error) = compacted.await {
                    tracing::warn!(error = error.logged(), "labels are not compacted now");
                }
            }
        })
    }

    /// Leaves out the labels that count no more, and makes few segments of many; unless another server does. Call it
    /// where blocking is allowed.
    ///
    /// # Errors
    /// Where the store or the registry does not answer.
    pub fn compact(&self, bounds: &Bounds) -> Result<Compacted> {
        let mut all = Compacted::default();
        // Whoever has the turn keeps it while it is there: it knows what it has looked at.
        if self.log.check().is_err() || !self.segments.lease(JOB, TURN)? {
            return Ok(all);
        }
        for set in self.segments.sets(Family::Labels, self.log.id())? {
            let files = self.segments.list(&set)?;
            let (end, rows) = (files.last().map_or(0, |file| file.range.end), files.iter().map(|f| f.rows));
            let looked = self.looked.lock().get(&set.name).copied().unwrap_or(0);
            let new = end.saturating_sub(looked);
            if new == 0 || new.saturating_mul(bounds.growth) < rows.sum() {
                continue;
            }
            match self.compact_files(&set, &files, bounds, &mut all) {
                // What is damaged stays as it is, to be brought back; it is looked at again when more has come.
                Err(error) if error.kind() == Kind::Internal => {
                    tracing::warn!(model = set.name, error = error.logged(), "labels cannot be compacted");
                }
                done => done?,
            }
            self.looked.lock().insert(set.name, end);
        }
        Ok(all)
    }

    fn compact_files(
        &self,
        set: &Set,
        files: &[Segment],
        bounds: &Bounds,
        all: &mut Compacted,
    ) -> Result<()> {
        let mut go_on = || match self.segments.lease(JOB, TURN)? {
            true => Ok(()),
            false => Err(Error::busy("another server compacts labels by now")),
        };
        let counting = Counting {
            segments: &self.segments,
            predictions: &self.predictions,
            model: &set.name,
            files,
            together: bounds.together,
            strangers_bytes: bounds.strangers_bytes,
        };
        let marks = counting.run(&mut go_on)?;
        for run in runs(files, &marks, bounds) {
            go_on()?;
            let (parts, marks) = (&files[run.start..run.end], &marks[run.start..run.end]);
            self.write(set, parts, marks)?;
            let count = |wanted: Mark| marks.iter().flatten().filter(|mark| **mark == wanted).count();
            let dropped = count(Mark::Dropped);
            if dropped > 0 {
                metrics().labels_dropped.with_label_values(&[&set.name]).inc_by(dropped as u64);
                tracing::warn!(
                    model = set.name,
                    dropped,
                    "labels that belong to no logged request are more than are kept"
                );
            }
            all.parts += parts.len();
            all.wholes += 1;
            all.superseded += count(Mark::Superseded);
            all.dropped += dropped;
        }
        Ok(())
    }

    /// Writes the labels of some segments that stay into one, which takes their place.
    fn write(&self, set: &Set, parts: &[Segment], marks: &[Vec<Mark>]) -> Result<Segment> {
        let ranges = parts.iter().map(|part| part.range).reduce(|a, b| Range {
            first: a.first,
            end: b.end,
            from_us: a.from_us.min(b.from_us),
            to_us: a.to_us.max(b.to_us),
        });
        let range = ranges.ok_or_else(|| Error::broken("nothing to compact"))?;
        let schemas = parts.iter().map(|part| Ok(self.segments.read(part, None)?.schema()));
        let schema = unified(schemas.collect::<Result<Vec<_>>>()?.iter())?;
        let file = self.segments.prepare(set, range, |writer| {
            for (part, marks) in parts.iter().zip(marks) {
                let mut first = 0;
                for labels in self.segments.read(part, None)? {
                    let labels = labels?;
                    let end = first + labels.num_rows();
                    let stays = marks[first..end].iter().map(|mark| Some(mark.stays()));
                    let left = filter_record_batch(&labels, &stays.collect::<BooleanArray>())?;
                    if left.num_rows() > 0 {
                        writer.write(&widened(&left, &schema).map_err(quern_base::Failure::from)?)?;
                    }
                    first = end;
                }
            }
            Ok(())
        })?;
        let stays = marks.iter().flatten().filter(|mark| mark.stays()).count() as u64;
        match file.rows == stays {
            true => {
                pass("labels: compacted, named by nobody");
                let whole = self.segments.replace(parts, &file)?;
                pass("labels: compacted");
                Ok(whole)
            }
            false => Err(Error::broken(format!("{stays} labels became {}", file.rows))),
        }
    }
}
