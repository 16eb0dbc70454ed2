//! What do the stores of the simulation hold, and what does one step change?
//!
//! A database with the log and the names of the segments, the files of a store, and a head that counts the events of
//! each key. A row is a number; its key is what remains of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::log::{Logged, Position, Standing, State};
use crate::rocks::Applied;
use crate::segments::{Family, Prepared, Range, Segment, Set};

/// How many keys there are.
pub(super) const KEYS: i64 = 3;
pub(super) const SOURCES: [&str; 2] = ["a", "b"];

/// What a server is told to do.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Begin, with nothing in memory; perhaps with another disk.
    Start { disk: usize },
    /// Push rows.
    Push { source: String, ids: Vec<i64> },
    /// Do what is done in the background.
    Look,
    /// Write the tail into a segment.
    Seal { source: String },
    /// Read all of a source's history.
    Read { source: String },
    /// Go on without what is lost.
    AcceptLoss,
    /// Make the head from history.
    Materialize { source: String },
}

/// A commit of one source.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    position: Position,
    first: u64,
    pub(super) ids: Vec<i64>,
}

/// The log of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceLog {
    state: State,
    /// All of them, those too that are forgotten.
    pub(super) commits: Vec<Commit>,
}

impl SourceLog {
    /// Whether it has a commit, and not only the rows of it in a segment.
    fn has(&self, position: Position) -> bool {
        let is_here = position.number > self.state.forgotten.number;
        is_here && self.commits.iter().any(|commit| commit.position == position)
    }
}

/// What comes back where the database is restored.
#[derive(Debug, Clone, Default)]
pub(super) struct Database {
    pub(super) sources: BTreeMap<String, SourceLog>,
    pub(super) seen: BTreeSet<(String, i64)>,
    /// By whose disk they lie on, where the store is not shared.
    segments: BTreeMap<(usize, String), Vec<Segment>>,
}

/// What comes back where the online store fails over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) counts: BTreeMap<(String, i64), i64>,
    pub(super) standings: BTreeMap<String, Standing>,
    /// What must be made from history once more.
    pub(super) anew: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) database: Database,
    pub(super) head: Head,
    /// Files of a store outlive what names them.
    pub(super) files: BTreeMap<String, Vec<i64>>,
    /// Who has the turn of a source.
    pub(super) turns: BTreeMap<String, u64>,
    next: u64,
    /// How often the head came back older, which ends all connections to it.
    pub(super) failovers: u64,
    /// How often the database came back older.
    pub(super) restores: usize,
    /// What somebody was told is durable.
    pub(super) acknowledged: BTreeSet<(String, i64)>,
}

