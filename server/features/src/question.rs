//! What is history asked, and how is an answer kept?

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use quern_base::memory::{Lease, Part};
use quern_engine::key::Keys;
use quern_engine::size::{check_together, text_ends};
use quern_engine::windows::Excluded;
use quern_engine::{Failed, Found, RowState, ViewPlan};

use crate::error::Result;

/// Keys and query times of one view, row by row.
pub struct Question<'a> {
    /// The view.
    pub view: &'a ViewPlan,
    /// The keys.
    pub keys: &'a Keys,
    /// The query times, µs.
    pub query_times_us: &'a [i64],
    /// Where events are left out: for each row the one that does not count.
    pub excluded: Option<&'a [Option<Excluded>]>,
    /// The places of the features wanted among the view's.
    pub features: &'a [usize],
    /// Rows created after the query time are invisible.
    pub as_known: bool,
    /// Whether an expired row must be told from none. Without it, rows that are too old to count are not even read.
    pub expired: bool,
    /// Whether a key of which no event was ever visible must be told from one whose windows are empty: history is read
    /// from its beginning then.
    pub unseen: bool,
    /// Where the rows that are found are taken from; none where nobody counts.
    pub room: Option<&'a Arc<Lease>>,
}

/// The answer to a [`Question`], row by row, kept as the rows of history that it needs.
pub struct Answer {
    /// For each feature one null, and the pieces that were read.
    features: Vec<Feature>,
    /// Where each answer is among the pieces.
    rows: Vec<Place>,
    states: Vec<RowState>,
    /// Of rows; none where the answers are aggregates of many.
    event_timestamps_us: Option<Vec<i64>>,
    /// Which rows' values could not be computed, by the view's features; and of how many events.
    pub failed: Failed,
    /// How many rows saw a row that became visible at their very query time.
    pub coinciding: u64,
    /// What the pieces take, for as long as they are there.
    pub(crate) held: Option<Part>,
}

struct Feature {
    null: ArrayRef,
    pieces: Vec<ArrayRef>,
}

/// Where the answer to one row of a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is none.
    Null,
    /// A row of a piece.
    Row { piece: u32, row: u32 },
}

impl Answer {
    /// The answer to `question`: `pieces` that were read, with a column for each feature, and where in them each row's
    /// answer is.
    pub(crate) fn new(
        question: &Question,
        pieces: Vec<Vec<ArrayRef>>,
        rows: Vec<Place>,
        states: Vec<RowState>,
        event_timestamps_us: Option<Vec<i64>>,
    ) -> Answer {
        let mut features: Vec<Feature> = question
            .features
            .iter()
            .map(|feature| question.view.features.field(*feature).data_type())
            .map(|dtype| Feature { null: new_null_array(dtype, 1), pieces: Vec::with_capacity(pieces.len()) })
            .collect();
        for columns in pieces {
            features.iter_mut().zip(columns).for_each(|(feature, column)| feature.pieces.push(column));
        }
        let (failed, coinciding, held) = (Failed::default(), 0, None);
        Answer { features, rows, states, event_timestamps_us, failed, coinciding, held }
    }

    /// The answers to the questions in `rows`; what failed has the names of the view still.
    pub fn found(&self, rows: Range<usize>) -> Result<Found> {
        // As Arrow has it: the first array is the null, and the pieces follow.
        let index = |place: &Place| match place {
            Place::Null => (0, 0),
            Place::Row { piece, row } => (*piece as usize + 1, *row as usize),
        };
        let indices: Vec<(usize, usize)> = self.rows[rows.clone()].iter().map(index).collect();
        let (mut columns, mut bytes) = (Vec::with_capacity(self.features.len()), 0);
        for feature in &self.features {
            let arrays: Vec<&dyn Array> =
                std::iter::once(&feature.null).chain(&feature.pieces).map(AsRef::as_ref).collect();
            bytes += gathered_bytes(&arrays, &indices);
            check_together(rows.len(), bytes)?;
            columns.push(interleave(&arrays, &indices)?);
        }
        Ok(Found {
            columns,
            states: self.states[rows.clone()].to_vec(),
            event_timestamps: self
                .event_timestamps_us
                .as_ref()
                .map_or(Vec::new(), |all| all[rows.clone()].to_vec()),
            absent: Vec::new(),
            failed: self.failed.slice(rows),
        })
    }
}

/// How many bytes of values that are of any length the rows at `indices` have, before they are copied.
fn gathered_bytes(arrays: &[&dyn Array], indices: &[(usize, usize)]) -> usize {
    fn sum(indices: &[(usize, usize)], length: impl Fn(usize, usize) -> i32) -> usize {
        indices.iter().map(|(array, row)| length(*array, *row) as usize).sum()
    }
    macro_rules! lengths {
        ($as:ident) => {{
            let arrays: Vec<_> = arrays.iter().map(|array| array.$as::<i32>()).collect();
            sum(indices, |array, row| arrays[array].value_length(row))
        }};
    }
    let ends: Vec<_> = arrays.iter().filter_map(|array| text_ends(*array)).collect();
    let texts = match ends.is_empty() {
        true => 0,
        false => sum(indices, |array, row| ends[array][row + 1] - ends[array][row]),
    };
    texts
        + match arrays[0].data_type() {
            DataType::Utf8 => lengths!(as_string),
            DataType::Binary => lengths!(as_binary),
            DataType::List(item) => {
                lengths!(as_list) * item.data_type().primitive_width().unwrap_or(size_of::<u64>())
            }
            _ => 0,
        }
}

/// Counts pieces up while rows are looked for in ascending order.
pub(crate) struct Cursor<'a> {
    /// How many rows lie before each piece.
    before: &'a [usize],
    piece: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(before: &'a [usize]) -> Cursor<'a> {
        Cursor { before, piece: 0 }
    }

    /// Where the row is that comes after `index` others; never one before the last that was looked for.
    pub(crate) fn place(&mut self, index: usize) -> Place {
        while self.before.get(self.piece + 1).is_some_and(|before| *before <= index) {
            self.piece += 1;
        }
        Place::Row { piece: self.piece as u32, row: (index - self.before[self.piece]) as u32 }
    }
}
