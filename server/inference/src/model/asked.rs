//! Which columns on the way do models on other servers give?

use std::ops::Range;

use arrow::datatypes::SchemaRef;

/// The columns that models on other servers give, together.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where they are among the vector's columns and those of the stages.
    pub(super) places: Vec<usize>,
    pub(super) schema: SchemaRef,
    /// For each of these models where its columns begin among all, and which of `places` they are.
    pub(super) steps: Vec<(usize, Range<usize>)>,
}

impl Asked {
    /// Which of its columns the step gives whose columns begin at `start`; none where that asks nobody.
    pub(super) fn of(&self, start: usize) -> Option<Range<usize>> {
        self.steps.iter().find(|(first, _)| *first == start).map(|(_, places)| places.clone())
    }
}