pub(super) fn batch(ids: &[i64]) -> RecordBatch {
    let ids: arrow::array::ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

pub(super) fn ids_of(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

impl World {
    /// Whether the turn of all of `sources` is `number`'s from now on.
    pub(super) fn take_turn(&mut self, number: u64, sources: &BTreeSet<String>) -> bool {
        let is_free = !sources.iter().any(|source| self.turns.contains_key(source));
        if is_free {
            self.turns.extend(sources.iter().map(|source| (source.clone(), number)));
        }
        is_free
    }

    pub(super) fn give_back(&mut self, turn: u64) {
        self.turns.retain(|_, holder| *holder != turn);
    }

    pub(super) fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Database {
    pub(super) fn state(&self, source: &str) -> State {
        self.sources.get(source).map_or_else(State::default, |log| log.state)
    }

    pub(super) fn went_through(&self, source: &str, position: Position) -> bool {
        let Some(log) = self.sources.get(source) else { return false };
        match position.number.cmp(&log.state.forgotten.number) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => position == log.state.forgotten,
            std::cmp::Ordering::Greater => log.commits.iter().any(|commit| commit.position == position),
        }
    }

    pub(super) fn after(&self, source: &str, (number, end): (i64, u64)) -> Vec<Logged> {
        let Some(log) = self.sources.get(source) else { return Vec::new() };
        let from = number.max(log.state.forgotten.number);
        let is_asked =
            |commit: &&Commit| commit.position.number > from && commit.first + commit.ids.len() as u64 >= end;
        let logged = |commit: &Commit| Logged {
            position: commit.position,
            source: source.to_owned(),
            first: commit.first,
            history: batch(&commit.ids),
            in_head: commit.ids.len(),
            online: None,
        };
        log.commits.iter().filter(is_asked).map(logged).collect()
    }

    pub(super) fn commit(
        &mut self,
        lasts: &BTreeMap<String, Position>,
        groups: &[Logged],
        seen: &[(String, i64)],
    ) -> Result<()> {
        let is_last = |group: &Logged| {
            let last = lasts.get(&group.source).copied().unwrap_or_default();
            self.state(&group.source).last == last && group.position.number == last.number + 1
        };
        if !groups.iter().all(is_last) {
            return Err(Error::busy("another server pushed in between"));
        }
        for group in groups {
            let log = self.sources.entry(group.source.clone()).or_default();
            log.state.last = group.position;
            let (position, first) = (group.position, group.first);
            log.commits.push(Commit { position, first, ids: ids_of(&group.history) });
        }
        self.seen.extend(seen.iter().cloned());
        Ok(())
    }

    pub(super) fn sealed(&mut self, source: &str, end: u64) {
        let state = &mut self.sources.entry(source.to_owned()).or_default().state;
        state.sealed = state.sealed.max(end);
    }

    pub(super) fn forget(&mut self, source: &str, number: i64, end: u64) {
        let kept = self.segments.get(&(0, source.to_owned())).and_then(|segments| segments.last());
        let end = end.min(kept.map_or(0, |segment| segment.range.end));
        let Some(log) = self.sources.get_mut(source) else { return };
        let goes = |commit: &&Commit| {
            commit.position.number <= number && commit.first + commit.ids.len() as u64 <= end
        };
        let last = log.commits.iter().take_while(goes).last().map(|commit| commit.position);
        if let Some(last) = last.filter(|last| last.number > log.state.forgotten.number) {
            (log.state.forgotten, log.state.sealed) = (last, log.state.sealed.max(end));
        }
    }

    pub(super) fn segments(&self, disk: usize) -> Vec<Segment> {
        let of_disk = self.segments.iter().filter(|((of, _), _)| *of == disk);
        of_disk.flat_map(|(_, segments)| segments.clone()).collect()
    }

    pub(super) fn list(&self, disk: usize, source: &str) -> Vec<Segment> {
        self.segments.get(&(disk, source.to_owned())).cloned().unwrap_or_default()
    }

    pub(super) fn name_segment(
        &mut self,
        (disk, source): (usize, &str),
        range: Range,
        path: String,
        of: Option<Position>,
    ) -> Result<Segment> {
        let log = self.sources.get(source);
        let has = |of| log.is_some_and(|log| log.has(of));
        if !of.is_none_or(has) {
            return Err(Error::refused("the log has not these rows"));
        }
        let end = self.list(disk, source).last().map_or(0, |segment| segment.range.end);
        if end != range.first {
            return Err(Error::refused("the segments before have not these rows"));
        }
        let named = self.segments.entry((disk, source.to_owned())).or_default();
        if named.iter().any(|other| other.range.first < range.end && range.first < other.range.end) {
            return Err(Error::refused("these rows are in another segment already"));
        }
        let set = Set::of(Family::Pushed, "log", source);
        let rows = range.end - range.first;
        let file = Prepared { set, path, range, rows, bytes: 0, sha256: String::new() };
        named.push(Segment { file, created_us: 0 });
        named.sort_by_key(|segment| segment.range.first);
        Ok(named.iter().find(|segment| segment.range == range).unwrap().clone())
    }

    pub(super) fn remove(&mut self, disk: usize, old: &[Segment]) {
        for segment in old {
            if let Some(named) = self.segments.get_mut(&(disk, segment.set.name.clone())) {
                named.retain(|other| other.path != segment.path);
            }
        }
    }

    /// What history is: every row of a source, in its order.
    pub(super) fn history(&self, source: &str) -> Vec<i64> {
        let commits = self.sources.get(source).map(|log| &log.commits[..]).unwrap_or_default();
        commits.iter().flat_map(|commit| commit.ids.clone()).collect()
    }
}

impl Head {
    pub(super) fn count(&self, source: &str, key: i64) -> i64 {
        self.counts.get(&(source.to_owned(), key)).copied().unwrap_or_default()
    }

    /// Notes what is begun, where what was begun before is as it is said.
    pub(super) fn begin(&mut self, applied: &Applied) -> bool {
        let Applied { source, from, to } = applied;
        let begun = &mut self.standings.entry(source.clone()).or_default().begun;
        if *begun == from.begun {
            *begun = *to;
        }
        begun == to
    }

    /// Replaces counts where those are stored that they were made from.
    pub(super) fn replace(&mut self, source: &str, counts: &[(i64, i64, i64)]) -> Result<()> {
        let mut conflicts = false;
        for (key, from, to) in counts {
            match self.count(source, *key) {
                stored if stored == *from => _ = self.counts.insert((source.to_owned(), *key), *to),
                stored => conflicts |= stored != *to,
            }
        }
        match conflicts {
            true => Err(Error::busy("another server changed the same in between")),
            false => Ok(()),
        }
    }
}
