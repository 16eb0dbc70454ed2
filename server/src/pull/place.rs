//! How far is a source pulled, and from where on is it asked next?

use feature_defs::{Epoch, PullSource};
use quern_base::digest::sha256;
use quern_warehouse::sql::Bound;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many marks are kept.
const MARKS_MAX: usize = 64;
/// How many letters of a digest name a question.
const DIGEST_LETTERS: usize = 16;

/// How far a source is pulled: what is noted with the rows of each push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// How many pushes there were, so that no two places are the same: a late row does not move the cursor.
    pub(super) pushes: u64,
    /// The greatest cursor: µs, or a number.
    pub(super) greatest: i64,
    /// As what the database has it.
    pub(super) form: Form,
    /// Before these rows of what was pushed none has a greater cursor than these.
    pub(super) marks: Vec<(u64, i64)>,
}

/// As what a database has a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    /// As a time.
    Time,
    /// As a text that says one.
    Text,
    /// As a number.
    Number,
}

/// Names the question, of which a place is the answer's: other rows, or another cursor, which may be a time, are pulled
/// from the beginning.
pub(super) fn part(pull: &PullSource, is_time: bool, format: Option<Epoch>) -> String {
    let text = format!("{:?} by {:?} {is_time} {format:?}", pull.rows, pull.cursor);
    format!("pulled {}", &sha256(text.as_bytes())[..DIGEST_LETTERS])
}

impl Place {
    /// The place that was noted.
    pub(super) fn read(bytes: &[u8]) -> Result<Place> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::internal("reading how far a source is pulled", error))
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal("noting how far a source is pulled", error))
    }

    /// From which row on history may have one with a cursor of `lower` or more.
    pub(super) fn known_from(&self, lower: i64) -> u64 {
        let before = self.marks.iter().filter(|(_, greatest)| *greatest < lower);
        before.map(|(row, _)| *row).max().unwrap_or(0)
    }

    /// Notes that all rows before number `row` were pulled by now. Marks below `lower` but the last say nothing more.
    pub(super) fn mark(&mut self, row: u64, lower: i64) {
        let from = self.known_from(lower);
        self.marks.retain(|(marked, _)| *marked >= from && *marked < row);
        self.marks.push((row, self.greatest));
        while self.marks.len() > MARKS_MAX {
            // The oldest stays, which is the least that is ever asked for.
            let mut place = 0..;
            self.marks.retain(|_| place.next().is_none_or(|place| place == 0 || place % 2 == 1));
        }
    }
}

/// What is asked for from `lower` on, of a cursor that the database has as `form`; `format` says what numbers of a time
/// count.
pub(super) fn bound(lower: i64, form: Form, format: Option<Epoch>) -> Bound {
    match (form, format) {
        (Form::Time, _) => Bound::Time(lower),
        (Form::Text, _) => Bound::Text(lower),
        (Form::Number, None) => Bound::Number(lower),
        (Form::Number, Some(format)) => {
            let counted = (i128::from(lower) * i128::from(format.per_second())).div_euclid(1_000_000);
            Bound::Number(i64::try_from(counted).unwrap_or(if lower < 0 { i64::MIN } else { i64::MAX }))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is pulled and however far below it is looked, no row is skipped that may be the same.
        #[test]
        fn nothing_that_is_looked_for_is_skipped(pulls in vec((vec(0_i64..1_000, 0..5), 0_i64..300), 1..200)) {
            let mut place = Place { pushes: 0, greatest: 0, form: Form::Time, marks: Vec::new() };
            let mut cursors: Vec<i64> = Vec::new();
            for (new, overlap) in pulls {
                let lower = place.greatest - overlap;
                let skipped = place.known_from(lower) as usize;
                prop_assert!(cursors[..skipped].iter().all(|cursor| *cursor < lower));
                place.mark(cursors.len() as u64, lower);
                prop_assert!(place.marks.len() <= MARKS_MAX && Place::read(&place.bytes().unwrap()).unwrap() == place);
                cursors.extend(&new);
                place.greatest = new.into_iter().fold(place.greatest, i64::max);
            }
        }
    }

    #[test]
    fn a_bound_counts_what_the_numbers_of_a_cursor_count() {
        let number = |lower, format| bound(lower, Form::Number, format);
        assert_eq!(number(-7, None), Bound::Number(-7));
        assert_eq!(number(1_999_999, Epoch::named("epoch_s")), Bound::Number(1));
        assert_eq!(number(-1, Epoch::named("epoch_s")), Bound::Number(-1));
        assert_eq!(number(2_000, Epoch::named("epoch_ns")), Bound::Number(2_000_000));
        assert_eq!(number(i64::MIN, Epoch::named("epoch_ns")), Bound::Number(i64::MIN));
    }
}
