//! Which files was the head of a view made of, each in which state?
//!
//! It is noted before rows of them come in, and so that a run which is cut short leaves all that may be in the head: of
//! one file there may be several states.

use crate::error::{Error, Result};

/// The version of the stored bytes: it, whether all rows are in, then of each file four numbers, little-endian.
const VERSION: u8 = 2;
/// Stands for the length of a file that is no text.
const NO_TEXT: u64 = u64::MAX;

/// Files, each in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeOf {
    files: Vec<Made>,
    /// Whether rows of some may not be in, of whatever time: whoever brought them in was cut short.
    pub lacks_some: bool,
}

/// A file in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Made {
    /// The hash of its name.
    pub(crate) name: u64,
    /// The hash of what tells this state of it from others without reading it.
    pub(crate) state: u64,
    /// What it held, where it may grow at its end.
    pub(crate) text: Option<Text>,
}

/// What a file of text held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text {
    /// How many bytes.
    pub(crate) bytes: u64,
    /// Their hash.
    pub(crate) hash: u64,
}

impl MadeOf {
    pub(crate) fn new(mut files: Vec<Made>) -> MadeOf {
        files.sort_unstable();
        files.dedup();
        MadeOf { files, lacks_some: false }
    }

    /// All files of both.
    #[must_use]
    pub fn union(&self, other: &MadeOf) -> MadeOf {
        let lacks_some = self.lacks_some || other.lacks_some;
        MadeOf { lacks_some, ..MadeOf::new([&self.files[..], &other.files].concat()) }
    }

    pub(crate) fn files(&self) -> &[Made] {
        &self.files
    }

    /// The states of the file whose name has this hash.
    pub(crate) fn of(&self, name: u64) -> &[Made] {
        let start = self.files.partition_point(|made| made.name < name);
        let end = self.files.partition_point(|made| made.name <= name);
        &self.files[start..end]
    }

    /// As bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.lacks_some)];
        for Made { name, state, text } in &self.files {
            let (bytes, hash) = text.map_or((NO_TEXT, 0), |text| (text.bytes, text.hash));
            [*name, *state, bytes, hash].into_iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        out
    }

    /// From the bytes that [`MadeOf::write`] made.
    pub(crate) fn read(bytes: &[u8]) -> Result<MadeOf> {
        let [VERSION, lacks_some, numbers @ ..] = bytes else {
            return Err(Error::refused(
                "the online store says in another version than this build reads what it was made of; use the build \
                 that wrote it, or remove the head and materialize again",
            ));
        };
        let numbers: Vec<u64> =
            numbers.as_chunks().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect();
        let made = |[name, state, bytes, hash]: &[u64; 4]| {
            let text = (*bytes != NO_TEXT).then_some(Text { bytes: *bytes, hash: *hash });
            Made { name: *name, state: *state, text }
        };
        let files = MadeOf::new(numbers.as_chunks().0.iter().map(made).collect());
        Ok(MadeOf { lacks_some: *lacks_some != 0, ..files })
    }
}
