//! Which labels count still?
//!
//! Not those that a later one supersedes: one of the same sender, or one that counts for all. Of those that belong to
//! no logged request of their sender the newest, as many as there is room for: a label may come before its prediction
//! is in a file, and its request may be none of the sample; but the others would be there for ever, and anybody may
//! send any number of them.
//!
//! What is held is a byte for each label, and of some requests at a time what their labels and predictions say. A
//! request is one of these some by a number that its id makes, so all labels are read once for each lot.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use quern_store::segments::{Segment, Segments};

use super::columns::{PRINCIPAL, Principals, REQUEST_ID, ROW, required};
use crate::error::{Error, Result};
use crate::logged::{Between, PredictionLog};

/// Whether a label counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Counts,
    Superseded,
    /// It belongs to no logged request.
    Stranger,
    /// The same, and there is no room for it.
    Dropped,
}

impl Mark {
    pub(super) fn stays(self) -> bool {
        matches!(self, Mark::Counts | Mark::Stranger)
    }
}

/// Segments of labels of one model, in the order of the log, and what is looked at beside them.
pub(super) struct Counting<'a> {
    pub(super) segments: &'a Segments,
    pub(super) predictions: &'a PredictionLog,
    pub(super) model: &'a str,
    pub(super) files: &'a [Segment],
    /// Labels that are looked at together, of about as many requests.
    pub(super) together: usize,
    /// What strangers may take in the store.
    pub(super) strangers_bytes: u64,
}

impl Counting<'_> {
    /// Marks each label of each file; `go_on` is asked before each lot.
    ///
    /// # Errors
    /// Where a file of labels or of predictions cannot be read: nobody knows then what counts.
    pub(super) fn run(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Vec<Mark>>> {
        let mut marks: Vec<Vec<Mark>> =
            self.files.iter().map(|file| vec![Mark::Counts; file.rows as usize]).collect();
        let (rows, bytes) = (marks.iter().map(Vec::len).sum::<usize>(), self.files.iter().map(|f| f.bytes));
        let may_be_many = bytes.sum::<u64>() > self.strangers_bytes;
        if may_be_many {
            // What was predicted a moment ago is logged as well.
            self.predictions.flush_here();
        }
        let (lots, hashes) = (rows.div_ceil(self.together.max(1)) as u64, RandomState::new());
        for lot in 0..lots {
            go_on()?;
            let is_of_lot = |id: &str| hashes.hash_one(id) % lots == lot;
            let requests = self.supersede(&is_of_lot, &mut marks)?;
            if may_be_many {
                self.find_strangers(requests, &mut marks)?;
            }
        }
        self.make_room(&mut marks);
        Ok(marks)
    }

    /// Marks the labels that are superseded, of the requests of a lot. Gives these.
    fn supersede(&self, is_of_lot: &dyn Fn(&str) -> bool, marks: &mut [Vec<Mark>]) -> Result<Requests> {
        let mut requests = Requests::default();
        for (file, segment) in self.files.iter().enumerate() {
            let mut first = 0;
            for labels in self.segments.read(segment, Some(&[REQUEST_ID, ROW, PRINCIPAL]))? {
                let labels = labels?;
                let ids = required(&labels, REQUEST_ID)?.as_string::<i32>();
                let rows = required(&labels, ROW)?.as_primitive::<Int64Type>();
                let principals = Principals::of(&labels);
                for row in (0..labels.num_rows()).filter(|row| is_of_lot(ids.value(*row))) {
                    let label = (ids.value(row), rows.value(row), principals.get(row));
                    requests.label(label, (file, first + row), |(file, row)| {
                        marks[file][row] = Mark::Superseded;
                    });
                }
                first += labels.num_rows();
            }
            if first != marks[file].len() {
                return Err(Error::broken(
                    "a segment of labels has another number of rows than its name says",
                ));
            }
        }
        Ok(requests)
    }

    /// Marks those labels that belong to no logged request.
    fn find_strangers(&self, mut requests: Requests, marks: &mut [Vec<Mark>]) -> Result<()> {
        for file in self.predictions.files(self.model, Between::default())? {
            self.predictions.requests(&file, |id, asked_by| requests.logged(id, asked_by))?;
        }
        for (file, row) in requests.strangers() {
            marks[file][row] = Mark::Stranger;
        }
        Ok(())
    }

    /// Drops the oldest strangers that there is no room for. What one takes is as much as any other label of its file.
    fn make_room(&self, marks: &mut [Vec<Mark>]) {
        let mut left = self.strangers_bytes as f64;
        for (file, marks) in self.files.iter().zip(marks).rev() {
            let bytes = file.bytes as f64 / file.rows.max(1) as f64;
            for mark in marks.iter_mut().rev().filter(|mark| **mark == Mark::Stranger) {
                left -= bytes;
                if left < 0.0 {
                    *mark = Mark::Dropped;
                }
            }
        }
    }
}

