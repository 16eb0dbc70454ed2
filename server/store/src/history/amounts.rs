//! How much was pushed to a source, and how new is it? Told of what is known already: no file is read.

use super::pushed::{PushedRows, times};

/// How much there is of what was pushed to a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// All rows.
    pub rows: u64,
    /// Those that are in no file yet.
    pub tail_rows: u64,
    /// Files of the others.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

impl PushedRows {
    /// How much there is.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            rows: self.end(),
            tail_rows: self.tail_size().0 as u64,
            files: self.files.len() as u64,
            bytes: self.files.iter().map(|file| file.file.bytes()).sum(),
        }
    }

    /// The greatest time (µs) in `column` of the rows that are in no file yet.
    pub fn newest_in_tail(&self, column: &str) -> Option<i64> {
        self.tail.iter().filter_map(|segment| times(&segment.rows, column)).map(|(_, newest)| newest).max()
    }
}
