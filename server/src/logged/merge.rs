//! Which small segments become a large one, and which predictions are kept no longer?
//!
//! Each server writes segments of its own, one a minute: what is a day later thousands of files is read as slowly. So
//! when a day is over, one server makes as few of them as their size allows, set by set and day by day. Whoever reads
//! them meanwhile goes on to read what it has listed.

use std::sync::Arc;
use std::time::Duration;

use quern_base::points::pass;
use quern_base::tasks::Rounds;
use quern_store::segments::{Family, Range, Segment, Segments, Set, Wanted, day};

use super::PredictionLog;
use crate::error::{Error, Kind, Result};

/// How often it is looked whether there is something to do.
const ROUND: Duration = Duration::from_secs(600);
/// How long a server has the turn, unless it says so again.
const TURN: Duration = Duration::from_secs(600);
/// A segment of so many bytes is large enough.
const LARGE_BYTES: u64 = 64 << 20;
/// What came late is in: no prediction waits longer to be written, unless the store takes nothing.
const LATE_US: i64 = 3_600 * 1_000_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// What a round has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Segments that became parts of others.
    pub parts: usize,
    /// The segments that they became.
    pub wholes: usize,
    /// Segments that were kept for long enough.
    pub expired: usize,
}

impl PredictionLog {
    /// Keeps the log in order as long as the result lives.
    pub fn keep(self: &Arc<Self>) -> Rounds {
        let log = Arc::clone(self);
        Rounds::start(|round| async move {
            loop {
                tokio::time::sleep(ROUND).await;
                let one = Arc::clone(&log);
                let merged =
                    round.work("merging logged predictions", move || one.merge(one.segments.now_us()?));
                if let Err(error) = merged.await {
                    tracing::warn!(error = error.logged(), "logged predictions are not merged now");
                }
            }
        })
    }

    /// Makes large segments of the small ones whose day is over at `now_us`, and removes what was kept for long enough;
    /// unless another server does.
    ///
    /// # Errors
    /// Where the store or the registry does not answer.
    pub fn merge(&self, now_us: i64) -> Result<Merged> {
        let (segments, mut merged) = (&self.segments, Merged::default());
        if !segments.lease("merge predictions", TURN)? {
            return Ok(merged);
        }
        if let Some(keep) = self.keep {
            let end_us = now_us.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
            let mut old = segments.find(Wanted { to_us: Some(end_us), ..all("") })?;
            old.retain(|segment| segment.range.to_us < end_us);
            segments.remove(&old)?;
            merged.expired = old.len();
        }
        let today_us = (now_us - LATE_US).div_euclid(DAY_US) * DAY_US;
        for set in segments.sets(Family::Predictions, "")? {
            let mut small = segments.list(&set)?;
            small.retain(|segment| segment.bytes < LARGE_BYTES && segment.range.to_us < today_us);
            small.sort_by_key(|segment| segment.range.from_us);
            let same_day = |a: &Segment, b: &Segment| day(a.range.from_us) == day(b.range.from_us);
            for of_day in small.chunk_by(same_day) {
                let sound = sound(segments, of_day)?;
                for parts in together(&sound) {
                    whole(segments, &set, parts)?;
                    (merged.parts, merged.wholes) = (merged.parts + parts.len(), merged.wholes + 1);
                    if !segments.lease("merge predictions", TURN)? {
                        return Ok(merged);
                    }
                }
            }
        }
        Ok(merged)
    }
}

/// Predictions of the sets whose names begin so.
fn all(name_begins: &str) -> Wanted<'_> {
    Wanted { family: Family::Predictions, log: "", name_begins, from_us: None, to_us: None }
}

/// Those that can be read: what is damaged stays as it is, to be brought back.
fn sound(segments: &Segments, found: &[Segment]) -> Result<Vec<Segment>> {
    if found.len() < 2 {
        return Ok(Vec::new());
    }
    let mut sound = Vec::new();
    for segment in found {
        match segments.local(segment) {
            Ok(_) => sound.push(segment.clone()),
            Err(error) if error.kind() == Kind::Internal => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sound)
}

/// Segments that become one each, in their order.
fn together(small: &[Segment]) -> Vec<&[Segment]> {
    let (mut runs, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (place, segment) in small.iter().enumerate() {
        bytes += segment.bytes;
        if bytes >= LARGE_BYTES || place + 1 == small.len() {
            runs.push(&small[start..=place]);
            (start, bytes) = (place + 1, 0);
        }
    }
    runs.retain(|run| run.len() > 1);
    runs
}

fn whole(segments: &Segments, set: &Set, parts: &[Segment]) -> Result<Segment> {
    let ranges = parts.iter().map(|part| part.range);
    let range = ranges.reduce(|a, b| Range {
        first: 0,
        end: a.end + b.end,
        from_us: a.from_us.min(b.from_us),
        to_us: a.to_us.max(b.to_us),
    });
    let range = range.ok_or_else(|| Error::broken("nothing to merge"))?;
    let file = segments.prepare(set, range, |writer| {
        for part in parts {
            for rows in segments.read(part, None)? {
                writer.write(&rows?)?;
            }
        }
        Ok(())
    })?;
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    if file.rows != rows {
        return Err(Error::broken(format!("{rows} logged predictions became {}", file.rows)));
    }
    pass("predictions: merged, named by nobody");
    let whole = segments.replace(parts, &file)?;
    pass("predictions: merged");
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use quern_store::segments::Prepared;

    use super::*;

    fn segment(bytes: u64) -> Segment {
        let set = Set::of(Family::Predictions, "", "m/s");
        let range = Range { first: 0, end: 1, from_us: 0, to_us: 0 };
        let file = Prepared { set, path: String::new(), range, rows: 1, bytes, sha256: String::new() };
        Segment { file, created_us: 0 }
    }

    #[test]
    fn small_ones_become_as_many_as_are_large() {
        let check = |sizes: &[u64], wanted: &[usize]| {
            let small: Vec<Segment> = sizes.iter().map(|mib| segment(mib << 20)).collect();
            let runs: Vec<usize> = together(&small).into_iter().map(<[Segment]>::len).collect();
            assert_eq!(runs, wanted, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[1], &[]);
        check(&[1, 2], &[2]);
        check(&[63, 1, 1, 1], &[2, 2]);
        check(&[40, 40, 40], &[2]);
        check(&[1; 130], &[64, 64, 2]);
    }
}