/// Where a label lies: a file and a row in it.
type Place = (usize, usize);

/// Nobody that is known.
const NOBODY: u32 = 0;

/// What is known of some requests.
#[derive(Default)]
struct Requests {
    /// Numbers them.
    ids: HashMap<Box<str>, u32>,
    /// Numbers those who label, from 1 on.
    principals: HashMap<Box<str>, u32>,
    is_logged: Vec<bool>,
    /// Who asked for which request, of those who label.
    asked_by: HashSet<(u32, u32)>,
    /// The last labels of each of their rows, by who labelled.
    last: HashMap<(u32, i64), Vec<(u32, Place)>>,
}

impl Requests {
    /// Notes a label of a request's row by somebody; tells those that it supersedes.
    fn label(
        &mut self,
        (id, row, by): (&str, i64, Option<&str>),
        place: Place,
        mut superseded: impl FnMut(Place),
    ) {
        let request = match self.ids.get(id) {
            Some(request) => *request,
            None => {
                let request = self.is_logged.len() as u32;
                self.ids.insert(id.into(), request);
                self.is_logged.push(false);
                request
            }
        };
        let by = by.map_or(NOBODY, |name| self.number(name));
        let labels = self.last.entry((request, row)).or_default();
        labels.retain(|(before, place)| {
            let goes = by == NOBODY || by == *before;
            if goes {
                superseded(*place);
            }
            !goes
        });
        labels.push((by, place));
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.principals.get(name) {
            return *number;
        }
        let number = self.principals.len() as u32 + 1;
        self.principals.insert(name.into(), number);
        number
    }

    /// Notes that a request was logged, and who asked for it.
    fn logged(&mut self, id: &str, asked_by: Option<&str>) {
        let Some(request) = self.ids.get(id) else { return };
        self.is_logged[*request as usize] = true;
        let by = asked_by.map_or(Some(NOBODY), |name| self.principals.get(name).copied());
        self.asked_by.extend(by.map(|by| (*request, by)));
    }

    /// The labels that count for none that was.
    fn strangers(self) -> impl Iterator<Item = Place> {
        let Requests { is_logged, asked_by, last, .. } = self;
        let counts = move |request: u32, by: u32| match by {
            NOBODY => is_logged[request as usize],
            by => asked_by.contains(&(request, by)) || asked_by.contains(&(request, NOBODY)),
        };
        let labels = last.into_iter().flat_map(|((request, _), labels)| {
            labels.into_iter().map(move |(by, place)| (request, by, place))
        });
        labels.filter(move |(request, by, _)| !counts(*request, *by)).map(|(_, _, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_labels_for_all_supersedes_and_others_their_own() {
        let mut requests = Requests::default();
        let mut gone = Vec::new();
        for (row, (id, by)) in [
            ("q", Some("a")),
            ("q", Some("b")),
            ("q", Some("a")),
            ("r", Some("a")),
            ("r", None),
            ("r", Some("b")),
            ("s", Some("a")),
            ("t", None),
            ("u", Some("b")),
        ]
        .into_iter()
        .enumerate()
        {
            requests.label((id, 0, by), (0, row), |(_, row)| gone.push(row));
        }
        assert_eq!(gone, [0, 3]);
        // Of `s` somebody else was the one who asked, of `t` nobody, and of `u` it is not known who was.
        for (id, asked_by) in
            [("q", Some("a")), ("r", Some("c")), ("s", Some("b")), ("u", None), ("x", Some("a"))]
        {
            requests.logged(id, asked_by);
        }
        let mut strangers: Vec<usize> = requests.strangers().map(|(_, row)| row).collect();
        strangers.sort_unstable();
        assert_eq!(strangers, [1, 5, 6, 7]);
    }
}
